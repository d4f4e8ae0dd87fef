"""Train one preset with several seeds, in parallel processes."""

import enum
import multiprocessing
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from training import REPORTED
from training.files import TRAINING_FILE
from training.own import NO_FILES
from training.preset import Preset, preset_from_values
from training.run import stop_requests, train
from training.trainer import NotFinite


class End(enum.IntEnum):
    """How a run ended; the values are exit statuses of its process."""

    FINISHED = 0
    """The run reached its target or its last update."""
    FAILED = 1
    """The run cannot go on: the one in the directory has other settings, or the disk is full."""
    DIVERGED = 3
    """The run's numbers are not finite; the same command would end the same way."""
    INTERRUPTED = 130
    """The run was stopped, or killed, or never began; the same command goes on with it."""


def train_seeds(
    preset: Preset, seeds: Sequence[int], out: Path, command: str, jobs: int, **options: Any
) -> dict[int, End]:
    """Train with each of the seeds, `jobs` at a time, each into `out`/seed-N; return how each ended, in order.

    Seeds that have a run there go on with it; finished ones stay as they are. SIGINT and SIGTERM are passed
    on to the runs, which save and stop, as they also do once this process has ended. A run that fails or diverges
    prints the reason, and the others go on.
    options: `threads` of each run, `own`, the files of users' own tasks and models, and those of training.run.train.
    Raises ConfigError for an impossible seed.
    """
    context = multiprocessing.get_context("spawn")
    lock = context.RLock()
    waiting = {seed: preset.with_training(seed=seed) for seed in seeds}
    ends = dict.fromkeys(seeds, End.INTERRUPTED)
    running: dict[int, tuple[int, BaseProcess]] = {}  # by the line of their progress bar
    passed_on = False
    with stop_requests() as signals:
        while (waiting and not signals) or running:
            for line in sorted(set(range(jobs)) - set(running)):
                if waiting and not signals:
                    seed = next(iter(waiting))
                    arguments = (waiting.pop(seed).values(), seed_directory(out, seed), command, line, lock, options)
                    running[line] = seed, context.Process(target=_train_one, args=arguments, daemon=True)
                    running[line][1].start()
            wait([process.sentinel for _, process in running.values()], timeout=1)
            if signals and not passed_on:
                passed_on = True
                for _, process in running.values():
                    process.terminate()
            for line, (seed, process) in list(running.items()):
                if process.exitcode is not None:
                    del running[line]
                    ends[seed] = End(process.exitcode) if process.exitcode in tuple(End) else End.INTERRUPTED
    return ends


def seed_directories(out: Path) -> list[Path]:
    """Return the directories of the runs in `out`, in the order of their seeds."""
    found = [path for path in out.glob("seed-*") if path.name.removeprefix("seed-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("seed-")))


def seed_directory(out: Path, seed: int) -> Path:
    """Return the directory of the run with this seed in `out`."""
    return out / f"seed-{seed}"


def _train_one(
    values: dict[str, Any], out: Path, command: str, position: int, lock: Any, options: dict[str, Any]
) -> None:
    """Train the preset of these plain values; a user's own task or model is built after its file has run."""
    torch.set_num_threads(options.pop("threads", 1))
    options.pop("own", NO_FILES).load()
    preset = preset_from_values(values)
    tqdm.set_lock(lock)
    parent = multiprocessing.parent_process()
    assert parent is not None
    how = options | {"resuming": (out / TRAINING_FILE).exists(), "bar_position": position, "wanted": parent.is_alive}
    try:
        trainer = train(preset, out, command, **how)
    except REPORTED as error:
        tqdm.write(f"seed {preset.training.seed}: {error}", file=sys.stderr)
        sys.exit(End.DIVERGED if isinstance(error, NotFinite) else End.FAILED)
    except KeyboardInterrupt:  # a second request to stop
        sys.exit(End.INTERRUPTED)
    sys.exit(End.FINISHED if trainer.finished else End.INTERRUPTED)
