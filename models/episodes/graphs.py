"""Samples of graph traversal, shortest path and family tree, as in training/tasks/graphs.py and family_tree.py."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.config import ConfigError
from models.episodes import maps, triples
from models.episodes.base import Choice, Chosen, Phase, Random, Range, Sample, Size, Source
from models.episodes.families import (
    BASIC,
    FIRST_RELATION,
    RELATIONS,
    Family,
    labelled,
    questions_about,
    random_family,
    relative_query,
)
from models.episodes.maps import LabelledGraph, Map
from models.episodes.triples import BLANK, DESTINATION, EDGE, SOURCE, Labels
from models.episodes.underground import Underground, underground

MAPS = {"random": "Random", "london": "London Underground", "london-zone-1": "London Underground, zone 1"}

MOST_NODES = 80
"""The most nodes of a random graph."""

MOST_PEOPLE = 50
"""The most people of a family: their relatives are found by products of square matrices."""

MOST_DIGITS = 9
"""The most digits of a label."""

TRIES = 20
"""The most graphs that are drawn to find one with a path of the length asked for."""

Names = dict[int, str]
"""label -> name"""


@dataclass(frozen=True)
class Described:
    """A graph as a sequence describes it, and the questions about it.

    edges: [edges, 3], the labels of each in the order described. nodes: a dictionary for each node, with its `label`.
    kinds: the names of kinds of edges, by label. queries, answers: the triples of each question.
    """

    edges: Labels
    nodes: list[dict[str, Any]]
    kinds: Names
    queries: list[Labels]
    answers: list[Labels]


class TripleSource(Source):
    """A task that describes a graph in triples and asks about it.

    Facts: `graph`, its `nodes` and `edges`, and `routes`, the nodes and edges of each answer. Nodes are named by their
    places in `nodes`, edges by theirs in `edges`, which is the step that shows them.
    """

    label_digits: int
    planning_per_triple: float
    counted = "triples"

    @property
    def input_size(self) -> int:
        return 30 * self.label_digits + 2

    @property
    def output_size(self) -> int:
        return 30 * self.label_digits

    @abstractmethod
    def described(self, random: Random, chosen: Chosen) -> Described:
        """Return a graph with questions."""

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        return self.encode(self.described(random, chosen), chosen["planning"])

    def encode(self, described: Described, planning: int) -> Sample:
        """Return the sample of a graph and its questions.

        planning: the steps of silence before each answer, but for those of planning_per_triple.
        """
        planning = self.silence(planning, len(described.edges))
        parts = [("listen", triples.Part(described.edges))]
        for query, answer in zip(described.queries, described.answers, strict=True):
            parts += [("ask", triples.Part(query)), ("plan", triples.silent(planning))]
            parts += [("answer", triples.answered(answer))]
        inputs, targets, mask, _ = triples.encode([[part for _, part in parts]], self.label_digits)
        phases, step = [], 0
        for name, part in parts:
            phases += [Phase(name, step, step + len(part.shown))] if len(part.shown) else []
            step += len(part.shown)
        nodes = {node["label"]: number for number, node in enumerate(described.nodes)}
        return Sample(
            inputs=inputs[:, 0],
            targets=targets[:, 0],
            mask=mask[:, 0] > 0,
            phases=tuple(phases),
            labels=tuple(self._labels(described, [part for _, part in parts])),
            kept=len(described.edges),
            facts={
                "graph": {"nodes": described.nodes, "edges": self._edges(described, nodes)},
                "routes": [self._route(described, nodes, answer) for answer in described.answers],
            },
        )

    def silence(self, planning: int, edges: int) -> int:
        """Return the steps of silence before an answer, with those of planning_per_triple."""
        return planning + triples.planning_steps(self.planning_per_triple, edges)

    def label(self, number: int) -> str:
        """Return a label as text."""
        return f"{number:0{self.label_digits}}"

    def _edges(self, described: Described, nodes: dict[int, int]) -> list[dict[str, Any]]:
        return [
            {"from": nodes[source], "to": nodes[to], "label": kind, "name": described.kinds.get(kind, self.label(kind))}
            for source, kind, to in described.edges.tolist()
        ]

    def _route(self, described: Described, nodes: dict[int, int], answer: Labels) -> dict[str, Any]:
        """Return the nodes of an answer, and its edges, but for those that the graph is not described with."""
        numbers = {tuple(edge): number for number, edge in enumerate(described.edges.tolist())}
        path = [int(answer[0, SOURCE]), *answer[:, DESTINATION].tolist()]
        return {
            "nodes": [nodes[label] for label in path],
            "edges": [numbers[edge] for edge in map(tuple, answer.tolist()) if edge in numbers],
            "names": [described.kinds.get(kind, self.label(kind)) for kind in answer[:, EDGE].tolist()],
        }

    def _labels(self, described: Described, parts: Sequence[triples.Part]) -> list[str]:
        """Return each step's triple as text: that shown, or that due; "" in silence."""
        names = {node["label"]: node["name"] for node in described.nodes}

        def text(label: int, names: Names) -> str:
            return "?" if label == BLANK else names.get(label, self.label(label))

        rows = np.concatenate([part.shown if part.asked is None else part.asked for part in parts]).tolist()
        return [
            f"{text(source, names)} -[{text(kind, described.kinds)}]-> {text(to, names)}"
            if (source, kind, to) != (BLANK, BLANK, BLANK)
            else ""
            for source, kind, to in rows
        ]


