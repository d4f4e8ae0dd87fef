// A branch: what a model would have made of a run, had something been otherwise from a step on.

import { forkSession, openSession } from "./api.js";
import { shownLeaves, shownTraces } from "./plots.js";
import { Run } from "./run.js";
import { LiveSession } from "./session.js";

/** A run beside another, in a session of its own. */
export class Branch {
  /**
   * a: the run that it is a branch of, all of whose steps are done; session: that of `a`.
   * change: {step: the first one that is otherwise; vector: what is heard at it; force: gates that are held at values from it on;
   * slots: of its memory, which make it begin anew}, all but the step optional.
   */
  constructor(a, session, change) {
    Object.assign(this, { a, origin: session, change });
  }

  /** The first step that the branch does not have in common with its run. */
  get start() {
    return this.change.slots === undefined ? this.change.step : 0;
  }

  /** Open its session, and step it to the end. Throws Problem. */
  async begin() {
    const { a, start } = this;
    const { id } = await this.open();
    this.session = new LiveSession(a.model, id);
    if (this.isOver) return this.session.end();
    const first = start > 0 ? a.first : await this.session.first(shownLeaves(a.model));
    const { force, slots: memorySize = a.slots ?? undefined } = this.change;
    this.run = new Run(a.model, a.task, sequenceOf(a, this.change), { memorySize, first, place: a.place, force });
    this.run.take(beginningOf(a, start));
    await this.session.step(this.run.sequence.inputs.slice(start), shownTraces(a.model), (answer) => this.run.take(answer));
  }

  open() {
    const { step, force, slots } = this.change;
    if (slots === undefined) return forkSession(this.origin.id, { step, force });
    return openSession(this.a.model, { memorySize: slots, force });
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

/** Return what a run did before a step. */
function beginningOf({ outputs, trace }, step) {
  const traces = Object.entries(trace).map(([name, steps]) => [name, steps.slice(0, step)]);
  return { outputs: outputs.slice(0, step), trace: Object.fromEntries(traces) };
}
