"""The servers on which the situations of one model are played, and the courses that others are compared with."""

import tempfile
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from benchmarks.isolation.course import Course, Plan
from benchmarks.isolation.host import Host, Start, hosted
from benchmarks.server import running_server


@dataclass(frozen=True)
class Options:
    """The settings of a run.

    checkpoints: the directory of the models. backend: a name, or auto. sessions: how many are observed, and as many
    strangers; steps: of each. start: starts a server.
    """

    checkpoints: Path
    backend: str = "auto"
    sessions: int = 4
    steps: int = 12
    seed: int = 0
    start: Start = running_server


class Stage(AbstractContextManager["Stage"]):
    """A main server, and others when they are needed, all of one model alone.

    alone: the courses of the observed sessions by themselves; beside: those in batches with calm strangers. Both are
    empty until they are played.
    """

    def __init__(self, options: Options, model: str) -> None:
        self._options, self._model = options, model
        self._ends, self._main = ExitStack(), ExitStack()
        self.alone: list[Course] = []
        self.beside: list[Course] = []

    def __enter__(self) -> Self:
        """Start the main server. Raises NotStarted."""
        self._directory = Path(self._ends.enter_context(tempfile.TemporaryDirectory()))
        self._checkpoints = self._directory / "checkpoints"
        self._checkpoints.mkdir()
        (self._checkpoints / self._model).symlink_to((self._options.checkpoints / self._model).resolve())
        self._ends.push(self._main)
        try:
            self._start_main()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @cached_property
    def plan(self) -> Plan:
        return Plan(self._options.sessions, self._options.steps, self._options.seed, self.host.card)

    def kill(self) -> None:
        """Kill the main server, with SIGKILL, and start it again in the same data directory."""
        self.host.server.process.kill()
        self._main.close()
        self._start_main()

    @cached_property
    def tight(self) -> Host:
        """Another server of the same back end, with a slot for one session at a time."""
        return self._ends.enter_context(self._hosted("tight", self._options.backend, "--max-resident", "1"))

    def other(self, backend: str) -> AbstractContextManager[Host]:
        """Start a server of another back end. Raises NotStarted."""
        return self._hosted(backend, backend)

    def _start_main(self) -> None:
        self.host = self._main.enter_context(self._hosted("main", self._options.backend))

    def _hosted(self, name: str, backend: str, *flags: str) -> AbstractContextManager[Host]:
        data = self._directory / name
        return hosted(self._options.start, self._checkpoints, data, self._model, "--backend", backend, *flags)
