"""The tables of the store in PostgreSQL, and how those of earlier versions become these."""

from collections.abc import Callable

from app.errors import StoreFailed
from app.stores.postgres.database import Database

OLDEST_SERVER = 140000
"""The oldest PostgreSQL that this store can use: 14.0, as the server says it."""

LOCKS = 7_120_693
"""The first number of the advisory locks of this store; the second says for what. Those of tapes have one number."""
LOCK_OF_SCHEMA = 1
LOCK_OF_UPKEEP = 2

SERVERS = """
    CREATE TABLE servers (
        id text COLLATE "C" PRIMARY KEY,
        name text NOT NULL,
        place text NOT NULL,
        lasts interval NOT NULL,
        renewed timestamptz NOT NULL DEFAULT now(),
        started timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 50)
    """
"""The servers that live. Deleting a server's row is what fences it: see `append`."""

SESSIONS = (
    """
    CREATE TABLE sessions (
        id text COLLATE "C" PRIMARY KEY,
        tenant text COLLATE "C" NOT NULL,
        model text COLLATE "C" NOT NULL,
        fingerprint text COLLATE "C" NOT NULL,
        memory_size int8,
        opened float8 NOT NULL,
        used float8 NOT NULL,
        ended float8,
        reason text,
        creation_key text COLLATE "C" UNIQUE,
        creation_digest bytea,
        tape int8 UNIQUE,
        volatile boolean NOT NULL DEFAULT false
    )
    """,
    "CREATE INDEX sessions_by_use ON sessions (used) WHERE ended IS NULL",
    "CREATE INDEX sessions_by_tenant ON sessions (tenant, used) WHERE ended IS NULL",
    "CREATE INDEX sessions_by_model ON sessions (tenant, model, used) WHERE ended IS NULL",
    "CREATE INDEX sessions_by_version ON sessions (model, fingerprint) WHERE ended IS NULL",
    "CREATE INDEX sessions_by_end ON sessions (ended) WHERE ended IS NOT NULL",
)

