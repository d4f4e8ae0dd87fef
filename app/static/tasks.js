// A task: what one can draw or write, and how that becomes a sequence for the model.
//
// hint: what to do.
// settings: the names of the sizes of a sample that are no part of the pattern.
// encode(pattern, settings): returns `inputs` [T][I], and, for each step, in `targets`, the vector that is due or null
//     where nothing is asked for; `asked`, the steps with an answer to show, where others than those of output_at;
//     `unasked`, the text where none is.
//
// Of drawn patterns, lists of vectors (see editor.js): rows, levelName, vectorsPerItem, columnName; channels, outputs:
// the names of the model's inputs and outputs, where they have names. Of written ones, lists of words, see words.js;
// of signals, see signals.js.

import { Problem } from "./api.js";
import { signals } from "./signals.js";
import { babi, dyck, tokens } from "./words.js";

export const TASKS = {
  copy,
  "repeat-copy": repeatCopy,
  "associative-recall": associativeRecall,
  "copy-recall": copyRecall,
  "priority-sort": prioritySort,
  "key-value": keyValue,
  ngrams,
  dyck,
  babi,
};

/** Return the task that `model` was trained on, or, if the page does not know it, free drawing, writing or playing. */
export function taskOf(model) {
  return (TASKS[model.task.name] ?? (model.vocabulary_size ? tokens : isOfSignals(model) ? signals : free))(model);
}

/** Return whether any numbers may be sent; the inputs of a task that the page does not know are taken for bits. */
function isOfSignals(model) {
  return Boolean(model.graph) || model.task.name === "none";
}

/** Return an option of a task as text; a range is a list of its ends. */
export function optionText(value) {
  return Array.isArray(value) ? value.join(" to ") : `${value}`;
}

/** The vectors to be said again after an end flag: between it and a start flag, or it alone stands behind them. */
function copy({ task: { bits, length = [1, 20], flags = "start-and-end" } }) {
  return {
    hint: `Draw the vectors to remember, ${bits} bits each. In training there were ${optionText(length)} of them.`,
    rows: bits,
    columnName: "vector",
    ...(flags === "end" ? copyByEndFlag(bits) : copyByBothFlags(bits)),
  };
}

function copyByBothFlags(bits) {
  const { blank, flag, shown } = vectorsOf(bits, 2);
  return {
    channels: [...numbers(bits), "start", "end"],
    encode: (vectors) => ({
      inputs: [flag(0), ...vectors.map(shown), flag(1), ...vectors.map(() => blank)],
      targets: [...nothing(vectors.length + 2), ...vectors],
    }),
  };
}

/** There is something to say at every step: nothing, the vectors, then an end marker. */
function copyByEndFlag(bits) {
  const { blank, flag, shown } = vectorsOf(bits, 1);
  return {
    channels: [...numbers(bits), "end"],
    outputs: [...numbers(bits), "end"],
    encode: (vectors) => ({
      inputs: [...vectors.map(shown), flag(0), ...vectors.map(() => blank), blank],
      targets: [
        ...Array(vectors.length + 1).fill(zeros(bits + 1)),
        ...vectors.map((vector) => [...vector, 0]),
        [...zeros(bits), 1],
      ],
    }),
  };
}

/** The vectors after a start flag, then how often to say them, normalised; after the last of them an end marker. */
function repeatCopy({ task: { bits, length, repeats, repeats_scale: scale } }) {
  const { blank, flag, shown } = vectorsOf(bits, 2);
  const normalised = (count) => (count - (scale + 1) / 2) / Math.sqrt((scale ** 2 - 1) / 12);
  return {
    hint:
      `Draw the vectors to say again several times, ${bits} bits each. ` +
      `In training there were ${optionText(length)} of them, and ${optionText(repeats)} repeats.`,
    rows: bits,
    columnName: "vector",
    channels: [...numbers(bits), "start", "repeats"],
    outputs: [...numbers(bits), "end"],
    settings: ["repeats"],
    encode: (vectors, { repeats: count }) => {
      const said = Array(count).fill(vectors).flat();
      return {
        inputs: [flag(0), ...vectors.map(shown), flag(1, normalised(count)), ...said.map(() => blank), blank],
        targets: [...nothing(vectors.length + 2), ...said.map((vector) => [...vector, 0]), [...zeros(bits), 1]],
      };
    },
  };
}

