"""The cost of keeping every step: session-steps per second over WebSocket with each durability.

    none           |--|        |--|        |--|          a server each, all running; one at a time is loaded:
    interval          |--|        |--|        |--|       a turn of some seconds
    ack                  |--|        |--|        |--|
    ack, synced             |--|        |--|        |--|
    ack, Postgres              |--|        |--|        |--|
                   round 1     round 2     round 3       a ratio is that of two turns of one round

Other load on the machine therefore affects all alike.
"""

import asyncio
import http.client
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.machine import load_average, machine, versions
from benchmarks.server import (
    BACKENDS,
    Server,
    SessionSocket,
    check,
    cpu_seconds,
    frame,
    random_inputs,
    running_server,
    steps_per_second,
    streams,
)
from benchmarks.table import Row, Table, print_table
from benchmarks.timing import WrongOutputs
from models.manifest import read_manifest

DURABILITIES = {
    "none": ("--durability", "none"),
    "interval": ("--durability", "interval"),
    "ack": ("--durability", "ack"),
    "ack, synced": ("--durability", "ack", "--sync-interval", "0"),
}
"""The flags of each server whose store is SQLite; the first is what the others are compared with."""

SQLITE, POSTGRES = "ack", "ack, Postgres"
"""The server that Postgres is compared with, and that of Postgres, whose every commit is synced."""

SYNCS = 50
SYNCED_BYTES = 4096


@dataclass(frozen=True)
class DurabilityPlan:
    """The settings of a measurement. servers: the running servers; database: the process of PostgreSQL, if it runs."""

    servers: Mapping[str, Server]
    database: int | None
    model: str
    message: bytes
    sessions: Sequence[int]
    rounds: int
    seconds: float


class DurabilityTurn(NamedTuple):
    """The figures of one server in its turn of load."""

    rate: float
    """Session-steps per second."""
    cpu: float
    """Processor seconds of the server per 1,000 steps."""
    clients_cpu: float
    """Processor seconds of its clients per 1,000 steps."""
    database_cpu: float
    """Processor seconds of PostgreSQL per 1,000 steps."""


def run(
    checkpoints: Path,
    model: str,
    sessions: Sequence[int],
    rounds: int,
    seconds: float,
    data_root: Path | None,
    command: str,
) -> None:
    """Print the table of one model at each number of concurrent sessions.

    data_root: the parent of the servers' temporary data directories, by default the current directory. command: the
    command line of this run. Raises WrongOutputs if a server gives a wrong answer, or loses a step.
    """
    with tempfile.TemporaryDirectory(dir=data_root or Path.cwd()) as directory, ExitStack() as stack:
        root = Path(directory)
        print(f"`{command}` on {machine()}, {load_average()};")
        print(f"{versions('uvicorn', 'websockets')}; an fdatasync takes {1000 * sync_seconds(root):.2f} ms there.")
        print(f"Medians of {rounds} rounds of {seconds:g} s for each; servers and clients share the cores.", flush=True)
        flags = ("--max-batch", str(max(sessions)), "--max-queue", str(max(1024, *sessions)))
        url, database = stack.enter_context(running_database(root.parent))
        choices = DURABILITIES | ({POSTGRES: ("--durability", "ack", "--store", url)} if url else {})
        servers = {
            name: stack.enter_context(running_server(checkpoints, root / name, *flags, *chosen))
            for name, chosen in choices.items()
        }
        for server in servers.values():
            asyncio.run(check(server.address, model, BACKENDS["fused"](checkpoints / model, 1)))
        message = frame(random_inputs(1, read_manifest(checkpoints / model).input_size, 0))
        print_table(
            "durability", DURABILITY, DurabilityPlan(servers, database, model, message, sessions, rounds, seconds)
        )


