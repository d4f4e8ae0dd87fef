"""Servers under which the machine, or the back end, seems to fail.

`python -m tests.app.faults serve ...` is `engram serve` with a back end that raises or hangs when a test says so.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

SOURCE = Path(__file__).with_name("faults.c")

CURSED = 7.0
"""A row of inputs that begins with this makes the back end raise."""

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""


class Faults:
    """What is to fail in a server that was started with `environment`; faults.c says what there is."""

    def __init__(self, directory: Path, library: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.environment = {"LD_PRELOAD": str(library), "FAULTS": str(directory)}

    @property
    def synced(self) -> Path:
        """The files of the database as they were when they were last synced."""
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
    """Compile faults.c to `path` and return it."""
    command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", str(path), str(SOURCE)], check=True)
    return path


def cut_power(live: Path, synced: Path, left: Path, chance: Random | None = None) -> Path:
    """Write what a power cut leaves of the files in `live` to the directory `left`, and return it.

    What was synced is there. Of what was written since, by chance, some sectors are there, and others not; or nothing.
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
    """Return sectors of one or the other; where neither has a sector, it is of zeros."""
    size = max(len(synced), len(written)) if chance.random() < 0.5 else len(synced)
    sectors = []
    for start in range(0, size, SECTOR):
        sector = chance.choice((synced, written))[start : start + SECTOR]
        sectors.append(sector.ljust(min(SECTOR, size - start), b"\0"))
    return b"".join(sectors)


def fail_as_told(step: Any, directory: Path) -> Any:
    """Return a back end's `step` that hangs while there is a file `hang`, and raises for a cursed row.

    The back end must not say that it is prompt: what is prompt does not hang.
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

    FusedBackend.step = fail_as_told(FusedBackend.step, Path(os.environ["FAULTS"]))  # type: ignore[method-assign]
    FusedBackend.prompt = lambda _: None  # type: ignore[method-assign, assignment, return-value]
    sys.exit(main())
