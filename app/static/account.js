// What memory does, in words: of one read, one write, one location, one step.

import { LEAST_WEIGHT } from "./ties.js";

const MOST_VALUES = 16; // of a vector in a line of text
const MOST_PLACES = 6; // in a list of steps
const FOCUSED = 0.5; // part of a weighting in one location, from which the others are not spoken of
const LEAST_PART = 0.1; // of what was read, from which a write is spoken of
const CLEAR = 0.75; // part of a read that one mode makes up, from which the others are not spoken of

/** Return a number as text. */
export function two(value) {
  return value.toFixed(2).replace(/^-(0\.00)$/, "$1");
}

/** Return what came in at a step, as text: its name, unless that is a number, and the vector, if it is short. */
export function heard({ task, model, sequence }, step) {
  const input = sequence.inputs[step];
  if (model.vocabulary_size) return `“${sequence.labels?.[step] ?? task.words?.[input[0]] ?? input[0]}”`;
  const label = sequence.labels?.[step];
  const name = label && Number.isNaN(Number(label)) ? `“${label}”` : "";
  return [name, name && input.length > MOST_VALUES ? "" : vectorText(input)].filter(Boolean).join(", ");
}

function vectorText(input) {
  const areBits = input.every((value) => value === 0 || value === 1);
  const shown = input.slice(0, MOST_VALUES).map((value) => Number(value.toFixed(2)));
  return `the vector ${shown.join(areBits ? "" : " ")}${input.length > MOST_VALUES ? "…" : ""}`;
}

/** Return a read, {slot, weight, sources}, as text. */
export function readText(run, { slot, weight, sources }) {
  const parts = sources.filter(({ share }) => share >= LEAST_PART).slice(0, 2);
  const from = parts.map((source) => sourceText(run, source, parts.length > 1));
  const none = run.from > 0 ? `not written since step ${run.from}` : "never written";
  return `read from location ${slot} (${two(weight)}), ${from.join(" and ") || none}`;
}

function sourceText(run, { step, share }, isPart) {
  const part = isPart ? ` (${Math.round(100 * share)} %)` : "";
  if (step < 0) return `there ${run.from > 0 ? `before step ${run.from}` : "from the start"}${part}`;
  return `written at step ${run.from + step}${part}: ${heard(run, step)}`;
}

/** Return a write at a step into a location as text. readers: the reads that find it. */
export function writeText(run, step, slot, weight, readers) {
  const later = readers.map((read) => `${run.from + read.step} (${two(read.weight)})`);
  const read = later.length > 0 ? `read at ${stepsText(later)}` : "not read so far";
  return `written to location ${slot} (${two(weight)}) at step ${run.from + step}: ${heard(run, step)}; ${read}`;
}

/** Return the life of a location as text; see ties.js. from: the time of the first step. */
export function lifeText({ written, read, freed, usage }, from = 0) {
  const times = (steps) => stepsText(ranges(steps.map((step) => from + step)));
  const part = (name, steps) => (steps.length > 0 ? `${name} at ${times(steps)}` : `${from > 0 ? "not" : "never"} ${name}`);
  const steps = (list) => list.map(({ step }) => step);
  const parts = [part("written", steps(written)), part("read", steps(read))];
  return [...parts, ...(usage ? [part("freed", freed)] : [])].join(" · ");
}

/** Return steps in ascending order as texts, those in a row as one: [3, 5, 6, 7] is ["3", "5 to 7"]. */
export function ranges(steps) {
  const starts = steps.filter((step, at) => steps[at - 1] !== step - 1);
  const ends = steps.filter((step, at) => steps[at + 1] !== step + 1);
  return starts.map((start, at) => (start === ends[at] ? `${start}` : `${start} to ${ends[at]}`));
}

