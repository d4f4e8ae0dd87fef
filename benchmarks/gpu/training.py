"""Updates on the device: sequences a second by captured graphs, compiled or not, and by torch, beside one CPU core."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.gpu.card import synchronize
from benchmarks.gpu.plan import GpuPlan
from benchmarks.kernels.training import ABOUT_MODELS
from benchmarks.table import Row, Table
from benchmarks.timing import WrongOutputs, check_close, medians
from benchmarks.training.plan import LENGTHS, preset
from benchmarks.training.updates import SEED
from kernels.unroll import UnrollPath
from training.trainer import Trainer

TRAINED = "NTM", "DNC R=1"

UPDATES, CHECKED_UPDATES = 10, 3

TOLERANCE = 1e-3
"""The largest difference of losses, relative to the largest: CPU and card add in other orders."""


def measure(plan: GpuPlan) -> Iterator[Row]:
    torch.set_num_threads(1)
    for name in TRAINED:
        if plan.is_over:
            yield name, plan.training_batch, *["-"] * 3, "the time was over"
            continue
        try:
            yield from _rows(plan, name)
        except torch.OutOfMemoryError:
            yield name, plan.training_batch, *["-"] * 3, "no memory left"
        except WrongOutputs:
            raise
        except RuntimeError as error:  # of a capture: what else was measured is not lost
            yield name, plan.training_batch, *["-"] * 3, f"failed: {error}".splitlines()[0]


def _rows(plan: GpuPlan, name: str) -> Iterator[Row]:
    """Check the losses of each path, time the updates in turns, and yield a row for each. Raises WrongOutputs."""
    batch = plan.training_batch
    here = Trainer(preset(name, batch))
    core = f"{here.unroll.path}, one core"
    trainers = {core: here}
    trainers |= {path: Trainer(preset(name, batch), plan.device, path) for path in paths_of(plan)}
    losses = {by: np.array([trainer.update().loss for _ in range(CHECKED_UPDATES)]) for by, trainer in trainers.items()}
    for by, found in losses.items():
        check_close(f"{name} at batch {batch}, {by}: losses", found, losses[core], TOLERANCE)
    turns: dict[str, Callable[[], object]] = {by: partial(train, each, plan.device) for by, each in trainers.items()}
    times = medians(turns, plan.rounds, plan.seconds)
    for by, seconds in times.items():
        yield name, batch, by, UPDATES * batch / seconds, times[core] / seconds, ""


def paths_of(plan: GpuPlan) -> list[UnrollPath]:
    """Return the paths that train a model on the device: captured graphs need a card."""
    if plan.device == "cpu":
        return ["torch"]
    return ["captured", "compiled", "torch"] if plan.is_compiled else ["captured", "torch"]


def train(trainer: Trainer, device: str) -> None:
    """Make updates of the same lengths every time."""
    trainer.generator.manual_seed(SEED)
    for _ in range(UPDATES):
        trainer.update()
    synchronize(device)


TRAINING = Table[GpuPlan](
    "Training",
    f"Sequences a second of `engram train`, copying {LENGTHS[0]} to {LENGTHS[1]} vectors of 8 bits. {ABOUT_MODELS} On "
    "one core of the CPU; on the device by `--unroll`: captured graphs, those of compiled steps, "
    "and torch step by step. The first losses of all agree.",
    ("model", "batch", "by", "sequences/s", "this / one core", "note"),
    measure,
)
