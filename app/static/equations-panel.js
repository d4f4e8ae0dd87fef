// The panel of equations: the step in words, the values on the way to the weightings, and the formula of each.

import { overview, placeOf, two } from "./account.js";
import { element } from "./dom.js";
import { equationsOf } from "./equations.js";

const LEVELS = { overview: "In words", values: "Values", formulas: "Formulas" };
const BARS = 15; // CSS pixels, the height of a picture of bars

/** Shows the equations of one step. */
export class Equations {
  constructor() {
    this.level = "values";
    this.words = element("div", { className: "overview" });
    this.groups = element("div", { className: "equation-groups" });
    this.element = element(
      "section",
      { className: "panel equations", ariaLabel: "Equations", hidden: true, tabIndex: 0 },
      this.choices(),
      this.words,
      this.groups,
    );
    this.element.dataset.keys = "scroll"; // the keys that scroll it do not move in time
  }

  choices() {
    const choices = Object.entries(LEVELS).map(([level, title]) => {
      const input = element("input", { type: "radio", name: "equation-level", value: level, checked: level === this.level });
      input.addEventListener("change", () => (Object.assign(this, { level, bars: undefined }), this.draw()));
      return element("label", {}, input, ` ${title}`);
    });
    return element("fieldset", { className: "levels" }, element("legend", {}, "Equations"), ...choices);
  }

  load(run, ties) {
    Object.assign(this, { run, ties, step: undefined, shape: undefined });
    this.words.replaceChildren();
    this.groups.replaceChildren();
  }

  open(isShown) {
    this.element.hidden = !isShown;
    this.draw();
  }

  /** Show a step; slot: whose numbers are put in, or undefined. */
  show(step, slot) {
    if (step === this.step && slot === this.slot) return;
    Object.assign(this, { step, slot });
    this.draw();
  }

  /** Draw again in another size. */
  fit() {
    const width = this.element.clientWidth;
    if (width === this.width) return;
    Object.assign(this, { width, bars: undefined });
    this.draw();
  }

  draw() {
    if (this.element.hidden || this.step === undefined) return;
    this.words.replaceChildren(...overview(this.run, this.ties, this.step).map((sentence) => element("p", {}, sentence)));
    this.groups.hidden = this.level === "overview";
    if (this.groups.hidden) return;
    const groups = equationsOf(this.run, this.step, this.slot);
    this.build(groups);
    const lines = groups.flatMap(({ lines, focus }) => lines.map((line) => ({ line, focus })));
    this.bars ??= this.lines.find(({ over }) => over !== "parts")?.width; // to ask for it at each step would be to lay out twice
    const style = { isFull: this.level === "formulas", width: this.bars, ...this.colors };
    lines.forEach(({ line, focus }, index) => this.lines[index].show(line, line.focus ?? focus, style));
  }

  /** Make the elements of all lines, unless they are there. */
  build(groups) {
    const shape = groups.map(({ title, lines }) => [title, ...lines.map(({ over, values }) => `${over}${values.length}`)]).join();
    if (shape === this.shape) return;
    Object.assign(this, { shape, bars: undefined });
    const { color, borderTopColor, accentColor } = getComputedStyle(this.groups);
    this.colors = { mark: color, zero: borderTopColor, bar: accentColor };
    const made = groups.map(({ title, lines }) => ({ title, lines: lines.map((line) => new Line(line)) }));
    this.lines = made.flatMap(({ lines }) => lines);
    this.groups.replaceChildren(...made.map(({ title, lines }) => element("section", {}, element("h2", {}, title), ...lines.map((line) => line.element))));
  }
}

/** One value on the way: its name, its numbers as bars, and its formula. */
class Line {
  constructor({ over }) {
    this.over = over;
    this.last = {}; // HTML of its parts
    this.name = element("span", { className: "name" });
    this.canvas = element("canvas", { role: "img" });
    this.value = element("span", { className: "value" });
    this.formula = element("p", { className: "formula" });
    const middle = over === "parts" ? [this.value] : [this.canvas, this.value];
    this.element = element("div", { className: `line ${over}` }, this.name, ...middle, this.formula);
  }

  /** The width of its bars in CSS pixels, which is that of all lines. */
  get width() {
    return this.canvas.clientWidth;
  }

  /** style: {isFull: with the formula, width: of the bars, bar, mark, zero: their colours}. */
  show(line, focus, { isFull, ...style }) {
    const { name, symbol, over, values } = line;
    setHtml(this, "name", `${symbol} <small>${name}</small>`);
    setHtml(this, "value", over === "parts" ? partsHtml(line) : focusHtml(line, focus));
    if (over !== "parts") this.draw(line, over === "slots" ? focus : -1, style);
    this.canvas.ariaLabel = `${name}: ${values.length} values over the ${over === "slots" ? "locations" : over}`;
    this.formula.hidden = !isFull || !line.formula;
    if (!this.formula.hidden) setHtml(this, "formula", formulaHtml(line, focus));
  }

  /** Draw bars from zero up, and down where there are negative values. */
  draw({ values, signed }, focus, { width: bars, mark, zero, bar }) {
    const ratio = window.devicePixelRatio;
    const [width, height] = [Math.round(bars * ratio), BARS * ratio];
    Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    const most = Math.max(1e-6, signed ? values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) : 1);
    const base = signed ? height / 2 : height - ratio;
    const cell = width / values.length;
    context.fillStyle = zero;
    context.fillRect(0, base, width, ratio);
    values.forEach((value, at) => {
      const size = (value / most) * (signed ? base : base - ratio);
      context.fillStyle = at === focus ? mark : bar;
      if (Math.abs(size) >= 0.5) context.fillRect(at * cell, base - size, Math.max(cell - (cell > 3 * ratio ? ratio : 0), ratio), size);
    });
    context.fillStyle = mark;
    if (focus >= 0) context.fillRect((focus + 0.5) * cell - ratio, height - 3 * ratio, 2 * ratio, 3 * ratio);
  }
}

/** Set the HTML of a part of a line, which is of numbers and names of this page alone. */
function setHtml(line, part, html) {
  if (line.last[part] !== html) line[part].innerHTML = line.last[part] = html;
}

function partsHtml({ labels, values }) {
  return [...values].map((value, at) => `${labels[at] ? `${labels[at]} ` : ""}<b>${two(value)}</b>`).join(" · ");
}

/** Return the value of the location in focus; of a vector, its length in words. */
function focusHtml({ over, values }, focus) {
  return over === "slots" ? `[${focus}] <b>${two(values[focus])}</b>` : `${values.length} words`;
}

/** Return the formula, with the numbers of the location in focus, or of the largest value of a vector. */
function formulaHtml({ over, values, formula, at }, focus) {
  if (!at) return formula;
  const index = over === "slots" ? focus : placeOf(values.map(Math.abs)).slot;
  return `${formula}<br><span class="numbers">${over === "slots" ? `[${index}] = ` : ""}${at(index).text}</span>`;
}
