// The equations of a step of a DNC (Graves et al. 2016, Methods); see equation-parts.js.

import { modesAt, placeOf } from "./account.js";
import * as parts from "./equation-parts.js";
import { number, once, partsLine, product, upTo } from "./equation-parts.js";

/** Return the equations, [{title, focus, lines}]; slot: whose numbers to put in, else that of the largest weight. */
export function dncGroups(moments, slot) {
  const { read_heads: reads, write_heads: writes } = moments.model;
  const place = (name, head) => slot ?? placeOf(moments.values(name, head)).slot;
  return [
    { title: "Locations in use", focus: place("write_weights", 0), lines: usageLines(moments) },
    ...upTo(writes).flatMap((head) => writeGroups(moments, head, place("write_weights", head))),
    ...upTo(reads).map((head) => readGroup(moments, head, place("read_weights", head))),
  ];
}

function usageLines(moments) {
  const reads = upTo(moments.model.read_heads);
  const labels = reads.map((head) => (reads.length > 1 ? `<small>${head}</small>` : ""));
  return [partsLine("free gates", "<var>f</var>", moments.values("free_gates"), labels), retentionLine(moments), usageLine(moments)];
}

function retentionLine(moments) {
  const gates = moments.values("free_gates");
  const weights = upTo(moments.model.read_heads).map((head) => moments.before("read_weights", head));
  return {
    name: "retention",
    symbol: "ψ",
    over: "slots",
    values: moments.values("retention"),
    formula: "ψ = Π<sub><var>r</var></sub> (1 − <var>f<sub>r</sub> w</var><sup>r</sup><sub>−1</sub>), by what was read at the step before",
    at: gates && weights.every(Boolean) && ((slot) => {
      const value = weights.reduce((rest, read, head) => rest * (1 - gates[head] * read[slot]), 1);
      const factors = weights.map((read, head) => `(1 − ${product(gates[head], read[slot])})`);
      return { value, text: `${factors.join(" ")} = ${number(value)}` };
    }),
  };
}

function usageLine(moments) {
  const [before, retention] = [moments.before("usage"), moments.values("retention")];
  const weights = upTo(moments.model.write_heads).map((head) => moments.before("write_weights", head));
  return {
    name: "usage",
    symbol: "<var>u</var>",
    over: "slots",
    values: moments.values("usage"),
    formula: "<var>u</var> = (<var>u</var><sub>−1</sub> + <var>w</var><sub>−1</sub> − <var>u</var><sub>−1</sub> <var>w</var><sub>−1</sub>) ψ",
    at: retention && before && weights.every(Boolean) && ((slot) => {
      const written = 1 - weights.reduce((rest, wrote) => rest * (1 - wrote[slot]), 1);
      const used = before[slot];
      const value = (used + written - used * written) * retention[slot];
      const sum = `(${number(used)} + ${number(written)} − ${product(used, written)})`;
      return { value, text: `${sum} · ${number(retention[slot])} = ${number(value)}` };
    }),
  };
}

function writeGroups(moments, head, slot) {
  const values = (name) => moments.values(name, head);
  const isLast = head === moments.model.write_heads - 1;
  const title = parts.headTitle("Write", head, moments.model.write_heads);
  const lines = [
    parts.vectorLine("key", "<var>k</var><sup>w</sup>", values("write_keys")),
    ...parts.strengthLines(moments.model, values("write_strengths"), moments.run.slots),
    contentLine(moments, head, "write", moments.memoryBefore),
    allocationLine(moments, head),
    partsLine("allocation gate", "<var>g</var><sup>a</sup>", values("allocation_gate")),
    partsLine("write gate", "<var>g</var><sup>w</sup>", values("write_gate")),
    writeLine(values),
    parts.vectorLine("erase vector", "<var>e</var>", values("erase_vectors"), false),
    parts.vectorLine("write vector", "<var>v</var>", values("write_vectors")),
    isLast ? parts.memoryLine(moments, slot, "write_vectors") : undefined,
  ];
  return [{ title, focus: slot, lines }, { title: `${title}: order of writing`, focus: slot, lines: linkLines(moments, head, slot) }];
}

function contentLine(moments, head, kind, memory) {
  const values = (name) => moments.values(`${kind}_${name}`, head);
  const symbol = `<var>c</var><sup>${kind[0]}</sup>`;
  const [key, strength, mask] = ["keys", "strengths", "masks"].map(values);
  return parts.contentLine({ model: moments.model, symbol, key, strength, mask, values: values("content_weights"), memory });
}

