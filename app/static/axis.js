// The ticks of an axis of time: numbers, or the text of each step, as many as there is room for.

import { steps, tick } from "./figure.js";

const NUMBER = 44; // CSS pixels that a number takes
const LETTER = 5.6; // CSS pixels of a letter, about
const NAME = 6; // CSS pixels that a label may reach over the beginning of the axis
const LINE = 8.5; // CSS pixels from one slanted word to the next, at least
const LONGEST = 12; // letters of a text that fits an axis

/** Return the ticks of `length` steps after the step `from` over `width` CSS pixels; areWords: labels read as a text, of which none is left out. */
export function timeTicks({ labels, length, areWords, from = 0 }, width) {
  const cell = width / length;
  const longest = Math.max(0, ...(labels ?? []).map((label) => label.length));
  if (!labels || longest > LONGEST) return ticksAt(steps(length, Math.min(12, width / NUMBER)), (step) => from + step, length);
  if (longest * LETTER <= cell) return ticksAt([...labels.keys()], (step) => labels[step], length);
  if (areWords && cell >= LINE) return ticksAt([...labels.keys()], (step) => labels[step], length, "slanted");
  if (areWords) return ticksAt(steps(length, Math.min(12, width / NUMBER)), (step) => from + step, length);
  return ticksAt(apart(labels, cell), (step) => labels[step], length);
}

function ticksAt(places, text, length, className = "") {
  return places.map((step) => Object.assign(tick(text(step), "left", step + 0.5, length), { className }));
}

/** Return steps whose labels do not touch, nor the name of the axis. */
function apart(labels, cell) {
  let free = -NAME;
  return [...labels.keys()].filter((step) => {
    const half = (labels[step].length * LETTER) / 2 + 3;
    const middle = (step + 0.5) * cell;
    if (middle - half < free) return false;
    free = middle + half;
    return true;
  });
}
