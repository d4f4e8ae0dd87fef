"""Maps to find ways on: random graphs and London's Underground ([DNC] Methods, graph task descriptions)."""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.episodes.base import Random, Range
from models.episodes.triples import BLANK, DESTINATION, SOURCE, Labels
from models.episodes.underground import underground

Map = Literal["random", "london", "london-zone-1"]


@dataclass(frozen=True, eq=False)
class LabelledGraph:
    """Directed edges, all numbered from 0; those out of a node are of different kinds."""

    nodes: int
    kinds: int
    edges: NDArray[np.int64]
    """[edges, 3]: source, kind, destination"""
    points: NDArray[np.float64] | None = None
    """[nodes, 2], where each node is drawn: x from the left, y from above, both from 0 to 1"""

    @functools.cached_property
    def outgoing(self) -> list[list[tuple[int, int]]]:
        """The edges out of each node: the number of each and its destination."""
        outgoing: list[list[tuple[int, int]]] = [[] for _ in range(self.nodes)]
        for number, (source, _, destination) in enumerate(self.edges.tolist()):
            outgoing[source].append((number, destination))
        return outgoing

    def labelled(self, random: Random, digits: int) -> Labels:
        """Return the edges with random labels, one of its own for every node and every kind: [edges, 3]."""
        nodes, kinds = (random.choice(10**digits, count, replace=False) for count in (self.nodes, self.kinds))
        source, kind, destination = self.edges.T
        return np.stack([nodes[source], kinds[kind], nodes[destination]], 1)


class Routes(NamedTuple):
    """The shortest ways in a graph, up to a number of moves."""

    moves: NDArray[np.int64]
    """[nodes, nodes], from the first to the second; -1 if there is no way"""
    pairs: list[NDArray[np.int64]]
    """by moves, from 0: pairs of nodes with a single shortest path, [pairs, 2]"""


def random_graph(random: Random, nodes: int, neighbours: Range) -> LabelledGraph:
    """Return a graph of nodes with edges to their nearest neighbours in the unit square, labelled as in MapTask."""
    points = random.random((nodes, 2))
    distances = ((points[:, None] - points) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argsort(1)
    kinds = random.random((nodes, nodes)).argsort(1)
    degrees = np.minimum(random.integers(*neighbours, nodes, endpoint=True), nodes - 1)
    source, rank = np.nonzero(np.arange(nodes) < degrees[:, None])
    return LabelledGraph(nodes, nodes, np.stack([source, kinds[source, rank], nearest[source, rank]], 1), points)


@functools.cache
def london(zone_1: bool = False) -> LabelledGraph:
    """Return the Underground, or the part of it in zone 1."""
    chart = underground(zone_1)
    return LabelledGraph(len(chart.stations), len(chart.ways), chart.edges, _projected(chart.places))


def _projected(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return places on Earth, [nodes, 2] in degrees north and east, on a map of equal scale in the unit square."""
    north, east = places.T
    flat = np.stack([east * np.cos(np.radians(north.mean())), -north], 1)
    low, high = flat.min(0), flat.max(0)
    centred: NDArray[np.float64] = flat - (low + high) / 2
    return np.round(0.5 + centred / float(np.max(high - low)), 4)


@functools.lru_cache(maxsize=2)
def routes(graph: LabelledGraph, limit: int) -> Routes:
    """Return the shortest ways of at most `limit` moves; those of the last graph are cached, for London stays the same.

    The power m of the adjacency matrix, which counts edges between nodes, counts the ways of m moves. Its first
    entries above zero are the numbers of shortest paths.
    """
    edges = np.zeros((graph.nodes, graph.nodes))
    np.add.at(edges, (graph.edges[:, SOURCE], graph.edges[:, DESTINATION]), 1)
    walks = np.eye(graph.nodes)
    moves = np.full(edges.shape, -1)
    pairs = []
    for length in range(limit + 1):
        reached = (walks > 0) & (moves < 0)
        moves[reached] = length
        pairs.append(np.argwhere(reached & (walks == 1)))
        walks = np.minimum(walks @ edges, 2)
    return Routes(moves, pairs)


def shortest_path(graph: LabelledGraph, random: Random, moves: Range) -> list[int]:
    """Return the numbers of the edges of the way between nodes with a single shortest path, at a distance in `moves`.

    The graph must have one: see `distances`.
    """
    far, pairs = routes(graph, moves[1])
    node, end = random.choice(pairs[random.choice(distances(graph, moves))]).tolist()
    path = []
    while node != end:
        left = far[node, end] - 1
        edge, node = next((edge, to) for edge, to in graph.outgoing[node] if far[to, end] == left)
        path.append(edge)
    return path


def distances(graph: LabelledGraph, moves: Range) -> list[int]:
    """Return the distances in `moves` at which there are nodes with a single shortest path between them."""
    pairs = routes(graph, moves[1]).pairs
    return [each for each in range(moves[0], moves[1] + 1) if len(pairs[each])]


def walk_query(path: Labels) -> Labels:
    """Return the question for a walk: its first node and the edges, [moves, 3] -> [moves, 3]."""
    query = path.copy()
    query[:, DESTINATION] = BLANK
    query[1:, SOURCE] = BLANK
    return query


def way_query(path: Labels) -> Labels:
    """Return the question for a way: its first and its last node, [moves, 3] -> [1, 3]."""
    return np.array([[path[0, SOURCE], BLANK, path[-1, DESTINATION]]])
