"""The embedded store: one SQLite file in the data directory.

SqliteStore   the calls, each in one transaction
  SessionTable    Tapes    Snapshots    Log: reads      the tables
  JournalTable    commits go here first; folded into the log later
  Database        transactions, files, syncs, errors
"""

import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import cast

from app.errors import SessionDamaged, StepNotKept, StoreFailed
from app.stores.archive import ArchivedClock, Item
from app.stores.base import (
    FORGOTTEN_AT_ONCE,
    KEEP_ALL,
    NOBODY,
    REMEMBERED_FOR,
    EndReason,
    Entry,
    LoggedSteps,
    NewSession,
    Record,
    Retention,
)
from app.stores.sqlite.archive import Arrivals, Contents
from app.stores.sqlite.damage import Damage
from app.stores.sqlite.database import Database, is_malformed
from app.stores.sqlite.journal import JournalTable
from app.stores.sqlite.log import Log
from app.stores.sqlite.rows import SessionRow, TapeRow, whole
from app.stores.sqlite.schema import TENANT
from app.stores.sqlite.sessions import SessionTable
from app.stores.sqlite.snapshots import Snapshots
from app.stores.sqlite.tapes import Tapes
from app.tenants import prefix, tenant_of

FILE = "sessions.sqlite"

DAMAGED = ("", "", None)
"""Model, fingerprint and memory size of a session that ended, and of which no more is known."""


