"""Copy: say a sequence of random vectors again ([NTM] section 4.1)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.config import require_at_least
from training.tasks.base import BitTask, Episode, Range, draw, random_bits


@dataclass(frozen=True)
class Copy(BitTask):
    """Random bit vectors between a start and an end flag, to be copied in order after the end flag.

        time     0 1 2 3 4 5 6 7 8
        bits     . a b c . . . . .      `bits` channels, each vector drawn uniformly
        start    # . . . . . . . .      channel `bits`
        end      . . . . # . . . .      channel `bits` + 1
        target             a b c        due in the last `length` steps, T = 2 length + 2

    With the end flag alone, as in ntm-lasagne's `CopyTask` with an end marker, an answer is due at every step: zeros,
    the vectors, then an end marker in an output of its own.

        bits     a b c . . . . .      `bits` channels
        end      . . . # . . . .      channel `bits`
        target   . . . . a b c .      due at every step, T = 2 length + 2
        marker   . . . . . . . #      output `bits`

    length: the range of the number of vectors.
    """

    bits: int = 8
    length: Range = (1, 20)
    flags: Literal["start-and-end", "end"] = "start-and-end"

    name = "copy"
    paper = "Graves, Wayne & Danihelka, Neural Turing Machines, arXiv 1410.5401, section 4.1"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits")
        self.require_ranges()

    @property
    def input_size(self) -> int:
        return self.bits + (1 if self.flags == "end" else 2)

    @property
    def output_size(self) -> int:
        return self.bits + (1 if self.flags == "end" else 0)

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        length = draw(generator, self.length)
        vectors = random_bits(generator, length, batch_size, self.bits)
        return self._end_flag(vectors) if self.flags == "end" else self._both_flags(vectors)

    def _both_flags(self, vectors: Tensor) -> Episode:
        length, batch_size, _ = vectors.shape
        steps = 2 * length + 2
        inputs = torch.zeros(steps, batch_size, self.input_size)
        inputs[0, :, self.bits] = 1
        inputs[1 : length + 1, :, : self.bits] = vectors
        inputs[length + 1, :, self.bits + 1] = 1
        targets = torch.zeros(steps, batch_size, self.bits)
        targets[length + 2 :] = vectors
        mask = torch.zeros(steps, batch_size)
        mask[length + 2 :] = 1
        return Episode(inputs, targets, mask)

    def _end_flag(self, vectors: Tensor) -> Episode:
        length, batch_size, _ = vectors.shape
        steps = 2 * length + 2
        inputs = torch.zeros(steps, batch_size, self.input_size)
        inputs[:length, :, : self.bits] = vectors
        inputs[length, :, self.bits] = 1
        targets = torch.zeros(steps, batch_size, self.output_size)
        targets[length + 1 : -1, :, : self.bits] = vectors
        targets[-1, :, self.bits] = 1
        return Episode(inputs, targets, mask=torch.ones(steps, batch_size))
