"""engram serve --servers N: servers that share a database, as processes, and HAProxy in front of them.

    SIGTERM, SIGINT   to all servers, which hand over, and to HAProxy, which takes no new connections
    SIGHUP            to all servers, which load their checkpoints again
    a process ends    it is started again, unless the start of all has never been complete: then all end

All processes end with this one, however it ends.
"""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.access.hosts import is_local
from app.budget import budgets_of
from app.haproxy import configuration, find_haproxy
from app.loading import open_keyring
from app.logs import set_up_logging
from app.server import ANSWER_SECONDS, LOOPBACK, check_address
from app.settings import Settings, SettingsError, kind_of

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
"""The address of all servers: only HAProxy talks to them."""

EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104

RESTART_SECONDS = 1.0
"""Time until a process that ended is started again."""

LOOK_SECONDS = 0.05

LONGEST_LINE = 2**22
"""Bytes of a line of a log, at most."""

PR_SET_PDEATHSIG = 1
"""The option of Linux' prctl for the signal that a process gets when its parent ends."""


@dataclass
class Process:
    """A process that is kept running. name: before the lines of its log; port: of HOST, on which it listens."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int
    running: asyncio.subprocess.Process | None = field(default=None, init=False)

    def send(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.running is not None:
            with contextlib.suppress(ProcessLookupError):
                self.running.send_signal(number)


def serve_together(given: Mapping[str, Any], settings: Settings, count: int) -> int:
    """Serve by `count` servers until a stop signal comes, and return the exit status.

    given: the values of flags, by the names of settings. Raises SettingsError for what cannot be shared, and as `serve`
    does for an address that needs a key.
    """
    if kind_of(settings.store) != "postgres":
        raise SettingsError(
            f"setting store: --servers {count} needs a database that the servers share, such as --store "
            f"postgresql://USER@HOST/DATABASE, got {settings.store!r}"
        )
    haproxy = find_haproxy()
    set_up_logging(settings.log_level, settings.log_format)
    with contextlib.closing(open_keyring(settings)) as keyring:
        check_address(settings, keyring)
    ports = _ports(settings.port, count)
    servers = [_server(given, settings, number, port, count) for number, port in enumerate(ports[1:-1], 1)]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "haproxy.cfg")
        file.write_text(configuration([f"{HOST}:{server.port}" for server in servers]))
        addresses = _addresses(settings, ports[0], ports[-1])
        proxy = Process("haproxy", [haproxy, "-W", "-db", "-q", "-f", str(file)], os.environ | addresses, ports[-1])
        return asyncio.run(Fleet(servers, proxy, settings, ports[0]).run())


class Fleet:
    """The processes, which run until a stop signal comes."""

    def __init__(self, servers: Sequence[Process], proxy: Process, settings: Settings, port: int) -> None:
        """port: on which HAProxy serves."""
        self._servers, self._proxy, self._settings, self._port = servers, proxy, settings, port
        self._stopping = asyncio.Event()
        self._is_started = self._failed = False

    async def run(self) -> int:
        """Run until a stop signal comes, and return the exit status: 1 if a process ended before all had started."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._to_servers, signal.SIGHUP)
        kept = [asyncio.create_task(self._keep(server)) for server in self._servers]
        await self._wait_for(self._servers)
        proxied = asyncio.create_task(self._keep(self._proxy))
        await self._wait_for([self._proxy])
        if not self._stopping.is_set():
            self._is_started = True
            logger.info("%d servers at %s", len(self._servers), self._url())
        await self._stopping.wait()
        await self._end(kept, proxied)
        return 1 if self._failed else 0

    async def _keep(self, process: Process) -> None:
        """Run a process, and run it again when it ends, until all stop."""
        while not self._stopping.is_set():
            process.running = await asyncio.create_subprocess_exec(
                *process.command,
                env=process.environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=LONGEST_LINE,
                start_new_session=True,  # Ctrl-C in a terminal is for this process only
                preexec_fn=_end_with(os.getpid()),
            )
            if self._stopping.is_set():
                process.send(signal.SIGTERM)
            await self._pass_on(process)
            status = await process.running.wait()
            if not self._stopping.is_set():
                await self._note_end(process, status)

    async def _pass_on(self, process: Process) -> None:
        """Write the lines of a process to the error output until it ends."""
        assert process.running is not None
        assert process.running.stdout is not None
        async for line in process.running.stdout:
            sys.stderr.write(named(process.name, line.decode(errors="replace"), self._settings.log_format == "json"))
            sys.stderr.flush()

    async def _note_end(self, process: Process, status: int) -> None:
        """Wait before a process is started again; end all, if they have not all run."""
        if not self._is_started:
            logger.error("%s did not start (exit status %d)", process.name, status)
            self._failed = True
            self._stopping.set()
            return
        logger.error("%s ended (exit status %d); it is started again", process.name, status)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), RESTART_SECONDS)

    async def _wait_for(self, processes: Sequence[Process]) -> None:
        """Wait until all of these listen, or all stop."""
        for process in processes:
            while not (self._stopping.is_set() or await _listens(process.port)):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)

    def _stop(self) -> None:
        """Begin to stop; at a second signal, kill the servers."""
        if self._stopping.is_set():
            self._to_servers(signal.SIGKILL)
        self._stopping.set()

    def _to_servers(self, number: int) -> None:
        for server in self._servers:
            server.send(number)

    async def _end(self, kept: Sequence["asyncio.Task[None]"], proxied: "asyncio.Task[None]") -> None:
        """Stop the servers, kill those that do not stop in time, and stop HAProxy behind them."""
        self._proxy.send(signal.SIGUSR1)  # no new connections
        self._to_servers(signal.SIGTERM)
        settings = self._settings
        await asyncio.wait(kept, timeout=settings.drain_seconds + 2 * settings.shutdown_timeout + ANSWER_SECONDS)
        self._to_servers(signal.SIGKILL)
        self._proxy.send(signal.SIGTERM)
        await asyncio.gather(*kept, proxied)

    def _url(self) -> str:
        host = LOOPBACK.get(self._settings.host, self._settings.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"


def _server(given: Mapping[str, Any], settings: Settings, number: int, port: int, count: int) -> Process:
    """Return server `number` of `count`, with the settings of all but its name, its address and its part of memory."""
    name = f"{settings.server_name or socket.gethostname()}-{number}"
    own: dict[str, Any] = {"host": HOST, "port": port, "server_name": name, "hosts": _hosts(settings)}
    unset = [budget for _, budget in budgets_of(settings).items() if getattr(settings, budget.setting) is None]
    own |= {budget.setting: budget.limit // count for budget in unset}
    if settings.profile is not None:
        own["profile"] = settings.profile.with_stem(f"{settings.profile.stem}-{number}")
    flags = {name: value for name, value in given.items() if value is not None and name != "store"} | own
    command = [sys.executable, "-m", "engram", "serve", *(word for flag in flags.items() for word in _words(*flag))]
    store = settings.store if settings.store_password_file else settings.store_url
    return Process(name, command, os.environ | {"ENGRAM_STORE": store}, port)  # others could read it in the command


def _addresses(settings: Settings, port: int, statistics: int) -> dict[str, str]:
    """Return the variables of HAProxy's configuration."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "PROXY_BIND": f"{host}:{port}",
        "PROXY_STATS": f"{HOST}:{statistics}",
        "PROXY_PER_ADDRESS": str(settings.max_connections_per_address),
    }


def _hosts(settings: Settings) -> list[str]:
    """Return the names by which clients address the servers: also the address on which HAProxy listens for them."""
    is_named = is_local(settings.host) or settings.host in EVERY_ADDRESS
    return settings.hosts if is_named else [*settings.hosts, settings.host]


def _words(setting: str, value: Any) -> list[str]:
    """Return the words of a flag."""
    flag = setting.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}={one}" for one in (value if isinstance(value, list) else [value])]


def _ports(port: int, count: int) -> list[int]:
    """Return the port of HAProxy, those of the servers, and that of HAProxy's statistics: next to each other.

    Of port 0, free ones. Raises SettingsError for a port that is not free.
    """
    chosen = [port + number if port else 0 for number in range(count + 2)]
    with contextlib.ExitStack() as stack:
        try:
            listening = [stack.enter_context(socket.create_server((HOST, one))) for one in chosen]
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"setting port: {count} servers and HAProxy need the {count + 2} ports from {port} on, of which one is "
                f"not free ({error}): choose another"
            ) from error
        return [listener.getsockname()[1] for listener in listening]


def named(name: str, line: str, as_json: bool) -> str:
    """Return a line of a process's log with its name: before the line, or as the member `server` of an object."""
    if not as_json:
        return f"{name}: {line}"
    member = f'"server": {json.dumps(name)}, '
    if line.startswith("{"):
        return f"{{{member}{line[1:]}"
    return f'{{{member}"message": {json.dumps(line.rstrip())}}}\n'


async def _listens(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


def _end_with(parent: int) -> Any:
    """Return what a new process does first: have Linux send it SIGTERM when this process ends, also by a kill."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def end_with_parent() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it has ended before

    return end_with_parent
