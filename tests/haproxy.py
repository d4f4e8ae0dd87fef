"""A real HAProxy for tests, with the configuration that ships, on free ports of 127.0.0.1."""

import csv
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from app.haproxy import find_haproxy
from app.settings import SettingsError
from benchmarks.chaos.haproxy import HAProxy
from tests.app.harness import Server
from tests.waiting import until

SECONDS = 20


def program() -> str:
    """Return the path of HAProxy. Without it, skip the test; fail in continuous integration, which has it."""
    try:
        return find_haproxy()
    except SettingsError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


class Proxy(HAProxy):
    """HAProxy whose look at its servers tests can read; skips the test as `program` does."""

    def __init__(self, servers: Sequence[Server], directory: Path) -> None:
        program()
        super().__init__([server.url for server in servers], directory)
        self.socket_url = self.url.replace("http", "ws", 1)

    def states(self) -> dict[str, str]:
        """Return the states of the servers by their names, such as UP, DOWN or NOLB (it gets no new requests)."""
        text = httpx.get(f"{self.statistics}/;csv").text.removeprefix("# ")
        rows = [row for row in csv.DictReader(io.StringIO(text)) if row["pxname"] == "sessions"]
        return {row["svname"]: row["status"] for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")}

    def wait_for(self, holds: Callable[[dict[str, str]], bool]) -> None:
        """Wait until this holds of the states."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(httpx.TransportError):
                if holds(self.states()):
                    return
            time.sleep(0.02)
        raise AssertionError(f"HAProxy does not see what it should:\n{self.log}")

    def reload(self) -> None:
        """Start a new worker, and wait until the former one is told to finish."""
        super().reload()
        until(lambda: self.log.count("Loading success") >= 2, SECONDS)


@contextmanager
def running_proxy(servers: Sequence[Server], directory: Path) -> Iterator[Proxy]:
    with Proxy(servers, directory) as proxy:
        proxy.wait_for(lambda states: set(states.values()) == {"UP"})
        yield proxy
