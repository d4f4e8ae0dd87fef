"""The state of a database as people ask for it: servers, sessions, size."""

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
