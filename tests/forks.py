"""Processes that are forks of one that has imported Engram: most of the time of a start are its imports."""

import gc
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.main import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["app.server", "app.backends.fused", "app.backends.onnx", "app.backends.torch", __name__])


class Forked:
    """A process that runs a function, with what subprocess.Popen has for those who watch and end it."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        process = self._process = FORKS.Process(target=function, args=arguments)
        process.start()
        self.pid, self.kill, self.terminate = process.pid, process.kill, process.terminate

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def engram(words: Sequence[str], log: Path, environment: Mapping[str, str], directory: Path) -> Forked:
    """Run a command of `engram`; log: where its output goes."""
    return Forked(_run, list(words), str(log), dict(environment), str(directory))


def _run(words: Sequence[str], log: str, environment: Mapping[str, str], directory: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    write_to(log)
    sys.argv = ["engram", *words]
    sys.exit(main(words))


def write_to(log: str) -> None:
    """Begin as a new process would: with its output in a file, and little for its collector to look through."""
    gc.freeze()
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
