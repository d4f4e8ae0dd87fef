"""Associative and key-value recall, as in training/tasks/associative_recall.py and training/tasks/key_value.py."""

from dataclasses import dataclass

import numpy as np

from models.config import ConfigError, require_at_least
from models.episodes.base import MOST_STEPS, Array, Chosen, Phase, Random, Range, Sample, Size, Source
from models.episodes.bits import flag, heard_and_said, random_bits, shown

MOST_BITS = 62
"""The most bits of a key: keys are drawn as whole numbers of 64 bits."""


@dataclass(frozen=True)
class AssociativeRecall(Source):
    """Items of a few bit vectors; shown one of them again, the item after it is to be said."""

    bits: int = 6
    item_length: int = 3
    items: Range = (2, 6)

    name = "associative-recall"
    counted = "items"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits", "item_length")

    @property
    def input_size(self) -> int:
        return self.bits + 2

    @property
    def output_size(self) -> int:
        return self.bits

    def sizes(self, chosen: Chosen) -> list[Size]:
        different = 2 ** min(self.bits * self.item_length, MOST_BITS)
        return [
            Size("items", "Items", self.items, 2, min(different, MOST_STEPS)),
            Size("query", "Query", None, 0, chosen.get("items", MOST_STEPS) - 2),
        ]

    def most_steps(self, chosen: Chosen) -> int:
        return int(chosen["items"] * (self.item_length + 1) + 2 * self.item_length + 2)

    def needed(self, chosen: Chosen) -> int:
        return int(chosen["items"])

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        return self.encode(self._items(random, chosen["items"]), chosen["query"])

    def encode(self, items: Array, query: int) -> Sample:
        """Return the sample of these items, [items, item_length, bits], and of the number of the one shown again."""
        size = self.input_size
        delimited = [np.concatenate([flag(size, self.bits), shown(item, size)]) for item in items]
        ends = flag(size, self.bits + 1)
        heard = np.concatenate([*delimited, ends, shown(items[query], size), ends])
        named = [[f"{item}.{vector + 1}" for vector in range(self.item_length)] for item in range(len(items))]
        listed = [label for number, names in enumerate(named) for label in (f"item {number}", *names)]
        labels = [*listed, "query", *named[query], "query", *named[query + 1]]
        return heard_and_said(heard, items[query + 1], labels=labels, ask=len(listed), pattern=np.concatenate(items))

    def _items(self, random: Random, count: int) -> Array:
        """Return items that differ from each other: [count, item_length, bits]."""
        size = self.item_length * self.bits
        vectors = different_vectors(random, count, min(size, MOST_BITS))
        rest = random_bits(random, count, max(0, size - MOST_BITS))
        return np.concatenate([vectors, rest], 1).reshape(count, self.item_length, self.bits)


@dataclass(frozen=True)
class KeyValueRecall(Source):
    """Pairs of a key and a value, some keys again with a new value; of each key the last value is to be said."""

    bits: int = 8
    pairs: Range = (1, 8)
    overwrites: Range = (0, 4)

    name = "key-value"
    counted = "pairs"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits")
        if self.bits > MOST_BITS:
            raise ConfigError(f"KeyValueRecall.bits must be at most {MOST_BITS}, got {self.bits}")

    @property
    def input_size(self) -> int:
        return 2 * self.bits + 1

    @property
    def output_size(self) -> int:
        return self.bits

    def sizes(self, chosen: Chosen) -> list[Size]:
        del chosen
        return [
            Size("pairs", "Pairs", self.pairs, 1, min(2**self.bits, MOST_STEPS)),
            Size("overwrites", "Overwrites", self.overwrites, 0),
        ]

    def most_steps(self, chosen: Chosen) -> int:
        return int(2 * chosen["pairs"] + chosen["overwrites"] + 1)

    def needed(self, chosen: Chosen) -> int:
        return int(chosen["pairs"])

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        pairs, overwrites, bits = chosen["pairs"], chosen["overwrites"], self.bits
        keys, values = different_vectors(random, pairs, bits), random_bits(random, pairs + overwrites, bits)
        written = random.permutation(np.concatenate([np.arange(pairs), random.integers(0, pairs, overwrites)]))
        return self.encode(np.concatenate([keys[written], values], 1), keys[random.permutation(pairs)])

    def encode(self, pattern: Array, queries: Array) -> Sample:
        """Return the sample of these pairs, [writes, 2 bits], and of the keys in the order asked: [pairs, bits]."""
        bits, size = self.bits, self.input_size
        last = {tuple(pair[:bits]): pair[bits:] for pair in pattern}
        numbers = {key: number for number, key in enumerate(last, 1)}
        asked = [tuple(key) for key in queries]
        start = len(pattern) + 1
        steps = start + len(asked)
        names = [f"key {numbers[key]}" for key in (*(tuple(pair[:bits]) for pair in pattern), *asked)]
        due = np.stack([last[key] for key in asked])
        return Sample(
            inputs=np.concatenate([shown(pattern, size), flag(size, 2 * bits), shown(queries, size)]),
            targets=np.concatenate([np.zeros((start, bits), np.float32), due]),
            mask=np.arange(steps) >= start,
            phases=(Phase("listen", 0, start), Phase("say", start, steps)),
            labels=(*names[: start - 1], "query", *names[start - 1 :]),
            pattern=pattern,
            facts={"queries": [numbers[key] for key in asked]},
        )


def different_vectors(random: Random, count: int, bits: int) -> Array:
    """Return `count` different vectors, uniform over the sets of them: [count, bits]. Floyd's algorithm."""
    numbers: dict[int, None] = {}
    for last in range(2**bits - count, 2**bits):
        drawn = int(random.integers(0, last, endpoint=True))
        numbers[last if drawn in numbers else drawn] = None
    places = np.array(list(random.permutation(list(numbers))), np.int64)
    return ((places[:, None] >> np.arange(bits)) & 1).astype(np.float32)
