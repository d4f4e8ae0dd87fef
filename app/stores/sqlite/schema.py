"""The tables of the embedded store, and how those of earlier versions become these."""

import sqlite3
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from app.stores.sqlite.rows import (
    ENTRY_KEY,
    SessionRow,
    TapeRow,
    checksum,
    entry_checksum,
    extended,
    insert_into,
)
from app.stores.sqlite.tail import NO_CHECKSUM, Packed
from app.stores.sqlite.tapes import jump_under

SCHEMA_VERSION = 7

TENANT = "substr(id, 1, instr(id, '/'))"
"""The beginning of a session's name that its tenant makes (`app.tenants.prefix`)."""

BY_TENANT = (
    f"CREATE INDEX sessions_by_tenant ON sessions ({TENANT}, used) WHERE ended IS NULL",
    f"CREATE INDEX sessions_by_model ON sessions (model, {TENANT}, used) WHERE ended IS NULL",
)

BY_VERSION = "CREATE INDEX sessions_by_version ON sessions (model, fingerprint) WHERE ended IS NULL"

SESSIONS = (
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        model TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        memory_size INTEGER,
        force TEXT,
        opened REAL NOT NULL,
        used REAL NOT NULL,
        ended REAL,
        reason TEXT,
        creation_key TEXT UNIQUE,
        creation_digest BLOB,
        owner TEXT NOT NULL,
        tape INTEGER UNIQUE,
        unlogged INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX sessions_by_use ON sessions (used) WHERE ended IS NULL",
    *BY_TENANT,
    BY_VERSION,
    "CREATE INDEX sessions_by_end ON sessions (ended) WHERE ended IS NOT NULL",
    "CREATE INDEX sessions_without_log ON sessions (id) WHERE unlogged AND ended IS NULL",
)

TAPES = (
    """
    CREATE TABLE tapes (
        number INTEGER PRIMARY KEY,
        root INTEGER NOT NULL,
        parent INTEGER,
        base INTEGER NOT NULL,
        jump INTEGER NOT NULL,
        depth INTEGER NOT NULL,
        first INTEGER NOT NULL,
        stop INTEGER NOT NULL,
        head INTEGER,
        seq INTEGER,
        epoch INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    )
    """,
    "CREATE INDEX tapes_by_parent ON tapes (parent, base) WHERE parent IS NOT NULL",
    "CREATE INDEX tapes_by_head ON tapes (root, head) WHERE head IS NOT NULL",
)

LOG = """
    CREATE TABLE log (
        tape INTEGER NOT NULL,
        step INTEGER NOT NULL,
        steps INTEGER NOT NULL,
        entries BLOB NOT NULL,
        inputs BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        PRIMARY KEY (tape, step)
    )
    """
"""With a rowid: its rows are large, and WITHOUT ROWID is for small ones."""

JOURNAL = """
    CREATE TABLE journal (
        number INTEGER PRIMARY KEY,
        heads BLOB NOT NULL,
        tapes BLOB NOT NULL,
        inputs BLOB NOT NULL,
        checksum INTEGER NOT NULL
    )
    """

SNAPSHOTS = """
    CREATE TABLE snapshots (
        tape INTEGER NOT NULL,
        step INTEGER NOT NULL,
        taken REAL NOT NULL,
        passing INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        state BLOB NOT NULL,
        PRIMARY KEY (tape, step)
    )
    """

CLOCK = """
    CREATE TABLE clock (
        number INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        checksum INTEGER NOT NULL
    )
    """

TABLES = (*SESSIONS, *TAPES, LOG, JOURNAL, SNAPSHOTS, CLOCK)


def migrate(database: sqlite3.Connection, version: int) -> None:
    """Make the tables of a new file, or of one of an earlier version, those of this one, whole or not at all."""
    database.execute("BEGIN IMMEDIATE")
    try:
        MIGRATIONS[version](database)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _create(database: sqlite3.Connection) -> None:
    for statement in TABLES:
        database.execute(statement)


def _from_1(database: sqlite3.Connection) -> None:
    """Sessions had no past: they count as lost."""
    known = database.execute(
        "SELECT id, model, opened, coalesce(ended, opened), coalesce(reason, 'lost in a restart') FROM sessions"
    ).fetchall()
    database.execute("DROP TABLE sessions")
    _create(database)
    for name, model, opened, ended, reason in known:
        row = SessionRow(name, model, "", None, None, opened, opened, ended, reason, None, None, "", None, 0)
        _insert(database, "sessions", row)


