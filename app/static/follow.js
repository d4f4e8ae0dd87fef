// A session of an API client, followed as it goes: the page reads it, and neither steps nor ends it.

import { Problem, describeModel, rewindSession, sessionInfo, sessionRecording, sessionState } from "./api.js";
import { shownTraces } from "./plots.js";
import { answersOf, linesOf, wordOf } from "./recording.js";
import { Run } from "./run.js";
import { taskOf } from "./tasks.js";

const REST = 0.5; // seconds between two looks at a session
const LONGEST_REST = 10; // seconds, while the server does not answer
const MOST = 2000; // steps of the past that are shown at first; at twice as many the older half is left

const LENGTHS = [50, 100, 200, 300, 500, 750, 1000, 1500, 2000, 2500, 3000, 4000]; // of the axis of time, which seldom changes

/** Follows one session. */
export class Follower {
  /**
   * on: onRun(run): it is another run from now on; onSteps(run, isLonger): some steps came, isLonger: more than its axis
   * had room for; onNews(text, isOver): how it is.
   */
  constructor(id, on) {
    Object.assign(this, { id, on, isOver: false });
  }

  /** Show the past of the session, and whatever comes from now on. Throws Problem. */
  async begin() {
    const info = await sessionInfo(this.id);
    this.model = await describeModel(info.model);
    this.task = taskOf(this.model);
    await this.load(info);
    this.follow();
  }

  /** Put the session to a step that it was at: the next look shows what it has then. Throws Problem. */
  async rewind(step) {
    await rewindSession(this.id, step);
    this.isRewound = true;
  }

  /** Follow it no longer. */
  stop() {
    this.isOver = true;
  }

  /** Return the state where the session is: leaf -> nested lists. */
  state(leaves) {
    return leaves.length > 0 && !this.isOver ? sessionState(this.id, leaves) : {};
  }

  /** The steps that the session had taken when it was last looked at. */
  get known() {
    return this.run.from + this.run.done;
  }

  /** Begin anew, with the steps that are kept, or the last of them. */
  async load({ memory_size: memorySize, oldest, step, force }) {
    const from = Math.max(oldest, step - MOST);
    const leaves = ["memory", ...(from > 0 ? ["link", "precedence_weights"] : [])];
    const traces = shownTraces(this.model);
    const first = await this.stateAt(leaves, from);
    const labels = this.task.words && [];
    const sequence = { inputs: [], targets: [], labels, isOpen: true, unasked: "Which answers are right is not known here" };
    const place = { session: this.id };
    const run = new Run(this.model, this.task, sequence, { memorySize, first, from, traces, place, force: force ?? undefined });
    await this.take(run, step);
    if (this.isOver) return;
    Object.assign(this, { run, isRewound: false });
    this.fit();
    await this.on.onRun(run);
  }

  stateAt(leaves, step) {
    const { state, graph } = this.model;
    const known = leaves.filter((name) => !graph && name in state);
    return known.length > 0 ? sessionState(this.id, known, step) : {};
  }

  /** Add the steps up to `to` to a run. Returns whether they go on from those that it has. */
  async take(run, to) {
    const known = run.from + run.done;
    const lines = [];
    if (to > known) {
      const from = Math.max(run.from, known - 1); // the last one again: after a rewind it is another
      const stream = await sessionRecording(this.id, { from, to, trace: [...run.traces] });
      for await (const text of linesOf(stream)) lines.push(JSON.parse(text));
    }
    if (lines.at(-1)?.error) throw new Problem(lines.at(-1).error);
    const again = run.done > 0 ? lines.shift() : undefined;
    if (again && !isSame(again, run)) return false;
    lines.forEach(({ inputs }, at) => (run.sequence.inputs[run.done + at] = inputs));
    run.take(answersOf(lines));
    return true;
  }

  /** Look at the session once. */
  async look() {
    const info = await sessionInfo(this.id);
    const isAnew = this.isRewound || info.step < this.known || info.step > this.run.from + 2 * MOST || info.oldest > this.known;
    if (isAnew) return this.load(info);
    if (info.step === this.known) return;
    if (!(await this.take(this.run, info.step))) return this.load(info);
    if (!this.isOver) await this.on.onSteps(this.run, this.fit());
  }

  /** Give the axis of time room for all steps. Returns whether it is longer than it was. */
  fit() {
    const { inputs, targets, labels } = this.run.sequence;
    const isExact = this.model.graph || this.task.parts;
    const length = isExact ? this.run.done : (LENGTHS.find((one) => one >= this.run.done) ?? this.run.done);
    const isLonger = length !== targets.length;
    inputs.length = length;
    while (targets.length < length) targets.push(null);
    for (let step = 0; labels && step < length; step++) labels[step] = wordOf(this.task, inputs[step]);
    return isLonger;
  }

  async follow() {
    for (let rest = REST; !this.isOver; ) {
      await later(rest);
      await whileHidden();
      if (this.isOver) return;
      rest = await this.lookAgain(rest);
    }
  }

  /** Look at the session once, and say how it is. Returns the seconds to wait before the next look. */
  async lookAgain(rest) {
    try {
      await this.look();
      if (!this.isOver) this.on.onNews("");
      return REST;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (this.isOver) return REST;
      if (!error.isPassing && error.status < 500) return this.end(error);
      const next = Math.min(Math.max(2 * rest, error.retryAfter ?? 0), LONGEST_REST);
      this.on.onNews(`${error.title}: ${error.message}. Trying again in ${next} s.`);
      return next;
    }
  }

  end(error) {
    this.stop();
    this.run.sequence.inputs.length = this.run.done;
    this.on.onNews(`${error.title}: ${error.message}. The session is not followed any more.`, true);
    return REST;
  }
}

/** Return whether a line is the last step of a run. */
function isSame({ inputs, outputs }, run) {
  const [was, said] = [run.sequence.inputs[run.done - 1], run.outputs.at(-1)];
  return inputs.every((value, at) => value === was[at]) && outputs.every((value, at) => value === said[at]);
}

function later(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

/** Return when the page is seen. */
function whileHidden() {
  if (document.visibilityState === "visible") return undefined;
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}
