// One run: a sequence, and what a model made of it, step by step.

import { MemoryReplay, LinkReplay } from "./replay.js";

/**
 * What is known of a run. Views read it, and never change it.
 *
 * from: the step before the first, which is above 0 where the past of a session is not kept. place: what the address of
 * the page has of it, see address.js. first: leaves of the state at `from`. traces: the names of those that it has. force: gates
 * that are held at values, name -> list, if any are, by all its steps but those before `forcedFrom`; forcedBefore: the gates
 * that those hold. branch: if it is one, what is otherwise than in the run that it comes from, as text.
 * model: the card; task: see tasks.js; sequence: {inputs, targets, ...} as `task.encode` gives it; slots: of its memory.
 * outputs: [done][O]; trace: name -> for each step that is done, its values in one piece, a Float32Array.
 */
export class Run {
  constructor(model, task, sequence, known = {}) {
    const { memorySize, first = {}, from = 0, place = {}, traces, force, forcedFrom = 0, forcedBefore, branch } = known;
    const forced = { force, forcedFrom, forcedBefore };
    Object.assign(this, { model, task, sequence, first, from, place, ...forced, branch, outputs: [], trace: {} });
    this.traces = new Set(traces ?? Object.keys(model.trace));
    this.slots = memorySize ?? model.memory_size;
    this.memory = MemoryReplay.of(this, first);
    this.links = LinkReplay.of(this, first);
  }

  /** The steps of the sequence. */
  get length() {
    return this.sequence.inputs.length;
  }

  /** The steps that are done. */
  get done() {
    return this.outputs.length;
  }

  get isDone() {
    return this.done >= this.length;
  }

  /** Take the answer to some more steps. */
  take({ outputs, trace }) {
    this.outputs.push(...outputs);
    for (const [name, steps] of Object.entries(trace)) (this.trace[name] ??= []).push(...steps);
  }

  /** Return what came of the first `count` steps, as an answer to them. */
  beginning(count) {
    const { outputs, trace } = this;
    const traces = Object.entries(trace).map(([name, steps]) => [name, steps.slice(0, count)]);
    return { outputs: outputs.slice(0, count), trace: Object.fromEntries(traces) };
  }

  /** Return the same run with only its first `count` steps done. */
  upTo(count) {
    const run = new Run(this.model, this.task, this.sequence, { ...this, memorySize: this.slots });
    run.take(this.beginning(count));
    return run;
  }

  /** Return whether there is such a trace. */
  has(name) {
    return name in this.model.trace && this.traces.has(name);
  }

  /**
   * Return the values of one head, or of all there is where a trace has no heads, at a step that is done.
   * The rows of a trace of shape [heads, values] are heads.
   */
  values(name, step, head) {
    const all = this.trace[name]?.[step];
    if (!all || head === undefined) return all;
    const size = all.length / this.model.trace[name][0];
    return all.subarray(head * size, (head + 1) * size);
  }
}
