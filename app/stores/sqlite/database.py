"""The open database of the embedded store: transactions, the files beside SQLite, syncs, and errors."""

import ctypes
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from app.errors import StoreFailed
from app.stores.sqlite.files import OpenFile
from app.stores.sqlite.schema import SCHEMA_VERSION, migrate

logger = logging.getLogger(__name__)

WAL = 1
"""The index of the write-ahead log among the open files."""

FOREIGN = (sqlite3.Error, OSError)
"""Errors that are raised as StoreFailed."""

CHECKPOINT_PAGES = 2048
"""Pages of the write-ahead log after which SQLite moves them into the database: 8 MiB. All others wait meanwhile."""


class Participant(Protocol):
    """An object with changes in memory that belong to a transaction."""

    def committed(self) -> None:
        """Note in memory that the transaction was committed."""

    def rolled_back(self) -> None:
        """Put everything in memory back to where it was before the transaction."""


class Database:
    """One file for one server at a time; SQLite's write-ahead log makes every transaction whole or nothing.

    opens: the database is opened as a server opens it; else it must be there, and stays as it is.
    """

    def __init__(self, path: Path, opens: bool) -> None:
        """Open the file, and make its tables those of this version. Raises StoreFailed where it cannot be used."""
        self.path = path
        self.opens = opens
        self._files: tuple[OpenFile, ...] = ()
        self._synced = 0
        self._sync_failed = False
        with self.errors():
            self._prepare(path.parent)
            self.connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        with self.closed_on_error(), self.errors():
            self._configure()
            self._migrate()

    def watch_files(self) -> None:
        """Begin to check that the files are still those that are open. Raises StoreFailed."""
        with self.errors():
            self._files = _open_files(self.path)
            _sync_directory(self.path.parent)

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the database where the block raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def row(self, statement: str, *values: Any) -> Any:
        """Return the first row of a statement, None for none."""
        return self.connection.execute(statement, values).fetchone()

    def rows(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Return the rows of a statement, one by one."""
        return self.connection.execute(statement, values)

    def run(self, statement: str, *values: Any) -> None:
        """Carry out a statement."""
        self.connection.execute(statement, values)

    @contextmanager
    def transaction(self, participant: Participant) -> Iterator[None]:
        """Commit what the block writes; where anything fails, leave all as it was. Raises StoreFailed."""
        with self.errors():
            self.check_files()
            self.run("BEGIN IMMEDIATE")
            try:
                yield
                self.run("COMMIT")
                participant.committed()
            except BaseException:
                self.roll_back(participant)
                raise
            finally:
                self._leave_files()

    def roll_back(self, participant: Participant) -> None:
        """Undo the transaction under way, if SQLite has not done so."""
        participant.rolled_back()
        if self.connection.in_transaction:
            self.run("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read in the block, of files that nobody else has written into. Raises StoreFailed."""
        with self.errors():
            for file in self._files:
                file.check_content()
            yield

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise the errors of SQLite and of the system as StoreFailed."""
        try:
            yield
        except FOREIGN as error:
            raise StoreFailed(f"{self.path}: {error}{_remedy(str(error), self.opens)}") from error

    def check_files(self) -> None:
        """Raise StoreFailed unless the files that this store has open lie where they should, as it left them."""
        for file in self._files:
            file.check()

    def sync(self) -> None:
        """Make everything that was written survive a power cut. Raises StoreFailed."""
        self.check_files()
        if not self._files or self.connection.total_changes == self._synced:
            return
        try:
            if self._sync_failed:  # the system may have given up on those pages: write what is in them anew
                self._checkpoint()
            os.fdatasync(self._files[WAL].number)
            self._synced, self._sync_failed = self.connection.total_changes, False
        except OSError as error:
            self._sync_failed = True
            raise StoreFailed(f"{self.path}: what was written may not survive a power cut: {error}") from error

    @property
    def is_overwritten(self) -> bool:
        """Whether another program has written into the files."""
        return any(file.was_overwritten for file in self._files)

    @property
    def is_watched(self) -> bool:
        """Whether the database was opened whole, and not closed since."""
        return bool(self._files)

    def close(self) -> None:
        """Close the database; leave files into which another program has written as they are."""
        if self.is_overwritten:
            _never_close(self.connection)
            return
        self.connection.close()
        for file in self._files:
            file.close()
        self._files = ()

    def _prepare(self, directory: Path) -> None:
        """Make the data directory, or raise StoreFailed."""
        if not self.opens and not self.path.is_file():
            raise StoreFailed(f"{self.path}: no such file; a server with --data {directory} makes it")
        if not directory.is_dir():
            directory.mkdir(parents=True)
            _sync_directory(directory.absolute().parent)
        _check_writable(directory)

    def _configure(self) -> None:
        self.connection.text_factory = _as_text
        self.run("PRAGMA locking_mode = EXCLUSIVE")
        self.run("PRAGMA journal_mode = WAL")
        self.run("PRAGMA synchronous = NORMAL")  # what is more is for `sync` to do
        self.run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def _migrate(self) -> None:
        """Bring the tables up to date. Raises StoreFailed."""
        (version,) = self.row("PRAGMA user_version")
        if not 0 <= version <= SCHEMA_VERSION:
            raise StoreFailed(f"{self.path}: schema {version} is newer than this version's, {SCHEMA_VERSION}")
        if version == SCHEMA_VERSION:
            return
        if not self.opens:
            raise StoreFailed(
                f"{self.path}: schema {version} is an earlier version's: engram serve brings it up to date"
            )
        if version:
            logger.info("%s: bringing schema %d up to date, to %d", self.path, version, SCHEMA_VERSION)
        try:
            migrate(self.connection, version)
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
            raise StoreFailed(
                f"{self.path}: schema {version} cannot be brought up to date, and nothing in it was changed: "
                f"{error}; serve it with the version that wrote it, or take a copy of before"
            ) from error

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the database, and sync that."""
        with self.errors():
            busy, _, _ = self.row("PRAGMA wal_checkpoint(TRUNCATE)")
            self._leave_files()
            if busy:
                raise OSError("the write-ahead log could not be moved into the database")

    def _leave_files(self) -> None:
        """Remember the files as a commit left them. Raises StoreFailed where they no longer lie where they should."""
        are_there = [file.leave() for file in self._files]
        if not all(are_there):
            self.check_files()


def version_of(path: Path) -> int:
    """Return the version of a file's schema; 0 where there is no file, or no schema. Raises StoreFailed."""
    if not path.exists():
        return 0
    try:
        with _read_only(path) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            return int(version)
    except sqlite3.Error as error:
        raise StoreFailed(f"{path}: {error}{_remedy(str(error), serves=False)}") from error


def is_in_use(path: Path) -> bool:
    """Return whether a server has the file of sessions open."""
    try:
        with _read_only(path) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.Error:
        return False
    return False


def _read_only(path: Path) -> "closing[sqlite3.Connection]":
    return closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0))


