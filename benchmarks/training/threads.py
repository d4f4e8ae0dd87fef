"""Whole updates by two threads beside one."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.kernels.threads import gain
from benchmarks.kernels.training import SAME
from benchmarks.table import Row, Table
from benchmarks.timing import check_close
from benchmarks.training.parts import LENGTH
from benchmarks.training.plan import TrainingPlan, preset
from benchmarks.training.updates import CHECKED_UPDATES
from training.trainer import Trainer

LARGER = 4
"""The times that a batch is larger in the second line of a model."""


def measure_threads(plan: TrainingPlan) -> Iterator[Row]:
    for name, batch in plan.cases():
        for rows in (batch, LARGER * batch) if batch > 1 else ():  # one row is not shared
            one, two = (trainer_by(threads, name, rows) for threads in (1, 2))
            check_close(f"{name} at batch {rows}: losses by two threads", losses(two), losses(one), SAME)
            by_one, by_two = (partial(train, trainer, plan.updates) for trainer in (one, two))
            times = gain(by_one, by_two, plan.rounds, plan.seconds)
            rates = (plan.updates * rows / seconds for seconds in (times.one, times.two))
            yield name, rows, *rates, times.one / times.two, times.possible


def trainer_by(threads: int, name: str, batch: int) -> Trainer:
    """Return a trainer of sequences of LENGTH vectors by some threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Trainer(preset(name, batch, (LENGTH, LENGTH)), path="fused")
    finally:
        torch.set_num_threads(before)


def losses(trainer: Trainer) -> NDArray[np.float64]:
    """Return the losses of the next updates: [CHECKED_UPDATES]."""
    return np.array([trainer.update().loss for _ in range(CHECKED_UPDATES)])


def train(trainer: Trainer, updates: int) -> None:
    for _ in range(updates):
        trainer.update()


TWO_THREADS = Table(
    "Two threads",
    f"Sequences of {LENGTH} vectors per second of wall time, by whole updates of one thread and of two that share the "
    "sequences. The last column is the same ratio of matrix products that have nothing in common: how much of two "
    "cores was to be had.",
    ("model", "batch", "one thread", "two threads", "two / one", "products: two / one"),
    measure_threads,
)
