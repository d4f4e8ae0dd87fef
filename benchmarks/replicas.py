"""Session-steps per second of several servers that share a PostgreSQL, and the processor time of every part.

    clients ---------------------------> server, SQLite
    clients ---------------------------> server --------.
    clients ---> HAProxy ---> 3 servers -----------------+---> PostgreSQL, a database for each

All run, and take turns of load over WebSocket, each session with one step in flight. Where all share a few cores,
the rates say little of machines of their own; the processor time of a step, part by part, says what each has to bring.
"""

import argparse
import http.client
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray

from benchmarks.chaos.haproxy import HAProxy
from benchmarks.load import LoadGenerator, LoadRequest, running_load
from benchmarks.machine import load_average, machine, versions
from benchmarks.postgres import Postgres, running_postgres
from benchmarks.server import PROTOCOL, Server, cpu_seconds, frame, random_inputs, running_server
from benchmarks.table import Row, Table, print_table
from benchmarks.timing import WrongOutputs
from models.manifest import read_manifest

SQLITE, ALONE, SEVERAL = "1, SQLite", "1, Postgres", "{}, Postgres, HAProxy"

WARMING_SECONDS = 0.5
"""Seconds of load before the first turn."""


DATABASES = "alone", "several"

LOG = """
    SELECT (SELECT count(*) FROM log), (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
        WHERE inhparent = 'log'::regclass)
    """


@dataclass(frozen=True)
class Arrangement:
    """Servers that are measured together. port: where clients connect; proxy, database: processes, where there are."""

    port: int
    servers: Sequence[Server]
    proxy: int | None = None
    database: int | None = None

    def processor_times(self) -> NDArray[np.float64]:
        """Return the processor seconds so far of the servers, the database and the proxy."""
        servers = sum(server.cpu_seconds for server in self.servers)
        return np.array([servers, *(cpu_seconds(pid) if pid else 0.0 for pid in (self.database, self.proxy))])


class Turn(NamedTuple):
    """The figures of one turn of load: session-steps per second, and processor microseconds per step."""

    rate: float
    servers: float
    database: float
    proxy: float
    clients: float


@dataclass(frozen=True)
class ReplicasPlan:
    """The settings of a measurement. arrangements: they run."""

    arrangements: Mapping[str, Arrangement]
    model: str
    message: bytes
    sessions: Sequence[int]
    rounds: int
    seconds: float


def run(checkpoints: Path, model: str, servers: int, sessions: Sequence[int], rounds: int, seconds: float) -> None:
    """Print the table of one model. Raises WrongOutputs if a server loses a step."""
    print(f"{model} on {machine()}, {load_average()}; {versions('uvicorn', 'psycopg')}.")
    print(f"Medians of {rounds} rounds of {seconds:g} s for each; all parts share the cores.", flush=True)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        flags = ("--max-batch", str(max(sessions)), "--max-queue", str(max(1024, *sessions)))
        arrangements = started(stack, postgres, checkpoints, Path(directory), servers, flags)
        message = frame(random_inputs(1, read_manifest(checkpoints / model).input_size, 0))
        print_table("replicas", REPLICAS, ReplicasPlan(arrangements, model, message, sessions, rounds, seconds))
        print(f"\n{written(postgres)}")


def written(postgres: Postgres) -> str:
    """Return how many bytes a step has written."""
    entries = bytes_of_log = 0
    for name in DATABASES:
        with psycopg.connect(postgres.url(database=name)) as connection:
            counted, size = connection.execute(LOG).fetchall()[0]
        entries, bytes_of_log = entries + counted, bytes_of_log + int(size)
    [(wal,)] = postgres.run("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8")
    return (
        f"A step takes {bytes_of_log / entries:.0f} bytes of log and index, and {wal / entries:.0f} bytes of the "
        f"write-ahead log with all else that was written ({entries} steps, each a request)."
    )


def started(
    stack: ExitStack, postgres: Postgres, checkpoints: Path, directory: Path, count: int, flags: Sequence[str]
) -> dict[str, Arrangement]:
    """Start all servers, until the stack ends."""

    def serve(name: str, *own: str) -> Server:
        return stack.enter_context(running_server(checkpoints, directory / name, *flags, *own))

    alone, several = (("--store", new_database(postgres, name)) for name in DATABASES)
    first, second = serve("sqlite"), serve("alone", *alone)
    servers = [serve(f"server-{number}", *several, "--server-name", f"server-{number}") for number in range(count)]
    proxy = stack.enter_context(HAProxy([f"http://{server.address}" for server in servers], directory))
    database = postgres.processes()[0]
    return {
        SQLITE: Arrangement(first.port, [first]),
        ALONE: Arrangement(second.port, [second], database=database),
        SEVERAL.format(count): Arrangement(proxy.port, servers, proxy.process.pid, database),
    }


def new_database(postgres: Postgres, name: str) -> str:
    """Make a database, and return its URL."""
    postgres.run(f"CREATE DATABASE {name}")
    return postgres.url(database=name)