def is_malformed(error: sqlite3.DatabaseError) -> bool:
    """Return whether SQLite found a file malformed: for that alone it raises DatabaseError itself, no subclass."""
    return type(error) is sqlite3.DatabaseError


def _open_files(path: Path) -> tuple[OpenFile, OpenFile]:
    """Return the database and its write-ahead log."""
    move = "move it back, or stop the server and start it with the data directory that it is to use"
    stop = f"stop the server, which then moves what it has into {path.name}, and start it again"
    return OpenFile(path, move, grows=False), OpenFile(path.with_name(f"{path.name}-wal"), stop, grows=True)


def _never_close(connection: sqlite3.Connection) -> None:
    """Keep a database open until the process ends: to close it, SQLite writes into its file and deletes its log."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _as_text(data: bytes) -> str:
    """Return text also of bytes that are none: one damaged row must not keep others from being read."""
    return data.decode(errors="surrogateescape")


def _remedy(message: str, serves: bool) -> str:
    if "locked" in message:
        return "; is another server using this data directory?"
    if "malformed" in message or "not a database" in message:
        return "; engram check says what is damaged" if serves else "; nothing in it can be read: take a copy of before"
    if "full" in message:
        return "; make room on the disk"
    return ""


def _check_writable(directory: Path) -> None:
    """Raise StoreFailed where files of a directory cannot be changed; SQLite would speak of an I/O error."""
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StoreFailed(f"{directory}: the data directory is read-only: make it writable, or choose another (--data)")


def _sync_directory(directory: Path) -> None:
    """Make the names of the files in a directory survive a power cut."""
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
