// Runs as a table of comma-separated values (RFC 4180): a row for each step.

import { short } from "./recording.js";

/**
 * Return the table of a run, or of a run and its branch, one after the other, with a column that says which: time, counted from
 * 0 as on the axis, phase, inputs, targets, outputs, and all values of the named traces.
 *
 * runs: [{letter, run}], of one model; the letter of a run alone is not said. Of a memory with fewer locations than another one has,
 * the values of those that it lacks are empty.
 */
export function tableOf(runs, traces) {
  const [{ run: first }] = runs;
  const groups = [...ownGroups(first), ...traces.map((name) => traceGroup(name, runs))];
  const isPair = runs.length > 1;
  const rows = runs.flatMap(({ letter, run }) => rowsOf(run, groups).map((row) => (isPair ? [letter, ...row] : row)));
  return [[...(isPair ? ["run"] : []), "time", "phase", ...groups.flatMap(({ names }) => names)], ...rows].map(lineOf).join("");
}

function rowsOf(run, groups) {
  const { sequence, outputs, from } = run;
  const phase = (step) => sequence.phases?.find((one) => one.from <= step && step < one.to)?.name ?? "";
  return outputs.map((_, step) => [from + step, phase(step), ...groups.flatMap(({ values }) => values(run, step))]);
}

/** Return the columns of what goes in and comes out, [{names, values(run, step)}]; those of a step without any are empty. */
function ownGroups({ model, task }) {
  const outputs = task.classes ?? task.outputs;
  return [
    group("input", model.input_size, (run, step) => run.sequence.inputs[step], task.channels),
    group("target", model.output_size, (run, step) => run.sequence.targets[step], outputs),
    group("output", model.output_size, (run, step) => run.outputs[step], outputs),
  ];
}

function group(name, count, vector, labels) {
  const empty = Array(count).fill("");
  const values = (run, step) => (vector(run, step) ? Array.from(vector(run, step), short) : empty);
  return { names: namesOf(name, count, labels), values };
}

/** Return the columns of a trace: for each head, as many as the run with most of them has. */
function traceGroup(name, runs) {
  const heads = runs[0].run.model.trace[name].slice(0, -1).reduce((product, size) => product * size, 1);
  const sizeOf = ({ trace }) => trace[name][0].length / heads;
  const most = Math.max(...runs.map(({ run }) => sizeOf(run)));
  const values = (run, step) => {
    const [size, all] = [sizeOf(run), Array.from(run.trace[name][step], short)];
    return Array.from({ length: heads * most }, (_, at) => (at % most < size ? all[Math.floor(at / most) * size + (at % most)] : ""));
  };
  return { names: namesOf(name, heads * most), values };
}

function namesOf(name, count, labels) {
  return Array.from({ length: count }, (_, index) => `${name} ${labels?.[index] ?? index}`);
}

function lineOf(cells) {
  return `${cells.map(cellOf).join(",")}\r\n`;
}

function cellOf(value) {
  const text = `${value}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
