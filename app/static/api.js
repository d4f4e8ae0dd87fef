// The part of the HTTP interface that the page speaks. Whatever goes wrong is thrown as a Problem.
// Paths are relative to the page, which a proxy may serve under a prefix.

import { anotherKey, currentKey } from "./key.js";

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

/** Return a sample of a model, as docs/api.md describes it. sizes: those that are asked for, by name. */
export function modelSample(name, { seed = 0, ...sizes } = {}) {
  return json("GET", `models/${encodeURIComponent(name)}/sample?${new URLSearchParams({ seed, ...sizes })}`);
}

/** Return a sample of a model's task; sizes: the seed, and sizes of the task by their names. */
export function taskSample(name, sizes) {
  return json("GET", `models/${encodeURIComponent(name)}/sample?${new URLSearchParams(sizes)}`);
}

/** Forget the key, and ask for another one. */
export function forgetKey() {
  return anotherKey(currentKey(), "The key is forgotten.", faultOf);
}

/** Open a session of `model`: {id, ...}. options: memorySize, where not as many slots as the model has by itself. */
export function openSession(model, { memorySize } = {}) {
  return json("POST", "sessions", { model: model.name, memory_size: memorySize });
}

/** Return leaves of the state of a session, at a step or where it is: leaf -> nested lists. */
export async function sessionState(id, leaves, step) {
  const query = new URLSearchParams({ names: leaves.join(), ...(step !== undefined && { step }) });
  const { state } = await json("GET", `sessions/${encodeURIComponent(id)}/state?${query}`);
  return state;
}

/** End a session; should that fail, it expires. */
export function endSession(id) {
  return request("DELETE", `sessions/${encodeURIComponent(id)}`).catch(() => {});
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
  const keepalive = method === "DELETE"; // also when the page is closed
  return fetch(path, { method, headers, keepalive, body: body && JSON.stringify(body) }).catch(unreachable);
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
