"""`engram serve` in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx

from benchmarks.chaos.record import Violation
from benchmarks.ports import free_port

STARTUP_SECONDS = 60.0

LOOK_SECONDS = 0.02
"""Seconds between two looks at a condition."""


class Server:
    """`engram serve` in a process of its own, on a port that stays the same when it is started again.

    module: the Python module to run instead of the command, with its flags; environment: more variables for it.
    """

    def __init__(
        self,
        checkpoints: Path,
        data: Path,
        *arguments: str,
        module: str = "engram",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.data = data
        self._log = data.with_suffix(".log")
        self._command = [sys.executable, "-m", module, "serve", "--port", self.url.rpartition(":")[2]]
        self._command += ["--checkpoints", str(checkpoints), "--data", str(data), "--backend", "fused", *arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENGRAM_")}
        self._environment = inherited | dict(environment or {})

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    @property
    def log(self) -> str:
        """The server's output since its last start."""
        return self._log.read_text()

    def start(self) -> None:
        with self._log.open("w") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def wait_until_ready(self) -> float:
        """Return the seconds until the server has taken a step. Raises Violation if it ends instead."""
        began = time.monotonic()
        while time.monotonic() - began < STARTUP_SECONDS and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            time.sleep(LOOK_SECONDS)
        raise Violation(f"the server did not start:\n{self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, if the server still runs, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=STARTUP_SECONDS)


def only(checkpoint: Path, directory: Path) -> Path:
    """Return a new directory of checkpoints with this one alone, of which a server starts fast."""
    checkpoints = directory / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / checkpoint.name).symlink_to(checkpoint.resolve())
    return checkpoints
