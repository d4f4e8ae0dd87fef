// A session of the server's, stepped over a WebSocket as /docs and docs/api.md describe it.

import { Problem, endSession, openSession, sessionState } from "./api.js";
import { currentKey } from "./key.js";
import { Tensor, decode, encode } from "./msgpack.js";

const PIECE = 2 ** 16; // numbers that a frame of a long sequence brings back, at most: then the page stays responsive
const MOST_SENT = 2 ** 17; // numbers that a frame sends, at most

const LOST = { title: "No answer", detail: "The connection to the server was lost. Run it again." };
const CLOSED = { 1009: { title: "Too large", detail: "The server takes no frame of this size.", code: "body_too_large" } };

/** A session that this page has opened, and ends when it is done with it. */
export class LiveSession {
  /** Open a session of `model`; memorySize: its memory slots, where not as many as the model has by itself. */
  static async open(model, options) {
    const { id } = await openSession(model, options);
    return new LiveSession(model, id);
  }

  constructor(model, id) {
    Object.assign(this, { model, id, seq: 0, answers: [] });
  }

  /** Return the state before the first step: leaf -> nested lists. */
  first(leaves) {
    return leaves.length > 0 ? sessionState(this.id, leaves, 0) : {};
  }

  /** Return the state where the session is. */
  state(leaves) {
    return leaves.length > 0 ? sessionState(this.id, leaves) : {};
  }

  /**
   * Step the session over `inputs`, [T][I], in pieces; `onPiece` is called with the answer to each of them:
   * outputs, a list of vectors, and trace, name -> a list with the values of each step in one piece. Throws Problem.
   */
  async step(inputs, traceNames, onPiece) {
    let [done, size] = [0, this.pieceSize(traceNames)];
    const take = (answer) => {
      done += answer.outputs.length;
      onPiece(answer);
    };
    do {
      try {
        await this.stepInPieces(inputs.slice(done), size, traceNames, take);
      } catch (error) {
        if (!isTooLarge(error) || size < 2) throw error;
        size = Math.ceil(Math.min(size, inputs.length - done) / 2);
      }
    } while (done < inputs.length);
  }

  /** Step the session over `inputs`, a frame after the other, of `size` steps each. */
  async stepInPieces(inputs, size, traceNames, onPiece) {
    const socket = await this.connected();
    const answers = [];
    for (let start = 0; start < Math.max(inputs.length, 1); start += size) {
      const frame = { seq: this.seq++, inputs: numbersOf(inputs.slice(start, start + size)), trace: traceNames };
      answers.push(this.answer());
      socket.send(encode(frame));
    }
    for (const coming of answers) onPiece(await coming);
  }

  /** End the session. */
  async end() {
    this.socket?.close();
    await endSession(this.id);
  }

  pieceSize(traceNames) {
    const shapes = [[this.model.output_size], ...traceNames.map((name) => this.model.trace[name])];
    const numbers = shapes.reduce((sum, shape) => sum + shape.reduce((product, length) => product * length, 1), 0);
    return Math.max(1, Math.min(Math.ceil(PIECE / numbers), Math.ceil(MOST_SENT / this.model.input_size)));
  }

  /** Return the socket, when the server has greeted. */
  async connected() {
    if (this.socket) return this.socket;
    const url = new URL(`sessions/${encodeURIComponent(this.id)}/stream`, document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const key = currentKey();
    const socket = new WebSocket(url, key ? ["engram.msgpack", `engram.bearer.${key}`] : ["engram.msgpack"]);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }) => this.receive(decode(data)));
    socket.addEventListener("close", ({ code }) => socket === this.socket && this.lose(CLOSED[code]));
    const greeting = this.answer();
    this.socket = socket;
    const { seq } = await greeting;
    this.seq = (seq ?? -1) + 1;
    return socket;
  }

  /** Return what the server says next, in the order in which it was asked. */
  answer() {
    const { promise, resolve, reject } = Promise.withResolvers();
    promise.catch(() => {}); // that of a later piece is not waited for, where an earlier one was refused
    this.answers.push({ resolve, reject });
    return promise;
  }

  receive(message) {
    const { type, outputs, trace } = message;
    if (type === "error") return this.lose(message);
    const waiting = this.answers.shift();
    if (type !== "result") return waiting?.resolve(message);
    const steps = Object.entries(trace ?? {}).map(([name, tensor]) => [name, tensor.rows()]);
    waiting?.resolve({ outputs: outputs.rows().map((row) => [...row]), trace: Object.fromEntries(steps) });
  }

  /** Fail what is still waited for: with what the server said, or because it says no more. */
  lose(problem = LOST) {
    this.socket = undefined;
    const error = new Problem({ ...problem, retryAfter: problem.retry_after });
    for (const { reject } of this.answers.splice(0)) reject(error);
  }
}

/** Return whether the server takes fewer steps at a time. */
function isTooLarge({ code, expected }) {
  return code === "body_too_large" || /^at most \d+ (steps|bytes)$/.test(expected);
}

/** Return vectors as a tensor; what is not all numbers goes as it is, so that the server says what is wrong with it. */
function numbersOf(inputs) {
  const areNumbers = inputs.every((vector) => vector.every((value) => typeof value === "number"));
  const isEven = inputs.every((vector) => vector.length === inputs[0].length);
  return areNumbers && isEven ? Tensor.of(inputs) : inputs;
}
