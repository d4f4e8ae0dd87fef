// The guided page: each picture runs on a model of the server, and begins when it comes into sight.

import { Problem, describeModel, forgetKey, modelSample } from "./api.js";
import { element } from "./dom.js";
import { Moment } from "./moment.js";
import { Panel } from "./panel.js";
import { shownLeaves, shownTraces } from "./plots.js";
import { Run } from "./run.js";
import { BITS, WEIGHTS } from "./scales.js";
import { sequenceOf } from "./sequence.js";
import { LiveSession } from "./session.js";
import { phasesOf } from "./stage.js";
import { gateStrips, inStrips, outStrips, slotStrips, vectorStrips } from "./strips.js";
import { taskOf } from "./tasks.js";
import { verdictOn, wrongRows } from "./verdict.js";

const FIGURES = { lengths, reading, writing, allocation, content, links, shifts, sharpening, route };

const TOY_SLOTS = 8;
const TOY_ROW = 16; // CSS pixels
const FEW_SLOTS = 16; // of a run whose slots are to be seen one by one
const TOY_WORDS = ["10110010", "01001101", "11100001", "00010111", "10011010", "01111000", "11000110", "00101011"];

const runs = new Map(); // promises of runs, by what was asked for

// Live pictures of runs

/** Two models that copy the same vectors, of a length to choose. */
async function lengths(container) {
  const names = ["lstm-copy", "dnc-copy"];
  const pictures = names.map((name) => element("div", { role: "group", ariaLabel: name }));
  const length = slider("Vectors", 5, 40, 20);
  container.append(length.element, element("div", { className: "pair" }, ...pictures));
  await follow(length, async (count) => {
    const runs = await Promise.all(names.map((name) => sampleRun(name, { length: count })));
    runs.forEach((run, index) => {
      const { marks, textContent } = verdictOn(run.model, run.task, run.sequence, run.outputs);
      pictures[index].replaceChildren(element("p", {}, element("strong", {}, names[index]), `: ${textContent}`));
      show(run, outStrips(run, wrongRows(marks)), pictures[index]);
    });
  });
}

/** A run of dnc-copy with a cursor: what is written, and the memory. */
async function writing(container) {
  const run = await sampleRun("dnc-copy", { length: 10, memorySize: FEW_SLOTS });
  const strips = [...inStrips(run), ...vectorStrips(run, "write_vectors", "Written vector"), ...slotStrips(run, "write_weights")];
  withCursor(container, run, strips, { moment: "The memory as it is written" });
}

/** The same, with what decides where to write. */
async function allocation(container) {
  const run = await sampleRun("dnc-copy", { length: 10, memorySize: FEW_SLOTS });
  const gates = ["write_gate", "allocation_gate", "free_gates"].flatMap((name) => gateStrips(run, name));
  withCursor(container, run, [...slotStrips(run, "usage"), ...slotStrips(run, "allocation_weights"), ...slotStrips(run, "write_weights"), ...gates]);
}

/** The look-ups of dnc-key-value, and what the strength of a key does. */
async function content(container) {
  const run = await sampleRun("dnc-key-value", { pairs: 6, overwrites: 0 });
  const first = Math.max(0, run.sequence.targets.findIndex(Boolean));
  const strength = slider("Strength", 0.5, 30, 10, 0.5);
  const bars = element("div", { className: "bars", role: "img" });
  withCursor(container, run, [...inStrips(run), ...outStrips(run, () => []), ...slotStrips(run, "read_weights")], { at: first });
  container.append(
    element("p", {}, "The look-up of the first question again, with a strength that you choose; a bar for each location:"),
    strength.element,
    bars,
  );
  await follow(strength, (beta) => {
    const weights = lookUp(run, first, beta);
    if (!weights) return bars.replaceChildren("This model does not trace its keys.");
    const best = weights.indexOf(Math.max(...weights));
    bars.ariaLabel = `Weights of ${weights.length} locations: the greatest is ${weights[best].toFixed(2)}, of location ${best}`;
    bars.replaceChildren(...[...weights].map(bar));
  });
}

/** How the read head of dnc-copy goes along the links. */
async function links(container) {
  const run = await sampleRun("dnc-copy", { length: 10, memorySize: FEW_SLOTS });
  const modes = gateStrips(run, "read_modes");
  const at = run.sequence.targets.findIndex(Boolean);
  withCursor(container, run, [...slotStrips(run, "write_weights"), ...slotStrips(run, "read_weights"), ...modes], { moment: "The memory and its links", at });
}

