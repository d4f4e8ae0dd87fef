"""Whole updates by two threads beside one."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from benchmarks.kernels.threads import products_by
from benchmarks.table import Row, Table
from benchmarks.timing import WrongOutputs, medians
from benchmarks.training.parts import LENGTH
from benchmarks.training.plan import TrainingPlan, preset
from benchmarks.training.updates import CHECKED_UPDATES
from training.trainer import Trainer

THREADS = 1, 2
LARGER = 4
"""The times that a batch is larger in the second line of a model."""


def measure_threads(plan: TrainingPlan) -> Iterator[Row]:
    for name, batch in plan.cases():
        for rows in (batch, LARGER * batch) if batch > 1 else ():  # one row is not shared
            trainers = [trainer_by(threads, name, rows) for threads in THREADS]
            check_losses(f"{name} at batch {rows}", trainers)
            turns: dict[str, Callable[[], object]] = {}
            for threads, trainer in zip(THREADS, trainers, strict=True):
                turns[f"updates by {threads}"] = partial(train, trainer, plan.updates)
                turns[f"products by {threads}"] = products_by(threads)
            one, products_one, two, products_two = medians(turns, plan.rounds, plan.seconds).values()
            rates = plan.updates * rows / one, plan.updates * rows / two
            yield name, rows, *rates, one / two, products_one / products_two


def trainer_by(threads: int, name: str, batch: int) -> Trainer:
    """Return a trainer of sequences of LENGTH vectors by some threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Trainer(preset(name, batch, (LENGTH, LENGTH)), path="fused")
    finally:
        torch.set_num_threads(before)


def check_losses(what: str, trainers: Sequence[Trainer]) -> None:
    """Raise WrongOutputs unless the first updates of trainers have the same losses, bit for bit."""
    losses = [[trainer.update().loss for _ in range(CHECKED_UPDATES)] for trainer in trainers]
    if losses[0] != losses[1]:
        raise WrongOutputs(f"not timed, {what}: expected the losses of one thread, {losses[0]}, got {losses[1]} by two")


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
