// A session of the server's, stepped over a WebSocket as /docs and docs/api.md describe it.

import { MOST_WAIT, Problem, endSession, openSession, rewindSession, sessionInfo, sessionState, waitFor } from "./api.js";
import { currentKey } from "./key.js";
import { Tensor, decode, encode } from "./msgpack.js";

const PIECE = 2 ** 16; // numbers that a frame of a long sequence brings back, at most: then the page stays responsive
const MOST_SENT = 2 ** 17; // numbers that a frame sends, at most

const MOST_TRIES = 8; // to reach a server again
const FIRST_WAIT = 0.5; // seconds, doubled each time
const LONGEST_WAIT = 8; // seconds

const LOST = { title: "No answer", detail: "The connection to the server was lost. Run it again." };
const TOO_LARGE = { title: "Too large", detail: "The server takes no frame of this size.", status: 413, code: "body_too_large" };
const CLOSED = { 1009: TOO_LARGE };

/** A session that this page has opened, and ends when it is done with it. */
export class LiveSession {
  /** Open a session of `model`; memorySize: its memory locations, where not as many as the model has by itself. */
  static async open(model, options) {
    const { id } = await openSession(model, options);
    return new LiveSession(model, id);
  }

  /** taken: the steps that the session has taken. */
  constructor(model, id, taken = 0) {
    Object.assign(this, { model, id, taken, isAstray: false, seq: 0, frames: [], tries: 0 });
  }

  /** Return the state before the first step: leaf -> nested lists. */
  first(leaves) {
    return leaves.length > 0 ? sessionState(this.id, leaves, 0) : {};
  }

  /** Return the state where the session is. */
  state(leaves) {
    return leaves.length > 0 ? sessionState(this.id, leaves) : {};
  }

  /** Put the session to a step that it was at, counted from its first. Throws Problem. */
  async rewind(step) {
    try {
      await rewindSession(this.id, step);
    } catch (error) {
      this.isAstray ||= !(error.status < 500); // it may be there all the same: it is put back before its next step
      throw error;
    }
    Object.assign(this, { taken: step, isAstray: false });
  }

  /**
   * Step the session over `inputs`, [T][I], in pieces; `onPiece` is called with the answer to each of them:
   * outputs, a list of vectors, and trace, name -> a list with the values of each step in one piece. Where the connection
   * is lost, or the server is busy, it is tried again: no frame is carried out twice. Throws Problem.
   */
  async step(inputs, traceNames, onPiece) {
    if (this.isAstray) await this.rewind(this.taken);
    let [done, size] = [0, this.pieceSize(traceNames)];
    const take = (answer) => {
      done += answer.outputs.length;
      this.taken += answer.outputs.length;
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
    const answers = [];
    for (let start = 0; start < Math.max(inputs.length, 1); start += size) {
      const frame = { seq: this.seq++, inputs: numbersOf(inputs.slice(start, start + size)), trace: traceNames };
      answers.push(this.send(encode(frame)));
    }
    if (!this.socket && this.tries === 0) this.connect(); // else that is under way
    for (const coming of answers) onPiece(await coming);
  }

  /** End the session. */
  async end() {
    this.isEnded = true;
    this.socket?.close();
    this.fail(new Problem(LOST));
    await endSession(this.id);
  }

  pieceSize(traceNames) {
    const shapes = [[this.model.output_size], ...traceNames.map((name) => this.model.trace[name])];
    const numbers = shapes.reduce((sum, shape) => sum + shape.reduce((product, length) => product * length, 1), 0);
    return Math.max(1, Math.min(Math.ceil(PIECE / numbers), Math.ceil(MOST_SENT / this.model.input_size)));
  }

  /** Send a frame, now or when the server has greeted. Returns the answer to it; they come in the order of the frames. */
  send(frame) {
    const { promise, resolve, reject } = Promise.withResolvers();
    promise.catch(() => {}); // that of a later piece is not waited for, where an earlier one was refused
    this.frames.push({ frame, resolve, reject });
    if (this.isGreeted) this.socket.send(frame);
    return promise;
  }

  connect() {
    const url = new URL(`sessions/${encodeURIComponent(this.id)}/stream`, document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const key = currentKey();
    const socket = new WebSocket(url, key ? ["engram.msgpack", `engram.bearer.${key}`] : ["engram.msgpack"]);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }) => socket === this.socket && this.receive(decode(data)));
    socket.addEventListener("close", ({ code }) => socket === this.socket && this.lose(CLOSED[code]));
    this.socket = socket;
  }

  receive(message) {
    if (message.type === "session") return this.greet();
    if (message.type === "error") return this.lose({ ...message, retryAfter: message.retry_after });
    const { seq, outputs, trace } = message;
    const waiting = this.frames.shift();
    this.tries = 0;
    if (!outputs) return waiting?.reject(new Problem(unanswered(seq)));
    const steps = Object.entries(trace ?? {}).map(([name, tensor]) => [name, tensor.rows()]);
    waiting?.resolve({ outputs: outputs.rows().map((row) => [...row]), trace: Object.fromEntries(steps) });
  }

  /** Send all frames that are not answered: also those that were sent over a connection before. */
  greet() {
    this.isGreeted = true;
    for (const { frame } of this.frames) this.socket.send(frame);
  }

  /** Connect again after a while, if an answer is waited for and there may be one; fault: what the server said, if anything. */
  async lose(fault = LOST) {
    const problem = new Problem(fault);
    this.socket?.close();
    Object.assign(this, { socket: undefined, isGreeted: false });
    const mayPass = fault === LOST || (problem.isPassing && problem.retryAfter <= MOST_WAIT);
    if (this.frames.length === 0 || !mayPass || ++this.tries > MOST_TRIES) return this.fail(problem);
    const seconds = problem.retryAfter ?? Math.min(FIRST_WAIT * 2 ** (this.tries - 1), LONGEST_WAIT);
    await waitFor(seconds, `${problem.title}.`);
    if (!this.isEnded && (await this.isThere())) this.connect();
  }

  /** Return whether the session may still be there; where it is not, say why. */
  async isThere() {
    try {
      await sessionInfo(this.id);
      return true;
    } catch (error) {
      if (error.isPassing) this.lose();
      else this.fail(error);
      return false;
    }
  }

  /** Fail what is still waited for, of which the server has carried out nothing. */
  fail(problem) {
    this.tries = 0;
    this.seq -= this.frames.length;
    for (const { reject } of this.frames.splice(0)) reject(problem);
  }
}

function unanswered(seq) {
  return { title: "Answer lost", status: 409, detail: `Frame ${seq} was carried out, but its answer is not kept. Run it again.` };
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
