// Runs that are not the page's own: of a session of an API client, which is followed, or of a recording.

import * as address from "./address.js";
import { NOTHING_TO_REWIND, Problem } from "./api.js";
import { Consent } from "./consent.js";
import { Follower } from "./follow.js";
import { readRecording } from "./recording.js";
import { setViews } from "./views.js";

const NO_SESSION = { title: "No session", detail: "What is shown has no session any more that could be rewound." };

/** Shows them, and says in a line over them where they come from. */
export class Guests {
  /** page: provenance, provenance-text, live, restart, step, rewind, session, model, and those of the question, see consent.js. */
  constructor(page, { sender, screen, turns, notices, whatIf }) {
    Object.assign(this, { page, sender, screen, turns, notices, whatIf });
    this.consent = new Consent(page);
    this.isLive = false; // whether the cursor stays at the last step of a session
  }

  /** Follow a session of an API client; place: what the address says of the cursor. */
  async follow(id, place = {}) {
    const before = this.turns.latest; // what is shown stays until the session is there
    const isWanted = () => follower === this.follower || !this.turns.isOver(before);
    const follower = new Follower(id, {
      onRun: (run) => (isWanted() ? this.showFollowed(follower, run, place) : follower.stop()),
      onSteps: (run, isLonger) => follower === this.follower && this.grow(run, isLonger),
      onNews: (text, isOver) => follower === this.follower && this.showNews(text, isOver),
    });
    await follower.begin();
    if (place.branch && follower === this.follower) await this.whatIf.restore(place.branch);
  }

  /** Show a run of a session that is followed: at its last step if it is live, or else where the cursor is. */
  async showFollowed(follower, run, place) {
    const { screen } = this;
    const isNew = this.follower !== follower;
    const at = isNew ? (place.step ?? 0) : screen.player.step + screen.run.from;
    if (isNew && !(await this.choose(run.model.name))) return follower.stop();
    if (isNew) {
      screen.give(this);
      Object.assign(this, { follower, isLive: place.step === undefined });
      this.page.session.value = follower.id;
      address.visit({ session: follower.id });
    } else this.whatIf.drop({ replace: true });
    screen.show(run);
    this.whatIf.load(run, follower);
    await this.grow(run, false);
    if (!this.isLive && run.done > 0) screen.player.show(Math.min(Math.max(at - run.from, 0), run.done - 1));
    if (isNew && place.view) setViews(place.view);
  }

  /** Choose the model of a run, for whoever sends it something after. Returns whether it is still wanted. */
  async choose(name, place) {
    const turn = this.turns.begin();
    if (!place && this.sender.model?.name === name) return true;
    this.screen.player.pause();
    return this.sender.choose(name, place, turn);
  }

  /** Show the steps that were taken since; isLonger: more than the axis of time had room for. */
  async grow(run, isLonger) {
    const { player } = this.screen;
    await this.whatIf.grow();
    await this.screen.extend(isLonger);
    if (run.done > 0) player.show(this.isLive ? run.done - 1 : player.step);
    this.showNews("");
  }

  /** Say how a session is that is followed. */
  showNews(text, isOver = false) {
    if (isOver) {
      this.isLive = false;
      this.whatIf.close();
    }
    const { run } = this.screen;
    const forced = run.force ? `, ${Object.keys(run.force).join(", ")} forced` : "";
    const count = run.from + run.done;
    const taken = `${count} ${count === 1 ? "step" : "steps"}${forced}${this.isLive ? ", live" : ""}`;
    this.showProvenance(`Session ${this.follower.id} of ${run.model.name}, ${taken}. ${text}`, { live: !isOver });
  }

  /** Keep the cursor at the last step of a session that is followed, or let it stand. */
  setLive(isWanted) {
    const { player, run } = this.screen;
    this.isLive = isWanted;
    if (isWanted) player.goTo(player.steps - 1);
    else address.amend({ step: run.from + player.step });
    this.showNews("");
  }

  /**
   * Put the session of a client to the step at the cursor, which is asked for once; the follower shows it then.
   * Throws Problem, and then nothing has changed.
   */
  async rewind() {
    const { follower, screen: { run, player } } = this;
    if (!follower || follower.isOver) throw new Problem(NO_SESSION);
    if (player.step >= run.done - 1) throw new Problem(NOTHING_TO_REWIND);
    const step = run.from + player.step + 1;
    if (follower !== this.agreed && !(await this.consent.ask(questionOf(follower, step)))) return;
    this.agreed = follower;
    await this.notices.whileBusy(() => follower.rewind(step));
  }

  /** Show a recording from a file, without a session. */
  async openRecording(file) {
    const before = this.turns.latest; // what is shown stays until the file is read
    const names = [this.sender.model?.name, ...Array.from(this.page.model.options, ({ value }) => value)].filter(Boolean);
    const run = await readRecording(file, [...new Set(names)]);
    if (this.turns.isOver(before) || !(await this.choose(run.model.name, run.place))) return;
    this.screen.give(this);
    address.visit({ model: run.model.name, ...run.place });
    run.place.left = "The link does not hold the recording: share its file.";
    this.screen.show(run);
    await this.screen.grow();
    this.screen.player.show(0);
    const steps = `steps ${run.from + 1} to ${run.from + run.done}, from ${file.name}`;
    const branch = run.branch ? ` It is of a branch: ${run.branch}.` : "";
    const broken = run.broken ? ` It breaks off: ${run.broken}.` : "";
    this.showProvenance(`A recording of ${run.model.name}, ${steps}. It cannot be stepped on.${branch}${broken}`);
  }

  /** Say where the run comes from; "": it is the page's own. live: whether new steps may come. */
  showProvenance(text, { live = false } = {}) {
    const { page } = this;
    const isOwn = text === "";
    page.provenance.hidden = isOwn;
    if (page["provenance-text"].textContent !== text) page["provenance-text"].textContent = text;
    page.live.hidden = !live;
    page.live.ariaPressed = `${this.isLive}`;
    page.restart.disabled = page.step.disabled = !isOwn;
    page.rewind.disabled = !isOwn && !live;
  }

  /** Return the state where the session is, and nothing of a recording: leaf -> nested lists. */
  state(leaves) {
    return this.follower?.state(leaves);
  }

  /** Follow nothing any more: the session of another is only left. */
  leave() {
    this.whatIf.unload();
    this.follower?.stop();
    Object.assign(this, { follower: undefined, isLive: false });
    this.showProvenance("");
  }
}

/** Return what is asked before the session of a client is rewound, see consent.js. */
function questionOf({ id, run }, step) {
  const left = run.from + run.done - step;
  const text =
    `Session ${id} is that of a client of the API. Rewinding changes it: it has taken ${step} steps then, and its client ` +
    `goes on from there, without the ${left === 1 ? "step" : `${left} steps`} after that, or gets a conflict if it names the step that it expects.`;
  return { title: "Rewind the session of a client?", text, yes: "Rewind it" };
}
