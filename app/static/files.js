// Files of signals: sound as WAV, or numbers as JSON, CSV or NumPy's npy. Each fault is thrown as a Problem.

import { Problem } from "./api.js";
import { frequency, number } from "./parts.js";

const MOST_BYTES = 64 * 2 ** 20;

/** Return the vectors in a file for `task` (see signals.js), [T][width]. */
export async function readSignal(file, task) {
  if (file.size > MOST_BYTES) refuse(file.name, `a file of at most ${number(MOST_BYTES)} bytes`, number(file.size));
  const bytes = await file.arrayBuffer();
  const begin = String.fromCharCode(...new Uint8Array(bytes.slice(0, 6)));
  if (begin.startsWith("RIFF")) return fromSound(readWav(bytes, file.name), task, file.name);
  if (begin === "\x93NUMPY") return fromNumbers(readNpy(bytes, file.name), task, file.name);
  const text = new TextDecoder().decode(bytes);
  const values = /^\s*[[{]/.test(text) ? readJson(text, file.name) : readCsv(text);
  return fromNumbers(values, task, file.name);
}

/** Return sound as vectors: its channels' mean as the wave, and zeros for all else that a step takes. */
function fromSound({ rate, samples }, task, name) {
  const wave = task.parts.find(({ style }) => style === "wave");
  if (!wave) refuse(name, `JSON, CSV or NumPy: no part of a step is a piece of a signal`, "a WAV file");
  if (task.samplingRate && rate !== task.samplingRate) {
    const [asked, had] = [task.samplingRate, rate].map(frequency);
    refuse(name, `${asked}: convert it, as by ffmpeg -i IN.wav -ar ${task.samplingRate} OUT.wav`, had, "sampling rate");
  }
  return pieces(samples, wave.size).map((piece) => {
    const vector = Array(task.width).fill(0);
    vector.splice(wave.start, piece.length, ...piece);
    return vector;
  });
}

/** Return numbers, [T][width], or a plain list of them where a step is one number or a piece of a signal. */
function fromNumbers(values, task, name) {
  const expected = `a list of steps of ${number(task.width)} numbers`;
  if (!Array.isArray(values) || values.length === 0) refuse(name, expected, "no list of steps");
  const isFlat = values.every((value) => typeof value === "number");
  const isOneSignal = task.width === 1 || (task.parts.length === 1 && task.parts[0].style === "wave");
  const vectors = isFlat && isOneSignal ? pieces(values, task.width) : values;
  vectors.forEach((vector, step) => check(vector, step, task.width, name));
  return vectors;
}

function check(vector, step, width, name) {
  if (!Array.isArray(vector)) refuse(name, `a list of ${number(width)} numbers`, `${vector}`, `step ${step}`);
  if (vector.length !== width) refuse(name, `${number(width)} numbers`, number(vector.length), `step ${step}`);
  const wrong = vector.findIndex((value) => !Number.isFinite(value));
  if (wrong >= 0) refuse(name, "a finite number", `${vector[wrong]}`, `number ${wrong} of step ${step}`);
}

/** Return a signal in pieces of `size`, the last one with zeros at its end. */
function pieces(samples, size) {
  return Array.from({ length: Math.ceil(samples.length / size) }, (_, step) => {
    const piece = Array.from(samples.slice(step * size, (step + 1) * size));
    return piece.concat(Array(size - piece.length).fill(0));
  });
}

// How samples of WAV files are read, by their format and bits: 1 is PCM, 3 is float.
const SAMPLES = {
  "1/8": (view, at) => (view.getUint8(at) - 128) / 128,
  "1/16": (view, at) => view.getInt16(at, true) / 2 ** 15,
  "1/24": (view, at) => (view.getInt16(at + 1, true) * 256 + view.getUint8(at)) / 2 ** 23,
  "1/32": (view, at) => view.getInt32(at, true) / 2 ** 31,
  "3/32": (view, at) => view.getFloat32(at, true),
  "3/64": (view, at) => view.getFloat64(at, true),
};
const EXTENSIBLE = 0xfffe; // the format stands 24 bytes further on

/** Return the sampling rate of a WAV file, and the mean of its channels, from -1 to 1. */
function readWav(bytes, name) {
  const view = new DataView(bytes);
  const { "fmt ": head, data } = chunksOf(view);
  const isWhole = head?.size >= 16 && data;
  if (!isWhole) refuse(name, "a WAV file with the chunks fmt and data", "one without, or cut off");
  const tag = view.getUint16(head.start, true);
  const format = tag === EXTENSIBLE && head.size >= 26 ? view.getUint16(head.start + 24, true) : tag;
  const bits = view.getUint16(head.start + 14, true);
  const sample = SAMPLES[`${format}/${bits}`];
  if (!sample) refuse(name, "samples of 8, 16, 24 or 32 bits, or float", `format ${format} of ${bits} bits`);
  const channels = Math.max(1, view.getUint16(head.start + 2, true));
  const frame = (channels * bits) / 8;
  const count = Math.floor(data.size / frame);
  if (count === 0) refuse(name, "at least one sample", "none");
  const samples = Float64Array.from({ length: count }, (_, index) => {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++)
      sum += sample(view, data.start + index * frame + (channel * bits) / 8);
    return sum / channels;
  });
  return { rate: view.getUint32(head.start + 4, true), samples };
}

/** Return the chunks of a WAV file by name, {start, size} in bytes; one that is cut off has what is there. */
function chunksOf(view) {
  const chunks = {};
  for (let start = 12; start + 8 <= view.byteLength; ) {
    const name = String.fromCharCode(...new Uint8Array(view.buffer, start, 4));
    const size = view.getUint32(start + 4, true);
    chunks[name] = { start: start + 8, size: Math.min(size, view.byteLength - start - 8) };
    start += 8 + size + (size % 2);
  }
  return chunks;
}

// How numbers of npy files are read, by their dtype.
const NUMBERS = {
  "<f4": [4, (view, at) => view.getFloat32(at, true)],
  "<f8": [8, (view, at) => view.getFloat64(at, true)],
  "<i2": [2, (view, at) => view.getInt16(at, true)],
  "<i4": [4, (view, at) => view.getInt32(at, true)],
};

/** Return the array of an npy file as lists, of its rows where it has two axes. */
function readNpy(bytes, name) {
  const view = new DataView(bytes);
  if (bytes.byteLength < 12) refuse(name, "an npy file", "one that is cut off");
  const start = view.getUint8(6) === 1 ? 10 + view.getUint16(8, true) : 12 + view.getUint32(8, true);
  const header = new TextDecoder("latin1").decode(bytes.slice(10, start));
  const [, dtype] = /'descr': *'([^']*)'/.exec(header) ?? [];
  const shape = (/'shape': *\(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").filter((part) => part.trim()).map(Number);
  const [size, read] = NUMBERS[dtype] ?? refuse(name, `numbers of ${Object.keys(NUMBERS).join(", ")}`, `${dtype}`);
  const count = shape.reduce((product, length) => product * length, 1);
  if (shape.length === 0 || shape.length > 2) refuse(name, "one or two axes", `${shape.length}`);
  if (/'fortran_order': *True/.test(header)) refuse(name, "an array in C order", "one in Fortran order");
  if (start + count * size > bytes.byteLength) refuse(name, `${number(count)} numbers`, "a file that is cut off");
  const values = Array.from({ length: count }, (_, index) => read(view, start + index * size));
  return shape.length === 1 ? values : Array.from({ length: shape[0] }, (_, row) => rowOf(values, row, shape[1]));
}

function rowOf(values, row, width) {
  return values.slice(row * width, (row + 1) * width);
}

/** Return the lists of a JSON file: the whole of it, or its "inputs". */
function readJson(text, name) {
  try {
    const document = JSON.parse(text);
    return document.inputs ?? document;
  } catch (error) {
    return refuse(name, "JSON", error.message);
  }
}

/** Return the rows of a CSV file; a first line of names is left out. */
function readCsv(text) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  const rows = lines.map((line) => line.trim().split(/[,;\t ]+/).map(Number));
  return rows[0]?.some(Number.isNaN) && rows.length > 1 ? rows.slice(1) : rows;
}

/** Throw the Problem of a file. */
function refuse(name, expected, got, place) {
  const detail = place ? `${name}, ${place}` : name;
  throw new Problem({ title: "The file cannot be used", detail, expected, got });
}
