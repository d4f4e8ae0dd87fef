// The panel in which something is changed at the cursor.

import { HeardVector, forceOf, gatesOf } from "./changes.js";
import { element } from "./dom.js";

const KEPT = "as it is";

/** Offers changes of one run. */
export class ChangePanel {
  /** toggle: the button that shows and hides `form`; onFork(change): called with what was chosen, see branch.js. */
  constructor(toggle, form, onFork) {
    Object.assign(this, { toggle, form, step: 0 });
    toggle.addEventListener("click", () => this.open(form.hidden));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      onFork(this.change);
    });
  }

  /** Offer changes of a run, in the open panel if it was open before. */
  load(run) {
    Object.assign(this, { run, step: 0, heard: undefined });
    this.toggle.hidden = false;
    this.open(this.toggle.ariaExpanded === "true");
  }

  /** Offer nothing for now. */
  unload() {
    this.toggle.hidden = this.form.hidden = true;
  }

  /** Show or hide what can be changed. */
  open(isShown) {
    this.form.hidden = !isShown;
    this.toggle.ariaExpanded = `${isShown}`;
    if (!isShown || !this.run) return; // `load` opens it where there is no run yet
    if (!this.heard) this.build();
    this.moveTo(this.step);
  }

  /** Hide it after use; the focus goes to what opens it again. */
  close() {
    if (this.form.contains(document.activeElement)) this.toggle.focus();
    this.open(false);
  }

  /** Make the controls for the run. */
  build() {
    const { run } = this;
    this.heard = new HeardVector(run);
    this.gates = gatesOf(run.model).map((gate) => ({ gate, select: choiceOf(gate) }));
    this.place = element("strong");
    this.slots = element("input", { type: "number", min: 1, placeholder: run.slots });
    const gates = this.gates.map(({ gate, select }) => element("label", {}, `${gate.title} `, select));
    const slots = element("label", { title: "Locations are those of a whole session: the branch begins anew" }, "Locations, from the start ", this.slots);
    this.form.replaceChildren(
      element("div", {}, this.place, this.heard.element),
      ...gates,
      ...(run.slots && run.from === 0 ? [slots] : []),
      element("button", {}, "Fork here"),
    );
  }

  /** Follow the cursor. */
  moveTo(step) {
    this.step = step;
    if (this.form.hidden || !this.run.sequence.inputs[step]) return;
    this.heard.show(step);
    this.place.textContent = `Heard at ${this.run.from + step}`;
  }

  /** Return what was chosen, see branch.js. */
  get change() {
    const chosen = this.gates
      .filter(({ select }) => select.value !== "")
      .map(({ gate, select }) => ({ gate, choice: gate.choices[Number(select.value)] }));
    const slots = Number.isNaN(this.slots.valueAsNumber) ? undefined : this.slots.valueAsNumber;
    return { step: this.step, vector: this.heard.vector, force: forceOf(chosen), slots };
  }
}

function choiceOf({ title, choices }) {
  return element("select", { ariaLabel: title }, new Option(KEPT, ""), ...choices.map(({ text }, index) => new Option(text, index)));
}
