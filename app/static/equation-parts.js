// Parts of the equations of a step that DNC and NTM have in common. A line is one value on the way to a weighting:
//
//   {name, symbol, over, values, labels, signed, formula, at(index)}
//
// symbol, formula: HTML; the controller gives what has no formula. over: "slots", "words" or "parts", which have labels.
// values: as they were traced; a line without any is left out. at(index): returns the formula with this step's numbers
// put in, {value, text}, or is left away where the page does not know all of them.

import { two } from "./account.js";
import { writeGroups } from "./replay.js";

export const EPSILON = 1e-6;

/** A step of a run, and the memory and the links before and after it: functions, undefined where they are not known. */
export class Moments {
  constructor(run, step) {
    Object.assign(this, { run, step, slots: run.slots, model: run.model });
    this.memoryBefore = peek(run.memory, (memory) => memory.at(step));
    this.memoryAfter = peek(run.memory, (memory) => memory.at(step + 1));
    const replays = run.links ?? [];
    this.linksBefore = replays.map((replay) => peek(replay, (links) => links.at(step)));
    this.linksAfter = replays.map((replay) => peek(replay, (links) => links.at(step + 1)));
  }

  /** Return the memory when the first `count` groups of write heads have written: a function, as above. */
  memoryWithin(count) {
    return peek(this.run.memory, (memory) => memory.within(this.step, count));
  }

  /** Return traced values of this step, of one head or of all there is. */
  values(name, head) {
    return this.run.values(name, this.step, head);
  }

  /** Return traced values of the step before: zeros before the first of all, undefined before the first that is known. */
  before(name, head) {
    if (this.step > 0) return this.run.values(name, this.step - 1, head);
    return this.run.from > 0 ? undefined : this.values(name, head)?.map(() => 0);
  }

  has(name) {
    return this.run.has(name);
  }
}

/** Return a function that returns values read from a replay, and leaves the replay where it was. */
function peek(replay, read) {
  if (!replay) return undefined;
  return once(() => {
    const { step } = replay.now;
    const values = read(replay).slice();
    replay.at(step);
    return values;
  });
}

/** Return a function that returns its value, which is computed when it is first needed. */
export function once(compute) {
  let value;
  return () => (value ??= compute());
}

/** Return [0, 1, ..., count - 1]. */
export function upTo(count) {
  return Array.from({ length: count }, (_, index) => index);
}

/** Return one row of values in one piece. */
export function rowOf(values, row, width) {
  return values.subarray(row * width, (row + 1) * width);
}

export function headTitle(kind, head, count) {
  return `${kind} head${count > 1 ? ` ${head}` : ""}`;
}

// Numbers as text

export function number(value) {
  const size = Math.abs(value);
  if (size < 0.0005) return "0";
  return value.toFixed(size < 0.005 ? 3 : 2).replace("-", "−");
}

/** Return a positive number that may be small, with two digits that count. */
export function small(value) {
  return value >= 0.005 ? two(value) : `${value.toExponential(1).replace("e-", " · 10<sup>−")}</sup>`;
}

/** Return numbers multiplied. */
export function product(...factors) {
  return factors.map(number).join(" · ");
}

/** Return what [weight, value] pairs sum up to, as {value, text}; with `most`, only the largest of them are shown. */
export function mixed(pairs, most = pairs.length) {
  const value = pairs.reduce((total, [weight, one]) => total + weight * one, 0);
  const shown = most < pairs.length ? [...pairs].sort((a, b) => Math.abs(b[0] * b[1]) - Math.abs(a[0] * a[1])).slice(0, most) : pairs;
  const terms = [...shown.map((pair) => product(...pair)), ...(most < pairs.length ? ["…"] : [])];
  return { value, text: `${terms.join(" + ")} = ${number(value)}` };
}

// Lines

/** A few values that the controller gives. */
export function partsLine(name, symbol, values, labels = [""]) {
  return { name, symbol, over: "parts", labels, values };
}

/** A vector that the controller gives. */
export function vectorLine(name, symbol, values, signed = true) {
  return { name, symbol, over: "words", signed, values };
}

const CONTENT =
  " = <var>e</var><sup>β <var>D</var>(<var>k</var>, <var>M</var>[<var>n</var>])</sup> ∕ Σ<sub><var>m</var></sub> " +
  "<var>e</var><sup>β <var>D</var>(<var>k</var>, <var>M</var>[<var>m</var>])</sup>";

