"""bAbI: read a story word by word and answer the questions in it, from the public files of Weston et al. 2015."""

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.config import ConfigError, require_at_least
from models.episodes.babi import ANSWER, QUESTION
from training.tasks.babi_texts import Stories, Words, collected, encoded
from training.tasks.base import AnswerTask, Episode


@dataclass(frozen=True)
class Babi(AnswerTask):
    """A whole story, one word a step, in lower case; at each "-" the model says a word of the answer.

        time     0    1    2  3   4      5 6     7  8    9 10
        word     mary went to the garden . where is mary ? -
        target                                             garden    T: the words of the batch's longest story

    Words and punctuation are tokens, in Unicode's composed form; a hyphen that stands alone is HYPHEN, a dash. An
    answer of several words has as many "-" in a row, and is right if all of them are; errors are the questions answered
    wrong. An episode draws for each sequence one of the tasks and then one of its stories. With the split "test" every
    story is measured once.

    directory: the directory of the files, `qa1_*_train.txt` to `qa20_*_test.txt`; a task's stories are those of all
    files whose names begin with `qa{task}_` and have `_{split}` further on. tasks: the numbers of the tasks to draw
    from.
    max_words: in training, longer stories end with the last answer within this many words; stories without one are left
    out, so that a curriculum can begin with few sentences. The stories of the test are always whole.
    vocabulary: all words, by their tokens; if it is left out, the words of both splits of the tasks are collected,
    which reads the files. If it is given, they are only read when an episode is drawn, once in a process.
    interchangeable: lists of words that a story may exchange for one another and still be true, each written as the
    number of its task and the words, "16: swan rhino lion frog"; a drawn story of the training has them in a random
    order, in its answers too. That makes more stories of each one, and none can be known by heart. Stories of the test
    stay as they are.
    planning: steps to think before an answer, at which the question mark is said again.
    cloze: sentences of a story that are said once more at its end in training, each with the question mark in the
    place of one of its words, which is then asked for; as the number of the task and that of the sentences, "19: 2".
    They ask for single facts, so that a network learns to look up facts before it learns to combine them.

        word     ... the office is east of the hallway . ... the office is ? of the hallway . -
        target                                                                                east

    shares: tasks that are drawn more often than the others, "19: 4", or less often, "1: 0.5".

    One task alone, as in a test: `task.with_options({"tasks": [3], "split": "test"})`; the words stay the same.

    The data: en-10k of bAbI tasks version 1.2 (tasks_1-20_v1-2.tar.gz, research.facebook.com/downloads/babi),
    copyright Facebook, under Creative Commons Attribution 3.0; Engram does not come with them. Encoded as in the DNC
    paper (Graves et al., Nature 538:471, Methods), which has the same 159 tokens; there a word is one-hot, here it has
    a learned vector.
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
    paper = "Weston et al., Towards AI-Complete Question Answering: A Set of Prerequisite Toy Tasks, arXiv 1502.05698"
    data = (
        "The bAbI tasks data 1.2 (en-10k) of Weston et al., copyright (c) 2015-present, Facebook, Inc., under the "
        "Creative Commons Attribution 3.0 Unported license (https://creativecommons.org/licenses/by/3.0/), put into "
        "lower case and split into words. The vocabulary in the manifest is made of them."
    )
    places = ("directory",)
    groups = 1

    def __post_init__(self) -> None:
        require_at_least(self, 1, "max_words")
        require_at_least(self, 0, "planning")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks) or not set(self.tasks) <= set(range(1, 21)):
            raise ConfigError(f"Babi.tasks must be different numbers from 1 to 20, got {list(self.tasks)}")
        self._check_by_task("cloze", r"[1-9]\d?", "a whole number from 1 to 99")
        self._check_by_task("shares", r"(?!0+(\.0+)?$)\d{1,3}(\.\d{1,3})?", "a number from 0.001 to 999")
        if not self.vocabulary:
            object.__setattr__(self, "vocabulary", collected(self.directory, self.tasks))
        if ANSWER not in self.vocabulary or len(set(self.vocabulary)) < len(self.vocabulary):
            raise ConfigError(
                f"Babi.vocabulary must have the word {ANSWER!r} and no word twice, got {list(self.vocabulary)}; "
                "leave it out to have the words collected from the files"
            )
        if self.cloze and QUESTION not in self.vocabulary:
            raise ConfigError(f"Babi.cloze needs the word {QUESTION!r}, which the vocabulary lacks; leave it out")
        for text in self.interchangeable:
            self._exchange(text)

    @property
    def classes(self) -> int:
        return len(self.vocabulary)

    @property
    def model_values(self) -> dict[str, Any]:
        return {
            "input_size": 1,
            "output_size": self.output_size,
            "output_activation": "softmax",
            "output_at": "every-step",
            "embedding": {"vocabulary_size": len(self.vocabulary)},
        }

    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        """Return the episode of random stories. Raises ConfigError where the files cannot be used."""
        stories = self._stories()
        if self.shares:
            tasks = torch.multinomial(self._weights, batch_size, replacement=True, generator=generator)
        else:
            tasks = torch.randint(0, len(self.tasks), (batch_size,), generator=generator)
        numbers = stories.first[tasks] + _drawn(stories.counts[tasks], generator)
        words = stories.words(numbers)
        if self.split == "train":
            words = self._exchanged(words, generator, tasks)
            times = self._cloze_times[tasks]
            for time in range(int(times.max())):
                counts = stories.sentence_counts[numbers] * (time < times)
                places = torch.where(counts > 0, _drawn(counts, generator), -1)
                words = self._with_cloze(words, stories.sentences_at(numbers, places), generator)
        return self._episode(words)

    def whole(self, batch_size: int) -> Iterator[Episode]:
        """Yield every story once, task by task in the order of the files. Raises ConfigError as `sample` does."""
        stories = self._stories()
        count = len(stories.starts)
        for start in range(0, count, batch_size):
            yield self._episode(stories.words(torch.arange(start, min(start + batch_size, count))))

    def test_set(self, batch_size: int) -> Iterator[Episode] | None:
        return self.whole(batch_size) if self.split == "test" else None

    def render(self, episode: Episode, row: int = 0) -> str:
        """Return one story as text, a line for each sentence, with answers in brackets after their questions."""
        end = len(episode.mask) if episode.lengths is None else int(episode.lengths[row])
        tokens = episode.inputs[:end, row, 0].tolist()
        answers = self.digits(episode.targets[:end, row])[:, 0].tolist()
        words = [
            f"[{self.vocabulary[answer]}]" if asked else self.vocabulary[int(token)]
            for token, answer, asked in zip(tokens, answers, episode.mask[:end, row].tolist(), strict=True)
        ]
        text = re.sub(r"(?<!\]) (?=\.|\?( [?[]|$))", "", " ".join(words))  # a "?" within a sentence is a blank
        return re.sub(r"(?<=[.\]]) (?!\[)", "\n", text)

    def _stories(self) -> Stories:
        longest = self.max_words if self.split == "train" else math.inf
        return encoded(self.directory, self.tasks, self.split, self.vocabulary, longest, self.planning)

    @functools.cached_property
    def _weights(self) -> Tensor:
        """The `shares` of the tasks: [tasks]."""
        return self._by_task("shares", 1)

    @functools.cached_property
    def _cloze_times(self) -> Tensor:
        """The number of cloze questions of a story of each task: [tasks]."""
        return self._by_task("cloze", 0)

    def _by_task(self, option: str, otherwise: int) -> Tensor:
        """Return the numbers of an option that has them by task, for each of `tasks`."""
        numbers = dict(text.split(":") for text in getattr(self, option))
        return torch.tensor([float(numbers.get(str(task), otherwise)) for task in self.tasks])

    def _check_by_task(self, option: str, pattern: str, number: str) -> None:
        """Raise ConfigError unless an option has tasks, none twice, each with a number of this pattern."""
        texts = getattr(self, option)
        for text in texts:
            if not re.fullmatch(rf"([1-9]|1\d|20): {pattern}", text):
                raise ConfigError(f"Babi.{option} must be such as '19: 2', a task and {number}, got {text!r}")
        if len({text.split(":")[0] for text in texts}) < len(texts):
            raise ConfigError(f"Babi.{option} must name no task twice, got {list(texts)}")

    @functools.cached_property
    def _exchanges(self) -> list[tuple[int, Tensor]]:
        """The lists of interchangeable words of `tasks`: the task of each, and the tokens."""
        lists = [self._exchange(text) for text in self.interchangeable]
        return [(task, tokens) for task, tokens in lists if task in self.tasks]

    def _exchange(self, text: str) -> tuple[int, Tensor]:
        """Return the task and the tokens of a list of interchangeable words. Raises ConfigError."""
        task, _, words = text.partition(":")
        known = {word: token for token, word in enumerate(self.vocabulary)}
        listed = words.split()
        unknown = [word for word in listed if word not in known and int(task) in self.tasks] if task.isdigit() else []
        if not task.isdigit() or len(listed) < 2 or len(set(listed)) < len(listed) or unknown:
            raise ConfigError(
                f"Babi.interchangeable must be lists such as '16: swan rhino lion frog', the number of a task and at "
                f"least two different words of its stories, got {text!r}"
                + (f": {unknown[0]!r} is no word of the vocabulary" if unknown else "")
            )
        return int(task), torch.tensor([known[word] for word in listed if word in known])

    def _exchanged(self, words: Words, generator: torch.Generator, tasks: Tensor) -> Words:
        """Return stories with their interchangeable words in a random order. tasks: their places in `tasks`, [B]."""
        if not self.interchangeable:
            return words
        table = torch.arange(self.classes, dtype=torch.int32).repeat(len(tasks), 1)
        numbers = torch.tensor(self.tasks)[tasks]
        for task, tokens in self._exchanges:
            rows = (numbers == task).nonzero()
            orders = torch.rand(len(rows), len(tokens), generator=generator).argsort(1)
            table[rows, tokens] = tokens[orders].int()
        answers = table.T.gather(0, words.answers.clamp(min=0).long())
        return words._replace(
            tokens=table.T.gather(0, words.tokens.long()),
            answers=torch.where(words.answers < 0, words.answers, answers),
        )

    def _with_cloze(self, words: Words, sentences: Tensor, generator: torch.Generator) -> Words:
        """Return stories that each end with one of their sentences again, and a question for one of its words.

        sentences: of `Stories.sentences_at`. A story without one stays as it is.
        """
        rows = torch.arange(len(words.lengths))
        first, lengths = sentences.unbind(1)
        left_out = _drawn((lengths - 1).clamp(min=1), generator)  # never the mark at the end
        question, answer = (self.vocabulary.index(mark) for mark in (QUESTION, ANSWER))
        last = lengths + self.planning
        steps = torch.arange(int(last.max()) + 1).unsqueeze(1)
        again = words.tokens[(first + steps).clamp(max=len(words.tokens) - 1), rows]
        again[(steps == left_out) | (steps >= lengths)] = question
        again[steps == last] = answer
        known = (steps <= last) & (lengths > 0)
        places = (words.lengths + steps)[known], rows.expand_as(known)[known]
        tokens, answers = pad(words.tokens, (0, 0, 0, len(steps))), pad(words.answers, (0, 0, 0, len(steps)), value=-1)
        tokens[places] = again[known]
        answers[places] = torch.where(steps == last, words.tokens[first + left_out, rows], -1)[known]
        ends = words.lengths + known.sum(0)
        return Words(tokens[: ends.max()], answers[: ends.max()], ends)

    def _episode(self, words: Words) -> Episode:
        """Return the episode of some stories."""
        known = torch.arange(len(words.tokens)).unsqueeze(1) < words.lengths
        answers = words.answers.unsqueeze(2)
        targets = torch.zeros(*words.answers.shape, self.classes)
        targets.scatter_(2, answers.clamp(min=0).long(), (answers >= 0).float())
        return Episode(
            inputs=torch.where(known, words.tokens, 0).float().unsqueeze(2),
            targets=targets,
            mask=(words.answers >= 0).float(),
            lengths=words.lengths,
        )


def _drawn(counts: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random number from 0 to below each of these counts: [B]."""
    return (torch.rand(len(counts), generator=generator, dtype=torch.float64) * counts).long()
