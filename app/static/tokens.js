import { element } from "./dom.js";

/** A line of words to write on: each is a token. */
export class TokenEditor {
  /** `onChange` is called after every change by hand. */
  constructor(container, onChange) {
    this.container = container;
    this.onChange = onChange;
    this.pattern = [];
    this.field = element("textarea", { id: "tokens", rows: 2, ariaLabel: "Tokens", spellcheck: false });
    this.field.addEventListener("input", () => this.read());
  }

  /** Write words for `task` from now on. */
  setTask(task) {
    this.task = task;
  }

  /** Write on from these words. */
  load(pattern) {
    this.write([...pattern]);
  }

  clear() {
    this.write([]);
    this.field.focus();
  }

  write(pattern) {
    this.pattern = pattern;
    this.field.value = this.task.join(pattern);
    this.container.replaceChildren(this.field);
  }

  /** Take over what was written; what is no word of the vocabulary is refused when it is run. */
  read() {
    this.pattern = this.task.split(this.field.value);
    this.onChange();
  }
}
