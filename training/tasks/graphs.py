"""Graph traversal and shortest path: follow edges, or find the way, in a graph shown as triples ([DNC] Methods)."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.config import ConfigError
from models.episodes.maps import (
    LabelledGraph,
    Map,
    distances,
    london,
    random_graph,
    shortest_path,
    walk_query,
    way_query,
)
from models.episodes.triples import BLANK, DESTINATION, SOURCE, Labels, Question, draw_size
from models.episodes.underground import names, underground
from training.tasks.base import Episode, Range
from training.tasks.graph_encoding import TripleTask, decode

Answers = Literal["digits", "edges"]

TRIES = 1000
"""The most maps that are drawn to find one with a question."""


class MapTask(TripleTask):
    """A task about ways through a graph, drawn for each sequence, or through London's Underground.

    The random graph is the paper's: points drawn uniformly from the unit square, each with an edge to its nearest
    ones, of a number drawn for each from `neighbours` (or to all, if there are fewer). For n nodes n edge labels
    are drawn; an edge has one of them, different from those of all edges out of the same node.

    The Underground has an edge each way for every connection, labelled by its line and direction; "london-zone-1" is
    the part of it in zone 1. (The paper's is a chart of the interchange stations of zone 1.) All labels of stations
    and of lines are drawn anew for each sequence.
    """

    nodes: Range
    neighbours: Range
    moves: Range
    queries: Range
    map: Map

    def __post_init__(self) -> None:
        size = self.nodes[1] if self.map == "random" else len(underground(self.map == "london-zone-1").stations)
        self.require(size, nodes=2)

    def row(self, random: np.random.Generator) -> tuple[Labels, list[Question]]:
        graph = self.graph(random)
        triples = graph.labelled(random, self.label_digits)
        paths = [triples[self.path(graph, random)] for _ in range(draw_size(random, self.queries))]
        return triples, [Question(self.query(path), path) for path in paths]

    def names(self, description: Labels) -> tuple[Mapping[int, str], Mapping[int, str]]:
        if self.map == "random":
            return {}, {}
        return names(description.tolist(), underground(self.map == "london-zone-1"))

    def graph(self, random: np.random.Generator) -> LabelledGraph:
        """Return the graph of a sequence."""
        if self.map == "random":
            return random_graph(random, draw_size(random, self.nodes), self.neighbours)
        return london(zone_1=self.map == "london-zone-1")

    @abstractmethod
    def path(self, graph: LabelledGraph, random: np.random.Generator) -> list[int]:
        """Return the numbers of the edges of a way, the answer of a question."""

    @abstractmethod
    def query(self, path: Labels) -> Labels:
        """Return the query to which a path is the answer: [moves, 3] -> [steps, 3]."""


@dataclass(frozen=True)
class GraphTraversal(MapTask):
    """Follow edges, given by their labels, from a node, and say all triples on the way.

        time      0 1 2 3 4 5 6 7 8 9
        triple    d d d d p q q . . .     the query is (a, e, _), (_, f, _), (_, g, _), here of 3 moves
        phase     . . . . # . . # . .
        answer    . . . . . . . # # #
        target                  t u v     (a, e, b), (b, f, c), (c, g, d)

    The path is a random walk from a random node. All options are ranges. nodes, neighbours: of the random graph. moves:
    the length of a path; queries: their number, one after the other on the same graph, one in the paper; planning: the
    steps of silence before the answer, none in the paper.
    """

    label_digits: int = 3
    nodes: Range = (10, 20)
    neighbours: Range = (2, 4)
    moves: Range = (1, 5)
    queries: Range = (1, 1)
    planning: Range = (0, 0)
    planning_per_triple: float = 0.0
    map: Map = "random"

    name = "graph-traversal"

    def path(self, graph: LabelledGraph, random: np.random.Generator) -> list[int]:
        first, *chances = random.random(1 + draw_size(random, self.moves)).tolist()
        node = int(first * graph.nodes)
        path = []
        for chance in chances:
            choices = graph.outgoing[node]
            edge, node = choices[int(chance * len(choices))]
            path.append(edge)
        return path

    def query(self, path: Labels) -> Labels:
        return walk_query(path)


@dataclass(frozen=True)
class ShortestPath(MapTask):
    """Say the triples of the shortest path from one node to another, after some steps of silence to find it.

        time      0 1 2 3 4 5 6 7 8 9
        triple    d d d d q . . . . .     the query is (a, _, c)
        phase     . . . . # # . . # .
        answer    . . . . . . . . # #
        target                    t u     (a, e, b), (b, f, c), here a path of 2 moves after 3 steps of planning

    Here only one path is right. In the paper every shortest path is right, and the network learns by imitation of a
    planner, one sequence at a time: each step of the answer gets the network's last choice, or the planner's, as input,
    and chooses among the edges that leave the node to which it led. Here there is no such input, the outputs choose
    freely, and the nodes are drawn from pairs with a single shortest path: first their distance, among the distances in
    `moves` that the graph has. A graph that has none of them is drawn again.

    nodes, neighbours: ranges of the random graph. moves: the range of the length of a path; planning: that of the steps
    of silence, 10 in the paper; queries: that of their number, one after the other on the same graph, one in the paper.
    answers: how a step of an answer is read when errors are counted. digits: as the likeliest value of each digit.
    edges: as the likeliest of the edges that leave the node where the step before led, as in the paper; but here the
    network does not see which. The loss is the same.
    """

    label_digits: int = 3
    nodes: Range = (10, 20)
    neighbours: Range = (2, 3)
    moves: Range = (2, 4)
    queries: Range = (1, 1)
    planning: Range = (10, 10)
    planning_per_triple: float = 0.0
    map: Map = "random"
    answers: Answers = "digits"

    name = "shortest-path"

    def errors(self, outputs: Tensor, episode: Episode) -> Tensor:
        if self.answers == "digits":
            return super().errors(outputs, episode)
        chances = self._by_group(outputs).log_softmax(3).flatten(2)
        wrong = [self._wrong_walks(chances[:, row], episode, row) for row in range(len(chances[0]))]
        return torch.tensor(wrong, dtype=outputs.dtype, device=outputs.device)

    def _wrong_walks(self, chances: Tensor, episode: Episode, row: int) -> int:
        """Return how many answers of a sequence, taken for edges, do not end at the destination.

        chances: of every channel of its outputs, in log: [T, output_size].
        """
        shown, asked = episode.inputs[:, row, : self.output_size], (episode.mask[:, row] > 0).tolist()
        labels, size = decode(shown, self.label_digits), int(episode.inputs[:, row, self.output_size].argmax())
        sources, destinations = labels[:size, SOURCE], labels[:size, DESTINATION]
        node, end, wrong = BLANK, BLANK, 0
        for step, last in enumerate([*(not after for after in asked[1:]), True]):
            if step >= size and labels[step, SOURCE] != BLANK:
                node, end = labels[step, SOURCE], labels[step, DESTINATION]
            if asked[step]:
                ways = np.flatnonzero(sources == node)
                node = destinations[ways[int((shown[ways] @ chances[step]).argmax())]]
                wrong += bool(last and node != end)
        return wrong

    def graph(self, random: np.random.Generator) -> LabelledGraph:
        for _ in range(TRIES):
            graph = super().graph(random)
            if distances(graph, self.moves):
                return graph
        raise ConfigError(
            f"ShortestPath.moves must be distances of nodes with only one shortest path between them, got "
            f"{list(self.moves)}, of which {TRIES} graphs had none: take fewer moves, fewer neighbours than "
            f"{list(self.neighbours)}, more nodes than {list(self.nodes)}, or another map than {self.map!r}"
        )

    def path(self, graph: LabelledGraph, random: np.random.Generator) -> list[int]:
        return shortest_path(graph, random, self.moves)

    def query(self, path: Labels) -> Labels:
        return way_query(path)