def _from_2(database: sqlite3.Connection) -> None:
    """Rows of sessions and tapes had no checksum, nor had when a snapshot was taken and whether it passes.

    A tape knew its parent only, and its session the step that it was rewound to. A tape whose numbers are none is left
    out: its session is then damaged.
    """
    sessions = database.execute(
        "SELECT id, model, fingerprint, memory_size, NULL, opened, used, ended, reason, creation_key, creation_digest,"
        " owner, tape, unlogged, head FROM sessions"
    ).fetchall()
    found = database.execute("SELECT number, parent, base, first, stop, seq, epoch FROM tapes ORDER BY number")
    tapes = [row for row in found if all(value is None or isinstance(value, int) for value in row)]
    heads = {tape: head for *_, tape, _, head in sessions if tape is not None}
    rows = _lines(tapes, heads)
    for table in ("sessions", "tapes"):
        database.execute(f"DROP TABLE {table}")
    for statement in (*SESSIONS, *TAPES, JOURNAL, CLOCK):
        database.execute(statement)
    for *values, _ in sessions:
        _insert(database, "sessions", SessionRow(*values))
    for row in rows.values():
        _insert(database, "tapes", row)
    database.create_function("extended", 3, extended, deterministic=True)
    database.execute("UPDATE snapshots SET checksum = extended(checksum, taken, passing)")
    _pack_log(database)


def _from_3(database: sqlite3.Connection) -> None:
    """Every entry was in the log."""
    database.execute(JOURNAL)
    _from_4(database)


def _from_4(database: sqlite3.Connection) -> None:
    """Every entry was a row of the log, and no session had a tenant."""
    _pack_log(database)
    _from_5(database)


def _from_5(database: sqlite3.Connection) -> None:
    """No session had a tenant: all are of the default one. The time was recorded with the sessions only."""
    database.execute("DROP INDEX sessions_by_model")
    for statement in (*BY_TENANT, BY_VERSION, CLOCK):
        database.execute(statement)
    _from_6(database)


def _from_6(database: sqlite3.Connection) -> None:
    """No session forced gates."""
    database.execute("ALTER TABLE sessions RENAME TO free_sessions")
    indexes = database.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'free_sessions' AND sql IS NOT NULL"
    ).fetchall()
    for (name,) in indexes:
        database.execute(f"DROP INDEX {name}")
    for statement in SESSIONS:
        database.execute(statement)
    found = database.execute("SELECT * FROM free_sessions")
    database.executemany(insert_into("sessions", SessionRow), map(_with_force, found))
    database.execute("DROP TABLE free_sessions")


def _with_force(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the row of a session with a force, which is none; a row that is damaged stays so."""
    *row, written = values
    longer = (*row[:4], None, *row[4:])
    is_whole = written == checksum(row)
    return (*longer, checksum(longer) if is_whole else NO_CHECKSUM)


def _pack_log(database: sqlite3.Connection) -> None:
    """Every entry was a row of the log: tape, step, steps, seq, inputs, checksum."""
    database.execute("ALTER TABLE log RENAME TO entries")
    database.execute(LOG)
    add = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)"
    database.executemany(add, _packed(database.execute("SELECT * FROM entries ORDER BY tape, step")))
    database.execute("DROP TABLE entries")


def _packed(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the log that entries become; one that is damaged becomes a damaged row."""
    tape, pack = None, Packed(0, is_whole=True)
    for number, step, steps, seq, inputs, written in rows:
        is_whole = _is_whole_entry(number, step, steps, seq, inputs, written)
        if tape is not None and (number != tape or not is_whole or not pack.takes(step, len(inputs))):
            yield pack.row(tape)
            tape = None
        if not is_whole:
            yield number, step, steps, b"", inputs, NO_CHECKSUM
            continue
        if tape is None:
            tape, pack = number, Packed(step, is_whole=True)
        pack.add(steps, seq, inputs)
    if tape is not None:
        yield pack.row(tape)


def _is_whole_entry(tape: Any, step: Any, steps: Any, seq: Any, inputs: Any, found: Any) -> bool:
    try:
        key = ENTRY_KEY.pack(tape, step, steps, -1 if seq is None else seq)
        return bool(found == entry_checksum(key, inputs)) and steps > 0 and len(inputs) % steps == 0
    except (struct.error, TypeError):  # not even of the right types
        return False


def _lines(tapes: list[tuple[Any, ...]], heads: dict[int, int | None]) -> dict[int, TapeRow]:
    """Return the rows of tapes of version 2, a parent before its children: it has the lower number.

    heads: of the tapes on which there is a session, the step that it was rewound to.
    """
    rows: dict[int, TapeRow] = {}
    lasts: dict[int, int] = {}
    for _, parent, base, *_ in tapes:
        lasts[parent] = max(base, lasts.get(parent, 0))
    for number, parent, base, first, stop, seq, epoch in tapes:
        holder = rows.get(parent)
        while holder is not None and holder.parent is not None and base <= holder.base:
            holder = rows[holder.parent]
        if number not in heads:  # only what others began with was kept
            stop = min(stop, lasts.get(number, base))
        head = heads.get(number)
        head = None if head == stop else head
        if holder is None:
            rows[number] = TapeRow(number, number, None, base, number, 0, first, stop, head, seq, epoch)
        else:
            jump, depth = jump_under(holder, rows.get), holder.depth + 1
            rows[number] = TapeRow(number, holder.root, holder.number, base, jump, depth, first, stop, head, seq, epoch)
    return rows


def _insert(database: sqlite3.Connection, table: str, row: SessionRow | TapeRow) -> None:
    database.execute(insert_into(table, type(row)), (*row, checksum(row)))


MIGRATIONS = {0: _create, 1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4, 5: _from_5, 6: _from_6}
