// The page: choose a model, draw a sequence, run it, look.

import * as address from "./address.js";
import { verdictOf } from "./answers.js";
import { Problem, describeModel, forgetKey, modelNames, watchWaiting } from "./api.js";
import { modelCard } from "./card.js";
import { curve } from "./curve.js";
import { element } from "./dom.js";
import { watchFiles } from "./drop.js";
import { Editor } from "./editor.js";
import { columnText } from "./figure.js";
import { Follower } from "./follow.js";
import { heatmap } from "./heatmap.js";
import { Player, speedOptions } from "./player.js";
import { patternOf as readPattern, textOf } from "./pattern.js";
import { memoryPlots, plotGroups, shownLeaves, shownTraces } from "./plots.js";
import { readRecording } from "./recording.js";
import { Run } from "./run.js";
import { BY_HAND, SampleBar } from "./sample-bar.js";
import { patternOf, sequenceOf } from "./sequence.js";
import { LiveSession } from "./session.js";
import { ShareMenu } from "./share.js";
import { RECORDING, SignalEditor } from "./signal-editor.js";
import { hiddenLeaves } from "./signal-plots.js";
import { Stage } from "./stage.js";
import { Story } from "./story.js";
import { taskOf } from "./tasks.js";
import { TokenEditor } from "./tokens.js";
import { openViews, setViews, watchViews } from "./views.js";

const SLOW = "Waiting for the server. It may be busy, or the key may have taken all the steps that it may for now.";
const SLOW_MS = 2000;

const MOST_READ = 3; // outputs whose values are shown while time runs

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
const bitEditor = new Editor(page.drawing, takeChange, point);
const tokenEditor = new TokenEditor(page.drawing, takeChange);
const signalEditor = new SignalEditor(
  { container: page.drawing, sources: page.sources, notice: page.notice },
  { onChange: takeSignal, onPoint: point, attempt },
);
const samples = new SampleBar(page, (name) => attempt(() => (name === "memory-size" ? run() : resample(name))));
const player = new Player(page, { onMove: moveInTime, onNeed: (count) => attempt(() => advance(count)) });
const story = new Story(page.story, (step) => player.goTo(step));
const stage = new Stage(page.stage, page.life, { point, seek: (step) => player.goTo(step) });
new ShareMenu(page.share, shownNow);

let model;
let task;
let editor;
let isByHand = false; // what is sent was drawn, written or chosen here, and is not the sample as it is
let shown = []; // the groups of plots
let session; // that of the run
let follower; // of a session of an API client
let isLive = false; // whether the cursor stays at its last step
let current; // the run that is shown
let marks = new Map(); // the rows of the outputs that are wrong, by their steps
let advanced = Promise.resolve(); // when all steps that were asked for are done
let latest = 0; // what was asked for last; whatever comes in for an earlier turn is dropped

async function start() {
  const names = await modelNames();
  page.model.replaceChildren(...names.map((name) => new Option(name)));
  await visit(address.read());
}

/** Show what an address names; where its session is refused, there is a model to go on with. */
async function visit(place) {
  const choosePlace = () => choose(place.model ?? page.model.options[0].value, place);
  if (!place.session) return choosePlace();
  try {
    await follow(place.session, place);
  } catch (error) {
    if (!model) await choosePlace();
    throw error;
  }
}

/** Show a model: with what an address says of it, or else with the sample of before where the task is the same. */
async function choose(name, place) {
  const turn = ++latest;
  if (await showModel(name, place, turn)) await resample(undefined, place);
}

/** Show the card and the controls of a model. Returns whether they are still wanted. */
async function showModel(name, place, turn) {
  player.pause();
  page.model.value = name;
  page.work.inert = true; // what is there belongs to another model
  const chosen = await describeModel(name);
  if (turn !== latest) return false;
  const isSameTask = JSON.stringify(chosen.task) === JSON.stringify(model?.task);
  isByHand &&= isSameTask;
  if (place) samples.query = queryOf(place);
  else if (!isSameTask) samples.query = {};
  model = chosen;
  task = taskOf(model);
  editor = task.words ? tokenEditor : task.parts ? signalEditor : bitEditor;
  editor.setTask(task, model.name);
  page.card.replaceChildren(...modelCard(model));
  page.hint.textContent = task.hint;
  page.memory.hidden = !model.memory_size;
  page["memory-size"].value = place?.slots ?? "";
  page["memory-size"].placeholder = model.memory_size;
  if (place?.view) setViews(place.view);
  showControls();
  return true;
}

