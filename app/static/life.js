// The line below the stage: the life of the slot that is pointed at or pinned.

import { lifeText, two } from "./account.js";
import { element } from "./dom.js";
import { WEIGHTS } from "./scales.js";
import { lifeOf } from "./ties.js";

const [WIDTH, HEIGHT] = [180, 16]; // CSS pixels of the picture
const HINT = "Point at a location to see its life, or click it to keep it in view.";

/** Shows the life of one slot. */
export class LifeLine {
  /** on: {pin(slot)}; undefined lets go. */
  constructor(container, on) {
    this.number = element("input", { type: "number", min: 0, ariaLabel: "Location whose life is shown", placeholder: "–" });
    this.number.addEventListener("input", () => on.pin(this.chosen));
    this.canvas = element("canvas", { role: "img", hidden: true });
    this.text = element("span", {}, HINT);
    this.release = element("button", { type: "button", hidden: true, title: "Let go (Escape)" }, "Let go");
    this.release.addEventListener("click", () => on.pin(undefined));
    const label = element("label", {}, "Location ", this.number);
    container.replaceChildren(label, this.canvas, this.text, this.release);
    this.container = container;
  }

  /** Return the slot that was written into the field, or undefined where there is none such. */
  get chosen() {
    const slot = this.number.valueAsNumber;
    return Number.isInteger(slot) && slot >= 0 && slot < this.run.slots ? slot : undefined;
  }

  load(run) {
    this.run = run;
    this.number.max = run.slots - 1;
    this.container.hidden = !run.slots || !run.has("write_weights");
    this.slot = undefined;
    this.show(undefined, undefined);
  }

  /** Show the life of a slot; pinned: the one that stays when none is pointed at. */
  show(slot, pinned) {
    this.release.hidden = pinned === undefined;
    if (document.activeElement !== this.number) this.number.value = slot ?? "";
    if (slot === this.slot && this.run.done === this.done) return;
    Object.assign(this, { slot, done: this.run.done });
    this.canvas.hidden = slot === undefined;
    if (slot === undefined) return (this.text.textContent = HINT);
    const life = lifeOf(this.run, slot);
    this.text.textContent = lifeText(life, this.run.from);
    this.text.title = this.text.textContent;
    this.draw(life);
  }

  /** Draw usage over time, with ticks above it where the slot was written and below it where it was read. */
  draw({ written, read, usage }) {
    const ratio = window.devicePixelRatio;
    Object.assign(this.canvas, { width: WIDTH * ratio, height: HEIGHT * ratio });
    const context = this.canvas.getContext("2d");
    const { color, accentColor } = getComputedStyle(this.number);
    const step = this.canvas.width / this.run.length;
    const [top, bottom] = [4 * ratio, this.canvas.height - 4 * ratio];
    const last = usage?.at(-1);
    this.canvas.ariaLabel = last === undefined ? "Writes and reads over time" : `Usage over time, ${two(last)} at the end`;
    usage?.forEach((value, at) => {
      context.fillStyle = `rgb(${WEIGHTS.color(value).map(Math.round).join()})`;
      context.fillRect(at * step, top, Math.ceil(step), bottom - top);
    });
    const ticks = (list, from, fill) => {
      context.fillStyle = fill;
      for (const { step: at } of list) context.fillRect(at * step, from, Math.max(step, ratio), 3 * ratio);
    };
    ticks(written, 0, color);
    ticks(read, bottom + ratio, accentColor);
  }
}
