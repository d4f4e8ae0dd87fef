"""The embedded store: a SQLite file of sessions and one of keys in the data directory."""

from app.stores.sqlite.keys import KEYS_FILE, SqliteKeyStore
from app.stores.sqlite.store import FILE, SqliteStore

__all__ = ["FILE", "KEYS_FILE", "SqliteKeyStore", "SqliteStore"]