@contextmanager
def running_database(parent: Path) -> Iterator[tuple[str, int | None]]:
    """Run PostgreSQL with its data in a directory, and yield its URL and process; print why if it cannot run."""
    with ExitStack() as stack:
        try:
            from benchmarks.postgres import PostgresMissing, running_postgres
        except ModuleNotFoundError as error:
            print(f"{POSTGRES}: left out, there is no {error.name}; install the extra postgres of Engram", flush=True)
            yield "", None
            return
        try:
            postgres = stack.enter_context(running_postgres(parent=parent))
        except PostgresMissing as error:
            print(f"{POSTGRES}: left out, {error}", flush=True)
            yield "", None
        else:
            yield postgres.url(), postgres.processes()[0]


def sync_seconds(directory: Path) -> float:
    """Return the median time of an fdatasync of one written page in a directory."""
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(SYNCS):
            file.write(bytes(SYNCED_BYTES))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(plan: DurabilityPlan) -> Iterator[Row]:
    for sessions in plan.sessions:
        turns = asyncio.run(take_turns(plan, sessions))
        for name, own in turns.items():
            ratios = [ratio(own, turns[other]) for other in (next(iter(turns)), SQLITE)]
            rate, *cpu = (statistics.median(figures) for figures in zip(*own, strict=True))
            yield sessions, name, rate, *ratios, *cpu


def ratio(own: Sequence[DurabilityTurn], compared: Sequence[DurabilityTurn]) -> float:
    """Return the median ratio of the rates of two servers in the same rounds."""
    return statistics.median(turn.rate / other.rate for turn, other in zip(own, compared, strict=True))


async def take_turns(plan: DurabilityPlan, sessions: int) -> dict[str, list[DurabilityTurn]]:
    """Load one server after the other, round by round. Raises WrongOutputs."""
    turns: dict[str, list[DurabilityTurn]] = {name: [] for name in plan.servers}
    async with AsyncExitStack() as stack:
        opened = {
            name: await stack.enter_async_context(streams(server.address, plan.model, sessions))
            for name, server in plan.servers.items()
        }
        for _ in range(plan.rounds):
            for name, server in plan.servers.items():
                turns[name].append(await take_turn(server, opened[name], plan))
        for name, server in plan.servers.items():
            check_answers(name, server, opened[name])
    return turns


async def take_turn(server: Server, opened: Sequence[SessionSocket], plan: DurabilityPlan) -> DurabilityTurn:
    answers, before = sum(stream.answers for stream in opened), processor_times(server, plan.database)
    rate = await steps_per_second(opened, plan.message, plan.seconds)
    thousands = (sum(stream.answers for stream in opened) - answers) / 1000
    spent = np.subtract(processor_times(server, plan.database), before) / thousands
    return DurabilityTurn(rate, *spent.tolist())


def processor_times(server: Server, database: int | None) -> tuple[float, float, float]:
    """Return the processor seconds so far of a server, of its clients in this process, and of PostgreSQL."""
    return server.cpu_seconds, time.process_time(), cpu_seconds(database) if database else 0.0


def check_answers(name: str, server: Server, opened: Sequence[SessionSocket]) -> None:
    """Raise WrongOutputs unless the step of every session equals the number of its answers."""
    with closing(http.client.HTTPConnection(server.address)) as connection:
        for stream in opened:
            step = reached(connection, stream.session)
            if step != stream.answers:
                raise WrongOutputs(
                    f"{name}: a session that gave {stream.answers} answers of one step each is at step {step}"
                )


def reached(connection: http.client.HTTPConnection, session: str) -> int:
    """Return the step of a session on a server."""
    connection.request("GET", f"/sessions/{session}")
    step: int = json.load(connection.getresponse())["step"]
    return step


DURABILITY = Table(
    "Durability",
    "Session-steps per second over WebSocket, and that beside `none`, which writes no step, and beside `ack`. "
    "`interval` writes them within 0.1 s, `ack` before they are answered, to SQLite or to Postgres. What is written "
    "survives a power cut within a second; where it says `synced` or `Postgres`, before the answer. CPU: seconds per "
    "1,000 steps; Postgres runs all the time.",
    ("sessions", "durability", "steps/s", "of none", "of ack", "server's CPU", "clients' CPU", "Postgres' CPU"),
    measure,
)
