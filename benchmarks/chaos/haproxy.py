"""HAProxy as a process, with the shipped configuration on free ports."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

from app.haproxy import configuration, find_haproxy
from benchmarks.chaos.record import Violation
from benchmarks.chaos.server import LOOK_SECONDS, STARTUP_SECONDS
from benchmarks.ports import free_port
from benchmarks.server import family


class HAProxy:
    """HAProxy in front of servers; it keeps its port when it is started again.

    servers: their URLs; directory: for its files. Raises SettingsError where it is not installed.
    """

    def __init__(self, servers: Sequence[str], directory: Path) -> None:
        self.port, statistics = free_port(), free_port()
        self.url, self.statistics = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{statistics}"
        self._file, self._log = directory / "haproxy.cfg", directory / "haproxy.log"
        self._file.write_text(configuration([urlsplit(url).netloc for url in servers]))
        binds = {"PROXY_BIND": f"127.0.0.1:{self.port}", "PROXY_STATS": f"127.0.0.1:{statistics}"}
        self._environment = {**os.environ, **binds}
        self._command = [find_haproxy(), "-W", "-db", "-f", str(self._file)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Start it, and wait until it answers. Raises Violation if it ends instead."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        end = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(httpx.TransportError):
                httpx.get(f"{self.url}/healthz", timeout=STARTUP_SECONDS)
                return
            time.sleep(LOOK_SECONDS)
        raise Violation(f"HAProxy did not start:\n{self.log}")

    def reload(self) -> None:
        """Have new workers take over the port; the old ones end with the connections that they have."""
        self.process.send_signal(signal.SIGUSR2)

    def kill(self) -> None:
        """Kill it with all of its workers, which breaks all connections."""
        for pid in list(family(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
