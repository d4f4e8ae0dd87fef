// The memory at one step: what is in it, what the step wrote and erased, what it read, and the order of writing.
//
//          words
//    u w |        | r        u: usage; w: write weightings; r: read weightings, a column for each head
//  slots | memory |
//        |  erase |          the vectors of the step, below the words that they change
//        |  write |
//        |   read |
//        links: slots by slots

import { element } from "./dom.js";
import { eachFrame } from "./frames.js";
import { cellAt } from "./heatmap.js";
import { BITS, WEIGHTS, upTo } from "./scales.js";
import { oneStop, walkable } from "./walk.js";

/** What is seen at the cursor. */
export class Moment {
  /** on: {point(text, {slot}), leave()}; title: the name by which a screen reader finds it. */
  constructor(run, on, title = "At the cursor") {
    Object.assign(this, { run, on });
    const { model, slots, memory } = run;
    const width = memory?.width ?? 0;
    const heads = { reads: model.read_heads, writes: model.write_heads };
    this.pictures = [
      run.has("usage") && this.slotPicture("now-usage", "usage", 1, (step) => run.trace.usage[step]),
      this.slotPicture("now-write", "write weighting", heads.writes, (step) => run.trace.write_weights[step]),
      memory && this.memoryPicture(width),
      this.slotPicture("now-read", "read weighting", heads.reads, (step) => run.trace.read_weights[step]),
      ...["erase_vectors", "write_vectors", "add_vectors", "read_vectors"]
        .filter((name) => memory && run.has(name))
        .map((name) => this.vectorPicture(name, width)),
    ].filter(Boolean);
    this.links = (run.links ?? []).map((replay, head) => this.linkPicture(replay, head, slots));
    this.element = element(
      "section",
      { className: "panel moment", ariaLabel: title },
      element("div", { className: "memory" }, ...this.pictures.map(({ element }) => element)),
      ...this.links.map(({ element }) => element),
    );
    oneStop(this.element);
  }

  moveTo(step) {
    if (step >= this.run.done) return;
    const areLinksSeen = this.element.dataset.below !== "scene";
    for (const picture of [...this.pictures, ...(areLinksSeen ? this.links : [])]) picture.draw(step);
  }

  memoryPicture(width) {
    const { run } = this;
    return picture({
      name: "memory",
      className: "slots memory-words",
      title: "Memory",
      columns: width,
      rows: run.slots,
      scale: growing(run, () => [run.memory.at(run.done), ...run.memory.kept]),
      values: (step) => run.memory.at(step + 1),
      describe: (value, column, row) => `location ${row}, word ${column}: ${value.toFixed(3)}`,
      names: { columnName: (word) => `word ${word}`, rowName: (slot) => `location ${slot}` },
      slot: (column, row) => row,
      on: this.on,
    });
  }

  /** Weights of slots, a column for each head. */
  slotPicture(name, title, heads, weights) {
    const { slots } = this.run;
    return picture({
      name,
      className: "slots",
      title,
      caption: title.split(" ")[0],
      columns: heads,
      rows: slots,
      scale: () => WEIGHTS,
      values: (step) => transposed(weights(step), heads, slots),
      describe: (value, head, slot) => `location ${slot}, ${title}${heads > 1 ? ` of head ${head}` : ""}: ${value.toFixed(3)}`,
      names: { columnName: (head) => `head ${head}`, rowName: (slot) => `location ${slot}` },
      slot: (head, slot) => slot,
      on: this.on,
    });
  }

  /** A vector for each head, below the words. */
  vectorPicture(name, width) {
    const { run } = this;
    const [heads] = run.model.trace[name];
    const title = name.replaceAll("_", " ");
    const scale = name === "erase_vectors" ? () => BITS : growing(run, () => run.trace[name]);
    return picture({
      name: `now-${name}`,
      className: "vector",
      title,
      columns: width,
      rows: heads,
      scale,
      values: (step) => run.trace[name][step],
      describe: (value, word, head) => `${title}${heads > 1 ? ` of head ${head}` : ""}, word ${word}: ${value.toFixed(3)}`,
      names: { columnName: (word) => `word ${word}`, rowName: (head) => `head ${head}` },
      on: this.on,
    });
  }

  linkPicture(replay, head, slots) {
    return picture({
      name: `link.${head}`,
      className: "slots link",
      title: "Links: was the row written right after the column?",
      columns: slots,
      rows: slots,
      scale: () => WEIGHTS,
      values: (step) => replay.at(step + 1),
      describe: (value, from, to) => `location ${to} written after location ${from}: ${value.toFixed(3)}`,
      names: { columnName: (from) => `after location ${from}`, rowName: (to) => `location ${to}` },
      slot: (from, to) => to,
      on: this.on,
    });
  }
}

/** Return a function that returns the scale of signed values, wide enough for those of all steps that are done. */
export function growing(run, arrays) {
  return whenDone(run, () => {
    let most = 1e-3;
    for (const values of arrays()) for (const value of values) most = Math.max(most, Math.abs(value));
    return upTo(most);
  });
}

/** Return a function that returns what `compute` does, which is called again only when more steps are done. */
export function whenDone(run, compute) {
  let done;
  let computed;
  return () => {
    if (done !== run.done) [done, computed] = [run.done, compute()];
    return computed;
  };
}

/** Return a picture of [rows][columns] values in one piece, which `draw(step)` shows. */
function picture({ name, className, title, caption = title, columns, rows, scale, values, names, describe, slot, on }) {
  const canvas = element("canvas", { width: columns, height: rows, role: "img" });
  const figure = element("figure", { className: `picture ${className}` }, element("figcaption", {}, caption), canvas);
  figure.style.setProperty("--rows", rows);
  figure.style.setProperty("--columns", columns);
  canvas.ariaLabel = `${title}: ${rows} × ${columns} values`;
  canvas.dataset.name = name;
  const context = canvas.getContext("2d");
  const image = new ImageData(columns, rows);
  let shown;
  const point = ({ column, row }) => {
    if (shown) on.point(describe(shown[row * columns + column], column, row), { slot: slot?.(column, row) });
  };
  const follow = eachFrame((event) => point(cellAt(canvas, event)));
  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("pointerdown", (event) => point(cellAt(canvas, event))); // a finger points by touching
  canvas.addEventListener("pointerleave", () => {
    follow.cancel();
    on.leave();
  });
  const text = (column, row) => (shown ? shown[row * columns + column].toFixed(3) : "not done yet");
  walkable(canvas, { title: () => title, columns, rows, ...names, text, point, leave: on.leave });
  return {
    element: figure,
    draw(step) {
      shown = values(step).slice(); // a replay is one piece of memory, in which others look at other steps
      const colors = scale();
      for (let index = 0; index < columns * rows; index++) colors.paint(image.data, 4 * index, shown[index]);
      context.putImageData(image, 0, 0);
    },
  };
}

function transposed(weights, heads, slots) {
  if (heads === 1) return weights;
  return Float32Array.from({ length: heads * slots }, (_, at) => weights[(at % heads) * slots + Math.floor(at / heads)]);
}
