"""The embedded store: one SQLite file in the data directory."""

from app.stores.sqlite.store import FILE, SqliteStore

__all__ = ["FILE", "SqliteStore"]
