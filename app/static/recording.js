// Recordings: the steps of a session as lines of JSON, as GET /sessions/{id}/recording gives them:
//
//     {"step": 3, "seq": 0, "inputs": [I], "outputs": [O], "trace": {"usage": [N]}}
//
// The first line of one that this page has written has a member more, `run`: {model, memory_size, sample, state,
// sequence, branch}: the seed and sizes, the state before it, what is known of the sequence beside its inputs (see tasks.js),
// and, of a branch, what is otherwise than in the run that it comes from. A branch has `force` from the step on that it begins at.

import { Problem, describeModel } from "./api.js";
import { number } from "./parts.js";
import { Run } from "./run.js";
import { taskOf } from "./tasks.js";

const MOST_BYTES = 256 * 2 ** 20;
const FORM = 'a line for each step, {"step": 1, "inputs": [...], "outputs": [...], "trace": {...}}, as Share > Recording writes them';

/** Return a run as the text of a recording. */
export function recordingOf(run) {
  const lines = run.outputs.map((_, step) => JSON.stringify({ ...lineOf(run, step), ...(step === 0 && { run: aboutOf(run) }) }));
  return `${lines.join("\n")}\n`;
}

function lineOf({ model, sequence, from, outputs, trace, force, forcedFrom, forcedBefore }, step) {
  const held = step < forcedFrom ? forcedBefore : force;
  const traced = Object.entries(trace).map(([name, steps]) => [name, nested(steps[step], model.trace[name])]);
  return {
    step: from + step + 1,
    seq: null,
    inputs: Array.from(sequence.inputs[step], short),
    outputs: Array.from(outputs[step], short),
    trace: Object.fromEntries(traced),
    ...(held && { force: held }),
  };
}

function aboutOf({ model, slots, place, first, branch, sequence: { inputs, ...known }, done }) {
  const sample = { seed: place.seed, ...place.sizes };
  const sequence = { ...known, targets: known.targets.slice(0, done), labels: known.labels?.slice(0, done) };
  return { model: model.name, memory_size: slots, sample, state: first, sequence, ...(branch && { branch }) };
}

/** Return the run in a file. names: of the models that are served, the likeliest first. Throws Problem. */
export async function readRecording(file, names) {
  if (file.size > MOST_BYTES) refuse(file.name, `a file of at most ${number(MOST_BYTES)} bytes`, number(file.size));
  const lines = [];
  let at = 0;
  for await (const text of linesOf(file.stream())) {
    at++;
    if (text.trim()) lines.push(parsed(text, file.name, at, lines.at(-1)?.step));
  }
  const broken = lines.at(-1)?.error ? lines.pop().error.detail : undefined;
  if (lines.length === 0) refuse(file.name, FORM, broken ?? "no step");
  const model = await modelOf(lines, file.name, names);
  return Object.assign(runOf(model, lines), { broken });
}

/** Return a run of lines of steps. */
function runOf(model, lines) {
  const { memory_size: own, state: first, sample: { seed, ...sizes } = {}, sequence: known, branch } = lines[0].run ?? {};
  const [task, from] = [taskOf(model), lines[0].step - 1];
  const memorySize = own ?? slotsIn(lines[0]) ?? model.memory_size ?? undefined;
  const inputs = lines.map((line) => line.inputs);
  const sequence = {
    targets: inputs.map(() => null),
    labels: task.words && inputs.map((vector) => wordOf(task, vector)),
    unasked: "The recording has no targets to compare with",
    ...known,
    inputs,
  };
  const place = { seed, sizes, slots: memorySize === model.memory_size ? undefined : memorySize };
  const traces = Object.keys(lines[0].trace ?? {});
  const run = new Run(model, task, sequence, { memorySize, first, from, place, traces, ...forcedIn(lines), branch });
  run.take(answersOf(lines));
  return run;
}

/** Return the gates that the last step holds, the first step that does, and those that the steps before it hold. */
function forcedIn(lines) {
  const { force } = lines.at(-1);
  const forcedFrom = lines.findIndex((line) => JSON.stringify(line.force) === JSON.stringify(force));
  return { force, forcedFrom, forcedBefore: lines[0].force };
}

