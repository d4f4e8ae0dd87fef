// The equations of one step, with its numbers: for each value on the way to a weighting a line
//
//   {name, symbol, over, values, labels, signed, formula, at(index)}
//
// symbol, formula: HTML; the controller gives what has no formula. over: "slots", "words" or "parts", which have labels. values: as they were traced. at(index):
// returns the formula with this step's numbers put in, {value, text}, or is left away where the page does not know all
// of them. What the checkpoint does not trace has no line.

import { modesAt, placeOf, two } from "./account.js";

const EPSILON = 1e-6;

/** Return the equations of a step, [{title, lines}]; slot: whose numbers to put in, else that of the largest weight. */
export function equationsOf(run, step, slot) {
  if (!run.has("write_weights")) return [];
  const groups = run.model.kind === "ntm" ? ntmGroups(run, step, slot) : dncGroups(run, step, slot);
  return groups
    .map(({ title, focus, lines }) => ({ title, focus, lines: lines.filter((line) => line?.values?.length > 0) }))
    .filter(({ lines }) => lines.length > 0);
}

// Parts of lines

const times = " · ";

function sum(terms) {
  return terms.length > 0 ? terms.join(" + ") : "0";
}

/** Return [0, 1, ..., count - 1]. */
function upTo(count) {
  return Array.from({ length: count }, (_, index) => index);
}

function headTitle(kind, head, count) {
  return `${kind} head${count > 1 ? ` ${head}` : ""}`;
}

/** Return a replay's values after so many steps, and leave the replay where it was. */
function peek(replay, count) {
  const { step } = replay.now;
  const values = replay.at(count).slice();
  replay.at(step);
  return values;
}

/** Return a function that returns its value, which is computed when it is first needed. */
function once(compute) {
  let value;
  return () => (value ??= compute());
}

function number(value) {
  return value !== 0 && Math.abs(value) < 0.005 ? value.toExponential(0).replace("e-", "·10<sup>−") + "</sup>" : two(value).replace("-", "−");
}

/** A few values that the controller gives. */
function partsLine(name, symbol, values, labels) {
  return { name, symbol, over: "parts", labels, values };
}

/** A key that the controller gives. */
function keyLine(values, symbol) {
  return { name: "key", symbol, over: "words", signed: true, values };
}

/** The content weighting, from the memory that the head looks into; mask: of the words that are compared. */
function contentLine({ symbol, key, strength, values, memory, similarity = cosine, mask }) {
  const similarities = memory && key && once(() => upTo(values.length).map((slot) => similarity(key, rowOf(memory(), slot, key.length), mask)));
  const total = similarities && once(() => similarities().reduce((sum, value) => sum + Math.exp(strength * (value - 1)), 0));
  return {
    name: "content",
    symbol,
    over: "slots",
    values,
    formula: `${symbol}[<var>n</var>] = <var>e</var><sup>β <var>D</var>(<var>k</var>, <var>M</var>[<var>n</var>])</sup> ∕ Σ<sub><var>m</var></sub> <var>e</var><sup>β <var>D</var>(<var>k</var>, <var>M</var>[<var>m</var>])</sup>`,
    at: similarities && ((slot) => {
      const value = Math.exp(strength * (similarities()[slot] - 1)) / total();
      const power = `${number(strength)}${times}${number(similarities()[slot])}`;
      return { value, text: `<var>e</var><sup>${power}</sup> ∕ Σ = ${number(value)}` };
    }),
  };
}

function rowOf(memory, slot, width) {
  return memory.subarray(slot * width, (slot + 1) * width);
}

/** Return the cosine of the angle between a key and a word, as the paper's models have it. */
function cosine(key, word, mask) {
  let [product, keySquares, wordSquares] = [0, EPSILON, EPSILON];
  for (let at = 0; at < key.length; at++) {
    const square = mask ? mask[at] ** 2 : 1;
    product += square * key[at] * word[at];
    keySquares += square * key[at] ** 2;
    wordSquares += square * word[at] ** 2;
  }
  return product / (Math.sqrt(keySquares * wordSquares) + EPSILON);
}

