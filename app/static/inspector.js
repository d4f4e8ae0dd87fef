// The page: choose a model, draw a sequence, run it, look.

import { Problem, describeModel, forgetKey, modelNames, runSequence } from "./api.js";
import { modelCard } from "./card.js";
import { curve } from "./curve.js";
import { element } from "./dom.js";
import { Editor } from "./editor.js";
import { columnText } from "./figure.js";
import { heatmap } from "./heatmap.js";
import { Player, speedOptions } from "./player.js";
import { plotGroups, shownLeaves, shownTraces } from "./plots.js";
import { Settings } from "./settings.js";
import { SignalEditor } from "./signal-editor.js";
import { hiddenLeaves } from "./signal-plots.js";
import { taskOf } from "./tasks.js";
import { TokenEditor } from "./tokens.js";
import { verdictOn } from "./verdict.js";

const MOST_READ = 3; // outputs whose values are shown while time runs

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
const bitEditor = new Editor(page.drawing, markStale, point);
const tokenEditor = new TokenEditor(page.drawing, takeLength);
const signalEditor = new SignalEditor(
  { container: page.drawing, sources: page.sources, notice: page.notice },
  { onChange: takeLength, onPoint: point, attempt },
);
const settings = new Settings(page.settings, markStale);
const player = new Player({ ...page, bar: page.player }, moveInTime);

let model;
let task;
let editor;
let shown = []; // the groups of plots
let latest = 0; // what was asked for last; whatever comes in for an earlier turn is dropped

async function start() {
  const names = await modelNames();
  page.model.replaceChildren(...names.map((name) => new Option(name)));
  await choose(new URLSearchParams(location.search).get("model") ?? names[0]);
}

async function choose(name) {
  const turn = ++latest;
  player.pause();
  page.model.value = name;
  page.work.inert = true; // what is there belongs to another model
  const chosen = await describeModel(name);
  if (turn !== latest) return;
  model = chosen;
  task = taskOf(model);
  history.replaceState(null, "", `?${new URLSearchParams({ model: name })}`);
  page.card.replaceChildren(...modelCard(model));
  page.memory.hidden = !model.memory_size;
  page["memory-size"].value = "";
  page["memory-size"].placeholder = model.memory_size;
  await prepareDrawing();
  if (turn !== latest) return;
  page.work.inert = false;
  await run();
}

/** Show what is sent to the model: what was drawn, if it fits, or else its recording, or else something random. */
async function prepareDrawing() {
  editor = task.words ? tokenEditor : task.parts ? signalEditor : bitEditor;
  editor.setTask(task, model.name);
  settings.setTask(task);
  showControls();
  page.hint.textContent = task.hint;
  page.length.min = page["length-slider"].min = task.shortest ?? 1;
  page.length.max = page["length-slider"].max = task.longest;
  if (editor.length > 0) return setLength(editor.length);
  if (model.sample && task.parts) return editor.loadSample();
  setLength(task.initialLength);
  randomize();
}

/** Show the controls of the task, and no others. */
function showControls() {
  page.work.classList.toggle("signals", Boolean(task.parts));
  page.sources.hidden = page.notice.hidden = !task.parts;
  page["length-slider"].hidden = page.random.hidden = page.clear.hidden = Boolean(task.parts);
}

function setLength(asked) {
  editor.resize(Math.min(Math.max(Math.round(asked) || 1, task.shortest ?? 1), task.longest));
  takeLength();
}

function randomize() {
  editor.randomize();
  takeLength();
}

/** Show how long the sequence is that was drawn or written. */
function takeLength() {
  page.length.value = page["length-slider"].value = editor.length;
  settings.resize(editor.length);
  markStale();
}

/** Return the memory slots that were asked for, if any were. */
function memorySize() {
  const asked = page["memory-size"].valueAsNumber;
  return Number.isNaN(asked) ? undefined : asked;
}

