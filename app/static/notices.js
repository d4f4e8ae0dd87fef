// What goes wrong, and what is waited for, in words.

import { Problem, watchWaiting } from "./api.js";
import { element } from "./dom.js";

const SLOW = "Waiting for the server. It may be busy, or the key may have taken all the steps that it may for now.";
const SLOW_MS = 2000;

/** Shows problems, and that the server is waited for. */
export class Notices {
  /** error, waiting: the elements for texts; results: what is not up to date meanwhile. */
  constructor({ error, waiting, results }) {
    Object.assign(this, { error, waiting, results, busy: 0 }); // busy: how many actions are waited for
    watchWaiting((text) => (waiting.textContent = text));
  }

  /** Do what the user asked for; should it fail, say why. */
  async attempt(action) {
    this.error.replaceChildren();
    try {
      await action();
    } catch (error) {
      this.showProblem(error);
    }
  }

  /** Show a refusal; any other error is one of the page, and thrown again. */
  showProblem(problem) {
    if (!(problem instanceof Problem)) throw problem;
    const { title, message, code, expected, got, retryAfter } = problem;
    const lines = [element("p", {}, element("strong", {}, title), `: ${message}`)];
    if (expected) lines.push(element("p", {}, `Expected ${expected}${got ? `, got ${got}` : ""}.`));
    if (retryAfter) lines.push(element("p", {}, `Try again after ${retryAfter} s.`));
    if (code) lines.push(element("code", {}, code));
    this.error.replaceChildren(...lines);
  }

  /** Show that the server is waited for until `action` is done, in words too where it takes long. */
  async whileBusy(action) {
    const done = this.showBusy();
    try {
      await action();
    } finally {
      done();
    }
  }

  /** Show that the server is waited for, and return a function that ends this. */
  showBusy() {
    const timer = setTimeout(() => (this.waiting.textContent ||= SLOW), SLOW_MS);
    this.busy++;
    this.results.ariaBusy = "true";
    return () => {
      clearTimeout(timer);
      if (this.waiting.textContent === SLOW) this.waiting.textContent = "";
      this.results.ariaBusy = `${--this.busy > 0}`;
    };
  }
}