/** Draw a sample and run it; name: of the size that was changed, or "seed"; place: as `choose` has it. */
async function resample(name, place) {
  if (isOfHand(name)) return takeSetting(name);
  const turn = ++latest;
  const sample = await samples.draw(model, name);
  if (turn !== latest) return;
  take(sample, name);
  if (place?.drawn) restore(place.drawn);
  page.work.inert = false;
  await run(place);
}

/** Return whether a size is one of what was made by hand: then that stays, and no sample is drawn. */
function isOfHand(name) {
  return task.parts ? name === "length" : isByHand && Boolean(task.settings?.includes(name));
}

function takeSetting(name) {
  if (name === "length") editor.resize(samples.settings.values().length);
  markStale();
}

/** Show a sample, which is sent from now on, unless a model was chosen for what was made by hand. */
function take(sample, changed) {
  isByHand &&= !changed;
  samples.show(sample, isByHand);
  if (task.parts) takeSignals(sample, changed);
  else if (!isByHand && !page.sequence.hidden) editor.load(patternOf(sample, task));
}

/** Take the recording of a sample, or random inputs if they are asked for; of others, a sine is easier to follow. */
function takeSignals({ drawn_from: origin, inputs }, changed) {
  const isWhole = model.graph?.inputs.some(({ whole }) => whole);
  if (!changed && editor.length > 0) return takeSignal();
  if (origin === "recording") return editor.take(inputs, RECORDING);
  if (changed || isWhole) return editor.take(inputs, "Random inputs within the model's card");
  editor.randomize();
}

/** Show how long the signal is that is sent. */
function takeSignal() {
  const length = { name: "length", label: "Length", value: editor.length, least: 1, greatest: task.longest };
  samples.settings.show([length]);
  samples.showOrigin("");
  markStale();
}

/** Show the controls of the task, and no others. */
function showControls() {
  page.work.classList.toggle("signals", Boolean(task.parts));
  page.sources.hidden = page.notice.hidden = !task.parts;
  page.clear.hidden = Boolean(task.parts);
  page.edit.textContent = task.words ? "Write" : "Draw";
  page.seeds.hidden = Boolean(task.parts && model.sample);
  page.sequence.hidden = !task.parts;
  page.edit.ariaExpanded = `${!page.sequence.hidden}`;
}

/** Note that something was drawn or written. */
function takeChange() {
  isByHand = true;
  samples.showOrigin(BY_HAND);
  markStale();
}

/** Draw or write what the address has; where it cannot be read, say so, and go on without. */
function restore(text) {
  try {
    editor.load(readPattern(task, text));
    takeChange();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showProblem(error);
  }
}

/** Return what names a sample of an address. */
function queryOf({ seed, sizes }) {
  return seed === undefined ? sizes : { seed, ...sizes };
}

/** Return what the address holds of the sequence: seed and sizes of the sample, and what was made of it by hand. */
function sampleOf() {
  const { seed, ...sizes } = samples.query;
  const isMade = task.parts ? !editor.isRecording : isByHand;
  return { seed, sizes, drawn: isMade ? textOf(task, editor.pattern) : undefined };
}

/** Return the memory slots that were asked for, if any were. */
function memorySize() {
  const asked = page["memory-size"].valueAsNumber;
  return Number.isNaN(asked) ? undefined : asked;
}

/** Run all of the sequence in a fresh session, and show it at a step, or else where there is most to see. */
async function run({ step } = {}) {
  const turn = ++latest;
  await begin(turn);
  if (turn !== latest) return;
  await advance(current.length);
  if (turn !== latest) return;
  player.show(Math.min(step ?? firstShown(current.sequence), current.length - 1));
}

/** Return the step to begin with: the first answer, all of a way, or the end of what is foretold. */
function firstShown({ asked, targets, routes, phases, optimum }) {
  if (optimum) return targets.length - 1;
  if (routes) return phases.find(({ name }) => name === "answer").to - 1;
  return Math.max(0, asked?.[0] ?? targets.findIndex(Boolean));
}

