"""A training run from the command line: progress on the screen, saves now and then, and a clean stop."""

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from kernels.unroll import UnrollPath
from models.config import ConfigError
from models.manifest import MANIFEST_FILE, read_manifest
from training.checkpoint import resume, save_checkpoint
from training.distributed import Processes, join
from training.files import TRAINING_FILE, CheckpointError
from training.initial import begin_from
from training.preset import Preset, TrainingConfig
from training.progress import progress_bar
from training.run_metrics import RunMetrics
from training.trainer import Trainer
from training.updates import Update

OPEN_ENDED = ("updates", "patience")
"""Settings of training that end a run: a finished run can be resumed with other ones."""

SAME_WISH_SECONDS = 3.0
"""A second stop signal within this time is the same one, sent by the terminal and by the parent process."""


def train(
    preset: Preset,
    out: Path,
    command: str,
    *,
    device: str,
    resuming: bool,
    save_every: int,
    unroll: UnrollPath = "auto",
    tensorboard: bool = False,
    bar_position: int = 0,
    wanted: Callable[[], bool] = lambda: True,
    init_from: Path | None = None,
    training_on: bool = False,
) -> Trainer:
    """Train until the target or the last update, or until SIGINT or SIGTERM, and leave a checkpoint in `out`.

    With `resuming`, go on from the checkpoint in `out`; without it, refuse to overwrite one. bar_position: the line of
    the progress bar among those of several runs. wanted: called after every update; False stops the run. init_from: the
    checkpoint whose weights a new run begins from. training_on: whether a finished run may be resumed with other
    `updates` and `patience` than it had.
    Processes that torchrun started train one model together, stop when one of them is asked to, and each return their
    trainer once the checkpoint is written. Raises CheckpointError, ConfigError, NotFinite, and ManifestError for
    init_from.
    """
    processes = join(device)
    if preset.training.batch_size < processes.size:
        raise ConfigError(
            f"training.batch_size is {preset.training.batch_size}, but there are {processes.size} processes, which "
            "need a sequence each: raise it, or give torchrun a lower --nproc-per-node"
        )
    if resuming:
        trainer = _resumed(preset, out, processes, unroll, init_from, training_on)
    else:
        trainer = _fresh(preset, out, processes, unroll, init_from)
    trainer.check_tasks()
    if processes.leads:
        out.mkdir(parents=True, exist_ok=True)
    with stop_requests() as stops:

        def go_on() -> bool:
            return not processes.any(bool(stops) or not wanted())

        if processes.leads:
            _lead(trainer, out, command, save_every, tensorboard, bar_position, go_on)
        else:
            trainer.run(lambda _: go_on())
        processes.meet()
    return trainer


def _lead(
    trainer: Trainer,
    out: Path,
    command: str,
    save_every: int,
    tensorboard: bool,
    bar_position: int,
    go_on: Callable[[], bool],
) -> None:
    """Train, show progress, record metrics, and save."""
    config = trainer.preset.training
    if trainer.unroll.reason:
        tqdm.write(f"Training by torch: {trainer.unroll.reason}", file=sys.stderr)
    with (
        RunMetrics(out, trainer.progress.update, tensorboard) as metrics,
        _progress_bar(trainer, bar_position) as bar,
    ):

        def save() -> None:
            trainer.check_weights()
            metrics.sync()
            save_checkpoint(out, trainer, command)

        def after_update(update: Update) -> bool:
            progress = trainer.progress
            metrics.after_update(progress, update, progress.update % config.validate_every == 0)
            bar.update(config.batch_size)
            if progress.update % 10 == 0:
                bar.set_postfix_str(_figures(trainer), refresh=False)
            if progress.update % save_every == 0:
                save()
            return go_on()

        trainer.run(after_update)
        save()


def _fresh(
    preset: Preset, out: Path, processes: Processes, unroll: UnrollPath, init_from: Path | None = None
) -> Trainer:
    """Return the trainer of a new run. Raises CheckpointError if `out` holds another run."""
    place = Path(os.path.realpath(out))  # with a missing directory before `..`, `out` itself would not be found
    if (place / TRAINING_FILE).exists():
        raise CheckpointError(f"{out} holds a training run: go on with it (--resume) or give another --out")
    if (place / MANIFEST_FILE).exists():
        raise CheckpointError(f"{out} holds a checkpoint: give another --out")
    trainer = Trainer(preset, processes.device, unroll, processes)
    if init_from is not None:
        begin_from(trainer, init_from)
    return trainer


