// One heat map: a canvas with one pixel for each value, which the browser enlarges without smoothing, and its axes.

import { element } from "./dom.js";
import { columnText, figure, percent, steps, tick } from "./figure.js";
import { eachFrame } from "./frames.js";
import { short } from "./parts.js";
import { walkable } from "./walk.js";

// In CSS pixels.
const TALLEST_ROW = 14;
const HEIGHT = 208;
const TICK_HEIGHT = 26;
const LABEL_HEIGHT = 12; // of rows that are all to be named

const MOST_SHARP_COLUMNS = 512; // of more, the browser shows the mean of neighbours, so that no step disappears

/**
 * Return a figure of `plot`:
 *
 * name: of the canvas, as its data-name; title.
 * columns: the values, [columns][rows]; a column that is null stays empty.
 * rows: how many rows; rowLabels: a name for each, where a number would not do; rowHeight: where the usual would not.
 * digits: how many decimals to show, where not three; names: of the values 0, 1, ..., where they stand for something.
 * rowName, columnName, seconds, bare: see figure.js.
 * press: called with a cell where the space bar is pressed on it.
 * scale: from values to colours; marks: [{row, column}] to point out; ruled: show the borders of the cells,
 *     and columnsPerItem: more so after this many columns, where they belong together.
 *
 * `onPoint` is called with a description of the value under the pointer, and its column.
 */
export function heatmap(plot, onPoint) {
  const canvas = element("canvas", { ariaLabel: summary(plot), role: "img" });
  canvas.dataset.name = plot.name;
  paint(canvas, plot);
  const point = (cell) => onPoint(describe(plot, cell), cell.column);
  const follow = eachFrame((event) => point(cellAt(canvas, event)));
  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("pointerleave", follow.cancel);
  walkable(canvas, { ...pictureOf(plot), point, leave: () => {} });
  const field = element("div", { className: "field" }, canvas, ...(plot.marks ?? []).map((cell) => mark(plot, cell)));
  field.classList.toggle("ruled", Boolean(plot.ruled));
  field.classList.toggle("items", plot.columnsPerItem > 1);
  field.classList.toggle("dense", plot.columns.length > MOST_SHARP_COLUMNS);
  const counted = { ...plot, columns: plot.columns.length, rowHeight: rowHeight(plot) };
  return figure(counted, field, rowTicks(plot), colorBar(plot.scale));
}

/** Show the values of `plot` on `canvas`. */
export function paint(canvas, { columns, rows, scale }) {
  const image = new ImageData(columns.length, rows);
  columns.forEach((column, x) => {
    column?.forEach((value, y) => image.data.set([...scale.color(value), 255], 4 * (y * columns.length + x)));
  });
  canvas.width = columns.length;
  canvas.height = rows;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Return the row and column under the pointer, or the nearest ones if it is outside. */
export function cellAt(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const nearest = (fraction, count) => Math.min(Math.max(Math.floor(fraction * count), 0), count - 1);
  return {
    column: nearest((event.clientX - box.left) / box.width, canvas.width),
    row: nearest((event.clientY - box.top) / box.height, canvas.height),
  };
}

function rowHeight({ rows, rowHeight: asked }) {
  return asked ?? Math.min(Math.max(Math.round(HEIGHT / rows), 1), TALLEST_ROW);
}

function rowTicks(plot) {
  const height = plot.rowLabels && rowHeight(plot) >= LABEL_HEIGHT ? LABEL_HEIGHT : TICK_HEIGHT;
  const most = (plot.rows * rowHeight(plot)) / height;
  return steps(plot.rows, most).map((row) => tick(plot.rowLabels?.[row] ?? row, "top", row + 0.5, plot.rows));
}

function mark({ columns, rows }, { column, row }) {
  const created = element("i", { className: "mark" });
  created.style.left = percent(column, columns.length);
  created.style.top = percent(row, rows);
  return created;
}

function colorBar({ low, high, gradient }) {
  const bar = element("i");
  bar.style.backgroundImage = gradient;
  return element("span", { className: "color-bar" }, number(low), bar, number(high));
}

function summary({ title, rows, rowName, columns, columnName }) {
  return `${title}: ${rows} × ${columns.length} values, ${rowName} by ${columnName}`;
}

/** Return what there is to walk (see walk.js). */
function pictureOf(plot) {
  return {
    title: () => plot.title,
    columns: plot.columns.length,
    rows: plot.rows,
    columnName: (column) => columnText(plot, column),
    rowName: (row) => nameOfRow(plot, row),
    text: (column, row) => valueText(plot, plot.columns[column]?.[row]),
    press: plot.press,
  };
}

function describe(plot, { row, column }) {
  const place = plot.rowName ? `${nameOfRow(plot, row)}, ` : "";
  return `${place}${columnText(plot, column)}: ${valueText(plot, plot.columns[column]?.[row])}`;
}

function nameOfRow({ rowName, rowLabels, title }, row) {
  return rowName ? `${rowName} ${rowLabels?.[row] ?? row}` : title;
}

function valueText({ digits, names }, value) {
  return value === undefined ? "not asked for" : (names?.[value] ?? value.toFixed(digits ?? 3));
}

function number(value) {
  return Number.isInteger(value) ? `${value}` : Math.abs(value) < 0.01 ? short(value) : value.toFixed(2);
}
