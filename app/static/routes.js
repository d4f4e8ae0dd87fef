// The questions of a sequence about a graph, and what the model says to them.
//
// A question is {start, nodes, names, ask: [from, to], answer: [from, to]}: the steps that ask, those at which a hop is
// due, and the right answer, nodes by their places in `graph.nodes`.
// A hop is {step, from, to, said: {from, kind, to}, isRight}: the nodes that are due; what was said, in labels.

import { classesOf } from "./verdict.js";

/** Return the questions of a sequence. */
export function questionsOf({ phases, routes }) {
  const stages = (name) => phases.filter((phase) => phase.name === name).map(({ from, to }) => [from, to]);
  const [asks, answers] = [stages("ask"), stages("answer")];
  return routes.map((route, number) => ({ ...route, ask: asks[number], answer: answers[number] }));
}

/** Return the question that is asked or answered at a step: the last one so far. */
export function questionAt(questions, step) {
  return questions.findLast(({ ask: [from] }) => from <= step);
}

/** Return the hops of an answer up to a step that is done. */
export function hopsOf(run, { nodes, answer: [from, to] }, step) {
  const count = Math.max(0, Math.min(step + 1, to, run.done) - from);
  return Array.from({ length: count }, (_, hop) => {
    const said = tripleOf(run.model, run.outputs[from + hop]);
    const due = tripleOf(run.model, run.sequence.targets[from + hop]);
    const isRight = said.from === due.from && said.kind === due.kind && said.to === due.to;
    return { step: from + hop, from: nodes[hop], to: nodes[hop + 1], said, isRight };
  });
}

/** Return the labels that a vector stands for: three numbers, a group of the outputs for each of their digits. */
function tripleOf(model, vector) {
  const digits = classesOf(model, vector).map(({ number }) => number);
  const size = digits.length / 3;
  const [from, kind, to] = [0, 1, 2].map((part) => Number(digits.slice(part * size, (part + 1) * size).join("")));
  return { from, kind, to };
}
