// Tasks whose patterns are written, as lists of words: each is a token of the model's vocabulary.
//
// words: of the vocabulary, by their tokens; split(text), join(words): between what is written and the words of it.
// isStory: whether the words are read as a text, with answers in it.
// classes: the names of the classes that the model tells, if they have names; unasked: what to tell where none is due.

import { Problem } from "./api.js";

const BRACKETS = "()[]{}<>"; // an opening one is even, the one that closes it comes next

const ANSWER = "-"; // the word that asks for a word of an answer
const QUESTION = "?"; // the end of a question, and the word of a step of planning
const HYPHEN = "\u2013"; // the word of a hyphen that asks for nothing, as that of -5
const STORY_WORD = /(?<hyphen>-(?=[\p{L}\p{N}_]))|[\p{L}\p{N}_][\p{L}\p{N}\p{M}\u200c\u200d_'-]*|[^\p{L}\p{N}_\s]/gu;

/** The token of every step is written by hand, and no answer is known to be right. */
export function tokens({ vocabulary_size: size }) {
  const words = Array.from({ length: size }, (_, token) => `${token}`);
  return {
    hint: `Write the tokens that the model is sent, whole numbers from 0 to ${size - 1}, one for each step.`,
    words,
    split: (text) => text.split(/[\s,]+/).filter(Boolean),
    join: (written) => written.join(" "),
    // What is no number goes to the server as it is, which says so.
    encode: (written) => ({
      inputs: written.map((word) => [Number.isNaN(Number(word)) ? word : Number(word)]),
      targets: written.map(() => null),
    }),
  };
}

/** A word of brackets; at its last step the model says whether every one is closed by one of its kind, in order. */
export function dyck({ task: { kinds, length } }) {
  const words = [...BRACKETS].slice(0, 2 * kinds);
  const longest = 2 * [length].flat().at(-1);
  return {
    hint:
      `Write a word of brackets: ${words.join(" ")}. The model says whether it is valid: every bracket closed by one ` +
      `of its kind, in the right order. In training words had up to ${longest} brackets, as many as make pairs.`,
    words,
    split: (text) => text.match(/\S/g) ?? [],
    join: (written) => written.join(""),
    classes: ["not valid", "valid"],
    encode: (written) => {
      const numbers = numbered(words, written);
      const due = isValid(numbers) ? [0, 1] : [1, 0];
      const isLast = (step) => step === numbers.length - 1;
      return {
        inputs: numbers.map((number) => [number]),
        targets: numbers.map((_, step) => (isLast(step) ? due : null)),
        labels: written,
      };
    },
  };
}

/** A story, word by word; at each "-" the model says a word of an answer. Which is right is not known. */
export function babi({ task: { vocabulary, planning = 0 } }) {
  return {
    hint:
      `Write a story, then a question and “${ANSWER}” for each word of its answer, of the ${vocabulary.length} words ` +
      "that the model knows. Case does not matter; punctuation marks are words.",
    words: vocabulary,
    split: (text) => planned(splitStory(text), planning),
    join: (written) => written.join(" "),
    classes: vocabulary,
    isStory: true,
    unasked: `Nothing is asked: write “${ANSWER}” where a word of an answer is due`,
    encode: (written) => ({
      inputs: numbered(vocabulary, written).map((number) => [number]),
      targets: written.map(() => null),
      asked: written.flatMap((word, step) => (word === ANSWER ? [step] : [])),
      labels: written,
    }),
  };
}

/** Return the words of a story as training/tasks/babi_texts.py, but a hyphen between spaces is ANSWER here. */
function splitStory(text) {
  const found = text.toLowerCase().normalize("NFC").matchAll(STORY_WORD);
  return Array.from(found, ({ 0: word, groups: { hyphen } }) => (hyphen ? HYPHEN : word));
}

/** Return the words of a story with the steps of planning before each answer, unless they are there already. */
function planned(words, planning) {
  const isShort = (place) => words[place] === QUESTION && words[place + 1] === ANSWER && words[place - 1] !== QUESTION;
  return words.flatMap((word, place) => (isShort(place) ? Array(planning + 1).fill(QUESTION) : [word]));
}

/** Return the tokens of words. Throws Problem for the first that is not of the vocabulary. */
function numbered(vocabulary, written) {
  const numbers = new Map(vocabulary.map((word, number) => [word, number]));
  return written.map((word) => {
    if (numbers.has(word)) return numbers.get(word);
    throw new Problem({
      title: "Unknown word",
      detail: `the model does not know “${word}”`,
      expected: vocabulary.length > 20 ? `one of its ${vocabulary.length} words` : `one of ${vocabulary.join(" ")}`,
    });
  });
}

function isValid(numbers) {
  const due = []; // the brackets that are to come, the next one last
  for (const number of numbers) {
    if (number % 2 === 0) due.push(number + 1);
    else if (due.pop() !== number) return false;
  }
  return due.length === 0;
}
