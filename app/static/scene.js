// What a sequence is about, as a picture: a graph, a map of the Underground, a family tree. Each edge appears at the step
// that shows it, and the way that the model says is drawn hop by hop.

import { element } from "./dom.js";
import { chartLayout, familyLayout, graphLayout } from "./layouts.js";
import { hopsOf, questionAt, questionsOf } from "./routes.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 18; // CSS pixels
const MOST_NAMED = 40; // nodes that all have their names beside them
const LEAST_SEEN = 0.3; // of the width of a map
const HOP = 50; // CSS pixels from one station of a way to the next, about, at least
const GAP = 2.2; // CSS pixels between lines that run side by side

// The colours of London's lines; the Northern line, black, is as the text is.
const LINES = {
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

/** Shows the graph of a run at the cursor. */
export class Scene {
  /** Return the scene of a run, or undefined where its sequence is about no graph. */
  static of(run, on) {
    return run.sequence.graph ? new Scene(run, on) : undefined;
  }

  /** on: {point(text), seek(step)}. */
  constructor(run, on) {
    const { graph } = run.sequence;
    Object.assign(this, { run, graph, kind: KINDS.find(({ isOf }) => isOf(graph)), questions: questionsOf(run.sequence) });
    this.title = this.kind.title;
    this.places = this.kind.layout(graph);
    this.names = new Map(graph.nodes.map(({ label }, node) => [label, node]));
    this.image = svg("svg", { role: "img", "aria-label": `${this.title}: ${graph.nodes.length} nodes, ${graph.edges.length} edges` });
    this.caption = element("figcaption", {}, this.title);
    this.element = element("figure", { className: this.kind.isMap ? "scene map" : "scene" }, this.caption, this.image);
    this.image.addEventListener("pointermove", ({ target }) => on.point(this.textOf(target)));
    this.image.addEventListener("pointerleave", () => on.point(""));
    this.image.addEventListener("click", ({ target }) => "step" in target.dataset && on.seek(Number(target.dataset.step)));
    new ResizeObserver(() => this.fit()).observe(this.image);
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.image;
    if (width === 0 || height === 0) return;
    Object.assign(this, { width, height });
    this.points = this.places.map(({ x, y }) => ({
      x: MARGIN + x * (width - 2 * MARGIN),
      y: MARGIN + y * (height - 2 * MARGIN),
    }));
    this.radius = this.graph.nodes.length > MOST_NAMED ? 2.2 : 4;
    this.lines = this.drawnLines();
    this.dots = this.graph.nodes.map((node, number) => this.dot(node, number));
    this.labels = this.graph.nodes.map(({ name }) => nameOf(name));
    this.way = svg("g", {});
    this.look(undefined);
    this.labels.forEach((_, node) => this.placeLabel(node));
    this.image.replaceChildren(...new Set(this.lines), this.way, ...this.dots, ...this.labels);
    this.shown = undefined;
    this.moveTo(this.step ?? 0);
  }

  moveTo(step) {
    const shown = `${step} ${Math.min(this.run.done, step + 1)}`;
    if (!this.points || this.shown === shown) return;
    Object.assign(this, { step, shown });
    const { edges } = this.graph;
    const [seen, current] = [new Set(this.lines.slice(0, step + 1)), this.lines[step]];
    for (const line of new Set(this.lines)) {
      line.classList.toggle("shown", seen.has(line));
      line.classList.toggle("now", line === current);
    }
    const met = new Set(edges.slice(0, step + 1).flatMap(({ from, to }) => [from, to]));
    const now = new Set(edges[step] ? [edges[step].from, edges[step].to] : []);
    const question = questionAt(this.questions, step);
    const hops = question ? hopsOf(this.run, question, step) : [];
    this.image.classList.toggle("answering", Boolean(question));
    if (question !== this.question) this.look(question);
    this.way.replaceChildren(...hops.flatMap((hop) => this.hop(hop, hop.step === step)));
    const asked = this.askedFor(question);
    const named = new Set([...now, ...asked, ...hops.flatMap(({ from, to }) => [from, to])]);
    this.dots.forEach((dot, node) => {
      dot.classList.toggle("shown", met.has(node));
      dot.classList.toggle("now", now.has(node));
      dot.classList.toggle("asked", asked.includes(node));
    });
    const areAllNamed = this.dots.length <= MOST_NAMED;
    this.labels.forEach((label, node) => label.classList.toggle("shown", named.has(node) || (areAllNamed && met.has(node))));
    if (!areAllNamed) [...named].forEach((node, number) => this.placeLabel(node, number % 2 === 1));
    this.caption.textContent = [this.title, readable(this.run.sequence.labels?.[step])].filter(Boolean).join(": ");
  }

  /** Return the nodes that a question names. */
  askedFor(question) {
    if (!question) return [];
    const { nodes } = question;
    return this.run.model.task.name === "shortest-path" ? [nodes[0], nodes.at(-1)] : [nodes[0]];
  }

  /** Return the line of each edge; on a map and in a family, both directions are one. */
  drawnLines() {
    const { edges } = this.graph;
    const isOne = this.kind.title !== "Graph";
    const drawn = new Map();
    const sides = isOne ? sidesOf(edges) : undefined;
    return edges.map((edge, step) => {
      const { from, to, name } = edge;
      const key = isOne ? [Math.min(from, to), Math.max(from, to), this.kind.isMap ? lineOf(name) : ""].join() : step;
      if (!drawn.has(key)) drawn.set(key, this.line(edge, step, sides?.get(key) ?? 0));
      return drawn.get(key);
    });
  }

  line({ from, to, name }, step, side) {
    const path = this.kind.title === "Graph" ? this.bent(from, to) : this.straight(from, to, side);
    const line = svg("path", { d: path, class: "edge" });
    if (this.kind.isMap) line.style.setProperty("--line", LINES[lineOf(name)]);
    line.dataset.step = step;
    return line;
  }

  /** Return a straight path, so many lines aside of the middle. */
  straight(from, to, side = 0) {
    const [one, other] = [from, to].toSorted((a, b) => a - b).map((node) => this.points[node]);
    const [x, y] = [other.x - one.x, other.y - one.y];
    const length = Math.hypot(x, y) || 1;
    const [dx, dy] = [(-y / length) * side * GAP, (x / length) * side * GAP];
    return `M${fixed(one.x + dx)} ${fixed(one.y + dy)}L${fixed(other.x + dx)} ${fixed(other.y + dy)}`;
  }

  /** Return a bent path with an arrow at its end, so that the way back runs beside it. */
  bent(from, to) {
    const [one, other] = [this.points[from], this.points[to]];
    const [x, y] = [other.x - one.x, other.y - one.y];
    const length = Math.hypot(x, y) || 1;
    const [midX, midY] = [one.x + x / 2 - y * 0.14, one.y + y / 2 + x * 0.14];
    const [backX, backY] = unit(midX - other.x, midY - other.y);
    const [tipX, tipY] = [other.x + backX * (this.radius + 1), other.y + backY * (this.radius + 1)];
    const wing = (turn) => {
      const [wingX, wingY] = [backX * Math.cos(turn) - backY * Math.sin(turn), backX * Math.sin(turn) + backY * Math.cos(turn)];
      return `${fixed(tipX + wingX * Math.min(6, length / 4))} ${fixed(tipY + wingY * Math.min(6, length / 4))}`;
    };
    const arrow = `M${wing(0.4)}L${fixed(tipX)} ${fixed(tipY)}L${wing(-0.4)}`;
    return `M${fixed(one.x)} ${fixed(one.y)}Q${fixed(midX)} ${fixed(midY)} ${fixed(tipX)} ${fixed(tipY)}${arrow}`;
  }

  /** Return the lines of a hop: what was said, and, where that is wrong, what was due. */
  hop({ from, to, said, isRight }, isNow) {
    const path = (one, other, name) => svg("path", { d: this.pathOf(one, other), class: name });
    const line = (one, other, name) => path(one, other, `hop ${name}${isNow ? " now" : ""}`);
    if (isRight) return [path(from, to, "casing"), line(from, to, "right")];
    const [one, other] = [this.names.get(said.from), this.names.get(said.to)];
    const isKnown = one !== undefined && other !== undefined && one !== other;
    return [line(from, to, "due"), ...(isKnown ? [path(one, other, "casing"), line(one, other, "wrong")] : [])];
  }

  pathOf(from, to) {
    return this.kind.title === "Graph" ? this.bent(from, to) : this.straight(from, to);
  }

  dot({ woman, name }, number) {
    const { x, y } = this.points[number];
    const shape = woman === false ? { x: x - 4, y: y - 4, width: 8, height: 8 } : { cx: x, cy: y, r: this.radius };
    const dot = svg(woman === false ? "rect" : "circle", { ...shape, class: "node" });
    dot.dataset.name = name;
    return dot;
  }

  /** Look at all of the graph, or, of a large one, at the places that a question is about. */
  look(question) {
    this.question = question;
    const { width, height } = this;
    const points = question && this.dots.length > MOST_NAMED ? question.nodes.map((node) => this.points[node]) : [];
    const box = points.length > 0 ? around(points, width, height) : { x: 0, y: 0, zoom: 1 };
    Object.assign(this, box);
    this.image.setAttribute("viewBox", [box.x, box.y, width * box.zoom, height * box.zoom].map(fixed).join(" "));
    this.image.style.setProperty("--zoom", box.zoom);
  }

  /** Put a label above its node, or below it, as neighbours in turn. */
  placeLabel(node, isBelow = false) {
    const { x, y } = this.points[node];
    const isRight = x > this.x + 0.6 * this.zoom * this.width;
    const label = this.labels[node];
    label.setAttribute("x", fixed(x + (isRight ? -6 : 6) * this.zoom));
    label.setAttribute("y", fixed(y + (isBelow ? 13 : -6) * this.zoom));
    label.setAttribute("text-anchor", isRight ? "end" : "start");
  }

  textOf({ dataset }) {
    if (dataset.name) return dataset.name;
    const edge = this.graph.edges[dataset.step];
    if (!edge) return "";
    const [from, to] = [edge.from, edge.to].map((node) => this.graph.nodes[node].name);
    return `${from} to ${to}: ${edge.name}, shown at step ${dataset.step}`;
  }
}

/** Put a scene below the memory, in place of the links, with buttons to choose what is seen; then onChange is called. */
export function addScene(panel, scene, stage, onChange) {
  const below = (name) => panel.dataset.below === name;
  const buttons = { scene: scene.title, ...(panel.querySelector(".link") && { links: "Links" }) };
  const choices = Object.entries(buttons).map(([name, text]) => button(text, () => below(name), () => (panel.dataset.below = name)));
  const isLarge = () => stage.classList.contains("large-scene");
  choices.push(button("Large", isLarge, () => stage.classList.toggle("large-scene")));
  const show = () => choices.forEach((choice) => choice.show());
  const bar = element("div", { className: "choices", role: "group", ariaLabel: "Below the memory" }, ...choices.map((choice) => choice.element));
  bar.addEventListener("click", () => (show(), onChange()));
  panel.dataset.below = "scene";
  panel.append(bar, scene.element);
  show();
}

/** Return a button that is pressed or not: element, show(). */
function button(text, isPressed, press) {
  const created = element("button", { type: "button" }, text);
  created.addEventListener("click", press);
  return { element: created, show: () => (created.ariaPressed = `${isPressed()}`) };
}

/** Return the part of a picture of a size that has these points and what is near them: {x, y, zoom}. */
function around(points, width, height) {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const [left, top, right, bottom] = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  const hops = points.slice(1).map(({ x, y }, hop) => Math.hypot(x - points[hop].x, y - points[hop].y));
  const far = hops.reduce((sum, length) => sum + length, 0) / Math.max(1, hops.length) / HOP;
  const zoom = Math.min(1, Math.max(LEAST_SEEN, far, (2 * (right - left)) / width, (2 * (bottom - top)) / height));
  const start = (middle, size) => Math.min(Math.max(middle - (zoom * size) / 2, 0), size - zoom * size);
  return { x: start((left + right) / 2, width), y: start((top + bottom) / 2, height), zoom };
}

function nameOf(text) {
  const label = svg("text", { class: "name" });
  label.textContent = text;
  return label;
}

/** Return how far from the middle each of the lines between the same two nodes runs, by its key. */
function sidesOf(edges) {
  const groups = new Map();
  for (const { from, to, name } of edges) {
    const pair = [Math.min(from, to), Math.max(from, to)].join();
    groups.set(pair, (groups.get(pair) ?? new Set()).add(lineOf(name)));
  }
  const sides = [...groups].flatMap(([pair, lines]) =>
    [...lines].sort().map((line, number) => [`${pair},${line}`, number - (lines.size - 1) / 2]),
  );
  return new Map(sides);
}

/** Return a triple in the way of a timetable: "Bank → Liverpool Street (Central, east)". */
function readable(triple) {
  return triple?.replace(/^(.*) -\[(.*)\]-> (.*)$/, "$1 → $3 ($2)");
}

/** Return the line of a way, such as "Central" of "Central, east". */
function lineOf(name) {
  return name.split(", ")[0];
}

function unit(x, y) {
  const length = Math.hypot(x, y) || 1;
  return [x / length, y / length];
}

function fixed(value) {
  return value.toFixed(1);
}

function svg(tag, attributes) {
  const created = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  return created;
}
