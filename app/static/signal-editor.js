import { modelSample } from "./api.js";
import { curve, draw, valueAt } from "./curve.js";
import { element } from "./dom.js";
import { readSignal } from "./files.js";
import { heatmap } from "./heatmap.js";
import { partPlots, withSharedAxis } from "./signal-plots.js";
import { SHAPES, generated, keyOf, lengthText } from "./signals.js";

export const RECORDING = "Recording";

const FREE_RANGE = [-1, 1]; // that can be drawn in, where a graph names none

/**
 * A signal to send: a recording, a file or a made signal, shown as curves to draw on and as heat maps.
 *
 * The pattern is a list of vectors, one for each step.
 */
export class SignalEditor {
  /**
   * `container` is for the curves, `sources` for the buttons, `notice` for a line on where the signal comes from.
   * `onChange` is called after every change, `onPoint` as by a heat map, `attempt` with actions that may fail.
   */
  constructor({ container, sources, notice }, { onChange, onPoint, attempt }) {
    Object.assign(this, { container, sources, notice, onChange, onPoint, attempt });
    this.pattern = [];
  }

  get length() {
    return this.pattern.length;
  }

  /** Send signals of `task` from now on, of the model `name`; what is there stays if it has the same parts. */
  setTask(task, name) {
    if (!this.task || keyOf(this.task) !== keyOf(task)) this.pattern = [];
    Object.assign(this, { task, name });
    const shapes = Object.keys(SHAPES).map((shape) => button(shape, () => this.generate(shape)));
    this.sources.replaceChildren(...(task.hasSample ? [this.recordingButton()] : []), this.fileButton(), ...shapes);
    this.notice.textContent = "";
  }

  /** Take a signal as it was drawn before. */
  load(pattern) {
    this.take(pattern, "Drawn by hand");
  }

  /** Make the signal this long; new steps are zeros. */
  resize(length) {
    const blank = () => Array(this.task.width).fill(0);
    this.isRecording &&= length === this.length;
    this.pattern = Array.from({ length }, (_, step) => this.pattern[step] ?? blank());
    this.show();
  }

  /** Fill the signal with the first shape, for a start. */
  randomize() {
    this.generate(Object.keys(SHAPES)[0]);
  }

  generate(shape) {
    this.take(generated(this.task, shape, this.length || this.task.initialLength), shape);
  }

  /** Take the model's recording. */
  async loadSample() {
    const { name } = this;
    const { inputs } = await modelSample(name);
    if (name === this.name) this.take(inputs, RECORDING);
  }

  async loadFile(file) {
    const { task } = this;
    const inputs = await readSignal(file, task);
    if (task === this.task) this.take(inputs, file.name);
  }

  /** Take these vectors, the first ones if there are too many, and say where they come from. */
  take(vectors, source) {
    const { longest, seconds } = this.task;
    this.pattern = vectors.slice(0, longest);
    this.isRecording = source === RECORDING;
    const cut = vectors.length > longest ? `, the first of ${lengthText(vectors.length, seconds)}` : "";
    this.notice.textContent = `${source}: ${lengthText(this.length, seconds)}${cut}`;
    this.show();
    this.onChange();
  }

  recordingButton() {
    return button("Recording", () => this.attempt(() => this.loadSample()));
  }

  fileButton() {
    const input = element("input", { type: "file", accept: ".wav,.json,.csv,.txt,.npy", hidden: true, id: "file" });
    input.addEventListener("change", () => {
      const [file] = input.files;
      input.value = ""; // so that the same file can be chosen again
      if (file) this.attempt(() => this.loadFile(file));
    });
    return element("span", {}, input, button("Open file", () => input.click()));
  }

  show() {
    const plots = this.task.parts.flatMap((part) => partPlots(part, this.pattern, this.task.seconds, "drawing."));
    for (const plot of plots) plot.range ??= FREE_RANGE;
    const figureOf = (plot) => (plot.values ? this.drawable(plot) : heatmap(plot, this.onPoint));
    this.container.replaceChildren(...withSharedAxis(plots).map(figureOf));
  }

  /** Return the figure of a curve, to draw on. */
  drawable(plot) {
    const figure = curve(plot, this.onPoint);
    const image = figure.querySelector("svg");
    let last;
    const drawTo = (point) => {
      this.set(plot, last ?? point, point);
      last = point;
      draw(image, plot);
      this.onChange();
    };
    image.addEventListener("pointerdown", (event) => {
      last = undefined;
      image.setPointerCapture(event.pointerId);
      drawTo(valueAt(image, plot, event));
    });
    image.addEventListener("pointermove", (event) => {
      if (image.hasPointerCapture(event.pointerId)) drawTo(valueAt(image, plot, event));
    });
    return figure;
  }

  /** Set the values of a curve on the line from one point to another. */
  set(plot, from, to) {
    const [first, last] = from.index <= to.index ? [from, to] : [to, from];
    for (let index = first.index; index <= last.index; index++) {
      const share = last.index === first.index ? 1 : (index - first.index) / (last.index - first.index);
      const value = index === to.index ? to.value : first.value + share * (last.value - first.value);
      plot.values[index] = value;
      this.pattern[Math.floor(index / plot.perStep)][plot.start + (index % plot.perStep)] = value;
    }
    this.isRecording = false;
    this.notice.textContent = "Drawn by hand";
  }
}

function button(text, onClick) {
  const created = element("button", { type: "button" }, text);
  created.addEventListener("click", onClick);
  return created;
}