/** A word of the memory after a step erased and wrote. */
function memoryLine(run, step, slot, { weights, erased, added, retention }) {
  if (!run.memory || !erased || !added) return undefined;
  const { width } = run.memory;
  const before = rowOf(peek(run.memory, step), slot, width);
  const heads = upTo(run.model.write_heads);
  const weight = (head) => weights[head * run.slots + slot];
  return {
    name: `slot ${slot}`,
    symbol: `<var>M</var>[${slot}]`,
    over: "words",
    signed: true,
    values: rowOf(peek(run.memory, step + 1), slot, width),
    formula: `<var>M</var> = <var>M</var><sub>−1</sub>${retention ? " ψ" : ""} (1 − <var>w e</var><sup>T</sup>) + <var>w v</var><sup>T</sup>`,
    at: (word) => {
      const kept = heads.map((head) => 1 - weight(head) * erased[head * width + word]);
      const parts = heads.map((head) => weight(head) * added[head * width + word]);
      const psi = retention ? retention[slot] : 1;
      const value = kept.reduce((product, part) => product * part, before[word] * psi) + parts.reduce((total, part) => total + part, 0);
      const factors = heads.map((head) => `(1 − ${number(weight(head))}${times}${number(erased[head * width + word])})`);
      const written = heads.map((head) => `${number(weight(head))}${times}${number(added[head * width + word])}`);
      const start = [number(before[word]), ...(retention ? [number(psi)] : []), ...factors].join(times);
      return { value, text: `word ${word}: ${start} + ${sum(written)} = ${number(value)}` };
    },
  };
}

/** A read vector, of the memory that the head reads. */
function readLine(weights, values, memory, symbol) {
  return {
    name: "read vector",
    symbol,
    over: "words",
    signed: true,
    values,
    formula: `${symbol} = Σ<sub><var>n</var></sub> <var>w</var>[<var>n</var>] <var>M</var>[<var>n</var>]`,
    at: memory && values && ((word) => {
      const width = values.length;
      const terms = upTo(weights.length).map((slot) => ({ slot, weight: weights[slot], word: memory()[slot * width + word] }));
      const value = terms.reduce((total, term) => total + term.weight * term.word, 0);
      return { value, text: `word ${word}: ${largest(terms)} = ${number(value)}` };
    }),
  };
}

/** Return the largest product of {weight, word} as text, and that there are more. */
function largest(terms) {
  const [first] = [...terms].sort((one, other) => Math.abs(other.weight * other.word) - Math.abs(one.weight * one.word));
  return `${number(first.weight)}${times}${number(first.word)} + …`;
}

// A DNC

function dncGroups(run, step, slot) {
  const { read_heads: reads, write_heads: writes } = run.model;
  const written = upTo(writes).map((head) => placeOf(run.values("write_weights", step, head)).slot);
  const places = upTo(reads).map((head) => placeOf(run.values("read_weights", step, head)).slot);
  return [
    { title: "Slots in use", focus: slot ?? written[0], lines: usageLines(run, step) },
    ...upTo(writes).flatMap((head) => writeGroups(run, step, head, slot ?? written[head])),
    ...upTo(reads).map((head) => readGroup(run, step, head, slot ?? places[head])),
  ];
}

/** Return values of the step before, or zeros before the first one. */
function before(run, name, step) {
  return step > 0 ? run.values(name, step - 1) : run.values(name, step)?.map(() => 0);
}

