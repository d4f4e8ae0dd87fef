"""Dyck words: decide whether every bracket is closed by one of its kind, in the right order."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.config import ConfigError, require_at_least
from training.tasks.base import AnswerTask, Episode, Range, draw

BRACKETS = "()[]{}<>"
"""Brackets by their tokens: that of an opening bracket is even, the next one is its closing bracket."""


@dataclass(frozen=True)
class DyckWords(AnswerTask):
    """A word of brackets, one token a step; at its last step the model says whether the word is valid.

        time     0 1 2 3 4 5
        bracket  ( [ ] ( ) )      tokens, one number a step: here 0 2 3 0 1 1
        target             #      due at the last step: class 1 for valid, 0 for invalid; T = 2 length

    length: the range of the number of pairs; kinds: the number of kinds of brackets, up to four. A word is valid with
    chance 1/2. Valid words are drawn uniformly: their shape by the cycle lemma (Flajolet & Sedgewick, Analytic
    Combinatorics, note I.47), the kind of each pair at random. Invalid words are made of valid ones, in one of three
    ways with equal chance, drawn again until the result is invalid:

        shuffled   its brackets in random order
        swapped    two of its brackets change places
        changed    one of its brackets becomes another one

    Two thirds of them have as many of each bracket as a valid word, so that counting at the end does not find them.

    As in ntm-lasagne (github.com/snipsco/ntm-lasagne, `DyckWordsTask`) valid words are uniform, half of all words are
    valid, and with one kind `shuffled` gives its distribution, uniform over the balanced invalid words. It
    has no other ways and no other kinds, feeds 0 or 1 as a number rather than as a token, and asks at every step
    whether the word so far is valid.
    """

    kinds: int = 1
    length: Range = (1, 20)

    name = "dyck"
    paper = "Deleu, ntm-lasagne, github.com/snipsco/ntm-lasagne, examples/dyck-words.py"
    groups = 1
    classes = 2

    def __post_init__(self) -> None:
        require_at_least(self, 1, "kinds")
        if self.kinds > len(BRACKETS) // 2:
            raise ConfigError(f"DyckWords.kinds must be at most {len(BRACKETS) // 2}, got {self.kinds}")
        self.require_ranges()

    @property
    def model_values(self) -> dict[str, Any]:
        return {
            "input_size": 1,
            "output_size": self.output_size,
            "output_activation": "softmax",
            "output_at": "last-step",
            "embedding": {"vocabulary_size": 2 * self.kinds},
        }

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        pairs = draw(generator, self.length)
        valid = torch.randint(0, 2, (batch_size,), generator=generator)
        words = self._valid_words(generator, batch_size, pairs)
        words[valid == 0] = self._spoilt(generator, words[valid == 0])
        targets = torch.zeros(2 * pairs, batch_size, self.classes)
        targets[-1] = self.one_hot(valid.unsqueeze(1))
        mask = torch.zeros(2 * pairs, batch_size)
        mask[-1] = 1
        return Episode(words.T.unsqueeze(2).float(), targets, mask)

    def render(self, episode: Episode, row: int = 0) -> str:
        """Return one word as brackets, with its validity."""
        end = len(episode.mask) if episode.lengths is None else int(episode.lengths[row])
        word = "".join(BRACKETS[int(token)] for token in episode.inputs[:end, row, 0].tolist())
        return f"{word}  {'valid' if self.digits(episode.targets[end - 1, row]).item() else 'not valid'}"

    def _valid_words(self, generator: torch.Generator, batch_size: int, pairs: int) -> Tensor:
        """Return valid words, uniformly drawn: [B, 2 pairs]."""
        shape = _shapes(generator, batch_size, pairs)
        kinds = torch.randint(0, self.kinds, (batch_size, pairs), generator=generator)
        order = _by_pairs(shape)
        return shape + 2 * torch.zeros_like(shape).scatter_(1, order, kinds.repeat_interleave(2, 1))

    def _spoilt(self, generator: torch.Generator, words: Tensor) -> Tensor:
        """Return invalid words, each made of a valid one: [B, 2 pairs] -> [B, 2 pairs]."""
        spoilt = words.clone()
        ways = torch.randint(0, 3, (len(words),), generator=generator)
        rows = torch.arange(len(words))
        while len(rows):
            spoilt[rows] = self._changed(generator, words[rows], ways[rows])
            rows = rows[is_valid(spoilt[rows])]
        return spoilt

    def _changed(self, generator: torch.Generator, words: Tensor, ways: Tensor) -> Tensor:
        """Return words changed. ways: [B], 0 to shuffle a word, 1 to swap two of its brackets, 2 to replace one."""
        shuffle = torch.rand(words.shape, generator=generator).argsort(1)
        one, two = shuffle[:, :1], shuffle[:, :2]
        other = torch.randint(1, 2 * self.kinds, one.shape, generator=generator)
        shuffled = words.gather(1, shuffle)
        swapped = words.scatter(1, two, words.gather(1, two.flip(1)))
        changed = words.scatter(1, one, (words.gather(1, one) + other) % (2 * self.kinds))
        return torch.where(ways[:, None] == 0, shuffled, torch.where(ways[:, None] == 1, swapped, changed))


def is_valid(words: Tensor) -> Tensor:
    """Return the validity of words: [B, 2 pairs] -> [B]."""
    heights = (1 - 2 * (words % 2)).cumsum(1)
    kinds = (words // 2).gather(1, _by_pairs(words % 2))
    return (heights.amin(1) >= 0) & (heights[:, -1] == 0) & (kinds[:, ::2] == kinds[:, 1::2]).all(1)


def _shapes(generator: torch.Generator, batch_size: int, pairs: int) -> Tensor:
    """Return shapes of valid words, uniformly drawn: [B, 2 pairs], 0 for an opening bracket, 1 for a closing one.

    Cycle lemma: a sequence of n opening and n + 1 closing brackets, read in a circle from its first deepest point, is a
    valid word and then one closing bracket; each word comes from 2 n + 1 sequences.
    """
    size = 2 * pairs + 1
    circle = (torch.rand(batch_size, size, generator=generator).argsort(1) >= pairs).long()
    deepest = (1 - 2 * circle).cumsum(1).argmin(1, keepdim=True)
    return circle.gather(1, (deepest + 1 + torch.arange(size - 1)) % size)


def _by_pairs(shapes: Tensor) -> Tensor:
    """Return the places of brackets in an order in which pairs stand together: [B, 2 pairs] -> [B, 2 pairs].

    In a valid shape, brackets of one depth open and close in turn.
    """
    steps = 1 - 2 * shapes
    depths = steps.cumsum(1) + shapes  # of a pair: the depth inside its brackets
    return depths.argsort(dim=1, stable=True)
