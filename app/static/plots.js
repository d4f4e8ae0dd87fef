// What there is to see of one run, as descriptions of heat maps (see heatmap.js).

import { BITS, WEIGHTS, positive, signed, tokens } from "./scales.js";
import { graphTracePlots, outputPlots, shownLeaves as leavesOfGraph, signalPlots, statePlots } from "./signal-plots.js";
import { classesOf } from "./verdict.js";

const TIME = "time";

// The traces that the page knows. `heads`: one heat map for each head of that kind. Otherwise there is a single one,
// whose rows are the heads of the kind `rows`, or slots.
export const WEIGHTINGS = {
  write_weights: { title: "Write weighting", heads: "write" },
  read_weights: { title: "Read weighting", heads: "read" },
  allocation_weights: { title: "Allocation weighting", heads: "write" },
  usage: { title: "Usage" },
};
export const GATES = {
  write_gate: { title: "Write gate", rows: "write" },
  allocation_gate: { title: "Allocation gate", rows: "write" },
  free_gates: { title: "Free gates", rows: "read" },
  read_modes: { title: "Read modes", heads: "read", rowName: "mode", labels: readModes },
  interpolation_gate: { title: "Interpolation gate", rows: "all" },
  shift_weights: { title: "Shift weighting", heads: "all", rowName: "shift", labels: shifts },
  key_strength: { title: "Key strength", rows: "all", scale: positive },
  sharpening: { title: "Sharpening", rows: "all", scale: positive },
};

const VECTORS = ["write_vectors", "add_vectors", "erase_vectors", "read_vectors"];

// The values on the way to the weightings, which the equations show.
const ON_THE_WAY = [
  ...["write_keys", "write_strengths", "write_masks", "write_content_weights", "retention"],
  ...["read_keys", "read_strengths", "read_masks", "read_content_weights", "forward_weights", "backward_weights"],
  ...["keys", "content_weights", "gated_weights", "shifted_weights"],
];

/** Return the names of the traces of `model` that the page can show. */
export function shownTraces(model) {
  if (model.graph) return model.graph.trace.map(({ name }) => name);
  const known = [...Object.keys({ ...WEIGHTINGS, ...GATES }), ...VECTORS, ...ON_THE_WAY];
  return known.filter((name) => name in model.trace);
}

/** Return the names of the leaves of the state of `model` that the page can show. */
export function shownLeaves(model) {
  if (model.graph) return leavesOfGraph(model);
  return model.state.memory?.length === 2 ? ["memory"] : [];
}

/**
 * Return what there is to see, in groups: [{title, timed, plots}]; the columns of a timed one are steps.
 *
 * wrong: the outputs that are wrong, [{row, column}].
 */
export function plotGroups(model, task, sequence, answer, wrong) {
  const groups = [
    { title: "Sequence", timed: true, plots: plotsOfSequence(model, task, sequence, answer, wrong) },
    ...(model.graph ? graphGroups(model, task, answer) : memoryGroups(model, answer)),
  ];
  return groups.filter(({ plots }) => plots.length > 0);
}

function plotsOfSequence(model, task, sequence, answer, wrong) {
  if (task.parts) return signalPlots(model, task, sequence.inputs, answer.outputs);
  const plots = sequencePlots(model, task, sequence, answer, wrong);
  return model.graph ? [plots[0], ...outputPlots(model, task, answer.outputs)] : plots;
}

function graphGroups(model, task, { trace, state }) {
  return [
    { title: "Traces", timed: true, plots: graphTracePlots(model, task, trace) },
    { title: "State after the last step", timed: false, plots: statePlots(state) },
  ];
}

function memoryGroups(model, answer) {
  return [
    { title: "Slots over time", timed: true, plots: tracePlots(WEIGHTINGS, model, answer.trace) },
    { title: "Controls of the heads", timed: true, plots: tracePlots(GATES, model, answer.trace) },
    { title: "Memory after the last step", timed: false, plots: memoryPlots(answer.state.memory) },
  ];
}

