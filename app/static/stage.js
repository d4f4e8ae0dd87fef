// The screen of one run: what went in and was written, what came out and was read, and the memory at the cursor.
//
//     in: input, written vectors,     | out: target, output, read vectors, | at the cursor: memory, links
//     write weightings, usage, gates  | read weightings, read modes        |

import { element } from "./dom.js";
import { Insight } from "./insight.js";
import { Moment } from "./moment.js";
import { Panel } from "./panel.js";
import { addScene } from "./scene-choices.js";
import { Scene } from "./scene.js";
import { stripsOf } from "./strips.js";

/** Shows a run, at one step. */
export class Stage {
  /** life: the element below the stage, for the life of a location; on: {point(text), seek(step)}. */
  constructor(container, life, on) {
    Object.assign(this, { container, on });
    this.insight = new Insight(container, life);
    new ResizeObserver(() => this.fit()).observe(container);
  }

  /** Show a run from now on; wrong(step): returns the rows of the outputs that are wrong. */
  load(run, wrong) {
    this.run = run;
    this.drawn = 0;
    const { length, task, sequence, from } = run;
    const time = { length, from, phases: phasesOf(sequence), labels: sequence.labels, areWords: Boolean(task.words) };
    const events = { point: (...place) => this.point(...place), leave: () => this.leave(), seek: this.on.seek };
    const [ins, outs] = this.stripsOf(run, wrong);
    this.panels = [new Panel("In, and written", ins, time, events), new Panel("Out, and read", outs, time, events)];
    const isTraced = run.has("write_weights") && run.has("read_weights");
    this.moment = run.slots && isTraced ? this.momentOf(run) : undefined;
    const none = "This model has no memory to look into: all it keeps is in its state.";
    const note = element("p", { className: "note" }, run.slots ? "The recording has no traces of the memory." : none);
    const last = this.moment?.element ?? element("section", { className: "panel moment" }, note);
    this.scene = Scene.of(run, this.on);
    this.container.classList.toggle("with-scene", Boolean(this.scene));
    this.container.classList.toggle("without-memory", !this.moment);
    if (this.scene) addScene(last, this.scene, this.container, () => (this.moveTo(this.step), this.fit()));
    else this.container.classList.remove("large-scene");
    this.container.replaceChildren(...this.panels.map((panel) => panel.element), last);
    this.insight.load(run, this.panels);
    this.fit();
  }

  /** Return the strips of what went in and was written, and of what came out and was read. */
  stripsOf(run, wrong) {
    return stripsOf(run, wrong);
  }

  /** Return what shows the memory at the cursor: element, moveTo(step). */
  momentOf(run) {
    return new Moment(run, this.momentEvents());
  }

  /** Draw the steps that were done since. */
  grow() {
    for (const panel of this.panels) panel.draw(this.drawn, this.run.done);
    this.drawn = this.run.done;
    for (const { strips } of this.panels) for (const strip of strips) if (strip.plot.wrong) strip.fit();
  }

  moveTo(step) {
    this.step = step;
    for (const panel of this.panels) panel.moveTo(step);
    this.moment?.moveTo(step);
    this.insight.moveTo(step);
    this.scene?.moveTo(step);
  }

  /** Show or hide the equations. */
  explain(isShown) {
    this.insight.explain(isShown);
    this.fit();
  }

  fit() {
    if (!this.run) return;
    for (const panel of this.panels) panel.fit();
    if (this.step !== undefined) for (const panel of this.panels) panel.moveTo(this.step);
    this.insight.fit();
  }

  point(strip, step, row) {
    for (const panel of this.panels) panel.pointAt(step);
    this.on.point(this.insight.point(strip, step, row) ?? strip.describe(step, row, this.run.from));
  }

  leave() {
    for (const panel of this.panels) panel.pointAt(undefined);
    this.insight.pointAt(undefined);
    this.on.point("");
  }

  momentEvents() {
    return { point: (text, { slot }) => (this.insight.pointAt(slot), this.on.point(text)), leave: () => this.leave() };
  }
}

/** Return the parts of a sequence, as it names them, or those with and without an answer that is due. */
export function phasesOf({ phases, targets }) {
  if (phases) return phases;
  const due = targets.map((target) => (target ? "say" : "listen"));
  if (!due.includes("say")) return [];
  const starts = due.flatMap((name, step) => (name === due[step - 1] ? [] : [step]));
  return starts.map((from, number) => ({ name: due[from], from, to: starts[number + 1] ?? due.length }));
}
