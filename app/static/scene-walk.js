// The picture of a scene as it is walked by keys (see walk.js): each step is a column, with the edge that it shows, or the
// way that it asks for or says.

import { hopsOf, questionAt } from "./routes.js";

/** Return what there is to walk of a scene; on: {point(text), seek(step)}. */
export function walkOf(scene, on) {
  const { run } = scene;
  return {
    title: () => scene.title,
    columns: run.length,
    rows: 1,
    columnName: (step) => `time ${run.from + step}`,
    rowName: () => scene.title,
    text: (step) => textAt(scene, step),
    isTimed: true,
    mark: ({ column }) => scene.mark(column),
    point: ({ column }) => on.point(`time ${run.from + column}: ${textAt(scene, column)}`),
    leave: () => (scene.mark(undefined), on.point("")),
    seek: on.seek,
  };
}

/** Return an edge as text. */
export function edgeText({ nodes }, { from, to, name }) {
  return `${nodes[from].name} to ${nodes[to].name}: ${name}`;
}

/** Return a triple in the way of a timetable: "Bank → Liverpool Street (Central, east)". */
export function readable(triple) {
  return triple?.replace(/^(.*) -\[(.*)\]-> (.*)$/, "$1 → $3 ($2)");
}

function textAt(scene, step) {
  const { run, graph } = scene;
  if (graph.edges[step]) return edgeText(graph, graph.edges[step]);
  const label = readable(run.sequence.labels?.[step]) ?? "";
  const question = questionAt(scene.questions, step);
  const hop = question && hopsOf(run, question, step).find((one) => one.step === step);
  return hop ? `${label}, ${saidText(scene, hop)}` : label;
}

function saidText({ graph, names }, { said, isRight }) {
  if (isRight) return "said right";
  const [from, to] = [said.from, said.to].map((label) => graph.nodes[names.get(label)]?.name ?? `unknown ${label}`);
  return `said ${from} → ${to}, which is wrong`;
}
