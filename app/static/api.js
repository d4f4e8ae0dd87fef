// The part of the HTTP interface that the page speaks. Whatever goes wrong is thrown as a Problem.
// Paths are relative to the page, which a proxy may serve under a prefix.

/** A refusal, as the server's problem+json (RFC 9457) words it. */
export class Problem extends Error {
  constructor({ title, detail, code, expected, got }) {
    super(detail);
    Object.assign(this, { title, code, expected, got });
  }
}

/** Return the names of the models that are served. */
export async function modelNames() {
  const models = await json("GET", "models");
  return models.map((model) => model.name);
}

/** Return everything that the server tells about one model. */
export function describeModel(name) {
  return json("GET", `models/${encodeURIComponent(name)}`);
}

/**
 * Run `inputs` ([T][I]) through a fresh session of `model`, which is gone afterwards.
 *
 * memorySize: its memory slots, where not as many as the model has by itself.
 * Returns outputs [T][O], the named traces, each [T][...], and the memory after the last step, [N][W], or null.
 */
export async function runSequence(model, inputs, traceNames, memorySize) {
  const { id } = await json("POST", "sessions", { model: model.name, memory_size: memorySize });
  const session = `sessions/${encodeURIComponent(id)}`;
  try {
    const { outputs, trace } = await json("POST", `${session}/steps`, { inputs, trace: traceNames });
    return { outputs, trace, memory: await finalMemory(model, session) };
  } finally {
    // Should even this fail, the error of the run itself is the one to hear about.
    await request("DELETE", session).catch(() => {});
  }
}

async function finalMemory(model, session) {
  if (!("memory" in model.state)) return null;
  const { state } = await json("GET", `${session}/state?names=memory`);
  return state.memory;
}

async function json(method, path, body) {
  const response = await request(method, path, body);
  return response.json();
}

async function request(method, path, body) {
  const options = body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, { method, ...options }).catch(unreachable);
  if (!response.ok) throw await refusal(response);
  return response;
}

function unreachable() {
  throw new Problem({ title: "No answer", detail: "The server cannot be reached. Is it still running?" });
}

/** Read a refusal; what stands in front of the server may answer with something other than problem+json. */
async function refusal(response) {
  const plain = { title: `HTTP ${response.status}`, detail: response.statusText };
  return new Problem({ ...plain, ...(await response.json().catch(() => ({}))) });
}
