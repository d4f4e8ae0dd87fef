// The stage of a run A, or of A and its branch B: one above the other, one alone, or what B has more than A.

import { differingSteps, intervals } from "./differences.js";
import { element } from "./dom.js";
import { percent } from "./figure.js";
import { MarkedMoment, PairOfMoments } from "./moments.js";
import { upTo } from "./scales.js";
import { Stage } from "./stage.js";
import { Strip } from "./strip.js";

/** The ways to show a run and its branch. */
export const VIEWS = { both: "A above B", a: "A", b: "B", difference: "B − A" };

const PAIRED = ["output", "write_weights", "read_weights"]; // strips that are shown of A and of B
const [LEAST_SLOTS, LEAST_CHANNELS] = [20, 40]; // CSS pixels of a strip of one of two runs, at least
const SHARED = ["target", "optimum"]; // strips that are the same of both

/** A stage that can show a branch beside the run. */
export class ComparingStage extends Stage {
  /** Show a run from now on, without a branch unless it has one already. */
  load(run, wrong) {
    if (this.pair && this.a.run === run) return this.compare(this.pair.b, this.pair.view);
    Object.assign(this, { a: { run, wrong }, pair: undefined });
    super.load(run, wrong);
  }

  /** Show a branch beside the run; b: {run, wrong(step), start}; view: see VIEWS. Without b, show the run alone. */
  compare(b, view) {
    const { a, step } = this;
    this.pair = b && { a, b, view };
    const { run, wrong } = b && view === "b" ? b : a;
    this.container.classList.toggle("compared", Boolean(b));
    super.load(run, wrong);
    if (this.scene && b && view !== "b") this.scene.title = `A: ${this.scene.title}`;
    this.grow();
    this.fit();
    if (step !== undefined) this.moveTo(step);
  }

  /** Draw the steps that were done since, of both. */
  grow() {
    super.grow();
    if (this.pair) this.markDifferences();
  }

  stripsOf(run, wrong) {
    const strips = super.stripsOf(run, wrong);
    const { b, view } = this.pair ?? {};
    if (view !== "both" && view !== "difference") return strips;
    const others = super.stripsOf(b.run, b.wrong);
    const isHeardAlike = run.sequence.inputs === b.run.sequence.inputs;
    const shared = isHeardAlike ? ["input", ...SHARED] : SHARED;
    const paired = isHeardAlike ? PAIRED : ["input", ...PAIRED];
    const beside = (one, other) => besideOf(one, other, paired);
    const combined = view === "both" ? beside : (one, other) => differenceOf(one, other) ?? beside(one, other);
    return strips.map((group, index) => combine(group, others[index], { shared, combined }));
  }

  momentOf(run) {
    const { a, b, view } = this.pair ?? {};
    const events = this.momentEvents();
    if (!b || view === "a") return super.momentOf(run);
    return view === "b" ? new MarkedMoment(b.run, a.run, events) : new PairOfMoments(a.run, b.run, events);
  }

  /** Mark along the axes where the runs differ, and where they part. */
  markDifferences() {
    const { a, b } = this.pair;
    const { written, read } = differingSteps(a.run, b.run);
    const kinds = [["what is heard or written", written], ["what is said or read", read]];
    kinds.forEach(([kind, steps], index) => {
      const { element: panel, length } = this.panels[index];
      for (const mark of panel.querySelectorAll(".differences, .parting")) mark.remove();
      panel.querySelector(".phases").before(differenceBar(kind, intervals(steps), { length, from: a.run.from }));
      const parting = element("div", { className: "parting" });
      parting.style.left = percent(b.start, length);
      panel.querySelector(".lines").append(parting);
    });
  }
}

/** Return the strips of a panel: those that both runs share as they are, and others as `combined` has them. */
function combine(strips, others, { shared, combined }) {
  const named = new Map(others.map((strip) => [strip.plot.name, strip]));
  return strips.flatMap((strip) => {
    if (shared.includes(strip.plot.name)) return [new Strip({ ...strip.plot, least: leastOf(strip.plot) }, strip.length)];
    const other = named.get(strip.plot.name);
    return other && !strip.plot.curves ? combined(strip, other) : [];
  });
}

/** Return a strip of A above that of B, of the kinds that are compared. */
function besideOf(one, other, kinds) {
  if (!kinds.includes(one.plot.name.split(".")[0])) return [];
  return [titled(one, "A", one.plot.name), titled(other, "B", `b.${one.plot.name}`)];
}

function titled({ plot, length }, letter, name) {
  const named = { name, title: `${letter}: ${plot.title}`, rowName: `${letter}, ${plot.rowName}`, caption: undefined, beside: undefined };
  return new Strip({ ...plot, ...named, least: leastOf(plot) }, length);
}

/** Return the least height of a strip where two runs are to have room. */
function leastOf({ least, isSlots }) {
  return Math.min(least, isSlots ? LEAST_SLOTS : LEAST_CHANNELS);
}

/** Return a strip of what B has more than A, of the rows that both have; undefined for tokens, which have no difference. */
function differenceOf({ plot, length }, { plot: other }) {
  if (plot.name === "digits" || plot.names) return undefined;
  const ends = [plot.scale(), other.scale()].flatMap(({ low, high }) => [Math.abs(low), Math.abs(high)]);
  const scale = upTo(Math.max(...ends));
  const rows = Math.min(plot.rows, other.rows);
  const values = (step) => {
    const [one, two] = [plot.values(step), other.values(step)];
    return one && two && Float32Array.from({ length: rows }, (_, row) => two[row] - one[row]);
  };
  const less = (text) => text && `B − A: ${text}`;
  const named = { name: `difference.${plot.name}`, title: less(plot.title), caption: less(plot.caption), rowName: `B − A, ${plot.rowName}` };
  return new Strip({ ...plot, ...named, rows, values, wrong: undefined, scale: () => scale }, length);
}

/** Return a bar that marks intervals; from: the step before the first of the axis. */
function differenceBar(kind, parts, { length, from: before }) {
  const named = parts.map(({ from, to }) => (to === from + 1 ? `${before + from}` : `${before + from} to ${before + to - 1}`));
  const text = named.join(", ") || "none";
  const label = `Steps at which ${kind} differs between A and B: ${text}`;
  const bar = element("div", { className: "differences", role: "img", ariaLabel: label, title: label });
  for (const { from, to } of parts) {
    const part = element("span");
    part.style.left = percent(from, length);
    part.style.width = percent(to - from, length);
    bar.append(part);
  }
  return bar;
}
