// A run as a table of comma-separated values (RFC 4180): a row for each step.

import { short } from "./recording.js";

/** Return the table: time, counted from 0 as on the axis, phase, inputs, targets, outputs, and all values of the named traces. */
export function tableOf(run, traces) {
  const { model, task, sequence, outputs, from } = run;
  const { inputs, targets } = sequence;
  const groups = [
    columns("input", model.input_size, (step) => inputs[step], task.channels),
    columns("target", model.output_size, (step) => targets[step], task.classes ?? task.outputs),
    columns("output", model.output_size, (step) => outputs[step], task.classes ?? task.outputs),
    ...traces.map((name) => columns(name, run.trace[name][0].length, (step) => run.trace[name][step])),
  ];
  const phase = (step) => sequence.phases?.find((one) => one.from <= step && step < one.to)?.name ?? "";
  const rows = outputs.map((_, step) => [from + step, phase(step), ...groups.flatMap(({ values }) => values(step))]);
  return [["time", "phase", ...groups.flatMap(({ names }) => names)], ...rows].map(lineOf).join("");
}

/** Return columns, {names, values(step)}; the values of a step without any are empty. */
function columns(name, count, vector, labels) {
  const names = Array.from({ length: count }, (_, index) => `${name} ${labels?.[index] ?? index}`);
  const empty = Array(count).fill("");
  return { names, values: (step) => (vector(step) ? Array.from(vector(step), short) : empty) };
}

function lineOf(cells) {
  return `${cells.map(cellOf).join(",")}\r\n`;
}

function cellOf(value) {
  const text = `${value}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