class SqliteStore:
    """Sessions and tapes in a file, for one server at a time."""

    def __init__(
        self, directory: Path, retention: Retention = KEEP_ALL, now: float | None = None, opens: bool = True
    ) -> None:
        """Open the store of a data directory. Raises StoreFailed where the file cannot be used.

        now: the time in seconds, if not the latest that was recorded. opens: recover what the last server left, as a
        server does; else the file must be there, and stays as it is.
        """
        self._retention = retention
        self._database = database = Database(directory / FILE, opens)
        with database.closed_on_error(), database.errors():
            self._journal = JournalTable(database.connection, database.path)
            self._replay(opens)
            self._tapes = Tapes(database.connection, database.path, self._journal, grows=opens)
            self._sessions = SessionTable(database, self._journal, self._tapes)
            self._snapshots = Snapshots(database)
            self._log = Log(database, self._journal)
            if opens:
                self._recover(self._now() if now is None else now)
            database.watch_files()

    def create(self, session: NewSession, owner: str) -> Record:
        with self._transaction():
            tape = self._tapes.new_number()
            first = session.base if session.snapshot is not None else 0
            self._tapes.begin(tape, self._parent(session), session.base, first)
            now = float(session.now)
            opened = now if session.opened is None else session.opened
            model = (session.model, session.fingerprint, session.memory_size, session.force)
            row = SessionRow(session.id, *model, opened, now, None, None, session.key, session.digest, owner, tape, 0)
            if session.takes_key:
                self._sessions.release_key(str(session.key))
            self._sessions.insert(row)
            if session.snapshot is not None:
                self._snapshots.keep(self._tapes.get(tape), session.base, session.snapshot, now, passing=False)
            return self._record(session.id)

    def created(self, key: str) -> tuple[str, bytes] | None:
        with self._database.reading():
            row = self._sessions.with_value("creation_key", key)
            return (row.id, row.creation_digest or b"") if row else None

    def find(self, session: str) -> Record | EndReason | None:
        with self._database.reading():
            return self._sessions.find(session)

    def claim(self, session: str, owner: str) -> Record | EndReason | None:
        with self._database.reading():
            row = self._sessions.with_value("id", session)
            if row is None or row.tape is None or row.owner == owner:
                return self._sessions.find(session)
        with self._transaction():
            tape = self._tapes.get(row.tape)
            self._sessions.update(row._replace(owner=owner))
            self._tapes.update(tape._replace(epoch=tape.epoch + 1))
            return self._sessions.find(session)

    def release(self, session: str, owner: str, used: float | None = None) -> bool:
        with self._transaction():
            row = self._sessions.with_value("id", session)
            if row is None or row.tape is None or row.owner != owner:
                return False
            tape = self._tapes.get(row.tape)
            self._sessions.update(row._replace(owner=NOBODY, used=row.used if used is None else used))
            self._tapes.update(tape._replace(epoch=tape.epoch + 1))
        return True

    def move(self, session: str, step: int, seq: int | None) -> Record:
        with self._transaction():
            _, tape = self._sessions.opened(session)
            self._tapes.update(tape._replace(head=None if step == tape.stop else step, seq=seq))
            return self._record(session)

    def mark_volatile(self, session: str) -> None:
        with self._transaction():
            row, _ = self._sessions.opened(session)
            self._sessions.update(row._replace(unlogged=1))

    def end(self, session: str, reason: EndReason, now: float) -> bool:
        with self._transaction():
            found = self._database.row("SELECT *, tape FROM sessions WHERE id = ? AND ended IS NULL", session)
            if found is None:
                return False
            *values, number = found
            now = float(now)
            row = whole(SessionRow, values) or SessionRow(
                session, *DAMAGED, None, now, now, None, None, None, None, "", None, 0
            )
            self._sessions.update(row._replace(ended=now, reason=reason, tape=None))
            tape = self._tapes.find(number)
            if tape is not None:
                self._tapes.update(tape._replace(epoch=tape.epoch + 1, head=None))  # it may stay, for a fork
            self._tapes.collect(number)
            return True

    def append(self, entries: Sequence[Entry]) -> set[int]:
        while self._journal.is_overdue:
            self.fold()
        with self._transaction():
            for entry in entries:
                if entry.previous_tape is not None:
                    self._begin_next(entry, entry.previous_tape)
            return self._journal.append(entries)

    def fold(self) -> None:
        if self._journal.is_due:
            with self._transaction():
                self._journal.fold_some()

    def snapshot(self, tape: int, step: int, state: bytes, now: float, passing: bool) -> int:
        with self._transaction():
            row = self._tapes.known(tape)
            if row is None:
                return step
            self._snapshots.keep(row, step, state, now, passing)
            if not passing:
                self._forget(row, step, now)
            return self._tapes.oldest(self._tapes.get(tape))

    def park(self, session: str, step: int, seq: int | None, state: bytes, now: float) -> None:
        with self._transaction():
            row, old = self._sessions.opened(session)
            tape = self._tapes.new_number()
            self._tapes.begin(tape, None, step, first=step, seq=seq, epoch=old.epoch)
            self._sessions.update(row._replace(tape=tape, unlogged=0))
            self._tapes.update(old._replace(head=None))
            self._snapshots.keep(self._tapes.get(tape), step, state, now, passing=False)
            self._tapes.collect(old.number)

    def before(self, tape: int, step: int) -> tuple[int, bytes] | None:
        with self._database.reading():
            row = self._tapes.known(tape)
            if row is None:
                return None
            for part, stop in self._tapes.upwards(row, step):
                found = self._snapshots.before(part.number, stop)
                if found is not None:
                    return found
            if 0 < self._tapes.oldest(row) <= step:
                raise SessionDamaged(f"{self._database.path}: no snapshot of tape {tape} up to step {step} is whole")
        return None

    def steps(self, tape: int, start: int, stop: int, limit: int) -> list[LoggedSteps]:
        found: list[LoggedSteps] = []
        with self._database.reading():
            row = self._tapes.known(tape)
            if row is None or start < self._tapes.oldest(row):
                return []
            for part, first, last in self._tapes.parts(row, start, min(stop, row.stop)):
                for steps in self._log.steps(part.number, first, last):
                    found.append(steps)
                    limit -= len(steps.inputs)
                    if limit <= 0:
                        return found
        return found

    def frame(self, tape: int, seq: int) -> LoggedSteps | None:
        with self._database.reading():
            row = self._tapes.known(tape)
            if row is None:
                return None
            oldest = self._tapes.oldest(row)
            for steps in self._log.backwards(tape):
                if steps.seq is not None and steps.seq <= seq:
                    return steps if steps.seq == seq and steps.step >= oldest else None
        return None

    def list(self, tenant: str, model: str | None, limit: int) -> "list[Record]":
        chosen, values = ("AND model = ?", (model,)) if model is not None else ("", ())
        chosen = f"AND {TENANT} = ? {chosen} ORDER BY used DESC"
        with self._database.reading():
            return list(islice(self._sessions.records(chosen, prefix(tenant), *values), limit))

    def counts(self) -> dict[str, int]:
        with self._database.reading():
            return dict(self._database.rows("SELECT model, count(*) FROM sessions WHERE ended IS NULL GROUP BY model"))

    def has_sessions(self, model: str, fingerprint: str) -> bool:
        found = "SELECT 1 FROM sessions WHERE ended IS NULL AND model = ? AND fingerprint = ? LIMIT 1"
        with self._database.reading():
            return self._database.row(found, model, fingerprint) is not None

    def tenants(self) -> dict[str, int]:
        with self._database.reading():
            rows = self._database.rows(f"SELECT {TENANT}, count(*) FROM sessions WHERE ended IS NULL GROUP BY 1")  # noqa: S608
            return {tenant_of(start): count for start, count in rows}

    def touch(self, used: Sequence[tuple[str, float]]) -> None:
        with self._transaction():
            for session, moment in used:
                self._sessions.touch(session, moment)

    def idle_since(self, time: float, limit: int) -> Sequence[str]:
        with self._database.reading():
            idle = self._sessions.records("AND used <= ? ORDER BY used", time)
            return [record.id for record in islice(idle, limit)]

    def latest_time(self) -> float:
        with self._database.reading():
            last_used = self._sessions.whole_rows("ended IS NULL ORDER BY used DESC")
            last_ended = self._sessions.whole_rows("ended IS NOT NULL ORDER BY ended DESC")
            rows = [*islice(last_used, 1), *islice(last_ended, 1)]
            recorded = self._sessions.recorded_time()
        return max((recorded, *(max(row.used, row.ended or 0.0) for row in rows)))

    def tidy(self, now: float) -> bool:
        with self._transaction():
            self._sessions.record_time(now)
            ended = self._sessions.whole_rows("ended < ? ORDER BY ended", now - REMEMBERED_FOR)
            old = [row.id for row in islice(ended, FORGOTTEN_AT_ONCE)]
            for session in old:
                self._database.run("DELETE FROM sessions WHERE id = ?", session)
        return len(old) == FORGOTTEN_AT_ONCE

    def probe(self) -> None:
        self._database.check_files()
        with self._database.errors():
            self._sessions.find("")

    def sync(self) -> None:
        self._database.sync()

    def check(self, progress: Callable[[int, int], None]) -> Iterator[str]:
        yield from (f"{self._database.path}: {problem}" for problem in self._journal.problems)
        yield from Damage(self._database.connection, self._database.path).find(progress)

    def close(self) -> None:
        if self._database.opens and self._database.is_watched and not self._database.is_overwritten:
            with suppress(StoreFailed):  # the next one to open the file folds it
                self._fold_all()
        self._database.close()

    def totals(self) -> tuple[int, int]:
        """Return the numbers of open and of ended sessions."""
        with self._database.reading():
            opened, ended = self._database.row("SELECT count(*) - count(ended), count(ended) FROM sessions")
            return opened, ended

    def contents(self) -> Generator[Item, None, None]:
        if self._journal.problems:
            raise SessionDamaged(f"{self._database.path}: {'; '.join(self._journal.problems)}")
        if self._database.opens:
            self._fold_all()
        with self._database.reading():
            yield ArchivedClock(self.latest_time())
            yield from Contents(self._database).items()

    def put(self, items: Iterable[Item]) -> None:
        with self._transaction():
            Arrivals(self._database, self._sessions, self._tapes).put(items)

    # Parts of the calls, within a transaction

    def _record(self, session: str) -> Record:
        return cast(Record, self._sessions.find(session))

    def _parent(self, session: NewSession) -> TapeRow | None:
        """Return the tape that a new session is to begin with. Raises StepNotKept."""
        if session.parent is None or not session.base:
            return None
        parent = self._tapes.known(session.parent)
        if parent is None or session.base < self._tapes.oldest(parent):
            raise StepNotKept(f"step {session.base} is not kept any more", place="step", got=str(session.base))
        return parent

    def _begin_next(self, entry: Entry, previous: int) -> None:
        """Put the session on the tape `previous` on a new one, which begins with it up to the entry's step.

        Do nothing where it is not there, under this epoch and at this step: the entry is then refused.
        """
        session, tape = self._sessions.on_tape(previous), self._tapes.find(previous)
        if session is None or tape is None or (tape.epoch, tape.head) != (entry.epoch, entry.step):
            return
        self._tapes.begin(entry.tape, tape, entry.step, seq=tape.seq, epoch=entry.epoch)
        self._sessions.update(session._replace(tape=entry.tape))
        self._tapes.update(tape._replace(head=None))
        self._tapes.collect(previous)

    def _forget(self, tape: TapeRow, step: int, now: float) -> None:
        """Delete what retention does not ask for, of a tape with a snapshot at `step`: up to one that is whole."""
        shared = self._tapes.shared(tape)
        last = step if shared is None else min(step, shared)
        found = self._snapshots.last_old(tape, last, self._retention, now)
        if found is not None:
            self._tapes.cut(tape, found)

    # The journal, and what the last server left

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._database.transaction(self._journal):
            yield

    def _fold_all(self) -> None:
        with self._transaction():
            self._journal.fold_all()

    def _replay(self, opens: bool) -> None:
        """Fold the journal that the last store left; do not commit it where the file is to stay as it is."""
        try:
            self._journal.load()
            self._fold_left(opens)
        except sqlite3.Error as error:
            if opens:
                raise
            self._journal.note_damage(f"the journal cannot be read: {error}")

    def _fold_left(self, commits: bool) -> None:
        """Fold the journal that was there; it stays where the pages of the log are damaged that its steps belong to."""
        self._database.run("BEGIN IMMEDIATE")
        try:
            self._journal.fold_all()
            if commits:
                self._database.run("COMMIT")
                self._journal.committed()
        except sqlite3.DatabaseError as error:
            self._database.roll_back(self._journal)
            if self._journal.problems or not is_malformed(error):
                raise
            self._journal.note_damage(f"the journal cannot be folded: {error}")

    def _recover(self, now: float) -> None:
        """End the volatile sessions that the last server did not park."""
        for row in [*self._sessions.whole_rows("unlogged AND ended IS NULL")]:
            self.end(row.id, "lost in a restart", now)

    def _now(self) -> float:
        """Return the time at which the last server's clock stopped; the system's where none was recorded."""
        return self.latest_time() or time.time()
