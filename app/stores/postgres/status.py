"""The state of a database as people ask for it: servers, sessions, size."""

from typing import NamedTuple

from app.stores.postgres.database import Database, Row

TOTALS = """
    SELECT (SELECT coalesce(sum(sessions), 0)::int8 FROM counts),
        (SELECT count(*) FROM sessions WHERE ended IS NOT NULL)
    """

LEASES = "SELECT name, place, extract(epoch FROM renewed + lasts - now())::float8 FROM servers ORDER BY name, started"

SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::int8 FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
    """


FACTS = """
    SELECT current_setting('server_version_num')::int8, current_setting('fsync'),
        current_setting('synchronous_commit'), current_setting('full_page_writes'), current_setting('data_checksums'),
        current_setting('max_connections')::int8, (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL),
        pg_is_in_recovery(), extract(epoch FROM clock_timestamp())::float8
    """


class Facts(NamedTuple):
    """The settings of a database on which it depends what is kept. version: 150018 is PostgreSQL 15.18.

    connections: those that are open now. is_standby: it follows another one, and is read-only. time: Unix time in
    seconds, as its clock shows it. The others are named as in PostgreSQL.
    """

    version: int
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    data_checksums: str
    max_connections: int
    connections: int
    is_standby: bool
    time: float


def facts(database: Database) -> Facts:
    """Return the settings of a database. Raises StoreFailed."""
    return Facts._make(database.row(FACTS))


def totals(database: Database) -> tuple[int, int]:
    """Return the numbers of open and of ended sessions."""
    opened, ended = database.row(TOTALS)
    return opened, ended


def leases(database: Database) -> list[Row]:
    """Return the name and the place of each server, and the seconds that are left of its lease."""
    return database.rows(LEASES)


def size(database: Database) -> int:
    """Return the bytes of the tables."""
    (found,) = database.row(SIZE)
    return int(found)
