// A branch: what a model would have made of a run, had something been otherwise from a step on.

import { forkSession, openSession } from "./api.js";
import { changeText, heldTogether } from "./changes.js";
import { shownLeaves, shownTraces } from "./plots.js";
import { Run } from "./run.js";
import { LiveSession } from "./session.js";

/** A run beside another, in a session of its own. */
export class Branch {
  /**
   * a: the run that it is a branch of; session: {id} of that whose steps it has.
   * change: {step: the first one that is otherwise; vector: what is heard at it; force: gates that are held at values from it on;
   * slots: of its memory, which make it begin anew; chosen: the gates, see changes.js}, all but the step and those optional.
   */
  constructor(a, session, change) {
    Object.assign(this, { a, origin: session, change });
  }

  /** Whether it begins before the first step, and not in the middle of its run. */
  get isAnew() {
    return this.change.slots !== undefined;
  }

  /** The first step that the branch does not have in common with its run. */
  get start() {
    return this.isAnew ? 0 : this.change.step;
  }

  /** What is otherwise than in its run, as text. */
  get text() {
    return changeText(this.a, this.change);
  }

  /** Open its session, and take the steps that its run has taken. Throws Problem. */
  async begin() {
    const { a, start } = this;
    const { slots: memorySize = a.slots ?? undefined } = this.change;
    const force = heldTogether(a.force, this.change.force);
    const { id } = await this.open(force);
    this.session = new LiveSession(a.model, id, a.from + start);
    if (this.isOver) return this.session.end();
    const first = this.isAnew ? await this.session.first(shownLeaves(a.model)) : a.first;
    const { from, place, traces } = a;
    const forced = { force, forcedFrom: start, forcedBefore: a.force };
    this.run = new Run(a.model, a.task, sequenceOf(a, this.change), { memorySize, first, from, place, traces, ...forced, branch: this.text });
    this.run.take(a.beginning(start));
    await this.grow();
  }

  /** Open its session, with all gates that are held in it. */
  open(force) {
    if (this.isAnew) return openSession(this.a.model, { memorySize: this.change.slots, force });
    const isHeld = this.change.force !== undefined; // else the fork holds those of its session, and keeps its past
    return forkSession(this.origin.id, { step: this.a.from + this.change.step, force: isHeld ? force : undefined });
  }

  /** Take the steps that its run has taken since. Throws Problem. */
  async grow() {
    const { a, run } = this;
    run.sequence = sequenceOf(a, this.change);
    const inputs = run.sequence.inputs.slice(run.done, a.done);
    if (inputs.length > 0) await this.session.step(inputs, shownTraces(a.model), (answer) => run.take(answer));
  }

  /** End its session. */
  end() {
    this.isOver = true;
    return this.session?.end();
  }
}

/** Return the sequence of a branch; targets are those of the run. */
function sequenceOf({ sequence, task }, { step, vector }) {
  if (!vector) return sequence;
  const labels = task.words ? sequence.labels?.with(step, task.words[vector[0]]) : sequence.labels;
  return { ...sequence, inputs: sequence.inputs.with(step, vector), labels };
}
