"""Start and stop a real server in its own process."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import forks

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "checkpoints"
STARTUP_SECONDS = 60
PROGRAM = (sys.executable, "-m", "engram")


class Server:
    """`engram serve` on a free port of 127.0.0.1.

    It is a fork of a process that has imported Engram, which starts in a fifth of the time, unless it needs a new one:
    for variables that libraries read when they are loaded, or with root, the directory in which it runs, such as one
    that holds Engram's packages, with program, the words of `engram`, or if `fresh`.
    """

    def __init__(
        self,
        *arguments: str | Path,
        data: Path,
        checkpoints: Path = CHECKPOINTS,
        root: Path = ROOT,
        program: Sequence[str] = PROGRAM,
        fresh: bool = False,
        **environment: str,
    ) -> None:
        self._log = data.with_suffix(".log")
        self._words = ["serve", "--port", "0", "--checkpoints", str(checkpoints), "--data", str(data)]
        self._words += map(str, arguments)
        self._program, self._root = program, root
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENGRAM_")}
        self._environment = inherited | environment
        ours = all(name.startswith("ENGRAM_") for name in environment)
        self._forked = ours and (program, root) == (PROGRAM, ROOT) and not fresh
        self._start()

    def _start(self) -> None:
        with self._log.open("w") as log:
            if self._forked:
                self.process = forks.engram(self._words, self._log, self._environment, self._root)
            else:
                options = {"stdout": log, "stderr": log, "env": self._environment, "cwd": self._root}
                self.process = subprocess.Popen([*self._program, *self._words], **options)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_until_listening(self) -> "Server":
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline:
            found = re.search(r"look at (http://\S+) in a browser", self.log)
            if found:
                self.url = found[1]
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log}")

    def restart(self) -> None:
        """Start it again, after it has ended, on the port that it had."""
        self._words += ["--port", self.url.rpartition(":")[2]]
        self._start()
        self.wait_until_listening()

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=30)


@contextmanager
def running_server(*arguments: str | Path, data: Path, **options: object) -> Iterator[Server]:
    server = Server(*arguments, data=data, **options)  # type: ignore[arg-type]
    try:
        yield server.wait_until_listening()
    finally:
        server.stop()
