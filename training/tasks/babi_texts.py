"""The public files of bAbI (Weston et al. 2015): read, split into words, and numbered by a vocabulary."""

import functools
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.config import ConfigError
from models.episodes.babi import ANSWER, QUESTION

HYPHEN = "\N{EN DASH}"
"""The token of a hyphen that stands alone in a story, so that it is not ANSWER."""

LINE = re.compile(r"(?P<number>\d+) (?P<text>[^\t]*\w[^\t]*)(\t(?P<answer>[^\t]*\w[^\t]*)(\t[\d ]*)?)?")


class Words(NamedTuple):
    """Stories of a batch, word by word."""

    tokens: Tensor
    """[T, B], any behind the end of a story"""
    answers: Tensor
    """[T, B], the token that is due, -1 for none"""
    lengths: Tensor
    """[B], the words of each story"""


class Text(NamedTuple):
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


class Stories(NamedTuple):
    """The stories to draw from, in tokens of the vocabulary."""

    tokens: Tensor
    answers: Tensor
    """[words] both, as those of a Text"""
    starts: Tensor
    """[stories], the first word of each"""
    lengths: Tensor
    """[stories]"""
    first: Tensor
    """[tasks], the number of the first story of each"""
    counts: Tensor
    """[tasks], the number of stories of each"""
    sentences: Tensor
    """[sentences + 1, 2], as those of a Text, and behind them one without words"""
    first_sentences: Tensor
    """[stories], the number of the first sentence of each"""
    sentence_counts: Tensor
    """[stories], the sentences of each"""

    def words(self, numbers: Tensor) -> Words:
        """Return the stories with these numbers: [B]."""
        lengths = self.lengths[numbers]
        steps = torch.arange(int(lengths.max())).unsqueeze(1)
        known = steps < lengths
        places = torch.where(known, self.starts[numbers] + steps, 0)
        tokens, answers = self.tokens[places], self.answers[places]
        return Words(tokens, torch.where(known, answers, -1), lengths)

    def sentences_at(self, numbers: Tensor, places: Tensor) -> Tensor:
        """Return a sentence of each story: the place of its first word in the story, and its words, 0 and 0 of none.

        numbers: of the stories, [B]; places: of their sentences, -1 for none, [B]. Returns [B, 2].
        """
        first, lengths = self.sentences[torch.where(places < 0, -1, self.first_sentences[numbers] + places)].unbind(1)
        return torch.stack([(first - self.starts[numbers]).clamp(min=0), lengths], 1)


@functools.cache
def encoded(
    directory: str, tasks: tuple[int, ...], split: str, vocabulary: tuple[str, ...], longest: float, planning: int
) -> Stories:
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
    begins, words, said = torch.cat(starts), torch.cat(lengths), torch.cat(sentences)
    first_sentences = torch.searchsorted(said[:, 0].contiguous(), begins)
    return Stories(
        tokens=torch.cat(tokens),
        answers=torch.cat(answers),
        starts=begins,
        lengths=words,
        first=counts.cumsum(0) - counts,
        counts=counts,
        sentences=pad(said, (0, 0, 0, 1)),
        first_sentences=first_sentences,
        sentence_counts=torch.searchsorted(said.sum(1), begins + words, right=True) - first_sentences,
    )


def collected(directory: str, tasks: tuple[int, ...]) -> tuple[str, ...]:
    """Return the words of both splits of these tasks, in alphabetical order. Raises ConfigError."""
    texts = [_read(directory, task, split, 0) for task in tasks for split in ("train", "test")]
    return tuple(sorted(set().union(*(text.words for text in texts))))


@functools.cache
def _read(directory: str, task: int, split: str, planning: int) -> Text:
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
    return Text(
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
