"""All that the store in PostgreSQL keeps, as items, and an empty database filled with such items."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from app.errors import SessionDamaged, StoreFailed
from app.stores.archive import (
    REMEDY,
    ArchivedClock,
    ArchivedSession,
    ArchivedSnapshot,
    ArchivedSteps,
    ArchivedTape,
    Damaged,
    Item,
    kept,
)
from app.stores.base import NOBODY
from app.stores.postgres.database import Database, Row
from app.stores.postgres.sessions import RECORD_TIME
from app.stores.postgres.tapes import HOLDER, LAST, SEQ, STOP, Holder
from app.tenants import tenant_of

GONE = "gone"
"""The owner of a copied session that is volatile: no such server lives, so the session is lost when it is claimed."""

SESSION = (
    "s.id, s.model, s.fingerprint, s.memory_size, s.force, s.opened, s.used, s.ended, s.reason, s.creation_key, "
    "s.creation_digest, s.tape, s.volatile"
)
"""The values of an ArchivedSession."""

SESSION_SIZE = len(ArchivedSession._fields)

TAPES = f"""
    DECLARE archived NO SCROLL CURSOR FOR
    SELECT {SESSION}, t.number, t.parent, t.base, t.first, {STOP}, t.head, {SEQ}, t.epoch, s.id IS NOT NULL,
        t.parent IS NULL OR EXISTS (SELECT FROM tapes AS parent WHERE parent.number = t.parent),
        t.first = 0 OR EXISTS (SELECT FROM snapshots WHERE tape = t.number AND step = t.first)
    FROM tapes AS t LEFT JOIN sessions AS s ON s.tape = t.number {LAST} ORDER BY t.depth, t.number
    """  # noqa: S608
"""The tapes, each after the one that it begins with, and the session on it; whether the tape that it begins with is
there, and the snapshot with which it begins.
"""

AT_ONCE = 200
"""Tapes to read at a time."""

LOG = "SELECT tape, step, steps, inputs, seq FROM log WHERE tape = ANY($1::int8[]) ORDER BY tape, step"

SNAPSHOTS = """
    SELECT tape, step, state, taken, passing FROM snapshots WHERE tape = ANY($1::int8[]) ORDER BY tape, step
    """

ENDED = f"SELECT {SESSION} FROM sessions AS s WHERE s.ended IS NOT NULL ORDER BY s.ended"  # noqa: S608

OPEN = "SELECT count(*) FROM sessions WHERE ended IS NULL"

LIVING = "SELECT name FROM servers WHERE renewed + lasts >= now() AND id <> ALL($1::text[])"

COUNT = """
    INSERT INTO counts VALUES ('', $1, $2, $3)
    ON CONFLICT (server, model, tenant) DO UPDATE SET sessions = counts.sessions + excluded.sessions
    """

COLUMNS = {
    "tapes": "number, root, parent, base, jump, depth, first, stop, head, seq, epoch, owner",
    "log": "tape, step, steps, epoch, seq, inputs",
    "snapshots": "tape, step, state, taken, passing",
    "sessions": "id, tenant, model, fingerprint, memory_size, force, opened, used, ended, reason, creation_key, "
    "creation_digest, tape, volatile",
}

FULL_ROWS, FULL_BYTES = 1000, 2**20
"""Rows, and bytes of inputs and states, after which they are written."""

NO_EPOCH = 0
"""The epoch of copied steps: before that of every claim."""


def check_unused(database: Database, owners: Collection[str]) -> None:
    """Raise StoreFailed where servers use the database, but for those of this process."""
    names = [name for (name,) in database.rows(LIVING, list(owners))]
    if names:
        raise StoreFailed(f"{database.name}: servers use it: {', '.join(names)}; stop them first")


class Contents:
    """Reads a database as it is at one moment. Its methods are part of the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def items(self) -> Iterator[Item]:
        """Yield the tapes and all on them, then the sessions that ended. Raises SessionDamaged."""
        opened = 0
        self._database.run(TAPES)
        while rows := self._database.rows(f"FETCH {AT_ONCE} FROM archived"):
            opened += sum(row[0] is not None for row in rows)
            yield from self._of_tapes(rows)
        (expected,) = self._database.row(OPEN)
        if opened != expected:
            raise self._damaged(f"of {expected} open sessions {expected - opened} are on no tape")
        yield from map(ArchivedSession._make, self._database.stream(ENDED))

    def _of_tapes(self, rows: Iterable[Row]) -> Iterator[Item]:
        tapes = []
        for *tape, has_parent, has_start in (row[SESSION_SIZE:] for row in rows):
            tapes.append(ArchivedTape._make(tape))
            if not (has_parent and has_start):
                raise self._damaged(f"the beginning of tape {tapes[-1].number} is missing")
        yield from tapes
        tapes.sort()
        numbers = [tape.number for tape in tapes]
        yield from self._log(tapes, self._database.stream(LOG, numbers))
        yield from map(ArchivedSnapshot._make, self._database.stream(SNAPSHOTS, numbers))
        yield from (ArchivedSession._make(row[:SESSION_SIZE]) for row in rows if row[0] is not None)

    def _log(self, tapes: Iterable[ArchivedTape], rows: Iterator[Row]) -> Iterator[ArchivedSteps]:
        """Yield the logs of tapes, from rows in the same order. Raises SessionDamaged."""
        logs = groupby(map(ArchivedSteps._make, rows), key=itemgetter(0))
        number, log = next(logs, (None, iter(())))
        for tape in tapes:
            try:
                yield from kept(tape, log if tape.number == number else ())
            except Damaged as error:
                raise self._damaged(str(error)) from None
            if tape.number == number:
                number, log = next(logs, (None, iter(())))

    def _damaged(self, what: str) -> SessionDamaged:
        return SessionDamaged(f"{self._database.name}: {what}: {REMEDY}")


