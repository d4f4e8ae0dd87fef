// The values of a picture as a table, which is made when it is asked for.

import { element } from "./dom.js";
import { shownPictures } from "./walk.js";

/** The dialog with a table. nodes: numbers, "numbers-of", "numbers-table", "numbers-close", table. */
export class Numbers {
  constructor(nodes) {
    Object.assign(this, { dialog: nodes.numbers, choice: nodes["numbers-of"], place: nodes["numbers-table"] });
    nodes.table.addEventListener("click", () => this.open());
    nodes["numbers-close"].addEventListener("click", () => this.dialog.close());
    this.choice.addEventListener("change", () => this.show());
    this.dialog.addEventListener("close", () => this.dialog.open || this.place.replaceChildren());
    document.addEventListener("keydown", (event) => {
      const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
      if (event.key !== "t" || !isPlain || !("walk" in event.target.dataset)) return;
      event.preventDefault();
      this.open(event.target);
    });
  }

  /** Show the table of a picture, or of the first one. */
  open(node) {
    this.pictures = shownPictures();
    this.choice.replaceChildren(...this.pictures.map(([, { title }], number) => new Option(title(), number)));
    this.choice.value = Math.max(0, this.pictures.findIndex(([one]) => one === node));
    this.dialog.showModal();
    this.show();
  }

  show() {
    const [, picture] = this.pictures[Number(this.choice.value)];
    this.place.replaceChildren(tableOf(picture));
  }
}

/** Return the table of a picture: a line for each step where its columns are steps, or else for each row. */
function tableOf({ title, columns, rows, columnName, rowName, text, isTimed }) {
  const [lines, cells] = isTimed ? [columns, rows] : [rows, columns];
  const [lineName, cellName] = isTimed ? [columnName, rowName] : [rowName, columnName];
  const value = (line, cell) => (isTimed ? text(line, cell) : text(cell, line));
  const head = (name, scope) => element("th", { scope }, name);
  const names = Array.from({ length: cells }, (_, cell) => head(cellName(cell), "col"));
  const body = Array.from({ length: lines }, (_, line) => {
    const values = Array.from({ length: cells }, (__, cell) => element("td", {}, value(line, cell)));
    return element("tr", {}, head(lineName(line), "row"), ...values);
  });
  const top = element("thead", {}, element("tr", {}, element("td"), ...names));
  return element("table", {}, element("caption", {}, title()), top, element("tbody", {}, ...body));
}
