// The page: choose a model, draw a sequence, run it, look.

import { Problem, describeModel, modelNames, runSequence } from "./api.js";
import { modelCard } from "./card.js";
import { element } from "./dom.js";
import { Editor } from "./editor.js";
import { heatmap } from "./heatmap.js";
import { plotGroups, shownTraces } from "./plots.js";
import { Settings } from "./settings.js";
import { taskOf } from "./tasks.js";
import { TokenEditor } from "./tokens.js";
import { verdictOn } from "./verdict.js";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
const bitEditor = new Editor(page.drawing, markStale, point);
const tokenEditor = new TokenEditor(page.drawing, takeLength);
const settings = new Settings(page.settings, markStale);

let model;
let task;
let editor;
let latest = 0; // what was asked for last; whatever comes in for an earlier turn is dropped

async function start() {
  const names = await modelNames();
  page.model.replaceChildren(...names.map((name) => new Option(name)));
  await choose(new URLSearchParams(location.search).get("model") ?? names[0]);
}

async function choose(name) {
  const turn = ++latest;
  page.model.value = name;
  page.work.inert = true; // what is there belongs to another model
  const chosen = await describeModel(name);
  if (turn !== latest) return;
  model = chosen;
  task = taskOf(model);
  history.replaceState(null, "", `?${new URLSearchParams({ model: name })}`);
  page.card.replaceChildren(...modelCard(model));
  page.work.inert = false;
  page.memory.hidden = !model.memory_size;
  page["memory-size"].value = "";
  page["memory-size"].placeholder = model.memory_size;
  prepareDrawing();
  await run();
}

function prepareDrawing() {
  editor = task.words ? tokenEditor : bitEditor;
  editor.setTask(task);
  settings.setTask(task);
  page.hint.textContent = task.hint;
  page.length.min = page["length-slider"].min = task.shortest ?? 1;
  page.length.max = page["length-slider"].max = task.longest;
  if (editor.length > 0) return setLength(editor.length);
  setLength(task.initialLength);
  randomize();
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
  const sequence = task.encode(structuredClone(editor.pattern), settings.values());
  page.results.ariaBusy = "true";
  page.results.classList.remove("stale");
  try {
    const answer = await runSequence(model, sequence.inputs, shownTraces(model), memorySize());
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
  const groups = plotGroups(model, task, sequence, answer, marks).map(groupSection);
  Object.assign(page.verdict, verdict);
  pointInTime("", -1);
  page.plots.replaceChildren(...groups, ...(answer.memory ? [] : [withoutMemory()]));
  page.results.hidden = false;
}

function groupSection({ title, timed, plots }) {
  const figures = plots.map((plot) => heatmap(plot, timed ? pointInTime : point));
  return element("section", { className: timed ? "timed" : "" }, element("h2", {}, title), ...figures);
}

function withoutMemory() {
  return element("p", { className: "note" }, "This model has no memory to look into: all it keeps is in its state.");
}

/** Tell the value under the pointer. */
function point(text) {
  page.readout.textContent = text;
}

/** Tell the value under the pointer, and draw a line at its time through all plots that have one. */
function pointInTime(text, step) {
  point(text);
  page.plots.style.setProperty("--cursor", step);
}

function markStale() {
  page.results.classList.add("stale");
}

function showProblem({ title, message, code, expected, got }) {
  const lines = [element("p", {}, element("strong", {}, title), `: ${message}`)];
  if (expected) lines.push(element("p", {}, `Expected ${expected}${got ? `, got ${got}` : ""}.`));
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
page.run.addEventListener("click", () => attempt(run));
attempt(start);
