// A task: how large a pattern one can draw, and how a drawn pattern becomes a sequence for the model.
//
// A pattern is a list of vectors, one for each column of the drawing, or of tokens, each in a list. A sequence has `inputs` [T][I] and, for each
// step, in `targets`, the vector that is due or null where nothing is asked for.

const LONGEST = 60;

const TASKS = { copy };

/** Return the task that `model` was trained on, or, if the page does not know it, free drawing or free writing. */
export function taskOf(model) {
  return (TASKS[model.task.name] ?? (model.vocabulary_size ? tokens : free))(model);
}

/** The vectors between a start and an end flag, to be said again after the end flag. */
function copy({ task: { bits, min_length: shortest, max_length: longest } }) {
  const blank = zeros(bits + 2);
  const flag = (channel) => blank.with(channel, 1);
  const channels = Array.from({ length: bits }, (_, bit) => `${bit}`);
  return {
    hint: `Draw the vectors to remember, ${bits} bits each. In training there were ${shortest} to ${longest} of them.`,
    rows: bits,
    columnName: "vector",
    initialLength: longest,
    longest: Math.max(LONGEST, longest),
    channels: [...channels, "start", "end"],
    encode: (vectors) => ({
      inputs: [
        flag(bits),
        ...vectors.map((vector) => [...vector, 0, 0]),
        flag(bits + 1),
        ...vectors.map(() => blank),
      ],
      targets: [...Array(vectors.length + 2).fill(null), ...vectors],
    }),
  };
}

/** Every input channel at every step is drawn by hand, and no answer is known to be right. */
function free({ input_size: channels }) {
  return {
    hint: `Draw what the model is sent, ${channels} channels a step. What it should answer is not known here.`,
    rows: channels,
    columnName: "time",
    initialLength: 20,
    longest: LONGEST,
    channels: Array.from({ length: channels }, (_, channel) => `${channel}`),
    encode: (vectors) => ({ inputs: vectors, targets: vectors.map(() => null) }),
  };
}

/** The token of every step is written by hand, and no answer is known to be right. */
function tokens({ vocabulary_size: vocabularySize }) {
  return {
    hint: `Write the tokens that the model is sent, whole numbers from 0 to ${vocabularySize - 1}, one for each step.`,
    vocabularySize,
    initialLength: 20,
    longest: LONGEST,
    encode: (steps) => ({ inputs: steps, targets: steps.map(() => null) }),
  };
}

function zeros(size) {
  return Array(size).fill(0);
}
