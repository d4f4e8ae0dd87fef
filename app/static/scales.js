// Colour scales whose lightness changes evenly, so that equal steps of value look like equal steps.

import { extent } from "./parts.js";

const INK = ["#03080a", "#002837", "#004b62", "#006f88", "#0093a8", "#3bb6c4", "#8ed7dd"];

const MAGMA = [
  "#000004", "#0b0924", "#20114b", "#3b0f70", "#57157e", "#721f81", "#8c2981", "#a8327d",
  "#c43c75", "#de4968", "#f1605d", "#fa7f5e", "#fe9f6d", "#febf84", "#fddea0", "#fcfdbf",
];

// Blue below, red above, dark at zero.
const BERLIN = [
  "#9eb0ff", "#79abed", "#519fd3", "#3685ad", "#286886", "#1d4b61", "#14303e", "#111a20", "#131313",
  "#2b0e01", "#411201", "#5b1d08", "#7d341e", "#9e513f", "#be6f63", "#df8f89", "#ffadad",
];

const SHADES = 1024;

/** Data in [0, 1]: bits and their probabilities. */
export const BITS = scale(INK, 0, 1);

/** Tokens of a vocabulary of this many. */
export function tokens(vocabularySize) {
  return scale(INK, 0, vocabularySize - 1);
}

/** Weightings and gates, in [0, 1]. */
export const WEIGHTS = scale(MAGMA, 0, 1);

/** From zero up to the largest of `values` (a list of columns). */
export function positive(values) {
  return scale(MAGMA, 0, extent(values.flat())[1]);
}

/** As far below zero as above it, wide enough for all of `values` (a list of columns). */
export function signed(values) {
  const [least, greatest] = extent(values.flat());
  return upTo(Math.max(Math.abs(least), Math.abs(greatest)));
}

/** As far below zero as above it, wide enough for `most`. */
export function upTo(most) {
  return scale(BERLIN, -most, most);
}

/** Wide enough for `range` ([low, high] or null) and all of `values` (a list of columns), zero where it belongs. */
export function wide(values, range) {
  const [least, greatest] = extent([...values, range ?? [0]].flat());
  return least < 0 ? signed([[least, greatest]]) : scale(MAGMA, range ? least : 0, greatest);
}

/**
 * Return a scale: color(value), as [red, green, blue]; paint(data, at, value), which puts the colour into the bytes of an
 * image, for pictures that are drawn many times a second; gradient, for CSS.
 */
function scale(anchors, low, high) {
  const colors = anchors.map(parse);
  const span = high - low || 1;
  const table = tableOf(colors);
  return {
    low,
    high,
    gradient: `linear-gradient(to right, ${anchors.join(", ")})`,
    color: (value) => between(colors, (value - low) / span),
    paint(data, at, value) {
      const shade = Math.round((SHADES - 1) * Math.min(Math.max((value - low) / span, 0), 1));
      data[at] = table[3 * shade];
      data[at + 1] = table[3 * shade + 1];
      data[at + 2] = table[3 * shade + 2];
      data[at + 3] = 255;
    },
  };
}

/** Return the colours of all shades, red, green and blue one after the other. */
function tableOf(colors) {
  const table = new Uint8ClampedArray(3 * SHADES);
  for (let shade = 0; shade < SHADES; shade++) table.set(between(colors, shade / (SHADES - 1)), 3 * shade);
  return table;
}

/** Return the colour at `fraction` of the way through `colors`, as [red, green, blue]. */
function between(colors, fraction) {
  const position = Math.min(Math.max(fraction, 0), 1) * (colors.length - 1);
  const index = Math.min(Math.floor(position), colors.length - 2);
  const share = position - index;
  return colors[index].map((channel, i) => channel + share * (colors[index + 1][i] - channel));
}

function parse(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}
