"""The contract of sources: one sequence of a task, drawn from a seed, in NumPy.

A server shows what a task is without torch, so `training.tasks` is not there; tests hold both to the same encoding.
"""

import bisect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Range = tuple[int, int]
"""An option from which each sequence draws a size: the least and the greatest."""

Array = NDArray[np.float32]
Random = np.random.Generator
Chosen = Mapping[str, Any]
"""name -> the value of each size, a whole number, and of each choice, a text."""

MOST_STEPS = 1000
"""The most steps of a sample, whatever is asked for."""

MOST_NUMBERS = 2**22
"""The most numbers of a sample's inputs and targets together."""

MOST_SEED = 2**53 - 1
"""The greatest seed: JSON in a browser has no greater whole number."""


class SizeError(ValueError):
    """A size that a sample cannot have: its name, the value, and what is possible."""

    def __init__(self, name: str, got: str, expected: str) -> None:
        super().__init__(f"{name}: expected {expected}, got {got}")
        self.name = name
        self.got = got
        self.expected = expected


@dataclass(frozen=True)
class Size:
    """A size of a sample, a whole number from `least` to `greatest`.

    trained: its range in training, if it had one; drawn: the range from which it is drawn, if that is another.
    """

    name: str
    label: str
    trained: Range | None
    least: int = 1
    greatest: int = MOST_STEPS
    drawn: Range | None = None


@dataclass(frozen=True)
class Choice:
    """A size of a sample that is one of several words: `values` has their labels; trained: those of training."""

    name: str
    label: str
    values: Mapping[str, str]
    trained: tuple[str, ...]


class Phase(NamedTuple):
    """The steps `start` to `stop` - 1, by what the model does in them."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Sample:
    """One sequence of T steps.

    inputs: [T, input_size]. targets: [T, output_size], or None where no answer is known; mask: [T], whether an answer
    is due. labels: a text for each step. pattern: the drawn or written part of the inputs. kept: the number of things
    that a memory has to keep, if it depends on more than the sizes. facts: the members of this task alone, by name.
    """

    inputs: Array
    targets: Array | None = None
    mask: NDArray[np.bool_] | None = None
    phases: tuple[Phase, ...] = ()
    labels: tuple[str, ...] | None = None
    pattern: Any = None
    kept: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """A source of samples. Those of tasks are frozen dataclasses with the options of the task in training."""

    name: ClassVar[str]
    counted: ClassVar[str] = ""
    """The unit of `needed`: things that a memory keeps, one in each location; "" where that is not known."""

    @property
    @abstractmethod
    def input_size(self) -> int:
        """The number of input channels of a step."""

    @property
    @abstractmethod
    def output_size(self) -> int | None:
        """The number of outputs of a step; None: any."""

    @abstractmethod
    def sizes(self, chosen: Chosen) -> Sequence[Size]:
        """Return the sizes of a sample, in the order in which they are drawn.

        chosen: the choices, and those sizes that are drawn already; a size may depend on those before it.
        """

    @abstractmethod
    def most_steps(self, chosen: Chosen) -> int:
        """Return the most steps of a sample of these sizes; no size makes it shorter by growing."""

    @abstractmethod
    def draw(self, random: Random, chosen: Chosen) -> Sample:
        """Return a sample of these sizes."""

    def choices(self) -> Sequence[Choice]:
        """Return the choices of a sample."""
        return ()

    def needed(self, chosen: Chosen) -> int | None:
        """Return the most things that a memory has to keep, in a location each; None: not known."""
        del chosen
        return None


def choose(source: Source, seed: int, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the sizes and choices of a sample: those that were asked for, as text, and others drawn as in training.

    Raises SizeError for a size that the source does not have, or that a sample cannot have.
    """
    random = _random(seed, 0)
    chosen: dict[str, Any] = {}
    for choice in source.choices():
        word = choice.trained[int(random.integers(len(choice.trained)))]
        chosen[choice.name] = _chosen(choice, asked.get(choice.name, word))
    sizes = source.sizes(chosen)
    refuse(asked, [*chosen, *(size.name for size in sizes)])
    others: dict[str, Any] = chosen | {size.name: size.least for size in sizes}
    others |= {name: _whole(name, value) for name, value in asked.items() if name not in chosen}
    for place in range(len(sizes)):
        size = source.sizes(chosen)[place]
        greatest = limit(source, size, others | chosen)
        ends = size.drawn or size.trained or (size.least, greatest)
        low, high = sorted(min(max(end, size.least), greatest) for end in ends)
        drawn = int(random.integers(low, high, endpoint=True))
        value = others[size.name] if size.name in asked else drawn
        if not size.least <= value <= greatest:
            raise SizeError(size.name, str(value), f"a whole number from {size.least} to {greatest}")
        chosen[size.name] = value
    return chosen


def refuse(asked: Mapping[str, str], known: Sequence[str]) -> None:
    """Raise SizeError for the first size that was asked for and is not known."""
    for name, value in asked.items():
        if name not in known:
            raise SizeError(name, value, f"one of {', '.join(known)}" if known else "no size: a recording is as it is")


def draw(source: Source, seed: int, chosen: Chosen) -> Sample:
    """Return the sample of a seed and of sizes from `choose`: the same on every machine."""
    return source.draw(_random(seed, 1), chosen)


def limit(source: Source, size: Size, chosen: Chosen) -> int:
    """Return the greatest value of a size, beside the others, with which a sample is within `most_steps`."""
    return _greatest(size, lambda value: source.most_steps({**chosen, size.name: value}), most_steps(source))


def most_steps(source: Source) -> int:
    """Return the most steps of a sample of a source: MOST_STEPS, or as many as have MOST_NUMBERS numbers."""
    return min(MOST_STEPS, MOST_NUMBERS // (source.input_size + (source.output_size or 0)))


def is_possible(source: Source) -> bool:
    """Return whether a source has a sample within `most_steps`."""
    chosen: dict[str, Any] = {choice.name: choice.trained[0] for choice in source.choices()}
    least = chosen | {size.name: size.least for size in source.sizes(chosen)}
    return source.most_steps(least) <= most_steps(source)


def fitting(source: Source, size: Size, chosen: Chosen, memory_size: int) -> int | None:
    """Return the greatest value of a size, beside the others, with which `needed` is at most memory_size.

    None: the size does not count, or what is needed is not known.
    """

    def needed(value: int) -> int:
        return source.needed({**chosen, size.name: value}) or 0

    if needed(size.least) == needed(size.greatest):
        return None
    return _greatest(size, needed, memory_size)


def _greatest(size: Size, measured: Any, most: int) -> int:
    """Return the greatest value of a size whose measure is at most `most`, at least its least one."""
    values = range(size.least, size.greatest + 1)
    return max(size.least, size.least - 1 + bisect.bisect_right(values, most, key=measured))


def _random(seed: int, stream: int) -> Random:
    return np.random.Generator(np.random.PCG64([seed, stream]))


def _chosen(choice: Choice, value: str) -> str:
    if value not in choice.values:
        raise SizeError(choice.name, value, f"one of {', '.join(choice.values)}")
    return value


def _whole(name: str, value: str) -> int:
    """Return the number in a text of digits, of which `int` takes more than are sizes."""
    if value.isascii() and value.isdigit() and len(value) <= 16:
        return int(value)
    raise SizeError(name, value, "a whole number")
