"""Associative recall: shown items and asked for one of them, say the next one ([NTM] section 4.3)."""

import math
from dataclasses import dataclass

import torch

from models.config import ConfigError, require_at_least
from training.tasks.base import BitTask, Episode, Range, draw, random_bits

LIKELY = 0.5
"""If drawn items differ with at least this chance, they are drawn until they do."""


@dataclass(frozen=True)
class AssociativeRecall(BitTask):
    """Items of a few random bit vectors, each after a delimiter; then one of them again; the answer is the next item.

        time      0 1 2 3 4 5 6 7 8 9 ...
        bits      . a a . b b . c c . b b . . .      `bits` channels, here 3 items of 2 vectors
        item      # . . # . . # . . . . . . . .      channel `bits`
        query     . . . . . . . . . # . . # . .      channel `bits` + 1, before and after the query
        target                              c c      T = items (item_length + 1) + 2 item_length + 2

    items: the range of their number; the query is any item but the last.
    """

    bits: int = 6
    item_length: int = 3
    items: Range = (2, 6)

    name = "associative-recall"
    paper = "Graves, Wayne & Danihelka, Neural Turing Machines, arXiv 1410.5401, section 4.3"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits", "item_length")
        self.require_ranges(minimum=2)
        if self.items[1] > 2 ** (self.bits * self.item_length):
            raise ConfigError(
                f"AssociativeRecall.items must be at most {2 ** (self.bits * self.item_length)}, for there are no more "
                f"different items of {self.item_length} vectors of {self.bits} bits, got {self.items[1]}"
            )

    @property
    def input_size(self) -> int:
        return self.bits + 2

    @property
    def output_size(self) -> int:
        return self.bits

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        count, length = draw(generator, self.items), self.item_length
        items = self._items(generator, count, batch_size)
        query = torch.randint(0, count - 1, (batch_size,), generator=generator)
        rows = torch.arange(batch_size)

        query_from = count * (length + 1)
        steps = query_from + 2 * length + 2
        inputs = torch.zeros(steps, batch_size, self.input_size)
        shown = inputs[:query_from].view(count, length + 1, batch_size, self.input_size)
        shown[:, 0, :, self.bits] = 1
        shown[:, 1:, :, : self.bits] = items
        inputs[[query_from, query_from + length + 1], :, self.bits + 1] = 1
        inputs[query_from + 1 : query_from + 1 + length, :, : self.bits] = items[query, :, rows].transpose(0, 1)
        targets = torch.zeros(steps, batch_size, self.bits)
        targets[-length:] = items[query + 1, :, rows].transpose(0, 1)
        mask = torch.zeros(steps, batch_size)
        mask[-length:] = 1
        return Episode(inputs, targets, mask)

    def _items(self, generator: torch.Generator, count: int, batch_size: int) -> torch.Tensor:
        """Return items that differ from each other in every sequence: [count, item_length, B, bits].

        They are drawn until they differ; if that is unlikely, because there are hardly more items than are needed, all
        possible items are shuffled and the first ones are returned.
        """
        size = self.item_length * self.bits
        if math.prod(1 - taken / 2**size for taken in range(count)) < LIKELY:
            order = torch.rand(2**size, batch_size, generator=generator).argsort(0)[:count]
            flat = ((order.unsqueeze(2) >> torch.arange(size)) & 1).float()
            return flat.view(count, batch_size, self.item_length, self.bits).transpose(1, 2)
        items = random_bits(generator, count, self.item_length, batch_size, self.bits)
        while True:
            flat = items.transpose(1, 2).flatten(2)
            same = (flat[:, None] == flat[None]).all(3).sum((0, 1))
            again = (same > count).nonzero().squeeze(1)
            if not len(again):
                return items
            items[:, :, again] = random_bits(generator, count, self.item_length, len(again), self.bits)
