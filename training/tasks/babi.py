"""bAbI: read a story word by word and answer the questions in it, from the public files of Weston et al. 2015."""

import functools
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.config import ConfigError, require_at_least
from models.episodes.babi import ANSWER, QUESTION
from training.tasks.base import AnswerTask, Episode

HYPHEN = "\N{EN DASH}"
"""The token of a hyphen that stands alone in a story, so that it is not ANSWER."""

LINE = re.compile(r"(?P<number>\d+) (?P<text>[^\t]*\w[^\t]*)(\t(?P<answer>[^\t]*\w[^\t]*)(\t[\d ]*)?)?")


@dataclass(frozen=True)
class Babi(AnswerTask):
    """A whole story, one word a step, in lower case; at each "-" the model says a word of the answer.

        time     0    1    2  3   4      5 6     7  8    9 10
        word     mary went to the garden . where is mary ? -
        target                                             garden    T: the words of the batch's longest story

    Words and punctuation are tokens, in Unicode's composed form; a hyphen that stands alone is HYPHEN, a dash. An
    answer of several words has as many "-" in a row, and is right if all of them are; errors are the questions answered
    wrong. An episode draws for each sequence one of the tasks and then one of its stories, both uniformly. With the
    split "test" every story is measured once.

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
        for text in self.cloze:
            self._number("cloze", text, r"[1-9]\d?")
        for text in self.shares:
            self._number("shares", text, r"(?!0+(\.0+)?$)\d{1,3}(\.\d{1,3})?")
        if not self.vocabulary:
            object.__setattr__(self, "vocabulary", _collected(self.directory, self.tasks))
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
            tasks = torch.multinomial(self._by_task("shares", 1), batch_size, replacement=True, generator=generator)
        else:
            tasks = torch.randint(0, len(self.tasks), (batch_size,), generator=generator)
        places = torch.rand(batch_size, generator=generator, dtype=torch.float64)
        numbers = stories.first[tasks] + (places * stories.counts[tasks]).long()
        words = stories.words(numbers)
        if self.split == "train":
            words = self._exchanged(words, generator, tasks)
            counts, sentences = self._by_task("cloze", 0)[tasks], stories.sentences_of(numbers)
            for told in range(int(counts.max())):
                words = self._with_cloze(words, sentences * (told < counts)[:, None, None], generator)
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

    def _stories(self) -> "_Stories":
        longest = self.max_words if self.split == "train" else math.inf
        return _encoded(self.directory, self.tasks, self.split, self.vocabulary, longest, self.planning)

    def _by_task(self, option: str, otherwise: int) -> Tensor:
        """Return the numbers of an option that has them by task, for each of `tasks`."""
        numbers = dict(text.split(":") for text in getattr(self, option))
        return torch.tensor([float(numbers.get(str(task), otherwise)) for task in self.tasks])

    @staticmethod
    def _number(option: str, text: str, pattern: str) -> None:
        """Raise ConfigError unless a text is the number of a task and a number of this pattern, above 0."""
        if not re.fullmatch(rf"([1-9]|1\d|20): {pattern}", text):
            raise ConfigError(f"Babi.{option} must be such as '19: 2', a task and a number above 0, got {text!r}")

    @functools.cached_property
    def _exchanges(self) -> list[tuple[int, Tensor]]:
        """The lists of interchangeable words: the task of each, and the tokens."""
        return [self._exchange(text) for text in self.interchangeable]

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

    def _exchanged(self, words: "_Words", generator: torch.Generator, tasks: Tensor) -> "_Words":
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

    def _with_cloze(self, words: "_Words", sentences: Tensor, generator: torch.Generator) -> "_Words":
        """Return stories that each end with one of their sentences again, and a question for one of its words.

        sentences: of `_Stories.sentences_of`. A story without one stays as it is.
        """
        rows = torch.arange(len(words.lengths))
        counts = (sentences[..., 1] > 0).sum(1)
        first, lengths = sentences[rows, _drawn(counts, generator)].unbind(1)
        left_out = _drawn((lengths - 1).clamp(min=1), generator)  # never the mark at the end
        question, answer = (self.vocabulary.index(mark) for mark in (QUESTION, ANSWER))
        last = lengths + self.planning
        steps = torch.arange(int(last.max()) + 1).unsqueeze(1)
        again = words.tokens[(first + steps).clamp(max=len(words.tokens) - 1), rows]
        again[(steps == left_out) | (steps >= lengths)] = question
        again[steps == last] = answer
        known = (steps <= last) & (counts > 0)
        places = (words.lengths + steps)[known], rows.expand_as(known)[known]
        tokens, answers = pad(words.tokens, (0, 0, 0, len(steps))), pad(words.answers, (0, 0, 0, len(steps)), value=-1)
        tokens[places] = again[known]
        answers[places] = torch.where(steps == last, words.tokens[first + left_out, rows], -1)[known]
        ends = words.lengths + known.sum(0)
        return _Words(tokens[: ends.max()], answers[: ends.max()], ends)

    def _episode(self, words: "_Words") -> Episode:
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


class _Words(NamedTuple):
    """Stories of a batch, word by word."""

    tokens: Tensor
    """[T, B], any behind the end of a story"""
    answers: Tensor
    """[T, B], the token that is due, -1 for none"""
    lengths: Tensor
    """[B], the words of each story"""


class _Text(NamedTuple):
    """The stories of one task and split, one after the other; words are numbered in order of appearance."""

    words: tuple[str, ...]
    tokens: Tensor
    """[words], the number of each word; that of ANSWER where an answer is due"""
    answers: Tensor
    """[words], the number of the word that is due, -1 for none"""
    lengths: Tensor
    """[stories], the number of words of each"""
    sentences: Tensor
    """[sentences, 2], the first word of each line without a question, and the number of its words"""

    def answered(self, longest: float) -> Tensor:
        """Return the words of each story up to its last whole answer within `longest`, or 0: [stories]."""
        numbers = torch.arange(len(self.lengths)).repeat_interleave(self.lengths)
        counts = torch.arange(1, len(self.answers) + 1) - (self.lengths.cumsum(0) - self.lengths)[numbers]
        asked = self.answers >= 0
        ends = asked & ~pad(asked[1:], (0, 1)) & (counts <= longest)
        return torch.zeros_like(self.lengths).scatter_reduce_(0, numbers, counts * ends, "amax")


class _Stories(NamedTuple):
    """The stories to draw from, in tokens of the vocabulary."""

    tokens: Tensor
    answers: Tensor
    """[words] both, as those of a _Text"""
    starts: Tensor
    """[stories], the first word of each"""
    lengths: Tensor
    """[stories]"""
    first: Tensor
    """[tasks], the number of the first story of each"""
    counts: Tensor
    """[tasks], the number of stories of each"""
    sentences: Tensor
    """[sentences, 2], as those of a _Text"""

    def words(self, numbers: Tensor) -> _Words:
        """Return the stories with these numbers: [B]."""
        lengths = self.lengths[numbers]
        steps = torch.arange(int(lengths.max())).unsqueeze(1)
        known = steps < lengths
        places = torch.where(known, self.starts[numbers] + steps, 0)
        tokens, answers = self.tokens[places], self.answers[places]
        return _Words(tokens, torch.where(known, answers, -1), lengths)

    def sentences_of(self, numbers: Tensor) -> Tensor:
        """Return the sentences of stories, [B, sentences, 2]: the place in the story of each, and its words; 0 of none.

        numbers: of the stories, [B].
        """
        starts = self.starts[numbers]
        begins, ends = self.sentences[:, 0].contiguous(), self.sentences.sum(1)
        first = torch.searchsorted(begins, starts)
        after = torch.searchsorted(ends, starts + self.lengths[numbers], right=True)
        places = first.unsqueeze(1) + torch.arange(int((after - first).max()) + 1)
        found = pad(self.sentences, (0, 0, 0, 1))[places.clamp(max=len(self.sentences))]
        found[..., 0] -= starts.unsqueeze(1)
        return torch.where((places < after.unsqueeze(1)).unsqueeze(2), found, 0)


def _drawn(counts: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random number from 0 to below each of these counts: [B]."""
    return (torch.rand(len(counts), generator=generator, dtype=torch.float64) * counts).long()


