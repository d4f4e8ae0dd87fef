"""A connection to PostgreSQL that is made again when it was lost, and the errors of the database as StoreFailed.

Statements are written in the database's own way, with $1, $2, ... for their values. Each is prepared after a few uses.
"""

import functools
import os
import re
import select
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.types.numeric import Int8BinaryDumper

from app.errors import StoreFailed
from app.store_url import is_url, shown

P = ParamSpec("P")
T = TypeVar("T")

Row = tuple[Any, ...]

SECONDS_TO_CONNECT = 2
"""The shortest time that libpq takes: one attempt may wait so long for a database that is there again."""

CONNECTION: Mapping[str, int] = {
    "connect_timeout": SECONDS_TO_CONNECT,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""The parameters of a connection, unless the URL has others: a silent database is noticed within about 11 s."""

SETTINGS: Mapping[str, str] = {
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "10s",
    "jit": "off",
    # Every statement here finds its rows by an index. Without statistics, right after the tables were made, the
    # planner would read small tables as a whole, and go on doing so when they are large.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}

CONFIGURE = "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in SETTINGS.items())

BACKEND = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"

END_BACKEND = "SELECT pg_terminate_backend(pid, $3) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"

MILLISECONDS_TO_END = 5000

ENDED = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
"""The events of a socket whose other end was closed."""

TRIES = 4
"""How often a call is begun that the database undid because of another one."""

READ_ONLY = "25006"
DISK_FULL = "53100"

REMEDIES = {
    READ_ONLY: "the database is read-only: name its primary (of several hosts, with target_session_attrs=read-write)",
    "28000": "check the user, and which users the database lets in from here (pg_hba.conf)",
    "28P01": "check the user and the password: in the URL, in PGPASSWORD, or in a pgpass file",
    "3D000": "make the database (createdb), or name another",
    "3F000": "make the schema (CREATE SCHEMA), or name another in the URL (options=-csearch_path%3DNAME)",
    "42501": "give the user the right to it (GRANT), or name another user",
    "42P01": "a table is missing: engram store migrate makes it",
    DISK_FULL: "make room on the disk of the database",
    "53300": "let the database take more connections (max_connections), or run fewer servers",
    "55P03": "another server keeps the rows for long: look for it in pg_stat_activity",
    "57P01": "the database stops, or starts again",
    "57P02": "the database stops, or starts again",
    "57P03": "the database stops, or starts again",
}
"""The remedy, by the code of an error."""

REFUSALS = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "does not exist": "3D000",
    "too many clients": "53300",
    "connection slots are reserved": "53300",
    "too many connections": "53300",
    "is starting up": "57P03",
    "is shutting down": "57P03",
    "recovery mode": "57P03",
}
"""The code of an error by words in it: those of a connection that is refused come without one."""

UNDONE = {"40001", "40P01"}
"""Codes of a transaction that the database undid because of another one: the same again may succeed."""

NO_PARTITION = "23514"
"""The code where no partition takes a row; also of a CHECK that fails."""


def state(error: StoreFailed) -> str | None:
    """Return the code (SQLSTATE) that the database gave an error; None for one that is not the database's."""
    return getattr(error.__cause__, "sqlstate", None)


def parameters(url: str) -> dict[str, Any]:
    """Return what psycopg connects with. Raises StoreFailed, without the URL's password."""
    refusal = StoreFailed(
        f"{shown(url)}: no URL of a database: expected postgresql://USER@HOST:PORT/NAME, in which every @ : / ? # % of "
        "a password is written as %40 %3A %2F %3F %23 %25"
    )
    if not is_url(url):
        raise refusal
    try:
        found = conninfo_to_dict(url)
    except psycopg.Error:  # its text may have a part of the password
        raise refusal from None
    named = [str(found.get(name) or "") for name in ("host", "dbname")]
    if any("@" in name for name in named) or not re.fullmatch(r"[\d,]*", str(found.get("port") or "")):
        raise refusal
    return {**CONNECTION, **found, "client_encoding": "UTF8"}  # from one in SQL_ASCII, text would come as bytes


def retried(call: Callable[P, T]) -> Callable[P, T]:
    """Have a call begin again where the database undid it because of another one."""

    @functools.wraps(call)
    def again(*arguments: P.args, **named: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return call(*arguments, **named)
            except StoreFailed as error:
                if state(error) not in UNDONE:
                    raise
        return call(*arguments, **named)

    return again


class Database:
    """One connection, for one thread at a time; it is made at the first statement, and again where it was lost.

    A statement outside of a transaction is committed when it returns: one round trip. All methods raise StoreFailed;
    of a statement that was under way when the connection was lost, nobody knows whether it was carried out.
    """

    def __init__(self, url: str, application_name: str = "engram") -> None:
        """Keep the place of a database. Raises StoreFailed where the URL is none; the database is not asked yet.

        application_name: for people who look into pg_stat_activity.
        """
        self.name = shown(url)
        self._parameters = {"application_name": application_name, **parameters(url)}
        self._lock = threading.Lock()
        """Held to set `_socket`, and to use it on another thread."""
        self._socket: socket.socket | None = None
        self._connection: psycopg.Connection[Row] | None = None
        self._poll = select.poll()
        """Says whether the database has closed the connection, or this end was shut down."""
        self._begun = False
        """Whether a transaction is under way."""
        self._prepared: dict[str, bytes] = {}
        """The names of the statements that `run_binary` has prepared on this connection."""
        self._backend: tuple[int, datetime] | None = None
        """The process of the database that served the connection, and when it began."""
        self.connections = 0
        """How many connections were made so far."""

    def run(self, statement: str, *values: Any) -> int:
        """Carry out a statement; return how many rows it changed."""
        with self.errors():
            connection = self.connection
            if values:
                return connection.execute(statement, values).rowcount
            # psycopg would have the database forget all prepared statements after DROP, ALTER and ROLLBACK
            result = connection.pgconn.exec_(statement.encode())
            _check(connection, result)
            return result.command_tuples or 0

    def row(self, statement: str, *values: Any) -> Any:
        """Return the first row of a statement, None for none."""
        with self.errors():
            return self.connection.execute(statement, values, binary=True).fetchone()

    def rows(self, statement: str, *values: Any) -> list[Row]:
        """Return the rows of a statement."""
        with self.errors():
            return self.connection.execute(statement, values, binary=True).fetchall()

    def stream(self, statement: str, *values: Any) -> Iterator[Row]:
        """Yield the rows of a statement as they come; another statement has to wait for the last of them."""
        with self.errors(), self.connection.cursor(binary=True) as cursor:
            yield from cursor.stream(statement, values, binary=True)

    def copy(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows by a statement COPY ... FROM STDIN."""
        with self.errors(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def run_binary(self, statement: str, types: Sequence[int], values: Sequence[bytes]) -> PGresult:
        """Carry out a prepared statement, and return its result. types, values, result: as PostgreSQL has them.

        It is as fast as a statement can be: nothing is converted.
        """
        with self.errors():
            connection = self.connection
            server = connection.pgconn
            name = self._prepared.get(statement)
            if name is None:
                name = f"engram_{len(self._prepared)}".encode()
                _check(connection, server.prepare(name, statement.encode(), types))
                self._prepared[statement] = name
            result = server.exec_prepared(name, values, [1] * len(values), 1)
            _check(connection, result)
            return result

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block writes; where anything fails, leave all as it was."""
        self.run("BEGIN")
        self._begun = True
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._begun = False

    def interrupt(self) -> None:
        """Break the connection, from any thread: a call that waits for the database raises StoreFailed."""
        with self._lock, suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; a later statement makes another."""
        connection, self._connection = self._connection, None
        with self._lock:
            own, self._socket = self._socket, None
        if own is not None:
            own.close()
        if connection is not None:
            connection.close()

    @property
    def connection(self) -> "psycopg.Connection[Row]":
        """The connection, made if there is none, or if the last one was lost while nothing was asked of it."""
        connection = self._connection
        if self._begun and connection is None:
            raise StoreFailed(f"{self.name}: the connection was lost within a transaction, which was undone")
        if connection is None or (not self._begun and (connection.closed or self._poll.poll(0))):
            self.close()
            connection = self._connect()
        return connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise the errors of the database as StoreFailed."""
        try:
            yield
        except (psycopg.Error, OSError) as error:
            raise self.failure(error) from error

    def failure(self, error: Exception) -> StoreFailed:
        """Return StoreFailed for an error of psycopg, with what to do."""
        text = " ".join(str(error).split())
        code = getattr(error, "sqlstate", None) or next((REFUSALS[words] for words in REFUSALS if words in text), None)
        remedy = REMEDIES.get(code or "")
        detail = f"{self.name}: {text}{f'; {remedy}' if remedy else ''}"
        if self._connection is None:
            return StoreFailed(
                detail if remedy else f"{detail}; is the database there, and can it be reached from here?"
            )
        if self._connection.closed:
            self.close()
            return StoreFailed(f"{detail}; the connection was lost, and the request may or may not have been applied")
        return StoreFailed(detail)

    def _connect(self) -> "psycopg.Connection[Row]":
        connection: psycopg.Connection[Row] = psycopg.connect(
            **self._parameters, autocommit=True, cursor_factory=psycopg.RawCursor
        )
        try:
            self._hold_socket(connection.fileno())  # from here on, `interrupt` breaks it
            connection.adapters.register_dumper(int, Int8BinaryDumper)  # or every size of a number is a type of its own
            connection.execute(CONFIGURE)
            self._end_backend(connection)
        except BaseException:
            connection.close()
            self.close()
            raise
        self._connection = connection
        self._prepared = {}
        self.connections += 1
        return connection

    def _hold_socket(self, number: int) -> None:
        """Hold the socket of a connection by a descriptor of its own, until `close`."""
        own = socket.socket(fileno=os.dup(number))
        with self._lock:
            self._socket = own
        self._poll = select.poll()
        self._poll.register(own, ENDED)

    def _end_backend(self, connection: "psycopg.Connection[Row]") -> None:
        """End the process of the last connection: it may be at work, and what it does would be seen too late."""
        if self._backend is not None:
            ended = connection.execute(END_BACKEND, (*self._backend, MILLISECONDS_TO_END)).fetchone()
            if ended is not None and not ended[0]:
                raise StoreFailed(f"{self.name}: the last connection is still at work in the database; try again later")
        self._backend = connection.execute(BACKEND).fetchone()

    def _roll_back(self) -> None:
        """Undo the transaction under way, if its connection was not lost."""
        if self._connection is not None:
            with suppress(StoreFailed):
                self.run("ROLLBACK")


def _check(connection: "psycopg.Connection[Row]", result: PGresult) -> None:
    """Raise the error of a result, if it is one."""
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result, connection.info.encoding)
