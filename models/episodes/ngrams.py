"""Dynamic n-grams, as in training/tasks/ngrams.py."""

from dataclasses import dataclass

import numpy as np

from models.config import ConfigError, require_at_least
from models.episodes.base import Array, Chosen, Phase, Random, Range, Sample, Size, Source

DIGITS = 6
"""Digits of a probability behind the point, so that the sine of one machine gives the bits of another."""

MOST_ORDER = 16
"""The greatest order: the table of probabilities doubles with each."""


@dataclass(frozen=True)
class NGrams(Source):
    """Bits of a source that is new in every sequence; the next one is to be predicted from the `order` - 1 before it.

    Facts: `table` [2^(order - 1)], the probability of a 1 after each context, read as a binary number; `optimum` [T],
    the prediction of the Bayes-optimal estimator at each step, None where nothing is due.
    """

    order: int = 6
    length: Range = (200, 200)

    name = "ngrams"
    counted = "contexts"
    input_size = 1
    output_size = 1

    def __post_init__(self) -> None:
        require_at_least(self, 2, "order")
        if self.order > MOST_ORDER:
            raise ConfigError(
                f"NGrams.order must be at most {MOST_ORDER}, for a table of probabilities, got {self.order}"
            )

    def sizes(self, chosen: Chosen) -> list[Size]:
        del chosen
        return [Size("length", "Bits", self.length, self.order + 1)]

    def most_steps(self, chosen: Chosen) -> int:
        return int(chosen["length"]) - 1

    def needed(self, chosen: Chosen) -> int:
        return int(min(2 ** (self.order - 1), chosen["length"] - self.order + 1))

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        # sin^2(pi U / 2) of a uniform U has the distribution Beta(1/2, 1/2).
        table = np.round(np.sin(random.random((2 ** (self.order - 1),)) * np.pi / 2) ** 2, DIGITS)
        bits: list[int] = []
        for chance in random.random((chosen["length"],)):
            bits.append(int(chance < (0.5 if len(bits) < self.order - 1 else table[self._context(bits)])))
        return self.encode(np.array(bits, np.float32)[:, None], table=table.tolist())

    def encode(self, bits: Array, **facts: object) -> Sample:
        """Return the sample of these bits: [length, 1]."""
        first, steps = self.order - 2, len(bits) - 1
        return Sample(
            inputs=bits[:-1],
            targets=bits[1:],
            mask=np.arange(steps) >= first,
            phases=(Phase("listen", 0, first), Phase("predict", first, steps)),
            pattern=bits,
            facts={**facts, "optimum": self._optimum([int(bit) for bit in bits[:, 0]])},
        )

    def _optimum(self, bits: list[int]) -> list[float | None]:
        """Return P(1 | context) = (N1 + 1/2) / (N0 + N1 + 1), of the bits that followed the context so far: [T]."""
        counts: dict[int, list[float]] = {}
        predicted: list[float | None] = [None] * (self.order - 2)
        for step in range(self.order - 1, len(bits)):
            seen = counts.setdefault(self._context(bits[:step]), [0.5, 0.5])
            predicted.append(seen[1] / sum(seen))
            seen[bits[step]] += 1
        return predicted

    def _context(self, bits: list[int]) -> int:
        """Return the last `order` - 1 bits, read as a binary number."""
        return int("".join(map(str, bits[len(bits) - self.order + 1 :])), 2)