/** Return the word of a token, or nothing before the step is taken. */
export function wordOf({ words }, inputs) {
  return inputs ? (words[inputs[0]] ?? "") : "";
}

/** Return lines of steps as an answer to them: {outputs, trace}. */
export function answersOf(lines) {
  const names = Object.keys(lines[0]?.trace ?? {});
  const stepsOf = (name) => lines.map(({ trace }) => Float32Array.from(flat(trace[name])));
  return { outputs: lines.map(({ outputs }) => outputs), trace: Object.fromEntries(names.map((name) => [name, stepsOf(name)])) };
}

/** Yield the lines of a stream of bytes. */
export async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
  if (rest) yield rest;
}

function parsed(text, file, line, before) {
  const place = `line ${line}`;
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    refuse(file, FORM, `“${text.slice(0, 40)}”`, place);
  }
  if (read?.error) return read;
  const isStep = Number.isInteger(read?.step) && [read.inputs, read.outputs].every(Array.isArray);
  if (!isStep) refuse(file, FORM, `“${text.slice(0, 40)}”`, place);
  if (before !== undefined && read.step !== before + 1) refuse(file, `step ${before + 1}`, `step ${read.step}`, place);
  return read;
}

/** Return the card of the model that a recording names, or else of the first that it can be of. */
async function modelOf(lines, file, names) {
  const named = lines[0].run?.model ?? names.filter((name) => file.startsWith(name)).toSorted((a, b) => b.length - a.length)[0];
  for (const name of named ? [named] : names) {
    const model = await describeModel(name);
    const fault = faultOf(model, lines);
    if (!fault) return model;
    if (named) refuse(file, `steps of ${name}: ${fault.expected}`, fault.got, `step ${fault.step}`);
  }
  const { inputs, outputs } = lines[0];
  return refuse(file, "a recording of a model that is served here", `steps of ${inputs.length} inputs and ${outputs.length} outputs`);
}

/** Return why lines cannot be of a model: {step, expected, got}, or undefined. */
function faultOf(model, lines) {
  const names = Object.keys(lines[0].trace ?? {});
  for (const { step, inputs, outputs, trace = {} } of lines) {
    const fault = (expected, got) => ({ step, expected, got });
    if (inputs.length !== model.input_size) return fault(`${model.input_size} inputs`, `${inputs.length}`);
    if (outputs.length !== model.output_size) return fault(`${model.output_size} outputs`, `${outputs.length}`);
    if (![...inputs, ...outputs].every(Number.isFinite)) return fault("numbers", "something else");
    if (Object.keys(trace).join() !== names.join()) return fault(`the traces ${names.join(", ")}`, Object.keys(trace).join(", "));
    const odd = names.find((name) => !fits(flat(trace[name]), model.trace[name], model.memory_size));
    if (odd) return fault(`the traces ${Object.keys(model.trace).join(", ")}, in their shapes`, odd);
  }
  return undefined;
}

/** Return whether values have the shape of a trace; the last axis of one of slots may be longer or shorter. */
function fits(values, shape, slots) {
  if (!shape || !values.every(Number.isFinite)) return false;
  const heads = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  return values.length === heads * shape.at(-1) || (shape.at(-1) === slots && values.length > 0 && values.length % heads === 0);
}

function slotsIn({ trace }) {
  return trace?.usage?.length ?? trace?.write_weights?.[0]?.length;
}

function flat(values) {
  return [values].flat(Infinity);
}

/** Return values in one piece as nested lists of a shape, whose last axis is as long as it comes out. */
function nested(values, shape) {
  if (shape.length <= 1) return Array.from(values, short);
  const size = values.length / shape[0];
  return Array.from({ length: shape[0] }, (_, row) => nested(values.subarray(row * size, (row + 1) * size), shape.slice(1)));
}

/** Return a number of float32 with no more digits than it takes to read it back. */
export function short(value) {
  if (Number.isInteger(value)) return value;
  const single = Math.fround(value);
  for (let digits = 6; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === single) return rounded;
  }
  return Number(value.toPrecision(9));
}

function refuse(file, expected, got, place) {
  const detail = `${file}${place ? `, ${place}` : ""}: it cannot be shown as a recording`;
  throw new Problem({ title: "No recording", detail, expected, got });
}