function usageLines(run, step) {
  const { slots, model } = run;
  const [reads, writes] = [upTo(model.read_heads), upTo(model.write_heads)];
  const free = run.values("free_gates", step);
  const retention = run.values("retention", step);
  const [used, wrote, read] = ["usage", "write_weights", "read_weights"].map((name) => before(run, name, step));
  const retained = (slot) => {
    const factors = reads.map((head) => [free[head], read[head * slots + slot]]);
    const value = factors.reduce((product, [gate, weight]) => product * (1 - gate * weight), 1);
    return { value, text: `${factors.map(([gate, weight]) => `(1 − ${number(gate)}${times}${number(weight)})`).join("")} = ${number(value)}` };
  };
  const inUse = (slot) => {
    const weight = 1 - writes.reduce((product, head) => product * (1 - wrote[head * slots + slot]), 1);
    const value = (used[slot] + weight - used[slot] * weight) * retention[slot];
    const [u, w] = [number(used[slot]), number(weight)];
    return { value, text: `(${u} + ${w} − ${u}${times}${w})${times}${number(retention[slot])} = ${number(value)}` };
  };
  return [
    partsLine("free gates", "<var>f</var>", free, reads.map((head) => (reads.length > 1 ? `<small>${head}</small>` : ""))),
    {
      name: "retention",
      symbol: "ψ",
      over: "slots",
      values: retention,
      formula: "ψ = Π<sub><var>r</var></sub> (1 − <var>f<sub>r</sub> w</var><sup>r</sup><sub>−1</sub>), <var>w</var><sup>r</sup><sub>−1</sub>: the read weighting of the step before",
      at: free && retained,
    },
    {
      name: "usage",
      symbol: "<var>u</var>",
      over: "slots",
      values: run.values("usage", step),
      formula: "<var>u</var> = (<var>u</var><sub>−1</sub> + <var>w</var><sub>−1</sub> − <var>u</var><sub>−1</sub> <var>w</var><sub>−1</sub>) ψ",
      at: retention && inUse,
    },
  ];
}

function writeGroups(run, step, head, slot) {
  const values = (name) => run.values(name, step, head);
  const [strength, key] = [values("write_strengths"), values("write_keys")];
  const [content, allocation, weights] = ["write_content_weights", "allocation_weights", "write_weights"].map(values);
  const [allocationGate, writeGate] = [values("allocation_gate"), values("write_gate")];
  const mixed = (at) => {
    const [gate, toFree, a, c] = [writeGate[0], allocationGate[0], allocation[at], content[at]];
    const value = gate * (toFree * a + (1 - toFree) * c);
    return { value, text: `${number(gate)} (${number(toFree)}${times}${number(a)} + ${number(1 - toFree)}${times}${number(c)}) = ${number(value)}` };
  };
  const memory = run.memory && once(() => peek(run.memory, step));
  const lines = [
    keyLine(key, "<var>k</var><sup>w</sup>"),
    partsLine("key strength", "β", strength, [""]),
    content && contentLine({ symbol: "<var>c</var><sup>w</sup>", key, strength: strength?.[0], values: content, memory, mask: values("write_masks") }),
    allocationLine(run, step, head),
    partsLine("allocation gate", "<var>g</var><sup>a</sup>", allocationGate, [""]),
    partsLine("write gate", "<var>g</var><sup>w</sup>", writeGate, [""]),
    {
      name: "write weighting",
      symbol: "<var>w</var><sup>w</sup>",
      over: "slots",
      values: weights,
      formula: "<var>w</var><sup>w</sup> = <var>g</var><sup>w</sup> (<var>g</var><sup>a</sup> <var>a</var> + (1 − <var>g</var><sup>a</sup>) <var>c</var><sup>w</sup>)",
      at: content && allocation && writeGate && allocationGate && mixed,
    },
    { name: "erase vector", symbol: "<var>e</var>", over: "words", values: values("erase_vectors") },
    { name: "write vector", symbol: "<var>v</var>", over: "words", signed: true, values: values("write_vectors") },
    head === run.model.write_heads - 1 ? changedMemory(run, step, slot) : undefined,
  ];
  const title = headTitle("Write", head, run.model.write_heads);
  return [{ title, focus: slot, lines }, { title: `${title}: order of writing`, focus: slot, lines: linkLines(run, step, head, slot) }];
}

