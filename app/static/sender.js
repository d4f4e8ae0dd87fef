// What is sent: to the model that is chosen, a sample of its task, or what is drawn or written in its place.

import { describeModel } from "./api.js";
import { modelCard } from "./card.js";
import { Editor } from "./editor.js";
import { patternOf as readPattern, textOf } from "./pattern.js";
import { BY_HAND, SampleBar } from "./sample-bar.js";
import { patternOf, sequenceOf } from "./sequence.js";
import { RECORDING, SignalEditor } from "./signal-editor.js";
import { taskOf } from "./tasks.js";
import { TokenEditor } from "./tokens.js";
import { setViews } from "./views.js";

const TOO_LONG = "The link leaves out what was drawn, which is too long for it: share the recording.";

/** The toolbar and the editors. `model` is the card of the one that is chosen. */
export class Sender {
  /**
   * page: the elements by their ids; turns, notices: see there; on: {point(text): for the value under the pointer, run():
   * run what is sent now, change(): what is sent is not what was run}.
   */
  constructor(page, turns, notices, on) {
    Object.assign(this, { page, turns, notices, on });
    this.isByHand = false; // what is sent was drawn, written or chosen here, and is not the sample as it is
    const attempt = (action) => notices.attempt(action);
    this.samples = new SampleBar(page, (name) => attempt(() => (name === "memory-size" ? on.run() : this.resample(name))));
    this.bits = new Editor(page.drawing, () => this.takeChange(), on.point);
    this.tokens = new TokenEditor(page.drawing, () => this.takeChange());
    this.signals = new SignalEditor(
      { container: page.drawing, sources: page.sources, notice: page.notice },
      { onChange: () => this.takeSignal(), onPoint: on.point, attempt },
    );
    page["memory-size"].addEventListener("input", on.change);
    page.clear.addEventListener("click", () => this.clear());
    page.edit.addEventListener("click", () => this.showEditor(page.sequence.hidden));
  }

  /**
   * Choose a model, with what an address says of it, or else with the sample of before where the task is the same.
   * Returns whether it is still wanted.
   */
  async choose(name, place, turn) {
    const { page } = this;
    page.model.value = name;
    page.work.inert = true; // what is there belongs to another model
    const chosen = await describeModel(name);
    if (this.turns.isOver(turn)) return false;
    const isSameTask = JSON.stringify(chosen.task) === JSON.stringify(this.model?.task);
    this.isByHand &&= isSameTask;
    if (place) this.samples.query = queryOf(place);
    else if (!isSameTask) this.samples.query = {};
    this.load(chosen);
    page["memory-size"].value = place?.slots ?? "";
    return this.draw(turn, undefined, place);
  }

  /** Show the card and the controls of a model, and no others. */
  load(model) {
    const { page } = this;
    const task = taskOf(model);
    const editor = task.words ? this.tokens : task.parts ? this.signals : this.bits;
    Object.assign(this, { model, task, editor });
    editor.setTask(task, model.name);
    page.card.replaceChildren(...modelCard(model));
    page.hint.textContent = task.hint;
    page.memory.hidden = !model.memory_size;
    page["memory-size"].placeholder = model.memory_size;
    page.work.classList.toggle("signals", Boolean(task.parts));
    page.sources.hidden = page.notice.hidden = !task.parts;
    page.clear.hidden = Boolean(task.parts);
    page.edit.textContent = task.words ? "Write" : "Draw";
    page.seeds.hidden = Boolean(task.parts && model.sample);
    page.sequence.hidden = !(task.parts || (task.words && !task.classes));
    page.edit.ariaExpanded = `${!page.sequence.hidden}`;
  }

  /** Draw a sample and run it; name: of the size that was changed, or "seed". */
  async resample(name) {
    if (this.isOfHand(name)) return this.takeSetting(name);
    if (await this.draw(this.turns.begin(), name)) await this.on.run();
  }

