"""A million open sessions in a PostgreSQL, beside a thousand: the cost of opening, restoring, stepping and listing.

    server, a database of 1,000 sessions        open, step, step, list           open, step, ...
    server, a database of 1,000,000                                  open, step, step, list

The databases are filled with copies of a session that a server has opened, stepped and released, row by row as the
server wrote them, under other ids. The two take turns of some requests each, one at a time over one connection.
"""

import argparse
import base64
import hashlib
import http.client
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks.machine import load_average, machine, versions
from benchmarks.postgres import Postgres, running_postgres
from benchmarks.replicas import ask, new_database
from benchmarks.server import BACKENDS, TOLERANCE, random_inputs, running_server
from benchmarks.table import Row, Table, print_table
from benchmarks.timing import Array, check_close

STEPS = 3
"""Steps that the sessions have taken which are copied, each in a request of its own."""

TURN = 20
"""Requests of each kind to one server, before the next one has its turn."""

LISTED = 100
"""Sessions in a list."""

FIRST = 1000
"""The number of the tape of the first copy; those of the server's own sessions are smaller, or much larger."""

OPEN, FIRST_STEP, NEXT_STEP, LIST = KINDS = ("open", "first step", "next step", f"list of {LISTED}")

COPIED_ID = "translate(left(encode(sha256(n::text::bytea), 'base64'), 22), '+/', '-_')"
"""The id of the copy number n, as long as the server's."""

Seconds = Mapping[str, list[float]]
"""The seconds of requests by their kind."""


@dataclass(frozen=True)
class MillionPlan:
    """The settings of a measurement.

    servers: connections to them, by the number of copies in their databases. opening, step: bodies of requests.
    outputs: of the two steps after the copied ones, [2, output_size]. requests: of each kind to each server.
    """

    servers: Mapping[int, http.client.HTTPConnection]
    opening: str
    step: str
    outputs: Array
    requests: int


def run(checkpoints: Path, model: str, memory_size: int, sessions: Sequence[int], requests: int) -> None:
    """Print the table of one model. Raises WrongOutputs if a session gives a wrong answer."""
    print(f"{model} with {memory_size} memory locations on {machine()}, {load_average()}; {versions('psycopg')}.")
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres("max_wal_size=8GB"))
        opening = json.dumps({"model": model, "memory_size": memory_size})
        step, outputs = expected(checkpoints / model, memory_size)
        servers = {}
        for count in sessions:
            began = time.perf_counter()
            servers[count] = served(stack, postgres, checkpoints, (opening, step), count)
            print(
                f"{count:,} sessions: written in {time.perf_counter() - began:.0f} s, {size(postgres, count)}",
                flush=True,
            )
        print_table("million", MILLION, MillionPlan(servers, opening, step, outputs, requests))


def expected(checkpoint: Path, memory_size: int) -> tuple[str, Array]:
    """Return the body of a request for a step, and the outputs of the steps after the first STEPS of a session."""
    backend = BACKENDS["fused"](checkpoint, 1).resized(memory_size)
    slot, inputs = backend.open(), random_inputs(1, backend.spec.input_size, 0)
    outputs = [backend.step([slot], inputs)[0][0] for _ in range(STEPS + 2)]
    return json.dumps({"inputs": inputs.tolist()}), np.stack(outputs[STEPS:])


def served(
    stack: ExitStack, postgres: Postgres, checkpoints: Path, bodies: tuple[str, str], count: int
) -> http.client.HTTPConnection:
    """Fill a database with copies of a session, and return a connection to a server on it, until the stack ends."""
    data, url = Path(stack.enter_context(tempfile.TemporaryDirectory())), new_database(postgres, name_of(count))
    flags = ("--store", url, "--max-sessions", str(10 * count + 10_000))
    with running_server(checkpoints, data / "first", *flags) as server:
        session = original(connection_to(server.address), *bodies)
    with psycopg.connect(url, autocommit=True) as database:
        multiply(database, session, count)
    return connection_to(stack.enter_context(running_server(checkpoints, data / "second", *flags)).address)


def original(connection: http.client.HTTPConnection, opening: str, step: str) -> str:
    """Open a session, take some steps with it, and return its id."""
    session = str(ask(connection, "POST", "/sessions", opening)["id"])
    for _ in range(STEPS):
        ask(connection, "POST", f"/sessions/{session}/steps", step)
    return session


