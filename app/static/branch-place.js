// The change that a branch is made of, as the address of the page holds it, all of it text:
//
//     step    the first one that is otherwise, counted from the first of the session
//     heard   the vector that is heard at it: its numbers, between them "_"
//     force   gates that are held from it on, as JSON, as docs/api.md describes them
//     slots   of its memory, which make the branch begin anew

import { Problem } from "./api.js";
import { short } from "./recording.js";

/** Return what the address has of a change of a run, see branch.js. */
export function placeOf({ from }, { step, vector, force, slots }) {
  const place = { step: from + step, heard: vector?.map(short).join("_"), force: force && JSON.stringify(force), slots };
  return Object.fromEntries(Object.entries(place).map(([name, value]) => [name, value?.toString()]));
}

/** Return the change that an address has of a run. Throws Problem where it is none. */
export function changeOf(run, { step, heard, force, slots }) {
  return {
    step: stepOf(run, step),
    vector: heard === undefined ? undefined : vectorOf(run.model, heard),
    force: force === undefined ? undefined : gatesIn(force),
    slots: slots === undefined ? undefined : slotsOf(slots),
  };
}

function stepOf({ from, length, done, sequence }, text) {
  const end = from + (sequence.isOpen ? done : length) - 1;
  const isStep = /^\d{1,15}$/.test(text) && text >= from && text <= end;
  return isStep ? text - from : refuse("fork", `a step from ${from} to ${end}`, text);
}

function vectorOf({ input_size: size }, text) {
  const numbers = text.split("_").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  const isVector = numbers.length === size && numbers.every(Number.isFinite);
  return isVector ? numbers : refuse("heard", `${size} numbers with "_" between them`, text);
}

function gatesIn(text) {
  try {
    const force = JSON.parse(text);
    if (Object.values(force).every(Array.isArray)) return force;
  } catch {
    // refused below
  }
  return refuse("force", 'gates as JSON, such as {"write_gate": [0]}', text);
}

function slotsOf(text) {
  return /^[1-9]\d{0,14}$/.test(text) ? Number(text) : refuse("fork-slots", "a whole number above 0", text);
}

function refuse(name, expected, got) {
  const detail = `the branch cannot be read from the address (${name}=...): copy the whole of the link again.`;
  throw new Problem({ title: "Not a branch of this run", detail, expected, got: `“${`${got}`.slice(0, 40)}”` });
}