async function run() {
  const turn = ++latest;
  player.pause();
  const sequence = task.encode(structuredClone(editor.pattern), settings.values());
  page.results.ariaBusy = "true";
  page.results.classList.remove("stale");
  try {
    const answer = await runSequence(model, sequence.inputs, shownTraces(model), shownLeaves(model), memorySize());
    if (turn === latest) show(sequence, answer);
  } catch (error) {
    if (turn !== latest) return;
    page.results.hidden = true;
    throw error;
  } finally {
    page.results.ariaBusy = "false";
  }
}

function show(sequence, answer) {
  const { marks, ...verdict } = verdictOn(model, task, sequence, answer.outputs);
  shown = plotGroups(model, task, sequence, answer, marks);
  Object.assign(page.verdict, verdict);
  pointInTime("", -1);
  page.plots.replaceChildren(...shown.map(groupSection), ...notes(answer));
  page.results.hidden = false;
  if (!task.parts) return player.unload();
  const waves = curves().filter(({ style }) => style === "wave");
  player.load({ steps: sequence.inputs.length, seconds: task.seconds, samplingRate: task.samplingRate, waves });
}

/** Return the curves over time that are shown. */
function curves() {
  return shown.flatMap(({ timed, plots }) => (timed ? plots.filter(({ values }) => values) : []));
}

function groupSection({ title, timed, plots }) {
  const figures = plots.map((plot) => (plot.values ? curve : heatmap)(plot, timed ? pointInTime : point));
  return element("section", { className: timed ? "timed" : "" }, element("h2", {}, title), ...figures);
}

/** Return lines on what cannot be shown of the state. */
function notes({ state }) {
  const without = "This model has no memory to look into: all it keeps is in its state.";
  const text = model.graph ? hiddenLeaves(model) : state.memory ? undefined : without;
  return text ? [element("p", { className: "note" }, text)] : [];
}

/** Show the value under the pointer. */
function point(text) {
  page.readout.textContent = text;
}

/** Show the value under the pointer, and draw a line at its time through all plots that have one. */
function pointInTime(text, step) {
  point(text);
  page.plots.style.setProperty("--cursor", step);
}

/** Show a place in time, in steps, and the outputs there. */
function moveInTime(at) {
  const step = Math.min(Math.floor(at), Number(page.position.max) - 1);
  const read = curves().filter(({ isOutput, style }) => isOutput && style === "curves").slice(0, MOST_READ);
  const values = read.map(({ title, values }) => `${title} ${values[step].toFixed(3)}`);
  pointInTime([columnText({ columnName: "step", seconds: task.seconds }, step), ...values].join(", "), at - 0.5);
}

function markStale() {
  page.results.classList.add("stale");
}

function showProblem({ title, message, code, expected, got, retryAfter }) {
  const lines = [element("p", {}, element("strong", {}, title), `: ${message}`)];
  if (expected) lines.push(element("p", {}, `Expected ${expected}${got ? `, got ${got}` : ""}.`));
  if (retryAfter) lines.push(element("p", {}, `Try again after ${retryAfter} s.`));
  if (code) lines.push(element("code", {}, code));
  page.error.replaceChildren(...lines);
}

/** Do what the user asked for; should it fail, say why. */
async function attempt(action) {
  page.error.replaceChildren();
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showProblem(error);
  }
}

page.model.addEventListener("change", () => attempt(() => choose(page.model.value)));
page.length.addEventListener("change", () => setLength(page.length.valueAsNumber));
page["length-slider"].addEventListener("input", () => setLength(page["length-slider"].valueAsNumber));
page["memory-size"].addEventListener("input", markStale);
page.random.addEventListener("click", randomize);
page.clear.addEventListener("click", () => {
  editor.clear();
  markStale();
});
page.speed.replaceChildren(...speedOptions());
page.speed.value = "1";
page.run.addEventListener("click", () => attempt(run));
page["forget-key"].addEventListener("click", () => attempt(forgetKey));
attempt(start);