function sequenceToSend() {
  if (!isByHand && !task.parts) return sequenceOf(samples.sample, task);
  return task.encode(structuredClone(editor.pattern), samples.settings.values());
}

/** Open a session for what is drawn or written, and show it with no step taken. */
async function begin(turn) {
  leave();
  const sequence = sequenceToSend();
  const done = showBusy();
  page.results.classList.remove("stale");
  try {
    const opened = await LiveSession.open(model, { memorySize: memorySize() });
    if (turn !== latest) return opened.end();
    session = opened;
    address.visit({ model: model.name, slots: memorySize(), ...sampleOf() });
    const first = await session.first(model.graph ? [] : shownLeaves(model));
    if (turn === latest) show(new Run(model, task, sequence, { memorySize: memorySize(), first, place: placeOf() }));
  } catch (error) {
    fail(turn, error);
  } finally {
    done();
  }
}

/** Return what is known of the sample of a run, for those who share it; left: what a link to it leaves out, as a text. */
function placeOf() {
  const { drawn } = sampleOf();
  const isMade = task.parts ? !editor.isRecording : isByHand;
  const left = "The link leaves out what was drawn, which is too long for it: share the recording.";
  return {
    seed: isMade || task.parts ? undefined : samples.sample.seed,
    sizes: samples.settings.values(),
    isMade,
    left: isMade && drawn === undefined ? left : undefined,
  };
}

/** Leave what is shown: a session of the page's is ended, one of another only left. */
function leave() {
  player.pause();
  session?.end();
  follower?.stop();
  session = follower = undefined;
  isLive = false;
  showSource();
}

/** Follow a session of an API client; place: what the address says of the cursor. */
async function follow(id, place = {}) {
  const before = latest; // what is shown stays until the session is there
  const following = new Follower(id, {
    onRun: (run) => (following === follower || latest === before ? showFollowed(following, run, place) : following.stop()),
    onSteps: (run, isLonger) => following === follower && growFollowed(run, isLonger),
    onNews: (text, isOver) => following === follower && showNews(text, isOver),
  });
  await following.begin();
}

/** Show a run of a session that is followed: at its last step if it is live, or else where the cursor is. */
async function showFollowed(following, run, place) {
  const turn = ++latest;
  const isNew = follower !== following;
  const at = isNew ? (place.step ?? 0) : player.step + current.from;
  if (model?.name !== run.model.name && !(await showModel(run.model.name, undefined, turn))) return following.stop();
  if (isNew) {
    leave();
    [follower, isLive] = [following, place.step === undefined];
    page.session.value = following.id;
    address.visit({ session: following.id });
    await prepareSample(turn);
  }
  show(run);
  await growFollowed(run, false);
  if (!isLive && run.done > 0) player.show(Math.min(Math.max(at - run.from, 0), run.done - 1));
}

async function growFollowed(run, isLonger) {
  if (isLonger && !page.stage.hidden) stage.load(run, (step) => marks.get(step) ?? []);
  story.load(run);
  if (run.done > 0) await grow();
  if (!page.stage.hidden) stage.fit();
  player.extend(run.done);
  if (run.done > 0) player.show(isLive ? run.done - 1 : player.step);
  showNews("");
}

/** Say how a session is that is followed. */
function showNews(text, isOver = false) {
  if (isOver) isLive = false;
  const forced = current.force ? `, ${Object.keys(current.force).join(", ")} forced` : "";
  const taken = `${current.from + current.done} steps${forced}${isLive ? ", live" : ""}`;
  showSource(`Session ${follower.id} of ${model.name}, ${taken}. ${text}`, { live: !isOver });
}

/** Draw a sample of the model, for whoever runs one after what is shown. */
async function prepareSample(turn) {
  const sample = await samples.draw(model);
  if (turn !== latest) return;
  take(sample);
  page.work.inert = false;
}