def multiply(database: "psycopg.Connection[tuple[Any, ...]]", session: str, count: int) -> None:
    """Copy all rows of a session, which was released, `count` times, and delete the session."""
    (tape,) = database.execute("SELECT tape FROM sessions WHERE id = %s", [session]).fetchone() or [0]
    number = f"n + {FIRST}"
    own = {"id": COPIED_ID, "creation_key": "NULL", "tape": number, "used": "used - n * 1e-3"}
    copy(database, "sessions", f"tape = {tape}", count, own)
    copy(database, "tapes", f"number = {tape}", count, dict.fromkeys(("number", "root", "jump"), number))
    for table in ("snapshots", "log"):
        copy(database, table, f"tape = {tape}", count, {"tape": number})
    first = "(SELECT min(ctid) FROM counts)"
    database.execute(f"UPDATE counts SET sessions = CASE WHEN ctid = {first} THEN {count} ELSE 0 END")  # noqa: S608
    for table, column in (("sessions", "tape"), ("tapes", "number"), ("snapshots", "tape"), ("log", "tape")):
        database.execute(f"DELETE FROM {table} WHERE {column} = {tape}")  # noqa: S608
    database.execute("SELECT setval('tape_numbers', %s)", [2 * FIRST + count])
    database.execute("VACUUM ANALYZE")
    database.execute("CHECKPOINT")


def copy(database: Any, table: str, where: str, count: int, changed: Mapping[str, str]) -> None:
    """Insert rows of a table again, `count` times, with expressions of the number `n` of the copy for some columns."""
    found = database.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = current_schema()",
        [table],
    )
    columns = [name for (name,) in found]
    values = [changed.get(name, name) for name in columns]
    rows = f"SELECT {', '.join(values)} FROM {table}, generate_series(1, {count}) AS n WHERE {where}"  # noqa: S608
    database.execute(f"INSERT INTO {table} ({', '.join(columns)}) {rows}")


def measure(plan: MillionPlan) -> Iterator[Row]:
    """Yield a row for each kind of request. Raises WrongOutputs."""
    seconds: dict[int, Seconds] = {count: defaultdict(list) for count in plan.servers}
    chosen = {count: np.random.default_rng(count).permutation(count)[: plan.requests] + 1 for count in plan.servers}
    for begin in range(0, plan.requests, TURN):
        for count, connection in plan.servers.items():
            take_turn(plan, connection, chosen[count][begin : begin + TURN].tolist(), seconds[count])
    for kind in KINDS:
        medians = [1000 * statistics.median(seconds[count][kind]) for count in plan.servers]
        yield kind, *medians, medians[-1] / medians[0]


def take_turn(
    plan: MillionPlan, connection: http.client.HTTPConnection, copies: Sequence[int], seconds: Seconds
) -> None:
    """Open sessions, take two steps with each of some copies, and list sessions. Raises WrongOutputs."""
    for kind, number in [(kind, number) for kind in KINDS for number in copies]:
        began = time.perf_counter()
        answer = request(plan, connection, kind, number)
        seconds[kind].append(time.perf_counter() - began)
        check(plan, kind, answer)


def request(plan: MillionPlan, connection: http.client.HTTPConnection, kind: str, number: int) -> Any:
    """Ask a server for something, of a copy where it is a step, and return its answer. Raises WrongOutputs."""
    if kind == OPEN:
        return ask(connection, "POST", "/sessions", plan.opening)
    if kind == LIST:
        return ask(connection, "GET", f"/sessions?limit={LISTED}")
    return ask(connection, "POST", f"/sessions/{copied_id(number)}/steps", plan.step)


def check(plan: MillionPlan, kind: str, answer: Any) -> None:
    """Check an answer. Raises WrongOutputs."""
    if kind == LIST:
        check_close(kind, np.array(len(answer)), np.array(LISTED), 0.0)
    elif kind != OPEN:
        step = KINDS.index(kind) - KINDS.index(FIRST_STEP)
        check_close(f"{kind}: step", np.array(answer["step"]), np.array(STEPS + step + 1), 0.0)
        check_close(f"{kind}: outputs", np.array(answer["outputs"][0]), plan.outputs[step], TOLERANCE)


def copied_id(number: int) -> str:
    """Return the id of a copy, as COPIED_ID computes it."""
    digest = hashlib.sha256(str(number).encode()).digest()
    return base64.urlsafe_b64encode(digest).decode()[:22]


def name_of(count: int) -> str:
    """Return the name of the database with this many copies."""
    return f"sessions_{count}"


def size(postgres: Postgres, count: int) -> str:
    """Return the size of a database, for people."""
    return str(postgres.run("SELECT pg_size_pretty(pg_database_size(%s))", name_of(count))[0][0])


def connection_to(address: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(address, timeout=60)


MILLION = Table(
    "Many open sessions",
    "Milliseconds from a request to its answer, the median, of one at a time: to open a session; a step of a session "
    "that the server does not have, which it claims and restores; the next step of the same one; and a list. With few "
    "and with many sessions in the database.",
    ("request", "few sessions", "many sessions", "many / few"),
    measure,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.million",
        description="Measure requests to servers with few and with many open sessions in a PostgreSQL of their own.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="directory of the models")
    parser.add_argument("--model", default="dnc-copy", help="which of them; it has a memory")
    parser.add_argument("--memory-size", type=int, default=4, help="memory locations of each session")
    parser.add_argument("--sessions", type=int, nargs=2, default=[1000, 1_000_000], help="few, and many")
    parser.add_argument("--requests", type=int, default=500, help="of each kind to each server")
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
