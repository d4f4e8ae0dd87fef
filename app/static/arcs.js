// Arcs over the stage: from what a step read, in the weightings of the read heads, to the step that wrote it.

const SVG = "http://www.w3.org/2000/svg";
const LEAST_SHARE = 0.25; // of what was read, which a write must make up to have an arc
const BOW = 0.16; // of an arc's length
const [THINNEST, THICKEST] = [1, 3]; // CSS pixels

/** Draws ties between the strips of a stage. */
export class Arcs {
  /** panels: those of the stage, which is the container of the element. */
  constructor(panels) {
    this.strips = panels.flatMap(({ strips }) => strips);
    this.element = document.createElementNS(SVG, "svg");
    this.element.setAttribute("class", "arcs");
    this.element.setAttribute("aria-hidden", "true");
    this.layers = { cursor: new Layer(this.element, "cursor-arcs", 0.35), pointed: new Layer(this.element, "pointed-arcs", 0.8) };
    this.shown = { cursor: [], pointed: [] };
  }

  /** Measure where the strips are, and draw again. */
  fit() {
    const { left, top } = this.element.getBoundingClientRect();
    const places = this.strips.map(({ field, plot, length }) => {
      const box = field.getBoundingClientRect();
      return [plot.name, { left: box.left - left, top: box.top - top, cell: [box.width / length, box.height / plot.rows] }];
    });
    this.places = new Map(places);
    for (const [layer, reads] of Object.entries(this.shown)) this.show(layer, reads);
  }

  /** Show reads, [{step, head, slot, weight, sources}], on a layer: cursor or pointed. */
  show(layer, reads) {
    this.shown[layer] = reads;
    this.element.classList.toggle("pointing", this.shown.pointed.length > 0);
    this.layers[layer].draw(this.places ? reads.flatMap((read) => this.arcsOf(read)) : []);
  }

  arcsOf({ step, head, slot, weight, sources }) {
    const from = this.center(`read_weights.${head}`, step, slot);
    return sources
      .filter(({ step, share }) => step >= 0 && share >= LEAST_SHARE)
      .map((source) => ({ from, to: this.center(`write_weights.${source.head}`, source.step, slot), weight: weight * source.share }))
      .filter(({ to }) => from && to);
  }

  center(name, step, row) {
    const place = this.places.get(name);
    return place && [place.left + (step + 0.5) * place.cell[0], place.top + (row + 0.5) * place.cell[1]];
  }
}

/** Arcs of one kind, whose elements are used again. faintest: the opacity of the weakest. */
class Layer {
  constructor(parent, name, faintest) {
    this.faintest = faintest;
    this.group = parent.appendChild(document.createElementNS(SVG, "g"));
    this.group.setAttribute("class", name);
    this.drawn = [];
  }

  draw(arcs) {
    while (this.drawn.length < arcs.length) this.drawn.push(newArc(this.group));
    this.drawn.forEach((arc, index) => place(arc, arcs[index], this.faintest));
  }
}

/** Return the elements of an arc: its edge, its line and its ends. */
function newArc(parent) {
  const group = parent.appendChild(document.createElementNS(SVG, "g"));
  const parts = ["path", "path", "circle", "circle"].map((tag) => group.appendChild(document.createElementNS(SVG, tag)));
  ["edge", "line", "start", "end"].forEach((name, index) => parts[index].setAttribute("class", name));
  return { group, parts };
}

function place({ group, parts: [edge, line, start, end] }, arc, faintest) {
  group.style.display = arc ? "" : "none";
  if (!arc) return;
  const { from, to, weight } = arc;
  const width = THINNEST + (THICKEST - THINNEST) * weight;
  for (const path of [edge, line]) path.setAttribute("d", curve(from, to));
  edge.style.strokeWidth = `${width + 1.5}px`;
  line.style.strokeWidth = `${width}px`;
  group.style.opacity = `${(faintest + (1 - faintest) * weight).toFixed(2)}`;
  [from, to].forEach(([x, y], index) => {
    const circle = [start, end][index];
    circle.setAttribute("cx", x.toFixed(1));
    circle.setAttribute("cy", y.toFixed(1));
  });
}

/** Return a curve between two points, bowed upwards or to the right. */
function curve([x1, y1], [x2, y2]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const side = dx < 0 ? BOW : -BOW;
  const [x, y] = [(x1 + x2) / 2 - side * dy, (y1 + y2) / 2 + side * dx];
  return `M${[x1, y1, x, y, x2, y2].map((number, at) => `${at === 2 ? "Q" : ""}${number.toFixed(1)}`).join(" ")}`;
}
