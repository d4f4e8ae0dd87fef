"""Priority sort, as in training/tasks/priority_sort.py."""

from dataclasses import dataclass

import numpy as np

from models.config import ConfigError, require_at_least
from models.episodes.base import Array, Chosen, Random, Range, Sample, Size, Source
from models.episodes.bits import flag, heard_and_said, numbered, random_bits, shown


@dataclass(frozen=True)
class PrioritySort(Source):
    """Bit vectors with a priority each; the share of highest priority is to be said, the highest first."""

    bits: int = 8
    items: Range = (20, 20)
    share: float = 0.8

    name = "priority-sort"
    counted = "vectors"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits")
        if not 0 < self.share <= 1:
            raise ConfigError(f"PrioritySort.share must be in (0, 1], got {self.share}")

    @property
    def input_size(self) -> int:
        return self.bits + 2

    @property
    def output_size(self) -> int:
        return self.bits

    def sizes(self, chosen: Chosen) -> list[Size]:
        del chosen
        return [Size("items", "Vectors", self.items)]

    def most_steps(self, chosen: Chosen) -> int:
        return int(chosen["items"]) + 1 + self._asked(chosen["items"])

    def needed(self, chosen: Chosen) -> int:
        return int(chosen["items"])

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        vectors = random_bits(random, chosen["items"], self.bits)
        priorities = (2 * random.random((chosen["items"], 1)) - 1).astype(np.float32)
        return self.encode(np.concatenate([vectors, priorities], 1))

    def encode(self, pattern: Array) -> Sample:
        """Return the sample of these vectors with their priorities behind their bits: [items, bits + 1]."""
        size, names = self.input_size, numbered(len(pattern))
        order = np.argsort(-pattern[:, self.bits], kind="stable")[: self._asked(len(pattern))]
        heard = np.concatenate([shown(pattern, size), flag(size, self.bits + 1)])
        labels = [*names, "end", *(names[number] for number in order)]
        return heard_and_said(heard, pattern[order, : self.bits], labels=labels, pattern=pattern)

    def _asked(self, items: int) -> int:
        return max(1, round(items * self.share))