/** The heads of ntm-copy. */
async function shifts(container) {
  const run = await sampleRun("ntm-copy", { length: 12, memorySize: FEW_SLOTS });
  const controls = ["shift_weights", "sharpening"].flatMap((name) => gateStrips(run, name));
  withCursor(container, run, [...slotStrips(run, "write_weights"), ...slotStrips(run, "read_weights"), ...controls]);
}

/** The look-ups of dnc-graph-traversal on its way through a map. */
async function route(container) {
  const again = element("button", { type: "button" }, "Another map");
  const picture = element("div");
  let seed = 1;
  const draw = () =>
    guarded(container, async () => {
      const run = await sampleRun("dnc-graph-traversal", { seed: seed++ });
      picture.replaceChildren();
      const { marks } = verdictOn(run.model, run.task, run.sequence, run.outputs);
      const at = run.sequence.targets.findIndex(Boolean);
      withCursor(picture, run, [...outStrips(run, wrongRows(marks)), ...slotStrips(run, "write_weights"), ...slotStrips(run, "read_weights")], { at });
    });
  again.addEventListener("click", draw);
  container.append(element("div", { className: "controls" }, again), picture);
  await draw();
}

// Pictures without a model

/** A head that reads a memory of eight locations: where it points, and how sharply. */
function reading(container) {
  const place = slider("Place of the head", 0, TOY_SLOTS - 1, 2, 0.1);
  const blur = slider("Bluntness", 0.05, 4, 0.3, 0.05);
  const memory = TOY_WORDS.map((word) => [...word].map(Number));
  const pictures = { weights: toy(1, TOY_SLOTS), memory: toy(8, TOY_SLOTS), read: toy(8, 1) };
  pictures.memory.draw(BITS, memory.flat());
  container.append(
    place.element,
    blur.element,
    element(
      "div",
      { className: "toy" },
      ...["weights", "memory", "", "read"].map((name) => (name ? figureOf(name, pictures[name]) : element("span"))),
    ),
  );
  const draw = () => {
    const weights = softmax(memory.map((_, slot) => -((slot - place.value()) ** 2) / blur.value()));
    pictures.weights.draw(WEIGHTS, weights);
    pictures.read.draw(BITS, memory[0].map((_, word) => weights.reduce((sum, weight, slot) => sum + weight * memory[slot][word], 0)));
  };
  for (const each of [place, blur]) each.input.addEventListener("input", draw);
  draw();
}

/** A weighting that is shifted ten times, with a power to sharpen it. */
function sharpening(container) {
  const power = slider("Sharpening", 1, 5, 1, 0.1);
  const [slots, times] = [24, 11];
  const picture = toy(times, slots);
  container.append(power.element, element("p", {}, "A column for each shift by one location, of which a tenth stays behind and a tenth goes too far:"), element("div", { className: "toy" }, element("span"), picture.canvas));
  const draw = () => {
    let weights = Array.from({ length: slots }, (_, slot) => (slot === 2 ? 1 : 0));
    const columns = Array.from({ length: times }, () => {
      const shown = weights;
      const at = (slot) => shown[(slot + slots) % slots];
      const shifted = shown.map((_, slot) => 0.1 * at(slot) + 0.8 * at(slot - 1) + 0.1 * at(slot - 2));
      const raised = shifted.map((weight) => weight ** power.value());
      const sum = raised.reduce((total, weight) => total + weight, 0);
      weights = raised.map((weight) => weight / sum);
      return shown;
    });
    picture.draw(WEIGHTS, Array.from({ length: slots * times }, (_, at) => columns[at % times][Math.floor(at / times)]));
  };
  power.input.addEventListener("input", draw);
  draw();
}

// What the pictures are made of

/** Return a whole run of a model on a sample of its task; several pictures of one run share it. Throws Problem. */
function sampleRun(name, wanted = {}) {
  const key = JSON.stringify([name, wanted]);
  const run = runs.get(key) ?? runOf(name, wanted);
  runs.set(key, run);
  run.catch(() => runs.delete(key));
  return run;
}

async function runOf(name, { seed = 1, memorySize, ...sizes }) {
  const model = await describeModel(name);
  const task = taskOf(model);
  const sequence = sequenceOf(await modelSample(name, { seed, ...sizes }), task);
  const session = await LiveSession.open(model, { memorySize });
  try {
    const first = await session.first(shownLeaves(model));
    const run = new Run(model, task, sequence, { memorySize, first });
    await session.step(sequence.inputs, shownTraces(model), (answer) => run.take(answer));
    return run;
  } finally {
    session.end();
  }
}

