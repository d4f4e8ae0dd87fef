// The vectors of a model by their parts, as an imported graph names them: what they are called and how they are drawn.
//
// A part is {name, title, start, size, range, style}: `size` numbers of the vector from `start` on; range: [low, high]
// or null.
// Its style: "wave", a hop of a signal, which continues from step to step; "curves", a few numbers, a curve for each;
// "map", more of them, a heat map.

const MOST_CURVES = 8;

/** Return the parts of the inputs of a step. */
export function inputParts(model) {
  return partsOf(model, model.graph?.inputs ?? [{ name: "input", shape: [model.input_size], range: null }]);
}

/** Return the parts of the outputs of a step. */
export function outputParts(model) {
  return partsOf(model, model.graph?.outputs ?? [{ name: "output", shape: [model.output_size], range: null }]);
}

/** Return the traces of a graph, each as the only part of its vector. */
export function traceParts(model) {
  return (model.graph?.trace ?? []).flatMap((trace) => partsOf(model, [trace]));
}

/** Return a name as a person writes it. */
export function titleOf(name) {
  return name.replaceAll("_", " ");
}

/** Return how long a step is, in seconds, or undefined where it is not known. */
export function secondsPerStep({ graph }) {
  const { sampling_rate: rate, hop = 1 } = graph?.step ?? {};
  return rate ? hop / rate : undefined;
}

/** Return what a step is as text, such as "512 samples at 16 kHz, 32 ms", or undefined where it is not known. */
export function stepText(model) {
  const { sampling_rate: rate, hop } = model.graph?.step ?? {};
  const samples = hop && `${number(hop)} sample${hop === 1 ? "" : "s"}`;
  if (!rate) return samples;
  const seconds = secondsPerStep(model);
  if (!samples) return `${duration(seconds)}, ${frequency(rate)}`;
  return `${samples} at ${frequency(rate)}, ${duration(seconds)}`;
}

/** Return a time as text, in ms or s. */
export function duration(seconds) {
  return seconds < 0.1 ? `${short(1000 * seconds)} ms` : `${number(seconds, 2)} s`;
}

export function frequency(hertz) {
  return hertz >= 1000 ? `${number(hertz / 1000, 3)} kHz` : `${number(hertz, 3)} Hz`;
}

export function number(value, digits = 0) {
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Return a number with three digits that count. */
export function short(value) {
  return `${Number(value.toPrecision(3))}`;
}

/** Return the values of a part in `vectors` ([T][...]), [T][size]. */
export function columnsOf({ start, size }, vectors) {
  return vectors.map((vector) => vector.slice(start, start + size));
}

/** Return the least and the greatest of some numbers, of which there may be millions. */
export function extent(values) {
  let [least, greatest] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  return [least, greatest];
}

function partsOf(model, named) {
  let start = 0;
  return named.map(({ name, shape, range }) => {
    const size = shape.reduce((product, length) => product * length, 1);
    const part = { name, title: titleOf(name), start, size, range, style: styleOf(model, size) };
    start += size;
    return part;
  });
}

function styleOf({ graph }, size) {
  const hop = graph?.step?.hop;
  if (hop > 1 && size === hop) return "wave";
  return size <= MOST_CURVES ? "curves" : "map";
}
