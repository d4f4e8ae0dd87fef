// The address of the page holds what is shown: who opens it sees the same run at the same step.
//
// A place: model; slots: of its memory, where not its own number; seed and sizes (name -> whole number, or word): of the sample;
// drawn: what was drawn or written instead, see pattern.js; session: the id of one to follow, in place of all these;
// step: the cursor; view: the ids of what is open, where the user has opened or closed anything; branch: of the run, see
// branch-place.js.

const TEXTS = ["model", "session", "drawn"];
const NUMBERS = ["slots", "seed", "step"];
const BRANCH = { fork: "step", heard: "heard", force: "force", "fork-slots": "slots" }; // parameter -> member of a branch
const REST = 300; // milliseconds without a move before the cursor is put into the address: browsers allow few changes

let isArriving = true; // the run that comes is the one that the address asked for
let changes = {}; // of the cursor and the view, which wait
let timer;

/** Return the place that the address names. */
export function read() {
  const query = new URLSearchParams(location.search);
  const place = { sizes: {} };
  for (const [name, text] of query) {
    if (TEXTS.includes(name)) place[name] = text;
    else if (name in BRANCH) (place.branch ??= {})[BRANCH[name]] = text;
    else if (name === "view") place.view = text.split(",").filter(Boolean);
    else if (/^\d{1,15}$/.test(text)) (NUMBERS.includes(name) ? place : place.sizes)[name] = Number(text);
    else if (/^[a-z][a-z0-9-]*$/.test(text) && !NUMBERS.includes(name)) place.sizes[name] = text;
  }
  return place;
}

/** Put a run into the address: a new entry of the history, unless the address has asked for it or has it already. */
export function visit(place) {
  const before = read();
  const isSame = runOf(before) === runOf(place);
  const view = before.model === place.model ? before.view : undefined;
  const method = isArriving || isSame ? "replaceState" : "pushState";
  isArriving = false;
  clearTimeout(timer);
  changes = {};
  history[method](null, "", queryOf({ view, ...place }));
}

/** Put a branch of the run into the address, undefined takes it out: a new entry of the history, unless `replace`. */
export function fork(branch, { replace = false } = {}) {
  clearTimeout(timer);
  const query = queryOf({ ...read(), ...changes, branch });
  changes = {};
  if (query !== location.search) history[replace ? "replaceState" : "pushState"](null, "", query);
}

/** Put the cursor or the view into the address, when they rest: {step, view}; undefined takes one out. */
export function amend(changed) {
  Object.assign(changes, changed);
  clearTimeout(timer);
  timer = setTimeout(settle, REST);
}

/** Return the whole address of what is shown now. */
export function link() {
  settle();
  return location.href;
}

/** Call `go` with the place, when the user goes back or forward. */
export function onTravel(go) {
  addEventListener("popstate", () => {
    clearTimeout(timer);
    [isArriving, changes] = [true, {}];
    go(read());
  });
}

function settle() {
  clearTimeout(timer);
  const query = queryOf({ ...read(), ...changes });
  changes = {};
  if (query !== location.search) history.replaceState(null, "", query);
}

/** Return what of a place makes a run another one, as text. */
function runOf({ step, view, ...run }) {
  return queryOf(run);
}

function queryOf({ sizes = {}, view, model, branch = {}, ...place }) {
  const forked = Object.entries(BRANCH).map(([name, member]) => [name, branch[member]]);
  const values = { model, ...place, ...sizes, ...Object.fromEntries(forked), view: view?.join() };
  const known = Object.entries(values).filter(([, value]) => value !== undefined);
  return `?${new URLSearchParams(known)}`;
}