function stepsText(texts) {
  const more = texts.length - MOST_PLACES;
  return texts.slice(0, MOST_PLACES).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** Return what a step did, a list of sentences. ties: of the run. */
export function overview(run, ties, step) {
  const { model } = run;
  if (!run.has("write_weights")) return ["This model has no memory to address: all it remembers is in the state of its controller."];
  const writes = together("write", model.write_heads, (head) => writeSentence(run, step, head));
  const readHeads = run.has("read_weights") ? model.read_heads : 0;
  const reads = together("read", readHeads, (head) => readSentence(run, ties, step, head));
  return model.kind === "ntm" ? [...reads, ...writes] : [...freeSentences(run, step), ...writes, ...reads];
}

/** Return a sentence of each head, or of all those of which the same is to be said. */
function together(kind, count, sentence) {
  const heads = Map.groupBy(Array.from({ length: count }, (_, head) => head), sentence);
  return [...heads].map(([text, numbers]) => `${headsName(kind, numbers, count)} ${text}.`);
}

function freeSentences(run, step) {
  const retention = run.values("retention", step);
  const before = step > 0 ? run.values("usage", step - 1) : undefined;
  if (!retention || !before) return [];
  const freed = [...retention.keys()].filter((slot) => retention[slot] < 0.5 && before[slot] >= LEAST_WEIGHT);
  return freed.length > 0 ? [`Freed ${slotsText(freed.map((slot) => `${slot}`))}, read at the step before.`] : [];
}

function slotsText(slots) {
  return `location${slots.length > 1 ? "s" : ""} ${stepsText(slots)}`;
}

function headsName(kind, heads, count) {
  if (count === 1) return `The ${kind} head`;
  const name = kind === "read" ? "Read head" : "Write head";
  return heads.length > 1 ? `${name}s ${heads.slice(0, -1).join(", ")} and ${heads.at(-1)}` : `${name} ${heads[0]}`;
}

function writeSentence(run, step, head) {
  const place = placeOf(run.values("write_weights", step, head));
  if (place.sum < LEAST_WEIGHT) return `wrote next to nothing (${two(place.sum)} in all)`;
  const wrote = `wrote ${placeText(place, "into")}`;
  if (run.model.kind === "ntm") return wayOf(run, step, run.model.read_heads + head, place) + wrote;
  return wrote + writeHow(run, step, head, place);
}

function readSentence(run, ties, step, head) {
  const place = placeOf(run.values("read_weights", step, head));
  if (place.sum < LEAST_WEIGHT) return `read next to nothing (${two(place.sum)} in all)`;
  const read = `read ${placeText(place, "from")}`;
  const found = run.model.kind === "ntm" ? wayOf(run, step, head, place) + read : read + readHow(run, step, head, place);
  const sources = place.isFocused ? ties.sources(step, place.slot, head).filter(({ step, share }) => step >= 0 && share >= 1 - CLEAR) : [];
  return found + writtenText(new Set(sources.map((source) => run.from + source.step)));
}

function writtenText(steps) {
  return steps.size > 0 ? `, written at step${steps.size > 1 ? "s" : ""} ${[...steps].join(" and ")}` : "";
}

/** Return where a weighting is, if there is one: its largest weight, the location of that, its sum, whether it is mostly there. */
export function placeOf(weights) {
  let [slot, sum] = [0, 0];
  weights?.forEach((weight, at) => {
    sum += weight;
    if (weight > weights[slot]) slot = at;
  });
  const weight = weights?.[slot] ?? 0;
  return { slot, sum, weight, isFocused: weight >= FOCUSED * sum };
}

function placeText({ slot, sum, weight, isFocused }, word) {
  if (isFocused) return `${two(weight)} ${word} location ${slot}`;
  return `${two(sum)} in all, spread over several locations, most (${two(weight)}) ${word} location ${slot}`;
}

/** Return how a DNC found the location it wrote to: newly allocated, or by content. */
function writeHow(run, step, head, { slot, isFocused }) {
  const gate = run.values("allocation_gate", step, head)?.[0];
  const allocated = run.values("allocation_weights", step, head)?.[slot];
  if (gate === undefined || allocated === undefined || !isFocused) return "";
  const written = run.values("write_weights", step, head)[slot];
  const part = (run.values("write_gate", step, head)[0] * gate * allocated) / written;
  if (part >= CLEAR) return ", newly allocated";
  return part < 1 - CLEAR ? ", found by content" : `, newly allocated (${two(part)}) and found by content (${two(1 - part)})`;
}

/** Return how a DNC found the location it read: along the links of each write head, or by content. */
function readHow(run, step, head, { slot }) {
  const weight = run.values("read_weights", step, head)[slot];
  const parts = modesAt(run, step, head, slot).map((mode) => ({ ...mode, part: mode.value / weight }));
  parts.sort((one, other) => other.part - one.part);
  if (parts.length === 0) return run.has("read_modes") ? "" : " by content";
  const shown = parts[0].part >= CLEAR ? parts.slice(0, 1) : parts.slice(0, 2);
  return ` by ${shown.map((mode) => modeText(run, step, head, mode) + (shown.length > 1 ? ` (${two(mode.part)})` : "")).join(" and ")}`;
}

function modeText(run, step, head, { name }) {
  if (name === "content") return "content";
  const before = step > 0 ? run.values("read_weights", step - 1, head) : undefined;
  return `going ${name}${before ? ` from location ${placeOf(before).slot}` : ""}`;
}

/**
 * Return what the read modes give to one location: [{name, writeHead, mode, weight, value}], value being mode times weight,
 * in the order of the read modes; none where they, or the weightings that they mix, are not traced.
 */
export function modesAt(run, step, head, slot) {
  const { write_heads: writes } = run.model;
  const modes = run.values("read_modes", step, head);
  const content = run.values("read_content_weights", step, head)?.[slot];
  if (!modes || content === undefined || !run.has("forward_weights")) return [];
  const along = (name) =>
    Array.from({ length: writes }, (_, writeHead) => {
      const weights = run.values(`${name}_weights`, step, head);
      return { name, writeHead, weight: weights[writeHead * run.slots + slot] };
    });
  const parts = [...along("backward"), ...along("forward"), { name: "content", weight: content }];
  return parts.map((part, at) => ({ ...part, mode: modes[at], value: modes[at] * part.weight }));
}

/** Return how a head of an NTM came to its location: by content or from where it was, and then by a shift. */
function wayOf(run, step, head, { slot, isFocused }) {
  const gate = run.values("interpolation_gate", step)?.[head];
  const shifts = run.values("shift_weights", step, head);
  if (gate === undefined || !shifts || !isFocused || run.model.order === "before-controller") return "";
  const shift = placeOf(shifts).slot - (shifts.length - 1) / 2;
  const start = (slot - shift + run.slots) % run.slots;
  const found = gate >= 0.5 ? `found location ${start} by content` : `stayed at location ${start}`;
  return shift === 0 ? `${found} and ` : `${found.replace("stayed", "was")}, moved ${shift > 0 ? "on" : "back"} by ${Math.abs(shift)} and `;
}