  /** Draw a sample; name, place: as `resample` and `choose` have them. Returns whether it is still wanted. */
  async draw(turn, name, place) {
    const sample = await this.samples.draw(this.model, name);
    if (this.turns.isOver(turn)) return false;
    this.take(sample, name);
    if (place?.drawn) this.restore(place.drawn);
    if (place?.view) setViews(place.view);
    this.page.work.inert = false;
    return true;
  }

  /** Return whether a size is one of what was made by hand: then that stays, and no sample is drawn. */
  isOfHand(name) {
    return this.task.parts ? name === "length" : this.isByHand && Boolean(this.task.settings?.includes(name));
  }

  takeSetting(name) {
    if (name === "length") this.editor.resize(this.samples.settings.values().length);
    this.on.change();
  }

  /** Show a sample, which is sent from now on, unless a model was chosen for what was made by hand. */
  take(sample, changed) {
    this.isByHand &&= !changed;
    this.samples.show(sample, this.isByHand);
    if (this.task.parts) this.takeSignals(sample, changed);
    else if (!this.isByHand && !this.page.sequence.hidden) this.editor.load(patternOf(sample, this.task));
  }

  /** Take the recording of a sample, or random inputs if they are asked for; of others, a sine is easier to follow. */
  takeSignals({ drawn_from: origin, inputs }, changed) {
    const isWhole = this.model.graph?.inputs.some(({ whole }) => whole);
    if (!changed && this.editor.length > 0) return this.takeSignal();
    if (origin === "recording") return this.editor.take(inputs, RECORDING);
    if (changed || isWhole) return this.editor.take(inputs, "Random inputs within the model's card");
    this.editor.randomize();
  }

  /** Show how long the signal is that is sent. */
  takeSignal() {
    const { editor, samples, task } = this;
    samples.settings.show([{ name: "length", label: "Length", value: editor.length, least: 1, greatest: task.longest }]);
    samples.showOrigin("");
    this.on.change();
  }

  /** Note that something was drawn or written. */
  takeChange() {
    this.isByHand = true;
    this.samples.showOrigin(BY_HAND);
    this.on.change();
  }

  clear() {
    this.editor.clear();
    this.takeChange();
  }

  /** Draw or write what the address has; where it cannot be read, say so, and go on without. */
  restore(text) {
    try {
      this.editor.load(readPattern(this.task, text));
      this.takeChange();
    } catch (error) {
      this.notices.showProblem(error);
    }
  }

  showEditor(isShown) {
    this.page.sequence.hidden = !isShown;
    this.page.edit.ariaExpanded = `${isShown}`;
    if (isShown && !this.isByHand && !this.task.parts) this.editor.load(patternOf(this.samples.sample, this.task));
  }

  /** Return what is sent, as `task.encode` gives it. */
  sequence() {
    const { samples, task, editor } = this;
    if (!this.isByHand && !task.parts) return sequenceOf(samples.sample, task);
    return task.encode(structuredClone(editor.pattern), samples.settings.values());
  }

  /** Whether what is sent was made here, and no seed and sizes name it. */
  get isMade() {
    return this.task.parts ? !this.editor.isRecording : this.isByHand;
  }

  /** The memory locations that were asked for, if any were. */
  get memorySize() {
    const asked = this.page["memory-size"].valueAsNumber;
    return Number.isNaN(asked) ? undefined : asked;
  }

  /** Return what the address holds of what is sent. */
  place() {
    const { seed, ...sizes } = this.samples.query;
    const drawn = this.isMade ? textOf(this.task, this.editor.pattern) : undefined;
    return { model: this.model.name, slots: this.memorySize, seed, sizes, drawn };
  }

  /** Return what is known of it for those who share it; left: what a link to it leaves out, as a text. */
  known() {
    const { isMade, task, samples } = this;
    return {
      seed: isMade || task.parts ? undefined : samples.sample.seed,
      sizes: samples.settings.values(),
      isMade,
      left: isMade && this.place().drawn === undefined ? TOO_LONG : undefined,
    };
  }
}

/** Return what names a sample of an address. */
function queryOf({ seed, sizes }) {
  return seed === undefined ? sizes : { seed, ...sizes };
}
