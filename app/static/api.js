// The part of the HTTP interface that the page speaks. Whatever goes wrong is thrown as a Problem.
// Paths are relative to the page, which a proxy may serve under a prefix.

import { anotherKey, currentKey } from "./key.js";

const MOST_TRIES = 4; // of a request that the server is too busy for
export const MOST_WAIT = 10; // seconds that one waits for such a server

/** Why a session is not rewound that is where it is to be. */
export const NOTHING_TO_REWIND = { title: "Nothing to rewind", detail: "The session is at this step already: move the cursor back first." };

let onWait = () => {};

/** A refusal, as the server's problem+json (RFC 9457) words it. */
export class Problem extends Error {
  constructor({ title, detail, status, code, expected, got, retryAfter }) {
    super(detail);
    Object.assign(this, { title, status, code, expected, got, retryAfter });
  }

  /** Whether the same may be asked again later: nobody answered, or the server is too busy for it. */
  get isPassing() {
    return this.status === undefined || this.status === 429 || this.status === 503;
  }
}

/** Call `listener` with a text while the page waits for a server that is busy or lost, and with "" when that is over. */
export function watchWaiting(listener) {
  onWait = listener;
}

/** Wait some seconds before something is tried again; reason: why, for the user. */
export async function waitFor(seconds, reason) {
  onWait(`${reason} Trying again in ${Math.ceil(seconds)} s.`);
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  onWait("");
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

/** Forget the key, and ask for another one. */
export function forgetKey() {
  return anotherKey(currentKey(), "The key is forgotten.", faultOf);
}

/**
 * Open a session of `model`: {id, ...}. options: memorySize, where not as many slots as the model has by itself; force:
 * gates that are held at values, as docs/api.md describes them.
 */
export function openSession(model, { memorySize, force } = {}) {
  return json("POST", "sessions", { model: model.name, memory_size: memorySize, force }, { "idempotency-key": newKey() });
}

/** Open a session that goes on from a step of another one: {id, ...}; force: as above, where it is not that of the other. */
export function forkSession(id, { step, force }) {
  return json("POST", `sessions/${encodeURIComponent(id)}/fork`, { step, force }, { "idempotency-key": newKey() });
}

/** Put a session to a step that it was at. */
export function rewindSession(id, step) {
  return json("POST", `sessions/${encodeURIComponent(id)}/rewind`, { step });
}

/** Return what the server says of a session: {id, model, memory_size, step, oldest, ...}. Throws Problem also if it has ended. */
export async function sessionInfo(id) {
  const info = await json("GET", `sessions/${encodeURIComponent(id)}?ended=true`); // 410 would be an error in the console
  if (info.ended) throw new Problem({ title: "The session is gone", detail: `session ${id} is gone: ${info.ended}`, status: 410, code: "session_gone" });
  return info;
}

/** Return the recording of a session after the step `from` up to the step `to`, as a stream of bytes. */
export async function sessionRecording(id, { from, to, trace }) {
  const query = new URLSearchParams({ from, to, trace: trace.join() });
  const { body } = await request("GET", `sessions/${encodeURIComponent(id)}/recording?${query}`);
  return body;
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

async function json(method, path, body, headers) {
  const response = await request(method, path, body, headers);
  return response.json();
}

/**
 * Return the answer to a request; where the server takes no key that there is, to the same one with another key, and
 * where it is too busy and says for how long, to the same one later.
 */
async function request(method, path, body, fields) {
  for (let tries = 1; ; ) {
    const key = currentKey();
    const response = await answerTo(method, path, body, key, fields);
    if (response.ok) return response;
    const problem = await refusal(response);
    if (asksForKey(response)) await anotherKey(key, problem.message, faultOf);
    else if (response.status === 503 && problem.retryAfter <= MOST_WAIT && tries++ < MOST_TRIES)
      await waitFor(problem.retryAfter, `${problem.title}.`);
    else throw problem;
  }
}

/** Return a key by which the server knows a request again. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

function answerTo(method, path, body, key, fields) {
  const headers = { ...fields };
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
  const seconds = Number.parseInt(response.headers.get("retry-after"), 10);
  const retryAfter = Number.isNaN(seconds) ? undefined : seconds;
  const plain = { title: `HTTP ${response.status}`, detail: response.statusText, status: response.status, retryAfter };
  return new Problem({ ...plain, ...(await response.json().catch(() => ({}))) });
}
