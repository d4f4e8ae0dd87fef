// The page: choose a model, draw a sequence, run it, look.

import { Problem, describeModel, modelNames, runSequence } from "./api.js";
import { modelCard } from "./card.js";
import { element } from "./dom.js";
import { Editor } from "./editor.js";
import { heatmap } from "./heatmap.js";
import { plotGroups, shownTraces } from "./plots.js";
import { taskOf } from "./tasks.js";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
const editor = new Editor(page.drawing, markStale, point);

let model;
let task;
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
  prepareDrawing();
  await run();
}

function prepareDrawing() {
  editor.setTask(task);
  page.hint.textContent = task.hint;
  page.length.max = page["length-slider"].max = task.longest;
  if (editor.pattern.length > 0) return setLength(editor.pattern.length);
  setLength(task.initialLength);
  editor.randomize();
}

function setLength(asked) {
  const length = Math.min(Math.max(Math.round(asked) || 1, 1), task.longest);
  page.length.value = page["length-slider"].value = length;
  editor.resize(length);
  markStale();
}

async function run() {
  const turn = ++latest;
  const sequence = task.encode(structuredClone(editor.pattern));
  page.results.ariaBusy = "true";
  try {
    const answer = await runSequence(model, sequence.inputs, shownTraces(model));
    if (turn === latest) show(sequence, answer);
  } catch (error) {
    page.results.hidden = true;
    throw error;
  } finally {
    page.results.ariaBusy = "false";
  }
}

function show(sequence, answer) {
  const wrong = wrongBits(sequence.targets, answer.outputs);
  const groups = plotGroups(model, task, sequence, answer, wrong).map(groupSection);
  showVerdict(sequence.targets, wrong);
  page.readout.textContent = "";
  page.plots.replaceChildren(...groups, ...(answer.memory ? [] : [withoutMemory()]));
  page.results.hidden = false;
  page.results.classList.remove("stale");
}

function groupSection({ title, timed, plots }) {
  const figures = plots.map((plot) => heatmap(plot, timed ? pointInTime : point));
  return element("section", { className: timed ? "timed" : "" }, element("h2", {}, title), ...figures);
}

function withoutMemory() {
  return element("p", { className: "note" }, "This model has no memory to look into: all it keeps is in its controller.");
}

/** Return where the outputs fall on the other side of the threshold than the bits that are due: [{row, column}]. */
function wrongBits(targets, outputs) {
  const threshold = model.output_activation === "sigmoid" ? 0.5 : 0;
  return targets.flatMap((target, column) =>
    (target ?? [])
      .map((bit, row) => ({ row, column, wrong: outputs[column][row] > threshold !== bit > 0.5 }))
      .filter(({ wrong }) => wrong),
  );
}

function showVerdict(targets, wrong) {
  const asked = targets.filter(Boolean).flat().length;
  page.verdict.className = asked === 0 ? "unknown" : wrong.length === 0 ? "right" : "wrong";
  const wrongBits = wrong.length === 1 ? "1 wrong bit" : `${wrong.length} wrong bits`;
  page.verdict.textContent = asked === 0 ? "No target to compare with" : `${wrongBits} of ${asked}`;
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

function showProblem(problem) {
  const code = problem.code ? [element("code", {}, problem.code)] : [];
  page.error.replaceChildren(element("strong", {}, problem.title), `: ${problem.message} `, ...code);
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
page.random.addEventListener("click", () => {
  editor.randomize();
  markStale();
});
page.clear.addEventListener("click", () => {
  editor.clear();
  markStale();
});
page.run.addEventListener("click", () => attempt(run));
attempt(start);