class Arrivals:
    """Writes items into a database without sessions. Its methods are part of the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}
        """The rows to write, by their table."""
        self._size = 0
        """Bytes of the inputs and states in them."""
        self._counts: Counter[tuple[str, str]] = Counter()
        """The open sessions, by model and tenant."""
        self._unwritten: set[int] = set()
        """The tapes in `_rows`."""
        self._offset = 0
        """Added to the number of every tape: the log may have rows of tapes that were here before."""

    def put(self, items: Iterable[Item]) -> None:
        """Write all items. Raises StoreFailed where there are sessions."""
        self._database.run("LOCK TABLE sessions IN EXCLUSIVE MODE")
        if self._database.row("SELECT 1 FROM sessions LIMIT 1") is not None:
            raise StoreFailed(f"{self._database.name}: there are sessions in it already; name an empty database")
        (self._offset,) = self._database.row("SELECT last_value FROM tape_numbers")
        for item in items:
            self._put(item)
            if self._size > FULL_BYTES or any(len(rows) >= FULL_ROWS for rows in self._rows.values()):
                self._write()
        self._write()
        self._database.row("SELECT setval('tape_numbers', greatest((SELECT max(number) FROM tapes), $1))", self._offset)
        for (model, tenant), sessions in sorted(self._counts.items()):
            self._database.run(COUNT, model, tenant, sessions)

    def _put(self, item: Item) -> None:
        match item:
            case ArchivedClock():
                self._database.run(RECORD_TIME, float(item.time))
            case ArchivedTape():
                self._put_tape(item)
            case ArchivedSteps(tape, step, steps, inputs, seq):
                self._rows["log"].append((self._offset + tape, step, steps, NO_EPOCH, seq, inputs))
                self._size += len(inputs)
            case ArchivedSnapshot(tape, step, state, taken, passing):
                self._rows["snapshots"].append((self._offset + tape, step, state, float(taken), passing))
                self._size += len(state)
            case ArchivedSession():
                self._put_session(item)

    def _put_tape(self, item: ArchivedTape) -> None:
        number, parent, base, first, stop, head, seq, epoch, is_used = item
        number += self._offset
        root, jump, depth = number, number, 0
        if parent is not None:
            parent += self._offset
            if parent in self._unwritten:
                self._write()
            holder = Holder._make(self._database.row(HOLDER, parent, base))
            root, jump, depth = holder.root, holder.jump, holder.depth + 1
        self._unwritten.add(number)
        owner = NOBODY if is_used else None
        row = (number, root, parent, base, jump, depth, first, stop, head, seq, epoch, owner)
        self._rows["tapes"].append(row)

    def _put_session(self, item: ArchivedSession) -> None:
        name, model, fingerprint, memory_size, force, opened, used, ended, *how, tape, volatile = item
        tenant = tenant_of(name)
        if tape is not None:
            tape += self._offset
            self._counts[model, tenant] += 1
        times = (float(opened), float(used), None if ended is None else float(ended))
        version = (model, fingerprint, memory_size, force)
        self._rows["sessions"].append((name, tenant, *version, *times, *how, tape, volatile))
        if volatile and tape is not None:
            self._write()
            self._database.run("UPDATE tapes SET owner = $1 WHERE number = $2", GONE, tape)

    def _write(self) -> None:
        """Write all rows that are waiting."""
        for table, rows in self._rows.items():
            if rows:
                self._database.copy(f"COPY {table} ({COLUMNS[table]}) FROM STDIN", rows)
                rows.clear()
        self._size = 0
        self._unwritten.clear()
