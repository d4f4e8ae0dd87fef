"""The embedded store: one SQLite file in the data directory."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from app.errors import StoreFailed
from app.stores.base import EndReason

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    opened REAL NOT NULL,
    ended REAL,
    reason TEXT
) WITHOUT ROWID
"""

REMEMBERED_FOR = 30 * 86400
"""Seconds after which it is forgotten that a session ended."""


class SqliteStore:
    """Which sessions were opened, and how they ended. Sessions left open by a server that stopped are marked as lost.

    The file belongs to one server at a time.
    """

    def __init__(self, directory: Path) -> None:
        """Raises StoreFailed where the file cannot be used."""
        self._path = directory / "sessions.sqlite"
        with self._errors():
            directory.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, isolation_level=None, timeout=0)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._migrate()
            self._settle()

    def add(self, session: str, model: str) -> None:
        with self._errors():
            self._database.execute("INSERT INTO sessions VALUES (?, ?, ?, NULL, NULL)", (session, model, time.time()))

    def end(self, session: str, reason: EndReason) -> None:
        with self._errors():
            self._database.execute(
                "UPDATE sessions SET ended = ?, reason = ? WHERE id = ?", (time.time(), reason, session)
            )

    def end_reason(self, session: str) -> EndReason | None:
        with self._errors():
            row = self._database.execute("SELECT reason FROM sessions WHERE id = ?", (session,)).fetchone()
        return cast(EndReason, row[0]) if row else None

    def close(self) -> None:
        self._database.close()

    def _migrate(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreFailed(f"{self._path}: schema {version} is newer than this version's, {SCHEMA_VERSION}")
        if version == 0:
            self._database.executescript(f"BEGIN; {SCHEMA}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")

    def _settle(self) -> None:
        now = time.time()
        self._database.execute(
            "UPDATE sessions SET ended = ?, reason = 'lost in a restart' WHERE ended IS NULL", (now,)
        )
        self._database.execute("DELETE FROM sessions WHERE ended < ?", (now - REMEMBERED_FOR,))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            remedy = "; is another server using this data directory?" if "locked" in str(error) else ""
            raise StoreFailed(f"{self._path}: {error}{remedy}") from error
