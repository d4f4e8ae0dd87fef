// A strip of curves over time: numbers from 0 to 1, a line for each name, and a dot for each bit.

import { Strip } from "./strip.js";

const EDGE = 3; // CSS pixels above 1 and below 0
const MOST = 210; // CSS pixels, the height up to which it grows

/**
 * Curves in place of a picture. plot: as that of a strip, with curves: [{name, color, dashed, dots, values(step)}], where
 * color is the name of a colour of the page's, and values returns a number, or null where there is none.
 */
export class CurveStrip extends Strip {
  constructor(plot, length) {
    super({ rows: 1, rowName: "", scale: () => undefined, values: () => undefined, ...plot }, length);
    this.element.classList.add("curves");
  }

  get most() {
    return MOST;
  }

  draw() {
    this.fit();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.field;
    const ratio = window.devicePixelRatio;
    Object.assign(this.canvas, { width: Math.max(1, width * ratio), height: Math.max(1, height * ratio) });
    this.context.scale(ratio, ratio);
    const style = getComputedStyle(this.element);
    const place = (step, value) => [((step + 0.5) * width) / this.length, EDGE + (1 - value) * (height - 2 * EDGE)];
    for (const curve of this.plot.curves) this.curve(curve, place, style.getPropertyValue(curve.color));
  }

  curve({ values, dashed, dots }, place, color) {
    const { context } = this;
    Object.assign(context, { strokeStyle: color, fillStyle: color, lineWidth: 1.5, lineJoin: "round" });
    context.setLineDash(dashed ? [3, 3] : []);
    context.beginPath();
    let isOn = false;
    for (let step = 0; step < this.length; step++) {
      const value = values(step) ?? undefined;
      if (value === undefined) isOn = false;
      else if (dots) context.fillRect(...place(step, value).map((at) => at - 1), 2, 2);
      else context[isOn ? "lineTo" : "moveTo"](...place(step, value));
      isOn = value !== undefined;
    }
    context.stroke();
  }

  picture(from) {
    const { curves } = this.plot;
    return {
      ...super.picture(from),
      rows: curves.length,
      rowName: (row) => curves[row].name,
      text: (step, row) => curves[row].values(step)?.toFixed(3) ?? "not asked for",
    };
  }

  describe(step) {
    const shown = this.plot.curves.map(({ name, values }) => `${name} ${values(step)?.toFixed(3) ?? "not asked for"}`);
    return `time ${step}: ${shown.join(", ")}`;
  }
}
