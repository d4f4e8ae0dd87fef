// An element of the page as a picture: what the browser has laid out is drawn again, box by box, on a surface (see
// surfaces.js): backgrounds, borders, lines of text, canvases, and the shapes in an SVG.

const SHAPES = {
  path: (shape) => shape.getAttribute("d"),
  line: (shape) => `M${numberOf(shape, "x1")},${numberOf(shape, "y1")}L${numberOf(shape, "x2")},${numberOf(shape, "y2")}`,
  polyline: (shape) => `M${shape.getAttribute("points")}`,
  polygon: (shape) => `M${shape.getAttribute("points")}Z`,
  rect: (shape) => boxPath(shape.getBBox()), // whose size a style may have set
  circle: (shape) => ellipsePath(shape.getBBox()),
  ellipse: (shape) => ellipsePath(shape.getBBox()),
};

const SIDES = ["top", "right", "bottom", "left"];

/** Draw an element and all in it on a surface, whose origin is `origin`, {left, top}, in the window. */
export function paint(element, surface, origin, alpha = 1) {
  const style = getComputedStyle(element);
  if (style.display === "none" || style.visibility === "hidden") return;
  const opacity = alpha * Number(style.opacity);
  const box = boxOf(element, origin);
  if (opacity === 0) return;
  if (element instanceof SVGGraphicsElement && SHAPES[element.localName]) return paintShape(element, style, surface, origin, opacity);
  paintBox(style, surface, box, opacity);
  if (element instanceof HTMLCanvasElement) return paintCanvas(element, style, surface, box, opacity);
  const isClipped = style.overflowX !== "visible" && element.localName !== "g";
  if (isClipped) surface.clip(box);
  for (const child of element.childNodes) {
    if (child.nodeType === Node.ELEMENT_NODE) paint(child, surface, origin, opacity);
    else if (child.nodeType === Node.TEXT_NODE) paintText(child, style, surface, origin, opacity);
  }
  if (isClipped) surface.unclip();
}

function boxOf(node, { left, top }) {
  const { x, y, width, height } = node.getBoundingClientRect();
  return { x: x - left, y: y - top, width, height };
}

function paintBox(style, surface, box, opacity) {
  const radius = parseFloat(style.borderTopLeftRadius);
  const gradient = style.backgroundImage.startsWith("linear-gradient(to right") && style.backgroundImage.match(/rgba?\([^)]*\)/g);
  surface.fill(box, gradient || [style.backgroundColor], { radius, opacity });
  const borders = SIDES.map((side) => ({ side, width: borderWidth(style, side), color: style[`border-${side}-color`] }));
  const isEven = borders.every(({ width, color }) => width === borders[0].width && color === borders[0].color);
  if (isEven) return surface.frame(box, borders[0], { radius, opacity });
  for (const { side, width, color } of borders) if (width) surface.fill(edgeOf(box, side, width), [color], { opacity });
}

function borderWidth(style, side) {
  return style[`border-${side}-style`] === "none" ? 0 : parseFloat(style[`border-${side}-width`]);
}

function edgeOf({ x, y, width, height }, side, size) {
  if (side === "top" || side === "bottom") return { x, y: side === "top" ? y : y + height - size, width, height: size };
  return { x: side === "left" ? x : x + width - size, y, width: size, height };
}

function paintCanvas(canvas, style, surface, box, opacity) {
  if (canvas.width && canvas.height) surface.image(canvas, box, { isCrisp: style.imageRendering === "pixelated", opacity });
}

function paintShape(shape, style, surface, origin, opacity) {
  const { a, b, c, d, e, f } = shape.getScreenCTM();
  const matrix = [a, b, c, d, e - origin.left, f - origin.top];
  const width = parseFloat(style.strokeWidth) * (style.vectorEffect === "non-scaling-stroke" ? 1 : Math.sqrt(Math.abs(a * d - b * c)));
  const dashes = style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(",").map(parseFloat);
  const path = SHAPES[shape.localName](shape);
  const [fillOpacity, strokeOpacity] = [style.fillOpacity, style.strokeOpacity].map((own) => opacity * Number(own));
  if (path) surface.path(path, matrix, { fill: style.fill, stroke: style.stroke, width, dashes, fillOpacity, strokeOpacity });
}

/** Draw the lines of a text where the browser has set them. */
function paintText(node, style, surface, origin, opacity) {
  if (!node.data.trim()) return;
  const color = node.parentElement instanceof SVGElement ? style.fill : style.color;
  const font = ["fontStyle", "fontWeight", "fontSize", "fontFamily"].map((name) => style[name]).join(" ");
  for (const { text, box } of linesOf(node, style, origin)) surface.text(text, box, { font, style, color, opacity });
}

/** Return the lines of a text, [{text, box}]. */
function linesOf(node, style, origin) {
  const range = document.createRange();
  const lines = [];
  for (let at = 0; at < node.length; at++) {
    range.setStart(node, at);
    range.setEnd(node, at + 1);
    const { y, width, height } = boxOf(range, origin);
    if (height === 0 || (width === 0 && /\s/.test(node.data[at]))) continue;
    const last = lines.at(-1);
    if (last && Math.abs(last.y - y) < height / 2) last.to = at + 1;
    else lines.push({ y, from: at, to: at + 1 });
  }
  return lines.map(({ from, to }) => {
    range.setStart(node, from);
    range.setEnd(node, to);
    return { text: cased(node.data.slice(from, to).replace(/\s+/g, " "), style), box: boxOf(range, origin) };
  });
}

function cased(text, { textTransform }) {
  return textTransform === "uppercase" ? text.toUpperCase() : text;
}

function numberOf(shape, name) {
  return shape[name].baseVal.value;
}

function boxPath({ x, y, width, height }) {
  return `M${x},${y}h${width}v${height}h${-width}Z`;
}

function ellipsePath({ x, y, width, height }) {
  const radii = `${width / 2},${height / 2}`;
  return `M${x},${y + height / 2}a${radii} 0 1,0 ${width},0a${radii} 0 1,0 ${-width},0Z`;
}
