"""Copy and repeat copy, as in training/tasks/copy.py and training/tasks/repeat_copy.py."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.config import ConfigError, require_at_least
from models.episodes.base import Array, Chosen, Phase, Random, Range, Sample, Size, Source
from models.episodes.bits import flag, heard_and_said, numbered, random_bits, shown


@dataclass(frozen=True)
class Copy(Source):
    """Bit vectors, to be said again in order."""

    bits: int = 8
    length: Range = (1, 20)
    flags: Literal["start-and-end", "end"] = "start-and-end"

    name = "copy"
    counted = "vectors"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits")

    @property
    def input_size(self) -> int:
        return self.bits + (1 if self.flags == "end" else 2)

    @property
    def output_size(self) -> int:
        return self.bits + (1 if self.flags == "end" else 0)

    def sizes(self, chosen: Chosen) -> list[Size]:
        del chosen
        return [Size("length", "Vectors", self.length)]

    def most_steps(self, chosen: Chosen) -> int:
        return int(2 * chosen["length"] + 2)

    def needed(self, chosen: Chosen) -> int:
        return int(chosen["length"])

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        return self.encode(random_bits(random, chosen["length"], self.bits))

    def encode(self, vectors: Array) -> Sample:
        """Return the sample of these vectors: [length, bits]."""
        return self._end_flag(vectors) if self.flags == "end" else self._both_flags(vectors)

    def _both_flags(self, vectors: Array) -> Sample:
        size, names = self.input_size, numbered(len(vectors))
        heard = np.concatenate([flag(size, self.bits), shown(vectors, size), flag(size, self.bits + 1)])
        return heard_and_said(heard, vectors, labels=["start", *names, "end", *names], pattern=vectors)

    def _end_flag(self, vectors: Array) -> Sample:
        """Return the sample in which an answer is due at every step: zeros, the vectors, an end marker."""
        length, names, size = len(vectors), numbered(len(vectors)), self.input_size
        silence = np.zeros((length + 1, size), np.float32)
        targets = np.concatenate([silence, shown(vectors, size), flag(size, self.bits)])
        return Sample(
            inputs=np.concatenate([shown(vectors, size), flag(size, self.bits), silence]),
            targets=targets,
            mask=np.ones(len(targets), np.bool_),
            phases=(Phase("listen", 0, length + 1), Phase("say", length + 1, 2 * length + 2)),
            labels=(*names, "end", *names, "end"),
            pattern=vectors,
        )


@dataclass(frozen=True)
class RepeatCopy(Source):
    """Bit vectors, to be said again several times, and then an end marker."""

    bits: int = 8
    length: Range = (1, 10)
    repeats: Range = (1, 10)
    repeats_scale: int = 10

    name = "repeat-copy"
    counted = "vectors"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits")
        if self.repeats_scale < 2 or self.repeats_scale % 2:
            raise ConfigError(f"RepeatCopy.repeats_scale must be even and at least 2, got {self.repeats_scale}")

    @property
    def input_size(self) -> int:
        return self.bits + 2

    @property
    def output_size(self) -> int:
        return self.bits + 1

    def sizes(self, chosen: Chosen) -> list[Size]:
        del chosen
        return [Size("length", "Vectors", self.length), Size("repeats", "Repeats", self.repeats)]

    def most_steps(self, chosen: Chosen) -> int:
        return int(chosen["length"] * (chosen["repeats"] + 1) + 3)

    def needed(self, chosen: Chosen) -> int:
        return int(chosen["length"])

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        return self.encode(random_bits(random, chosen["length"], self.bits), chosen["repeats"])

    def encode(self, vectors: Array, repeats: int) -> Sample:
        """Return the sample of these vectors, [length, bits] and of the number of repeats."""
        size, names = self.input_size, numbered(len(vectors))
        count = flag(size, self.bits + 1, self._normalised(repeats))
        heard = np.concatenate([flag(size, self.bits), shown(vectors, size), count])
        due = np.concatenate([np.tile(shown(vectors, size - 1), (repeats, 1)), flag(size - 1, self.bits)])
        labels = ["start", *names, f"repeats {repeats}", *names * repeats, "end"]
        return heard_and_said(heard, due, labels=labels, pattern=vectors)

    def _normalised(self, repeats: int) -> float:
        """Return the number of repeats, of mean 0 and variance 1 over 1 to repeats_scale."""
        mean, deviation = (self.repeats_scale + 1) / 2, math.sqrt((self.repeats_scale**2 - 1) / 12)
        return (repeats - mean) / deviation
