// The verdict on a run, in the words of its task where it has some.

import { hopsOf, questionsOf } from "./routes.js";
import { classesOf, verdictOn } from "./verdict.js";

const NOTHING = { className: "unknown", textContent: "Nothing is due yet", marks: [] };

/** Return the verdict on what is done of a run: {className, textContent, marks}, see verdict.js. */
export function verdictOf(run) {
  const { model, task, sequence, outputs, done } = run;
  if (sequence.isOpen) return { ...NOTHING, textContent: sequence.unasked };
  const asked = sequence.asked?.filter((step) => step < done);
  const part = { ...sequence, asked, targets: sequence.targets.slice(0, done) };
  if (done === 0 || (!run.isDone && !part.targets.some(Boolean) && !asked?.length)) return NOTHING;
  const verdict = verdictOn(model, task, run.isDone ? sequence : part, outputs);
  if (sequence.graph) return { ...verdict, textContent: onRoutes(run) };
  if (sequence.optimum) return onPredictions(run);
  if (task.isStory && asked?.length) return { ...verdict, textContent: onStory(answersOf(run)) };
  return verdict;
}

/** Return the answers in a story up to where it is done: {steps, question, said, due, probability, isRight}. */
export function answersOf({ model, task, sequence, outputs, done }) {
  const { labels, targets } = sequence;
  const runs = sequence.asked.filter((step) => step < done).reduce(grouped, []);
  return runs.map((steps) => {
    const said = steps.map((step) => classesOf(model, outputs[step])[0]);
    const due = targets[steps[0]] && steps.map((step) => task.classes[targets[step].indexOf(1)]).join(" ");
    const words = said.map(({ number }) => task.classes[number]).join(" ");
    const probability = said.reduce((product, one) => product * one.probability, 1);
    return { steps, question: questionBefore(labels, steps[0]), said: words, due, probability, isRight: words === due };
  });
}

function grouped(runs, step) {
  if (runs.at(-1)?.at(-1) === step - 1) runs.at(-1).push(step);
  else runs.push([step]);
  return runs;
}

/** Return the words of the sentence that ends right before a step, without the steps of planning after it. */
function questionBefore(words, step) {
  const end = Math.min(words.findLastIndex((word, place) => place < step && word !== "?") + 2, step);
  const first = words.findLastIndex((word, place) => place < end - 1 && ".?-".includes(word)) + 1;
  return words.slice(first, end).join(" ");
}

/** Return how many answers are right, and one of them in words: the first that is wrong, or else the last. */
function onStory(answers) {
  const known = answers.filter(({ due }) => due);
  const right = known.filter(({ isRight }) => isRight).length;
  const { question, said, due, probability, isRight } = known.find((answer) => !answer.isRight) ?? answers.at(-1);
  const judged = !due ? "" : isRight ? ", which is right" : `, but the answer is ${due}`;
  const count = known.length > 1 ? `${right} of ${known.length} answers right. ` : "";
  return `${count}${question} ${said}, probability ${probability.toFixed(3)}${judged}`;
}

function onRoutes(run) {
  const questions = questionsOf(run.sequence);
  const answers = questions.map((question) => hopsOf(run, question, run.done - 1)).filter((hops) => hops.length > 0);
  const right = answers.filter((hops) => hops.every(({ isRight }) => isRight)).length;
  const hops = answers.flat();
  return `${right} of ${answers.length} answers right, ${hops.filter(({ isRight }) => isRight).length} of ${hops.length} steps`;
}

/** A predictor may be as wrong as the best one that there is: what counts is how much worse it is. */
function onPredictions({ sequence: { targets, optimum }, outputs, done }) {
  const due = targets.flatMap((target, step) => (target && step < done ? [step] : []));
  const costs = (predicted) => due.reduce((sum, step) => sum + costOf(predicted(step), targets[step][0]), 0);
  const errors = (predicted) => due.filter((step) => predicted(step) > 0.5 !== targets[step][0] > 0.5).length;
  const [own, best] = [(step) => outputs[step][0], (step) => optimum[step]];
  const above = costs(own) - costs(best);
  const textContent =
    `${costs(own).toFixed(1)} nats for ${due.length} bits, ${Math.abs(above).toFixed(1)} ` +
    `${above < 0 ? "below" : "above"} the optimum; ${errors(own)} foretold wrong, ${errors(best)} at the optimum`;
  return { className: "unknown", textContent, marks: [] };
}

function costOf(probability, bit) {
  return -Math.log(Math.max(bit > 0.5 ? probability : 1 - probability, 1e-12));
}
