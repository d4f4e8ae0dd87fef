// The card of a model: what it is and how often it was measured to be wrong.

import { element } from "./dom.js";
import { number, stepText, titleOf } from "./parts.js";
import { optionText } from "./tasks.js";

// Options of a task that are shown elsewhere, or say nothing of the task.
const HIDDEN = ["name", "vocabulary", "interchangeable", "cloze", "shares", "directory"];

// The forms of an imported graph.
const FORMS = {
  batched: "batched, all rows at once",
  scan: "rows one by one, in a Scan",
  loop: "rows one by one, in a loop of the back end",
};

// Options whose lists are no ranges.
const LISTS = ["tasks"];

/** Return the elements of the card of `model`. */
export function modelCard(model) {
  const facts = element("dl", {}, ...Object.entries(factsOf(model)).flatMap(fact));
  const rows = model.evaluation.filter((row) => "errors" in row);
  return [...description(model), facts, ...(rows.length > 0 ? [evaluationTable(rows)] : [])];
}

function description({ graph }) {
  return graph?.about?.description ? [element("p", {}, graph.about.description)] : [];
}

function fact([name, value]) {
  return [element("dt", {}, name), element("dd", {}, value)];
}

function factsOf(model) {
  return model.graph ? factsOfGraph(model) : factsOfNetwork(model);
}

/** Return what is known of an imported graph; what its spec does not say is left out. */
function factsOfGraph(model) {
  const { form, inputs, outputs, step = {}, about = {} } = model.graph;
  const facts = {
    Kind: "ONNX graph",
    "A step": stepText(model),
    Inputs: inputs.map(partText).join("; "),
    Outputs: outputs.map(partText).join("; "),
    Units: step.units,
    Preprocessing: step.preprocessing,
    State: Object.entries(model.state).map(leafText).join("; ") || "none",
    Parameters: number(model.parameters),
    Form: FORMS[form] ?? form,
    Source: about.source,
    Licence: about.license,
    "Served by": `${model.backend} on ${model.device}`,
  };
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value));
}

function partText({ name, shape, range }) {
  const size = shape.length > 0 && `${shape}` !== "1" ? ` ${shape.join(" × ")}` : "";
  return `${titleOf(name)}${size}${range ? `, ${range[0]} to ${range[1]}` : ""}`;
}

function leafText([name, shape]) {
  return `${name} ${shape.join(" × ")}`;
}

function factsOfNetwork(model) {
  return {
    Kind: model.kind.toUpperCase(),
    Task: [model.task.name, ...optionTexts(model.task)].join(", "),
    ...(model.vocabulary_size && { Vocabulary: vocabulary(model) }),
    Parameters: model.parameters.toLocaleString("en"),
    Memory: memoryText(model),
    Heads: model.read_heads || model.write_heads ? `${model.read_heads} read, ${model.write_heads} write` : "none",
    ...(model.controller && { Controller: controllerText(model.controller) }),
    "Served by": `${model.backend} on ${model.device}`,
  };
}

/** Return the options of a task as texts. */
function optionTexts(options) {
  return Object.entries(options)
    .filter(([name]) => !HIDDEN.includes(name))
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${valueText(name, value)}`);
}

function valueText(name, value) {
  return LISTS.includes(name) ? [value].flat().join(", ") : optionText(value);
}

function vocabulary({ vocabulary_size: size, task: { vocabulary: words } }) {
  if (!words) return `${size} tokens`;
  return element("details", {}, element("summary", {}, `${size} words`), words.join(" "));
}

function memoryText({ memory_size: slots, word_size: size }) {
  if (!slots) return "none of its own";
  return size ? `${slots} locations × ${size}` : `${slots} locations`;
}

function controllerText({ kind, hidden_size: size }) {
  return size ? `${kind}, ${size} units` : kind;
}

function evaluationTable(rows) {
  const hasOptimum = rows.some(({ optimum }) => typeof optimum === "number");
  const head = ["Measured at", "Locations", `${sentence(rows[0].unit)}, mean`, hasOptimum ? "Optimum" : "Wrong sequences"];
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
