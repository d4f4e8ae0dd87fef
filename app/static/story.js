// A story in one line, word by word, with the answers in it: the word at the cursor stays in sight.

import { answersOf } from "./answers.js";
import { element } from "./dom.js";

/** Shows the words of a run. */
export class Story {
  /** seek: called with the step of a word that is pressed. */
  constructor(container, seek) {
    this.container = container;
    container.addEventListener("click", ({ target }) => "step" in target.dataset && seek(Number(target.dataset.step)));
  }

  load(run) {
    this.run = run;
    this.container.hidden = !(run.task.isStory && run.sequence.labels);
    this.words = this.container.hidden ? [] : run.sequence.labels.map(word);
    this.container.replaceChildren(element("p", {}, ...this.words.flatMap((one) => [one, " "])));
  }

  /** Show the answers that are done since. */
  grow() {
    if (this.container.hidden || !this.run.sequence.asked) return;
    for (const answer of answersOf(this.run)) this.answer(answer);
  }

  answer({ steps: [step], said, due, isRight }) {
    const shown = this.words[step];
    shown.className = due ? (isRight ? "right" : "wrong") : "said";
    shown.textContent = due && !isRight ? `${said} (${due})` : said;
  }

  moveTo(step) {
    if (this.container.hidden || this.now === this.words[step]) return;
    this.now?.removeAttribute("aria-current");
    this.now = this.words[step];
    this.now.ariaCurrent = "step";
    const middle = this.now.offsetLeft + this.now.offsetWidth / 2 - this.container.clientWidth / 2;
    this.container.scrollLeft = middle;
  }
}

function word(text, step) {
  const created = element("span", {}, text);
  created.dataset.step = step;
  return created;
}
