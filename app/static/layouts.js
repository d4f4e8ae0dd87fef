// Where the nodes of a graph are drawn: [{x, y}] in the unit square, x from the left and y from above.

const TURNS = ["east", "south-east", "south", "south-west", "west", "north-west", "north", "north-east"]; // 45° each
const ROUNDS = 400;
const NEAREST = 0.045; // that two nodes come to each other
const PULL = 0.2; // of an edge on its ends, towards its direction
const HOME = 0.03; // of a node towards where it is on the ground

const charts = new Map(); // by the names of their stations: one takes tens of milliseconds

/** Return the places of a family's people: generations below one another, children below their parents. */
export function familyLayout({ nodes, edges }) {
  const { childrenOf, partnerOf, roots } = kinshipOf(edges);
  const columns = new Map();
  let next = 0;
  const place = (person) => {
    const partner = partnerOf.get(person);
    const children = childrenOf.get(person) ?? [];
    const first = next;
    children.forEach(place);
    next = Math.max(next, first + (partner === undefined ? 1 : 2));
    const middle = (first + next - 1) / 2;
    columns.set(person, partner === undefined ? middle : middle - 0.45);
    if (partner !== undefined) columns.set(partner, middle + 0.45);
  };
  roots.forEach(place);
  const last = Math.max(1, ...nodes.map(({ generation }) => generation));
  return nodes.map(({ generation }, person) => ({
    x: ((columns.get(person) ?? 0) + 0.5) / Math.max(1, next),
    y: generation / last,
  }));
}

/** Return who has which children and partner, and of the couples without parents one of the two. */
function kinshipOf(edges) {
  const parents = (name) => new Map(edges.filter((edge) => edge.name === name).map(({ from, to }) => [from, to]));
  const [fathers, mothers] = [parents("father"), parents("mother")];
  const [childrenOf, partnerOf] = [new Map(), new Map()];
  for (const [child, father] of fathers) {
    const mother = mothers.get(child);
    [partnerOf.set(father, mother), partnerOf.set(mother, father)];
    for (const parent of [father, mother]) childrenOf.set(parent, [...(childrenOf.get(parent) ?? []), child]);
  }
  const roots = [...fathers.values()].filter((one) => !fathers.has(one) && !fathers.has(partnerOf.get(one)));
  return { childrenOf, partnerOf, roots: [...new Set(roots)] };
}

/** Return the places of a graph's nodes, moved apart where they would hide one another. */
export function graphLayout({ nodes }) {
  const places = nodes.map(({ x, y }) => ({ x, y }));
  for (let round = 0; round < 60; round++) moveApart(places, 1.6 * NEAREST);
  return normalised(places);
}

/** Return the places of stations as on a schematic map: every connection as near as can be to a multiple of 45°. */
export function chartLayout(graph) {
  const key = graph.nodes.map(({ name }) => name).join();
  if (!charts.has(key)) charts.set(key, schematic(graph));
  return charts.get(key);
}

function schematic({ nodes, edges }) {
  const homes = spreadFromTheMiddle(nodes);
  const places = homes.map((home) => ({ ...home }));
  const turns = turnsOf(edges);
  for (let round = 0; round < ROUNDS; round++) {
    for (const edge of edges) turnTowards(places[edge.from], places[edge.to], turns.get(edge));
    places.forEach((place, node) => pull(place, homes[node], HOME));
    moveApart(places, NEAREST);
  }
  return normalised(places);
}

/** Return places that stand farther apart the nearer they are to the middle, where most stations are. */
function spreadFromTheMiddle(nodes) {
  const middle = { x: median(nodes.map(({ x }) => x)), y: median(nodes.map(({ y }) => y)) };
  return nodes.map(({ x, y }) => {
    const distance = Math.hypot(x - middle.x, y - middle.y);
    const factor = distance > 0 ? distance ** -0.45 : 0;
    return { x: (x - middle.x) * factor, y: (y - middle.y) * factor };
  });
}

/** Return the angle of each edge: that of its direction, or of the way back, turned, where the two agree. */
function turnsOf(edges) {
  const turn = ({ name }) => TURNS.indexOf(name.split(", ")[1]);
  const key = (from, to, name) => `${from} ${to} ${name.split(", ")[0]}`;
  const known = new Map(edges.map((edge) => [key(edge.from, edge.to, edge.name), turn(edge)]));
  return new Map(
    edges.map((edge) => {
      const back = known.get(key(edge.to, edge.from, edge.name));
      const isSure = back === undefined || (back + 4) % 8 === turn(edge);
      return [edge, isSure ? (turn(edge) * Math.PI) / 4 : undefined];
    }),
  );
}

/** Move the ends of an edge so that it comes nearer to its angle, of which undefined is none. */
function turnTowards(from, to, angle) {
  if (angle === undefined) return;
  const [x, y] = [to.x - from.x, to.y - from.y];
  const length = Math.max(NEAREST, Math.hypot(x, y));
  const [missingX, missingY] = [Math.cos(angle) * length - x, Math.sin(angle) * length - y];
  [from.x, from.y] = [from.x - (PULL * missingX) / 2, from.y - (PULL * missingY) / 2];
  [to.x, to.y] = [to.x + (PULL * missingX) / 2, to.y + (PULL * missingY) / 2];
}

function pull(place, home, share) {
  place.x += share * (home.x - place.x);
  place.y += share * (home.y - place.y);
}

function moveApart(places, least) {
  for (let one = 1; one < places.length; one++) {
    for (let other = 0; other < one; other++) {
      const [x, y] = [places[one].x - places[other].x, places[one].y - places[other].y];
      if (Math.abs(x) > least || Math.abs(y) > least) continue;
      const distance = Math.hypot(x, y) || 1e-6;
      if (distance > least) continue;
      const share = (0.25 * (least - distance)) / distance;
      [places[one].x, places[one].y] = [places[one].x + x * share, places[one].y + y * share];
      [places[other].x, places[other].y] = [places[other].x - x * share, places[other].y - y * share];
    }
  }
}

function normalised(places) {
  const [xs, ys] = [places.map(({ x }) => x), places.map(({ y }) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [width, height] = [Math.max(...xs) - left || 1, Math.max(...ys) - top || 1];
  return places.map(({ x, y }) => ({ x: (x - left) / width, y: (y - top) / height }));
}

function median(values) {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];
}
