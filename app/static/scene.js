// What a sequence is about, as a picture: a graph, a map of the Underground, a family tree. Each edge appears at the step
// that shows it, and the way that the model says is drawn hop by hop.

import { element } from "./dom.js";
import { hopsOf, questionAt, questionsOf } from "./routes.js";
import { LINES, kindOf } from "./scene-kinds.js";
import { around, bent, fixed, lineOf, sidesOf, straight } from "./scene-paths.js";
import { edgeText, readable, walkOf } from "./scene-walk.js";
import { walkable } from "./walk.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 18; // CSS pixels
const MOST_NAMED = 40; // nodes that all have their names beside them

/** Shows the graph of a run at the cursor. */
export class Scene {
  /** Return the scene of a run, or undefined where its sequence is about no graph. */
  static of(run, on) {
    return run.sequence.graph ? new Scene(run, on) : undefined;
  }

  /** on: {point(text), seek(step)}. */
  constructor(run, on) {
    const { graph } = run.sequence;
    Object.assign(this, { run, graph, kind: kindOf(graph), questions: questionsOf(run.sequence) });
    this.title = this.kind.title;
    this.places = this.kind.layout(graph);
    this.names = new Map(graph.nodes.map(({ label }, node) => [label, node]));
    this.image = svg("svg", { role: "img", "aria-label": `${this.title}: ${graph.nodes.length} nodes, ${graph.edges.length} edges` });
    this.caption = element("figcaption", {}, this.title);
    this.element = element("figure", { className: this.kind.isMap ? "scene map" : "scene" }, this.caption, this.image);
    for (const name of ["pointermove", "pointerdown"]) {
      this.image.addEventListener(name, ({ target }) => on.point(this.textOf(target))); // a finger points by touching
    }
    this.image.addEventListener("pointerleave", () => on.point(""));
    this.image.addEventListener("click", ({ target }) => "step" in target.dataset && on.seek(Number(target.dataset.step)));
    walkable(this.image, walkOf(this, on));
    this.image.setAttribute("aria-roledescription", "picture of edges");
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
    this.pointed = svg("path", { class: "pointed" });
    this.look(undefined);
    this.labels.forEach((_, node) => this.placeLabel(node));
    this.image.replaceChildren(...new Set(this.lines), this.way, this.pointed, ...this.dots, ...this.labels);
    this.shown = undefined;
    this.moveTo(this.step ?? 0);
  }

  /** Mark the edge of a step; undefined: none. */
  mark(step) {
    const line = this.lines?.[step];
    this.pointed?.setAttribute("d", line?.getAttribute("d") ?? "");
  }

  moveTo(step) {
    this.step = step; // for when there is a size to draw in, too
    const shown = `${step} ${Math.min(this.run.done, step + 1)}`;
    if (!this.points || this.shown === shown) return;
    this.shown = shown;
    const question = questionAt(this.questions, step);
    const hops = question ? hopsOf(this.run, question, step) : [];
    this.image.classList.toggle("answering", Boolean(question));
    if (question !== this.question) this.look(question);
    this.showEdges(step);
    this.way.replaceChildren(...hops.flatMap((hop) => this.hop(hop, hop.step === step)));
    this.showNodes(step, question, hops);
    this.caption.textContent = [this.title, readable(this.run.sequence.labels?.[step])].filter(Boolean).join(": ");
  }

  /** Show the edges up to a step, and mark that of the step. */
  showEdges(step) {
    const [seen, current] = [new Set(this.lines.slice(0, step + 1)), this.lines[step]];
    for (const line of new Set(this.lines)) {
      line.classList.toggle("shown", seen.has(line));
      line.classList.toggle("now", line === current);
    }
  }

  /** Show the nodes of the edges up to a step; mark those of the step and of the question; name those, or all of few. */
  showNodes(step, question, hops) {
    const { edges } = this.graph;
    const met = new Set(edges.slice(0, step + 1).flatMap(({ from, to }) => [from, to]));
    const now = new Set(edges[step] ? [edges[step].from, edges[step].to] : []);
    const asked = this.askedFor(question);
    this.dots.forEach((dot, node) => {
      dot.classList.toggle("shown", met.has(node));
      dot.classList.toggle("now", now.has(node));
      dot.classList.toggle("asked", asked.includes(node));
    });
    const named = new Set([...now, ...asked, ...hops.flatMap(({ from, to }) => [from, to])]);
    const areAllNamed = this.dots.length <= MOST_NAMED;
    this.labels.forEach((label, node) => label.classList.toggle("shown", named.has(node) || (areAllNamed && met.has(node))));
    if (!areAllNamed) [...named].forEach((node, number) => this.placeLabel(node, number % 2 === 1));
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

  line(edge, step, side) {
    const line = svg("path", { d: this.pathOf(edge, side), class: "edge" });
    if (this.kind.isMap) line.style.setProperty("--line", LINES[lineOf(edge.name)]);
    line.dataset.step = step;
    return line;
  }

  /** Return the lines of a hop: what was said, and, where that is wrong, what was due. */
  hop({ from, to, said, isRight }, isNow) {
    const path = (one, other, name) => svg("path", { d: this.pathOf({ from: one, to: other }), class: name });
    const line = (one, other, name) => path(one, other, `hop ${name}${isNow ? " now" : ""}`);
    if (isRight) return [path(from, to, "casing"), line(from, to, "right")];
    const [one, other] = [this.names.get(said.from), this.names.get(said.to)];
    const isKnown = one !== undefined && other !== undefined && one !== other;
    return [line(from, to, "due"), ...(isKnown ? [path(one, other, "casing"), line(one, other, "wrong")] : [])];
  }

  pathOf(edge, side) {
    return this.kind.title === "Graph" ? bent(this.points, edge, this.radius) : straight(this.points, edge, side);
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
    return edge ? `${edgeText(this.graph, edge)}, shown at step ${dataset.step}` : "";
  }
}

function nameOf(text) {
  const label = svg("text", { class: "name" });
  label.textContent = text;
  return label;
}

function svg(tag, attributes) {
  const created = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  return created;
}
