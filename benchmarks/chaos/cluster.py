"""Several servers that share a PostgreSQL, each with a link to it, and HAProxy before them."""

import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from benchmarks.chaos.clock import WallClock
from benchmarks.chaos.haproxy import HAProxy
from benchmarks.chaos.record import Violation
from benchmarks.chaos.server import Server
from benchmarks.chaos.silent import Link
from benchmarks.postgres import Postgres

LEASE_SECONDS = 2.0

DRAIN_SECONDS = 2.0
"""Seconds for which a server that is to stop serves on, so that HAProxy learns that it gets no new requests."""


class Replica(Server):
    """One of several servers.

    link: what is between it and the database; clock: its wall clock, if it can be set apart; logs: its output, of each
    life that is over.
    """

    def __init__(
        self, checkpoints: Path, data: Path, url: str, link: Link, clock: WallClock | None, *flags: str
    ) -> None:
        seconds = ("--lease", f"{LEASE_SECONDS:g}", "--drain-seconds", f"{DRAIN_SECONDS:g}")
        own = ("--store", url, "--server-name", data.name, *seconds)
        super().__init__(checkpoints, data, *own, *flags, environment=clock.environment if clock else None)
        self.name = data.name
        self.link = link
        self.clock = clock
        self.logs: list[str] = []

    def stop(self, number: int = signal.SIGTERM) -> int:
        status = super().stop(number)
        self.logs.append(self.log)
        return status


class Cluster:
    """Servers that share a database, and HAProxy in front of them, which run as long as the context lasts.

    postgres: runs already; directory: for the files of the servers; library: of benchmarks/chaos/clock.c, to set clocks
    apart; url: gives the URL of the database for the port of a link to it. Raises SettingsError without HAProxy.
    """

    def __init__(
        self,
        postgres: Postgres,
        checkpoints: Path,
        directory: Path,
        *flags: str,
        servers: int = 3,
        library: Path | None = None,
        url: Callable[[int], str] | None = None,
    ) -> None:
        self.postgres = postgres
        self._checkpoints, self._directory, self._flags = checkpoints, directory, flags
        self._count, self._library = servers, library
        self._url = url or (lambda port: postgres.url().replace(f":{postgres.port}/", f":{port}/"))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.servers = [self._replica(stack, number) for number in range(1, self._count + 1)]
            for server in self.servers:
                server.start()
                stack.callback(server.stop, signal.SIGKILL)
            self.wait_until_ready()
            self.proxy = stack.enter_context(HAProxy([server.url for server in self.servers], self._directory))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The URL of HAProxy."""
        return self.proxy.url

    def wait_until_ready(self) -> None:
        """Wait until every server is ready. Raises Violation."""
        for server in self.servers:
            server.wait_until_ready()

    def check_logs(self) -> None:
        """Check that no server has logged an error that it did not expect. Raises Violation."""
        for server in self.servers:
            for log in (*server.logs, server.log):
                if "Traceback" in log:
                    raise Violation(f"{server.name} logged:\n{log[-4000:]}")

    def _replica(self, stack: ExitStack, number: int) -> Replica:
        data = self._directory / f"server-{number}"
        link = stack.enter_context(Link(self.postgres.port))
        clock = WallClock(self._directory / f"clock-{number}", self._library) if self._library else None
        return Replica(self._checkpoints, data, self._url(link.port), link, clock, *self._flags)


def check_log_of_tapes(postgres: Postgres) -> int:
    """Check the log of every tape in the database; return how many entries it has. Raises Violation.

    Each entry begins where the one before ends, so that there is no gap, and no step of two owners; epochs only grow.
    """
    faults = postgres.run(
        "SELECT tape, step, steps, epoch, due, former FROM (SELECT tape, step, steps, epoch, "
        "lag(step + steps) OVER tapes AS due, lag(epoch) OVER tapes AS former FROM log "
        "WINDOW tapes AS (PARTITION BY tape ORDER BY step, epoch)) AS entries WHERE step <> due OR epoch < former"
    )
    if faults:
        raise Violation(f"{len(faults)} entries of the log do not follow the one before; {describe(faults[0])}")
    return int(postgres.run("SELECT count(*) FROM log")[0][0])


def describe(fault: Sequence[object]) -> str:
    names = ("tape", "step", "steps", "epoch", "step after the one before", "epoch of the one before")
    return ", ".join(f"{name} {value}" for name, value in zip(names, fault, strict=True))