function changedMemory(run, step, slot) {
  return memoryLine(run, step, slot, {
    weights: run.values("write_weights", step),
    erased: run.values("erase_vectors", step),
    added: run.values("write_vectors", step),
    retention: run.model.deallocation ? run.values("retention", step) : undefined,
  });
}

function allocationLine(run, step, head) {
  const usage = usageBefore(run, step, head);
  const order = usage && once(() => freeList(usage));
  return {
    name: "allocation",
    symbol: "<var>a</var>",
    over: "slots",
    values: run.values("allocation_weights", step, head),
    formula: "<var>a</var>[φ<sub><var>j</var></sub>] = (1 − <var>u</var>[φ<sub><var>j</var></sub>]) Π<sub><var>i</var>&lt;<var>j</var></sub> <var>u</var>[φ<sub><var>i</var></sub>], φ: the slots from the freest on",
    at: order && ((slot) => {
      const place = order().indexOf(slot);
      const used = order().slice(0, place).reduce((product, other) => product * floor(usage[other]), 1);
      const value = (1 - floor(usage[slot])) * used;
      return { value, text: `(1 − ${number(usage[slot])})${times}${number(used)} = ${number(value)}; φ<sub>${place}</sub> = ${slot}` };
    }),
  };
}

/** Return the usage that a write head sees: what the heads before it will allocate counts as used. */
function usageBefore(run, step, head) {
  let usage = run.values("usage", step);
  if (!usage || !run.has("allocation_gate") || !run.has("write_gate")) return head === 0 ? usage : undefined;
  for (let earlier = 0; earlier < head; earlier++) {
    const gate = run.values("allocation_gate", step)[earlier] * run.values("write_gate", step)[earlier];
    const allocated = run.values("allocation_weights", step, earlier);
    usage = usage.map((used, slot) => used + (1 - used) * gate * allocated[slot]);
  }
  return usage;
}

function floor(usage) {
  return EPSILON + (1 - EPSILON) * usage;
}

/** Return the slots from the freest on; those that float32 cannot tell apart in the order of their numbers. */
function freeList(usage) {
  const free = Float32Array.from(usage, (used) => 1 - Math.fround(floor(used)));
  return upTo(usage.length).sort((one, other) => free[other] - free[one] || one - other);
}

/** Lines of the links that a write made; of sparse links, which the page does not follow, there are none. */
function linkLines(run, step, head, slot) {
  const replay = linksOf(run, head);
  if (!replay) return [];
  const { slots } = run;
  const weights = run.values("write_weights", step, head);
  const [old, now] = [peek(replay, step), peek(replay, step + 1)];
  const [precedence, next] = [old.subarray(slots * slots), now.subarray(slots * slots)];
  const total = weights.reduce((all, weight) => all + weight, 0);
  return [
    {
      name: "precedence",
      symbol: "<var>p</var>",
      over: "slots",
      values: next,
      formula: "<var>p</var> = (1 − Σ<sub><var>n</var></sub> <var>w</var><sup>w</sup>[<var>n</var>]) <var>p</var><sub>−1</sub> + <var>w</var><sup>w</sup>",
      at: (at) => {
        const value = (1 - total) * precedence[at] + weights[at];
        return { value, text: `(1 − ${number(total)})${times}${number(precedence[at])} + ${number(weights[at])} = ${number(value)}` };
      },
    },
    {
      name: `links to ${slot}`,
      symbol: `<var>L</var>[${slot}]`,
      over: "slots",
      values: rowOf(now, slot, slots),
      own: true,
      formula: "<var>L</var>[<var>i</var>, <var>j</var>] = (1 − <var>w</var>[<var>i</var>] − <var>w</var>[<var>j</var>]) <var>L</var><sub>−1</sub>[<var>i</var>, <var>j</var>] + <var>w</var>[<var>i</var>] <var>p</var><sub>−1</sub>[<var>j</var>]",
      at: (from) => {
        const [to, other, link, last] = [weights[slot], weights[from], old[slot * slots + from], precedence[from]];
        const value = from === slot ? 0 : (1 - to - other) * link + to * last;
        const numbers = `(1 − ${number(to)} − ${number(other)})${times}${number(link)} + ${number(to)}${times}${number(last)}`;
        return { value, text: from === slot ? "0" : `<var>j</var> = ${from}: ${numbers} = ${number(value)}` };
      },
    },
  ];
}

