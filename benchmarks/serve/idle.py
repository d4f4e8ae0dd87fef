"""The cost of an idle WebSocket with a session of its own, and the opening of many at once."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import LoadRequest, running_load
from benchmarks.open_files import allow_connections
from benchmarks.serve.setting import Setting, heading
from benchmarks.server import running_server
from benchmarks.table import Row, Table, print_table

AT_ONCE = 64
"""Connections that are opened at a time, unless all are."""

ALL_AT_ONCE = 1000

SETTLED_SECONDS = 1.0
"""Seconds between the last greeting and the measurement of the server's memory."""


def run(checkpoints: Path, model: str, connections: int, data_root: Path | None, command: str) -> None:
    """Print the table of idle connections. Raises TooManyConnections, LoadFailed."""
    most = max(connections, ALL_AT_ONCE)
    allow_connections(most)
    with tempfile.TemporaryDirectory(dir=data_root or Path.cwd()) as directory:
        setting = Setting(checkpoints, model, most, Path(directory))
        print(*heading(command), sep="\n", flush=True)
        print_table("idle", IDLE, (setting, connections))


def _rows(plan: tuple[Setting, int]) -> Iterator[Row]:
    setting, connections = plan
    yield _row(setting, connections, AT_ONCE)
    yield _row(setting, ALL_AT_ONCE, ALL_AT_ONCE)


def _row(setting: Setting, connections: int, at_once: int) -> Row:
    data = setting.data / f"{connections} by {at_once}"
    requests = [LoadRequest(f"/stream?model={setting.model}", b"")] * connections
    with running_server(setting.checkpoints, data, *setting.own_flags) as server:
        with running_load("ws-text", server.port, requests[:1]) as load:
            load.connect()  # memory that the first WebSocket loads belongs to no connection
        memory, cpu = server.memory(), server.cpu_seconds
        with running_load("ws-text", server.port, requests) as load:
            opened = load.connect(at_once)
            cpu, each = server.cpu_seconds - cpu, max(1, opened.open)
            time.sleep(SETTLED_SECONDS)
            memory = server.memory() - memory
    return connections, at_once, opened.errors, opened.seconds, 1e6 * cpu / each, 1e3 * memory / each


IDLE: Table[tuple[Setting, int]] = Table(
    "Idle connections",
    "WebSockets that open a session each and then do nothing. Seconds until the last was greeted; microseconds of the "
    "server's processor time and kB of its memory for each.",
    ("connections", "at once", "errors", "seconds", "CPU", "kB"),
    _rows,
)
