"""The same preset with several seeds, side by side in processes of their own."""

import multiprocessing
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from training.checkpoint import TRAINING_FILE
from training.config import Preset
from training.run import stop_requests, train
from training.trainer import NotFinite

FAILED, INTERRUPTED = 1, 130


def train_seeds(preset: Preset, seeds: Sequence[int], out: Path, command: str, jobs: int, **options: Any) -> list[int]:
    """Train with each of the seeds, `jobs` at a time, each into `out`/seed-N; return the seeds that came to no end.

    Seeds that have a run there go on with it; those that have finished stay as they are. SIGINT and SIGTERM are passed
    on to the runs, which save and stop, as they do once this process is gone. A run whose numbers are not finite says
    so, and the others go on.
    options: `threads` of each run, and those of training.run.train. Raises ConfigError, for a seed that cannot be.
    """
    context = multiprocessing.get_context("spawn")
    lock = context.RLock()
    waiting = {seed: preset.with_training(seed=seed) for seed in seeds}
    unfinished = []
    running: dict[int, tuple[int, BaseProcess]] = {}  # by the line of the progress bar
    passed_on = False
    with stop_requests() as signals:
        while (waiting and not signals) or running:
            for line in sorted(set(range(jobs)) - set(running)):
                if waiting and not signals:
                    seed = next(iter(waiting))
                    arguments = (waiting.pop(seed), out / f"seed-{seed}", command, line, lock, options)
                    running[line] = seed, context.Process(target=_train_one, args=arguments)
                    running[line][1].start()
            wait([process.sentinel for _, process in running.values()], timeout=1)
            if signals and not passed_on:
                passed_on = True
                for _, process in running.values():
                    process.terminate()
            for line, (seed, process) in list(running.items()):
                if process.exitcode is not None:
                    del running[line]
                    unfinished += [seed] if process.exitcode else []
    return sorted([*unfinished, *waiting])


def seed_directories(out: Path) -> list[Path]:
    """Return the directories of the runs in `out`, in the order of their seeds."""
    found = [path for path in out.glob("seed-*") if path.name.removeprefix("seed-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("seed-")))


def _train_one(preset: Preset, out: Path, command: str, position: int, lock: Any, options: dict[str, Any]) -> None:
    torch.set_num_threads(options.pop("threads", 1))
    tqdm.set_lock(lock)
    parent = multiprocessing.parent_process()
    assert parent is not None
    how = options | {"resuming": (out / TRAINING_FILE).exists(), "bar_position": position, "wanted": parent.is_alive}
    try:
        trainer = train(preset, out, command, **how)
    except (NotFinite, ValueError, OSError) as error:
        tqdm.write(f"seed {preset.training.seed}: {error}", file=sys.stderr)
        sys.exit(FAILED)
    sys.exit(0 if trainer.finished else INTERRUPTED)