/** Show a recording from a file, without a session. */
async function openRecording(file) {
  const before = latest; // what is shown stays until the file is read
  const names = [model?.name, ...Array.from(page.model.options, ({ value }) => value)].filter(Boolean);
  const run = await readRecording(file, [...new Set(names)]);
  if (latest !== before) return;
  const turn = ++latest;
  if (!(await showModel(run.model.name, run.place, turn))) return;
  leave();
  address.visit({ model: model.name, ...run.place });
  await prepareSample(turn);
  if (turn !== latest) return;
  run.place.left = "The link does not hold the recording: share its file.";
  show(run);
  await grow();
  player.show(0);
  const steps = `steps ${run.from + 1} to ${run.from + run.done}, from ${file.name}`;
  const broken = run.broken ? ` It breaks off: ${run.broken}.` : "";
  showSource(`A recording of ${model.name}, ${steps}. It cannot be stepped on.${broken}`);
}

/** Say where the run comes from, where it is not one of the page's own; live: whether new steps may come. */
function showSource(text = "", { live = false } = {}) {
  const isOwn = text === "";
  page.source.hidden = isOwn;
  if (page["source-text"].textContent !== text) page["source-text"].textContent = text;
  page.live.hidden = !live;
  page.live.ariaPressed = `${isLive}`;
  page.restart.disabled = page.step.disabled = !isOwn;
}

/** Keep the cursor at the last step of a session that is followed, or let it stand. */
function setLive(isWanted) {
  isLive = isWanted;
  if (isLive) player.goTo(player.steps - 1);
  else address.amend({ step: current.from + player.step });
  showNews("");
}

/** Return what there is to share. */
function shownNow() {
  const root = page.stage.hidden ? page.plots : page.stage;
  return { run: current, root, step: player.step, verdict: page.verdict.textContent };
}

/** Have steps done, up to `count` of them, after those that were asked for before. */
function advance(count) {
  const turn = latest;
  advanced = advanced.catch(() => {}).then(() => turn === latest && session && stepTo(count, turn));
  return advanced;
}

/** Have steps done, up to `count` of them, and show them. */
async function stepTo(count, turn) {
  const run = current;
  if (count <= run.done && run.length > 0) return; // the server says what is wrong with no steps
  const done = showBusy();
  try {
    const inputs = run.sequence.inputs.slice(run.done, count);
    await session.step(inputs, shownTraces(model), (answer) => run.take(answer));
    if (turn === latest) await grow();
  } catch (error) {
    fail(turn, error);
  } finally {
    done();
  }
}

/** Show that the server is waited for, in words too where it takes long. Returns what ends that. */
function showBusy() {
  const timer = setTimeout(() => (page.waiting.textContent ||= SLOW), SLOW_MS);
  page.results.ariaBusy = "true";
  return () => {
    clearTimeout(timer);
    if (page.waiting.textContent === SLOW) page.waiting.textContent = "";
    page.results.ariaBusy = "false";
  };
}

/** Leave no session, and no results, after an error. */
function fail(turn, error) {
  if (turn !== latest) return;
  session?.end();
  session = undefined;
  page.results.hidden = true;
  throw error;
}

/** Show a run, of which no step is done yet. */
function show(run) {
  current = run;
  marks = new Map();
  page.results.hidden = false;
  page.results.classList.remove("stale");
  page.stage.hidden = page.life.hidden = page.explain.hidden = Boolean(model.graph);
  page.plots.replaceChildren();
  if (!page.stage.hidden) stage.load(run, (step) => marks.get(step) ?? []);
  story.load(run);
  player.load({ steps: run.length, seconds: task.seconds, samplingRate: task.samplingRate });
  player.done = 0;
  judge();
}

/** Show the steps that were done since. */
async function grow() {
  const turn = latest;
  judge();
  player.done = current.done;
  story.grow();
  if (!page.stage.hidden) stage.grow();
  if (!page.stage.hidden && (current.memory || !model.state.memory)) return;
  const state = (await (session ?? follower)?.state(shownLeaves(model))) ?? {};
  if (turn === latest) (page.stage.hidden ? showPlots : showMemory)(state);
}

/** Show the memory after the last step, where it is not known what each step writes. */
function showMemory({ memory }) {
  page.plots.replaceChildren(...memoryPlots(memory).map((plot) => heatmap(plot, point)));
}

/** Show the verdict, on all that is done. */
function judge() {
  const { marks: wrong, ...verdict } = follower ? unjudged(current) : verdictOf(current);
  marks = new Map();
  for (const { row, column } of wrong) marks.set(column, [...(marks.get(column) ?? []), row]);
  Object.assign(page.verdict, verdict);
}

