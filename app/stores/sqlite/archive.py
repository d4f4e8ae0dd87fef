"""All that the embedded store keeps, as items, and a new file of such items."""

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

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
from app.stores.sqlite.database import Database
from app.stores.sqlite.rows import (
    LogRow,
    SessionRow,
    TapeRow,
    entries_of,
    is_whole_log,
    is_whole_snapshot,
    snapshot_checksum,
    whole,
)
from app.stores.sqlite.sessions import SessionTable
from app.stores.sqlite.tail import Packed
from app.stores.sqlite.tapes import Tapes

TAPES = """
SELECT tapes.*, EXISTS (SELECT 1 FROM sessions WHERE tape = tapes.number) FROM tapes ORDER BY depth, number
"""
"""The tapes, each after the one that it begins with, and whether a session is on it."""

LOG = "SELECT * FROM log WHERE tape = ? ORDER BY step"
SNAPSHOTS = "SELECT step, taken, passing, state, checksum FROM snapshots WHERE tape = ? ORDER BY step"
ADD_TO_LOG = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)"
ADD_SNAPSHOT = "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?)"


class Contents:
    """Reads a file once, row by row. No entry is in the journal any more, and nobody changes the file meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def items(self) -> Iterator[Item]:
        """Yield the tapes and all on them, then the sessions that ended. Raises SessionDamaged."""
        opened = 0
        for values in self._database.rows(TAPES):
            row = whole(TapeRow, values[:-1]) or self._raise(f"the row of tape {values[0]} is damaged")
            numbers = (row.number, row.parent, row.base, row.first, row.stop, row.head, row.seq, row.epoch)
            tape = ArchivedTape(*numbers, is_used=bool(values[-1]))
            yield tape
            yield from self._log(tape)
            yield from self._snapshots(tape)
            for session in self._sessions("tape = ?", row.number):
                opened += 1
                yield session
        (expected,) = self._database.row("SELECT count(*) FROM sessions WHERE ended IS NULL")
        if opened != expected:
            self._raise(f"of {expected} open sessions {expected - opened} are on no tape")
        yield from self._sessions("ended IS NOT NULL ORDER BY ended")

    def _log(self, tape: ArchivedTape) -> Iterator[ArchivedSteps]:
        try:
            yield from kept(tape, self._entries(tape.number))
        except Damaged as error:
            self._raise(str(error))

    def _entries(self, tape: int) -> Iterator[ArchivedSteps]:
        for values in self._database.rows(LOG, tape):
            if not is_whole_log(*values):
                raise Damaged(f"the log of tape {tape} is damaged at step {values[1]}")
            for step, steps, seq, inputs in entries_of(LogRow(*values)):
                yield ArchivedSteps(tape, step, steps, inputs, seq)

    def _snapshots(self, tape: ArchivedTape) -> Iterator[ArchivedSnapshot]:
        found = set()
        for step, taken, passing, state, written in self._database.rows(SNAPSHOTS, tape.number):
            if not is_whole_snapshot(tape.number, step, taken, passing, state, written):
                self._raise(f"the snapshot of tape {tape.number} at step {step} is damaged")
            found.add(step)
            yield ArchivedSnapshot(tape.number, step, state, taken, bool(passing))
        if tape.first and tape.first not in found:
            self._raise(f"the snapshot of tape {tape.number} at step {tape.first} is missing, where its past begins")

    def _sessions(self, condition: str, *values: Any) -> Iterator[ArchivedSession]:
        for found in self._database.rows(f"SELECT * FROM sessions WHERE {condition}", *values):  # noqa: S608
            row = whole(SessionRow, found) or self._raise(f"the row of session {found[0]} is damaged")
            *fields, _, tape, volatile = row
            yield ArchivedSession._make((*fields, tape, bool(volatile)))

    def _raise(self, what: str) -> NoReturn:
        raise SessionDamaged(f"{self._database.path}: {what}: {REMEDY}")


class Arrivals:
    """Writes items into an empty file. Its methods are part of the caller's transaction."""

    def __init__(self, database: Database, sessions: SessionTable, tapes: Tapes) -> None:
        self._database = database
        self._sessions = sessions
        self._tapes = tapes
        self._tape = 0
        self._pack = Packed(0, is_whole=True)
        """The entries of a tape that are not written yet."""

    def put(self, items: Iterable[Item]) -> None:
        """Write all items. Raises StoreFailed where there are sessions."""
        if self._database.row("SELECT 1 FROM sessions LIMIT 1") is not None:
            raise StoreFailed(f"{self._database.path}: there are sessions in it already; name an empty directory")
        for item in items:
            match item:
                case ArchivedClock():
                    self._sessions.record_time(item.time)
                case ArchivedTape():
                    self._put_tape(item)
                case ArchivedSteps():
                    self._put_steps(item)
                case ArchivedSnapshot():
                    self._put_snapshot(item)
                case ArchivedSession():
                    self._put_session(item)
        self._write_pack()

    def _put_tape(self, item: ArchivedTape) -> None:
        number, parent, base, first, stop, head, seq, epoch, _ = item
        self._tapes.begin(number, None if parent is None else self._tapes.get(parent), base, first, seq, epoch)
        self._tapes.update(self._tapes.get(number)._replace(stop=stop, head=head))
        self._tapes.note_number(number)

    def _put_steps(self, item: ArchivedSteps) -> None:
        tape, step, steps, inputs, seq = item
        if tape != self._tape or not self._pack.entries or not self._pack.takes(step, len(inputs)):
            self._write_pack()
            self._tape, self._pack = tape, Packed(step, is_whole=True)
        self._pack.add(steps, seq, inputs)

    def _write_pack(self) -> None:
        if self._pack.entries:
            self._database.run(ADD_TO_LOG, *self._pack.row(self._tape))
            self._pack = Packed(0, is_whole=True)

    def _put_snapshot(self, item: ArchivedSnapshot) -> None:
        tape, step, state, taken, passing = item
        key = (tape, step, float(taken), int(passing))
        self._database.run(ADD_SNAPSHOT, *key, snapshot_checksum(*key, state), state)

    def _put_session(self, item: ArchivedSession) -> None:
        *fields, tape, volatile = item
        row = SessionRow._make((*fields, NOBODY, tape, int(volatile)))
        ended = None if row.ended is None else float(row.ended)
        self._sessions.insert(row._replace(opened=float(row.opened), used=float(row.used), ended=ended))
