"""Repeat copy: repeat a sequence of random vectors several times, then an end marker ([NTM] section 4.2)."""

import math
from dataclasses import dataclass

import torch

from models.config import ConfigError, require_at_least
from training.tasks.base import BitTask, Episode, Range, draw, random_bits


@dataclass(frozen=True)
class RepeatCopy(BitTask):
    """Random bit vectors after a start flag, then the number of repeats; an end marker follows the last repeat.

        time     0 1 2 3 4 5 6 7 8
        bits     . a b . . . . . .      `bits` channels
        start    # . . . . . . . .      channel `bits`
        repeats  . . . r . . . . .      channel `bits` + 1: the number of repeats, normalised
        target           a b a b .      `bits` channels, here 2 repeats
        end              . . . . #      channel `bits`: the end marker, T = length (repeats + 1) + 3

    length: the range of the number of vectors; repeats: the range of their number; r is (repeats - mean) / deviation of
    the uniform distribution from 1 to repeats_scale, which is the same in training and beyond it, and even, so that r
    is never 0.
    """

    bits: int = 8
    length: Range = (1, 10)
    repeats: Range = (1, 10)
    repeats_scale: int = 10

    name = "repeat-copy"
    paper = "Graves, Wayne & Danihelka, Neural Turing Machines, arXiv 1410.5401, section 4.2"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits")
        require_at_least(self, 2, "repeats_scale")
        if self.repeats_scale % 2:
            raise ConfigError(
                "RepeatCopy.repeats_scale must be even, for the middle of an odd one is shown as 0, like silence, "
                f"got {self.repeats_scale}"
            )
        self.require_ranges()

    @property
    def input_size(self) -> int:
        return self.bits + 2

    @property
    def output_size(self) -> int:
        return self.bits + 1

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        length, repeats = draw(generator, self.length), draw(generator, self.repeats)
        vectors = random_bits(generator, length, batch_size, self.bits)
        asked_from = length + 2
        steps = asked_from + length * repeats + 1
        inputs = torch.zeros(steps, batch_size, self.input_size)
        inputs[0, :, self.bits] = 1
        inputs[1 : length + 1, :, : self.bits] = vectors
        inputs[length + 1, :, self.bits + 1] = self.normalised(repeats)
        targets = torch.zeros(steps, batch_size, self.output_size)
        targets[asked_from:-1, :, : self.bits] = vectors.repeat(repeats, 1, 1)
        targets[-1, :, self.bits] = 1
        mask = torch.zeros(steps, batch_size)
        mask[asked_from:] = 1
        return Episode(inputs, targets, mask)

    def normalised(self, repeats: int) -> float:
        """Return the number of repeats as the model sees it: of mean 0 and variance 1 over 1 to repeats_scale."""
        mean, deviation = (self.repeats_scale + 1) / 2, math.sqrt((self.repeats_scale**2 - 1) / 12)
        return (repeats - mean) / deviation
