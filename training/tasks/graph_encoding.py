"""Graphs and questions about them as sequences of labelled triples ([DNC] Methods, graph task descriptions)."""

import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.config import ConfigError, require_at_least
from models.episodes import triples
from models.episodes.triples import (
    BLANK,
    SOURCE,
    Labels,
    Part,
    Question,
    answered,
    check_planning,
    draw_size,
    planning_steps,
    silent,
)
from training.tasks.base import AnswerTask, Episode, Range


class TripleTask(AnswerTask):
    """A task that shows triples in random order, then questions whose answers are a few complete triples.

        time      0 1 2 3 4 5 6 7 8 9
        triple    d d d d q . . . . .     3 labels of `label_digits` digits, each a one-hot of 10 channels
        phase     . . . . # # . . # .     the next channel: the first step of a query, of planning, of an answer
        answer    . . . . . . . . # #     the last channel: every step of an answer
        target                    a a     the triples of the answer, in their order

    A blank label is all zeros. planning: the range of the steps of silence between a query and its answer;
    planning_per_triple: more of them for each triple of the description, rounded to whole steps, so that a network may
    plan for longer in a larger graph. With 3 digits there are 92 inputs and 90 outputs, as in the paper: nine digits of
    ten classes each. Two things differ: an answer has as many steps as triples, while the paper's network ends it by a
    pattern of its own; and the sequences of a batch are padded to the longest.
    """

    label_digits: int
    planning: Range
    planning_per_triple: float
    classes = 10
    sizes_by_row = True
    paper = (
        "Graves, Wayne et al., Hybrid computing using a neural network with dynamic external memory, "
        "Nature 538, 471-476 (2016), Methods, graph task descriptions"
    )

    @abstractmethod
    def row(self, random: np.random.Generator) -> tuple[Labels, list[Question]]:
        """Return the description of a sequence, triples in any order, [triples, 3], and its questions."""

    def names(self, description: Labels) -> tuple[Mapping[int, str], Mapping[int, str]]:
        """Return the names of nodes and edges, by label, if they have any. description: [triples, 3]"""
        del description
        return {}, {}

    @property
    def groups(self) -> int:
        return 3 * self.label_digits

    @property
    def model_values(self) -> dict[str, Any]:
        return {
            "input_size": self.output_size + 2,
            "output_size": self.output_size,
            "output_activation": "softmax",
            "output_groups": self.groups,
        }

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        random = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
        return encode([self._parts(random) for _ in range(batch_size)], self.label_digits)

    def render(self, episode: Episode, row: int = 0) -> str:
        """Return one sequence as text: the size of the description, then each question and its answer as a path."""
        end = len(episode.mask) if episode.lengths is None else int(episode.lengths[row])
        shown = decode(episode.inputs[:end, row, : self.output_size], self.label_digits)
        asked = decode(episode.targets[:end, row], self.label_digits)
        size = int(episode.inputs[:, row, self.output_size].argmax())
        nodes, edges = self.names(shown[:size])

        def phase(step: int) -> str:
            if asked[step, SOURCE] != BLANK:
                return "answer"
            return "planning" if (shown[step] == BLANK).all() else "query"

        lines = [f"description: {size} triples"]
        for name, group in itertools.groupby(range(size, end), phase):
            steps = list(group)
            way = asked[steps] if name == "answer" else shown[steps]
            text = f"{len(steps)} steps" if name == "planning" else self._path(way, nodes, edges)
            lines.append(f"{name}: {text}")
        return "\n".join(lines)

    def require(self, labels: int, **minimum: int) -> None:
        """Raise ConfigError unless `labels` labels can differ and each size is at least its minimum, by default 1.

        Planning may always be 0.
        """
        require_at_least(self, 1, "label_digits")
        check_planning(self.planning_per_triple, type(self).__name__)
        if labels > 10**self.label_digits:
            raise ConfigError(
                f"{type(self).__name__}.label_digits must be at least {len(str(labels - 1))}, to distinguish {labels} "
                f"labels, got {self.label_digits}"
            )
        self.require_ranges(minimum=0)
        minimum["planning"] = 0
        for name, (least, _) in self.sizes.items():
            if least < minimum.get(name, 1):
                raise ConfigError(f"{type(self).__name__}.{name} must be at least {minimum.get(name, 1)}, got {least}")

    def _parts(self, random: np.random.Generator) -> list[Part]:
        description, questions = self.row(random)
        parts = [Part(random.permutation(description))]
        more = planning_steps(self.planning_per_triple, len(description))
        for query, answer in questions:
            parts += [Part(query), silent(draw_size(random, self.planning) + more), answered(answer)]
        return parts

    def _path(self, triples: Labels, nodes: Mapping[int, str], edges: Mapping[int, str]) -> str:
        def shown(label: int, names: Mapping[int, str]) -> str:
            return "?" if label == BLANK else names.get(label, f"{label:0{self.label_digits}}")

        rows: list[list[int]] = triples.tolist()
        moves = (f" -[{shown(edge, edges)}]-> {shown(destination, nodes)}" for _, edge, destination in rows)
        return shown(rows[0][SOURCE], nodes) + "".join(moves)


def encode(rows: Sequence[Sequence[Part]], digits: int) -> Episode:
    """Return sequences of parts as an episode, one a row, padded to the longest."""
    return Episode(*map(torch.from_numpy, triples.encode(rows, digits)))


def decode(channels: Tensor, digits: int) -> Labels:
    """Return the triples of channels, of each digit the greatest of its ten: [..., 3 digits 10] -> [..., 3]."""
    return triples.decode(channels.numpy(force=True), digits)
