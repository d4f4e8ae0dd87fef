// Which write a read comes from: what each write put into a slot, and how much of it the later ones have left there.

import { writeGroups } from "./replay.js";

const FORGOTTEN = 0.01; // share of a slot's content, below which what is left of a write counts no more
const MOST_SOURCES = 4; // of a slot at a step
const MOST_READS = 3; // of a head at a step

/** Weights below this are neither called a write nor a read. */
export const LEAST_WEIGHT = 0.1;

/** Ties the reads of a run to its writes. */
export class Ties {
  constructor(run) {
    Object.assign(this, { run, histories: new Map() });
  }

  /**
   * Return the writes that the content of a location comes from as a read head finds it at `step`, the largest part first:
   * [{step, head, weight, share}], where share is the part of the content and weight that of the write. Step -1 is the
   * content before the first step.
   */
  sources(step, slot, head = 0) {
    if (!this.run.has("write_weights")) return [];
    if (!this.histories.has(slot)) this.histories.set(slot, new History(this.run, slot));
    return this.histories.get(slot).after(seen(this.run, step, head)).filter(({ weight }) => weight >= LEAST_WEIGHT);
  }

  /** Return the strongest reads at a step, of all read heads: [{step, head, slot, weight, sources}]. */
  reads(step) {
    return Array.from({ length: this.run.model.read_heads }, (_, head) => this.readsOf(step, head)).flat();
  }

  readsOf(step, head) {
    const weights = this.run.values("read_weights", step, head) ?? [];
    const slots = [];
    weights.forEach((weight, slot) => weight >= LEAST_WEIGHT && slots.push(slot));
    slots.sort((one, other) => weights[other] - weights[one]);
    return slots.slice(0, MOST_READS).map((slot) => this.read(step, head, slot));
  }

  /** Return one read. */
  read(step, head, slot) {
    const weight = this.run.values("read_weights", step, head)[slot];
    return { step, head, slot, weight, sources: this.sources(step, slot, head) };
  }

  /** Return the reads at which what was written at `step` into a slot is still the largest part of it. */
  readers(step, slot) {
    const found = [];
    if (!this.run.has("read_weights")) return found;
    for (let later = step; later < this.run.done; later++) {
      for (let head = 0; head < this.run.model.read_heads; head++) {
        const read = this.read(later, head, slot);
        if (read.sources[0]?.step === step && read.weight >= LEAST_WEIGHT) found.push(read);
      }
    }
    return found;
  }
}

/**
 * Return how many groups of write heads, of all steps, have written what a read head finds at `step`: a DNC writes before
 * it reads, an NTM after it; of heads that act in turn, each reads before the write head of its own number.
 */
function seen({ model }, step, head) {
  const count = writeGroups(model).length;
  if (model.order === "in-turn") return step * count + head;
  const writesFirst = model.kind !== "ntm" || model.order === "before-controller";
  return writesFirst ? step + 1 : step;
}

/** The content of one location after each group of writes, by the writes that it comes from. */
class History {
  constructor(run, slot) {
    Object.assign(this, { run, slot, groups: writeGroups(run.model) });
    this.vectors = run.model.kind === "ntm" ? "add_vectors" : "write_vectors";
    this.left = run.memory ? [firstContent(run.memory, slot)] : [];
    this.sources = [this.strongest()];
  }

  /** Return the sources after `count` groups of writes. */
  after(count) {
    const known = Math.min(count, this.run.done * this.groups.length);
    while (this.sources.length <= known) this.advance(this.sources.length - 1);
    return this.sources[known];
  }

  /** Take in the writes of the group that is the `count`th of all steps. */
  advance(count) {
    const step = Math.floor(count / this.groups.length);
    const writes = this.groups[count % this.groups.length].map((head) => this.written(step, head));
    const kept = this.kept(step, writes);
    for (const part of this.left) part.size = scaled(part.vector, kept);
    this.left.push(...writes);
    this.sources.push(this.strongest());
  }

  /** Forget what is next to nothing, and return the largest parts of what is left. */
  strongest() {
    const total = this.left.reduce((sum, { size }) => sum + size, 0);
    this.left = this.left.filter(({ size }) => size > FORGOTTEN * total).sort((one, other) => other.size - one.size);
    const most = this.left.slice(0, MOST_SOURCES);
    return most.map(({ step, head, weight, size }) => ({ step, head, weight, share: size / total }));
  }

  /** Return the part of each word that writes of a step leave: all of it is erased where erase vectors are not traced. */
  kept(step, writes) {
    const { run } = this;
    const retained = run.model.deallocation ? (run.trace.retention?.[step][this.slot] ?? 1) : 1;
    const erased = writes.map(({ head }) => run.values("erase_vectors", step, head) ?? [1]);
    return erased[0].map((_, word) => writes.reduce((kept, { weight }, at) => kept * (1 - weight * erased[at][word]), retained));
  }

  written(step, head) {
    const weight = this.run.values("write_weights", step, head)[this.slot];
    const vector = this.run.values(this.vectors, step, head) ?? new Float32Array([1]);
    const part = { step, head, weight, vector: vector.slice() };
    part.size = scaled(part.vector, part.vector.map(() => weight));
    return part;
  }
}

/** Return what is in a slot before the first step. */
function firstContent({ kept: [first], width }, slot) {
  const vector = first.slice(slot * width, (slot + 1) * width);
  return { step: -1, head: 0, weight: 1, vector, size: scaled(vector, [1]) };
}

/** Multiply a vector by factors, or by the only one there is; return the sum of its absolute values. */
function scaled(vector, factors) {
  let size = 0;
  for (let word = 0; word < vector.length; word++) {
    vector[word] *= factors.length === 1 ? factors[0] : factors[word];
    size += Math.abs(vector[word]);
  }
  return size;
}

/**
 * Return the life of a slot as far as it is done: the steps that wrote to it, read from it and freed it,
 * {written, read: [{step, weight}], freed: [step], usage: a list, or undefined where it is not traced}.
 */
export function lifeOf(run, slot) {
  const { read_heads: reads, write_heads: writes } = run.model;
  const usage = run.trace.usage?.map((values) => values[slot]);
  return {
    written: touches(run, "write_weights", writes, slot),
    read: touches(run, "read_weights", reads, slot),
    freed: usage ? usage.flatMap((_, step) => (isFreed(run, usage, step, slot) ? [step] : [])) : [],
    usage,
  };
}

function touches(run, name, heads, slot) {
  if (!run.has(name)) return [];
  const weights = (step) => Array.from({ length: heads }, (_, head) => run.values(name, step, head)[slot]);
  return Array.from({ length: run.done }, (_, step) => ({ step, weight: Math.max(...weights(step)) })).filter(
    ({ weight }) => weight >= LEAST_WEIGHT,
  );
}

/** Return whether a step freed a slot that was in use: with no free gate its usage would have been twice as high. */
function isFreed({ trace, model, slots }, usage, step, slot) {
  if (step === 0) return false;
  let unwritten = 1;
  for (let head = 0; head < model.write_heads; head++) unwritten *= 1 - trace.write_weights[step - 1][head * slots + slot];
  const without = 1 - (1 - usage[step - 1]) * unwritten;
  return without >= LEAST_WEIGHT && usage[step] < without / 2;
}
