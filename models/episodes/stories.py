"""Stories with questions, made from templates in the way of the bAbI tasks (Weston et al., arXiv 1502.05698).

They are not those of the data set, which Engram does not come with: only their form, their words and their logic are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from models.episodes.base import Random, Range

T = TypeVar("T")


@dataclass(frozen=True)
class Sentence:
    """The words of a sentence, in lower case, with its mark; a question has an answer, which follows from `supports`.

    supports: numbers of sentences, from 0.
    """

    words: tuple[str, ...]
    answer: tuple[str, ...] = ()
    supports: tuple[int, ...] = ()


class Story(ABC):
    """A story of one form."""

    words: ClassVar[str]
    """All words that it may have."""
    questions: ClassVar[Range | None] = (5, 5)
    """The questions of a story in the data; None: they vary."""
    most_questions: ClassVar[int] = 20
    facts: ClassVar[Range | None] = (2, 2)
    """The facts before each question in the data; None: they vary."""
    most_facts: ClassVar[int] = 20
    """The most facts before each question; 0: their number follows from the form."""
    all_facts: ClassVar[int] = 0
    """The facts of the whole story, where they do not depend on the questions."""
    most_words: ClassVar[int] = 10
    """The most words of a sentence, with its answer."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.sentences: list[Sentence] = []

    @abstractmethod
    def grow(self, questions: int, facts: int) -> None:
        """Add these numbers of questions, and of facts before each."""

    def pick(self, options: Iterable[T]) -> T:
        listed = list(options)
        return listed[int(self.random.integers(len(listed)))]

    def pick_two(self, options: Sequence[str]) -> tuple[str, str]:
        one = self.pick(options)
        return one, self.pick(other for other in options if other != one)

    def chance(self, likely: float = 0.5) -> bool:
        return bool(self.random.random() < likely)

    def say(self, text: str) -> int:
        """Add a fact; return its number."""
        self.sentences.append(Sentence((*text.split(), ".")))
        return len(self.sentences) - 1

    def ask(self, text: str, answer: str, *supports: int) -> None:
        """Add a question; an answer of several words has a space between them."""
        self.sentences.append(Sentence((*text.split(), "?"), tuple(answer.split()), supports))

    def shuffled(self, options: Iterable[T]) -> list[T]:
        listed = list(options)
        return [listed[place] for place in self.random.permutation(len(listed)).tolist()]


class Puzzle(Story):
    """A story of all facts, then questions."""

    most_facts = 0

    def grow(self, questions: int, facts: int) -> None:
        del facts
        self.pose(questions)

    @abstractmethod
    def pose(self, questions: int) -> None:
        """Add all facts, then this number of questions."""


class Growing(Story):
    """A story of facts, then a question, again and again."""

    def grow(self, questions: int, facts: int) -> None:
        for _ in range(questions):
            for _ in range(facts):
                self.fact()
            self.question()

    @abstractmethod
    def fact(self) -> None:
        """Add a fact."""

    @abstractmethod
    def question(self) -> None:
        """Add a question that the facts answer; before it, facts that it needs."""
