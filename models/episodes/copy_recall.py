"""Copy, then associative recall, as in training/tasks/copy_recall.py."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.episodes.base import Array, Chosen, Phase, Random, Range, Sample, Size, Source
from models.episodes.copying import Copy
from models.episodes.recall import AssociativeRecall

FLAGS = 2
"""The channels of each part beside the bits."""


@dataclass(frozen=True)
class CopyRecall(Source):
    """Bit vectors, to be said again; then items, one of which is shown again: the one after it is to be said."""

    bits: int = 6
    length: Range = (1, 10)
    item_length: int = 3
    items: Range = (2, 6)

    name = "copy-recall"
    counted = "vectors or items"

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> tuple[Copy, AssociativeRecall]:
        """Return the sources of the two parts, in order. Raises ConfigError for an option that one of them refuses."""
        return Copy(self.bits, self.length), AssociativeRecall(self.bits, self.item_length, self.items)

    @property
    def input_size(self) -> int:
        return self.bits + 2 * FLAGS

    @property
    def output_size(self) -> int:
        return self.bits

    def sizes(self, chosen: Chosen) -> list[Size]:
        return [size for part in self.parts() for size in part.sizes(chosen)]

    def most_steps(self, chosen: Chosen) -> int:
        return sum(part.most_steps(chosen) for part in self.parts())

    def needed(self, chosen: Chosen) -> int:
        """Return the greater number: once the vectors are said, their locations are free for the items."""
        return max(part.needed(chosen) for part in self.parts())

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        return self.in_turn(*(part.draw(random, chosen) for part in self.parts()))

    def in_turn(self, first: Sample, second: Sample) -> Sample:
        """Return a sample of the one part and behind it one of the other, each silent in the flags of the other."""
        steps = len(first.inputs)
        later = [Phase(name, steps + start, steps + stop) for name, start, stop in second.phases]

        def joined(name: str) -> Any:
            return np.concatenate([getattr(first, name), getattr(second, name)])

        return Sample(
            np.concatenate([self._with_silent(first.inputs, 0, FLAGS), self._with_silent(second.inputs, FLAGS, 0)]),
            targets=joined("targets"),
            mask=joined("mask"),
            phases=(*first.phases, *later),
            labels=tuple(joined("labels").tolist()),
            pattern=joined("pattern"),
        )

    def _with_silent(self, inputs: Array, before: int, after: int) -> Array:
        """Return the inputs of a part with the flags of the other: [T, bits + 2] -> [T, input_size]."""
        bits, flags = np.split(inputs, [self.bits], 1)
        return np.concatenate([bits, np.pad(flags, ((0, 0), (before, after)))], 1)
