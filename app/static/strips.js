// The strips of a run: what went in and was written, and what came out and was read, each over time.

import { CurveStrip } from "./curve-strip.js";
import { growing, whenDone } from "./moment.js";
import { GATES, PROGRAMS, WEIGHTINGS, headsOf } from "./plots.js";
import { BITS, WEIGHTS, positive, signed, tokens } from "./scales.js";
import { Strip } from "./strip.js";
import { classesOf } from "./verdict.js";

// Heights of strips in CSS pixels: wanted, and where there is too little room for all.
const ROW = { least: 5, lowest: 3 }; // a row of bits
const ONE = { least: 12, lowest: 10 }; // the smallest strip
const CHANNELS = { least: 80, lowest: 36, share: 1 }; // many channels, which take a share of the room that is left
const SLOTS = { least: 44, lowest: 20 };
const VECTOR = { least: 24, lowest: 10, share: 1 };
const CURVES = { least: 56, lowest: 40, share: 1 };
const NAMED_ROW = { least: 11, lowest: 10 }; // a row with its name
const DENSE_ROW = { least: 11, lowest: 5 }; // one of many heads, without its name where there is too little room

const FEW_HEADS = 5; // the most heads of a trace whose rows all keep their names

/** Return the strips of a run in two groups: in and written, with the gates of all heads; out and read. */
export function stripsOf(run, wrong) {
  return [
    [...inStrips(run), ...writeStrips(run)],
    [...outStrips(run, wrong), ...readStrips(run)],
  ];
}

export function inStrips({ model, task, sequence }) {
  const { inputs } = sequence;
  if (model.vocabulary_size) {
    const scale = tokens(model.vocabulary_size);
    return [strip({ title: "Tokens", rowName: "token", rows: 1, ...ONE, digits: 0, names: task.words }, "input", scale, inputs)];
  }
  const areBits = inputs.flat().every((value) => value >= 0 && value <= 1);
  const rows = { rows: model.input_size, rowLabels: task.channels, ...heightOf(model.input_size) };
  return [strip({ ...rows, title: "Input", rowName: "channel" }, "input", areBits ? BITS : signed(inputs), inputs)];
}

export function outStrips(run, wrong) {
  const { model, task, sequence, outputs } = run;
  const isClasses = model.output_activation === "softmax";
  const shared = {
    rows: model.output_size,
    rowName: isClasses ? "class" : "channel",
    rowLabels: isClasses ? task.classes : task.outputs,
    ...heightOf(model.output_size),
  };
  const scale = model.output_activation === "identity" ? growing(run, () => outputs) : () => BITS;
  const target = strip({ ...shared, title: "Target" }, "target", BITS, sequence.targets);
  const output = new Strip({ ...shared, title: "Output", name: "output", scale, values: (step) => outputs[step], wrong }, run.length);
  return [...(sequence.targets.some(Boolean) ? [target] : []), output, ...digitStrips(run), ...optimumStrips(run, shared)];
}

/** Return the best prediction that there is, and beside it that of the model, where the task has one. */
function optimumStrips({ sequence: { optimum, targets }, outputs, length }, shared) {
  if (!optimum) return [];
  const best = optimum.map((chance) => (chance === null ? null : [chance]));
  const curves = [
    { name: "output", color: "--accent", values: (step) => outputs[step]?.[0] },
    { name: "optimum", color: "--mark", dashed: true, values: (step) => optimum[step] },
    { name: "bit", color: "--text", dots: true, values: (step) => targets[step]?.[0] },
  ];
  const title = "Chance of a 1: output, optimum (dashed), bits (dots)";
  const plot = { name: "prediction", title, curves, ...CURVES };
  return [strip({ ...shared, title: "Optimum" }, "optimum", BITS, best), new CurveStrip(plot, length)];
}

/** Return the strip of the likeliest class of each group of the outputs, where there are several. */
function digitStrips({ model, outputs, length }) {
  const rows = model.output_groups;
  if (!(rows > 1)) return [];
  const scale = tokens(model.output_size / rows);
  const values = (step) => outputs[step] && classesOf(model, outputs[step]).map(({ number }) => number);
  const plot = { name: "digits", title: "Likeliest digits", rows, rowName: "digit", digits: 0, ...times(ROW, rows) };
  return [new Strip({ ...plot, scale: () => scale, values }, length)];
}

/** Return the height of a strip of channels: of many, it grows with the window. */
function heightOf(channels) {
  const { least, lowest } = times(ROW, channels);
  return least > CHANNELS.least ? CHANNELS : { least: Math.max(ONE.least, least), lowest: Math.max(ONE.lowest, lowest) };
}

function times({ least, lowest }, rows) {
  return { least: rows * least, lowest: rows * lowest };
}

function strip(plot, name, scale, columns) {
  return new Strip({ ...plot, name, scale: () => scale, values: (step) => columns[step] }, columns.length);
}

