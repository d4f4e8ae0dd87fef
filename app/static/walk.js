// Pictures of values that are walked by keys, from cell to cell, and whose values are read out.
//
// A picture is {title(), columns, rows, columnName(column), rowName(row), text(column, row), point({column, row}), leave()},
// and may have press({column, row}), for the space bar; seek(column), for Enter; mark({column, row}), where a frame around a cell
// would not do; and isTimed: its columns are steps.

import { element } from "./dom.js";

const pictures = new WeakMap(); // by the canvas or image that shows each
const ring = element("div", { className: "ring", ariaHidden: "true" });
const spoken = element("p", { className: "unseen", ariaLive: "polite" });
const HELP =
  "Arrow keys, Home and End walk its values, Enter goes to the step, Page Up and Page Down go to another picture, " +
  "and T opens all values as a table.";
const help = element("p", { id: "walk-help", hidden: true }, HELP);
document.body.append(spoken, help);

const MOVES = {
  ArrowLeft: ({ column, row }) => ({ column: column - 1, row }),
  ArrowRight: ({ column, row }) => ({ column: column + 1, row }),
  ArrowUp: ({ column, row }) => ({ column, row: row - 1 }),
  ArrowDown: ({ column, row }) => ({ column, row: row + 1 }),
  Home: ({ row }) => ({ column: 0, row }),
  End: ({ row }, { columns }) => ({ column: columns - 1, row }),
};

/** Return the pictures that can be reached now: [node, picture], in their order on the page. */
export function shownPictures() {
  const nodes = [...document.querySelectorAll("[data-walk]")].filter((node) => node.checkVisibility());
  return nodes.map((node) => [node, pictures.get(node)]);
}

/** Let a canvas or an image be walked. */
export function walkable(node, picture) {
  pictures.set(node, picture);
  node.dataset.walk = "";
  for (const [name, value] of Object.entries(ROLE)) node.setAttribute(name, value);
  let cell = { column: 0, row: 0 };
  const show = (next) => {
    cell = within(next, picture);
    if (picture.mark) picture.mark(cell);
    else frame(node, cell, picture);
    say(picture, cell);
    picture.point(cell);
  };
  node.addEventListener("mousedown", stayAway);
  node.addEventListener("focus", () => show(cell));
  node.addEventListener("blur", () => (ring.remove(), picture.leave()));
  node.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      ...(picture.press && { " ": () => (picture.press(cell), show(cell)) }),
      ...(picture.seek && { Enter: () => picture.seek(cell.column) }),
      PageUp: () => neighbour(node, -1)?.focus(),
      PageDown: () => neighbour(node, 1)?.focus(),
      Escape: () => node.blur(),
    };
    const action = MOVES[event.key] ? () => show(MOVES[event.key](cell, picture)) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Have one stop of the Tab key in a group of pictures: where one was last, or the first. */
export function oneStop(group) {
  const nodes = [...group.querySelectorAll("[data-walk]")];
  const stopAt = (node) => nodes.forEach((other) => other.setAttribute("tabindex", other === node ? 0 : -1));
  group.addEventListener("focusin", ({ target }) => nodes.includes(target) && stopAt(target));
  stopAt(nodes[0]);
}

const ROLE = {
  tabindex: 0,
  role: "application",
  "aria-roledescription": "picture of values",
  "aria-describedby": "walk-help",
};

/** Keep the focus of a press out of pictures, where the arrow keys would no longer move in time. */
function stayAway(event) {
  event.preventDefault();
  if (document.activeElement !== event.currentTarget) document.activeElement?.blur();
}

function within({ column, row }, { columns, rows }) {
  const inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
  return { column: inside(column, columns), row: inside(row, rows) };
}

function neighbour(node, by) {
  const nodes = shownPictures().map(([one]) => one);
  return nodes[nodes.indexOf(node) + by];
}

function say(picture, { column, row }) {
  spoken.textContent = `${picture.rowName(row)}, ${picture.columnName(column)}: ${picture.text(column, row)}`;
}

/** Frame a cell. */
function frame(node, { column, row }, { columns, rows }) {
  const box = node.getBoundingClientRect();
  const outer = node.parentElement.getBoundingClientRect();
  node.parentElement.append(ring);
  Object.assign(ring.style, {
    left: `${box.left - outer.left + (column * box.width) / columns}px`,
    top: `${box.top - outer.top + (row * box.height) / rows}px`,
    width: `${box.width / columns}px`,
    height: `${box.height / rows}px`,
  });
}
