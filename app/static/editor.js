import { cellAt, heatmap, paint } from "./heatmap.js";
import { BITS } from "./scales.js";

const ROW_HEIGHT = 20; // enough to hit with a finger

/** A grid of bits to draw on: a press turns a cell over, a drag gives the others that it meets the same bit. */
export class Editor {
  /** `onChange` is called after every change by hand, `onPoint` as by a heat map. */
  constructor(container, onChange, onPoint) {
    this.container = container;
    this.onChange = onChange;
    this.onPoint = onPoint;
    this.pattern = [];
  }

  /** Draw patterns for `task` from now on; what is drawn stays if it has as many rows. */
  setTask(task) {
    if (this.task?.rows !== task.rows) this.pattern = [];
    this.task = task;
  }

  /** Make the pattern this long; new columns are empty. */
  resize(length) {
    this.fill(length, (column, row) => this.pattern[column]?.[row] ?? 0);
  }

  clear() {
    this.fill(this.pattern.length, () => 0);
  }

  randomize() {
    this.fill(this.pattern.length, () => Math.round(Math.random()));
  }

  fill(length, bit) {
    this.pattern = Array.from({ length }, (_, column) =>
      Array.from({ length: this.task.rows }, (_, row) => bit(column, row)),
    );
    this.show();
  }

  show() {
    const plot = {
      name: "drawing",
      title: "Drawing",
      columns: this.pattern,
      rows: this.task.rows,
      rowName: "channel",
      columnName: this.task.columnName,
      scale: BITS,
      ruled: true,
      rowHeight: ROW_HEIGHT,
    };
    const figure = heatmap(plot, this.onPoint);
    this.listen(figure.querySelector("canvas"), plot);
    this.container.replaceChildren(figure);
  }

  listen(canvas, plot) {
    let bit;
    let last;
    const draw = (cell) => {
      for (const { column, row } of cellsBetween(last, cell)) this.pattern[column][row] = bit;
      last = cell;
      paint(canvas, plot);
      this.onChange();
    };
    canvas.addEventListener("pointerdown", (event) => {
      last = cellAt(canvas, event);
      bit = 1 - this.pattern[last.column][last.row];
      canvas.setPointerCapture(event.pointerId);
      draw(last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) draw(cellAt(canvas, event));
    });
  }
}

/** Return the cells on the line from one to another: a fast pointer is seen only here and there. */
function cellsBetween(from, to) {
  const columns = to.column - from.column;
  const rows = to.row - from.row;
  const steps = Math.max(Math.abs(columns), Math.abs(rows), 1);
  return Array.from({ length: steps + 1 }, (_, step) => ({
    column: from.column + Math.round((columns * step) / steps),
    row: from.row + Math.round((rows * step) / steps),
  }));
}