/** Show strips of a run, whole. */
function show(run, strips, container, on = {}) {
  const time = { length: run.length, phases: phasesOf(run.sequence), labels: run.sequence.labels };
  const panel = new Panel("", strips, time, { point() {}, leave() {}, seek() {}, ...on });
  container.append(panel.element);
  panel.draw(0, run.done);
  new ResizeObserver(() => panel.fit()).observe(panel.element);
  panel.fit();
  return panel;
}

/** Show strips of a run with a cursor to move; moment: the name of the memory at the cursor, to be shown beside them. */
function withCursor(container, run, strips, { moment, at = 0 } = {}) {
  const step = slider("Step", 0, run.length - 1, Math.max(0, at));
  const readout = element("output");
  step.element.append(readout);
  const pair = element("div", { className: moment ? "pair" : "" });
  container.append(step.element, pair);
  const seek = (value) => {
    step.input.value = value;
    panel.moveTo(value);
    seen?.moveTo(value);
  };
  const panel = show(run, strips, pair, {
    point: (strip, column, row) => (readout.textContent = strip.describe(column, row)),
    leave: () => (readout.textContent = ""),
    seek,
  });
  const seen = moment ? new Moment(run, { point: (text) => (readout.textContent = text), leave() {} }, moment) : undefined;
  if (seen) pair.append(seen.element);
  step.input.addEventListener("input", () => seek(step.input.valueAsNumber));
  new ResizeObserver(() => seek(step.input.valueAsNumber)).observe(panel.element);
}

/** Return the weights of the slots for the key of the first read head at a step, with another strength. */
function lookUp(run, step, strength) {
  const key = run.values("read_keys", step, 0);
  if (!key || !run.memory) return undefined;
  const { slots, width } = run.memory;
  const memory = run.memory.at(step + 1);
  const similarities = Array.from({ length: slots }, (_, slot) => cosine(key, memory.subarray(slot * width, (slot + 1) * width)));
  return softmax(similarities.map((similarity) => strength * similarity));
}

function cosine(one, other) {
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  return dot(one, other) / (Math.sqrt(dot(one, one) + 1e-6) * Math.sqrt(dot(other, other) + 1e-6) + 1e-6);
}

function softmax(values) {
  const greatest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - greatest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function slider(label, min, max, value, step = 1) {
  const input = element("input", { type: "range", min, max, step, value });
  const shown = element("output", {}, `${value}`);
  input.addEventListener("input", () => (shown.textContent = input.value));
  return { input, value: () => input.valueAsNumber, element: element("div", { className: "controls" }, element("label", {}, `${label} `, input), shown) };
}

/** Do something with the value of a slider now and after each change; while it is being done, later changes wait. */
async function follow({ input, value }, action) {
  let [wanted, busy] = [value(), false];
  const work = async () => {
    if (busy) return;
    busy = true;
    while (wanted !== undefined) {
      const next = wanted;
      wanted = undefined;
      await action(next);
    }
    busy = false;
  };
  input.addEventListener("input", () => {
    wanted = value();
    guarded(input.closest("[data-figure]"), work);
  });
  await work();
}

function bar(weight) {
  const created = element("i");
  created.style.height = `${100 * weight}%`;
  return created;
}

/** Return a small picture of [rows][columns] values in one piece. */
function toy(columns, rows) {
  const canvas = element("canvas", { width: columns, height: rows, role: "img" });
  canvas.style.height = `${rows * TOY_ROW}px`;
  return {
    canvas,
    draw(scale, values) {
      const image = new ImageData(columns, rows);
      values.forEach((value, index) => scale.paint(image.data, 4 * index, value));
      canvas.getContext("2d").putImageData(image, 0, 0);
      canvas.ariaLabel = `${rows} × ${columns} values`;
    },
  };
}

function figureOf(title, { canvas }) {
  return element("figure", {}, element("figcaption", {}, title), canvas);
}

/** Do something; should it fail, say why in the place of the picture. */
async function guarded(container, action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    container.replaceChildren(element("p", { className: "note" }, `This picture cannot be shown: ${error.message}`));
  }
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      guarded(target, () => FIGURES[target.dataset.figure](target));
    }
  },
  { rootMargin: "400px" },
);
for (const place of document.querySelectorAll("[data-figure]")) observer.observe(place);
document.getElementById("forget-key").addEventListener("click", () => forgetKey());