function linksOf(run, head) {
  const [, rows, columns] = run.model.state.link ?? [];
  return rows === columns ? run.links?.[head] : undefined;
}

function readGroup(run, step, head, slot) {
  const values = (name) => run.values(name, step, head);
  const [key, strength, content, weights] = ["read_keys", "read_strengths", "read_content_weights", "read_weights"].map(values);
  const memory = run.memory && once(() => peek(run.memory, step + 1));
  const lines = [
    keyLine(key, "<var>k</var><sup>r</sup>"),
    partsLine("key strength", "β", strength, [""]),
    content && contentLine({ symbol: "<var>c</var><sup>r</sup>", key, strength: strength?.[0], values: content, memory, mask: values("read_masks") }),
    ...alongLines(run, step, head, "backward"),
    ...alongLines(run, step, head, "forward"),
    modesLine(run, step, head),
    weightingLine(run, step, head),
    readLine(weights, values("read_vectors"), memory, "<var>r</var>"),
  ];
  return { title: headTitle("Read", head, run.model.read_heads), focus: slot, lines };
}

/** Lines of the weightings along the links, one for each write head. */
function alongLines(run, step, head, name) {
  const all = run.values(`${name}_weights`, step, head);
  if (!all) return [];
  const { slots, model } = run;
  const read = before(run, "read_weights", step).subarray(head * slots, (head + 1) * slots);
  return upTo(model.write_heads).map((writeHead) => {
    const of = model.write_heads > 1 ? `<sub>${writeHead}</sub>` : "";
    const replay = run.has(`${name}_sharpness`) ? undefined : linksOf(run, writeHead);
    const link = replay && once(() => peek(replay, step + 1));
    const [symbol, cell] = name === "forward" ? ["<var>f</var>", (at, other) => at * slots + other] : ["<var>b</var>", (at, other) => other * slots + at];
    return {
      name: model.write_heads > 1 ? `${name} ${writeHead}` : name,
      symbol: symbol + of,
      over: "slots",
      values: all.subarray(writeHead * slots, (writeHead + 1) * slots),
      formula: `${symbol} = <var>L</var>${name === "forward" ? "" : "<sup>T</sup>"} <var>w</var><sup>r</sup><sub>−1</sub>${run.has(`${name}_sharpness`) ? ", sharpened" : ""}`,
      at: link && ((at) => {
        const terms = upTo(slots).map((other) => ({ weight: link()[cell(at, other)], word: read[other], other }));
        const value = terms.reduce((total, { weight, word }) => total + weight * word, 0);
        return { value, text: `${largest(terms)} = ${number(value)}` };
      }),
    };
  });
}

function modesLine(run, step, head) {
  const modes = run.values("read_modes", step, head);
  if (!modes) return undefined;
  const writes = run.model.write_heads;
  const along = (name) => upTo(writes).map((writeHead) => `<var>${name}</var>${writes > 1 ? `<sub>${writeHead}</sub>` : ""}`);
  return partsLine("read modes", "π", modes, [...along("b"), ...along("f"), "<var>c</var>"]);
}

function weightingLine(run, step, head) {
  const content = run.values("read_content_weights", step, head);
  const isMixed = run.has("read_modes");
  const mixed = (slot) => {
    const parts = modesAt(run, step, head, slot);
    const value = parts.reduce((total, part) => total + part.value, 0);
    return { value, text: `${sum(parts.map(({ mode, weight }) => `${number(mode)}${times}${number(weight)}`))} = ${number(value)}` };
  };
  const alone = (slot) => ({ value: content[slot], text: number(content[slot]) });
  const isKnown = content && (!isMixed || run.has("forward_weights"));
  return {
    name: "read weighting",
    symbol: "<var>w</var><sup>r</sup>",
    over: "slots",
    values: run.values("read_weights", step, head),
    formula: isMixed
      ? "<var>w</var><sup>r</sup> = π<sub>b</sub> <var>b</var> + π<sub>f</sub> <var>f</var> + π<sub>c</sub> <var>c</var><sup>r</sup>"
      : "<var>w</var><sup>r</sup> = <var>c</var><sup>r</sup>",
    at: isKnown ? (isMixed ? mixed : alone) : undefined,
  };
}

