// The memory and the links after each step, computed from what each step wrote.

const KEYFRAMES = 16; // steps between two that are kept: this many are computed again at most

/** Values that each step changes: those of any step, from the kept ones before it. */
class Replay {
  constructor(run, first) {
    this.run = run;
    this.kept = [first];
    this.now = { step: 0, values: first.slice() };
  }

  /** Return the values after `step` steps, of which at most `run.done` are taken; the next call overwrites them. */
  at(step) {
    const wanted = Math.min(Math.max(step, 0), this.run.done);
    if (wanted < this.now.step || wanted - this.now.step > KEYFRAMES) this.jump(wanted);
    while (this.now.step < wanted) {
      this.advance(this.now.values, this.now.step++);
      if (this.now.step % KEYFRAMES === 0) this.kept[this.now.step / KEYFRAMES] ??= this.now.values.slice();
    }
    return this.now.values;
  }

  /** Begin anew at the latest kept values before a step, unless those at hand are later. */
  jump(wanted) {
    const number = Math.min(Math.floor(wanted / KEYFRAMES), this.kept.length - 1);
    if (this.now.step <= wanted && this.now.step >= number * KEYFRAMES) return;
    this.now.values.set(this.kept[number]);
    this.now.step = number * KEYFRAMES;
  }
}

/** Return the numbers of the write heads in groups: those of a group write at once, and the groups one after the other. */
export function writeGroups({ write_heads: count, order }) {
  const heads = Array.from({ length: count }, (_, head) => head);
  return order === "in-turn" ? heads.map((head) => [head]) : [heads];
}

/** M = M * prod (1 - w e^T) + sum w v^T over the heads of each group of write heads: [slots][word]. */
export class MemoryReplay extends Replay {
  /** Return the memory of a run, or undefined where the model has none or does not trace what it writes. */
  static of(run, { memory }) {
    const vectors = ["write_vectors", "add_vectors"].find((name) => run.has(name));
    if (!memory || !vectors || !run.has("erase_vectors") || !run.has("write_weights")) return undefined;
    return new MemoryReplay(run, memory, vectors);
  }

  constructor(run, memory, vectors) {
    super(run, Float32Array.from(memory.flat()));
    this.slots = memory.length;
    this.width = memory[0].length;
    this.vectors = vectors;
    this.groups = writeGroups(run.model);
  }

  /** Return a copy of the memory after `step` steps and, of the next one, the writes of the first `count` groups. */
  within(step, count) {
    const memory = this.at(step).slice();
    for (const heads of this.groups.slice(0, count)) this.write(memory, step, heads);
    return memory;
  }

  advance(memory, step) {
    for (const heads of this.groups) this.write(memory, step, heads);
  }

  write(memory, step, heads) {
    const { run, slots, width } = this;
    const weights = run.trace.write_weights[step];
    const erased = run.trace.erase_vectors[step];
    const added = run.trace[this.vectors][step];
    const retention = run.model.deallocation ? run.trace.retention?.[step] : undefined;
    for (let slot = 0; slot < slots; slot++) {
      for (let word = 0; word < width; word++) {
        let [keep, add] = [retention?.[slot] ?? 1, 0];
        for (const head of heads) {
          const weight = weights[head * slots + slot];
          keep *= 1 - weight * erased[head * width + word];
          add += weight * added[head * width + word];
        }
        memory[slot * width + word] = memory[slot * width + word] * keep + add;
      }
    }
  }
}

/** L[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j], and p = (1 - sum w) p + w, of one write head: [slots][slots], then p. */
export class LinkReplay extends Replay {
  /** Return the links of a run by the number of the write head, or undefined where the model has none, or sparse ones. */
  static of(run, { link, precedence_weights: precedence }) {
    const { state, write_heads: heads } = run.model;
    const [, rows, columns] = state.link ?? []; // those of sparse links differ, which cannot be replayed
    if (rows === undefined || rows !== columns || !run.slots || !run.has("write_weights")) return undefined;
    if (run.from > 0 && link?.[0]?.[0]?.length !== run.slots) return undefined; // nothing to begin from
    const first = (head) => (link && precedence ? [link[head], precedence[head]].flat(2) : run.slots * (run.slots + 1));
    return Array.from({ length: heads }, (_, head) => new LinkReplay(run, head, new Float32Array(first(head))));
  }

  constructor(run, head, first) {
    super(run, first);
    Object.assign(this, { head, slots: run.slots });
  }

  advance(values, step) {
    const { run, head, slots } = this;
    const weights = run.values("write_weights", step, head);
    const precedence = values.subarray(slots * slots);
    let written = 0;
    for (let i = 0; i < slots; i++) {
      const to = weights[i];
      written += to;
      for (let j = 0, at = i * slots; j < slots; j++, at++) {
        values[at] = i === j ? 0 : (1 - to - weights[j]) * values[at] + to * precedence[j];
      }
    }
    for (let i = 0; i < slots; i++) precedence[i] = (1 - written) * precedence[i] + weights[i];
  }
}
