// The menu that gives away what is shown: a link, a picture, a figure for a paper, a table, a recording.

import { link } from "./address.js";
import { element } from "./dom.js";
import { paint } from "./picture.js";
import { recordingOf } from "./recording.js";
import { CanvasSurface, SvgSurface } from "./surfaces.js";
import { tableOf } from "./table.js";

const RATIO = 2; // pixels of a picture for a CSS pixel
const EDGE = 12; // CSS pixels around a picture
const LINE = 18; // CSS pixels of a line below it
const FACE = { fontStyle: "normal", fontWeight: "400", fontSize: "12px" }; // of these lines
const CHOSEN = ["write_weights", "read_weights"]; // traces that a table has by itself
const BRANCHED = "A picture has what is shown of A and B, the table the rows of A, then those of B. The link opens both.";

/** The menu, in a `details`. */
export class ShareMenu {
  /**
   * shown(): returns {run, branch, view, root, step, verdict}: the run, its branch and how the two are shown, if it has one, the element
   * that shows it, the cursor, and a text on it.
   */
  constructor(menu, shown) {
    Object.assign(this, { menu, shown });
    this.note = element("p", { className: "note", role: "status" });
    this.traces = element("fieldset", {}, element("legend", {}, "Traces in the table"));
    this.recordings = [
      this.item("Recording (JSON lines)", () => this.saveRecording("A")),
      this.item("Recording of B (JSON lines)", () => this.saveRecording("B")),
    ];
    menu.append(
      element(
        "div",
        { className: "items" },
        this.item("Copy the link", () => this.copy()),
        this.item("Picture (PNG)", () => this.savePicture()),
        this.item("Figure for a paper (SVG)", () => this.saveFigure()),
        ...this.recordings,
        this.item("Table (CSV)", () => this.saveTable()),
        this.note,
        this.traces,
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
    const { run, branch } = this.shown();
    for (const button of this.menu.querySelectorAll("button")) button.disabled = !run?.done;
    const [ofRun, ofBranch] = this.recordings;
    ofRun.textContent = branch ? "Recording of A (JSON lines)" : "Recording (JSON lines)";
    ofBranch.hidden = !branch;
    this.note.textContent = [run?.place.left, branch && BRANCHED].filter(Boolean).join(" ");
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
      this.note.textContent = ["Copied.", this.shown().run.place.left].filter(Boolean).join(" ");
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

  /** Save the recording of a run, A, or of its branch, B. */
  saveRecording(letter) {
    const { run, branch } = this.shown();
    const text = recordingOf(letter === "B" ? branch : run);
    this.save(new Blob([text], { type: "application/x-ndjson" }), "jsonl", letter);
  }

  saveTable() {
    const { run, branch } = this.shown();
    const runs = [{ letter: "A", run }, ...(branch ? [{ letter: "B", run: branch }] : [])];
    this.save(new Blob([tableOf(runs, this.chosen())], { type: "text/csv" }), "csv");
  }

  /** Return a surface with an element on it, and lines below that say what it is. */
  drawn(surfaceOf, root) {
    const { left, top, width, height } = root.getBoundingClientRect();
    const { color, fontFamily } = getComputedStyle(root);
    const style = { ...FACE, fontFamily };
    const font = Object.values(style).join(" ");
    const lines = linesOf(this.caption(), width, font);
    const surface = surfaceOf({ width: width + 2 * EDGE, height: height + 2 * EDGE + LINE * lines.length });
    paint(root, surface, { left: left - EDGE, top: top - EDGE });
    lines.forEach((line, number) => {
      const box = { x: EDGE, y: EDGE + height + 6 + LINE * number, width: line.width, height: LINE - 2 };
      surface.text(line.text, box, { font, style, color });
    });
    return surface;
  }

  /** Return a text on what is shown: model, sample, step, verdict, and what is otherwise in a branch. */
  caption() {
    const { run, branch, view, step, verdict } = this.shown();
    const { seed, sizes = {}, isMade, session } = run.place;
    const named = Object.entries({ seed, ...sizes }).filter(([, value]) => value !== undefined);
    const parts = [run.model.name, ...named.map(([name, value]) => `${name} ${value}`)];
    if (isMade) parts.push("made by hand");
    if (session) parts.push(`session ${session}`);
    if (run.slots) parts.push(`${run.slots} locations`);
    const text = `${parts.join(", ")}; time ${run.from + step} of ${run.from + run.done} steps. ${verdict}`.trim();
    if (branch) return `${text}. Shown: ${view}. B: ${branch.branch}.`;
    return run.branch ? `${text}. A branch: ${run.branch}.` : text;
  }

  /** Have the browser save a file, named after the model and its sample, and what it has where a branch is shown. */
  save(blob, ending, letter = "A-and-B") {
    const { run, branch } = this.shown();
    const { seed, session } = run.place;
    const name = [run.model.name, seed !== undefined && `seed-${seed}`, session, branch && letter].filter(Boolean).join("-");
    const anchor = element("a", { href: URL.createObjectURL(blob), download: `${name}.${ending}` });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
  }
}

/** Return a text in lines of a width in CSS pixels, [{text, width}], broken between words. */
function linesOf(text, width, font) {
  const context = Object.assign(document.createElement("canvas").getContext("2d"), { font });
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = lines.length > 0 ? `${lines.at(-1).text} ${word}` : word;
    const size = context.measureText(longer).width;
    if (lines.length > 0 && size <= width) lines[lines.length - 1] = { text: longer, width: size };
    else lines.push({ text: word, width: context.measureText(word).width });
  }
  return lines;
}
