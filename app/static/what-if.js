// "What if": something is changed at the cursor, and the run has a branch from there on, which is shown beside it.

import { verdictOf } from "./answers.js";
import { Problem } from "./api.js";
import { Branch } from "./branch.js";
import { HeardVector, changeText, forceOf, gatesOf } from "./changes.js";
import { VIEWS } from "./compare.js";
import { differingSteps } from "./differences.js";
import { element } from "./dom.js";
import { wrongRows } from "./verdict.js";

const KEPT = "as it is";
const COUNTED = /^\d+ of \d+ answers right/;
const UNCHANGED = { title: "Nothing is changed", detail: "Change what is heard, a gate, or the number of slots, and fork then." };

/** The panel in which a change is chosen, and the line of the branch that came of it. */
export class WhatIf {
  /**
   * page: the elements of the page; on: {attempt(action): say why it fails; finish(): do all steps of the run; showBusy(): returns
   * what ends it}.
   */
  constructor(page, stage, on) {
    Object.assign(this, { page, stage, on, step: 0, view: "both" });
    page.try.addEventListener("click", () => this.open(page["what-if"].hidden));
    page["what-if"].addEventListener("submit", (event) => {
      event.preventDefault();
      on.attempt(() => this.fork());
    });
  }

  /** Begin with another run; session: that which the page steps for it, if it is such a run. */
  load(run, session) {
    this.leave();
    Object.assign(this, { run, session, step: 0 });
    const { page } = this;
    page.try.hidden = Boolean(run.model.graph) || !session || run.length === 0;
    this.heard = undefined;
    this.open(!page.try.hidden && page.try.ariaExpanded === "true");
  }

  /** Show or hide what can be changed. */
  open(isShown) {
    const { page } = this;
    page["what-if"].hidden = !isShown;
    page.try.ariaExpanded = `${isShown}`;
    if (!isShown) return;
    if (!this.heard) this.build();
    this.moveTo(this.step);
  }

  /** Make the controls for the run. */
  build() {
    const { run, page } = this;
    this.heard = new HeardVector(run);
    this.gates = gatesOf(run.model).map((gate) => ({ gate, select: choiceOf(gate) }));
    this.place = element("strong");
    this.slots = element("input", { type: "number", min: 1, placeholder: run.slots });
    const gates = this.gates.map(({ gate, select }) => element("label", {}, `${gate.title} `, select));
    const slots = element("label", { title: "Slots are those of a whole session: the branch begins anew" }, "Slots, from the start ", this.slots);
    page["what-if"].replaceChildren(
      element("div", {}, this.place, this.heard.element),
      ...gates,
      ...(run.slots ? [slots] : []),
      element("button", {}, "Fork here"),
    );
  }

  /** Follow the cursor. */
  moveTo(step) {
    this.step = step;
    if (this.page["what-if"].hidden || step >= this.run.length) return;
    this.heard.show(step);
    this.place.textContent = `Heard at ${this.run.from + step}`;
  }

  /** Return what was chosen, see branch.js; chosen: the gates, [{gate, choice}]. */
  get change() {
    const chosen = this.gates
      .filter(({ select }) => select.value !== "")
      .map(({ gate, select }) => ({ gate, choice: gate.choices[Number(select.value)] }));
    const slots = Number.isNaN(this.slots.valueAsNumber) ? undefined : this.slots.valueAsNumber;
    return { step: this.step, vector: this.heard.vector, force: forceOf(chosen), slots, chosen };
  }

  /** Make a branch of what was chosen, and show it; where it is refused, all stays as it was. */
  async fork() {
    const { change, run, session } = this;
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
      if (!branch.isOver) this.show(branch);
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
    this.page.verdict.className = "unknown";
    this.page.verdict.textContent = `A: ${judged(this.run)}; B: ${judged(run)}`;
    this.page.branch.replaceChildren(element("span", {}, this.account()), this.choices(), this.dropButton());
    this.page.branch.hidden = false;
    if (this.page["what-if"].contains(document.activeElement)) this.page.try.focus();
    this.open(false);
    this.stage.compare(this.shown, this.view);
  }

  /** Return what was changed, and what came of it. */
  account() {
    const { run: a, branch: { run: b, change } } = this;
    const context = { heard: a.sequence.inputs[change.step], task: a.task, channels: a.task.channels, before: a.slots };
    const { said } = differingSteps(a, b);
    const outcome = said.length > 0 ? `Outputs differ at ${said.length} of ${a.done} steps, first at ${said[0]}.` : "All outputs are the same.";
    const judged = change.vector && a.sequence.targets.some(Boolean) ? " The targets are those of A." : "";
    return `B: ${changeText(change, context)}. ${outcome}${judged}`;
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
      this.leave();
      this.page.try.focus();
    });
    return button;
  }

  /** Let go of a run whose session is ended. */
  unload() {
    this.leave();
    this.session = undefined;
    this.page.try.hidden = this.page["what-if"].hidden = true;
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

function choiceOf({ title, choices }) {
  return element("select", { ariaLabel: title }, new Option(KEPT, ""), ...choices.map(({ text }, index) => new Option(text, index)));
}
