// The part of msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md) that frames of a stream are made of.
//
// An array of numbers is a Tensor: to the server {"shape", "data"}, the data float32, little-endian, row by row.

/** Numbers in one piece: data, a Float32Array, row by row, and shape. */
export class Tensor {
  constructor(shape, data) {
    Object.assign(this, { shape, data });
  }

  /** Return a tensor of vectors of one length, [T][I]. */
  static of(vectors) {
    return new Tensor([vectors.length, vectors[0]?.length ?? 0], Float32Array.from(vectors.flat()));
  }

  /** Return the parts along the first axis, which share the data. */
  rows() {
    const size = this.shape.slice(1).reduce((product, length) => product * length, 1);
    return Array.from({ length: this.shape[0] }, (_, row) => this.data.subarray(row * size, (row + 1) * size));
  }
}

/** Return a value as msgpack: null, whole numbers, numbers, texts, lists, objects and tensors. */
export function encode(value) {
  const parts = [];
  write(value, parts);
  const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Return the value of some bytes; arrays of numbers come as tensors. */
export function decode(buffer) {
  return new Reader(buffer).value();
}

function write(value, parts) {
  if (value === null || value === undefined) parts.push([0xc0]);
  else if (typeof value === "boolean") parts.push([value ? 0xc3 : 0xc2]);
  else if (typeof value === "number") writeNumber(value, parts);
  else if (typeof value === "string") writeBytes(0xdb, new TextEncoder().encode(value), parts);
  else if (value instanceof Uint8Array) writeBytes(0xc6, value, parts);
  else if (value instanceof Tensor) write({ shape: value.shape, data: bytesOf(value.data) }, parts);
  else if (Array.isArray(value)) {
    parts.push(head(0xdd, value.length));
    for (const item of value) write(item, parts);
  } else {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    parts.push(head(0xdf, entries.length));
    for (const pair of entries) for (const item of pair) write(item, parts);
  }
}

function writeNumber(value, parts) {
  if (Number.isInteger(value) && Math.abs(value) < 2 ** 31) parts.push(head(0xd2, value));
  else parts.push(fixed(0xcb, 8, (view) => view.setFloat64(1, value)));
}

function writeBytes(code, bytes, parts) {
  parts.push(head(code, bytes.length), bytes);
}

function head(code, number) {
  return fixed(code, 4, (view) => view.setInt32(1, number));
}

function fixed(code, size, set) {
  const bytes = new Uint8Array(1 + size);
  bytes[0] = code;
  set(new DataView(bytes.buffer));
  return bytes;
}

function bytesOf({ buffer, byteOffset, byteLength }) {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Reads one value after the other. */
class Reader {
  constructor(buffer) {
    this.view = new DataView(buffer);
    this.at = 0;
  }

  value() {
    const code = this.number("getUint8", 1);
    if (code < 0x80) return code;
    if (code < 0x90) return this.object(code & 0x0f);
    if (code < 0xa0) return this.list(code & 0x0f);
    if (code < 0xc0) return this.text(code & 0x1f);
    if (code >= 0xe0) return code - 0x100;
    const read = READ[code];
    if (!read) throw new TypeError(`msgpack: a value that begins with 0x${code.toString(16)} is not known here`);
    return read(this);
  }

  number(method, size) {
    const value = this.view[method](this.at);
    this.at += size;
    return value;
  }

  bytes(size) {
    const bytes = new Uint8Array(this.view.buffer, this.at, size);
    this.at += size;
    return bytes;
  }

  text(size) {
    return new TextDecoder().decode(this.bytes(size));
  }

  list(size) {
    return Array.from({ length: size }, () => this.value());
  }

  object(size) {
    const found = Object.fromEntries(Array.from({ length: size }, () => [this.value(), this.value()]));
    const { shape, data } = found;
    if (!(data instanceof Uint8Array) || !shape) return found;
    return new Tensor(shape, new Float32Array(data.slice().buffer)); // a copy begins at a multiple of four bytes
  }
}

const READ = {
  0xc0: () => null,
  0xc2: () => false,
  0xc3: () => true,
  0xc4: (reader) => reader.bytes(reader.number("getUint8", 1)),
  0xc5: (reader) => reader.bytes(reader.number("getUint16", 2)),
  0xc6: (reader) => reader.bytes(reader.number("getUint32", 4)),
  0xca: (reader) => reader.number("getFloat32", 4),
  0xcb: (reader) => reader.number("getFloat64", 8),
  0xcc: (reader) => reader.number("getUint8", 1),
  0xcd: (reader) => reader.number("getUint16", 2),
  0xce: (reader) => reader.number("getUint32", 4),
  0xcf: (reader) => Number(reader.number("getBigUint64", 8)),
  0xd0: (reader) => reader.number("getInt8", 1),
  0xd1: (reader) => reader.number("getInt16", 2),
  0xd2: (reader) => reader.number("getInt32", 4),
  0xd3: (reader) => Number(reader.number("getBigInt64", 8)),
  0xd9: (reader) => reader.text(reader.number("getUint8", 1)),
  0xda: (reader) => reader.text(reader.number("getUint16", 2)),
  0xdb: (reader) => reader.text(reader.number("getUint32", 4)),
  0xdc: (reader) => reader.list(reader.number("getUint16", 2)),
  0xdd: (reader) => reader.list(reader.number("getUint32", 4)),
  0xde: (reader) => reader.object(reader.number("getUint16", 2)),
  0xdf: (reader) => reader.object(reader.number("getUint32", 4)),
};
