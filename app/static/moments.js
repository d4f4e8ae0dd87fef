// The memory at the cursor of two runs.

import { LEAST, intervals } from "./differences.js";
import { element } from "./dom.js";
import { Moment } from "./moment.js";
import { MARK } from "./strip.js";

/** The memory of a run, in which the words are framed that another run has otherwise. */
export class MarkedMoment extends Moment {
  constructor(run, other, on) {
    super(run, on);
    this.other = other;
    this.frames = element("canvas", { className: "frames", ariaHidden: "true" });
    this.element.querySelector(".memory-words")?.append(this.frames);
  }

  moveTo(step) {
    super.moveTo(step);
    if (step < Math.min(this.run.done, this.other.done) && this.run.memory && this.other.memory) this.mark(step);
  }

  /** Frame the words that differ, neighbours together, of the slots that both runs have. */
  mark(step) {
    const { slots, width } = this.run.memory;
    const values = this.run.memory.at(step + 1);
    const others = this.other.memory.at(step + 1);
    const context = this.cleared();
    const [cell, row] = [context.canvas.width / width, context.canvas.height / slots];
    for (let start = 0; start < Math.min(values.length, others.length); start += width) {
      const words = Array.from({ length: width }, (_, word) => word);
      const differing = words.filter((word) => Math.abs(values[start + word] - others[start + word]) > LEAST);
      for (const { from, to } of intervals(differing)) context.strokeRect(from * cell, (start / width) * row, (to - from) * cell, row);
    }
  }

  /** Return the context of the frames, with none drawn. */
  cleared() {
    const { frames } = this;
    const ratio = window.devicePixelRatio;
    const [width, height] = [Math.round(frames.clientWidth * ratio), Math.round(frames.clientHeight * ratio)];
    if (frames.width !== width || frames.height !== height) Object.assign(frames, { width, height });
    const context = frames.getContext("2d");
    context.clearRect(0, 0, width, height);
    Object.assign(context, { strokeStyle: MARK, lineWidth: 1 });
    return context;
  }
}

/** The memories of two runs beside one another; what differs is framed in the second. */
export class PairOfMoments {
  constructor(a, b, on) {
    this.moments = [new Moment(a, on), new MarkedMoment(b, a, on)];
    const memories = this.moments.map((moment, index) => memoryOf(moment, "AB"[index]));
    const note = element("p", {}, "u usage, w write, r read weightings; framed in B: words that differ");
    const pair = element("div", { className: "pair" }, ...memories);
    this.element = element("section", { className: "panel moment", ariaLabel: "At the cursor" }, pair, note);
  }

  moveTo(step) {
    for (const moment of this.moments) moment.moveTo(step);
  }
}

/** Return the memory of one of two runs, its columns with names of a letter. */
function memoryOf(moment, letter) {
  moment.links = [];
  for (const { element: figure } of moment.pictures) {
    const [caption, canvas] = figure.children;
    if (figure.matches(".memory-words")) caption.textContent = `${letter}: memory`;
    else if (figure.matches(".slots")) caption.textContent = caption.textContent[0];
    canvas.ariaLabel = `${letter}: ${canvas.ariaLabel}`;
    canvas.dataset.name = `${letter.toLowerCase()}.${canvas.dataset.name}`;
  }
  return moment.element.querySelector(".memory");
}