/** Lines of a key strength: as it is and, of a model that scales its look-ups, as a memory of these slots takes it. */
export function strengthLines(model, strength, slots) {
  const own = partsLine("key strength", "β", strength);
  if (!model.look_up_scaling) return [own];
  const scaled = strength?.map((beta) => beta * strengthScale(model, slots));
  return [own, partsLine("scaled by the memory", "β log(1 + N) ∕ log(1 + N₀)", scaled)];
}

/** The factor of key strengths in a memory of so many slots. */
export function strengthScale(model, slots) {
  return model.look_up_scaling ? Math.log1p(slots) / Math.log1p(model.memory_size) : 1;
}

/** The content weighting; memory: that the head looks into; mask: of the words that are compared. */
export function contentLine({ model, symbol, key, strength, values, memory, similarity = cosine, mask }) {
  const isKnown = key && memory && strength?.[0] !== undefined;
  const beta = isKnown && strength[0] * strengthScale(model, values.length);
  const similarities = once(() => upTo(values.length).map((slot) => similarity(key, rowOf(memory(), slot, key.length), mask)));
  const raised = (slot) => Math.exp(beta * (similarities()[slot] - 1)); // no larger than 1
  const total = once(() => similarities().reduce((sum, _, slot) => sum + raised(slot), 0));
  const at = (slot) => {
    const value = raised(slot) / total();
    return { value, text: `<var>e</var><sup>${product(beta, similarities()[slot])}</sup> ∕ Σ = ${number(value)}` };
  };
  return { name: "content", symbol, over: "slots", values, formula: `${symbol}[<var>n</var>]${CONTENT}`, at: isKnown && at };
}

/** Return the cosine of the angle between a key and a word, as the papers have it. */
function cosine(key, word, mask) {
  const [product, keySquares, wordSquares] = products(key, word, mask);
  return product / (Math.sqrt((keySquares + EPSILON) * (wordSquares + EPSILON)) + EPSILON);
}

/** Return the inner product of a key and a word, and that of each with itself. */
export function products(key, word, mask) {
  let [product, keySquares, wordSquares] = [0, 0, 0];
  for (let at = 0; at < key.length; at++) {
    const square = mask ? mask[at] ** 2 : 1;
    product += square * key[at] * word[at];
    keySquares += square * key[at] ** 2;
    wordSquares += square * word[at] ** 2;
  }
  return [product, keySquares, wordSquares];
}

/** The word of a location, after a group of write heads erased and wrote; added: the name of the vectors that they wrote. */
export function memoryLine(moments, slot, added, group = 0) {
  const { run, model } = moments;
  const [before, after] = [group, group + 1].map((count) => moments.memoryWithin(count));
  if (!after || !moments.has("erase_vectors")) return undefined;
  const { width } = run.memory;
  const retained = model.deallocation ? moments.values("retention")?.[slot] : undefined;
  const heads = writeGroups(model)[group].map((head) => ({
    weight: moments.values("write_weights", head)[slot],
    erased: moments.values("erase_vectors", head),
    added: moments.values(added, head),
  }));
  return {
    name: `location ${slot}`,
    symbol: `<var>M</var>[${slot}]`,
    over: "words",
    signed: true,
    values: rowOf(after(), slot, width),
    formula: `<var>M</var> = <var>M</var><sub>−1</sub>${retained === undefined ? "" : " ψ"} (1 − <var>w e</var><sup>T</sup>) + <var>w v</var><sup>T</sup>`,
    at: (word) => wordAt(heads, before()[slot * width + word], retained, word),
  };
}

function wordAt(heads, before, retained, word) {
  const kept = heads.reduce((rest, { weight, erased }) => rest * (1 - weight * erased[word]), before * (retained ?? 1));
  const value = heads.reduce((sum, { weight, added }) => sum + weight * added[word], kept);
  const factors = heads.map(({ weight, erased }) => `(1 − ${product(weight, erased[word])})`);
  const start = [number(before), ...(retained === undefined ? [] : [number(retained)]), ...factors].join(" · ");
  const terms = [start, ...heads.map(({ weight, added }) => product(weight, added[word]))];
  return { value, text: `word ${word}: ${terms.join(" + ")} = ${number(value)}` };
}

/** A read vector; memory: that the head reads. */
export function readLine(weights, values, memory) {
  const at = (word) => {
    const { value, text } = mixed(Array.from(weights, (weight, slot) => [weight, memory()[slot * values.length + word]]), 1);
    return { value, text: `word ${word}: ${text}` };
  };
  const formula = "<var>r</var> = Σ<sub><var>n</var></sub> <var>w</var>[<var>n</var>] <var>M</var>[<var>n</var>]";
  return { ...vectorLine("read vector", "<var>r</var>", values), formula, at: memory && at };
}
