"""The keys in PostgreSQL, which all servers of the database share."""

import threading
from collections.abc import Sequence

from app.access.keys import Key
from app.errors import StoreFailed
from app.stores.keys import key_of, row_of
from app.stores.postgres.database import Database, Row, state
from app.stores.postgres.schema import prepare

SELECT = (
    "SELECT id, digest, tenant, scopes, name, created, revoked, max_sessions, steps_per_second, max_batch, max_steps, "
    "max_streams FROM keys ORDER BY created, id"
)

INSERT = "INSERT INTO keys VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING"

REVOKE = "UPDATE keys SET revoked = coalesce(revoked, $2) WHERE id = $1"

Rows = list[Row]

NO_TABLE = "42P01"
"""The code where a table is missing."""


class PostgresKeyStore:
    """Keys in a table. It has a connection of its own, so that it waits for no step; one thread at a time uses it.

    The first key makes the tables, where a server has not made them.
    """

    def __init__(self, url: str) -> None:
        """Keep the place of a database, which is not asked yet. Raises StoreFailed where the URL is none."""
        self._database = Database(url, "engram keys")
        self._lock = threading.Lock()
        self._listed: tuple[Rows, Sequence[Key]] = ([], ())
        """The rows that were read last, and their keys: as long as no row changes, the answer is the same object."""

    def add(self, key: Key) -> None:
        with self._lock:
            prepare(self._database)
            if not self._database.run(INSERT, *row_of(key)):
                raise StoreFailed(f"{self._database.name}: there is a key {key.id} already")

    def list(self) -> Sequence[Key]:
        with self._lock:
            rows = self._rows()
            if rows != self._listed[0]:
                self._listed = rows, tuple(self._key(row) for row in rows)
            return self._listed[1]

    def revoke(self, key_id: str, now: float) -> bool:
        with self._lock:
            try:
                return bool(self._database.run(REVOKE, key_id, float(now)))
            except StoreFailed as error:
                if state(error) != NO_TABLE:
                    raise
                return False

    def close(self) -> None:
        self._database.interrupt()  # a call that waits for the database holds the lock
        with self._lock:
            self._database.close()

    def _rows(self) -> Rows:
        try:
            return self._database.rows(SELECT)
        except StoreFailed as error:
            if state(error) != NO_TABLE:
                raise
            return []

    def _key(self, row: Row) -> Key:
        """Return the key of a row. Raises StoreFailed for values of no key."""
        try:
            return key_of(*row)
        except (TypeError, ValueError) as error:
            raise StoreFailed(
                f"{self._database.name}: key {row[0]!r} is damaged: {error}: delete its row, and create the key anew"
            ) from error
