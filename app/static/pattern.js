// What was drawn or written by hand, as a text for the address of the page.
//
// Words stand as they were written. Of vectors: COLUMNS.BITS.OTHERS.DATA: how many vectors there are; how many of the
// numbers of each are bits, the first ones, and how many are not; then in base64url the bits, eight to a byte, vector by
// vector, and after them the others as float32, little-endian.

import { Problem } from "./api.js";

const LONGEST = 1500; // characters

/** Return a pattern as text, or undefined where that is too long. */
export function textOf(task, pattern) {
  const text = task.words ? task.join(pattern) : textOfVectors(pattern);
  return text.length <= LONGEST ? text : undefined;
}

/** Return the pattern that a text stands for. Throws Problem where it is none of the task. */
export function patternOf(task, text) {
  if (task.words) return task.split(text);
  const found = /^(\d{1,6})\.(\d{1,6})\.(\d{1,6})\.([\w-]*)$/.exec(text);
  if (!found) refuse("COLUMNS.BITS.OTHERS.DATA, whole numbers, and data as base64url", `“${text.slice(0, 40)}”`);
  const [columns, bits, others] = found.slice(1, 4).map(Number);
  const width = task.width ?? task.rows + (task.levelName ? 1 : 0);
  if (bits + others !== width) refuse(`vectors of ${width} numbers`, `vectors of ${bits + others}`);
  const bytes = bytesOf(found[4]);
  const size = Math.ceil((columns * bits) / 8) + 4 * columns * others;
  if (bytes.length !== size) refuse(`${size} bytes of data`, `${bytes.length}`);
  return vectorsOf(bytes, { columns, bits, others });
}

function textOfVectors(vectors) {
  const [first] = vectors;
  const isOther = first.map((_, row) => vectors.some((vector) => vector[row] !== 0 && vector[row] !== 1));
  const bits = isOther.includes(true) ? isOther.indexOf(true) : first.length;
  const flags = vectors.flatMap((vector) => vector.slice(0, bits));
  const others = Float32Array.from(vectors.flatMap((vector) => vector.slice(bits)));
  const bytes = new Uint8Array(Math.ceil(flags.length / 8) + others.byteLength);
  flags.forEach((flag, at) => (bytes[at >> 3] |= flag << (at & 7)));
  bytes.set(new Uint8Array(others.buffer), bytes.length - others.byteLength);
  return [vectors.length, bits, first.length - bits, base64Of(bytes)].join(".");
}

function vectorsOf(bytes, { columns, bits, others }) {
  const view = new DataView(bytes.buffer, Math.ceil((columns * bits) / 8));
  const number = (column, row) => view.getFloat32(4 * (column * others + row), true);
  const bit = (at) => (bytes[at >> 3] >> (at & 7)) & 1;
  return Array.from({ length: columns }, (_, column) => [
    ...Array.from({ length: bits }, (_, row) => bit(column * bits + row)),
    ...Array.from({ length: others }, (_, row) => number(column, row)),
  ]);
}

function base64Of(bytes) {
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function bytesOf(text) {
  try {
    const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(plain, (character) => character.charCodeAt(0));
  } catch {
    return refuse("data as base64url", `“${text.slice(0, 40)}”`);
  }
}

function refuse(expected, got) {
  const detail = "what was drawn cannot be read from the address (drawn=...): copy the whole of the link again.";
  throw new Problem({ title: "Not a drawing of this model", detail, expected, got });
}
