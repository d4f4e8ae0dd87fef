"""The program that torchrun starts several times in test_distributed: runs of all processes together, then a death.

torchrun --nproc-per-node 2 -m tests.training.together OUT
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from kernels.unroll import UnrollPath
from tests.training import tiny
from training.preset import Preset, preset_from_values
from training.run import train
from training.trainer import Trainer
from training.updates import Update

RMSPROP = {"kind": "rmsprop", "learning_rate": 3e-3, "clip_norm": 0.0}
"""An optimiser whose steps are proportional to small gradients; Adam's have a fixed size, even for mere rounding."""

BATCH = {"batch_size": 7, "validate_every": 20, "validation_sequences": 55}
"""Neither the batch nor the validations, 50 sequences and then 5, divide evenly among 3."""

LESSON = {"length": [1, 4], "until": 10.0}

RUNS: dict[str, tuple[Preset, UnrollPath]] = {
    "fused-mixed-lengths-lessons": (
        tiny.preset(
            "dnc", updates=60, mixed_lengths=True, task={"length": [1, 9]}, curriculum=[LESSON], **BATCH, **RMSPROP
        ),
        "fused",
    ),
    "torch": (tiny.preset("ntm", updates=20, **BATCH, **RMSPROP), "torch"),
}
"""Runs that must equal those of one process."""

DROPOUT = {"kind": "rnn", "controller": {"kind": "dropout", "cell": tiny.LSTM, "outputs": 0.2}}

DROPPING: tuple[Preset, UnrollPath] = (preset_from_values(tiny.values(**BATCH) | {"model": DROPOUT}), "auto")
"""A run with dropout: every process draws its own, and not as many numbers as the others."""

STOPPED_AFTER = 7


def run(out: Path, name: str, preset: Preset, path: UnrollPath, resuming: bool = False) -> Trainer:
    return train(preset, out / name, "together", device="cpu", resuming=resuming, save_every=5, unroll=path)


def last_process_before(number: int, action: Callable[[], None]) -> None:
    """Make the last process call a function before the update with this number, counted from 1."""
    update = Trainer.update

    def acting(trainer: Trainer) -> Update:
        if trainer.progress.update == number - 1 and trainer.processes.rank == trainer.processes.size - 1:
            action()
        return update(trainer)

    Trainer.update = acting  # type: ignore[method-assign]


def main(out: Path) -> None:
    torch.set_num_threads(1)
    for name, (preset, path) in RUNS.items():
        run(out, name, preset, path)
    run(out, "whole", *DROPPING)
    last_process_before(STOPPED_AFTER, lambda: signal.raise_signal(signal.SIGTERM))
    assert run(out, "stopped", *DROPPING).progress.update == STOPPED_AFTER
    assert run(out, "stopped", *DROPPING, resuming=True).finished
    last_process_before(STOPPED_AFTER, lambda: os.kill(os.getpid(), signal.SIGKILL))
    run(out, "dead", *DROPPING)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