/** Items of some vectors, each after a delimiter; then one of them between query flags, and the next is due. */
function associativeRecall({ task: { bits, item_length: itemLength, items } }) {
  const { blank, flag, shown } = vectorsOf(bits, 2);
  return {
    hint:
      `Draw the items to remember, ${itemLength} vectors of ${bits} bits each. Shown the one of number “Query” ` +
      `again, the model is to say the item after it. In training there were ${optionText(items)} items.`,
    rows: bits,
    vectorsPerItem: itemLength,
    columnName: "vector",
    channels: [...numbers(bits), "item", "query"],
    settings: ["query"],
    encode: (vectors, { query }) => {
      const drawn = chunks(vectors, itemLength);
      const due = drawn[query + 1] ?? refuseItems(drawn.length, query);
      const inputs = [
        ...drawn.flatMap((item) => [flag(0), ...item.map(shown)]),
        flag(1),
        ...drawn[query].map(shown),
        flag(1),
      ];
      return { inputs: [...inputs, ...due.map(() => blank)], targets: [...nothing(inputs.length), ...due] };
    },
  };
}

/** Throw the problem of a drawing, such as one from an address, that has no item behind the one that is asked for. */
function refuseItems(count, query) {
  const detail = "No item was drawn behind that of “Query”: give a lower number, or draw another sample.";
  throw new Problem({ title: "Not a drawing of this sample", detail, expected: `${query + 2} items or more`, got: `${count}` });
}

/** A sequence of copy, of the first `length` vectors, and behind it one of recall, each silent in the other's flags. */
function copyRecall(model) {
  const { bits, length, item_length: itemLength, items } = model.task;
  const [copied, recalled] = [copyByBothFlags(bits), associativeRecall(model)];
  const silence = zeros(2);
  return {
    hint:
      `Draw the vectors to say again, ${bits} bits each and as many as “Vectors” says, and behind them the items, ` +
      `${itemLength} vectors each. Then shown the item of number “Query” again, the model is to say the item after it. ` +
      `In training there were ${optionText(length)} vectors and ${optionText(items)} items.`,
    rows: bits,
    columnName: "vector",
    channels: [...copied.channels, ...recalled.channels.slice(bits)],
    settings: ["query"],
    encode: (vectors, { length: count, query }) => {
      const first = copied.encode(vectors.slice(0, count));
      const second = recalled.encode(vectors.slice(count), { query });
      return {
        inputs: [
          ...first.inputs.map((step) => [...step, ...silence]),
          ...second.inputs.map((step) => [...step.slice(0, bits), ...silence, ...step.slice(bits)]),
        ],
        targets: [...first.targets, ...second.targets],
      };
    },
  };
}

/** Vectors with a priority each; after the end flag a share of them is due, the highest priority first. */
function prioritySort({ task: { bits, items, share } }) {
  const { blank, flag } = vectorsOf(bits, 2);
  return {
    hint:
      `Draw the vectors to sort, ${bits} bits each, and below them their priorities. The model is to say ` +
      `${Math.round(100 * share)} % of them, the highest priority first. In training there were ${optionText(items)}.`,
    rows: bits,
    levelName: "priority",
    columnName: "vector",
    channels: [...numbers(bits), "priority", "end"],
    encode: (vectors) => {
      const sorted = vectors.toSorted((one, other) => other[bits] - one[bits]);
      const due = sorted.slice(0, Math.max(1, roundToEven(vectors.length * share)));
      return {
        inputs: [...vectors.map((vector) => [...vector, 0]), flag(1), ...due.map(() => blank)],
        targets: [...nothing(vectors.length + 1), ...due.map((vector) => vector.slice(0, bits))],
      };
    },
  };
}

