"""Graphs and questions about them as sequences of labelled triples ([DNC] Methods, graph task descriptions)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.config import ConfigError
from models.episodes.base import Range

Labels = NDArray[np.int64]
"""[..., 3]: the labels of the source, the edge and the destination of triples; BLANK for an open one."""

BLANK = -1
MOST_PLANNING = 100
"""The most steps of silence for each triple of a description."""

SOURCE, EDGE, DESTINATION = range(3)


class Part(NamedTuple):
    """Some steps of a sequence: the triple shown at each, and, in an answer, the triple due at each."""

    shown: Labels
    """[steps, 3]"""
    asked: Labels | None = None
    """[steps, 3]"""


class Question(NamedTuple):
    """A query, triples with blanks, [steps, 3], and the triples that are its answer, [steps, 3]."""

    query: Labels
    answer: Labels


def silent(steps: int) -> Part:
    """Return a part in which nothing is shown."""
    return Part(np.full((steps, 3), BLANK))


def answered(triples: Labels) -> Part:
    """Return the part in which these triples are due and nothing is shown. triples: [steps, 3]"""
    return Part(np.full_like(triples, BLANK), triples)


def check_planning(per_triple: float, owner: str) -> None:
    """Raise ConfigError unless an option planning_per_triple is possible. owner: the class that has it."""
    if not 0 <= per_triple <= MOST_PLANNING:
        raise ConfigError(f"{owner}.planning_per_triple must be 0 to {MOST_PLANNING} steps, got {per_triple}")


def planning_steps(per_triple: float, triples: int) -> int:
    """Return the steps of silence that a description of this size adds, a whole number."""
    return round(per_triple * triples)


class Encoded(NamedTuple):
    """Sequences of parts, padded to the longest."""

    inputs: NDArray[np.float32]
    """[T, B, 30 digits + 2]"""
    targets: NDArray[np.float32]
    """[T, B, 30 digits]"""
    mask: NDArray[np.float32]
    """[T, B], 1 where an answer is due"""
    lengths: NDArray[np.int64]
    """[B]"""


def encode(rows: Sequence[Sequence[Part]], digits: int) -> Encoded:
    """Return sequences of parts, one a row."""
    lengths = [sum(len(part.shown) for part in row) for row in rows]
    size = (max(lengths), len(rows))
    shown, asked = np.full((*size, 3), BLANK), np.full((*size, 3), BLANK)
    begins = np.zeros(size)
    for column, row in enumerate(rows):
        step = 0
        for part in row:
            end = step + len(part.shown)
            shown[step:end, column] = part.shown
            if part.asked is not None:
                asked[step:end, column] = part.asked
            begins[step, column] = step > 0
            step = end
    mask = asked[:, :, SOURCE] != BLANK
    inputs = np.concatenate([one_hot(shown, digits), begins[:, :, None], mask[:, :, None]], 2, dtype=np.float32)
    return Encoded(inputs, one_hot(asked, digits), mask.astype(np.float32), np.array(lengths))


def one_hot(labels: Labels, digits: int) -> NDArray[np.float32]:
    """Return triples as channels, the first digit first, a blank label as zeros: [..., 3] -> [..., 3 digits 10]."""
    places = 10 ** np.arange(digits - 1, -1, -1)
    each = np.where(labels[..., None] == BLANK, BLANK, labels[..., None] // places % 10)
    channels: NDArray[np.bool_] = each[..., None] == np.arange(10)
    return channels.reshape(*labels.shape[:-1], -1).astype(np.float32)


def decode(channels: NDArray[np.floating], digits: int) -> Labels:
    """Return the triples of channels, of each digit the greatest of its ten: [..., 3 digits 10] -> [..., 3]."""
    values = channels.reshape(*channels.shape[:-1], 3, digits, 10)
    labels: Labels = values.argmax(-1) @ 10 ** np.arange(digits - 1, -1, -1)
    return np.where(values.any((-1, -2)), labels, BLANK)


def draw_size(random: np.random.Generator, bounds: Range) -> int:
    """Return a whole number drawn uniformly from a range."""
    return int(random.integers(*bounds, endpoint=True))
