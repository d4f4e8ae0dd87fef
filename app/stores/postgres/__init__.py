"""The store that several servers share: a PostgreSQL database."""

from app.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
