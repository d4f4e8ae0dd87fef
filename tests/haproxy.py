"""A real HAProxy for tests, with the configuration that ships, on free ports of 127.0.0.1."""

import csv
import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from app.haproxy import configuration, find_haproxy
from app.settings import SettingsError
from tests.app.harness import Server

SECONDS = 20


def program() -> str:
    """Return the path of HAProxy. Without it, skip the test; fail in continuous integration, which has it."""
    try:
        return find_haproxy()
    except SettingsError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


class Proxy:
    """HAProxy in front of servers; it keeps its ports when it is reloaded."""

    def __init__(self, servers: Sequence[Server], directory: Path, ports: tuple[int, int]) -> None:
        """directory: for its files; ports: of the service and of the statistics."""
        port, statistics = ports
        self.url, self.statistics = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{statistics}"
        self.socket_url = self.url.replace("http", "ws", 1)
        file = directory / "haproxy.cfg"
        file.write_text(configuration([server.url.removeprefix("http://") for server in servers]))
        binds = {"PROXY_BIND": f"127.0.0.1:{port}", "PROXY_STATS": f"127.0.0.1:{statistics}"}
        self._log = directory / "haproxy.log"
        with self._log.open("w") as log:
            command = [program(), "-W", "-db", "-f", str(file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | binds)

    @property
    def log(self) -> str:
        return self._log.read_text()

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
        self.process.send_signal(signal.SIGUSR2)
        end = time.monotonic() + SECONDS
        while self.log.count("Loading success") < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert self.log.count("Loading success") >= 2, self.log

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(SECONDS)


@contextmanager
def running_proxy(servers: Sequence[Server], directory: Path, ports: tuple[int, int]) -> Iterator[Proxy]:
    proxy = Proxy(servers, directory, ports)
    try:
        proxy.wait_for(lambda states: set(states.values()) == {"UP"})
        yield proxy
    finally:
        proxy.stop()
