// What a picture of the page is drawn on (see picture.js): the pixels of a canvas, or the elements of an SVG.
//
// A box is {x, y, width, height}, in CSS pixels. Both have fill(box, colors), of which several are a gradient from left
// to right; frame(box, {width, color}); image(canvas, box); path(d, matrix, strokes); text(text, box, face); clip(box), which
// holds until unclip().

const CRISP = 2; // pixels of a heat map in a file for one on the screen, so that no viewer blurs its values

/** Draws on a canvas, with `ratio` pixels for a CSS pixel. */
export class CanvasSurface {
  constructor({ width, height }, ratio, ground) {
    this.canvas = Object.assign(document.createElement("canvas"), { width: width * ratio, height: height * ratio });
    this.context = this.canvas.getContext("2d");
    this.context.scale(ratio, ratio);
    this.fill({ x: 0, y: 0, width, height }, [ground], {});
  }

  fill({ x, y, width, height }, colors, { radius = 0, opacity = 1 }) {
    const { context } = this;
    context.globalAlpha = opacity;
    context.fillStyle = colors.length > 1 ? this.gradient(x, width, colors) : colors[0];
    context.beginPath();
    context.roundRect(x, y, width, height, radius);
    context.fill();
  }

  gradient(x, width, colors) {
    const gradient = this.context.createLinearGradient(x, 0, x + width, 0);
    colors.forEach((color, at) => gradient.addColorStop(at / (colors.length - 1), color));
    return gradient;
  }

  frame({ x, y, width, height }, { width: line, color }, { radius = 0, opacity = 1 }) {
    if (!line) return;
    const { context } = this;
    Object.assign(context, { globalAlpha: opacity, strokeStyle: color, lineWidth: line });
    context.beginPath();
    context.roundRect(x + line / 2, y + line / 2, width - line, height - line, radius);
    context.stroke();
  }

  image(canvas, { x, y, width, height }, { isCrisp, opacity = 1 }) {
    Object.assign(this.context, { globalAlpha: opacity, imageSmoothingEnabled: !isCrisp });
    this.context.drawImage(canvas, x, y, width, height);
  }

  path(d, matrix, { fill, stroke, width, dashes, fillOpacity, strokeOpacity }) {
    const { context } = this;
    const path = new Path2D();
    path.addPath(new Path2D(d), new DOMMatrix(matrix));
    if (fill !== "none") {
      Object.assign(context, { globalAlpha: fillOpacity, fillStyle: fill });
      context.fill(path);
    }
    if (stroke === "none" || !width) return;
    Object.assign(context, { globalAlpha: strokeOpacity, strokeStyle: stroke, lineWidth: width });
    context.setLineDash(dashes);
    context.stroke(path);
    context.setLineDash([]);
  }

  text(text, box, { font, color, opacity = 1 }) {
    const { context } = this;
    Object.assign(context, { globalAlpha: opacity, fillStyle: color, font });
    context.fillText(text, box.x, baselineOf(context, text, box));
  }

  clip({ x, y, width, height }) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(x, y, width, height);
    this.context.clip();
  }

  unclip() {
    this.context.restore();
  }
}

/** Collects the elements of an SVG: text stays text, and heat maps are images in it. */
export class SvgSurface {
  constructor({ width, height }, ground) {
    Object.assign(this, { width, height, parts: [], clips: 0, gradients: 0 });
    this.context = document.createElement("canvas").getContext("2d"); // to measure text
    this.fill({ x: 0, y: 0, width, height }, [ground], {});
  }