// An NTM

function ntmGroups(run, step, slot) {
  const { read_heads: reads, write_heads: writes } = run.model;
  const group = (kind, number, count, head) => {
    const name = `${kind.toLowerCase()}_weights`;
    const focus = slot ?? placeOf(run.values(name, step, number)).slot;
    const act = kind === "Read" ? ntmReadLines(run, step, number) : ntmWriteLines(run, step, number, focus);
    return { title: headTitle(kind, number, count), focus, lines: [...addressLines(run, step, head, { name, number }), ...act] };
  };
  return [
    ...upTo(reads).map((head) => group("Read", head, reads, head)),
    ...upTo(writes).map((head) => group("Write", head, writes, reads + head)),
  ];
}

/** Lines of the addressing of one head; own: the name of its weighting, and its number among those of its kind. */
function addressLines(run, step, head, own) {
  const values = (name) => run.values(name, step, head);
  const [key, strength, content] = ["keys", "key_strength", "content_weights"].map(values);
  const similarity = { "pytorch-ntm": tightCosine, "ntm-lasagne": jointCosine }[run.model.style];
  const isBefore = run.model.order === "before-controller"; // heads act with the weightings found at the step before
  const memory = run.memory && run.model.order !== "in-turn" ? once(() => peek(run.memory, isBefore ? step + 1 : step)) : undefined;
  const [previous, found] = isBefore ? [step, step + 1] : [step - 1, step];
  return [
    keyLine(key, "<var>k</var>"),
    partsLine("key strength", "β", strength, [""]),
    content && contentLine({ symbol: "<var>w</var><sup>c</sup>", key, strength: strength?.[0], values: content, memory, similarity }),
    partsLine("interpolation gate", "<var>g</var>", values("interpolation_gate"), [""]),
    gatedLine(values, previous < 0 ? undefined : run.values(own.name, previous, own.number)),
    shiftsLine(values("shift_weights")),
    shiftedLine(run, values),
    partsLine("sharpening", "γ", values("sharpening"), [""]),
    sharpenedLine(run, values, found < run.done ? run.values(own.name, found, own.number) : undefined, isBefore),
  ];
}

function gatedLine(values, previous) {
  const [content, gate] = [values("content_weights"), values("interpolation_gate")?.[0]];
  return {
    name: "interpolated",
    symbol: "<var>w</var><sup>g</sup>",
    over: "slots",
    values: values("gated_weights"),
    formula: "<var>w</var><sup>g</sup> = <var>g</var> <var>w</var><sup>c</sup> + (1 − <var>g</var>) <var>w</var><sub>−1</sub>",
    at: previous && content && gate !== undefined ? (slot) => {
      const value = gate * content[slot] + (1 - gate) * previous[slot];
      const numbers = `${number(gate)}${times}${number(content[slot])} + ${number(1 - gate)}${times}${number(previous[slot])}`;
      return { value, text: `${numbers} = ${number(value)}` };
    } : undefined,
  };
}

function shiftsLine(values) {
  const half = ((values?.length ?? 1) - 1) / 2;
  const labels = upTo(values?.length ?? 0).map((index) => `${index > half ? "+" : ""}${index - half}`.replace("-", "−"));
  return partsLine("shift", "<var>s</var>", values, labels);
}