/** Keys with values beside them; after the query flag each key again, and the last value that it had is due. */
function keyValue({ task: { bits, pairs, overwrites } }) {
  const { flag } = vectorsOf(2 * bits, 1);
  const named = (name) => numbers(bits).map((bit) => `${name} ${bit}`);
  return {
    hint:
      `Draw keys, the upper ${bits} bits, and values, the lower ones. Asked for each key, the model is to say the ` +
      `last value that it had. In training there were ${optionText(pairs)} keys, and ${optionText(overwrites)} new values.`,
    rows: 2 * bits,
    columnName: "pair",
    channels: [...named("key"), ...named("value"), "query"],
    encode: (vectors) => {
      const last = new Map(vectors.map((vector) => [vector.slice(0, bits).join(), vector]));
      const written = [...last.values()];
      return {
        inputs: [
          ...vectors.map((vector) => [...vector, 0]),
          flag(0),
          ...written.map((vector) => [...vector.slice(0, bits), ...zeros(bits + 1)]),
        ],
        targets: [...nothing(vectors.length + 1), ...written.map((vector) => vector.slice(bits))],
      };
    },
  };
}

/** Bits of a source with a memory of a few of them: each is to be foretold from those before it. */
function ngrams({ task: { order } }) {
  return {
    hint: `Draw the bits that come one after another. The model is to foretell each from the ${order - 1} before it.`,
    rows: 1,
    columnName: "bit",
    channels: ["bit"],
    encode: (vectors) => ({
      inputs: vectors.slice(0, -1),
      targets: vectors.slice(1).map((vector, step) => (step >= order - 2 ? vector : null)),
      optimum: optimumOf(vectors.map(([bit]) => bit), order - 1),
    }),
  };
}

/** Return P(1 | context) = (N1 + 1/2) / (N0 + N1 + 1), of the bits that followed the `size` before so far. */
function optimumOf(bits, size) {
  const counts = new Map();
  return bits.slice(1).map((bit, step) => {
    if (step + 1 < size) return null;
    const context = bits.slice(step + 1 - size, step + 1).join("");
    const seen = counts.get(context) ?? [0.5, 0.5];
    counts.set(context, seen.with(bit, seen[bit] + 1));
    return seen[1] / (seen[0] + seen[1]);
  });
}

/** Every input channel at every step is drawn by hand, and no answer is known to be right. */
function free({ input_size: channels }) {
  const sent = channels === 1 ? "1 channel" : `${channels} channels`;
  return {
    hint: `Draw what the model is sent, ${sent} a step. What it should answer is not known here.`,
    rows: channels,
    columnName: "time",
    channels: numbers(channels),
    encode: (vectors) => ({ inputs: vectors, targets: nothing(vectors.length) }),
  };
}

/** Return how steps look that have `bits` bits, and `flags` channels more: with nothing, with a flag, with a vector. */
function vectorsOf(bits, flags) {
  const blank = zeros(bits + flags);
  return {
    blank,
    flag: (number, value = 1) => blank.with(bits + number, value),
    shown: (vector) => [...vector, ...zeros(flags)],
  };
}

function nothing(steps) {
  return Array(steps).fill(null);
}

function zeros(size) {
  return Array(size).fill(0);
}

function numbers(count) {
  return Array.from({ length: count }, (_, number) => `${number}`);
}

function chunks(list, size) {
  return Array.from({ length: list.length / size }, (_, index) => list.slice(index * size, (index + 1) * size));
}

/** Return the nearest whole number, and of two that are as near the even one: so does training. */
function roundToEven(value) {
  const nearest = Math.round(value);
  return nearest - value === 0.5 && nearest % 2 === 1 ? nearest - 1 : nearest;
}
