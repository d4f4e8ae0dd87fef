// Signals to look at, as descriptions of curves (see curve.js) and heat maps (see heatmap.js).

import { columnsOf, inputParts, outputParts, traceParts } from "./parts.js";
import { wide } from "./scales.js";

const MOST_OF_A_LEAF = 2 ** 14; // numbers; a state that is larger is not shown

/** Return the plots of a part of `vectors` ([T][...]): a curve, several, or a heat map. */
export function partPlots(part, vectors, seconds, prefix = "") {
  const columns = columnsOf(part, vectors);
  const plot = { ...part, name: `${prefix}${part.name}`, columnName: "step", seconds };
  if (part.style === "map") {
    return [{ ...plot, columns, rows: part.size, rowName: "number", scale: wide(columns, part.range) }];
  }
  if (part.style === "wave") return [{ ...plot, columns: columns.length, values: columns.flat(), perStep: part.size }];
  return Array.from({ length: part.size }, (_, row) => ({
    ...plot,
    ...(part.size > 1 && { name: `${plot.name}.${row}`, title: `${plot.title} ${row}` }),
    start: part.start + row,
    columns: columns.length,
    values: columns.map((column) => column[row]),
    perStep: 1,
  }));
}

/** Return plots that stand below one another: of neighbouring curves only the last has an axis of time. */
export function withSharedAxis(plots) {
  return plots.map((plot, index) => ({ ...plot, bare: Boolean(plot.values && plots[index + 1]?.values) }));
}

/** Return the plots of a sequence: what was sent, and what came of it. */
export function signalPlots(model, { seconds }, inputs, outputs) {
  const sent = inputParts(model).flatMap((part) => partPlots(part, inputs, seconds));
  return withSharedAxis([...sent, ...outputPlots(model, { seconds }, outputs)]);
}

/** Return the plots of what came of a sequence. */
export function outputPlots(model, { seconds }, outputs) {
  const parts = outputParts(model).map((part) => ({ ...part, isOutput: true }));
  return withSharedAxis(parts.flatMap((part) => partPlots(part, outputs, seconds)));
}

/** Return the plots of the traces of a graph. */
export function graphTracePlots(model, { seconds }, trace) {
  const flat = (part) => trace[part.name].map((step) => [...step]);
  return withSharedAxis(traceParts(model).flatMap((part) => partPlots(part, flat(part), seconds)));
}

/** Return the names of the leaves of a graph's state that are small enough to be shown. */
export function shownLeaves({ state }) {
  return Object.keys(state).filter((name) => sizeOf(state[name]) <= MOST_OF_A_LEAF);
}

/** Return the heat maps of leaves of a graph's state: the last axis from left to right, all others below each other. */
export function statePlots(state) {
  return Object.entries(state).map(([name, leaf]) => {
    const rows = rowsOf(leaf);
    const columns = rows[0].map((_, column) => rows.map((row) => row[column]));
    const values = { columns, rows: rows.length, scale: wide(columns, null) };
    return { name: `state.${name}`, title: name, ...axesOf(rows), ...values };
  });
}

/** Return a line on the leaves that are not shown, or undefined if all are. */
export function hiddenLeaves(model) {
  const hidden = Object.keys(model.state).filter((name) => !shownLeaves(model).includes(name));
  const texts = hidden.map((name) => `${name}, ${model.state[name].join(" × ")} numbers`);
  return texts.length > 0 ? `Too large to be shown: ${texts.join("; ")}.` : undefined;
}

function axesOf(rows) {
  const alone = { rowName: "", rowLabels: [""] };
  return { columnName: "number", ...(rows.length > 1 ? { rowName: "row" } : alone) };
}

function rowsOf(leaf) {
  if (!Array.isArray(leaf)) return [[Number(leaf)]];
  return Array.isArray(leaf[0]) ? leaf.flatMap(rowsOf) : [leaf.map(Number)];
}

function sizeOf(shape) {
  return shape.reduce((product, length) => product * length, 1);
}
