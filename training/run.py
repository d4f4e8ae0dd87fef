"""A training run as a person starts it: progress on the screen, saves now and then, and a clean stop."""

import contextlib
import signal
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from models.kernels.sequence import UnrollPath
from models.manifest import MANIFEST_FILE
from training.checkpoint import TRAINING_FILE, CheckpointError, resume, save_checkpoint
from training.config import Preset
from training.trainer import Trainer, Update

RECENT = 50
"""The progress bar shows means over so many updates."""


def train(
    preset: Preset,
    out: Path,
    command: str,
    *,
    device: str,
    resuming: bool,
    save_every: int,
    unroll: UnrollPath = "auto",
) -> Trainer:
    """Train until the target or the last update, or until SIGINT or SIGTERM, and leave a checkpoint in `out`.

    With `resuming`, go on from the checkpoint in `out`; without it, refuse to write over one. Raises CheckpointError.
    """
    trainer = _start(preset, out, device, resuming, unroll)
    if trainer.unroll.reason:
        tqdm.write(f"By torch: {trainer.unroll.reason}", file=sys.stderr)
    recent: deque[Update] = deque(maxlen=RECENT)
    with _stop_requests() as stops, _progress_bar(trainer) as bar:

        def after_update(update: Update) -> bool:
            recent.append(update)
            bar.update(preset.training.batch_size)
            if trainer.progress.update % 10 == 0:
                bar.set_postfix_str(_figures(trainer, recent), refresh=False)
            if trainer.progress.update % save_every == 0:
                save_checkpoint(out, trainer, command)
            return not stops

        trainer.run(after_update)
    save_checkpoint(out, trainer, command)
    return trainer


def _start(preset: Preset, out: Path, device: str, resuming: bool, unroll: UnrollPath) -> Trainer:
    if not resuming:
        if (out / TRAINING_FILE).exists():
            raise CheckpointError(f"{out} holds a training run: go on with it (--resume) or give another --out")
        if (out / MANIFEST_FILE).exists():
            raise CheckpointError(f"{out} holds a checkpoint: give another --out")
        trainer = Trainer(preset, device, unroll)
        out.mkdir(parents=True, exist_ok=True)
        return trainer
    trainer = resume(out, device, unroll)
    saved, given = trainer.preset.values(), preset.values()
    for table in ("task", "model", "training"):
        for key in {**saved[table], **given[table]}:
            if saved[table].get(key) != given[table].get(key):
                raise CheckpointError(
                    f"{out} was trained with {table}.{key} = {saved[table].get(key)!r}, "
                    f"but {given[table].get(key)!r} was asked for: a run resumes with its own settings"
                )
    return trainer


def _progress_bar(trainer: Trainer) -> tqdm:
    batch = trainer.preset.training.batch_size
    return tqdm(
        desc=f"{trainer.preset.name} ({trainer.unroll.path})",
        total=trainer.preset.training.updates * batch,
        initial=trainer.progress.sequences,
        unit="seq",
        dynamic_ncols=True,
    )


def _figures(trainer: Trainer, recent: deque[Update]) -> str:
    loss = sum(update.loss for update in recent) / len(recent)
    errors = sum(update.errors for update in recent) / len(recent)
    figures = f"loss {loss:.4f}, {errors:.2f} wrong bits/seq, validation {trainer.progress.validation_errors:.2f}"
    skipped = trainer.progress.skipped
    return f"{figures}, {skipped} updates skipped: gradient not finite" if skipped else figures


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM for as long as the context lasts, so that an update is never cut in two."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: received.append(number)) for number in signals]
    try:
        yield received
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
