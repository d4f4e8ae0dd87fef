// The page's own runs: each in a session of its own, which is stepped as far as it is looked at.

import * as address from "./address.js";
import { NOTHING_TO_REWIND, Problem } from "./api.js";
import { shownLeaves, shownTraces } from "./plots.js";
import { Run } from "./run.js";
import { LiveSession } from "./session.js";

/** Runs what is sent. */
export class Conductor {
  /** whatIf: changes the run that is shown, see what-if.js. */
  constructor({ sender, screen, turns, notices, whatIf }) {
    Object.assign(this, { sender, screen, turns, notices, whatIf });
    this.advanced = Promise.resolve(); // when all steps that were asked for are done
  }

  /** Run all of the sequence in a fresh session, and show it at a step, or else where there is most to see. */
  run(place) {
    return this.notices.whileBusy(() => this.runAll(place));
  }

  async runAll({ step, branch } = {}) {
    const turn = this.turns.begin();
    await this.begin(turn);
    if (this.turns.isOver(turn)) return;
    const { run, player } = this.screen;
    await this.advance(run.length);
    if (this.turns.isOver(turn)) return;
    player.show(Math.min(step ?? firstShown(run.sequence), run.length - 1));
    if (branch) await this.whatIf.restore(branch);
  }

  /** Show what is sent again, with no step taken. */
  async restart() {
    const turn = this.turns.begin();
    await this.begin(turn);
    if (!this.turns.isOver(turn)) this.screen.player.show(0);
  }

  /** Take a step, the first one where none is taken. */
  step() {
    const { player, run } = this.screen;
    return player.goTo(player.at === 0 && run.done === 0 ? 0 : player.step + 1);
  }

  /** Open a session for what is sent, and show it with no step taken. */
  async begin(turn) {
    this.screen.give(this);
    const sequence = this.sender.sequence();
    await this.whileBusy(turn, async () => {
      const { model, memorySize } = this.sender;
      const session = await LiveSession.open(model, { memorySize });
      if (this.turns.isOver(turn)) return session.end();
      this.session = session;
      address.visit(this.sender.place());
      const first = await session.first(model.graph ? [] : shownLeaves(model));
      if (this.turns.isOver(turn)) return;
      this.screen.show(new Run(model, this.sender.task, sequence, { memorySize, first, place: this.sender.known() }));
      this.whatIf.load(this.screen.run, session);
    });
  }

  /** Have steps done, up to `count` of them, after what was asked for before. */
  advance(count) {
    return this.inOrder((turn) => this.stepTo(count, turn));
  }

  /** Put the session to the step at the cursor: the next steps go on from there. Throws Problem, and then nothing has changed. */
  rewind() {
    const { player } = this.screen;
    player.pause();
    const count = player.step + 1;
    return this.inOrder((turn) => this.rewindTo(count, turn));
  }

  /** Do something for the turn that there is now, after what was asked for before. */
  inOrder(action) {
    const turn = this.turns.latest;
    this.advanced = this.advanced
      .catch(() => {})
      .then(() => (this.turns.isOver(turn) || !this.session ? undefined : action(turn)));
    return this.advanced;
  }

  /** Have steps done, up to `count` of them, and show them. */
  async stepTo(count, turn) {
    const { run } = this.screen;
    if (count <= run.done && run.length > 0) return; // the server says what is wrong with no steps
    await this.whileBusy(turn, async () => {
      const inputs = run.sequence.inputs.slice(run.done, count);
      await this.session.step(inputs, shownTraces(run.model), (answer) => run.take(answer));
      if (!this.turns.isOver(turn)) await this.screen.grow();
    });
  }

  /** Have no more than `count` steps done, and show those. */
  async rewindTo(count, turn) {
    const { screen, session, whatIf } = this;
    if (count >= screen.run.done) throw new Problem(NOTHING_TO_REWIND);
    await this.notices.whileBusy(() => session.rewind(count));
    if (this.turns.isOver(turn)) return;
    whatIf.drop({ replace: true });
    screen.show(screen.run.upTo(count));
    whatIf.load(screen.run, session);
    await screen.grow();
    screen.player.show(count - 1);
  }

  /** Do what a turn needs of the server; after an error, unless the turn is over, leave no session and no results. */
  async whileBusy(turn, action) {
    try {
      await this.notices.whileBusy(action);
    } catch (error) {
      if (this.turns.isOver(turn)) return;
      this.leave();
      this.screen.hide();
      throw error;
    }
  }

  /** Return the state where the session is: leaf -> nested lists. */
  state(leaves) {
    return this.session?.state(leaves);
  }

  /** End the session. */
  leave() {
    this.whatIf.unload();
    this.session?.end();
    this.session = undefined;
  }
}

/** Return the step to begin with: the first answer, all of a way, or the end of what is foretold. */
function firstShown({ asked, targets, routes, phases, optimum }) {
  if (optimum) return targets.length - 1;
  if (routes) return phases.find(({ name }) => name === "answer").to - 1;
  return Math.max(0, asked?.[0] ?? targets.findIndex(Boolean));
}
