"""Measure the errors of a model on fresh sequences of a task."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.unroll import Unroll, unroll_by
from models.config import ConfigError
from models.contract import MemoryModel, evaluating
from training.distributed import WholeUnroll
from training.preset import Point
from training.progress import counting
from training.tasks import Episode, Task, join

EVALUATION_SEED = 2_000_000_011
"""The default seed of evaluation sequences; training draws its own from the seed of the run."""

CHOICE_SEED = 1_500_000_001
"""The seed of the sequences by which the best of several trained models is chosen."""

BATCH = 50


@dataclass(frozen=True)
class Measured:
    """The mean errors per sequence, in the task's unit, over `sequences` that training has not seen.

    cost: the mean cross-entropy in bits, if the answers are bits; asked: the mean number of possible errors; optimum:
    the least mean that any model can expect, None if that is 0; wrong_sequences: the number of sequences with an error.
    """

    sequences: int
    errors: float
    cost: float | None
    asked: float
    wrong_sequences: int
    optimum: float | None

    @property
    def excess(self) -> float:
        """The errors beyond the optimum."""
        return self.errors - (self.optimum or 0.0)


@torch.no_grad()
def measure(
    model: MemoryModel[Any],
    task: Task,
    sequences: int,
    seed: int = EVALUATION_SEED,
    memory_size: int | None = None,
    unroll: Unroll | WholeUnroll | None = None,
    after_batch: Callable[[int, int], object] | None = None,
) -> Measured:
    """Return the errors of a model on `sequences` sequences drawn from `seed`, or on the task's test set if it has one.

    Each sequence draws its own sizes.

    memory_size: the number of memory locations, if not as trained. unroll: the model's, if there is one already.
    after_batch: called with the number of sequences measured, and of all. Raises ConfigError if no sequence asks for
    anything: no model could be wrong.
    """
    generator = torch.Generator().manual_seed(seed)
    unroll = unroll or unroll_by("auto", model)
    device = next(model.parameters()).device
    figures = _Figures(task)
    with evaluating(model):
        for episode in task.test_set(BATCH) or (_sample(task, generator, rows) for rows in _batches(sequences)):
            state = model.initial_state(episode.mask.shape[1], memory_size)
            outputs, _ = unroll(episode.inputs.to(device), state, episode.lengths)
            figures.add(outputs.cpu(), episode)
            if after_batch:
                after_batch(figures.sequences, max(figures.sequences, sequences))
    return figures.measured()


class _Figures:
    """The figures of sequences, batch by batch."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._errors: list[Tensor] = []
        self._costs: list[Tensor | None] = []
        self._asked: list[Tensor] = []
        self._optima: list[Tensor | None] = []

    @property
    def sequences(self) -> int:
        return sum(map(len, self._errors))

    def add(self, outputs: Tensor, episode: Episode) -> None:
        """Measure a batch. outputs: [T, B, output_size]"""
        self._errors.append(self._task.errors(outputs, episode))
        self._costs.append(self._task.cost(outputs, episode))
        self._asked.append(self._task.asked(episode))
        self._optima.append(self._task.optimum(episode))

    def measured(self) -> Measured:
        """Return the figures of all batches. Raises ConfigError if no sequence asks for anything."""
        if not any(batch.any() for batch in self._asked):
            raise nothing_asked(self._task, self.sequences)
        asked, errors = torch.cat(self._asked), torch.cat(self._errors)
        return Measured(
            sequences=len(errors),
            errors=errors.float().mean().item(),
            cost=_mean(self._costs),
            asked=asked.float().mean().item(),
            wrong_sequences=int((errors > 0).sum()),
            optimum=_mean(self._optima),
        )


def evaluate(
    model: MemoryModel[Any], task: Task, points: Iterable[Point], sequences: int, seed: int = EVALUATION_SEED
) -> Iterator[dict[str, Any]]:
    """Measure a model at each point, and yield each row for a manifest as soon as it is known.

    A row has the point's options, target and published figure, the memory size (None for a model without a memory),
    the fields of Measured, the task's unit, and the seed of the sequences.
    """
    unroll = unroll_by("auto", model)
    for point in points:
        with counting(f"{task.name}, {options_text(point.options)}", "sequence") as show:
            at = task.with_options(point.options)
            measured = measure(model, at, sequences, seed, point.memory_size, unroll, show)
        about = {"options": dict(point.options), "memory_size": point.memory_size or model.memory_size}
        goals = {"target": point.target, "published": point.published}
        yield about | asdict(measured) | {"unit": task.unit, "seed": seed} | goals


def options_text(options: Mapping[str, Any]) -> str:
    """Return the options of a point in words: length 10, repeats 1 to 5."""
    return ", ".join(f"{name} {_range(value)}" for name, value in options.items()) or "as in training"


def _range(value: Any) -> str:
    is_range = isinstance(value, list) and len(value) == 2
    return f"{value[0]} to {value[1]}" if is_range else str(value)


def nothing_asked(task: Task, sequences: int) -> ConfigError:
    """Return the error of a task whose sequences ask for nothing."""
    return ConfigError(
        f"the task {task.name} asks for nothing in {sequences} sequences, so there is nothing to learn or to measure: "
        "its mask must be 1 where an answer is due"
    )


def is_finite(row: Mapping[str, Any]) -> bool:
    """Return whether the errors and the cost in a row of `evaluate` are finite."""
    return all(math.isfinite(row[name]) for name in ("errors", "cost", "optimum") if row[name] is not None)


def points_of(evaluation: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Return the points at which the rows of a manifest were measured."""
    return [Point(row["options"], row["memory_size"], row.get("target"), row.get("published")) for row in evaluation]


def _mean(batches: Sequence[Tensor | None]) -> float | None:
    """Return the mean over the sequences of all batches, None if the task has no such figure."""
    known = [batch for batch in batches if batch is not None]
    return torch.cat(known).mean().item() if known else None


def _sample(task: Task, generator: torch.Generator, rows: int) -> Episode:
    """Return fresh sequences, each with its own sizes."""
    is_fixed = all(least == greatest for least, greatest in task.sizes.values())
    if is_fixed or task.sizes_by_row:
        return task.sample(generator, rows)
    return join(task.sample(generator, 1) for _ in range(rows))


def _batches(sequences: int) -> Iterator[int]:
    for start in range(0, sequences, BATCH):
        yield min(BATCH, sequences - start)