  /** Return the text of the file. title: what the picture shows, for who cannot see it. */
  file(title) {
    const size = `width="${round(this.width)}" height="${round(this.height)}" viewBox="0 0 ${round(this.width)} ${round(this.height)}"`;
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>\n<title>${escaped(title)}</title>\n${this.parts.join("\n")}\n</svg>\n`;
  }

  fill(box, colors, { radius = 0, opacity = 1 }) {
    if (colors.length > 1) return this.gradient(box, colors);
    const paint = paintOf("fill", colors[0], opacity);
    if (paint) this.parts.push(`<rect ${attributesOf(box)}${radius ? ` rx="${round(radius)}"` : ""} ${paint}/>`);
  }

  gradient(box, colors) {
    const id = `gradient-${this.gradients++}`;
    const stops = colors.map((color, at) => `<stop offset="${round(at / (colors.length - 1))}" stop-color="${color}"/>`);
    this.parts.push(`<linearGradient id="${id}">${stops.join("")}</linearGradient><rect ${attributesOf(box)} fill="url(#${id})"/>`);
  }

  frame({ x, y, width, height }, { width: line, color }, { radius = 0, opacity = 1 }) {
    const paint = line ? paintOf("stroke", color, opacity) : undefined;
    const inner = { x: x + line / 2, y: y + line / 2, width: width - line, height: height - line };
    if (paint) this.parts.push(`<rect ${attributesOf(inner)} rx="${round(radius)}" fill="none" ${paint} stroke-width="${line}"/>`);
  }

  image(canvas, box, { isCrisp, opacity = 1 }) {
    const source = isCrisp ? enlarged(canvas, box) : canvas;
    const rest = `preserveAspectRatio="none" style="image-rendering: ${isCrisp ? "pixelated" : "auto"}" opacity="${round(opacity)}"`;
    this.parts.push(`<image ${attributesOf(box)} ${rest} href="${source.toDataURL("image/png")}"/>`);
  }

  path(d, matrix, { fill, stroke, width, dashes, fillOpacity, strokeOpacity }) {
    const filled = paintOf("fill", fill, fillOpacity) ?? 'fill="none"';
    const lined = width ? (paintOf("stroke", stroke, strokeOpacity) ?? "") : "";
    const lines = `stroke-width="${round(width)}"${dashes.length > 0 ? ` stroke-dasharray="${dashes.join(" ")}"` : ""}`;
    const place = `transform="matrix(${matrix.map((value) => +value.toFixed(5)).join(" ")})" vector-effect="non-scaling-stroke"`;
    this.parts.push(`<path d="${d}" ${place} ${filled} ${lined} ${lines} stroke-linejoin="round"/>`);
  }

  text(text, box, { font, style, color, opacity = 1 }) {
    this.context.font = font;
    const y = baselineOf(this.context, text, box);
    const slant = style.fontStyle === "normal" ? "" : ` font-style="${style.fontStyle}"`;
    const family = escaped(`${style.fontFamily}, Helvetica, Arial, sans-serif`);
    const face = `font-family="${family}" font-size="${round(parseFloat(style.fontSize))}" font-weight="${style.fontWeight}"${slant}`;
    const place = `x="${round(box.x)}" y="${round(y)}" textLength="${round(box.width)}"`;
    this.parts.push(`<text ${place} ${face} ${paintOf("fill", color, opacity) ?? ""}>${escaped(text)}</text>`);
  }

  clip(box) {
    const id = `clip-${this.clips++}`;
    this.parts.push(`<clipPath id="${id}"><rect ${attributesOf(box)}/></clipPath><g clip-path="url(#${id})">`);
  }

  unclip() {
    this.parts.push("</g>");
  }
}

/** Return the height at which a text stands, of the box that the browser gives it. */
function baselineOf(context, text, { y, height }) {
  const { fontBoundingBoxAscent: above, fontBoundingBoxDescent: below } = context.measureText(text);
  return y + (height * above) / (above + below);
}

/** Return a canvas with a block of pixels for each pixel, large enough for a box. */
function enlarged(source, { width, height }) {
  const times = (size, shown) => size * Math.max(1, Math.ceil((CRISP * shown) / size));
  const size = { width: times(source.width, width), height: times(source.height, height) };
  const canvas = Object.assign(document.createElement("canvas"), size);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Return the attributes of a paint, or undefined where nothing is seen of it. */
function paintOf(kind, color, opacity) {
  const [, red, green, blue, alpha = "1"] = /rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)/.exec(color) ?? [];
  const seen = Number(alpha) * opacity;
  if (red === undefined || seen === 0) return undefined;
  return `${kind}="rgb(${red}, ${green}, ${blue})"${seen < 1 ? ` ${kind}-opacity="${round(seen)}"` : ""}`;
}

function attributesOf({ x, y, width, height }) {
  return `x="${round(x)}" y="${round(y)}" width="${round(Math.max(0, width))}" height="${round(Math.max(0, height))}"`;
}

function round(value) {
  return +value.toFixed(2);
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
