"""A store that forgets everything with the process."""

from app.stores.base import KEEP_ALL, Retention
from app.stores.sqlite.store import SqliteStore


class MemoryStore(SqliteStore):
    """The tables of the embedded store, in memory."""

    def __init__(self, retention: Retention = KEEP_ALL) -> None:
        super().__init__(None, retention)
