import { element } from "./dom.js";

/** A line of tokens to write on: whole numbers, with spaces or commas between them. */
export class TokenEditor {
  /** `onChange` is called after every change by hand. */
  constructor(container, onChange) {
    this.container = container;
    this.onChange = onChange;
    this.pattern = [];
    this.field = element("textarea", { id: "tokens", rows: 2, ariaLabel: "Tokens", spellcheck: false });
    this.field.addEventListener("input", () => this.read());
  }

  /** Write tokens for `task` from now on; what is written stays if there are as many to choose from. */
  setTask(task) {
    if (this.task?.vocabularySize !== task.vocabularySize) this.pattern = [];
    this.task = task;
  }

  /** Make the pattern this long; new tokens are 0. */
  resize(length) {
    this.fill(length, (index) => this.pattern[index]?.[0] ?? 0);
  }

  clear() {
    this.fill(this.pattern.length, () => 0);
  }

  randomize() {
    this.fill(this.pattern.length, () => Math.floor(Math.random() * this.task.vocabularySize));
  }

  fill(length, token) {
    this.pattern = Array.from({ length }, (_, index) => [token(index)]);
    this.field.value = this.pattern.flat().join(" ");
    this.container.replaceChildren(this.field);
  }

  /** Take over what was written; what is no number goes to the server as it is, which says so. */
  read() {
    const words = this.field.value.split(/[\s,]+/).filter(Boolean);
    this.pattern = words.map((word) => [Number.isNaN(Number(word)) ? word : Number(word)]);
    this.onChange();
  }
}
