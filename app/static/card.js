// The card of a model: what it is and how often it was measured to be wrong.

import { element } from "./dom.js";

/** Return the elements of the card of `model`. */
export function modelCard(model) {
  const facts = element("dl", {}, ...Object.entries(factsOf(model)).flatMap(fact));
  const rows = model.evaluation.filter((row) => "errors_per_sequence" in row);
  return rows.length > 0 ? [facts, evaluationTable(rows)] : [facts];
}

function fact([name, value]) {
  return [element("dt", {}, name), element("dd", {}, value)];
}

function factsOf(model) {
  return {
    Kind: model.kind.toUpperCase(),
    Task: taskText(model.task),
    ...(model.vocabulary_size && { Vocabulary: `${model.vocabulary_size} tokens` }),
    Parameters: model.parameters.toLocaleString("en"),
    Memory: model.memory_size ? `${model.memory_size} slots × ${model.word_size}` : "none of its own",
    Heads: model.memory_size ? `${model.read_heads} read, ${model.write_heads} write` : "none",
    Controller: controllerText(model.controller),
    "Served by": `${model.backend} on ${model.device}`,
  };
}

function taskText({ name, ...options }) {
  const texts = Object.entries(options).map(([option, value]) => `${option.replaceAll("_", " ")} ${value}`);
  return [name, ...texts].join(", ");
}

function controllerText({ kind, hidden_size: size }) {
  return size ? `${kind}, ${size} units` : kind;
}

function evaluationTable(rows) {
  const head = ["Length", "Slots", "Wrong bits, mean", "Wrong sequences"];
  return element(
    "table",
    {},
    element("caption", {}, "Measured on fresh sequences"),
    element("thead", {}, tableRow("th", head)),
    element("tbody", {}, ...rows.map((row) => tableRow("td", evaluationCells(row)))),
  );
}

function evaluationCells(row) {
  return [
    row.length,
    row.memory_size ?? "–",
    `${row.errors_per_sequence.toFixed(2)} of ${row.bits_per_sequence}`,
    `${row.wrong_sequences} of ${row.sequences}`,
  ];
}

function tableRow(tag, cells) {
  return element("tr", {}, ...cells.map((cell) => element(tag, {}, `${cell}`)));
}
