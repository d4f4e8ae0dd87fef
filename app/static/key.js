// The key that requests are sent with, where the server requires one: kept for this tab, and asked for in a form.

const NAME = `engram.key ${new URL(".", document.baseURI).pathname}`; // a proxy may serve other servers beside this one
const FORM = /^[\w.~-]+$/; // of a key; a header field could not carry some other characters
const OTHER_FORM = "A key has letters, digits and the characters . _ ~ - only: copy the whole of it, and nothing else.";

const named = (id) => document.getElementById(id);
const form = named("key-form");
const field = named("key");

let key = storage()?.getItem(NAME) ?? undefined;
let asked; // the promise that ends when there is another key, while the form is shown

/** Return the key to send requests with, or nothing where there is none. */
export function currentKey() {
  return key;
}

/**
 * Forget the key `refused`, and return when there is another one, for which the user is asked.
 *
 * reason: why, as the form shows it. faultOf: returns why the server does not take a key, or nothing if it does.
 */
export async function anotherKey(refused, reason, faultOf) {
  if (key !== refused) return; // there is another one since the request was sent
  asked ??= ask(reason, faultOf);
  await asked;
}

/** Forget the key, and show the form until the server takes another one. */
async function ask(reason, faultOf) {
  const focused = document.activeElement;
  keep(undefined);
  show(true);
  keep(await acceptedKey(reason, faultOf));
  asked = undefined;
  show(false);
  focused.focus();
}

/** Return the first key that is given and that the server takes. */
async function acceptedKey(reason, faultOf) {
  for (let fault = reason; ; ) {
    named("key-error").textContent = fault;
    field.focus();
    const given = await givenKey();
    fault = FORM.test(given) ? await faultOf(given) : OTHER_FORM;
    if (!fault) return given;
  }
}

/** Return what the user gives next, and leave none of it in the form. */
function givenKey() {
  const take = (resolve) => () => {
    resolve(field.value.trim());
    form.reset();
    reveal(false);
  };
  return new Promise((resolve) => form.addEventListener("submit", take(resolve), { once: true }));
}

/** Show the form in place of the page, which stays as it is meanwhile. */
function show(isAsking) {
  form.hidden = !isAsking;
  named("bench").inert = isAsking;
  hideMetrics();
}

function reveal(isShown) {
  field.type = isShown ? "text" : "password";
  named("show-key").ariaPressed = isShown;
}

function keep(next) {
  key = next;
  if (key) storage()?.setItem(NAME, key);
  else storage()?.removeItem(NAME);
  showControls();
}

function showControls() {
  named("forget-key").hidden = !key;
  if (key) hideMetrics();
}

/** Hide the link to the metrics, where the page has it: it would send no key. */
function hideMetrics() {
  const link = named("metrics");
  if (link) link.hidden = true;
}

/** Return the storage of this tab, or nothing where the browser allows none: the key then goes with the page. */
function storage() {
  try {
    return sessionStorage;
  } catch {
    return undefined;
  }
}

form.addEventListener("submit", (event) => event.preventDefault());
named("show-key").addEventListener("click", () => reveal(field.type === "password"));
showControls();
