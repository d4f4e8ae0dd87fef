// "What if": something is changed at the cursor, and the run has a branch from there on, which is shown beside it.

import * as address from "./address.js";
import { verdictOf } from "./answers.js";
import { Problem } from "./api.js";
import { Branch } from "./branch.js";
import { changeOf, placeOf } from "./branch-place.js";
import { ChangePanel } from "./change-panel.js";
import { VIEWS } from "./compare.js";
import { differingSteps } from "./differences.js";
import { element } from "./dom.js";
import { wrongRows } from "./verdict.js";
import { openViews } from "./views.js";

const COUNTED = /^\d+ of \d+ answers right/;
const UNCHANGED = { title: "Nothing is changed", detail: "Change what is heard, a gate, or the number of locations, and fork then." };
const NO_BRANCH = { title: "No branch", detail: "This run cannot have a branch: its model has no gates and no memory of its own." };

/** Makes branches of the run that is shown, one at a time, and shows them with a line on what came of the change. */
export class WhatIf {
  /**
   * page: the elements of the page; on: {attempt(action): say why it fails; finish(): do all steps of the run; showBusy(): returns
   * what ends it}.
   */
  constructor(page, stage, on) {
    Object.assign(this, { page, stage, on, view: "both" });
    this.panel = new ChangePanel(page.try, page["what-if"], (change) => on.attempt(() => this.fork(change)));
  }

  /** Begin with another run; session: that whose steps the run has. */
  load(run, session) {
    this.unload();
    this.run = run;
    if (run.model.graph || (run.length === 0 && !run.sequence.isOpen)) return;
    this.session = session;
    this.panel.load(run);
  }

  /** Follow the cursor. */
  moveTo(step) {
    if (this.session) this.panel.moveTo(step);
  }

  /** Make the branch that the address has, see there. Throws Problem. */
  async restore(place) {
    if (!this.session) throw new Problem(NO_BRANCH);
    await this.fork(changeOf(this.run, place), { replace: true });
  }

  /** Make a branch of a change, and show it; where it is refused, all stays as it was. replace: see `address.fork`. */
  async fork(change, { replace } = {}) {
    const { run, session } = this;
    if (!change.vector && !change.force && change.slots === undefined) throw new Problem(UNCHANGED);
    const done = this.on.showBusy();
    let branch;
    try {
      await this.on.finish();
      if (this.run !== run) return;
      branch = new Branch(run, session, change);
      this.coming?.end();
      this.coming = branch;
      await branch.begin();
      if (branch.isOver) return;
      this.show(branch);
      address.amend({ view: address.read().view && openViews() }); // the panel is closed
      address.fork(placeOf(run, change), { replace });
    } catch (error) {
      if (branch?.isOver) return; // nobody waits for it
      branch?.end();
      this.coming = undefined;
      throw error;
    } finally {
      done();
    }
  }

  /** Show a branch in place of the one before. */
  show(branch) {
    this.branch?.end();
    Object.assign(this, { branch, coming: undefined });
    const { run } = branch;
    const verdict = verdictOf(run);
    this.shown = { run, start: branch.start, wrong: wrongRows(verdict.marks) };
    if (!run.sequence.isOpen) {
      this.page.verdict.className = "unknown";
      this.page.verdict.textContent = `A: ${judged(this.run)}; B: ${judged(run)}`;
    }
    this.text = element("span", {}, this.account());
    this.page.branch.replaceChildren(this.text, this.choices(), this.dropButton());
    this.page.branch.hidden = false;
    this.panel.close();
    this.stage.compare(this.shown, this.view);
  }

  /** Have the branch take the steps that its run has taken since; the stage is still to show them. */
  async grow() {
    const { branch } = this;
    try {
      await branch?.grow();
    } catch (error) {
      if (branch.isOver) return;
      this.drop({ replace: true });
      this.on.attempt(() => Promise.reject(error));
    }
    if (branch && branch === this.branch) this.text.textContent = this.account();
  }

  /** Return what was changed, and what came of it. */
  account() {
    const { run: a, branch: { run: b, change } } = this;
    const { said } = differingSteps(a, b);
    const first = a.from + said[0];
    const outcome = said.length > 0 ? `Outputs differ at ${said.length} of ${a.done} steps, first at ${first}.` : "All outputs are the same.";
    const judged = change.vector && a.sequence.targets.some(Boolean) ? " The targets are those of A." : "";
    return `B: ${b.branch}. ${outcome}${judged}`;
  }

  /** Return the switch between the ways to show both. */
  choices() {
    const choices = Object.entries(VIEWS).map(([view, title]) => {
      const input = element("input", { type: "radio", name: "branch-view", value: view, checked: view === this.view });
      input.addEventListener("change", () => this.stage.compare(this.shown, (this.view = view)));
      return element("label", {}, input, ` ${title}`);
    });
    return element("fieldset", {}, element("legend", {}, "Show"), ...choices);
  }

  dropButton() {
    const button = element("button", { type: "button" }, "Drop the branch");
    button.addEventListener("click", () => {
      this.drop();
      if (!this.page.try.hidden) this.page.try.focus();
    });
    return button;
  }

  /** End the branch, and take it out of the address. replace: see `address.fork`. */
  drop({ replace } = {}) {
    if (this.branch) address.fork(undefined, { replace });
    this.leave();
  }

  /** Make no more branches of a run whose session is ended. */
  close() {
    this.session = undefined;
    this.panel.unload();
  }

  /** Let go of a run. */
  unload() {
    this.leave();
    this.close();
  }

  /** End the branch, and show the run alone. */
  leave() {
    const isShown = Boolean(this.branch);
    for (const branch of [this.branch, this.coming]) branch?.end();
    this.branch = this.coming = undefined;
    this.page.branch.hidden = true;
    if (!isShown) return;
    this.stage.compare(undefined);
    const { className, textContent } = verdictOf(this.run);
    Object.assign(this.page.verdict, { className, textContent });
  }
}

/** Return the verdict on a run, of a story only how many answers are right, and the first step that is wrong. */
function judged(run) {
  const { textContent: text, marks } = verdictOf(run);
  const textContent = run.task.isStory ? (text.match(COUNTED)?.[0] ?? text) : text;
  if (marks.length === 0) return textContent;
  const first = textContent.includes("wrong") ? "first" : "the first wrong one";
  return `${textContent}, ${first} at step ${Math.min(...marks.map(({ column }) => column))}`;
}