def _resumed(
    preset: Preset,
    out: Path,
    processes: Processes,
    unroll: UnrollPath,
    init_from: Path | None = None,
    training_on: bool = False,
) -> Trainer:
    """Return the trainer of the run in `out`. Raises CheckpointError if its settings differ from the preset's."""
    trainer = resume(out, processes.device, unroll, processes, preset.task)
    if init_from is not None and read_manifest(init_from).weights_sha256 != trainer.progress.initial_weights:
        raise CheckpointError(
            f"{out} did not begin from the weights that {init_from} holds: leave --init-from out to go on with it"
        )
    if training_on and trainer.finished:
        _train_on(trainer, preset.training, out)
    saved, given = trainer.preset.values(), preset.values()
    for table in ("task", "model", "training", "optimizer"):
        for key in {**saved[table], **given[table]}:
            if saved[table].get(key) != given[table].get(key):
                raise CheckpointError(
                    f"{out} was trained with {table}.{key} = {saved[table].get(key)!r}, "
                    f"but {given[table].get(key)!r} was asked for: a run resumes with its own settings"
                    + ("; engram train --resume gives more to one that has finished" if key in OPEN_ENDED else "")
                )
    if saved["curriculum"] != given["curriculum"]:
        raise CheckpointError(f"{out} was trained with another curriculum: a run resumes with its own settings")
    update = trainer.progress.update
    if processes.sum(update) != [update * processes.size]:
        raise CheckpointError(
            f"{out}: process {processes.rank} found update {update} there, others another one: "
            "every machine needs the same checkpoint in --out"
        )
    return trainer


def _train_on(trainer: Trainer, given: TrainingConfig, out: Path) -> None:
    """Give a finished run the OPEN_ENDED settings of `given`. Raises CheckpointError if it would still be finished.

    The result is bit for bit a run with these settings from the start, unless the learning rates depend on `updates`.
    """
    saved, done = trainer.preset.training, trainer.progress.update
    if given.updates < done:
        raise CheckpointError(f"{out} has made {done} updates, but at most {given.updates} were asked for")
    trainer.preset = trainer.preset.with_training(**{name: getattr(given, name) for name in OPEN_ENDED})
    if trainer.reached_target and given.updates > saved.updates:
        raise CheckpointError(
            f"{out} ended at its target, not for want of updates: --set training.patience=0 trains on"
        )
    schedule = trainer.preset.optimizer.schedule
    if given.updates == saved.updates or trainer.finished or schedule == "constant":
        return
    trainer.progress.rescheduled = [*trainer.progress.rescheduled, done]
    if trainer.processes.leads:
        tqdm.write(
            f"The {schedule} schedule of the learning rate is now over {given.updates} updates. The first {done} had "
            f"one over {saved.updates}, so this is not the run that had {given.updates} from the start.",
            file=sys.stderr,
        )


def _progress_bar(trainer: Trainer, position: int) -> tqdm:
    config = trainer.preset.training
    return progress_bar(
        desc=f"{trainer.preset.name}, seed {config.seed} ({trainer.unroll.path})",
        total=config.updates * config.batch_size,
        initial=trainer.progress.sequences,
        unit="seq",
        dynamic_ncols=True,
        position=position,
    )


def _figures(trainer: Trainer) -> str:
    progress, count = trainer.progress, max(1, len(trainer.progress.recent_losses))
    figures = [
        f"loss {sum(progress.recent_losses) / count:.4f}",
        f"{sum(progress.recent_errors) / count:.2f} {trainer.preset.task.unit}/seq",
    ]
    if math.isfinite(progress.validation_errors):
        figures.append(f"validation {progress.validation_errors:.2f}")
    if trainer.preset.curriculum:
        figures.append(f"lesson {progress.stage + 1} of {len(trainer.preset.curriculum) + 1}")
    if progress.skipped:
        figures.append(f"{progress.skipped} updates skipped: not finite")
    return ", ".join(figures)


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM during the context, so that no update is interrupted.

    A signal more than SAME_WISH_SECONDS after the first has its usual effect.
    """
    received: list[int] = []
    at_once_from = math.inf

    def collect(number: int, _: FrameType | None) -> None:
        nonlocal at_once_from
        if time.monotonic() > at_once_from:
            restore()
            signal.raise_signal(number)
        if not received:
            at_once_from = time.monotonic() + SAME_WISH_SECONDS
        received.append(number)

    before = {number: signal.signal(number, collect) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield received
    finally:
        restore()