function writeStrips(run) {
  return [
    ...["write_vectors", "add_vectors"].flatMap((name) => vectorStrips(run, name, "Written vector")),
    ...["write_weights", "usage", "allocation_weights"].flatMap((name) => slotStrips(run, name)),
    ...gatesOf("rows").flatMap((name) => gateStrips(run, name)),
    ...gatesOf("heads").flatMap((name) => gateStrips(run, name, "write")),
    ...programStrips(run),
  ];
}

/** Return the strip of the shares of stored programs, if the model has several. */
function programStrips(run) {
  if (!run.has(PROGRAMS)) return [];
  const [rows] = run.model.trace[PROGRAMS];
  const rowLabels = Array.from({ length: rows }, (_, program) => `${program}`);
  const height = times(rows > FEW_HEADS ? DENSE_ROW : NAMED_ROW, rows);
  return [traceStrip(run, PROGRAMS, { title: "Programs", rows, rowName: "program", rowLabels, ...height, scale: () => WEIGHTS })];
}

function readStrips(run) {
  return [
    ...vectorStrips(run, "read_vectors", "Read vector"),
    ...slotStrips(run, "read_weights"),
    ...gatesOf("heads").flatMap((name) => gateStrips(run, name, "read")),
  ];
}

/** Return the names of the gates that have a row for each head, or those that have several for each. */
function gatesOf(kind) {
  return Object.keys(GATES).filter((name) => kind in GATES[name]);
}

/** Return strips of vectors in the words of memory, one for each head. */
export function vectorStrips(run, name, title) {
  if (!run.has(name)) return [];
  const [heads, rows] = run.model.trace[name];
  const shared = { rows, rowName: "word", ...VECTOR, scale: growing(run, () => run.trace[name] ?? []) };
  return Array.from({ length: heads }, (_, head) => {
    const named = heads > 1 ? `${title}, head ${head}` : title;
    return traceStrip(run, name, { ...shared, title: named, ...amongHeads(`${title},`, head, heads) }, head);
  });
}

/** Return strips of weights of memory locations, one for each head if the trace has heads. */
export function slotStrips(run, name) {
  if (!run.has(name)) return [];
  const { title, heads } = WEIGHTINGS[name];
  const share = ["write_weights", "read_weights"].includes(name) ? 3 : 0.5;
  const shared = { title, rows: run.slots, rowName: "location", ...SLOTS, share, isSlots: true, scale: () => WEIGHTS };
  if (!heads) return [traceStrip(run, name, shared)];
  return headsOf(heads, run.model).map(({ kind, number }, index, all) => {
    const among = amongHeads(`${title}, ${kind}`, index, all.length);
    return traceStrip(run, name, { ...shared, title: `${title}, ${kind} head ${number}`, ...among }, index);
  });
}

/** Return how a strip is named among those of other heads: all have one caption, and each the name of its head beside it. */
function amongHeads(title, head, heads) {
  if (heads === 1) return {};
  return { caption: head === 0 ? `${title} heads 0 to ${heads - 1}` : "", beside: `head ${head}` };
}

/** Return strips of the controls of the heads; only: of those with a strip for each head, the kind of head. */
export function gateStrips(run, name, only) {
  if (!run.has(name)) return [];
  const { title, heads, rows, rowName = "head", labels, scale } = GATES[name];
  const all = headsOf(heads ?? rows, run.model);
  const isDense = all.length > FEW_HEADS;
  const rowLabels = heads ? labels(run.model.trace[name][1]) : all.map(({ kind, number }) => `${kind} ${number}`);
  const height = times(isDense ? DENSE_ROW : NAMED_ROW, rowLabels.length);
  const shared = { title, rows: rowLabels.length, rowName, rowLabels, ...height, scale: scale ? largest(run, name) : () => WEIGHTS };
  if (!heads) return [traceStrip(run, name, shared)];
  return all.flatMap(({ kind, number }, index) => {
    if (only && kind !== only) return [];
    const count = headsOf(kind, run.model).length;
    const among = isDense ? amongHeads(`${title} ${rowLabels.join(", ")}, ${kind}`, number, count) : {};
    return [traceStrip(run, name, { ...shared, title: `${title}, ${kind} head ${number}`, ...among }, index)];
  });
}

/** Return the strip of a trace, or of one head of it, by its number in the trace. */
function traceStrip(run, name, plot, head) {
  const values = (step) => run.values(name, step, head);
  return new Strip({ ...plot, name: head === undefined ? name : `${name}.${head}`, values }, run.length);
}

/** Return a function that returns the scale of a trace from zero up to its largest value. */
function largest(run, name) {
  return whenDone(run, () => (run.done > 0 ? positive(run.trace[name].map((values) => [...values])) : WEIGHTS));
}
