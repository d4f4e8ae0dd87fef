// What can be changed at the cursor: the vector that is heard, gates, and the number of memory locations; as controls, and in words.

import { element } from "./dom.js";
import { GATES, headsOf } from "./plots.js";

const MANY = 40; // channels

const OPEN = [
  { text: "shut", value: 0 },
  { text: "open", value: 1 },
];
const BY = (low, high) => [{ text: `by ${low}`, value: 0 }, { text: `by ${high}`, value: 1 }];
const FORCED = {
  write_gate: { title: "Write gate", choices: OPEN },
  allocation_gate: { title: "Allocation gate", choices: BY("content", "allocation") },
  free_gates: { title: "Free gate", choices: OPEN },
  read_modes: { title: "Read mode" }, // one of its rows
  interpolation_gate: { title: "Interpolation gate", choices: BY("the weighting before", "content") },
  shift_weights: { title: "Shift" },
};

/** Return the gates of a model that can be held, one for each head: {name, head, heads, title, choices: [{text, value}]}. */
export function gatesOf(model) {
  return Object.entries(FORCED).flatMap(([name, { title, choices }]) => {
    if (!(name in model.trace)) return [];
    const { heads, rows, labels } = GATES[name];
    const all = headsOf(heads ?? rows, model);
    const shared = { name, heads: all.length, choices: choices ?? onlyOne(labels(model.trace[name][1])) };
    const isOne = all.length === 1;
    return all.map(({ kind, number }, head) => ({ ...shared, head, title: isOne ? title : `${title} of ${kind} head ${number}` }));
  });
}

/** Return choices that give all the weight to one of several. */
function onlyOne(labels) {
  return labels.map((text, row) => ({ text: `only ${text}`, value: labels.map((_, other) => Number(other === row)) }));
}

/** Return the option `force` of the API for the choices that were made, [{gate, choice}], or undefined for none. */
export function forceOf(chosen) {
  if (chosen.length === 0) return undefined;
  const force = {};
  for (const { gate, choice } of chosen) (force[gate.name] ??= Array(gate.heads).fill(null))[gate.head] = choice.value;
  return force;
}

/** Return gates that are held where those of `more` are held too, which come before those that are held at `force`. */
export function heldTogether(force, more) {
  if (!force || !more) return more ?? force;
  const both = Object.entries(more).map(([name, values]) => [name, values.map((value, head) => value ?? force[name]?.[head] ?? null)]);
  return { ...force, ...Object.fromEntries(both) };
}

/** Return a change of a run in words. */
export function changeText(run, { step, vector, force = {}, slots }) {
  const at = run.from + step;
  const held = gatesOf(run.model).flatMap((gate) => heldText(gate, force[gate.name]?.[gate.head]));
  const parts = [
    slots === undefined ? "" : `${slots} locations in place of ${run.slots}, from the beginning`,
    vector ? `at step ${at}, ${heardText(run.sequence.inputs[step], vector, run.task)}` : "",
    held.length > 0 ? `${slots === undefined ? `from step ${at} on` : "from the beginning"}, ${held.join(", ")}` : "",
  ];
  return parts.filter(Boolean).join("; ");
}

/** Return how a gate is held, in a list; nothing where it is free. */
function heldText({ title, choices }, value) {
  if (value === undefined || value === null) return [];
  const choice = choices.find((one) => `${one.value}` === `${value}`);
  return [`${lowered(title)} ${choice?.text ?? `at ${value}`}`];
}

function heardText(heard, vector, { words, channels }) {
  if (words) return `“${words[vector[0]]}” in place of “${words[heard[0]]}”`;
  const changed = vector.flatMap((value, channel) => (value === heard[channel] ? [] : [channels?.[channel] ?? channel]));
  return `channel${changed.length > 1 ? "s" : ""} ${changed.join(", ")} changed`;
}

function lowered(text) {
  return text[0].toLowerCase() + text.slice(1);
}

/** Controls of the vector that is heard at the cursor: a word to choose, or a bit to press or a number for each channel. */
export class HeardVector {
  constructor(run) {
    const { model, task, sequence } = run;
    this.sequence = sequence;
    const isToken = Boolean(model.vocabulary_size);
    const names = task.channels ?? [];
    const fields = Array.from({ length: model.input_size }, (_, channel) => {
      if (isToken) return wordField(task.words ?? Array.from({ length: model.vocabulary_size }, (_, token) => `${token}`));
      const areBits = sequence.inputs.every((vector) => vector[channel] === 0 || vector[channel] === 1);
      return (areBits ? bitField : numberField)(`channel ${names[channel] ?? channel}`);
    });
    this.fields = fields;
    const className = fields.length > MANY ? "heard many" : "heard";
    this.element = element("div", { className, role: "group", ariaLabel: "Vector heard" }, ...fields.map((field) => field.element));
    if (!isToken) this.element.addEventListener("keydown", (event) => this.move(event));
    this.rove(0);
  }

  /** Show what is heard at a step, unless that is what is being changed. */
  show(step) {
    if (step === this.step) return;
    this.step = step;
    this.heard.forEach((value, channel) => this.fields[channel].set(value));
  }

  get heard() {
    return this.sequence.inputs[this.step];
  }

  /** What is to be heard, or undefined where nothing was changed. */
  get vector() {
    if (!this.heard) return undefined; // no step is taken yet
    const vector = this.fields.map((field) => field.get());
    return vector.some((value, channel) => value !== this.heard[channel]) ? vector : undefined;
  }

  /** Go from field to field by the arrow keys: all fields are one stop of the Tab key. */
  move(event) {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = this.fields.findIndex((field) => field.element === event.target);
    if (!way || at < 0 || event.target.type === "number") return;
    event.preventDefault();
    this.rove((at + way + this.fields.length) % this.fields.length).focus();
  }

  rove(at) {
    const bits = this.fields.filter(({ element }) => element.type === "button");
    for (const { element } of bits) element.tabIndex = this.fields[at].element === element ? 0 : -1;
    return this.fields[at].element;
  }
}

/** A button that is pressed for 1. */
function bitField(name) {
  const button = element("button", { type: "button", className: "bit", ariaLabel: name, title: name, ariaPressed: "false" });
  let sent; // the number itself, which may be no bit at a later step
  const isPressed = () => button.ariaPressed === "true";
  const get = () => (isPressed() === (sent === 1) ? sent : Number(isPressed()));
  const set = (value) => (button.ariaPressed = `${(sent = value) === 1}`);
  button.addEventListener("click", () => (button.ariaPressed = `${!isPressed()}`));
  return { element: button, get, set };
}

function numberField(name) {
  const input = element("input", { type: "number", step: "any", ariaLabel: name, title: name });
  let sent; // the number itself, of which the field shows some digits
  const get = () => (input.value === shortOf(sent) ? sent : input.valueAsNumber);
  return { element: input, get, set: (value) => (input.value = shortOf((sent = value))) };
}

function shortOf(value) {
  return `${Number(value.toFixed(3))}`;
}

function wordField(words) {
  const select = element("select", { ariaLabel: "Word heard" }, ...words.map((word, token) => new Option(word, token)));
  return { element: select, get: () => Number(select.value), set: (value) => (select.value = value) };
}
