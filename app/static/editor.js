import { cellAt, heatmap, paint } from "./heatmap.js";
import { BITS } from "./scales.js";

// In CSS pixels.
const ROW_HEIGHT = 20; // enough to hit with a finger
const TALLEST = 480;
const LEAST_ROW_HEIGHT = 6;

const LEVELS = [1, 0.8, 0.6, 0.4, 0.2, 0, -0.2, -0.4, -0.6, -0.8, -1]; // to draw a number at, from above

/**
 * A pattern to draw: a grid of bits, where a press turns a cell over and a drag gives the others that it meets the same
 * bit; and, if the task has a `levelName`, a number in [-1, 1] for each column, drawn below as high as it is.
 *
 * The pattern is a list of vectors, one for each column: `rows` bits, and the number.
 */
export class Editor {
  /** `onChange` is called after every change by hand, `onPoint` as by a heat map. */
  constructor(container, onChange, onPoint) {
    this.container = container;
    this.onChange = onChange;
    this.onPoint = onPoint;
    this.pattern = [];
  }

  /** Draw patterns for `task` from now on. */
  setTask(task) {
    this.task = task;
  }

  /** Draw on this pattern from now on. */
  load(pattern) {
    this.pattern = structuredClone(pattern);
    this.show();
  }

  clear() {
    this.load(this.pattern.map((vector) => vector.map(() => 0)));
  }

  show() {
    this.container.replaceChildren(this.bits(), ...(this.task.levelName ? [this.levels()] : []));
  }

  bits() {
    const { rows } = this.task;
    const plot = {
      ...this.axes(),
      name: "drawing",
      title: "Drawing",
      columns: this.pattern.map((vector) => vector.slice(0, rows)),
      rows,
      rowLabels: this.task.channels.slice(0, rows),
      rowName: "channel",
      rowHeight: Math.min(ROW_HEIGHT, Math.max(LEAST_ROW_HEIGHT, Math.floor(TALLEST / rows))),
    };
    let bit;
    return this.drawable(plot, {
      press: ({ column, row }) => (bit = 1 - this.pattern[column][row]),
      draw: ({ column, row }) => (plot.columns[column][row] = this.pattern[column][row] = bit),
    });
  }

  levels() {
    const { rows, levelName } = this.task;
    const column = (level) => LEVELS.map((_, row) => (row === nearestLevel(level) ? 1 : 0));
    const plot = {
      ...this.axes(),
      name: levelName,
      title: `Drawing of the ${levelName}`,
      columns: this.pattern.map((vector) => column(vector[rows])),
      rows: LEVELS.length,
      rowLabels: LEVELS.map((level) => level.toFixed(1)),
      rowName: levelName,
    };
    return this.drawable(plot, {
      draw: (cell) => {
        this.pattern[cell.column][rows] = LEVELS[cell.row];
        plot.columns[cell.column] = column(LEVELS[cell.row]);
      },
    });
  }

  axes() {
    return { columnName: this.task.columnName, columnsPerItem: perItem(this.task), scale: BITS, ruled: true };
  }

  /** Return the figure of `plot`, to draw on: `press` is called with the first cell, `draw` with every one. */
  drawable(plot, { press, draw }) {
    let last;
    const one = (cell) => {
      last = cell;
      press?.(cell);
      drawTo(cell);
    };
    const figure = heatmap(Object.assign(plot, { press: one }), this.onPoint);
    const canvas = figure.querySelector("canvas");
    const drawTo = (cell) => {
      cellsBetween(last, cell).forEach(draw);
      last = cell;
      paint(canvas, plot);
      this.onChange();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      one(cellAt(canvas, event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) drawTo(cellAt(canvas, event));
    });
    return figure;
  }
}

function perItem({ vectorsPerItem = 1 } = {}) {
  return vectorsPerItem;
}

function nearestLevel(level) {
  const distances = LEVELS.map((other) => Math.abs(other - level));
  return distances.indexOf(Math.min(...distances));
}

/** Return the cells on the line from one to another: a fast pointer is seen only here and there. */
function cellsBetween(from, to) {
  const columns = to.column - from.column;
  const rows = to.row - from.row;
  const steps = Math.max(Math.abs(columns), Math.abs(rows), 1);
  return Array.from({ length: steps + 1 }, (_, step) => ({
    column: from.column + Math.round((columns * step) / steps),
    row: from.row + Math.round((rows * step) / steps),
  }));
}
