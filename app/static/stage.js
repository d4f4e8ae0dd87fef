// The screen of one run: what went in and was written, what came out and was read, and the memory at the cursor.
//
//     in: input, written vectors,   | out: target, output, read vectors, | at the cursor: memory, links
//     write weightings, usage       | read weightings, gates             |

import { CurveStrip } from "./curve-strip.js";
import { element } from "./dom.js";
import { Insight } from "./insight.js";
import { Moment, growing, whenDone } from "./moment.js";
import { Panel } from "./panel.js";
import { GATES, WEIGHTINGS, headsOf } from "./plots.js";
import { Scene, addScene } from "./scene.js";
import { BITS, WEIGHTS, positive, signed, tokens } from "./scales.js";
import { Strip } from "./strip.js";
import { classesOf } from "./verdict.js";

const ROW = 5; // CSS pixels of a row of bits, at least
const LOWEST = 12; // CSS pixels of a strip
const MOST_CHANNELS = 80; // CSS pixels of a strip of channels, at least
const LEAST = 44; // CSS pixels of a strip of slots, at least
const NAMED_ROW = 11; // CSS pixels of a row with its name

/** Shows a run, at one step. */
export class Stage {
  /** life: the element below the stage, for the life of a slot; on: {point(text), seek(step)}. */
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
    return [
      [...inStrips(run), ...writeStrips(run)],
      [...outStrips(run, wrong), ...readStrips(run)],
    ];
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

export function inStrips({ model, task, sequence }) {
  const { inputs } = sequence;
  if (model.vocabulary_size) {
    const scale = tokens(model.vocabulary_size);
    return [strip({ title: "Tokens", rowName: "token", rows: 1, least: 12, digits: 0, names: task.words }, "input", scale, inputs)];
  }
  const areBits = inputs.flat().every((value) => value >= 0 && value <= 1);
  const rows = { rows: model.input_size, rowLabels: task.channels, ...heightOf(model.input_size) };
  return [strip({ ...rows, title: "Input", rowName: "channel" }, "input", areBits ? BITS : signed(inputs), inputs)];
}

export function outStrips(run, wrong) {
  const { model, task, sequence, outputs } = run;
  const isClasses = model.output_activation === "softmax";
  const shared = {
    rows: model.output_size,
    rowName: isClasses ? "class" : "channel",
    rowLabels: isClasses ? task.classes : task.outputs,
    ...heightOf(model.output_size),
  };
  const scale = model.output_activation === "identity" ? growing(run, () => outputs) : () => BITS;
  const target = strip({ ...shared, title: "Target" }, "target", BITS, sequence.targets);
  const output = new Strip({ ...shared, title: "Output", name: "output", scale, values: (step) => outputs[step], wrong }, run.length);
  return [...(sequence.targets.some(Boolean) ? [target] : []), output, ...digitStrips(run), ...optimumStrips(run, shared)];
}

/** Return the best prediction that there is, and beside it that of the model, where the task has one. */
function optimumStrips({ sequence: { optimum, targets }, outputs, length }, shared) {
  if (!optimum) return [];
  const best = optimum.map((chance) => (chance === null ? null : [chance]));
  const curves = [
    { name: "output", color: "--accent", values: (step) => outputs[step]?.[0] },
    { name: "optimum", color: "--mark", dashed: true, values: (step) => optimum[step] },
    { name: "bit", color: "--text", dots: true, values: (step) => targets[step]?.[0] },
  ];
  const title = "Chance of a 1: output, optimum (dashed), and the bits that came (dots)";
  const plot = { name: "prediction", title, curves, least: 56, share: 1 };
  return [strip({ ...shared, title: "Optimum" }, "optimum", BITS, best), new CurveStrip(plot, length)];
}

/** Return the strip of the likeliest class of each group of the outputs, where there are several. */
function digitStrips({ model, outputs, length }) {
  const rows = model.output_groups;
  if (!(rows > 1)) return [];
  const scale = tokens(model.output_size / rows);
  const values = (step) => outputs[step] && classesOf(model, outputs[step]).map(({ number }) => number);
  const plot = { name: "digits", title: "Likeliest digits", rows, rowName: "digit", digits: 0, least: rows * ROW };
  return [new Strip({ ...plot, scale: () => scale, values }, length)];
}

/** Return the height of a strip of channels: of many, it grows with the window. */
function heightOf(channels) {
  return channels * ROW > MOST_CHANNELS ? { least: MOST_CHANNELS, share: 1 } : { least: Math.max(LOWEST, channels * ROW) };
}

function strip(plot, name, scale, columns) {
  return new Strip({ ...plot, name, scale: () => scale, values: (step) => columns[step] }, columns.length);
}

function writeStrips(run) {
  return [
    ...["write_vectors", "add_vectors"].flatMap((name) => vectorStrips(run, name, "Written vector")),
    ...slotStrips(run, "write_weights"),
    ...slotStrips(run, "usage"),
    ...slotStrips(run, "allocation_weights"),
  ];
}

function readStrips(run) {
  return [
    ...vectorStrips(run, "read_vectors", "Read vector"),
    ...slotStrips(run, "read_weights"),
    ...Object.keys(GATES).flatMap((name) => gateStrips(run, name)),
  ];
}

export function vectorStrips(run, name, title) {
  if (!run.has(name)) return [];
  const [heads, rows] = run.model.trace[name];
  const scale = growing(run, () => run.trace[name] ?? []);
  return Array.from({ length: heads }, (_, head) => {
    const named = heads > 1 ? `${title}, head ${head}` : title;
    const values = (step) => run.values(name, step, head);
    return new Strip({ name: `${name}.${head}`, title: named, rows, rowName: "word", least: 24, share: 1, scale, values }, run.length);
  });
}

/** Return strips of weights of slots, one for each head if the trace has heads. */
export function slotStrips(run, name) {
  if (!run.has(name)) return [];
  const kind = WEIGHTINGS[name];
  const shared = { rows: run.slots, rowName: "slot", least: LEAST, isSlots: true, scale: () => WEIGHTS };
  const share = ["write_weights", "read_weights"].includes(name) ? 3 : 1;
  if (!kind.heads) return [new Strip({ ...shared, share, name, title: kind.title, values: (step) => run.values(name, step) }, run.length)];
  return headsOf(kind.heads, run.model).map((head, index) => {
    const title = `${kind.title}, ${head.kind} head ${head.number}`;
    return new Strip({ ...shared, share, name: `${name}.${index}`, title, values: (step) => run.values(name, step, index) }, run.length);
  });
}

/** Return strips of the controls of the heads. */
export function gateStrips(run, name) {
  if (!run.has(name)) return [];
  const kind = GATES[name];
  const scale = kind.scale ? largest(run, name) : () => WEIGHTS;
  if (!kind.heads) {
    const rowLabels = headsOf(kind.rows, run.model).map((head) => `${head.kind} ${head.number}`);
    const plot = { name, title: kind.title, rowName: "head", rows: rowLabels.length, rowLabels, scale };
    return [new Strip({ ...plot, least: NAMED_ROW * rowLabels.length, values: (step) => run.values(name, step) }, run.length)];
  }
  const [, rows] = run.model.trace[name];
  return headsOf(kind.heads, run.model).map((head, index) => {
    const title = `${kind.title}, ${head.kind} head ${head.number}`;
    const plot = { name: `${name}.${index}`, title, rowName: kind.rowName, rows, rowLabels: kind.labels(rows), scale };
    return new Strip({ ...plot, least: NAMED_ROW * rows, values: (step) => run.values(name, step, index) }, run.length);
  });
}

/** Return a function that returns the scale of a trace from zero up to its largest value. */
function largest(run, name) {
  return whenDone(run, () => (run.done > 0 ? positive(run.trace[name].map((values) => [...values])) : WEIGHTS));
}
