"""HAProxy as a process, with the shipped rules of routing on free ports."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

from benchmarks.chaos.record import Violation
from benchmarks.chaos.server import LOOK_SECONDS, STARTUP_SECONDS, free_port
from benchmarks.server import family

PROGRAMS = "/usr/local/sbin", "/usr/sbin"
"""Directories beside those of PATH: users other than root have them in none."""

RULES = """\
global
    maxconn 8192
    hard-stop-after 2s

defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    option redispatch 1
    retries 3

frontend engram
    bind 127.0.0.1:{port}
    default_backend servers

backend servers
    balance hash path,field(3,/)
    hash-type consistent
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
"""


def find_haproxy() -> str | None:
    """Return the path of HAProxy, None where it is not installed."""
    return shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", ""), *PROGRAMS]))


class HAProxy:
    """HAProxy in front of servers, as a process of its own; it keeps its port when it is started again.

    servers: their URLs; directory: for its files.
    """

    def __init__(self, servers: Sequence[str], directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._program = find_haproxy()
        self._file, self._log = directory / "haproxy.cfg", directory / "haproxy.log"
        lines = [f"    server server-{n} {urlsplit(url).netloc}\n" for n, url in enumerate(servers, 1)]
        self._file.write_text(RULES.format(port=self.port) + "".join(lines))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Start it, and wait until it answers. Raises Violation if it does not."""
        assert self._program, "apt-get install haproxy"
        with self._log.open("a") as log:
            command = [self._program, "-W", "-db", "-f", str(self._file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                httpx.get(f"{self.url}/healthz")
            except httpx.TransportError:
                time.sleep(LOOK_SECONDS)
            else:
                return
        raise Violation(f"HAProxy did not start:\n{self.log}")

    def reload(self) -> None:
        """Have new processes take over the port; the old ones end with their connections, or some seconds later."""
        self.process.send_signal(signal.SIGUSR2)

    def kill(self) -> None:
        """Kill it and its workers, which breaks all connections."""
        for pid in list(family(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