class MapSource(TripleSource):
    """A task about ways through a random graph, or through London's Underground."""

    nodes: Range
    neighbours: Range
    moves: Range
    queries: Range
    planning: Range
    map: Map

    def __post_init__(self) -> None:
        _check_digits(self.label_digits, 1)
        triples.check_planning(self.planning_per_triple, type(self).__name__)
        if not self._has_labels(self.map):
            raise ConfigError(f"{type(self).__name__}.label_digits: {self.label_digits} are too few for {self.map!r}")

    def choices(self) -> list[Choice]:
        labels = {name: label for name, label in MAPS.items() if self._has_labels(name)}
        return [Choice("map", "Map", labels, (self.map,))]

    def sizes(self, chosen: Chosen) -> list[Size]:
        drawn = [
            Size("nodes", "Nodes", self.nodes, 2, min(MOST_NODES, 10**self.label_digits)),
            Size("neighbours", "Neighbours", self.neighbours, 1, max(1, chosen.get("nodes", 10) - 1)),
        ]
        return [
            *(drawn if chosen["map"] == "random" else []),
            Size("moves", "Moves", self.moves, 1, 20),
            Size("queries", "Questions", self.queries),
            Size("planning", "Planning", self.planning, 0, 100),
        ]

    def most_steps(self, chosen: Chosen) -> int:
        planning = self.silence(chosen["planning"], self.needed(chosen))
        answer = self.query_size(chosen["moves"]) + planning + chosen["moves"]
        return int(self.needed(chosen) + chosen["queries"] * answer)

    def needed(self, chosen: Chosen) -> int:
        if chosen["map"] != "random":
            return len(maps.london(chosen["map"] == "london-zone-1").edges)
        return int(chosen["nodes"] * min(chosen["neighbours"], chosen["nodes"] - 1))

    @abstractmethod
    def query_size(self, moves: int) -> int:
        """Return the steps of a question about a way of this number of moves."""

    @abstractmethod
    def path(self, graph: LabelledGraph, random: Random, moves: int) -> list[int]:
        """Return the numbers of the edges of a way, the answer of a question."""

    @abstractmethod
    def query(self, path: Labels) -> Labels:
        """Return the question to which a path is the answer."""

    def described(self, random: Random, chosen: Chosen) -> Described:
        graph = self.graph(random, chosen)
        count = 10**self.label_digits
        nodes, kinds = (random.choice(count, size, replace=False) for size in (graph.nodes, graph.kinds))
        source, kind, to = graph.edges.T
        edges = np.stack([nodes[source], kinds[kind], nodes[to]], 1)
        answers = [edges[self.path(graph, random, chosen["moves"])] for _ in range(chosen["queries"])]
        return Described(
            random.permutation(edges),
            self._nodes(graph, nodes, chosen["map"]),
            {} if chosen["map"] == "random" else dict(zip(kinds.tolist(), _chart(chosen["map"]).ways, strict=True)),
            [self.query(answer) for answer in answers],
            answers,
        )

    def graph(self, random: Random, chosen: Chosen) -> LabelledGraph:
        """Return the graph of a sample."""
        if chosen["map"] != "random":
            return maps.london(chosen["map"] == "london-zone-1")
        return maps.random_graph(random, chosen["nodes"], (chosen["neighbours"],) * 2)

    def _nodes(self, graph: LabelledGraph, labels: NDArray[np.int64], name: str) -> list[dict[str, Any]]:
        each = labels.tolist()
        names = [self.label(label) for label in each] if name == "random" else _chart(name).stations
        assert graph.points is not None
        places = zip(each, names, graph.points.round(4).tolist(), strict=True)
        return [{"label": label, "name": name, "x": x, "y": y} for label, name, (x, y) in places]

    def _has_labels(self, name: str) -> bool:
        return name == "random" or len(_chart(name).stations) <= 10**self.label_digits


