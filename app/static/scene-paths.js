// The lines of a scene (see scene.js), as the paths of an SVG. points: the places of the nodes, [{x, y}], in CSS pixels.

const LEAST_SEEN = 0.3; // of the width of a map
const HOP = 50; // CSS pixels from one station of a way to the next, about, at least
const GAP = 2.2; // CSS pixels between lines that run side by side

/** Return a straight path; side: how many lines it runs beside the middle. */
export function straight(points, { from, to }, side = 0) {
  const [one, other] = [from, to].toSorted((a, b) => a - b).map((node) => points[node]);
  const [x, y] = [other.x - one.x, other.y - one.y];
  const length = Math.hypot(x, y) || 1;
  const [dx, dy] = [(-y / length) * side * GAP, (x / length) * side * GAP];
  return `M${fixed(one.x + dx)} ${fixed(one.y + dy)}L${fixed(other.x + dx)} ${fixed(other.y + dy)}`;
}

/** Return a bent path with an arrow at its end, so that the way back runs beside it. */
export function bent(points, { from, to }, radius) {
  const [one, other] = [points[from], points[to]];
  const [x, y] = [other.x - one.x, other.y - one.y];
  const length = Math.hypot(x, y) || 1;
  const [midX, midY] = [one.x + x / 2 - y * 0.14, one.y + y / 2 + x * 0.14];
  const [backX, backY] = unit(midX - other.x, midY - other.y);
  const [tipX, tipY] = [other.x + backX * (radius + 1), other.y + backY * (radius + 1)];
  const wing = (turn) => {
    const [wingX, wingY] = [backX * Math.cos(turn) - backY * Math.sin(turn), backX * Math.sin(turn) + backY * Math.cos(turn)];
    return `${fixed(tipX + wingX * Math.min(6, length / 4))} ${fixed(tipY + wingY * Math.min(6, length / 4))}`;
  };
  const arrow = `M${wing(0.4)}L${fixed(tipX)} ${fixed(tipY)}L${wing(-0.4)}`;
  return `M${fixed(one.x)} ${fixed(one.y)}Q${fixed(midX)} ${fixed(midY)} ${fixed(tipX)} ${fixed(tipY)}${arrow}`;
}

/** Return how far from the middle each of the lines between the same two nodes runs, by its key. */
export function sidesOf(edges) {
  const groups = new Map();
  for (const { from, to, name } of edges) {
    const pair = [Math.min(from, to), Math.max(from, to)].join();
    groups.set(pair, (groups.get(pair) ?? new Set()).add(lineOf(name)));
  }
  const sides = [...groups].flatMap(([pair, lines]) =>
    [...lines].sort().map((line, number) => [`${pair},${line}`, number - (lines.size - 1) / 2]),
  );
  return new Map(sides);
}

/** Return the part of a picture of a size that has these points and what is near them: {x, y, zoom}. */
export function around(points, width, height) {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const [left, top, right, bottom] = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  const hops = points.slice(1).map(({ x, y }, hop) => Math.hypot(x - points[hop].x, y - points[hop].y));
  const far = hops.reduce((sum, length) => sum + length, 0) / Math.max(1, hops.length) / HOP;
  const zoom = Math.min(1, Math.max(LEAST_SEEN, far, (2 * (right - left)) / width, (2 * (bottom - top)) / height));
  const start = (middle, size) => Math.min(Math.max(middle - (zoom * size) / 2, 0), size - zoom * size);
  return { x: start((left + right) / 2, width), y: start((top + bottom) / 2, height), zoom };
}

/** Return the line of a way, such as "Central" of "Central, east". */
export function lineOf(name) {
  return name.split(", ")[0];
}

function unit(x, y) {
  const length = Math.hypot(x, y) || 1;
  return [x / length, y / length];
}

export function fixed(value) {
  return value.toFixed(1);
}
