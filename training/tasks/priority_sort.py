"""Priority sort: repeat the vectors of highest priority, in the order of priority ([NTM] section 4.5)."""

from dataclasses import dataclass

import torch

from models.config import ConfigError, require_at_least
from training.tasks.base import BitTask, Episode, Range, draw, random_bits


@dataclass(frozen=True)
class PrioritySort(BitTask):
    """Random bit vectors, each with a priority; after the end flag, the `share` of highest priority, highest first.

        time      0 1 2 3 4 5 6
        bits      a b c d . . .      `bits` channels
        priority  p q r s . . .      channel `bits`, drawn uniformly from [-1, 1]
        end       . . . . # . .      channel `bits` + 1
        target              c a      here 4 vectors, share 0.5, and r > p > q, s; T = items + 1 + asked

    items: the range of the number of vectors; the answer has round(share items) of them, at least one: 16 of 20.
    """

    bits: int = 8
    items: Range = (20, 20)
    share: float = 0.8

    name = "priority-sort"
    paper = "Graves, Wayne & Danihelka, Neural Turing Machines, arXiv 1410.5401, section 4.5"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits")
        self.require_ranges()
        if not 0 < self.share <= 1:
            raise ConfigError(f"PrioritySort.share must be in (0, 1], got {self.share}")

    @property
    def input_size(self) -> int:
        return self.bits + 2

    @property
    def output_size(self) -> int:
        return self.bits

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        count = draw(generator, self.items)
        asked = max(1, round(count * self.share))
        vectors = random_bits(generator, count, batch_size, self.bits)
        priorities = torch.rand(count, batch_size, generator=generator) * 2 - 1
        inputs = torch.zeros(count + 1 + asked, batch_size, self.input_size)
        inputs[:count, :, : self.bits] = vectors
        inputs[:count, :, self.bits] = priorities
        inputs[count, :, self.bits + 1] = 1
        order = priorities.argsort(dim=0, descending=True, stable=True)[:asked]
        targets = torch.zeros(count + 1 + asked, batch_size, self.bits)
        targets[count + 1 :] = vectors.gather(0, order.unsqueeze(2).expand(-1, -1, self.bits))
        mask = torch.zeros(count + 1 + asked, batch_size)
        mask[count + 1 :] = 1
        return Episode(inputs, targets, mask)
