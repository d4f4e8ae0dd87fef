// The part of the HTTP interface that the page speaks. Whatever goes wrong is thrown as a Problem.
// Paths are relative to the page, which a proxy may serve under a prefix.

import { anotherKey, currentKey } from "./key.js";

const PIECE = 2 ** 16; // numbers that a piece of a long sequence has, in and out

/** A refusal, as the server's problem+json (RFC 9457) words it. */
export class Problem extends Error {
  constructor({ title, detail, code, expected, got, retryAfter }) {
    super(detail);
    Object.assign(this, { title, code, expected, got, retryAfter });
  }
}

/** Return the names of the models that are served. */
export async function modelNames() {
  const models = await json("GET", "models");
  return models.map((model) => model.name);
}

/** Return the card of a model. */
export function describeModel(name) {
  return json("GET", `models/${encodeURIComponent(name)}`);
}

/** Return the recording of inputs of a model, [T][I]. */
export async function modelSample(name) {
  const { inputs } = await json("GET", `models/${encodeURIComponent(name)}/sample`);
  return inputs;
}

/** Forget the key, and ask for another one. */
export function forgetKey() {
  return anotherKey(currentKey(), "The key is forgotten.", faultOf);
}

/**
 * Run `inputs` ([T][I]) through a fresh session of `model`, which is gone afterwards.
 *
 * memorySize: its memory slots, where not as many as the model has by itself.
 * Returns outputs [T][O], the named traces, each [T][...], and the named leaves of the state after the last step.
 */
export async function runSequence(model, inputs, traceNames, leaves, memorySize) {
  const { id } = await json("POST", "sessions", { model: model.name, memory_size: memorySize });
  const session = `sessions/${encodeURIComponent(id)}`;
  try {
    const pieces = await takeSteps(model, session, inputs, traceNames);
    const trace = traceNames.map((name) => [name, pieces.flatMap((piece) => piece.trace[name])]);
    const outputs = pieces.flatMap((piece) => piece.outputs);
    return { outputs, trace: Object.fromEntries(trace), state: await finalState(session, leaves) };
  } finally {
    // Should even this fail, the error of the run itself is the one to hear about.
    await request("DELETE", session).catch(() => {});
  }
}

/** Step a session over `inputs` in pieces; where the server takes no piece of this size, in smaller ones. */
async function takeSteps(model, session, inputs, trace) {
  const answers = [];
  let size = Math.ceil(PIECE / numbersOfStep(model, trace));
  for (let start = 0; start < Math.max(inputs.length, 1); start += size) {
    const piece = { inputs: inputs.slice(start, start + size), trace };
    try {
      answers.push(await json("POST", `${session}/steps`, piece));
    } catch (error) {
      if (!isTooLarge(error) || piece.inputs.length < 2) throw error;
      size = Math.ceil(piece.inputs.length / 2);
      start -= size; // from the same step again
    }
  }
  return answers;
}

/** Return how many numbers a step sends and gives. */
function numbersOfStep(model, trace) {
  const shapes = [[model.input_size], [model.output_size], ...trace.map((name) => model.trace[name])];
  return shapes.reduce((sum, shape) => sum + shape.reduce((product, length) => product * length, 1), 0);
}

function isTooLarge({ code, expected }) {
  return code === "body_too_large" || /^at most \d+ (steps|bytes)$/.test(expected);
}

async function finalState(session, leaves) {
  if (leaves.length === 0) return {};
  const { state } = await json("GET", `${session}/state?names=${leaves.map(encodeURIComponent).join()}`);
  return state;
}

async function json(method, path, body) {
  const response = await request(method, path, body);
  return response.json();
}

/** Return the answer to a request; where the server takes no key that there is, to the same one with another key. */
async function request(method, path, body) {
  for (;;) {
    const key = currentKey();
    const response = await answerTo(method, path, body, key);
    if (response.ok) return response;
    const problem = await refusal(response);
    if (!asksForKey(response)) throw problem;
    await anotherKey(key, problem.message, faultOf);
  }
}

function answerTo(method, path, body, key) {
  const headers = {};
  if (body) headers["content-type"] = "application/json";
  if (key) headers.authorization = `Bearer ${key}`;
  return fetch(path, { method, headers, body: body && JSON.stringify(body) }).catch(unreachable);
}

function asksForKey(response) {
  return response.status === 401 && /^Bearer\b/i.test(response.headers.get("www-authenticate"));
}

/** Return why the server does not take a key, or nothing if it does. */
async function faultOf(key) {
  try {
    const response = await answerTo("GET", "models", undefined, key);
    return response.ok ? undefined : (await refusal(response)).message;
  } catch (error) {
    return error.message;
  }
}

function unreachable() {
  throw new Problem({ title: "No answer", detail: "The server cannot be reached. Is it still running?" });
}

/** Read a refusal; what stands in front of the server may answer with something other than problem+json. */
async function refusal(response) {
  const retryAfter = response.status === 429 ? response.headers.get("retry-after") : undefined;
  const plain = { title: `HTTP ${response.status}`, detail: response.statusText, retryAfter };
  return new Problem({ ...plain, ...(await response.json().catch(() => ({}))) });
}