@functools.cache
def _encoded(
    directory: str, tasks: tuple[int, ...], split: str, vocabulary: tuple[str, ...], longest: float, planning: int
) -> _Stories:
    """Return the stories of some tasks, cut to at most `longest` words. Raises ConfigError."""
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokens, answers, starts, lengths, sentences = [], [], [], [], []
    read = 0
    for task in tasks:
        text = _read(directory, task, split, planning)
        unknown = sorted(set(text.words) - set(numbers))
        if unknown:
            raise ConfigError(
                f"Babi.vocabulary has no word {unknown[0]!r}, which is in task {task} ({split}) of {directory!r}; "
                "leave it out to have the words collected from the files"
            )
        table = torch.tensor([*(numbers[word] for word in text.words), -1], dtype=torch.int32)  # -1 stays -1
        tokens.append(table[text.tokens])
        answers.append(table[text.answers])
        cut = torch.where(text.lengths <= longest, text.lengths, text.answered(longest))
        short = cut > 0
        if not short.any():
            raise ConfigError(f"Babi.max_words: task {task} has no story with an answer within {longest} words")
        starts.append((read + text.lengths.cumsum(0) - text.lengths)[short])
        lengths.append(cut[short])
        sentences.append(text.sentences + torch.tensor([read, 0]))
        read += len(text.tokens)
    counts = torch.tensor([len(of_task) for of_task in lengths])
    first = counts.cumsum(0) - counts
    return _Stories(
        tokens=torch.cat(tokens),
        answers=torch.cat(answers),
        starts=torch.cat(starts),
        lengths=torch.cat(lengths),
        first=first,
        counts=counts,
        sentences=torch.cat(sentences),
    )


