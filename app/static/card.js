// The card of a model: what it is and how often it was measured to be wrong.

import { element } from "./dom.js";
import { optionText } from "./tasks.js";

// Options of a task that are told elsewhere, or say nothing of the task.
const UNTOLD = ["name", "vocabulary", "directory"];

// Options whose lists are no ranges.
const LISTS = ["tasks"];

/** Return the elements of the card of `model`. */
export function modelCard(model) {
  const facts = element("dl", {}, ...Object.entries(factsOf(model)).flatMap(fact));
  const rows = model.evaluation.filter((row) => "errors" in row);
  return rows.length > 0 ? [facts, evaluationTable(rows)] : [facts];
}

function fact([name, value]) {
  return [element("dt", {}, name), element("dd", {}, value)];
}

function factsOf(model) {
  return {
    Kind: model.kind.toUpperCase(),
    Task: [model.task.name, ...optionTexts(model.task)].join(", "),
    ...(model.vocabulary_size && { Vocabulary: vocabulary(model) }),
    Parameters: model.parameters.toLocaleString("en"),
    Memory: model.memory_size ? `${model.memory_size} slots × ${model.word_size}` : "none of its own",
    Heads: model.memory_size ? `${model.read_heads} read, ${model.write_heads} write` : "none",
    ...(model.controller && { Controller: controllerText(model.controller) }),
    "Served by": `${model.backend} on ${model.device}`,
  };
}

/** Return the options of a task as texts. */
function optionTexts(options) {
  return Object.entries(options)
    .filter(([name]) => !UNTOLD.includes(name))
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${valueText(name, value)}`);
}

function valueText(name, value) {
  return LISTS.includes(name) ? [value].flat().join(", ") : optionText(value);
}

function vocabulary({ vocabulary_size: size, task: { vocabulary: words } }) {
  if (!words) return `${size} tokens`;
  return element("details", {}, element("summary", {}, `${size} words`), words.join(" "));
}

function controllerText({ kind, hidden_size: size }) {
  return size ? `${kind}, ${size} units` : kind;
}

function evaluationTable(rows) {
  const hasOptimum = rows.some(({ optimum }) => typeof optimum === "number");
  const head = ["Measured at", "Slots", `${sentence(rows[0].unit)}, mean`, hasOptimum ? "Optimum" : "Wrong sequences"];
  return element(
    "table",
    {},
    element("caption", {}, "Measured on fresh sequences"),
    element("thead", {}, tableRow("th", head)),
    element("tbody", {}, ...rows.map((row) => tableRow("td", evaluationCells(row, hasOptimum)))),
  );
}

function evaluationCells(row, hasOptimum) {
  return [
    optionTexts(row.options).join(", ") || "as in training",
    row.memory_size ?? "–",
    `${row.errors.toFixed(2)} of ${rounded(row.asked)}`,
    hasOptimum ? (row.optimum?.toFixed(2) ?? "–") : `${row.wrong_sequences} of ${row.sequences}`,
  ];
}

function rounded(value) {
  return value.toLocaleString("en", { maximumFractionDigits: 1 });
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1);
}

function tableRow(tag, cells) {
  return element("tr", {}, ...cells.map((cell) => element(tag, {}, `${cell}`)));
}