def measure(plan: ReplicasPlan) -> Iterator[Row]:
    """Yield a row for each number of sessions and each arrangement."""
    for sessions in plan.sessions:
        turns = take_turns(plan, sessions)
        for name, own in turns.items():
            rate, *spent = (statistics.median(figures) for figures in zip(*own, strict=True))
            ratios = [ratio(own, turns[other]) for other in (SQLITE, ALONE)]
            share = spent[1] / sum(spent[:-1])  # the clients are elsewhere
            yield sessions, name, rate, *ratios, *spent, share


def ratio(own: Sequence[Turn], compared: Sequence[Turn]) -> float:
    """Return the median ratio of the rates of two arrangements in the same rounds."""
    return statistics.median(turn.rate / other.rate for turn, other in zip(own, compared, strict=True))


def take_turns(plan: ReplicasPlan, sessions: int) -> dict[str, list[Turn]]:
    """Load one arrangement after the other, round by round. Raises WrongOutputs."""
    turns: dict[str, list[Turn]] = {name: [] for name in plan.arrangements}
    with ExitStack() as stack:
        opened = {name: open_sessions(each.port, plan.model, sessions) for name, each in plan.arrangements.items()}
        loads = {
            name: stack.enter_context(connected(plan.arrangements[name].port, ids, plan.message))
            for name, ids in opened.items()
        }
        for load in loads.values():
            load.turn(WARMING_SECONDS)  # every session is at its server after that
        for _ in range(plan.rounds):
            for name, arrangement in plan.arrangements.items():
                turns[name].append(take_turn(arrangement, loads[name], plan.seconds))
        for name, load in loads.items():
            check_steps(name, plan.arrangements[name].port, opened[name], load.counts().answered)
    return turns


@contextmanager
def connected(port: int, sessions: Sequence[str], message: bytes) -> Iterator[LoadGenerator]:
    """Connect a WebSocket to each session. Raises WrongOutputs."""
    requests = [LoadRequest(f"/sessions/{session}/stream", message) for session in sessions]
    with running_load("ws-binary", port, requests, PROTOCOL) as load:
        opened = load.connect()
        if opened.errors:
            raise WrongOutputs(f"{opened.errors} of {len(sessions)} WebSockets could not be opened at port {port}")
        yield load


def take_turn(arrangement: Arrangement, load: LoadGenerator, seconds: float) -> Turn:
    """Load an arrangement for some seconds. Raises WrongOutputs."""
    before = arrangement.processor_times()
    turn = load.turn(seconds)
    if turn.errors or turn.unanswered:
        raise WrongOutputs(f"{turn.errors} errors, {turn.unanswered} frames without an answer")
    servers, database, proxy = (arrangement.processor_times() - before) * 1e6 / turn.answers
    return Turn(turn.rate, servers, database, proxy, turn.cpu_seconds * 1e6 / turn.answers)


def open_sessions(port: int, model: str, count: int) -> list[str]:
    """Open sessions, and return their ids."""
    body = json.dumps({"model": model})
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        return [str(ask(connection, "POST", "/sessions", body)["id"]) for _ in range(count)]


def check_steps(name: str, port: int, sessions: Sequence[str], answers: Sequence[int]) -> None:
    """Raise WrongOutputs unless the step of every session equals the number of its answers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        for session, answered in zip(sessions, answers, strict=True):
            step = ask(connection, "GET", f"/sessions/{session}")["step"]
            if step != answered:
                raise WrongOutputs(f"{name}: a session that gave {answered} answers of one step each is at step {step}")


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> dict[str, Any]:
    """Return the body of an answer. Raises WrongOutputs for a refusal."""
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status not in (200, 201):
        raise WrongOutputs(f"{method} {path} answered {answer.status}: {text[:300]!r}")
    document: dict[str, Any] = json.loads(text)
    return document


REPLICAS = Table(
    "Several servers",
    "Session-steps per second over WebSocket, and that beside one server on SQLite and one on Postgres. CPU: processor "
    "microseconds per step of all servers, of Postgres, of HAProxy and of the clients; and the share of Postgres in "
    "them, without the clients.",
    (
        *("sessions", "servers", "steps/s", "of SQLite", "of one on Postgres"),
        *("servers' CPU", "Postgres' CPU", "HAProxy's CPU", "clients' CPU", "Postgres' share"),
    ),
    measure,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replicas",
        description="Measure session-steps per second of several servers on a PostgreSQL of their own, behind HAProxy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="directory of the models")
    parser.add_argument("--model", default="dnc-copy", help="which of them")
    parser.add_argument("--servers", type=int, default=3, help="servers behind HAProxy")
    parser.add_argument("--sessions", type=int, nargs="+", default=[64, 256], help="concurrent sessions")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each, of which the median is taken")
    parser.add_argument("--seconds", type=float, default=3.0, help="time of a turn")
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
