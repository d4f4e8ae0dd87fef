// The menu that gives away what is shown: a link, a picture, a figure for a paper, a table, a recording.

import { link } from "./address.js";
import { element } from "./dom.js";
import { paint } from "./picture.js";
import { recordingOf } from "./recording.js";
import { CanvasSurface, SvgSurface } from "./surfaces.js";
import { tableOf } from "./table.js";

const RATIO = 2; // pixels of a picture for a CSS pixel
const EDGE = 12; // CSS pixels around a picture
const CAPTION = 20; // CSS pixels of the line below it
const CHOSEN = ["write_weights", "read_weights"]; // traces that a table has by itself

/** The menu, in a `details`. */
export class ShareMenu {
  /** shown(): returns {run, root, step, verdict}: the run, the element that shows it, the cursor, and a text on it. */
  constructor(menu, shown) {
    Object.assign(this, { menu, shown });
    this.note = element("p", { className: "note", role: "status" });
    this.traces = element("fieldset", {}, element("legend", {}, "Traces in the table"));
    menu.append(
      element(
        "div",
        { className: "items" },
        this.item("Copy the link", () => this.copy()),
        this.item("Picture (PNG)", () => this.savePicture()),
        this.item("Figure for a paper (SVG)", () => this.saveFigure()),
        this.item("Recording (JSON lines)", () => this.saveRecording()),
        this.item("Table (CSV)", () => this.saveTable()),
        this.traces,
        this.note,
      ),
    );
    menu.addEventListener("toggle", () => menu.open && this.prepare());
    menu.addEventListener("keydown", ({ key }) => key === "Escape" && this.close());
    document.addEventListener("pointerdown", ({ target }) => menu.contains(target) || (menu.open = false));
  }

  item(text, act) {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", act);
    return button;
  }

  close() {
    this.menu.open = false;
    this.menu.querySelector("summary").focus();
  }

  /** Offer what there is of the run that is shown. */
  prepare() {
    const { run } = this.shown();
    for (const button of this.menu.querySelectorAll("button")) button.disabled = !run?.done;
    this.note.textContent = run?.place.left ?? "";
    const names = Object.keys(run?.trace ?? {});
    const chosen = new Set(this.known ? this.chosen() : CHOSEN);
    for (const name of this.known ?? []) if (!names.includes(name)) chosen.delete(name);
    this.known = names;
    const boxes = names.map((name) => element("input", { type: "checkbox", value: name, checked: chosen.has(name) }));
    this.traces.replaceChildren(this.traces.firstChild, ...boxes.map((box) => element("label", {}, box, box.value)));
    this.traces.hidden = names.length === 0;
  }

  chosen() {
    return [...this.traces.querySelectorAll(":checked")].map(({ value }) => value);
  }

  async copy() {
    const text = link();
    try {
      await navigator.clipboard.writeText(text);
      this.note.textContent = `Copied. ${this.shown().run.place.left ?? ""}`;
    } catch {
      this.note.replaceChildren(element("input", { type: "text", value: text, readOnly: true, ariaLabel: "Link" }));
      this.note.firstChild.select();
    }
  }

  /** Save what is shown as it is shown, in pixels. */
  savePicture() {
    const { root } = this.shown();
    const ground = getComputedStyle(document.documentElement).getPropertyValue("--page");
    const surface = this.drawn((size) => new CanvasSurface(size, RATIO, ground), root);
    surface.canvas.toBlob((blob) => this.save(blob, "png"));
  }

  /** Save what is shown in the colours of a paper, with text and lines that scale. */
  saveFigure() {
    const { root } = this.shown();
    document.documentElement.classList.add("paper");
    try {
      const file = this.drawn((size) => new SvgSurface(size, "rgb(255, 255, 255)"), root).file(this.caption());
      this.save(new Blob([file], { type: "image/svg+xml" }), "svg");
    } finally {
      document.documentElement.classList.remove("paper");
    }
  }

  saveRecording() {
    this.save(new Blob([recordingOf(this.shown().run)], { type: "application/x-ndjson" }), "jsonl");
  }

  saveTable() {
    this.save(new Blob([tableOf(this.shown().run, this.chosen())], { type: "text/csv" }), "csv");
  }

  /** Return a surface with an element on it, and a line below that says what it is. */
  drawn(surfaceOf, root) {
    const { left, top, width, height } = root.getBoundingClientRect();
    const surface = surfaceOf({ width: width + 2 * EDGE, height: height + 2 * EDGE + CAPTION });
    paint(root, surface, { left: left - EDGE, top: top - EDGE });
    const style = getComputedStyle(root);
    const face = { fontStyle: "normal", fontWeight: "400", fontSize: "12px", fontFamily: style.fontFamily };
    const font = Object.values(face).join(" ");
    surface.context.font = font;
    const text = this.caption();
    const box = { x: EDGE, y: EDGE + height + 6, width: surface.context.measureText(text).width, height: 16 };
    surface.text(text, box, { font, style: face, color: style.color });
    return surface;
  }

  /** Return a line on what is shown: model, sample, step and verdict. */
  caption() {
    const { run, step, verdict } = this.shown();
    const { seed, sizes = {}, isMade, session } = run.place;
    const named = Object.entries({ seed, ...sizes }).filter(([, value]) => value !== undefined);
    const parts = [run.model.name, ...named.map(([name, value]) => `${name} ${value}`)];
    if (isMade) parts.push("made by hand");
    if (session) parts.push(`session ${session}`);
    if (run.slots) parts.push(`${run.slots} slots`);
    return `${parts.join(", ")}; time ${run.from + step} of ${run.from + run.done} steps. ${verdict}`.trim();
  }

  /** Have the browser save a file, named after the model and its sample. */
  save(blob, ending) {
    const { run } = this.shown();
    const { seed, session } = run.place;
    const name = [run.model.name, seed !== undefined && `seed-${seed}`, session].filter(Boolean).join("-");
    const anchor = element("a", { href: URL.createObjectURL(blob), download: `${name}.${ending}` });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
  }
}
