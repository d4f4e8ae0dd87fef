"""Sequences per second, by our trainer and by the scripts of public implementations."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.kernels.training import ABOUT_MODELS, model_of
from benchmarks.table import Row, Table
from benchmarks.timing import WrongOutputs, check_close, medians
from benchmarks.training.plan import LENGTHS, TrainingPlan, preset
from benchmarks.training.scripts import Script, copy_episode, seed_all
from kernels.unroll import UnrollPath
from models.contract import unroll
from training.run_metrics import RunMetrics
from training.tasks import Task
from training.trainer import Trainer

PATHS: tuple[UnrollPath, ...] = ("fused", "torch")

SEED = 547
"""The seed of the lengths: 20 updates at batch 1 and at 16 draw 10.4 on average with it, where the mean is 10.5."""

CHECKED_UPDATES, LEARNING_UPDATES = 3, 20
CHECKED_LENGTH, CHECKED_BATCH = 3, 2
TOLERANCE = 1e-4
"""The tolerance of a loss by the kernels and by torch, and by a public implementation and its twin."""


def measure_updates(plan: TrainingPlan) -> Iterator[Row]:
    for name, batch in plan.cases():
        check_trainers(name, batch)
        with ExitStack() as files:
            turns: dict[str, Callable[[], object]] = {}
            for path in PATHS:
                metrics = files.enter_context(RunMetrics(made(plan.directory / f"{name}-{batch}-{path}"), 0, False))
                turns[path] = partial(train, Trainer(preset(name, batch), path=path), metrics, plan.updates)
            lengths = drawn_lengths(preset(name, batch).task, batch, plan.updates)
            for script in plan.scripts:
                if model_of(script.peer) == name:
                    check_script(script)
                    turns[script.peer.name] = partial(script.train, lengths, batch)
            times = medians(turns, plan.rounds, plan.seconds, time.process_time)
        for who, seconds in times.items():
            yield name, batch, who, plan.updates * batch / seconds, seconds / times["fused"]


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def train(trainer: Trainer, metrics: RunMetrics, updates: int) -> None:
    """Make updates as `training.run.train` does, of the lengths that `drawn_lengths` returns."""
    trainer.generator.manual_seed(SEED)
    for _ in range(updates):
        update = trainer.update()
        metrics.after_update(trainer.progress, update, validated=False)


def drawn_lengths(task: Task, batch: int, updates: int) -> list[int]:
    """Return the number of vectors of the sequences of each update; n of them take 2 n + 2 steps."""
    generator = torch.Generator().manual_seed(SEED)
    return [len(task.sample(generator, batch).mask) // 2 - 1 for _ in range(updates)]


def least_gain(rows: Sequence[Row]) -> str:
    """Return a sentence on the least gain of the kernels over a public implementation. rows: of UPDATES."""
    others = [row for row in rows if row[2] not in PATHS]
    if not others:
        return "Beside no public implementation: --peers DIR says where they are."
    model, batch, who, _, gain = min(others, key=lambda row: row[4])
    return f"The least gain: {gain:.1f} times as many sequences as {who}, {model} at batch {batch}."


# Checks


def check_trainers(name: str, batch: int) -> None:
    """Raise WrongOutputs unless the first updates by the kernels and by torch have the same losses."""
    found, expected = (
        [trainer.update().loss for _ in range(CHECKED_UPDATES)]
        for trainer in (Trainer(preset(name, batch), path=path) for path in PATHS)
    )
    check_close(f"{name} at batch {batch}: losses", np.array(found), np.array(expected), TOLERANCE)


def check_script(script: Script) -> None:
    """Check that a public implementation learns, and that our model with its weights has the same loss.

    Raises WrongOutputs.
    """
    losses = []
    for _ in range(LEARNING_UPDATES):
        seed_all(SEED)  # the same episode again
        losses += script.train([CHECKED_LENGTH], CHECKED_BATCH)
    if not losses[-1] < losses[0]:
        raise WrongOutputs(
            f"not timed, {script.peer.name}: expected the loss of one episode to fall in {LEARNING_UPDATES} updates, "
            f"got {losses[0]:.4g} at first and {losses[-1]:.4g} at last"
        )
    if script.twin is not None:
        inputs, targets, _ = copy_episode(CHECKED_LENGTH, CHECKED_BATCH)
        model = script.twin()
        with torch.no_grad():
            outputs, _, _ = unroll(model, inputs, model.initial_state(CHECKED_BATCH))
            ours = binary_cross_entropy_with_logits(outputs, targets)
            theirs = script.peer.loss(inputs, targets)
        check_close(f"{script.peer.name}: loss of our model with its weights", ours.numpy(), theirs.numpy(), TOLERANCE)


UPDATES = Table(
    "Sequences per second",
    f"Of processor time, by one thread, on copy of {LENGTHS[0]} to {LENGTHS[1]} vectors of 8 bits, as many as each "
    f"batch draws: data, loss, errors, gradients, clipping, optimiser and metrics. {ABOUT_MODELS} fused and torch are "
    "`engram train` by `--unroll`; the others are public implementations of the same sizes, each in its authors' loop.",
    ("model", "batch", "by", "sequences/s", "fused / this"),
    measure_updates,
)
