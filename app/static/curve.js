// One curve over time: a line in an SVG, whose colours are those of the page.

import { element } from "./dom.js";
import { columnText, figure, tick } from "./figure.js";
import { eachFrame } from "./frames.js";
import { extent, short } from "./parts.js";
import { walkable } from "./walk.js";

const SVG = "http://www.w3.org/2000/svg";

// In CSS pixels.
const HEIGHT = { wave: 104, curves: 64 };
const LOW_HEIGHT = 40; // of one of several curves that belong together

const MOST_POINTS = 4096; // of a line; of more values, the least and the greatest of each run of neighbours

/**
 * Return a figure of `plot`:
 *
 * name: of the image, as its data-name; title; style: "wave" or "curves" (see parts.js).
 * values: in order, `perStep` for each of `columns` steps; range: [low, high] that is shown at least, or null.
 * size: how many curves belong together; columnName, seconds, bare: see figure.js.
 *
 * `onPoint` is called with a description of the value under the pointer, and its step.
 */
export function curve(plot, onPoint) {
  const [low, high] = (plot.limits = limitsOf(plot));
  const viewBox = `0 0 ${plot.columns} 1`;
  const image = vector("svg", { viewBox, preserveAspectRatio: "none", role: "img", "aria-label": summary(plot) });
  image.dataset.name = plot.name;
  const zero = low < 0 && high > 0 ? `M0,${heightOf(plot, 0)}H${plot.columns}` : "";
  image.append(...[["zero", zero], ["area", ""], ["line", ""]].map(([name, d]) => vector("path", { class: name, d })));
  draw(image, plot);
  const field = element("div", { className: "field" }, image);
  const point = (index) => onPoint(describe(plot, index), Math.floor(index / plot.perStep));
  const follow = eachFrame((event) => point(valueAt(image, plot, event).index));
  field.addEventListener("pointermove", follow);
  field.addEventListener("pointerleave", follow.cancel);
  walkable(image, { ...pictureOf(plot), point: ({ column }) => point(column), leave: () => {} });
  const isOneOfSeveral = plot.size > 1 && plot.perStep === 1;
  const rowHeight = isOneOfSeveral ? LOW_HEIGHT : HEIGHT[plot.style];
  const created = figure({ ...plot, rowName: "", rows: 1, rowHeight }, field, rowTicks(plot));
  created.classList.add("curve");
  return created;
}

/** Show the values of `plot` in `image`. */
export function draw(image, plot) {
  const points = pointsOf(plot);
  const line = points.map(([x, y]) => `${x.toFixed(3)},${y.toFixed(4)}`).join("L");
  image.querySelector(".line").setAttribute("d", `M${line}${points.length === 1 ? "h0" : ""}`);
  if (plot.style === "wave") return;
  const base = heightOf(plot, 0).toFixed(4);
  image.querySelector(".area").setAttribute("d", `M${points[0][0]},${base}L${line}L${points.at(-1)[0]},${base}Z`);
}

/** Return the index of the value under the pointer, or of the nearest one, and the value that is as high as it. */
export function valueAt(image, { values, limits: [low, high] }, event) {
  const box = image.getBoundingClientRect();
  const within = (fraction) => Math.min(Math.max(fraction, 0), 1);
  const index = Math.floor(within((event.clientX - box.left) / box.width) * values.length);
  return {
    index: Math.min(index, values.length - 1),
    value: high - within((event.clientY - box.top) / box.height) * (high - low),
  };
}

/** Return the points of the line, [x in steps, y from 0 at the top to 1]. */
function pointsOf(plot) {
  const { values, perStep } = plot;
  const point = (index) => [(index + 0.5) / perStep, heightOf(plot, values[index])];
  if (values.length <= MOST_POINTS) return Array.from(values, (_, index) => point(index));
  const length = Math.ceil((2 * values.length) / MOST_POINTS);
  const starts = Array.from({ length: Math.ceil(values.length / length) }, (_, number) => number * length);
  return starts.flatMap((start) => extremes(values, start, Math.min(start + length, values.length)).map(point));
}

/** Return where the least and the greatest of the values from `start` to `stop` are, in their order. */
function extremes(values, start, stop) {
  let [least, greatest] = [start, start];
  for (let index = start; index < stop; index++) {
    if (values[index] < values[least]) least = index;
    if (values[index] > values[greatest]) greatest = index;
  }
  return least < greatest ? [least, greatest] : [greatest, least];
}

/** Return how far below the top a value is, as a share of the height; outside of the limits, at the nearest one. */
function heightOf({ limits: [low, high] }, value) {
  return Math.min(Math.max((high - value) / (high - low), 0), 1);
}

/** Return the lowest and the highest value that are shown. */
function limitsOf({ values, range, style }) {
  let [low, high] = extent(values);
  if (range) [low, high] = [Math.min(low, range[0]), Math.max(high, range[1])];
  if (style === "wave" && low < 0 && high > 0) high = -(low = -Math.max(-low, high));
  return low < high ? [low, high] : [low - 1, high + 1];
}

function rowTicks({ limits: [low, high], style }) {
  const middle = style === "wave" && low < 0 && high > 0 ? [0] : [];
  return [high, ...middle, low].map((value) => tick(short(value), "top", high - value, high - low));
}

function summary({ title, values, limits: [low, high] }) {
  return `${title}: a curve of ${values.length} values from ${short(low)} to ${short(high)}`;
}

function describe(plot, index) {
  return `${plot.title}, ${placeOf(plot, index)}: ${plot.values[index].toFixed(3)}`;
}

function placeOf({ perStep, ...plot }, index) {
  const sample = perStep > 1 ? `, sample ${index % perStep}` : "";
  return `${columnText(plot, Math.floor(index / perStep))}${sample}`;
}

/** Return what there is to walk (see walk.js): each value is a column. */
function pictureOf(plot) {
  return {
    title: () => plot.title,
    columns: plot.values.length,
    rows: 1,
    columnName: (index) => placeOf(plot, index),
    rowName: () => plot.title,
    text: (index) => plot.values[index].toFixed(3),
    isTimed: true,
  };
}

function vector(tag, attributes) {
  const created = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => created.setAttribute(name, value));
  return created;
}
