"""HAProxy as a process, with the shipped configuration on free ports."""

import itertools
import os
import re
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

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"

INSTALL = "apt-get install haproxy"

PLACES = "/usr/local/sbin", "/usr/sbin"
"""Directories of programs that are in the PATH of root only."""


class HAProxyMissing(RuntimeError):
    """HAProxy is not installed."""


class HAProxy:
    """HAProxy in front of servers; it keeps its port when it is started again.

    servers: their URLs; directory: for its files. Raises HAProxyMissing.
    """

    def __init__(self, servers: Sequence[str], directory: Path) -> None:
        self.port, statistics = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._file, self._log = directory / "haproxy.cfg", directory / "haproxy.log"
        self._file.write_text(with_servers(CONFIGURATION.read_text(), [urlsplit(url).netloc for url in servers]))
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


def find_haproxy() -> str:
    """Return the path of HAProxy. Raises HAProxyMissing."""
    found = shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if found is None:
        raise HAProxyMissing(f"HAProxy is not installed: {INSTALL}")
    return found


def with_servers(configuration: str, addresses: Sequence[str]) -> str:
    """Return the shipped configuration with these servers, each HOST:PORT, in place of those that it lists."""

    def listed(block: re.Match[str]) -> str:
        first = re.sub(r" resolvers .*", "", block[1].splitlines()[0])
        return "".join(f"{_server(first, number, address)}\n" for number, address in zip(itertools.count(1), addresses))

    return re.sub(r"\.if defined\(SERVERS\)\n.*?\.else\n(.*?)\.endif\n", listed, configuration, flags=re.S)


def _server(line: str, number: int, address: str) -> str:
    """Return the line of a server, made of that of the first one."""
    numbered = line.replace("engram-1:8000", address).replace("engram-1", f"engram-{number}")
    return numbered.replace("id 1 ", f"id {number} ")