function allocationLine(moments, head) {
  const usage = once(() => usageFor(moments, head));
  const order = once(() => freeList(usage()));
  const isKnown = moments.has("usage") && moments.has("allocation_gate") && moments.has("write_gate");
  return {
    name: "allocation",
    symbol: "<var>a</var>",
    over: "slots",
    values: moments.values("allocation_weights", head),
    formula:
      "<var>a</var>[φ<sub><var>j</var></sub>] = (1 − <var>u</var>[φ<sub><var>j</var></sub>]) " +
      "Π<sub><var>i</var>&lt;<var>j</var></sub> <var>u</var>[φ<sub><var>i</var></sub>], φ: the locations, the freest first",
    at: isKnown && ((slot) => {
      const place = order().indexOf(slot);
      const freer = order().slice(0, place).reduce((rest, other) => rest * floored(usage()[other]), 1);
      const value = (1 - floored(usage()[slot])) * freer;
      return { value, text: `φ<sub>${place}</sub>: (1 − ${number(usage()[slot])}) · ${number(freer)} = ${number(value)}` };
    }),
  };
}

/** Return the usage that a write head sees: what the heads before it will allocate counts as used. */
function usageFor(moments, head) {
  const gates = ["allocation_gate", "write_gate"].map((name) => moments.values(name));
  return upTo(head).reduce((usage, earlier) => {
    const allocated = moments.values("allocation_weights", earlier);
    return usage.map((used, slot) => used + (1 - used) * gates[0][earlier] * gates[1][earlier] * allocated[slot]);
  }, moments.values("usage"));
}

function floored(usage) {
  return parts.EPSILON + (1 - parts.EPSILON) * usage;
}

/** Return the locations, the freest first; those that float32 cannot tell apart in the order of their numbers. */
function freeList(usage) {
  const free = Float32Array.from(usage, (used) => 1 - Math.fround(floored(used)));
  return upTo(usage.length).sort((one, other) => free[other] - free[one] || one - other);
}

function writeLine(values) {
  const [content, allocation] = ["write_content_weights", "allocation_weights"].map(values);
  const [[toFree], [gate]] = ["allocation_gate", "write_gate"].map((name) => values(name) ?? []);
  const isKnown = content && allocation && toFree !== undefined && gate !== undefined;
  return {
    name: "write weighting",
    symbol: "<var>w</var><sup>w</sup>",
    over: "slots",
    values: values("write_weights"),
    formula: "<var>w</var><sup>w</sup> = <var>g</var><sup>w</sup> (<var>g</var><sup>a</sup> <var>a</var> + (1 − <var>g</var><sup>a</sup>) <var>c</var><sup>w</sup>)",
    at: isKnown && ((slot) => {
      const value = gate * (toFree * allocation[slot] + (1 - toFree) * content[slot]);
      const sum = `${product(toFree, allocation[slot])} + ${product(1 - toFree, content[slot])}`;
      return { value, text: `${number(gate)} (${sum}) = ${number(value)}` };
    }),
  };
}

/** Lines of the links that a write head made, to one location. */
function linkLines(moments, head, slot) {
  const { slots } = moments;
  const [before, after] = [moments.linksBefore[head], moments.linksAfter[head]];
  if (!after) return [];
  const weights = moments.values("write_weights", head);
  const precedence = (at) => before()[slots * slots + at];
  return [
    precedenceLine(after().subarray(slots * slots), precedence, weights),
    linkLine(parts.rowOf(after(), slot, slots), (from) => before()[slot * slots + from], precedence, weights, slot),
  ];
}

function precedenceLine(values, before, weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return {
    name: "precedence",
    symbol: "<var>p</var>",
    over: "slots",
    values,
    formula: "<var>p</var> = (1 − Σ<sub><var>n</var></sub> <var>w</var><sup>w</sup>[<var>n</var>]) <var>p</var><sub>−1</sub> + <var>w</var><sup>w</sup>",
    at: (slot) => {
      const value = (1 - total) * before(slot) + weights[slot];
      return { value, text: `(1 − ${number(total)}) · ${number(before(slot))} + ${number(weights[slot])} = ${number(value)}` };
    },
  };
}