@dataclass(frozen=True)
class GraphTraversal(MapSource):
    """Follow edges, given by their labels, from a node. A way comes back to a node only where it cannot go on."""

    label_digits: int = 3
    nodes: Range = (10, 20)
    neighbours: Range = (2, 4)
    moves: Range = (1, 5)
    queries: Range = (1, 1)
    planning: Range = (0, 0)
    planning_per_triple: float = 0.0
    map: Map = "random"

    name = "graph-traversal"

    def query_size(self, moves: int) -> int:
        return moves

    def path(self, graph: LabelledGraph, random: Random, moves: int) -> list[int]:
        node = int(random.integers(graph.nodes))
        passed, path = {node}, []
        for _ in range(moves):
            choices = [choice for choice in graph.outgoing[node] if choice[1] not in passed] or graph.outgoing[node]
            edge, node = choices[int(random.integers(len(choices)))]
            passed.add(node)
            path.append(edge)
        return path

    def query(self, path: Labels) -> Labels:
        return maps.walk_query(path)


@dataclass(frozen=True)
class ShortestPath(MapSource):
    """Say the only shortest path from one node to another. answers: of measurements; no sample depends on it.

    A graph without one of the length asked for is drawn again; after TRIES of them, the last one's longest is asked.
    """

    label_digits: int = 3
    nodes: Range = (10, 20)
    neighbours: Range = (2, 3)
    moves: Range = (2, 4)
    queries: Range = (1, 1)
    planning: Range = (10, 10)
    planning_per_triple: float = 0.0
    map: Map = "random"
    answers: Literal["digits", "edges"] = "digits"

    name = "shortest-path"

    def query_size(self, moves: int) -> int:
        del moves
        return 1

    def graph(self, random: Random, chosen: Chosen) -> LabelledGraph:
        for _ in range(TRIES):
            graph = super().graph(random, chosen)
            if maps.distances(graph, (chosen["moves"],) * 2):
                break
        return graph

    def path(self, graph: LabelledGraph, random: Random, moves: int) -> list[int]:
        longest = max(maps.distances(graph, (1, moves)))
        return maps.shortest_path(graph, random, (longest, longest))

    def query(self, path: Labels) -> Labels:
        return maps.way_query(path)


@dataclass(frozen=True)
class FamilyTree(TripleSource):
    """Name a relative in a family that is described by who is whose father, mother, son and daughter.

    Facts: as of TripleSource; a node is a person, with `woman` and `generation`.
    """

    label_digits: int = 3
    people: Range = (10, 20)
    generations: Range = (3, 4)
    steps: Range = (2, 4)
    queries: Range = (1, 3)
    planning: Range = (10, 10)
    planning_per_triple: float = 0.0

    name = "family-tree"

    def __post_init__(self) -> None:
        _check_digits(self.label_digits, 2)
        triples.check_planning(self.planning_per_triple, type(self).__name__)

    def sizes(self, chosen: Chosen) -> list[Size]:
        least = 2 * max(chosen.get("generations", 3), chosen.get("steps", 2))
        return [
            Size("generations", "Generations", self.generations, 3, 10),
            Size("steps", "Steps of a relation", self.steps, 2, 4),
            Size("people", "People", self.people, least, min(MOST_PEOPLE, 10**self.label_digits)),
            Size("queries", "Questions", self.queries),
            Size("planning", "Planning", self.planning, 0, 100),
        ]

    def most_steps(self, chosen: Chosen) -> int:
        planning = self.silence(chosen["planning"], self.needed(chosen))
        return int(self.needed(chosen) + chosen["queries"] * (planning + 2))

    def needed(self, chosen: Chosen) -> int:
        return int(4 * (chosen["people"] - 2))

    def described(self, random: Random, chosen: Chosen) -> Described:
        family, asked = self._asked(random, chosen)
        people = random.choice(10**self.label_digits, len(family.woman), replace=False)
        each = zip(people.tolist(), family.woman.tolist(), family.generations(), strict=True)
        answers = list(labelled(asked, people)[:, None])
        return Described(
            random.permutation(labelled(family.triples(), people)),
            [
                {"label": label, "name": self.label(label), "woman": woman, "generation": generation}
                for label, woman, generation in each
            ],
            dict(enumerate(BASIC)) | dict(enumerate(RELATIONS, FIRST_RELATION)),
            [relative_query(answer) for answer in answers],
            answers,
        )

    def _asked(self, random: Random, chosen: Chosen) -> tuple[Family, Labels]:
        """Return a family and the questions about it."""
        steps = np.full(chosen["queries"], chosen["steps"])
        while True:
            family = random_family(random, chosen["people"], chosen["generations"])
            asked = questions_about(family, random, steps)
            if asked is not None:
                return family, asked


def _check_digits(digits: int, least: int) -> None:
    if not least <= digits <= MOST_DIGITS:
        raise ConfigError(f"label_digits must be {least} to {MOST_DIGITS}, got {digits}")


def _chart(name: str) -> Underground:
    return underground(name == "london-zone-1")
