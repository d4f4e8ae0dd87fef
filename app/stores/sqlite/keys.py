"""The keys of the embedded store: a SQLite file of their own, for that of the sessions belongs to one server alone."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.access.keys import Key
from app.errors import StoreFailed
from app.stores.keys import key_of, row_of
from app.stores.sqlite.rows import checksum

KEYS_FILE = "keys.sqlite"

KEYS_VERSION = 1

TABLE = """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        digest BLOB NOT NULL,
        tenant TEXT NOT NULL,
        scopes TEXT NOT NULL,
        name TEXT NOT NULL,
        created REAL NOT NULL,
        revoked REAL,
        max_sessions INTEGER,
        steps_per_second REAL,
        max_batch INTEGER,
        max_steps INTEGER,
        max_streams INTEGER,
        checksum INTEGER NOT NULL
    )
    """

COLUMNS = 13

Rows = list[tuple[Any, ...]]

BUSY_SECONDS = 5
"""Seconds that a call waits for another process, which locks the file for milliseconds."""


class SqliteKeyStore:
    """Keys in a file that its owner alone may read.

    Every call opens the file and closes it. So a server reads the file that lies there now, also after a copy of before
    was put in its place, and the command line writes to it meanwhile. It has no write-ahead log, which every call would
    make and delete again. The first key makes the file.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / KEYS_FILE
        self._listed: tuple[Rows, Sequence[Key]] = ([], ())
        """The rows that were read last, and their keys: as long as no row changes, none is checked again."""

    def add(self, key: Key) -> None:
        with self._errors():
            self._make_file()
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._make_table(connection)
            if self._find(connection, key.id) is not None:
                raise StoreFailed(f"{self.path}: there is a key {key.id} already")
            _write(connection, key)
            connection.execute("COMMIT")

    def list(self) -> Sequence[Key]:
        if not self._is_there():
            return ()
        with self._open() as connection:
            self._check_version(connection)
            rows = connection.execute("SELECT * FROM keys ORDER BY created, id").fetchall()
        listed = self._listed
        if rows != listed[0]:
            self._listed = listed = rows, tuple(map(self._key, rows))
        return listed[1]

    def revoke(self, key_id: str, now: float) -> bool:
        if not self._is_there():
            return False
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._check_version(connection)
            key = self._find(connection, key_id)
            if key is not None and key.revoked is None:
                _write(connection, replace(key, revoked=now))
            connection.execute("COMMIT")
            return key is not None

    def close(self) -> None:
        pass

    def _is_there(self) -> bool:
        """Return whether there is a file; a link that leads to none is one that cannot be read."""
        with self._errors():
            return self.path.exists() or self.path.is_symlink()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"{self.path}: {error}{_remedy(str(error))}") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file, which must be there; a transaction that the block does not commit is undone."""
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        with (
            self._errors(),
            closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)) as connection,
        ):
            yield connection

    def _make_file(self) -> None:
        """Make the file, empty, where there is none, with the rights that SQLite's other files take from it.

        One that root makes belongs to the owner of the directory, as whom a server runs.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            number = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except FileExistsError:
            return
        if os.geteuid() == 0:
            owner = self.path.parent.stat()
            os.fchown(number, owner.st_uid, owner.st_gid)
        os.close(number)

    def _make_table(self, connection: sqlite3.Connection) -> None:
        if _version(connection) == 0:
            connection.execute(TABLE)
            connection.execute(f"PRAGMA user_version = {KEYS_VERSION}")
        self._check_version(connection)

    def _check_version(self, connection: sqlite3.Connection) -> None:
        """Raise StoreFailed for a file of a later version, or without a table, as of one that was cut off."""
        found = _version(connection)
        if found == 0:
            raise StoreFailed(f"{self.path}: there is no table of keys in it: put back a copy, or create a key")
        if found != KEYS_VERSION:
            raise StoreFailed(f"{self.path}: schema {found} is newer than this version's, {KEYS_VERSION}")

    def _find(self, connection: sqlite3.Connection, key_id: str) -> Key | None:
        row = connection.execute("SELECT * FROM keys WHERE id = ?", (key_id,)).fetchone()
        return None if row is None else self._key(row)

    def _key(self, row: tuple[Any, ...]) -> Key:
        """Return the key of a row. Raises StoreFailed for one that is damaged."""
        *values, found = row
        try:
            if found != checksum(values):
                raise ValueError("its checksum does not fit")
            return key_of(*values)
        except (TypeError, ValueError) as error:
            raise StoreFailed(
                f"{self.path}: key {row[0]!r} is damaged: {error}: put back a copy of the file, or move it away and "
                "create all keys anew"
            ) from error


def _write(connection: sqlite3.Connection, key: Key) -> None:
    row = row_of(key)
    connection.execute(
        f"INSERT OR REPLACE INTO keys VALUES ({', '.join('?' * COLUMNS)})",  # noqa: S608
        (*row, checksum(row)),
    )


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _remedy(message: str) -> str:
    if "malformed" in message or "not a database" in message:
        return "; put back a copy of the file, or move it away and create all keys anew"
    return "; make room on the disk" if "full" in message else ""
