// What memory does, over the stage: arcs from reads to writes, the location in view, the equations of the step.

import { readText, writeText } from "./account.js";
import { Arcs } from "./arcs.js";
import { Equations } from "./equations-panel.js";
import { LifeLine } from "./life.js";
import { LEAST_WEIGHT, Ties } from "./ties.js";

const LEAST_DESCRIBED = 0.02; // weight of a read or a write that is spoken of
const CLICK = 4; // CSS pixels that the pointer may move in a click

/** Shows beside the values of a run how they belong together. */
export class Insight {
  /** container: the stage; life: the line below it. */
  constructor(container, life) {
    this.container = container;
    this.life = new LifeLine(life, { pin: (slot) => this.pin(slot) });
    this.equations = new Equations();
    container.addEventListener("pointerdown", ({ clientX: x, clientY: y }) => (this.pressed = { x, y, slot: this.pointed }));
    container.addEventListener("click", (event) => this.click(event));
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.pin(undefined));
  }

  /** Begin with a run that is shown in these panels. */
  load(run, panels) {
    const isAsBefore = this.run?.model.name === run.model.name && this.run.slots === run.slots;
    this.pinned = isAsBefore ? this.pinned : undefined;
    this.run = run;
    this.ties = new Ties(run);
    this.arcs = new Arcs(panels);
    this.pictures = [...this.container.querySelectorAll(".slots")];
    this.pointed = this.step = undefined;
    this.life.load(run);
    this.equations.load(run, this.ties);
    this.container.append(this.equations.element, this.arcs.element);
    this.showSlot();
  }

  /** Show all there is at a step that is done. */
  moveTo(step) {
    if (step >= this.run.done || step === this.step) return;
    this.step = step;
    this.arcs.show("cursor", this.run.has("read_weights") ? this.ties.reads(step) : []);
    this.life.show(this.slot, this.pinned);
    this.equations.show(step, this.slot);
  }

  /** Measure the stage again. */
  fit() {
    this.arcs.fit();
    this.equations.fit();
  }

  /** Open or close the equations. */
  explain(isShown) {
    this.container.classList.toggle("explained", isShown);
    this.equations.open(isShown);
  }

  /** Return the slot that is in view. */
  get slot() {
    return this.pointed ?? this.pinned;
  }

  /** Point at a value of a strip: return what is known of it as text, or undefined where that is nothing. */
  point(strip, step, row) {
    this.pointAt(strip.plot.isSlots ? row : undefined);
    const [kind, head] = strip.plot.name.split(".");
    const isDone = step < this.run.done;
    if (kind === "write_weights" && isDone) return this.pointAtWrite(step, Number(head), row);
    const reads = isDone && kind.startsWith("read_") ? this.readsAt(kind, step, Number(head), row) : [];
    this.arcs.show("pointed", reads);
    if (reads.length > 0) return reads.map((read) => readText(this.run, read)).join("; ");
  }

  /** Return the reads that are pointed at: one in a weighting; of a vector those that it is made of. */
  readsAt(kind, step, head, row) {
    if (kind === "read_vectors") return this.ties.readsOf(step, head);
    const read = kind === "read_weights" ? [this.ties.read(step, head, row)] : [];
    return read.filter(({ weight }) => weight >= LEAST_DESCRIBED);
  }

  pointAtWrite(step, head, slot) {
    const weight = this.run.values("write_weights", step, head)[slot];
    const readers = weight >= LEAST_WEIGHT ? this.ties.readers(step, slot) : [];
    const own = (sources) => sources.filter((source) => source.step === step);
    this.arcs.show("pointed", readers.map((read) => ({ ...read, sources: own(read.sources) })));
    return weight >= LEAST_DESCRIBED ? writeText(this.run, step, slot, weight, readers) : undefined;
  }

  /** Point at a slot; undefined: at none. */
  pointAt(slot) {
    if (slot === undefined) this.arcs.show("pointed", []);
    if (slot === this.pointed) return;
    this.pointed = slot;
    this.showSlot();
  }

  /** Keep the slot in view that was clicked, or let it go; a drag moves in time only. */
  click({ clientX, clientY }) {
    const { x, y, slot } = this.pressed ?? {};
    if (slot === undefined || Math.hypot(clientX - x, clientY - y) > CLICK) return;
    this.pin(slot === this.pinned ? undefined : slot);
  }

  /** Keep a slot in view; undefined: let go. */
  pin(slot) {
    if (!this.run || slot === this.pinned) return;
    this.pinned = slot;
    this.showSlot();
  }

  /** Show the slot in view, in every picture of slots. */
  showSlot() {
    this.container.classList.toggle("with-slot", this.slot !== undefined);
    for (const picture of this.pictures) picture.style.setProperty("--slot", this.slot ?? -1);
    this.life.show(this.slot, this.pinned);
    if (this.step < this.run.done) this.equations.show(this.step, this.slot);
  }
}
