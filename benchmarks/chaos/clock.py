"""The wall clock of a server, set apart from that of the machine."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class WallClock:
    """The wall clock of a server that is started with `environment`.

    directory: for its setting; library: as `build` compiles it of clock.c.
    """

    def __init__(self, directory: Path, library: Path) -> None:
        directory.mkdir()
        self._offset = directory / "offset"
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "FAULTS": str(directory)}

    def set(self, seconds: int) -> None:
        """Put the clock ahead of that of the machine."""
        unfinished = self._offset.with_suffix(".unfinished")
        unfinished.write_text(str(seconds))
        unfinished.replace(self._offset)


def build(path: Path, *sources: Path) -> Path:
    """Compile sources of C to a library at `path`, and return it. Needs the package ziglang."""
    command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", str(path), *map(str, sources)], check=True)
    return path