TAPES = (
    "CREATE SEQUENCE tape_numbers",
    """
    CREATE TABLE tapes (
        number int8 PRIMARY KEY,
        root int8 NOT NULL,
        parent int8,
        base int8 NOT NULL,
        jump int8 NOT NULL,
        depth int8 NOT NULL,
        first int8 NOT NULL,
        stop int8 NOT NULL,
        head int8,
        seq int8,
        epoch int8 NOT NULL,
        owner text COLLATE "C"
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX tapes_by_parent ON tapes (parent, base) WHERE parent IS NOT NULL",
    "CREATE INDEX tapes_by_head ON tapes (root, head) WHERE head IS NOT NULL",
)

SNAPSHOTS = (
    """
    CREATE TABLE snapshots (
        tape int8 NOT NULL,
        step int8 NOT NULL,
        taken float8 NOT NULL,
        passing boolean NOT NULL,
        state bytea NOT NULL,
        PRIMARY KEY (tape, step)
    )
    """,
    "ALTER TABLE snapshots ALTER COLUMN state SET STORAGE EXTERNAL",
)

LOG = (
    """
    CREATE TABLE log (
        tape int8 NOT NULL,
        step int8 NOT NULL,
        seq int8,
        last_seq int8,
        written timestamptz NOT NULL DEFAULT now(),
        epoch int8 NOT NULL,
        steps int4 NOT NULL,
        inputs bytea NOT NULL
    ) PARTITION BY RANGE (written)
    """,
    "ALTER TABLE log ALTER COLUMN inputs SET STORAGE EXTERNAL",
    """
    CREATE TABLE partitions (
        number int8 PRIMARY KEY,
        begins timestamptz NOT NULL,
        ends timestamptz NOT NULL
    )
    """,
)
"""The log, and the parts of it: `log_NUMBER`, with the rows that were written from `begins` up to `ends`."""

COUNTS = """
    CREATE TABLE counts (
        server text COLLATE "C",
        model text COLLATE "C",
        tenant text COLLATE "C",
        sessions int8 NOT NULL,
        PRIMARY KEY (server, model, tenant)
    ) WITH (fillfactor = 50)
    """
"""The number of open sessions, as a sum: each server adds to rows of its own, so that none waits for another."""

CLOCK = "CREATE TABLE clock (number int8 PRIMARY KEY, time float8 NOT NULL, at timestamptz NOT NULL)"
"""The latest time that was recorded, in seconds of the servers' clock, and the database's time at that moment."""

KEYS = """
    CREATE TABLE keys (
        id text COLLATE "C" PRIMARY KEY,
        digest bytea NOT NULL,
        tenant text NOT NULL,
        scopes text NOT NULL,
        name text NOT NULL,
        created float8 NOT NULL,
        revoked float8,
        max_sessions int8,
        steps_per_second float8,
        max_batch int8,
        max_steps int8,
        max_streams int8
    )
    """

META = ("CREATE TABLE meta (version int8 NOT NULL)", "INSERT INTO meta VALUES (0)")

TABLES = (*META, SERVERS, *SESSIONS, *TAPES, *SNAPSHOTS, *LOG, COUNTS, CLOCK, KEYS)


def _create(database: Database) -> None:
    for statement in TABLES:
        database.run(statement)


def _add_force(database: Database) -> None:
    """No session forced gates."""
    database.run("ALTER TABLE sessions ADD COLUMN force text")


MIGRATIONS: list[Callable[[Database], None]] = [_create, _add_force]
"""The functions that make of the tables of version 0, 1, 2, ... those of the next one; version 0 has no tables."""


def version(database: Database) -> int:
    """Return the version of the tables that are there; 0 for none. Raises StoreFailed."""
    (has_tables,) = database.row(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'meta' AND relnamespace = current_schema()::regnamespace)"
    )  # to_regclass would not see a table that was made after this transaction began
    return 0 if not has_tables else int(database.row("SELECT max(version) FROM meta")[0])


def migrate(database: Database) -> None:
    """Make the tables those of this version, whole or not at all; make them where there are none. Raises StoreFailed.

    No server may use them meanwhile. Of two at a time, the second finds nothing left to do.
    """
    with database.transaction():
        database.run("SET LOCAL lock_timeout = '60s'")
        database.run("SELECT pg_advisory_xact_lock($1::int4, $2::int4)", LOCKS, LOCK_OF_SCHEMA)
        found = version(database)
        check_not_newer(database, found)
        try:
            for step in MIGRATIONS[found:]:
                step(database)
        except StoreFailed as error:
            raise StoreFailed(
                f"{error.detail}: schema {found} cannot be brought up to date, and nothing in it was changed"
            ) from error
        database.run("UPDATE meta SET version = $1", len(MIGRATIONS))


def prepare(database: Database) -> None:
    """Make the tables where there are none. Raises StoreFailed unless those that are there are of this version."""
    (number,) = database.row("SELECT current_setting('server_version_num')::int8")
    if number < OLDEST_SERVER:
        raise StoreFailed(f"{database.name}: PostgreSQL {number // 10000} is too old: expected 14 or a later one")
    found = version(database)
    if found:
        check_version(database, found)
    else:
        migrate(database)


def check_version(database: Database, found: int) -> None:
    """Raise StoreFailed unless the tables are of this version."""
    check_not_newer(database, found)
    if found < len(MIGRATIONS):
        raise StoreFailed(
            f"{database.name}: schema {found} is an earlier version's, expected {len(MIGRATIONS)}: "
            "stop the servers that use it, then bring it up to date by engram store migrate"
        )


def check_not_newer(database: Database, found: int) -> None:
    """Raise StoreFailed where the tables are of a later version."""
    if found > len(MIGRATIONS):
        raise StoreFailed(
            f"{database.name}: schema {found} is newer than this version's, {len(MIGRATIONS)}: "
            "serve it with the version that wrote it, or a later one"
        )
