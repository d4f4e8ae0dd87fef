// A panel: strips one below another that share one axis of time, and one cursor.

import { timeTicks } from "./axis.js";
import { element } from "./dom.js";
import { percent } from "./figure.js";
import { eachFrame } from "./frames.js";
import { oneStop, walkable } from "./walk.js";

const LETTER = 6; // CSS pixels that a letter takes, about
const MARK = 4; // CSS pixels that the beginning of a phase takes

/** Strips over the same steps. */
export class Panel {
  /** phases: [{name, from, to}] along the axis; on: {point(strip, step, row), leave(), seek(step)}. */
  constructor(title, strips, { length, phases, ...text }, on) {
    Object.assign(this, { strips, length, phases, text, on });
    this.cursor = element("div", { className: "cursor" });
    this.pointed = element("div", { className: "cursor pointed", hidden: true });
    this.axis = element("div", { className: "column-ticks" });
    this.bands = phases.map((phase) => band(phase, length));
    const lines = element("div", { className: "lines" }, this.cursor, this.pointed);
    this.element = element(
      "section",
      { className: "panel", ariaLabel: title },
      ...strips.map((strip) => strip.element),
      element("div", { className: "phases" }, ...this.bands),
      element("div", { className: "axis" }, element("span", { className: "column-name" }, "time"), this.axis),
      lines,
    );
    for (const [name, value] of Object.entries(sizesOf(strips))) this.element.style.setProperty(`--all-${name}`, value);
    for (const strip of strips) this.listen(strip);
    oneStop(this.element);
  }

  draw(from, to) {
    for (const strip of this.strips) strip.draw(from, to);
  }

  /** Draw what depends on the size in pixels. */
  fit() {
    const [first] = this.strips;
    this.width = first.field.clientWidth;
    this.axis.replaceChildren(...timeTicks({ ...this.text, length: this.length }, this.width));
    this.phases.forEach(({ name, from, to }, at) => {
      const room = ((to - from) * this.width) / this.length - MARK;
      this.bands[at].textContent = name.length * LETTER <= room ? name : "";
    });
    for (const strip of this.strips) strip.fit();
  }

  moveTo(step) {
    move(this.cursor, ((step + 0.5) * this.width) / this.length);
  }

  /** Show which step is pointed at; undefined: none. */
  pointAt(step) {
    this.pointed.hidden = step === undefined;
    if (step !== undefined) move(this.pointed, ((step + 0.5) * this.width) / this.length);
  }

  listen(strip) {
    walkable(strip.canvas, {
      ...strip.picture(this.text.from),
      point: ({ column, row }) => this.on.point(strip, column, row),
      leave: () => this.on.leave(),
      seek: (step) => this.on.seek(step),
    });
    const place = (event) => [this.stepAt(strip, event.clientX), strip.rowAt(event.clientY)];
    const follow = eachFrame((event, isHeld) => {
      const [step, row] = place(event);
      if (isHeld) this.on.seek(step);
      this.on.point(strip, step, row);
    });
    strip.field.addEventListener("pointermove", (event) => {
      follow(event, strip.field.hasPointerCapture(event.pointerId));
    });
    strip.field.addEventListener("pointerleave", () => {
      follow.cancel();
      this.on.leave();
    });
    strip.field.addEventListener("pointerdown", (event) => {
      strip.field.setPointerCapture(event.pointerId);
      this.on.point(strip, ...place(event)); // a finger points by touching
      this.on.seek(place(event)[0]);
    });
  }

  stepAt({ field }, clientX) {
    const { left, width } = field.getBoundingClientRect();
    return Math.min(Math.max(Math.floor((this.length * (clientX - left)) / width), 0), this.length - 1);
  }
}

/** Return what the height of a panel depends on: that of its strips in CSS pixels, how many they are, and their captions. */
function sizesOf(strips) {
  const sum = (kind) => strips.reduce((total, strip) => total + strip[kind], 0);
  const captions = strips.filter(({ caption }) => caption.textContent).length;
  return { lowest: sum("lowest"), most: sum("most"), strips: strips.length, captions };
}

function band({ name, from, to }, length) {
  const created = element("span", { title: `${name}: steps ${from} to ${to - 1}` });
  created.style.left = percent(from, length);
  created.style.width = percent(to - from, length);
  return created;
}

function move(line, x) {
  line.style.transform = `translateX(${x.toFixed(1)}px)`;
}
