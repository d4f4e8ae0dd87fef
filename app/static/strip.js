// A strip: values over time, a column for each step and a row for each value, drawn as they come in.
//
//     title              colour bar
//     row | field
//   names | (the axis of time is below the last strip of a panel)

import { element } from "./dom.js";
import { steps, tick } from "./figure.js";

const LABEL_HEIGHT = 10; // CSS pixels that the name of a row takes
const [MOST_ROW, MOST] = [28, 260]; // CSS pixels of a row and of a strip, at most, where there is nothing else to show
export const MARK = "#ff5a4f";

/**
 * Values over time.
 *
 * plot: name: of the canvas, as its data-name; title; rows: how many; rowName: of one; rowLabels: a name for each, where
 * a number would not do; scale(): returns that from values to colours; least: wanted height in CSS pixels, and lowest, where
 * there is too little room; share: of the height that is left; caption: above it, where not the title; beside: text in place of
 * the names of its rows; values(step): returns those of a step, or nothing where there are none; wrong(step): returns the rows to frame;
 * names: of the values 0, 1, ..., where they stand for something; isSlots: whether the rows are memory locations.
 */
export class Strip {
  constructor(plot, length) {
    Object.assign(this, { plot, length });
    this.label = `${plot.title}: ${plot.rows} × ${length} values, ${plot.rowName} by time`;
    this.canvas = element("canvas", { width: length, height: plot.rows, role: "img", ariaLabel: this.label });
    this.canvas.dataset.name = plot.name;
    this.context = this.canvas.getContext("2d");
    this.marks = element("canvas", { className: "marks", ariaHidden: "true" });
    this.field = element("div", { className: plot.isSlots ? "field slots" : "field" }, this.canvas, this.marks);
    this.field.style.setProperty("--rows", plot.rows);
    this.ticks = element("div", { className: "row-ticks" });
    this.title = plot.title;
    this.caption = element("figcaption", {}, plot.caption ?? plot.title);
    this.element = element("figure", { className: this.caption.textContent ? "strip" : "strip uncaptioned" }, this.caption, this.ticks, this.field);
    this.element.style.setProperty("--least", `${plot.least}px`);
    this.element.style.setProperty("--lowest", `${this.lowest}px`);
    this.element.style.setProperty("--most", `${this.most}px`);
    this.element.style.setProperty("--rows", plot.rows);
    this.element.style.setProperty("--share", plot.share ?? 0);
  }

  /** The height in CSS pixels that it takes at least. */
  get lowest() {
    return this.plot.lowest ?? this.plot.least;
  }

  /** The height in CSS pixels up to which it grows where there is nothing else to show. */
  get most() {
    return Math.min(this.plot.rows * MOST_ROW, MOST);
  }

  /** Draw the steps from `from` to before `to`. */
  draw(from, to) {
    const { rows, values } = this.plot;
    const scale = this.plot.scale();
    if (scale !== this.scale) [from, this.scale] = [0, scale]; // what was drawn has the colours of another one
    if (to <= from) return;
    const image = new ImageData(to - from, rows);
    for (let step = from; step < to; step++) {
      const column = values(step);
      if (!column) continue;
      for (let row = 0; row < rows; row++) {
        scale.paint(image.data, 4 * (row * (to - from) + step - from), column[row]);
      }
    }
    this.context.putImageData(image, from, 0);
  }

  /** Draw what depends on the size in pixels: the frames of wrong values, and the names of rows. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.field;
    this.ticks.replaceChildren(...this.names(height));
    if (this.plot.wrong) this.frame(this.plot.wrong, width, height);
  }

  /** Return the names of as many rows as there is room for, or what stands in their place. */
  names(height) {
    const { rows, rowLabels, beside } = this.plot;
    if (beside) return [tick(beside, "top", 1, 2)];
    const most = height / LABEL_HEIGHT;
    const named = rowLabels && rows <= most ? rows : most / 2;
    return steps(rows, named).map((row) => tick(rowLabels?.[row] ?? row, "top", row + 0.5, rows));
  }

  frame(wrong, width, height) {
    const ratio = window.devicePixelRatio;
    Object.assign(this.marks, { width: width * ratio, height: height * ratio });
    const context = this.marks.getContext("2d");
    const [cell, row] = [this.marks.width / this.length, this.marks.height / this.plot.rows];
    context.strokeStyle = MARK;
    context.lineWidth = Math.max(1, Math.min(2 * ratio, cell / 4, row / 4));
    let count = 0;
    for (let step = 0; step < this.length; step++) {
      const rows = wrong(step);
      count += rows.length;
      for (const index of rows) context.strokeRect(step * cell, index * row, cell, row);
    }
    this.title = count > 0 ? `${this.plot.title}, what is wrong framed` : this.plot.title;
    this.caption.textContent = this.title;
    this.canvas.ariaLabel = count > 0 ? `${this.label}, ${count} of them framed as wrong` : this.label;
  }

  /** Return the row at a height of the window, or the nearest one. */
  rowAt(clientY) {
    const { top, height } = this.field.getBoundingClientRect();
    const { rows } = this.plot;
    return Math.min(Math.max(Math.floor((rows * (clientY - top)) / height), 0), rows - 1);
  }

  /** Return a value as text, with its place; from: the time of the first step. */
  describe(step, row, from = 0) {
    return `${this.rowName(row)}, time ${from + step}: ${this.text(step, row)}`;
  }

  rowName(row) {
    const { rowName, rowLabels } = this.plot;
    return `${rowName} ${rowLabels?.[row] ?? row}`;
  }

  text(step, row) {
    const { values, names, digits = 3 } = this.plot;
    const value = values(step)?.[row];
    return value === undefined ? "not asked for" : (names?.[value] ?? value.toFixed(digits));
  }

  /** Return what there is to walk (see walk.js); from: the time of the first step. */
  picture(from = 0) {
    return {
      title: () => this.title,
      columns: this.length,
      rows: this.plot.rows,
      columnName: (step) => `time ${from + step}`,
      rowName: (row) => this.rowName(row),
      text: (step, row) => this.text(step, row),
      isTimed: true,
    };
  }
}
