"""Dyck words, as in training/tasks/dyck.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.config import ConfigError, require_at_least
from models.episodes.base import Chosen, Phase, Random, Range, Sample, Size, Source

BRACKETS = "()[]{}<>"
"""Brackets by their tokens: that of an opening bracket is even, the next one is its closing bracket."""

Word = NDArray[np.int64]
"""[2 pairs], tokens."""


@dataclass(frozen=True)
class DyckWords(Source):
    """A word of brackets, one token a step; the last step asks whether it is valid.

    Facts: `valid`, the answer.
    """

    kinds: int = 1
    length: Range = (1, 20)

    name = "dyck"
    input_size = 1
    output_size = 2

    def __post_init__(self) -> None:
        require_at_least(self, 1, "kinds")
        if self.kinds > len(BRACKETS) // 2:
            raise ConfigError(f"DyckWords.kinds must be at most {len(BRACKETS) // 2}, got {self.kinds}")

    def sizes(self, chosen: Chosen) -> list[Size]:
        del chosen
        return [Size("length", "Pairs", self.length)]

    def most_steps(self, chosen: Chosen) -> int:
        return int(2 * chosen["length"])

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        is_to_be_valid = random.random() < 0.5
        word = self._valid_word(random, chosen["length"])
        return self.encode(word if is_to_be_valid else self._spoilt(random, word))

    def encode(self, word: Word) -> Sample:
        """Return the sample of a word."""
        steps, valid = len(word), is_valid(word.tolist())
        targets = np.zeros((steps, 2), np.float32)
        targets[-1, int(valid)] = 1
        brackets = [BRACKETS[token] for token in word]
        return Sample(
            inputs=word[:, None].astype(np.float32),
            targets=targets,
            mask=np.arange(steps) == steps - 1,
            phases=(Phase("listen", 0, steps - 1), Phase("answer", steps - 1, steps)),
            labels=tuple(brackets),
            pattern=brackets,
            facts={"valid": valid},
        )

    def _valid_word(self, random: Random, pairs: int) -> Word:
        """Return a valid word, uniformly drawn: its shape by the cycle lemma, the kind of each pair at random."""
        circle = (random.permutation(2 * pairs + 1) >= pairs).astype(np.int64)
        deepest = int((1 - 2 * circle).cumsum().argmin())
        shape = np.roll(circle, -deepest - 1)[:-1]
        waiting: list[int] = []
        word = []
        for closes in shape.tolist():
            if not closes:
                waiting.append(2 * int(random.integers(self.kinds)))
            word.append(waiting.pop() + 1 if closes else waiting[-1])
        return np.array(word)

    def _spoilt(self, random: Random, word: Word) -> Word:
        """Return an invalid word, made of a valid one in one of three ways with equal chance."""
        change = (self._shuffled, self._swapped, self._changed)[int(random.integers(3))]
        while True:
            spoilt = change(random, word)
            if not is_valid(spoilt.tolist()):
                return spoilt
            word = spoilt

    def _shuffled(self, random: Random, word: Word) -> Word:
        return random.permutation(word)

    def _swapped(self, random: Random, word: Word) -> Word:
        one, two = random.permutation(len(word))[:2]
        swapped = word.copy()
        swapped[[one, two]] = word[[two, one]]
        return swapped

    def _changed(self, random: Random, word: Word) -> Word:
        changed = word.copy()
        place = int(random.integers(len(word)))
        changed[place] = (word[place] + random.integers(1, 2 * self.kinds)) % (2 * self.kinds)
        return changed


def is_valid(word: Sequence[int]) -> bool:
    """Return whether every bracket is closed by one of its kind, in the right order."""
    waiting: list[int] = []
    for token in word:
        if token % 2 == 0:
            waiting.append(token + 1)
        elif not waiting or waiting.pop() != token:
            return False
    return not waiting
