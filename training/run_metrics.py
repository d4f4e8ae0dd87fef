"""The metrics that a training run writes: `metrics.jsonl`, and on demand events for TensorBoard."""

import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from models.config import ConfigError
from training.files import CheckpointError, naming, write_atomically
from training.preset import RECENT
from training.trainer import Progress
from training.updates import Update

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIRECTORY = "tensorboard"


class RunMetrics:
    """Write a line every RECENT updates, and one for every validation.

    A line is a JSON object: {"update", "sequences", "stage", "loss", "errors", "gradient_norm", "rate", "skipped"},
    loss and errors as means over the last RECENT updates; or {"update", "sequences", "validation_errors"}; null for a
    number that is not finite. Lines after update `after`, which a killed run wrote after its last save, are dropped:
    the resumed run writes them again, so that the file is the same as without the interruption.
    Raises ConfigError, for tensorboard without its package, and CheckpointError as `read_metrics` does.
    """

    def __init__(self, directory: Path, after: int, tensorboard: bool) -> None:
        path = directory / METRICS_FILE
        kept = [line for line, record in _lines(path) if record["update"] <= after]
        self._events = _events(directory, after) if tensorboard else None
        write_atomically(path, b"".join(kept))
        self._path = path
        self._file = path.open("a")

    def __enter__(self) -> "RunMetrics":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with naming(self._path):
            self._file.close()
        if self._events:
            self._events.close()

    def after_update(self, progress: Progress, update: Update, validated: bool) -> None:
        """Write the lines that are due after an update."""
        where = {"update": progress.update, "sequences": progress.sequences}
        if progress.update % RECENT == 0:
            self._write(
                where
                | {
                    "stage": progress.stage,
                    "loss": _mean(progress.recent_losses, update.loss),
                    "errors": _mean(progress.recent_errors, update.errors),
                    "gradient_norm": update.gradient_norm,
                    "rate": update.rate,
                    "skipped": progress.skipped,
                }
            )
        if validated:
            self._write(where | {"validation_errors": progress.validation_errors})

    def sync(self) -> None:
        """Flush to the disk, so that metrics survive whatever a checkpoint survives."""
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def _write(self, record: Mapping[str, Any]) -> None:
        known = {name: value if math.isfinite(value) else None for name, value in record.items()}
        with naming(self._path):
            self._file.write(json.dumps(known) + "\n")
            self._file.flush()
        if self._events:
            for name, value in record.items():
                if name not in ("update", "sequences"):
                    self._events.add_scalar(name, value, record["update"])


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics, NaN for null; none if there is no file. Raises CheckpointError."""
    records = [record for _, record in _lines(directory / METRICS_FILE)]
    return [{name: math.nan if value is None else value for name, value in record.items()} for record in records]


def require_tensorboard() -> None:
    """Raise ConfigError if the package that writes events for TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "events for TensorBoard need the package tensorboard, which is not installed: "
            "in the checkout of Engram, pip install -c constraints.txt -e '.[tensorboard]', or leave --tensorboard out"
        )


def _lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the whole lines of a file, each with its record; a line that a crash cut off is left out."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [(line, _record(path, number, line)) for number, line in enumerate(lines, 1) if line.endswith(b"\n")]


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("update"), int):
        raise CheckpointError(
            f"{path}, line {number}: expected a JSON object with the number of its update, got {line[:80]!r}; "
            "delete the line to do without it"
        )
    return record


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _events(directory: Path, after: int) -> Any:
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory / TENSORBOARD_DIRECTORY), purge_step=after + 1)
