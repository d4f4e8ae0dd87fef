from collections.abc import Callable, Iterator

import pytest

from app.stores.base import KEEP_ALL, Retention
from app.stores.postgres import PostgresStore
from app.stores.postgres.database import Database
from benchmarks.postgres import Postgres

Connect = Callable[[str], Database]

SERVER = "INSERT INTO servers (id, name, place, lasts) VALUES (%s, %s, '', make_interval(secs => %s))"


class Servers:
    """Stores of servers that share a database, each with a lease."""

    def __init__(self, postgres: Postgres, url: str) -> None:
        self.postgres, self.url = postgres, url
        self.made: list[PostgresStore] = []

    def run(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Carry out a statement on another connection."""
        return self.postgres.run(statement, *values, schema=self.url.rpartition("%3D")[2])

    def store(self, owner: str, retention: Retention = KEEP_ALL, lasts: float = 3600.0) -> PostgresStore:
        """Return a store that claims as `owner`."""
        store = PostgresStore(self.url, retention, lambda: (owner,), f"server {owner}")
        self.made.append(store)
        self.run(SERVER, owner, f"server {owner}", lasts)
        return store


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make connections, which are closed after the test."""
    made: list[Database] = []

    def connect(url: str) -> Database:
        made.append(Database(url))
        return made[-1]

    yield connect
    for database in made:
        database.close()


@pytest.fixture
def servers(postgres: Postgres, database_url: str) -> Iterator[Servers]:
    servers = Servers(postgres, database_url)
    yield servers
    for store in servers.made:
        store.close()


@pytest.fixture
def own_servers(own_postgres: Postgres) -> Iterator[Servers]:
    """Servers whose database belongs to the test."""
    own_postgres.run("CREATE SCHEMA own")
    servers = Servers(own_postgres, own_postgres.url("own"))
    yield servers
    for store in servers.made:
        store.close()
