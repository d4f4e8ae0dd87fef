// The kinds of scenes: a family tree, a map of the Underground, any other graph.

import { chartLayout, familyLayout, graphLayout } from "./layouts.js";
import { lineOf } from "./scene-paths.js";

// The colours of London's lines; the Northern line, black, is as the text is.
export const LINES = {
  Bakerloo: "#b26300",
  Central: "#dc241f",
  Circle: "#ffc80a",
  District: "#007d32",
  "East London": "#ef7b10",
  "Hammersmith & City": "#f589a6",
  Jubilee: "#838d93",
  Metropolitan: "#9b0058",
  Northern: "currentcolor",
  Piccadilly: "#0019a8",
  Victoria: "#039be5",
  "Waterloo & City": "#76d0bd",
  "Docklands Light Railway": "#00afad",
};

const KINDS = [
  { title: "Family tree", isOf: ({ nodes }) => nodes.some(({ generation }) => generation !== undefined), layout: familyLayout },
  { title: "Map", isOf: ({ edges }) => edges.some(({ name }) => lineOf(name) in LINES), layout: chartLayout, isMap: true },
  { title: "Graph", isOf: () => true, layout: graphLayout },
];

/** Return the kind of a graph: title, layout(graph), isMap. */
export function kindOf(graph) {
  return KINDS.find(({ isOf }) => isOf(graph));
}
