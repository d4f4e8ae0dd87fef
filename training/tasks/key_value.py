"""Key-value recall: shown pairs of a key and a value, some keys again with a new value, say the last value of each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.config import ConfigError, require_at_least
from training.tasks.base import BitTask, Episode, Range, draw, random_bits

MOST_BITS = 62
"""The most bits of a key: keys are drawn as whole numbers of 64 bits."""


@dataclass(frozen=True)
class KeyValueRecall(BitTask):
    """Pairs of random bit vectors, some keys with a new value later; then each key once, and its last value is due.

        time      0 1 2 3 4 5 6 7
        key       a b a c . c a b      `bits` channels, here 3 pairs and 1 overwrite
        value     p q r s . . . .      `bits` channels
        query     . . . . # . . .      channel 2 `bits`
        target              s r q      due beside each key, T = 2 pairs + overwrites + 1

    pairs: the range of the number of keys, all different, each drawn uniformly; overwrites: the range of the number of
    further values, each for a key drawn uniformly. Writes are in random order, and so are queries.

    It follows the paper's key-value retrieval, where values are also due beside their keys, and keys are different,
    too. There no key is written twice, and the delimiter appears once more after the last query.
    """

    bits: int = 8
    pairs: Range = (1, 8)
    overwrites: Range = (0, 4)

    name = "key-value"
    paper = (
        "Csordas & Schmidhuber, Improving Differentiable Neural Computers Through Memory Masking, De-allocation, and "
        "Link Distribution Sharpness Control, arXiv 1904.10278"
    )

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits")
        if self.bits > MOST_BITS:
            raise ConfigError(f"KeyValueRecall.bits must be at most {MOST_BITS}, got {self.bits}")
        self.require_ranges(minimum=0)
        if self.pairs[0] < 1 or self.pairs[1] > 2**self.bits:
            raise ConfigError(
                f"KeyValueRecall.pairs must be within [1, {2**self.bits}], for there are no more different keys of "
                f"{self.bits} bits, got {list(self.pairs)}"
            )

    @property
    def input_size(self) -> int:
        return 2 * self.bits + 1

    @property
    def output_size(self) -> int:
        return self.bits

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        pairs, overwrites = draw(generator, self.pairs), draw(generator, self.overwrites)
        writes = pairs + overwrites
        keys = different_keys(generator, batch_size, pairs, self.bits)
        values = random_bits(generator, writes, batch_size, self.bits)
        again = torch.randint(0, pairs, (overwrites, batch_size), generator=generator)
        written = shuffled(generator, torch.cat([_rows_of(pairs, batch_size), again]))
        queries = shuffled(generator, _rows_of(pairs, batch_size))
        last = torch.zeros(pairs, batch_size, dtype=torch.long)
        last.scatter_reduce_(0, written, _rows_of(writes, batch_size), "amax")

        inputs = torch.zeros(writes + 1 + pairs, batch_size, self.input_size)
        inputs[:writes, :, : self.bits] = _picked(keys, written)
        inputs[:writes, :, self.bits : 2 * self.bits] = values
        inputs[writes, :, 2 * self.bits] = 1
        inputs[writes + 1 :, :, : self.bits] = _picked(keys, queries)
        targets = torch.zeros(writes + 1 + pairs, batch_size, self.bits)
        targets[writes + 1 :] = _picked(values, last.gather(0, queries))
        mask = torch.zeros(writes + 1 + pairs, batch_size)
        mask[writes + 1 :] = 1
        return Episode(inputs, targets, mask)


def different_keys(generator: torch.Generator, batch_size: int, count: int, bits: int) -> Tensor:
    """Return `count` different keys for every sequence, uniform over the sets of keys: [count, B, bits].

    Floyd's algorithm: with the keys numbered, the k-th drawn is among the first `last` + 1 of all, or `last` itself, if
    that one is taken already; so no draw is discarded.
    """
    numbers = torch.zeros(count, batch_size, dtype=torch.long)
    for index in range(count):
        last = 2**bits - count + index
        drawn = torch.randint(0, last + 1, (batch_size,), generator=generator)
        taken = (numbers[:index] == drawn).any(0)
        numbers[index] = torch.where(taken, last, drawn)
    return ((numbers.unsqueeze(2) >> torch.arange(bits)) & 1).float()


def shuffled(generator: torch.Generator, numbers: Tensor) -> Tensor:
    """Return the numbers of every sequence in an order of its own: [count, B] -> [count, B]"""
    return numbers.gather(0, torch.rand(numbers.shape, generator=generator).argsort(0))


def _rows_of(count: int, batch_size: int) -> Tensor:
    """Return 0, 1, ... for every sequence: [count, B]"""
    return torch.arange(count).unsqueeze(1).expand(count, batch_size)


def _picked(vectors: Tensor, numbers: Tensor) -> Tensor:
    """Return the vectors with these numbers: [N, B, bits] and [count, B] -> [count, B, bits]"""
    return vectors.gather(0, numbers.unsqueeze(2).expand(-1, -1, vectors.shape[2]))
