// All of a run as curves and heat maps, one below another: of a graph, whose state and traces have a meaning of its own.

import { curve } from "./curve.js";
import { element } from "./dom.js";
import { heatmap } from "./heatmap.js";
import { memoryPlots, plotGroups } from "./plots.js";
import { hiddenLeaves } from "./signal-plots.js";

const MOST_READ = 3; // outputs whose values are shown while time runs

/** Shows the plots of a run, in groups. */
export class RunPlots {
  /** point: called with the value under the pointer, as a text. */
  constructor(container, point) {
    Object.assign(this, { container, point, groups: [] });
  }

  clear() {
    this.groups = [];
    this.container.replaceChildren();
  }

  /** Show a run; state: that after its last step, leaf -> nested lists. */
  show({ model, task, sequence, outputs, trace }, state) {
    const text = hiddenLeaves(model);
    const notes = text ? [element("p", { className: "note" }, text)] : [];
    this.groups = plotGroups(model, task, sequence, { outputs, trace, state });
    this.container.replaceChildren(...this.groups.map((group) => this.section(group)), ...notes);
  }

  /** Show the memory after the last step, where it is not known what each step writes. */
  showMemory({ memory }) {
    this.container.replaceChildren(...(memory ? memoryPlots(memory) : []).map((plot) => heatmap(plot, this.point)));
  }

  section({ title, timed, plots }) {
    const point = timed ? (text, step) => this.pointInTime(text, step) : this.point;
    const figures = plots.map((plot) => (plot.values ? curve : heatmap)(plot, point));
    return element("section", { className: timed ? "timed" : "" }, element("h2", {}, title), ...figures);
  }

  /** The curves over time that are shown. */
  get curves() {
    return this.groups.flatMap(({ timed, plots }) => (timed ? plots.filter(({ values }) => values) : []));
  }

  /** The curves that can be heard. */
  get waves() {
    return this.curves.filter(({ style }) => style === "wave");
  }

  /** Show a place in time, in steps, with the values of the outputs there; place: its text. */
  moveTo(at, step, place) {
    const read = this.curves.filter(({ isOutput, style }) => isOutput && style === "curves").slice(0, MOST_READ);
    const values = read.map(({ title, values }) => `${title} ${values[step]?.toFixed(3)}`);
    this.pointInTime([place, ...values].join(", "), at - 0.5);
  }

  /** Show the value under the pointer, and draw a line at its time through all plots that have one. */
  pointInTime(text, step) {
    this.point(text);
    this.container.style.setProperty("--cursor", step);
  }
}
