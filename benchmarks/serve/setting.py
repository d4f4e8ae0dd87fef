"""The setting of a run: the first lines of every report, and the limits of this system."""

import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from benchmarks.machine import load_average, machine, versions
from kernels.library import library

SPARE_CONNECTIONS = 100
"""Connections of a server beside those of the sessions."""


@dataclass(frozen=True)
class Setting:
    """The model that servers serve, and the number of sessions.

    data: the servers' data directory. triton: the directory of the package with Triton, to measure it. packages: that
    of LitServe and Ray Serve, if not beside Engram's packages. before: another checkout of Engram, to measure it too.
    """

    checkpoints: Path
    model: str
    sessions: int
    data: Path
    triton: Path | None = None
    packages: Path | None = None
    before: Path | None = None

    @property
    def checkpoint(self) -> Path:
        return self.checkpoints / self.model

    @property
    def flags(self) -> tuple[str, ...]:
        """Return Engram's options: all sessions may be stepped in one batch, none is refused, and none is evicted."""
        batch, queue, resident = (str(max(least, self.sessions)) for least in (1, 1024, 4096))
        return "--max-batch", batch, "--max-queue", queue, "--max-resident", resident

    @property
    def own_flags(self) -> tuple[str, ...]:
        """Return `flags` with those that another checkout may not have: a connection for each session."""
        return *self.flags, "--max-connections", str(self.sessions + SPARE_CONNECTIONS)

    def has(self, package: str) -> bool:
        """Return whether a package can be imported by this Python, or with `packages` before its own."""
        return PathFinder.find_spec(package, [*map(str, filter(None, [self.packages])), *sys.path]) is not None


def heading(command: str) -> list[str]:
    """Return the lines with the command of a run and the machine."""
    fastest = library()
    kernels = fastest.path.stem if fastest else "no fused kernels"
    return [
        f"`{command}` on {machine()}, {load_average()};",
        f"{versions('uvicorn', 'websockets', 'orjson', 'numpy')}; {kernels}.",
    ]