function shiftedLine(run, values) {
  const [gated, shifts] = [values("gated_weights"), values("shift_weights")];
  const isFlat = run.model.style === "ntm-lasagne"; // beyond its ends there is nothing
  return {
    name: "shifted",
    symbol: "<var>w</var><sup>s</sup>",
    over: "slots",
    values: values("shifted_weights"),
    formula: "<var>w</var><sup>s</sup>[<var>i</var>] = Σ<sub><var>j</var></sub> <var>w</var><sup>g</sup>[<var>i</var> − <var>j</var>] <var>s</var>[<var>j</var>]",
    at: gated && shifts && ((slot) => {
      const half = (shifts.length - 1) / 2;
      const from = (shift) => (isFlat ? slot - shift : (((slot - shift) % gated.length) + gated.length) % gated.length);
      const terms = upTo(shifts.length).map((index) => ({ word: shifts[index], weight: gated[from(index - half)] ?? 0 }));
      const value = terms.reduce((total, { weight, word }) => total + weight * word, 0);
      return { value, text: `${sum(terms.map(({ weight, word }) => `${number(weight)}${times}${number(word)}`))} = ${number(value)}` };
    }),
  };
}

const RAISED = {
  "pytorch-ntm": (weight) => Math.max(weight, 1e-30),
  "ntm-lasagne": (weight) => weight + EPSILON,
};

function sharpenedLine(run, values, weights, isBefore) {
  const [shifted, gamma] = [values("shifted_weights"), values("sharpening")?.[0]];
  const raise = RAISED[run.model.style] ?? ((weight) => Math.max(weight, 1e-8));
  const total = shifted && once(() => shifted.reduce((all, weight) => all + raise(weight) ** gamma, run.model.style === "pytorch-ntm" ? 1e-16 : 0));
  return {
    name: isBefore ? "weighting of the next step" : "weighting",
    symbol: "<var>w</var>",
    over: "slots",
    values: weights,
    formula: "<var>w</var>[<var>i</var>] = <var>w</var><sup>s</sup>[<var>i</var>]<sup>γ</sup> ∕ Σ<sub><var>j</var></sub> <var>w</var><sup>s</sup>[<var>j</var>]<sup>γ</sup>",
    at: shifted && gamma !== undefined ? (slot) => {
      const value = raise(shifted[slot]) ** gamma / total();
      return { value, text: `${number(shifted[slot])}<sup>${number(gamma)}</sup> ∕ ${number(total())} = ${number(value)}` };
    } : undefined,
  };
}

function tightCosine(key, word) {
  let [product, keySquares, wordSquares] = [0, 1e-12, 1e-12];
  for (let at = 0; at < key.length; at++) {
    product += key[at] * word[at];
    keySquares += key[at] ** 2;
    wordSquares += word[at] ** 2;
  }
  return product / Math.sqrt(keySquares * wordSquares);
}

function jointCosine(key, word) {
  let [product, keySquares, wordSquares] = [0, 0, 0];
  for (let at = 0; at < key.length; at++) {
    product += key[at] * word[at];
    keySquares += key[at] ** 2;
    wordSquares += word[at] ** 2;
  }
  return product / Math.sqrt(keySquares * wordSquares + EPSILON);
}

function ntmReadLines(run, step, head) {
  const isKnown = run.memory && run.model.order !== "in-turn";
  const memory = isKnown && once(() => peek(run.memory, run.model.order === "before-controller" ? step + 1 : step));
  return [readLine(run.values("read_weights", step, head), run.values("read_vectors", step, head), memory || undefined, "<var>r</var>")];
}

function ntmWriteLines(run, step, head, slot) {
  const isLast = head === run.model.write_heads - 1 && run.model.order !== "in-turn";
  return [
    { name: "erase vector", symbol: "<var>e</var>", over: "words", values: run.values("erase_vectors", step, head) },
    { name: "add vector", symbol: "<var>v</var>", over: "words", signed: true, values: run.values("add_vectors", step, head) },
    isLast ? memoryLine(run, step, slot, {
      weights: run.values("write_weights", step),
      erased: run.values("erase_vectors", step),
      added: run.values("add_vectors", step),
    }) : undefined,
  ];
}
