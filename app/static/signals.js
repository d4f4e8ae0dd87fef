// A task of signals: the model gets a recording, a file, a made signal or a drawing. No answer is known to be right.
//
// Beside what tasks.js lists: parts, of a step's vector (see parts.js); width, of that vector; seconds, of a step, and
// samplingRate, in Hz, where they are known; hasSample, whether the model has a recording.

import { duration, inputParts, number, secondsPerStep, stepText } from "./parts.js";

const MOST_STEPS = 10_000;
const MOST_NUMBERS = 2 ** 21; // of a sequence, which the page keeps several times
const INITIAL_STEPS = 60;

export function signals(model) {
  const parts = inputParts(model);
  const seconds = secondsPerStep(model);
  return {
    hint: hintOf(model, parts),
    parts,
    seconds,
    samplingRate: model.graph?.step?.sampling_rate,
    hasSample: model.sample,
    width: model.input_size,
    initialLength: INITIAL_STEPS,
    longest: Math.max(1, Math.min(MOST_STEPS, Math.floor(MOST_NUMBERS / model.input_size))),
    encode: (vectors) => ({
      inputs: vectors,
      targets: vectors.map(() => null),
      unasked: lengthText(vectors.length, seconds),
    }),
  };
}

/** Return how many steps, and how long they are where that is known, as text. */
export function lengthText(steps, seconds) {
  const counted = steps === 1 ? "1 step" : `${number(steps)} steps`;
  return seconds ? `${counted}, ${duration(seconds * steps)}` : counted;
}

function hintOf(model, parts) {
  const sent = parts.map(({ title, size }) => `${title}, ${size === 1 ? "a number" : `${number(size)} numbers`}`);
  const step = stepText(model);
  const has = (style) => parts.some((part) => part.style === style);
  return (
    `Choose a signal${has("wave") || has("curves") ? ", draw on a curve" : ""} or open a file: ` +
    `${has("wave") ? "sound as WAV, or " : ""}JSON, CSV or NumPy of [steps][${model.input_size}] numbers. ` +
    `A step takes ${sent.join("; ")}${step ? ` (${step})` : ""}.`
  );
}

// Signals to make: values from -1 to 1 by time, which are put into the middle of the range of a part.
//
// at: the place in time, from 0 to 1; turn: the part of a full turn of a sine by then; row: of the part, from 0 to 1.

export const SHAPES = {
  Sine: ({ turn, row }) => 0.6 * Math.sin(2 * Math.PI * (turn - row)),
  Step: ({ at }) => (at < 0.5 ? 0 : 0.6),
  Noise: () => 0.6 * (2 * Math.random() - 1),
  Zeros: null,
};

const TONE = 220; // Hz, of a wave
const TURNS = 3; // of the sine of anything else

/** Return `steps` vectors of the shape of this name for `task`. */
export function generated(task, name, steps) {
  const parts = task.parts.map((part) => generator(task, part, SHAPES[name], steps));
  return Array.from({ length: steps }, (_, step) => parts.flatMap((values) => values(step)));
}

/** Return a function that gives the values of a part at a step. */
function generator({ samplingRate }, { size, range, style }, shape, steps) {
  const isWave = style === "wave";
  const [low, high] = range ?? [-1, 1];
  const value = (step, index) => {
    const at = (isWave ? step + index / size : step) / steps;
    const turn = isWave && samplingRate ? (TONE * (step * size + index)) / samplingRate : TURNS * at;
    const raw = shape({ at, turn, row: isWave ? 0 : index / size });
    return (low + high) / 2 + (raw * (high - low)) / 2;
  };
  const zero = Math.min(Math.max(0, low), high);
  return (step) => Array.from({ length: size }, (_, index) => (shape ? value(step, index) : zero));
}

/** Return what a sequence must keep to be one of `task`, as text. */
export function keyOf({ parts, samplingRate }) {
  return JSON.stringify([parts, samplingRate]);
}

