"""The store that several servers share: a PostgreSQL database."""

from app.stores.postgres.database import Database
from app.stores.postgres.keys import PostgresKeyStore
from app.stores.postgres.lease import ServerLease
from app.stores.postgres.store import PostgresStore

__all__ = ["Database", "PostgresKeyStore", "PostgresStore", "ServerLease"]
