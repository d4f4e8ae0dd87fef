// The equations of a step of an NTM (Graves, Wayne & Danihelka 2014), and of published code; see equation-parts.js.

import { placeOf } from "./account.js";
import * as parts from "./equation-parts.js";
import { number, once, partsLine, upTo } from "./equation-parts.js";
import { writeGroups } from "./replay.js";

/** Similarity, and the weights that are raised to a power, where an implementation differs from the paper. */
const STYLES = {
  paper: { raise: (weight) => Math.max(weight, 1e-8), least: 0 },
  "pytorch-ntm": { similarity: tightCosine, raise: (weight) => Math.max(weight, 1e-30), least: 1e-16 },
  "ntm-lasagne": { similarity: jointCosine, raise: (weight) => weight + parts.EPSILON, least: 0, isFlat: true },
};

/** Return the equations, [{title, focus, lines}]; slot: whose numbers to put in, else that of the largest weight. */
export function ntmGroups(moments, slot) {
  const { read_heads: reads, write_heads: writes } = moments.model;
  const group = (kind, number, count, head) => {
    const name = `${kind.toLowerCase()}_weights`;
    const focus = slot ?? placeOf(moments.values(name, number)).slot;
    const lines = [...addressLines(moments, head, name, number), ...actLines(moments, kind, number, focus)];
    return { title: parts.headTitle(kind, number, count), focus, lines };
  };
  return [
    ...upTo(reads).map((head) => group("Read", head, reads, head)),
    ...upTo(writes).map((head) => group("Write", head, writes, reads + head)),
  ];
}

/**
 * Return the memory that a head looks into, by its number among those of its kind. Of heads that act in turn, those of lower
 * numbers have written by then; heads that act before the controller, with the weightings that they found at the step before.
 */
function memoryOf(moments, own) {
  const { order } = moments.model;
  if (order === "in-turn") return moments.memoryWithin(own);
  return order === "before-controller" ? moments.memoryAfter : moments.memoryBefore;
}

/** Lines of the addressing of one head; name, own: of its weighting, and its number among those of its kind. */
function addressLines(moments, head, name, own) {
  const { run, step, model } = moments;
  const values = (trace) => moments.values(trace, head);
  const style = STYLES[model.style] ?? STYLES.paper;
  const isBefore = model.order === "before-controller";
  const [previous, found] = isBefore ? [step, step + 1] : [step - 1, step];
  const [key, strength, content] = ["keys", "key_strength", "content_weights"].map(values);
  const weighting = { name: isBefore ? "weighting of the next step" : "weighting", values: run.values(name, found, own) };
  return [
    parts.vectorLine("key", "<var>k</var>", key),
    ...parts.strengthLines(model, strength, run.slots),
    parts.contentLine({ model, symbol: "<var>w</var><sup>c</sup>", key, strength, values: content, memory: memoryOf(moments, own), similarity: style.similarity }),
    partsLine("interpolation", "<var>g</var>", values("interpolation_gate")),
    gatedLine(values, run.values(name, previous, own)),
    shiftsLine(values("shift_weights")),
    shiftedLine(values, style),
    partsLine("sharpening", "γ", values("sharpening")),
    { ...sharpenedLine(values, style), ...weighting },
  ];
}

function gatedLine(values, previous) {
  const [content, [gate]] = [values("content_weights"), values("interpolation_gate") ?? []];
  const isKnown = previous && content && gate !== undefined;
  return {
    name: "interpolated",
    symbol: "<var>w</var><sup>g</sup>",
    over: "slots",
    values: values("gated_weights"),
    formula: "<var>w</var><sup>g</sup> = <var>g</var> <var>w</var><sup>c</sup> + (1 − <var>g</var>) <var>w</var><sub>−1</sub>",
    at: isKnown && ((slot) => parts.mixed([[gate, content[slot]], [1 - gate, previous[slot]]])),
  };
}

function shiftsLine(values) {
  const half = ((values?.length ?? 1) - 1) / 2;
  const labels = upTo(values?.length ?? 0).map((index) => `${index > half ? "+" : ""}${index - half}`.replace("-", "−"));
  return partsLine("shift", "<var>s</var>", values, labels);
}

/** The weighting moved by the shifts: around the ends of the memory, or beyond them. */
function shiftedLine(values, { isFlat }) {
  const [gated, shifts] = [values("gated_weights"), values("shift_weights")];
  const at = (slot) => {
    const from = (index) => slot - index + (shifts.length - 1) / 2;
    const around = (index) => (from(index) + shifts.length * gated.length) % gated.length;
    return parts.mixed(Array.from(shifts, (shift, index) => [gated[isFlat ? from(index) : around(index)] ?? 0, shift]));
  };
  return {
    name: "shifted",
    symbol: "<var>w</var><sup>s</sup>",
    over: "slots",
    values: values("shifted_weights"),
    formula: "<var>w</var><sup>s</sup>[<var>i</var>] = Σ<sub><var>j</var></sub> <var>w</var><sup>g</sup>[<var>i</var> − <var>j</var>] <var>s</var>[<var>j</var>]",
    at: gated && shifts && at,
  };
}

function sharpenedLine(values, { raise, least }) {
  const [shifted, [gamma]] = [values("shifted_weights"), values("sharpening") ?? []];
  const total = once(() => shifted.reduce((sum, weight) => sum + raise(weight) ** gamma, least));
  const at = (slot) => {
    const value = raise(shifted[slot]) ** gamma / total();
    return { value, text: `${number(shifted[slot])}<sup>${number(gamma)}</sup> ∕ ${parts.small(total())} = ${number(value)}` };
  };
  return {
    symbol: "<var>w</var>",
    over: "slots",
    formula: "<var>w</var>[<var>i</var>] = <var>w</var><sup>s</sup>[<var>i</var>]<sup>γ</sup> ∕ Σ<sub><var>j</var></sub> <var>w</var><sup>s</sup>[<var>j</var>]<sup>γ</sup>",
    at: shifted && gamma !== undefined ? at : undefined,
  };
}

/** Lines of what a head does with its weighting. */
function actLines(moments, kind, head, slot) {
  const values = (name) => moments.values(name, head);
  if (kind === "Read") return [parts.readLine(values("read_weights"), values("read_vectors"), memoryOf(moments, head))];
  const group = writeGroups(moments.model).findIndex((heads) => heads.at(-1) === head);
  return [
    parts.vectorLine("erase vector", "<var>e</var>", values("erase_vectors"), false),
    parts.vectorLine("add vector", "<var>v</var>", values("add_vectors")),
    group >= 0 ? parts.memoryLine(moments, slot, "add_vectors", group) : undefined,
  ];
}

function tightCosine(key, word) {
  const [product, keySquares, wordSquares] = parts.products(key, word);
  return product / Math.sqrt((keySquares + 1e-12) * (wordSquares + 1e-12));
}

function jointCosine(key, word) {
  const [product, keySquares, wordSquares] = parts.products(key, word);
  return product / Math.sqrt(keySquares * wordSquares + parts.EPSILON);
}