function unjudged({ sequence }) {
  return { className: "unknown", textContent: sequence.unasked, marks: [] };
}

/** Show all of a run of a graph: curves and heat maps. */
function showPlots(state) {
  const { outputs, trace } = current;
  shown = plotGroups(model, task, current.sequence, { outputs, trace, state });
  page.plots.replaceChildren(...shown.map(groupSection), ...notes());
  const waves = curves().filter(({ style }) => style === "wave");
  const { at } = player;
  player.load({ steps: current.length, seconds: task.seconds, samplingRate: task.samplingRate, waves });
  Object.assign(player, { at, done: current.done });
}

/** Return the curves over time that are shown. */
function curves() {
  return shown.flatMap(({ timed, plots }) => (timed ? plots.filter(({ values }) => values) : []));
}

function groupSection({ title, timed, plots }) {
  const figures = plots.map((plot) => (plot.values ? curve : heatmap)(plot, timed ? pointInTime : point));
  return element("section", { className: timed ? "timed" : "" }, element("h2", {}, title), ...figures);
}

/** Return lines on what cannot be shown of the state of a graph. */
function notes() {
  const text = hiddenLeaves(model);
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

/** Show a place in time, in steps: every view follows it. */
function moveInTime(at) {
  const { step } = player;
  if (isLive && step < player.steps - 1) setLive(false);
  address.amend({ step: isLive ? undefined : current.from + step });
  page.place.textContent = columnText({ columnName: "step", seconds: task.seconds }, current.from + step);
  story.moveTo(step);
  if (!page.stage.hidden) return stage.moveTo(step);
  const read = curves().filter(({ isOutput, style }) => isOutput && style === "curves").slice(0, MOST_READ);
  const values = read.map(({ title, values }) => `${title} ${values[step]?.toFixed(3)}`);
  pointInTime([page.place.textContent, ...values].join(", "), at - 0.5);
}

function explain(isShown) {
  page.explain.ariaExpanded = `${isShown}`;
  stage.explain(isShown);
}

function showEditor(isShown) {
  page.sequence.hidden = !isShown;
  page.edit.ariaExpanded = `${isShown}`;
  if (isShown && !isByHand && !task.parts) editor.load(patternOf(samples.sample, task));
}

const KEYS = {
  ArrowLeft: () => player.goTo(player.step - 1),
  ArrowRight: () => player.goTo(player.step + 1),
  Home: () => player.goTo(0),
  End: () => player.goTo(player.steps - 1),
  " ": () => (isLive ? setLive(false) : player.toggle()),
};

/** Move in time by the keys that no field of a form takes. */
function onKey(event) {
  const isTaken = event.target.closest("input, select, textarea, button, summary, [data-keys]");
  if (isTaken || event.ctrlKey || event.metaKey || event.altKey || !current || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
}

function markStale() {
  if (session) page.results.classList.add("stale");
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
page["memory-size"].addEventListener("input", markStale);
page.clear.addEventListener("click", () => {
  editor.clear();
  takeChange();
});
page.speed.replaceChildren(...speedOptions());
page.speed.value = "1";
page.run.addEventListener("click", () => attempt(() => run()));
page.restart.addEventListener("click", () => attempt(() => begin(++latest)));
page.step.addEventListener("click", () => player.goTo(player.at === 0 && current.done === 0 ? 0 : player.step + 1));
page.explain.addEventListener("click", () => explain(page.explain.ariaExpanded !== "true"));
page.edit.addEventListener("click", () => showEditor(page.sequence.hidden));
document.addEventListener("keydown", onKey);
addEventListener("pagehide", leave);
page["attach-form"].addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => follow(page.session.value.trim()));
});
page.live.addEventListener("click", () => setLive(!isLive));
page.leave.addEventListener("click", () => attempt(() => run()));
watchFiles(page, (file) => attempt(() => openRecording(file)));
watchWaiting((text) => (page.waiting.textContent = text));
page["forget-key"].addEventListener("click", () => attempt(forgetKey));
watchViews(() => address.amend({ view: openViews() }));
address.onTravel((place) => attempt(() => visit(place)));
attempt(start);
