"""Inputs for a model whose task is not known, within what its card says of them. No answer is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.episodes.base import Array, Chosen, Random, Sample, Size, Source
from models.episodes.bits import random_bits

STEPS = 20
"""The steps of inputs, unless others are asked for."""

LARGEST = 2.0**24
"""The greatest number that is drawn: float32 has every whole number up to it."""


@dataclass(frozen=True)
class Unknown(Source):
    """A model that takes `width` numbers a step, of which nothing is known: fair bits, or from -1 to 1."""

    width: int
    are_bits: bool = True

    name = "none"

    @property
    def input_size(self) -> int:
        return self.width

    @property
    def output_size(self) -> None:
        return None

    def sizes(self, chosen: Chosen) -> list[Size]:
        del chosen
        return [Size("length", "Steps", None, drawn=(STEPS, STEPS))]

    def most_steps(self, chosen: Chosen) -> int:
        return int(chosen["length"])

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        inputs = self.numbers(random, chosen["length"])
        return Sample(inputs, pattern=inputs if self.are_bits else None)

    def numbers(self, random: Random, steps: int) -> Array:
        """Return inputs, [steps, width]."""
        if self.are_bits:
            return random_bits(random, steps, self.width)
        return (2 * random.random((steps, self.width)) - 1).astype(np.float32)


@dataclass(frozen=True)
class UnknownTokens(Unknown):
    """A model that takes one token a step, a whole number below vocabulary_size."""

    vocabulary_size: int = 1

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        tokens = random.integers(0, self.vocabulary_size, (chosen["length"], 1))
        words = [str(token) for token in tokens[:, 0].tolist()]
        return Sample(tokens.astype(np.float32), labels=tuple(words), pattern=words)


@dataclass(frozen=True)
class UnknownParts(Unknown):
    """An imported graph: its inputs by parts, each with its shape, and its range or None."""

    parts: Sequence[Mapping[str, Any]] = ()
    are_bits: bool = False

    def numbers(self, random: Random, steps: int) -> Array:
        return np.concatenate([_part(random, steps, part) for part in self.parts], 1)


def _part(random: Random, steps: int, part: Mapping[str, Any]) -> Array:
    """Return random numbers for a part: whole ones where it takes no others, else within its range, or -1 to 1."""
    shape, whole = (steps, math.prod(part["shape"])), part.get("whole")
    low, high = sorted(float(np.clip(end, -LARGEST, LARGEST)) for end in part.get("range") or whole or (-1, 1))
    drawn = low + (high - low) * random.random(shape)
    return np.clip(np.rint(drawn) if whole else drawn, low, high).astype(np.float32)
