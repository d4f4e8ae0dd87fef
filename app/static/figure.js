// A figure: a field with its axes.
//
//     row name   title                             legend
//        ticks   [ field                                ]
//  column name   ticks
//      seconds   ticks, where it is known how long a column is

import { element } from "./dom.js";

const MOST_COLUMN_TICKS = 10;
const ROUND = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

/**
 * Return a figure.
 *
 * title, legend: above the field, the latter an element. rowTicks: elements, placed by `tick`. rows, rowHeight: in CSS
 * pixels. columns: how many; columnsPerItem: those that belong together. rowName, columnName: what the axes count.
 * seconds: of one column, if it is a time. bare: without an axis of columns, as where the next figure has the same.
 */
export function figure(plot, field, rowTicks, legend = "") {
  const created = element(
    "figure",
    { className: "plot" },
    element("span", { className: "row-name" }, plot.rowName),
    element("figcaption", {}, element("span", {}, plot.title), legend),
    element("div", { className: "row-ticks" }, ...rowTicks),
    field,
    ...(plot.bare ? [] : axis(plot.columnName, columnTicks(plot.columns))),
    ...(plot.bare || !plot.seconds ? [] : axis("seconds", secondTicks(plot))),
  );
  created.classList.toggle("bare", Boolean(plot.bare));
  created.style.setProperty("--columns", plot.columns);
  created.style.setProperty("--rows", plot.rows);
  created.style.setProperty("--per-item", plot.columnsPerItem ?? 1);
  created.style.setProperty("--row-height", `${plot.rowHeight}px`);
  return created;
}

/** Return a label at `part` of `whole`, from the left or from the top. */
export function tick(label, side, part, whole) {
  const created = element("span", {}, `${label}`);
  created.style[side] = percent(part, whole);
  return created;
}

/** Return round numbers below `count`, about `most` of them. */
export function steps(count, most) {
  const step = ROUND.find((size) => count / size <= most) ?? ROUND.at(-1);
  return Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
}

export function percent(part, whole) {
  return `${(100 * part) / whole}%`;
}

/** Return the name of a column as text, such as "step 3", and when it begins. */
export function columnText({ columnName, seconds }, column) {
  return `${columnName} ${column}${seconds ? ` (${(seconds * column).toFixed(3)} s)` : ""}`;
}

function axis(name, ticks) {
  return [
    element("span", { className: "column-name" }, name),
    element("div", { className: "column-ticks" }, ...ticks),
  ];
}

function columnTicks(count) {
  return steps(count, MOST_COLUMN_TICKS).map((column) => tick(column, "left", column + 0.5, count));
}

function secondTicks({ columns, seconds }) {
  const length = columns * seconds;
  const unit = 10 ** Math.floor(Math.log10(length / MOST_COLUMN_TICKS)); // so that there are 10 to 100 of them
  const digits = Math.max(0, -Math.log10(unit));
  const ticks = steps(length / unit, MOST_COLUMN_TICKS).map((count) =>
    tick(count === 0 ? 0 : (count * unit).toFixed(digits), "left", count * unit, length),
  );
  ticks[0].className = "begin";
  return ticks;
}
