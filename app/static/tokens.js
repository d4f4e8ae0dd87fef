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

  get length() {
    return this.pattern.length;
  }

  /** Write words for `task` from now on; what is written stays if there are the same to choose from. */
  setTask(task) {
    if (this.task?.words.join(" ") !== task.words.join(" ")) this.pattern = [];
    this.task = task;
  }

  /** Make the pattern this long. */
  resize(length) {
    const filler = this.task.filler ?? this.task.words[0];
    this.write(Array.from({ length }, (_, index) => this.pattern[index] ?? filler));
  }

  clear() {
    this.write(this.pattern.map(() => this.task.filler ?? this.task.words[0]));
  }

  randomize() {
    this.write(this.task.random(this.pattern.length));
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