function sequencePlots(model, task, { inputs, targets }, { outputs }, wrong) {
  const input = { name: "input", columns: inputs, rows: model.input_size, ...inputAxes(model, task, inputs) };
  const target = { name: "target", title: "Target", columns: targets };
  const title = wrong.length > 0 ? "Output, what is wrong framed" : "Output";
  const scale = model.output_activation === "identity" ? signed(outputs) : BITS;
  const output = { name: "output", title, columns: outputs, marks: wrong, scale };
  const shown = targets.some(Boolean) ? [target, output] : [output];
  const plots = [input, ...shown.map((plot) => ({ ...outputAxes(model, task), ...plot }))];
  if (model.output_groups > 1) plots.push(digitsPlot(model, outputs));
  return plots.map((plot) => ({ rowName: "channel", columnName: TIME, ruled: true, scale: BITS, ...plot }));
}

function inputAxes(model, task, inputs) {
  if (model.vocabulary_size)
    return { title: "Tokens", rowName: "token", scale: tokens(model.vocabulary_size), digits: 0, names: task.words };
  const areBits = inputs.flat().every((value) => value >= 0 && value <= 1);
  return { title: "Input", rowLabels: task.channels, ...(areBits ? {} : { scale: signed(inputs) }) };
}

function outputAxes(model, task) {
  if (model.output_activation === "softmax")
    return { rows: model.output_size, rowName: "class", rowLabels: task.classes };
  return { rows: model.output_size, rowLabels: task.outputs };
}

/** The likeliest class of each group of the outputs. */
function digitsPlot(model, outputs) {
  const columns = outputs.map((output) => classesOf(model, output).map(({ number }) => number));
  const rows = model.output_groups;
  const scale = tokens(model.output_size / rows);
  return { name: "digits", title: "Likeliest digits", columns, rows, rowName: "digit", scale, digits: 0 };
}

function tracePlots(kinds, model, trace) {
  return Object.entries(kinds)
    .filter(([name]) => name in trace)
    .flatMap(([name, kind]) => (kind.heads ? headPlots : singlePlot)(name, kind, model, trace[name]));
}

function headPlots(name, kind, model, values) {
  return headsOf(kind.heads, model).map((head, index) => {
    const columns = values.map((step) => step[index]);
    const title = `${kind.title}, ${head.kind} head ${head.number}`;
    return tracePlot(`${name}.${index}`, kind, title, columns, kind.labels?.(columns[0].length));
  });
}

function singlePlot(name, kind, model, columns) {
  const heads = kind.rows && headsOf(kind.rows, model);
  return [tracePlot(name, kind, kind.title, columns, heads?.map((head) => `${head.kind} ${head.number}`))];
}

function tracePlot(name, kind, title, columns, rowLabels) {
  return {
    name,
    title,
    columns,
    rows: columns[0].length,
    rowName: kind.rowName ?? (kind.rows ? "head" : "slot"),
    rowLabels,
    columnName: TIME,
    scale: kind.scale?.(columns) ?? WEIGHTS,
  };
}

/** Return the plots of the memory: its words from left to right, its slots below each other. */
export function memoryPlots(memory) {
  if (!memory) return [];
  const columns = memory[0].map((_, word) => memory.map((slot) => slot[word]));
  const axes = { rowName: "slot", columnName: "word" };
  return [{ ...axes, name: "memory", title: "Memory after the last step", columns, rows: memory.length, scale: signed(columns) }];
}

/** Return the heads of `kind`, [{kind, number}]; "all" are the read heads, then the write heads. */
export function headsOf(kind, model) {
  const counts = { read: model.read_heads, write: model.write_heads };
  const kinds = kind === "all" ? ["read", "write"] : [kind];
  return kinds.flatMap((one) => Array.from({ length: counts[one] }, (_, number) => ({ kind: one, number })));
}

/** Return the names of `count` read modes: backward and forward along the links of each write head, and content. */
function readModes(count) {
  const writeHeads = (count - 1) / 2;
  const along = (name) => Array.from({ length: writeHeads }, (_, head) => (writeHeads > 1 ? `${name} ${head}` : name));
  return [...along("backward"), ...along("forward"), "content"];
}

/** Return the names of `count` shifts: as many slots back as forth. */
function shifts(count) {
  const farthest = (count - 1) / 2;
  return Array.from({ length: count }, (_, index) => `${index > farthest ? "+" : ""}${index - farthest}`);
}