def _collected(directory: str, tasks: tuple[int, ...]) -> tuple[str, ...]:
    """Return the words of both splits of these tasks, in alphabetical order. Raises ConfigError."""
    texts = [_read(directory, task, split, 0) for task in tasks for split in ("train", "test")]
    return tuple(sorted(set().union(*(text.words for text in texts))))


@functools.cache
def _read(directory: str, task: int, split: str, planning: int) -> _Text:
    """Read the files of a task and split. Raises ConfigError."""
    pattern = f"qa{task}_*_{split}*.txt"
    paths = sorted(Path(directory).glob(pattern))
    if not paths:
        raise ConfigError(
            f"Babi.directory: no file {pattern} in {directory!r}; it must be a directory of the bAbI texts, such as "
            "en-10k of tasks_1-20_v1-2.tar.gz (research.facebook.com/downloads/babi)"
        )
    numbers = {ANSWER: 0}
    tokens: list[int] = []
    answers: list[int] = []
    starts: list[int] = []
    sentences: list[tuple[int, int]] = []

    @functools.cache  # sentences recur
    def numbered(text: str) -> list[int]:
        return [numbers.setdefault(word, len(numbers)) for word in split_words(text)]

    for path in paths:
        for number, text, answer in _lines(path):
            if number == 1:
                starts.append(len(tokens))
            shown, due = numbered(text), numbered(answer)
            silent = numbered(QUESTION) * planning if due else []
            if not due:
                sentences.append((len(tokens), len(shown)))
            tokens += shown + silent + [numbers[ANSWER]] * len(due)
            answers += [-1] * len(shown + silent) + due
    ends = torch.tensor([*starts[1:], len(tokens)])
    lengths = ends - torch.tensor(starts)
    return _Text(
        words=tuple(numbers),
        tokens=torch.tensor(tokens, dtype=torch.int32),
        answers=torch.tensor(answers, dtype=torch.int32),
        lengths=lengths,
        sentences=torch.tensor(sentences, dtype=torch.int64).reshape(-1, 2),
    )


def split_words(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, in lower case and composed form.

    Combining marks and joiners belong to their word; a hyphen that stands alone is HYPHEN. app/static/words.js does the
    same, but that there a hyphen between spaces is ANSWER.
    """
    words = _word_pattern().findall(unicodedata.normalize("NFC", text.lower()))
    return [HYPHEN if word == ANSWER else word for word in words]


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    """Return the pattern of a word or a punctuation mark; `re` has no class of combining marks, and \\w lacks them."""
    marks = "".join(mark for mark in map(chr, range(0x300, 0xE01F0)) if unicodedata.category(mark)[0] == "M")
    return re.compile(rf"\w[\w{marks}\u200c\u200d'-]*|[^\w\s]")


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line, its text, and its answer as separate words, "" if it is no question."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Babi.directory: {path}: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    previous = 0
    for place, line in enumerate(lines, 1):
        match = LINE.fullmatch(line)
        number = int(match["number"]) if match else 0
        if not match or number not in (1, previous + 1):
            raise ConfigError(
                f"Babi.directory: {path}, line {place}: expected a number that counts the lines of a story from 1, and "
                f"its text; behind a question a tab, the answer, a tab, numbers of lines; got {line!r}"
            )
        yield number, match["text"], (match["answer"] or "").replace(",", " ")
        previous = number
    if not lines:
        raise ConfigError(f"Babi.directory: {path} is empty")
