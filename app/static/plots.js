// What there is to see of one run: the names of traces and heads, and the plots of a graph as descriptions of heat maps
// (see heatmap.js) and curves.

import { positive, signed, tokens } from "./scales.js";
import { graphTracePlots, outputPlots, shownLeaves as leavesOfGraph, signalPlots, statePlots } from "./signal-plots.js";

// The traces that the page knows. `heads`: one strip for each head of that kind. Otherwise there is a single one,
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

export const PROGRAMS = "program_weights"; // the shares of stored programs, which belong to no head

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
  const known = [...Object.keys({ ...WEIGHTINGS, ...GATES }), PROGRAMS, ...VECTORS, ...ON_THE_WAY];
  return known.filter((name) => name in model.trace);
}

/** Return the names of the leaves of the state of `model` that the page can show. */
export function shownLeaves(model) {
  if (model.graph) return leavesOfGraph(model);
  return model.state.memory?.length === 2 ? ["memory"] : [];
}

/** Return what there is to see of a graph, in groups: [{title, timed, plots}]; the columns of a timed one are steps. */
export function plotGroups(model, task, sequence, { outputs, trace, state }) {
  const groups = [
    { title: "Sequence", timed: true, plots: plotsOfSequence(model, task, sequence, outputs) },
    { title: "Traces", timed: true, plots: graphTracePlots(model, task, trace) },
    { title: "State after the last step", timed: false, plots: statePlots(state) },
  ];
  return groups.filter(({ plots }) => plots.length > 0);
}

function plotsOfSequence(model, task, { inputs }, outputs) {
  if (task.parts) return signalPlots(model, task, inputs, outputs);
  const sent = { name: "input", title: "Tokens", columns: inputs, rows: model.input_size, rowName: "token", digits: 0 };
  const axes = { columnName: "time", ruled: true, names: task.words, scale: tokens(model.vocabulary_size) };
  return [{ ...sent, ...axes }, ...outputPlots(model, task, outputs)];
}

/** Return the plots of the memory: its words from left to right, its slots below each other. */
export function memoryPlots(memory) {
  const columns = memory[0].map((_, word) => memory.map((slot) => slot[word]));
  const axes = { rowName: "location", columnName: "word" };
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

/** Return the names of `count` shifts: as many locations back as forth. */
function shifts(count) {
  const farthest = (count - 1) / 2;
  return Array.from({ length: count }, (_, index) => `${index > farthest ? "+" : ""}${index - farthest}`);
}
