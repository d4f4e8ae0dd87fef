"""The contract of tasks: sources of episodes that also measure a model's errors on them."""

import dataclasses
import functools
import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot, pad

from models.config import ConfigError, from_values

Range = tuple[int, int]
"""An option from which each episode draws a size: the least and the greatest."""


class Episode(NamedTuple):
    """A batch of sequences of one task; shorter sequences end in zeros."""

    inputs: Tensor
    """[T, B, input_size]"""
    targets: Tensor
    """[T, B, output_size], in {0, 1}"""
    mask: Tensor
    """[T, B], 1 where an answer is due, else 0"""
    lengths: Tensor | None = None
    """[B], the steps of each sequence; None: all T"""

    def rows(self, rows: slice) -> "Episode":
        """Return the episode of some of the sequences."""
        lengths = None if self.lengths is None else self.lengths[rows]
        return Episode(self.inputs[:, rows], self.targets[:, rows], self.mask[:, rows], lengths)

    def to(self, device: torch.device) -> "Episode":
        """Return the episode on a device; lengths stay where they are."""
        return Episode(self.inputs.to(device), self.targets.to(device), self.mask.to(device), self.lengths)


def join(episodes: Iterable[Episode]) -> Episode:
    """Return the sequences of several episodes as one, in order, padded to the longest."""
    parts = list(episodes)
    lengths = [
        torch.full((part.mask.shape[1],), len(part.mask)) if part.lengths is None else part.lengths for part in parts
    ]
    steps = max(len(part.mask) for part in parts)

    def joined(tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([pad(tensor, [0, 0] * (tensor.dim() - 1) + [0, steps - len(tensor)]) for tensor in tensors], 1)

    return Episode(
        inputs=joined(part.inputs for part in parts),
        targets=joined(part.targets for part in parts),
        mask=joined(part.mask for part in parts),
        lengths=torch.cat(lengths),
    )


class Task(ABC):
    """A source of episodes. Subclasses are frozen dataclasses; their fields are the task's options.

    An option that is a Range is a size of the episodes: each draws its own, and a curriculum or a measurement is the
    task with other ranges.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    """The source of the task."""
    unit: ClassVar[str]
    """The unit of `errors`."""
    data: ClassVar[str] = ""
    """The source and the terms of the data, unless Engram generates them."""
    sizes_by_row: ClassVar[bool] = False
    """Whether each sequence of a sample has its own sizes; otherwise all have those that the sample drew."""
    places: ClassVar[tuple[str, ...]] = ()
    """The options that hold the location of the task's data, which may change before a run is resumed."""

    @property
    @abstractmethod
    def model_values(self) -> dict[str, Any]:
        """The values of a model's config that follow from the task: input_size, output_size, output_activation, ..."""

    @abstractmethod
    def sample(self, generator: torch.Generator, batch_size: int) -> Episode:
        """Return `batch_size` fresh sequences."""

    @abstractmethod
    def loss(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the mean cross-entropy in nats per element asked for. outputs: [T, B, output_size], logits.

        It is 0 if nothing is asked for; a trainer does not call it then.
        """

    @abstractmethod
    def errors(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the errors of each sequence, in the task's unit: [B]. outputs: [T, B, output_size], logits."""

    def cost(self, outputs: Tensor, episode: Episode) -> Tensor | None:
        """Return the cross-entropy of each sequence in bits, [B], if answers are bits; else None.

        The NTM paper's figures show it: an error of which the model is sure costs many bits.
        """
        del outputs, episode
        return None

    @abstractmethod
    def asked(self, episode: Episode) -> Tensor:
        """Return the number of possible errors of each sequence: [B]."""

    @abstractmethod
    def render(self, episode: Episode, row: int = 0) -> str:
        """Return one sequence as readable text."""

    def test_set(self, batch_size: int) -> Iterator[Episode] | None:
        """Return all sequences to measure, if they are a fixed set; None if they are drawn."""
        del batch_size
        return None

    def optimum(self, episode: Episode) -> Tensor | None:
        """Return the least errors that any model can expect, [B]; None if that is 0."""
        del episode
        return None

    @property
    def sizes(self) -> dict[str, Range]:
        """The options that are ranges, by name."""
        return {name: getattr(self, name) for name, hint in _hints(type(self)).items() if hint == Range}

    @property
    def greatest(self) -> "Task":
        """The task with every size at the greatest of its range."""
        return self.with_options({name: greatest for name, (_, greatest) in self.sizes.items()})

    def with_options(self, options: Mapping[str, Any]) -> "Task":
        """Return the task with some options changed. Raises ConfigError."""
        return from_values(type(self), {**self.options, **options}, "task")

    @property
    def options(self) -> dict[str, Any]:
        """The options as plain values; a range as the list of its ends, or as the one number that it holds."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: _plain(value) for name, value in values.items()}

    def require_ranges(self, minimum: int = 1) -> None:
        """Raise ConfigError unless every range has its ends in order, the lower at least `minimum`."""
        for name, (least, greatest) in self.sizes.items():
            if not minimum <= least <= greatest:
                raise ConfigError(
                    f"{type(self).__name__}.{name} must be [least, greatest] with {minimum} <= least <= greatest, "
                    f"got [{least}, {greatest}]"
                )


class BitTask(Task):
    """A task whose answers are bits; its errors are the wrong ones."""

    unit = "wrong bits"

    @property
    @abstractmethod
    def input_size(self) -> int:
        """The number of input channels of a step."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """The number of bits of an answer step."""

    @property
    def model_values(self) -> dict[str, Any]:
        return {"input_size": self.input_size, "output_size": self.output_size, "output_activation": "sigmoid"}

    def loss(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the mean cross-entropy in nats per bit asked for. outputs: [T, B, output_size], logits."""
        asked = episode.mask.unsqueeze(2).expand_as(outputs)
        total = binary_cross_entropy_with_logits(outputs, episode.targets, weight=asked, reduction="sum")
        return total / (_steps_asked(episode) * self.output_size)

    def errors(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the number of wrong bits of each sequence: [B]. outputs: [T, B, output_size], logits."""
        wrong = (outputs > 0) != (episode.targets > 0.5)
        return (wrong.sum(2) * episode.mask).sum(0)

    def cost(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the cost of the answers of each sequence in bits: [B]. outputs: [T, B, output_size], logits."""
        cost = binary_cross_entropy_with_logits(outputs, episode.targets, reduction="none").sum(2)
        return (cost * episode.mask).sum(0) / math.log(2)

    def asked(self, episode: Episode) -> Tensor:
        return episode.mask.sum(0) * self.output_size

    def render(self, episode: Episode, row: int = 0) -> str:
        """Return one sequence as text, time to the right.

        `#` for 1, `.` for 0, other values as a digit, from 0 for -1 or less to 9 for 1 or more; below the line the
        targets, a blank where nothing is due.
        """
        end = len(episode.mask) if episode.lengths is None else int(episode.lengths[row])
        inputs, targets = episode.inputs[:end, row], episode.targets[:end, row]
        asked = episode.mask[:end, row] > 0
        lines = ["".join(map(_mark, channel)) for channel in inputs.T.tolist()]
        lines.append("-" * end)
        for channel in targets.T.tolist():
            lines.append("".join(_mark(bit) if shown else " " for bit, shown in zip(channel, asked, strict=True)))
        return "\n".join(lines)


class AnswerTask(Task):
    """A task whose answers are digits: an answer step has `groups` of them, each one of `classes`.

    Answer steps without a break are one answer, right if all its digits are; errors are the wrong answers.
    """

    unit = "wrong answers"

    @property
    @abstractmethod
    def groups(self) -> int:
        """The number of digits of an answer step."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """The number of values of a digit."""

    @property
    def output_size(self) -> int:
        return self.groups * self.classes

    def loss(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the mean cross-entropy in nats per digit asked for. outputs: [T, B, output_size], logits."""
        chances = self._by_group(outputs).log_softmax(3).flatten(2)
        total = -(chances * episode.targets).sum(2) * episode.mask
        return total.sum() / (_steps_asked(episode) * self.groups)

    def errors(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the number of wrong answers of each sequence: [B]. outputs: [T, B, output_size], logits."""
        asked = episode.mask > 0
        wrong = (self.digits(outputs) != self.digits(episode.targets)).any(2) & asked
        starts = _starts(asked)
        # The number of an answer is that of the answers begun so far; it is wrong if any of its steps is.
        numbers = starts.cumsum(0) * asked
        found = torch.zeros(int(numbers.max()) + 1, asked.shape[1], device=asked.device)
        found.scatter_reduce_(0, numbers, wrong.to(found.dtype), "amax")
        return found[1:].sum(0)

    def asked(self, episode: Episode) -> Tensor:
        return _starts(episode.mask > 0).sum(0)

    def digits(self, values: Tensor) -> Tensor:
        """Return the digits of outputs or targets: [..., output_size] -> [..., groups]."""
        return self._by_group(values).argmax(-1)

    def one_hot(self, digits: Tensor) -> Tensor:
        """Return the targets of digits: [..., groups] -> [..., output_size]."""
        return one_hot(digits, self.classes).flatten(-2).float()

    def _by_group(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:-1], self.groups, self.classes)


def draw(generator: torch.Generator, bounds: Range) -> int:
    """Return a whole number drawn uniformly from a range."""
    return int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator))


def random_bits(generator: torch.Generator, *shape: int) -> Tensor:
    """Return fair bits as numbers."""
    return torch.randint(0, 2, shape, generator=generator).float()


def _steps_asked(episode: Episode) -> Tensor:
    """Return the number of answer steps of all sequences, at least 1, so that the mean over none is 0, not NaN."""
    return episode.mask.sum().clamp(min=1)


def _starts(asked: Tensor) -> Tensor:
    """Return the first steps of answers: due at this step, but not at the one before. [T, B] -> [T, B]"""
    return asked & ~pad(asked, (0, 0, 1, 0))[:-1]


def _plain(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    is_number = len(value) == 2 and type(value[0]) is int and value[0] == value[1]
    return value[0] if is_number else list(value)


def _mark(value: float) -> str:
    if value in (0, 1):
        return ".#"[int(value)]
    return f"{min(9, max(0, math.floor((value + 1) * 5)))}"


@functools.cache
def _hints(task: type[Task]) -> dict[str, Any]:
    hints = typing.get_type_hints(task)
    return {field.name: hints[field.name] for field in dataclasses.fields(task)}  # type: ignore[arg-type]
