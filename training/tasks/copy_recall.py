"""Copy, then associative recall, in one sequence: two programs, one after the other."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from training.tasks.associative_recall import AssociativeRecall
from training.tasks.base import BitTask, Episode, Range
from training.tasks.copy import Copy

FLAGS = 2
"""The channels of each part beside the bits: start and end, or item and query."""


@dataclass(frozen=True)
class CopyRecall(BitTask):
    """A sequence of the copy task and behind it one of associative recall, on the same bits, with flags of their own.

        time     0 1 2 3 4 5 6 7 8 9 ...
        bits     . a b . . . . x . y . x . .      `bits` channels, here 2 vectors to copy and 2 items of 1 vector
        start    # . . . . . . . . . . . . .      channel `bits`
        end      . . . # . . . . . . . . . .      channel `bits` + 1
        item     . . . . . . # . # . . . . .      channel `bits` + 2
        query    . . . . . . . . . . # . # .      channel `bits` + 3, before and after the query
        target           a b               y      T = that of the one + that of the other

    The paper's published code, for copy and repeat copy, shows both sequences before either is answered, in an order
    that is drawn and that a flag at the start names.

    length: the range of the number of vectors to copy; items: that of the items.
    """

    bits: int = 6
    length: Range = (1, 10)
    item_length: int = 3
    items: Range = (2, 6)

    name = "copy-recall"
    paper = "after the sequencing tasks of Le, Tran & Venkatesh, Neural Stored-program Memory, arXiv 1906.08862"

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> tuple[Copy, AssociativeRecall]:
        """Return the two tasks, in order. Raises ConfigError for an option that one of them refuses."""
        return Copy(self.bits, self.length), AssociativeRecall(self.bits, self.item_length, self.items)

    @property
    def input_size(self) -> int:
        return self.bits + 2 * FLAGS

    @property
    def output_size(self) -> int:
        return self.bits

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        first, second = (part.sample(generator, batch_size) for part in self.parts())
        return Episode(
            inputs=torch.cat([self._with_silent(first.inputs, 0, FLAGS), self._with_silent(second.inputs, FLAGS, 0)]),
            targets=torch.cat([first.targets, second.targets]),
            mask=torch.cat([first.mask, second.mask]),
        )

    def _with_silent(self, inputs: Tensor, before: int, after: int) -> Tensor:
        """Return the inputs of a part with the flags of the other, silent: [T, B, bits + 2] -> [T, B, input_size]."""
        bits, flags = torch.split(inputs, [self.bits, FLAGS], 2)
        return torch.cat([bits, pad(flags, (before, after))], 2)
