"""Stories with questions in the words of a model, encoded as in training/tasks/babi.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from models.config import ConfigError
from models.episodes.base import Choice, Chosen, Phase, Random, Sample, Size, Source
from models.episodes.people import Maybe, Negation, Pronoun, They, Times, Together, Where, YesOrNo
from models.episodes.puzzles import Colours, Directions, Fears, Positions, Sizes, Ways
from models.episodes.stories import Sentence, Story
from models.episodes.things import Before, Carrying, Count, Giving, Motives, Things

ANSWER = "-"
"""The token at which the model says a word of an answer."""

QUESTION = "?"
"""The end of a question, and the token of a step of planning after it."""

MARKS = (ANSWER, ".", QUESTION)

EXTRA = 3
"""The most facts that a question may need beside those asked for."""


STORIES: dict[int, tuple[str, type[Story]]] = {
    1: ("one supporting fact", Where),
    2: ("two supporting facts", Things),
    3: ("three supporting facts", Before),
    4: ("two arguments", Directions),
    5: ("three arguments", Giving),
    6: ("yes or no", YesOrNo),
    7: ("counting", Count),
    8: ("lists", Carrying),
    9: ("negation", Negation),
    10: ("indefinite knowledge", Maybe),
    11: ("pronouns", Pronoun),
    12: ("conjunction", Together),
    13: ("pronouns of two", They),
    14: ("times", Times),
    15: ("deduction", Fears),
    16: ("induction", Colours),
    17: ("positions", Positions),
    18: ("sizes", Sizes),
    19: ("ways", Ways),
    20: ("motives", Motives),
}
"""The tasks of bAbI: a name, and the form of their stories."""


@dataclass(frozen=True)
class Babi(Source):
    """A story, one word a step; at each "-" a word of the answer is due.

    Facts: `story`, its sentences: `text`, the steps `from` to `to` - 1, and of a question `answer`, its words, and
    `supports`, the places in the list of the sentences that it follows from.
    """

    directory: str
    tasks: tuple[int, ...] = tuple(range(1, 21))
    split: Literal["train", "test"] = "train"
    max_words: int = 800
    vocabulary: tuple[str, ...] = ()
    interchangeable: tuple[str, ...] = ()
    planning: int = 0
    cloze: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()

    name = "babi"
    input_size = 1

    def __post_init__(self) -> None:
        if not self.choices()[0].values:
            raise ConfigError(f"Babi.vocabulary has the words of no story, or tasks has none of {', '.join(_NUMBERS)}")

    @property
    def output_size(self) -> int:
        return len(self.vocabulary)

    def choices(self) -> list[Choice]:
        words = set(self.vocabulary)
        known = {
            str(number): f"{number}, {label}"
            for number, (label, story) in STORIES.items()
            if number in self.tasks and words.issuperset((*story.words.split(), *MARKS))
        }
        return [Choice("task", "Task", known, tuple(known))]

    def sizes(self, chosen: Chosen) -> list[Size]:
        story = _story(chosen)
        questions = Size("questions", "Questions", story.questions, 1, story.most_questions)
        facts = Size("facts", "Facts before a question", story.facts, 1, story.most_facts, story.facts or (2, 5))
        return [questions, facts] if story.most_facts else [questions]

    def most_steps(self, chosen: Chosen) -> int:
        story, questions = _story(chosen), chosen["questions"]
        facts = questions * (chosen["facts"] + EXTRA) if story.most_facts else story.all_facts
        return int(story.most_words * (facts + questions) + self.planning * questions)

    def draw(self, random: Random, chosen: Chosen) -> Sample:
        story = _story(chosen)(random)
        story.grow(chosen["questions"], chosen.get("facts", 0))
        return self.encode(story.sentences)

    def encode(self, sentences: Sequence[Sentence]) -> Sample:
        """Return the sample of a story."""
        numbers = {word: number for number, word in enumerate(self.vocabulary)}
        words: list[str] = []
        due: dict[int, str] = {}
        phases: list[Phase] = []
        story: list[dict[str, Any]] = []
        for sentence in sentences:
            start, asked = len(words), len(words) + len(sentence.words)
            end = asked + self.planning if sentence.answer else asked
            stop = end + len(sentence.answer)
            words += (*sentence.words, *QUESTION * (end - asked), *(ANSWER for _ in sentence.answer))
            due |= dict(enumerate(sentence.answer, end))
            if sentence.answer:
                phases += [Phase("ask", start, asked), Phase("plan", asked, end), Phase("answer", end, stop)]
            else:
                phases.append(Phase("listen", start, stop))
            answer = {"answer": list(sentence.answer), "supports": list(sentence.supports)} if sentence.answer else {}
            story.append({"text": _text(sentence.words), "from": start, "to": stop, **answer})
        targets = np.zeros((len(words), self.output_size), np.float32)
        targets[list(due), [numbers[word] for word in due.values()]] = 1
        return Sample(
            inputs=np.array([[numbers[word]] for word in words], np.float32),
            targets=targets,
            mask=np.isin(np.arange(len(words)), list(due)),
            phases=_joined(phases),
            labels=tuple(words),
            pattern=words,
            facts={"story": story},
        )


_NUMBERS = [str(number) for number in STORIES]


def _story(chosen: Chosen) -> type[Story]:
    return STORIES[int(chosen["task"])][1]


def _text(words: Sequence[str]) -> str:
    """Return a sentence as a person writes it: "mary went to the garden." """
    return " ".join(words[:-1]) + words[-1]


def _joined(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Return phases with those of one name that follow each other as one, without those of no step."""
    joined: list[Phase] = []
    for phase in (each for each in phases if each.stop > each.start):
        before = joined.pop() if joined and joined[-1].name == phase.name else phase
        joined.append(Phase(phase.name, before.start, phase.stop))
    return tuple(joined)
