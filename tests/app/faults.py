"""Inject faults of the machine and of the back end into a server.

`python -m tests.app.faults serve ...` is `engram serve` with a back end that raises or hangs on demand.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.chaos import clock

SOURCE = Path(__file__).with_name("faults.c")

CURSED = 7.0
"""The back end raises if a row of inputs begins with this number."""

SECTOR = 512
"""Bytes of a sector, which a disk writes whole or not at all."""


class Faults:
    """Switches for the faults of a server that is started with `environment`; faults.c lists them."""

    def __init__(self, directory: Path, library: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.environment = {"LD_PRELOAD": str(library), "FAULTS": str(directory)}

    @property
    def synced(self) -> Path:
        """The directory with the database's files as of the last sync."""
        return self._directory / "synced"

    def begin(self, name: str, text: str = "") -> None:
        unfinished = self._directory / f".{name}"
        unfinished.write_text(text)
        unfinished.replace(self._directory / name)

    def end(self, name: str) -> None:
        (self._directory / name).unlink()

    def keep_synced(self) -> None:
        self.synced.mkdir()


def build_faults(path: Path) -> Path:
    """Compile faults.c and the clock of benchmarks/chaos to `path` and return it."""
    return clock.build(path, SOURCE, clock.SOURCE)


def cut_power(live: Path, synced: Path, left: Path, chance: Random | None = None) -> Path:
    """Write the files of `live` as a power cut might leave them to the directory `left`, and return it.

    chance: decides which of the sectors written since the last sync are there; None: none of them.
    """
    left.mkdir()
    for path in live.iterdir():
        kept = synced / path.name
        known = kept.read_bytes() if kept.exists() else b""
        content = known if chance is None else _mixed(known, path.read_bytes(), chance)
        if content:
            (left / path.name).write_bytes(content)
    return left


def _mixed(synced: bytes, written: bytes, chance: Random) -> bytes:
    """Return a mixture of the sectors of both; a sector that neither has is of zeros."""
    size = max(len(synced), len(written)) if chance.random() < 0.5 else len(synced)
    sectors = []
    for start in range(0, size, SECTOR):
        sector = chance.choice((synced, written))[start : start + SECTOR]
        sectors.append(sector.ljust(min(SECTOR, size - start), b"\0"))
    return b"".join(sectors)


def fail_on_demand(step: Any, directory: Path) -> Any:
    """Return a back end's `step` that hangs while there is a file `hang`, and raises for a cursed row.

    The back end must not be prompt: one that is prompt does not hang.
    """

    def failing(self: Any, slots: Sequence[int], inputs: Any, trace: Sequence[str] = ()) -> Any:
        while (directory / "hang").exists():
            time.sleep(0.01)
        if np.any(inputs[:, 0] == CURSED):
            raise RuntimeError("a cursed row")
        return step(self, slots, inputs, trace)

    return failing


if __name__ == "__main__":
    from app.backends.fused import FusedBackend
    from engram.main import main

    FusedBackend.step = fail_on_demand(FusedBackend.step, Path(os.environ["FAULTS"]))  # type: ignore[method-assign]
    FusedBackend.prompt = FusedBackend.multi_step = lambda _: None  # type: ignore[method-assign, assignment, return-value]
    sys.exit(main())
