"""A PostgreSQL server of its own, on 127.0.0.1, with its data in a temporary directory; for tests and benchmarks."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGINT, SIGKILL
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from benchmarks.ports import free_port

SYSTEM_USER = "postgres"
"""The user of the system that runs the server where this process is root's, for whom PostgreSQL refuses to run."""

ROLE = "engram"
GUARDED = "guarded"
"""A role that needs a password; no other does."""

SECONDS = 30.0
"""Within which a server is ready, or has stopped."""

INSTALL = "apt-get install postgresql"


class PostgresMissing(RuntimeError):
    """PostgreSQL is not installed."""


class Postgres:
    """A PostgreSQL server that was started here; it can be killed, stopped, and started again on its port and data."""

    def __init__(self, directory: Path, settings: Sequence[str] = ()) -> None:
        """Make the files of a server; it is not started yet. directory: empty; settings: NAME=VALUE of postgresql.conf.

        Raises PostgresMissing.
        """
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self._settings = [word for setting in settings for word in ("-c", setting)]
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready = False
        """Whether clients may know its port."""
        if os.geteuid() == 0:
            shutil.chown(directory, SYSTEM_USER, SYSTEM_USER)
        self.make_data()

    def make_data(self) -> None:
        """Make the files of an empty database. Raises CalledProcessError."""
        initdb = (*("--pgdata", self.data), "--username", ROLE, "--auth", "trust", "--data-checksums", "--no-sync")
        self.tool("initdb", *map(str, initdb), "--encoding", "UTF8", "--locale", "C.UTF-8")
        hba = self.data / "pg_hba.conf"
        hba.write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")

    def start(self) -> None:
        """Start the server, and wait until it answers. Raises TimeoutError."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            self._process = self._begin()
            while self._process.poll() is None and time.monotonic() < until:
                if self.answers():
                    self._was_ready = True
                    return
                time.sleep(0.02)
            time.sleep(0.1)  # what a kill left is still there, or another program has taken the port
            if not self._was_ready:
                self.port = free_port()
        self.kill()
        raise TimeoutError(f"the database does not start: {self.log()[-2000:]}")

    def stop(self) -> None:
        """Stop the server in good order, though clients are connected."""
        self._end(SIGINT)

    def kill(self) -> None:
        """Kill all processes of the server at once."""
        self._end(SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the server."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def processes(self) -> list[int]:
        """Return the ids of the processes of the server: its first one, then those that it started."""
        if self._process is None:
            return []
        first = self._process.pid
        with suppress(FileNotFoundError, ProcessLookupError):
            return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
        return [first]

    def answers(self) -> bool:
        """Return whether the server takes connections, and not another one on its port."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2) as connection:
            found = connection.execute("SHOW data_directory").fetchone()
            return found is not None and Path(found[0]).resolve() == self.data.resolve()
        return False

    def url(self, schema: str | None = None, role: str = ROLE, database: str = "postgres") -> str:
        """Return the URL of a database of the server, and of a schema in it."""
        place = f"postgresql://{role}@127.0.0.1:{self.port}/{database}"
        return place if schema is None else f"{place}?options={quote(f'-csearch_path={schema}', safe='')}"

    def run(self, statement: str, *values: Any, schema: str | None = None) -> list[tuple[Any, ...]]:
        """Carry out a statement, with %s for its values, and return its rows."""
        with psycopg.connect(self.url(schema), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def schema(self, name: str) -> Iterator[str]:
        """Return the URL of a new schema, which is dropped after the block."""
        self.run(f"CREATE SCHEMA {sql.Identifier(name).as_string()}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP SCHEMA {sql.Identifier(name).as_string()} CASCADE")

    def log(self) -> str:
        """Return what the server has logged."""
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def tool(self, name: str, *words: str) -> None:
        """Run a program of PostgreSQL, as the user of the server. Raises CalledProcessError."""
        subprocess.run(
            [binaries() / name, *words], check=True, stdout=subprocess.DEVNULL, cwd=self.directory, **_as_user()
        )

    def _begin(self) -> "subprocess.Popen[bytes]":
        places = ("listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self.directory}")
        words = [word for place in places for word in ("-c", place)]
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                [binaries() / "postgres", "-D", self.data, *words, *self._settings],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **_as_user(),
            )

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        if number == SIGKILL:
            self.signal(number)
        else:
            self._process.send_signal(number)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.signal(SIGKILL)
            self._process.wait()
        self._process = None


def binaries() -> Path:
    """Return the directory of PostgreSQL's programs, of the newest one. Raises PostgresMissing."""
    named = shutil.which("initdb")
    places = [Path(named).resolve().parent] if named else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: -float(place.parent.name))
    if (config := shutil.which("pg_config")) is not None:
        places.append(Path(subprocess.run([config, "--bindir"], capture_output=True, text=True).stdout.strip()))
    for place in places:
        if all((place / name).exists() for name in ("initdb", "postgres")):
            return place
    raise PostgresMissing(f"PostgreSQL is not installed: {INSTALL}")


@contextmanager
def running_postgres(*settings: str, parent: Path | None = None) -> Iterator[Postgres]:
    """Run a server with its data in a temporary directory; it is stopped and deleted after the block.

    settings: NAME=VALUE of postgresql.conf; parent: the directory of the temporary one, by default the system's.
    Raises PostgresMissing, also where the user of the server cannot reach the parent.
    """
    if parent is not None and os.geteuid() == 0 and not _reachable(parent.resolve()):
        raise PostgresMissing(f"the user {SYSTEM_USER} cannot reach {parent}: name a directory that all users can")
    directory = Path(tempfile.mkdtemp(prefix="engram-postgres-", dir=parent))
    try:
        server = Postgres(directory, settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _reachable(directory: Path) -> bool:
    """Return whether every user can open files in a directory whose names they know."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in (directory, *directory.parents))


def _as_user() -> dict[str, Any]:
    """Return the options of subprocess by which a process is that of the user of the server."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(SYSTEM_USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