function linkLine(values, before, precedence, weights, slot) {
  return {
    name: `links to ${slot}`,
    symbol: `<var>L</var>[${slot}]`,
    over: "slots",
    values,
    focus: placeOf(values).slot,
    formula:
      "<var>L</var>[<var>i</var>, <var>j</var>] = (1 − <var>w</var>[<var>i</var>] − <var>w</var>[<var>j</var>]) " +
      "<var>L</var><sub>−1</sub>[<var>i</var>, <var>j</var>] + <var>w</var>[<var>i</var>] <var>p</var><sub>−1</sub>[<var>j</var>]",
    at: (from) => {
      if (from === slot) return { value: 0, text: "0" };
      const value = (1 - weights[slot] - weights[from]) * before(from) + weights[slot] * precedence(from);
      const kept = `(1 − ${number(weights[slot])} − ${number(weights[from])}) · ${number(before(from))}`;
      return { value, text: `${kept} + ${product(weights[slot], precedence(from))} = ${number(value)}` };
    },
  };
}

function readGroup(moments, head, slot) {
  const values = (name) => moments.values(name, head);
  const lines = [
    parts.vectorLine("key", "<var>k</var><sup>r</sup>", values("read_keys")),
    ...parts.strengthLines(moments.model, values("read_strengths"), moments.run.slots),
    contentLine(moments, head, "read", moments.memoryAfter),
    ...alongLines(moments, head, "backward"),
    ...alongLines(moments, head, "forward"),
    modesLine(moments, head),
    weightingLine(moments, head),
    parts.readLine(values("read_weights"), values("read_vectors"), moments.memoryAfter),
  ];
  return { title: parts.headTitle("Read", head, moments.model.read_heads), focus: slot, lines };
}

/** Lines of the weightings along the links, one for each write head. */
function alongLines(moments, head, name) {
  const { slots, model } = moments;
  const all = moments.values(`${name}_weights`, head);
  if (!all) return [];
  const symbol = `<var>${name[0]}</var>`;
  const isSharpened = moments.has(`${name}_sharpness`);
  const matrix = `<var>L</var>${name === "forward" ? "" : "<sup>T</sup>"}`;
  return upTo(model.write_heads).map((writeHead) => ({
    name: model.write_heads > 1 ? `${name} ${writeHead}` : name,
    symbol: model.write_heads > 1 ? `${symbol}<sub>${writeHead}</sub>` : symbol,
    over: "slots",
    values: parts.rowOf(all, writeHead, slots),
    formula: `${symbol} = ${matrix} <var>w</var><sup>r</sup><sub>−1</sub>${isSharpened ? ", sharpened" : ""}`,
    at: moments.linksAfter[writeHead] && !isSharpened ? along(moments, head, name, writeHead) : undefined,
  }));
}

function along(moments, head, name, writeHead) {
  const { slots } = moments;
  const [links, read] = [moments.linksAfter[writeHead], moments.before("read_weights", head)];
  if (!read) return undefined;
  const cell = (slot, other) => (name === "forward" ? slot * slots + other : other * slots + slot);
  return (slot) => parts.mixed(Array.from(read, (weight, other) => [links()[cell(slot, other)], weight]), 1);
}

function modesLine(moments, head) {
  const writes = moments.model.write_heads;
  const along = (name) => upTo(writes).map((writeHead) => `<var>${name}</var>${writes > 1 ? `<sub>${writeHead}</sub>` : ""}`);
  return partsLine("read modes", "π", moments.values("read_modes", head), [...along("b"), ...along("f"), "<var>c</var>"]);
}

function weightingLine(moments, head) {
  const content = moments.values("read_content_weights", head);
  const isMixed = moments.has("read_modes");
  const mix = (slot) => parts.mixed(modesAt(moments.run, moments.step, head, slot).map(({ mode, weight }) => [mode, weight]));
  const alone = (slot) => ({ value: content[slot], text: number(content[slot]) });
  return {
    name: "read weighting",
    symbol: "<var>w</var><sup>r</sup>",
    over: "slots",
    values: moments.values("read_weights", head),
    formula: `<var>w</var><sup>r</sup> = ${isMixed ? "π<sub>b</sub> <var>b</var> + π<sub>f</sub> <var>f</var> + π<sub>c</sub> " : ""}<var>c</var><sup>r</sup>`,
    at: content && (isMixed ? moments.has("forward_weights") && mix : alone),
  };
}
