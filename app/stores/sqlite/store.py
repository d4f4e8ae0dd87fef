"""The embedded store: one SQLite file in the data directory."""

import ctypes
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice, pairwise, takewhile
from pathlib import Path
from typing import Any, cast

from app.errors import SessionDamaged, StepNotKept, StoreFailed
from app.stores.base import KEEP_ALL, REMEMBERED_FOR, EndReason, Entry, LoggedSteps, NewSession, Record, Retention
from app.stores.sqlite.damage import Damage
from app.stores.sqlite.files import OpenFile
from app.stores.sqlite.journal import JournalTable
from app.stores.sqlite.rows import (
    LogRow,
    SessionRow,
    TapeRow,
    checksum,
    entries_of,
    insert_into,
    is_whole_log,
    is_whole_snapshot,
    snapshot_checksum,
    update_of,
    whole,
)
from app.stores.sqlite.schema import SCHEMA_VERSION, migrate
from app.stores.sqlite.tapes import Tapes

logger = logging.getLogger(__name__)

FILE = "sessions.sqlite"
MEMORY = ":memory:"
WAL = 1
"""Which of the open files is the write-ahead log."""

INSERT = insert_into("sessions", SessionRow)
UPDATE = update_of("sessions", SessionRow)

RECORD = """
SELECT sessions.*, tapes.*, roots.*, (SELECT max(step) FROM snapshots WHERE tape = tapes.number AND NOT passing)
FROM sessions LEFT JOIN tapes ON tapes.number = sessions.tape LEFT JOIN tapes AS roots ON roots.number = tapes.root
"""
"""A session, its tape, that tape's root, and the step of its last snapshot that is not passing."""

LOG_ROWS = """
SELECT * FROM log WHERE tape = ?1 AND step < ?2 AND step >=
coalesce((SELECT max(step) FROM log WHERE tape = ?1 AND step <= ?3), ?3) ORDER BY step
"""
"""The rows of a tape with the steps after ?3, up to ?2."""

SESSION_END = len(SessionRow._fields) + 1
TAPE_END = SESSION_END + len(TapeRow._fields) + 1

NO_ROW = LogRow(0, 0, 0, b"", b"", 0)
"""Behind the last row of a log."""

DAMAGED = ("", "", None)
"""Model, fingerprint and memory size of a session that ended, and of which no more is known."""

FOREIGN = (sqlite3.Error, OSError)
"""Errors that are told as StoreFailed."""

CHECKPOINT_PAGES = 2048
"""Pages of the write-ahead log after which they are moved into the database: 8 MiB. All others wait meanwhile."""


class SqliteStore:
    """One file for one server at a time; SQLite's write-ahead log makes every call whole or nothing.

    With the directory None everything is in the process's memory, and goes with it.
    """

    def __init__(
        self, directory: Path | None, retention: Retention = KEEP_ALL, now: float | None = None, opens: bool = True
    ) -> None:
        """opens: begin anew, as a server does; else a file must be there, and stays as it is.

        Raises StoreFailed where the file cannot be used.
        """
        self._path = directory / FILE if directory else Path(MEMORY)
        self._retention = retention
        self._opens = opens
        self._files: tuple[OpenFile, ...] = ()
        self._synced = 0
        self._sync_failed = False
        self._told: set[str] = set()
        with self._errors():
            if directory:
                self._prepare(directory, opens)
            self._database = sqlite3.connect(self._path, isolation_level=None, timeout=0, check_same_thread=False)
            try:
                self._open(opens)
                if opens:
                    self._settle(time.time() if now is None else now)
                if directory:
                    self._files = _open_files(self._path)
                    _sync_directory(directory)
            except BaseException:
                self.close()
                raise

    def create(self, session: NewSession, owner: str) -> Record:
        with self._transaction():
            tape = self._tapes.new_number()
            parent = None
            if session.parent is not None and session.base:
                parent = self._tapes.known(session.parent)
                if parent is None or session.base < self._tapes.oldest(parent):
                    raise StepNotKept(f"step {session.base} is not kept any more", place="step", got=str(session.base))
            first = session.base if session.snapshot is not None else 0
            self._tapes.begin(tape, parent, session.base, first)
            now = float(session.now)
            row = SessionRow(
                *(session.id, session.model, session.fingerprint, session.memory_size, now, now, None, None),
                *(session.key, session.digest, owner, tape, 0),
            )
            self._run(INSERT, *row, checksum(row))
            if session.snapshot is not None:
                self._keep(self._tapes.get(tape), session.base, session.snapshot, now, passing=False)
            return cast(Record, self._find(session.id))

    def created(self, key: str) -> tuple[str, bytes] | None:
        with self._reading():
            row = self._session("creation_key", key)
            return (row.id, cast(bytes, row.creation_digest)) if row else None

    def find(self, session: str) -> Record | EndReason | None:
        with self._reading():
            return self._find(session)

    def claim(self, session: str, owner: str) -> Record | EndReason | None:
        with self._reading():
            row = self._session("id", session)
            if row is None or row.tape is None or row.owner == owner:
                return self._find(session)
        with self._transaction():
            tape = self._tapes.get(row.tape)
            self._update(row._replace(owner=owner))
            self._tapes.update(tape._replace(epoch=tape.epoch + 1))
            return self._find(session)

    def append(self, entries: Sequence[Entry]) -> set[int]:
        while self._journal.is_overdue:
            self.fold()
        with self._transaction():
            for entry in entries:
                if entry.previous_tape is not None:
                    self._begin_tape(entry, entry.previous_tape)
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
            self._keep(row, step, state, now, passing)
            if not passing:
                self._forget(row, step, now)
            return self._tapes.oldest(self._tapes.get(tape))

    def park(self, session: str, step: int, seq: int | None, state: bytes, now: float) -> None:
        with self._transaction():
            row, old = self._opened(session)
            tape = self._tapes.new_number()
            self._tapes.begin(tape, None, step, first=step, seq=seq, epoch=old.epoch)
            self._update(row._replace(tape=tape, unlogged=0))
            self._tapes.update(old._replace(head=None))
            self._keep(self._tapes.get(tape), step, state, now, passing=False)
            self._tapes.collect(old.number)

    def unlogged(self, session: str) -> None:
        with self._transaction():
            row, _ = self._opened(session)
            self._update(row._replace(unlogged=1))

    def before(self, tape: int, step: int) -> tuple[int, bytes] | None:
        with self._reading():
            row = self._tapes.known(tape)
            if row is None:
                return None
            for part, stop in self._tapes.upwards(row, step):
                rows = self._database.execute(
                    "SELECT step, taken, passing, state, checksum FROM snapshots WHERE tape = ? AND step <= ? "
                    "ORDER BY step DESC",
                    (part.number, stop),
                )
                for found, taken, passing, state, written in rows:
                    if is_whole_snapshot(part.number, found, taken, passing, state, written):
                        return found, state
                    logger.error("%s: the snapshot of tape %d at step %s is damaged", self._path, part.number, found)
            if 0 < self._tapes.oldest(row) <= step:
                raise SessionDamaged(f"{self._path}: no snapshot of tape {tape} up to step {step} is whole")
        return None

    def steps(self, tape: int, start: int, stop: int, limit: int) -> list[LoggedSteps]:
        found: list[LoggedSteps] = []
        with self._reading():
            row = self._tapes.known(tape)
            if row is None or start < self._tapes.oldest(row):
                return []
            for part, first, last in self._tapes.parts(row, start, min(stop, row.stop)):
                for steps in self._log(part.number, first, last):
                    found.append(steps)
                    limit -= len(steps.inputs)
                    if limit <= 0:
                        return found
        return found

    def frame(self, tape: int, seq: int) -> LoggedSteps | None:
        with self._reading():
            known = self._tapes.known(tape)
            if known is None:
                return None
            oldest = self._tapes.oldest(known)
            for row in self._rows_backwards(tape):
                if not is_whole_log(*row):
                    raise self._damaged_log(tape, row.step)
                for step, steps, found, inputs in reversed([*entries_of(row)]):
                    if found is not None and found <= seq:
                        return LoggedSteps(step, steps, inputs, seq) if found == seq and step >= oldest else None
        return None

    def move(self, session: str, step: int, seq: int | None) -> Record:
        with self._transaction():
            _, tape = self._opened(session)
            self._tapes.update(tape._replace(head=None if step == tape.stop else step, seq=seq))
            return cast(Record, self._find(session))

    def end(self, session: str, reason: EndReason, now: float) -> bool:
        with self._transaction():
            found = self._row("SELECT *, tape FROM sessions WHERE id = ? AND ended IS NULL", session)
            if found is None:
                return False
            *values, number = found
            now = float(now)
            row = whole(SessionRow, values) or SessionRow(
                session, *DAMAGED, now, now, None, None, None, None, "", None, 0
            )
            self._update(row._replace(ended=now, reason=reason, tape=None))
            tape = self._tapes.find(number)
            if tape is not None:
                self._tapes.update(tape._replace(epoch=tape.epoch + 1, head=None))  # it may stay, for a fork
            self._tapes.collect(number)
            return True

    def list(self, model: str | None, limit: int) -> "list[Record]":
        chosen, values = ("AND model = ?", (model,)) if model is not None else ("", ())
        with self._reading():
            return list(islice(self._whole_records(f"{chosen} ORDER BY used DESC", *values), limit))

    def counts(self) -> dict[str, int]:
        with self._reading():
            return dict(
                self._database.execute("SELECT model, count(*) FROM sessions WHERE ended IS NULL GROUP BY model")
            )

    def touch(self, used: Sequence[tuple[str, float]]) -> None:
        with self._transaction():
            for session, moment in used:
                row = whole(SessionRow, self._row("SELECT * FROM sessions WHERE id = ?", session))
                if row is not None:
                    row = row._replace(used=float(moment))
                    self._run(
                        "UPDATE sessions SET used = ?, checksum = ? WHERE id = ?", row.used, checksum(row), row.id
                    )

    def idle_since(self, time: float, limit: int) -> Sequence[str]:
        with self._reading():
            return [record.id for record in islice(self._whole_records("AND used <= ? ORDER BY used", time), limit)]

    def latest_time(self) -> float:
        with self._reading():
            last_used = self._whole_sessions("ended IS NULL ORDER BY used DESC")
            last_ended = self._whole_sessions("ended IS NOT NULL ORDER BY ended DESC")
            rows = [*islice(last_used, 1), *islice(last_ended, 1)]
        return max((max(row.used, row.ended or 0.0) for row in rows), default=0.0)

    def sync(self) -> None:
        self._check_files()
        if not self._files or self._database.total_changes == self._synced:
            return
        try:
            if self._sync_failed:  # the system may have given up on those pages: write what is in them anew
                self._checkpoint()
            os.fdatasync(self._files[WAL].number)
            self._synced, self._sync_failed = self._database.total_changes, False
        except OSError as error:
            self._sync_failed = True
            raise StoreFailed(f"{self._path}: what was written may not survive a power cut: {error}") from error

    def probe(self) -> None:
        self._check_files()
        with self._errors():
            self._find("")

    def check(self, tell: Callable[[int, int], None]) -> Iterator[str]:
        yield from (f"{self._path}: {problem}" for problem in self._journal.problems)
        yield from Damage(self._database, self._path).find(tell)

    def close(self) -> None:
        if any(file.was_overwritten for file in self._files):
            _never_close(self._database)
            return
        if self._opens and self._files:
            with suppress(StoreFailed):  # the next one to open the file folds it
                self._fold_all()
        self._database.close()
        for file in self._files:
            file.close()
        self._files = ()

    # What calls are made of: within a transaction, or within `_errors`

    def _prepare(self, directory: Path, opens: bool) -> None:
        """Make the data directory, or raise StoreFailed."""
        if not opens and not self._path.is_file():
            raise StoreFailed(f"{self._path}: no such file; a server with --data {directory} makes it")
        if not directory.is_dir():
            directory.mkdir(parents=True)
            _sync_directory(directory.absolute().parent)
        _check_writable(directory)

    def _open(self, opens: bool) -> None:
        self._database.text_factory = _as_text
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")  # what is more is for `sync` to do
        self._database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self._migrate(opens)
        self._journal = JournalTable(self._database, self._path)
        self._replay(opens)
        self._tapes = Tapes(self._database, self._path, self._journal, grows=opens)

    def _fold_all(self) -> None:
        with self._transaction():
            self._journal.fold_all()

    def _checkpoint(self) -> None:
        """Move what is in the write-ahead log into the database, and sync that."""
        with self._errors():
            busy, _, _ = self._row("PRAGMA wal_checkpoint(TRUNCATE)")
            self._leave_files()
            if busy:
                raise OSError("the write-ahead log could not be moved into the database")

    def _begin_tape(self, entry: Entry, parent: int) -> None:
        """Put the session that is on the tape `parent` on a new one, which begins with it up to the entry's step.

        Nothing is done where it is not there, under this epoch and at this step: the entry is refused then.
        """
        values = self._row("SELECT * FROM sessions WHERE tape = ?", parent)
        session, tape = whole(SessionRow, values), self._tapes.find(parent)
        if session is None or tape is None or (tape.epoch, tape.head) != (entry.epoch, entry.step):
            return
        self._tapes.begin(entry.tape, tape, entry.step, seq=tape.seq, epoch=entry.epoch)
        self._update(session._replace(tape=entry.tape))
        self._tapes.update(tape._replace(head=None))
        self._tapes.collect(parent)

    def _keep(self, tape: TapeRow, step: int, state: bytes, now: float, passing: bool) -> None:
        """Keep a snapshot; one with which a tape begins, or which is at this step already, does not pass."""
        number, now = tape.number, float(now)
        self._run("DELETE FROM snapshots WHERE tape = ? AND passing AND step != ?", number, tape.first)
        there = self._row("SELECT 1 FROM snapshots WHERE tape = ? AND step = ?", number, step)
        passes = int(passing and there is None)
        written = snapshot_checksum(number, step, now, passes, state)
        self._run(
            "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?)", number, step, now, passes, written, state
        )

    def _forget(self, tape: TapeRow, step: int, now: float) -> None:
        """Delete what retention does not ask for, of a tape with a snapshot at `step`: up to one that is whole."""
        shared = self._tapes.shared(tape)
        last = step if shared is None else min(step, shared)
        rows = self._database.execute(
            "SELECT step, taken, passing, state, checksum FROM snapshots WHERE tape = ? AND step <= ? AND step >= ? "
            "AND (step <= ? OR taken <= ?) ORDER BY step DESC",
            (
                tape.number,
                last,
                max(tape.base, tape.first),
                last - self._retention.steps,
                now - self._retention.seconds,
            ),
        )
        for found, *values in rows:
            if is_whole_snapshot(tape.number, found, *values):
                rows.close()
                self._tapes.cut(tape, found)
                return

    def _log(self, tape: int, start: int, stop: int) -> Iterator[LoggedSteps]:
        """Yield the log of one tape from `start` up to `stop`.

        Raises SessionDamaged where a row is damaged, or does not begin where the last one ended.
        """
        for row, following in pairwise(chain(self._rows(tape, start, stop), (NO_ROW,))):
            if not is_whole_log(*row):
                raise self._damaged_log(tape, row.step)
            end = row.step + row.steps
            if not row.step <= start < end or (following is not NO_ROW and following.step != end):
                raise self._damaged_log(tape, start)
            for step, steps, seq, inputs in takewhile(lambda entry: entry[0] < stop, entries_of(row)):
                first, last, width = max(step, start), min(step + steps, stop), len(inputs) // steps
                if first < last:
                    yield LoggedSteps(first, last - first, inputs[(first - step) * width : (last - step) * width], seq)
            start = min(end, stop)
        if start < stop:
            raise self._damaged_log(tape, start)

    def _rows(self, tape: int, start: int, stop: int) -> Iterator[LogRow]:
        """Yield the rows of one tape with the steps after `start`, up to `stop`: of the log, then of the journal."""
        tail = self._journal.tail(tape)
        folded = stop if tail is None else min(stop, tail.row.stop)
        if start < folded:
            yield from map(LogRow._make, self._database.execute(LOG_ROWS, (tape, folded, start)))
        if tail is not None and folded < stop:
            yield from tail.span(start, stop)

    def _rows_backwards(self, tape: int) -> Iterator[LogRow]:
        """Yield all rows of one tape, the last one first."""
        tail = self._journal.tail(tape)
        if tail is not None:
            yield from reversed(tail.rows())
        yield from map(
            LogRow._make, self._database.execute("SELECT * FROM log WHERE tape = ? ORDER BY step DESC", (tape,))
        )

    def _find(self, session: str) -> Record | EndReason | None:
        row = self._row(f"{RECORD} WHERE id = ?", session)
        return self._record(row) if row else None

    def _record(self, row: Sequence[Any]) -> Record | EndReason:
        """Return what RECORD found. Raises SessionDamaged."""
        session = whole(SessionRow, row[:SESSION_END])
        if session is None:
            raise self._damaged(row[0])
        if session.ended is not None:
            return cast(EndReason, session.reason)
        tape, root = whole(TapeRow, row[SESSION_END:TAPE_END]), whole(TapeRow, row[TAPE_END:-1])
        if tape is None or root is None:
            raise self._tapes.damaged(session.tape)
        tape, kept = self._journal.now(tape), row[-1]
        return Record(
            id=session.id,
            model=session.model,
            fingerprint=session.fingerprint,
            memory_size=session.memory_size,
            opened=session.opened,
            used=session.used,
            tape=tape.number,
            epoch=tape.epoch,
            step=tape.stop if tape.head is None else tape.head,
            latest=tape.stop,
            oldest=root.first,
            kept=tape.base if kept is None else kept,
            seq=tape.seq,
            next_tape=None if tape.head is None else self._tapes.new_number(),
            unlogged=bool(session.unlogged),
        )

    def _whole_records(self, condition: str, *values: Any) -> Iterator[Record]:
        """Yield open sessions; of those that are damaged there is a line in the log."""
        for row in self._database.execute(f"{RECORD} WHERE ended IS NULL {condition}", values):
            try:
                yield cast(Record, self._record(row))
            except SessionDamaged as error:
                self._tell(str(error))

    def _whole_sessions(self, condition: str, *values: Any) -> Iterator[SessionRow]:
        for found in self._database.execute(f"SELECT * FROM sessions WHERE {condition}", values):  # noqa: S608
            row = whole(SessionRow, found)
            if row is not None:
                yield row

    def _session(self, column: str, value: str) -> SessionRow | None:
        """Return the row of a session. Raises SessionDamaged."""
        values = self._row(f"SELECT * FROM sessions WHERE {column} = ?", value)  # noqa: S608
        row = whole(SessionRow, values)
        if row is None and values is not None:
            raise self._damaged(values[0])
        return row

    def _opened(self, session: str) -> tuple[SessionRow, TapeRow]:
        """Return the rows of an open session and of its tape. Raises SessionDamaged."""
        row = self._session("id", session)
        if row is None or row.tape is None:
            raise StoreFailed(f"{self._path}: session {session} is not open")
        return row, self._tapes.get(row.tape)

    def _update(self, row: SessionRow) -> None:
        """Write a session that was read and changed."""
        self._run(UPDATE, *row[1:], checksum(row), row.id)

    def _damaged(self, session: str) -> SessionDamaged:
        return SessionDamaged(
            f"{self._path}: the row of session {session} is damaged; engram check lists what is damaged"
        )

    def _damaged_log(self, tape: int, step: int) -> SessionDamaged:
        return SessionDamaged(f"{self._path}: the log of tape {tape} is damaged at step {step}")

    def _tell(self, message: str) -> None:
        """Write a line in the log, once."""
        if message not in self._told:
            self._told.add(message)
            logger.error("%s", message)

    def _row(self, statement: str, *values: Any) -> Any:
        return self._database.execute(statement, values).fetchone()

    def _run(self, statement: str, *values: Any) -> int:
        return self._database.execute(statement, values).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._check_files()
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
                self._journal.committed()
            except BaseException:
                self._journal.rolled_back()
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            finally:
                self._leave_files()
        except FOREIGN as error:
            raise self._failed(error) from error

    def _check_files(self) -> None:
        """Raise StoreFailed unless the files that this store has open lie where they should, as it left them."""
        for file in self._files:
            file.check()

    def _leave_files(self) -> None:
        """Remember the files as a commit left them. Raises StoreFailed where they no longer lie where they should."""
        are_there = [file.leave() for file in self._files]
        if not all(are_there):
            self._check_files()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._errors():
            for file in self._files:
                file.check_content()
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FOREIGN as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreFailed:
        return StoreFailed(f"{self._path}: {error}{_remedy(str(error), self._opens)}")

    def _migrate(self, opens: bool) -> None:
        (version,) = self._row("PRAGMA user_version")
        if not 0 <= version <= SCHEMA_VERSION:
            raise StoreFailed(f"{self._path}: schema {version} is newer than this version's, {SCHEMA_VERSION}")
        if version < SCHEMA_VERSION and not opens:
            raise StoreFailed(
                f"{self._path}: schema {version} is an earlier version's: engram serve brings it up to date"
            )
        if version < SCHEMA_VERSION:
            if version:
                logger.info("%s: bringing schema %d up to date, to %d", self._path, version, SCHEMA_VERSION)
            try:
                migrate(self._database, version)
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:
                    raise
                raise StoreFailed(
                    f"{self._path}: schema {version} cannot be brought up to date, and nothing in it was changed: "
                    f"{error}; serve it with the version that wrote it, or take a copy of before"
                ) from error

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
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._journal.fold_all()
            if commits:
                self._database.execute("COMMIT")
                self._journal.committed()
        except sqlite3.DatabaseError as error:
            self._journal.rolled_back()
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            if self._journal.problems or type(error) is not sqlite3.DatabaseError:
                raise
            self._journal.note_damage(f"the journal cannot be folded: {error}")

    def _settle(self, now: float) -> None:
        """End the sessions that the last server did not park, and forget those that ended long ago."""
        for row in [*self._whole_sessions("unlogged AND ended IS NULL")]:
            self.end(row.id, "lost in a restart", now)
        with self._transaction():
            for row in [*self._whole_sessions("ended < ?", now - REMEMBERED_FOR)]:
                self._run("DELETE FROM sessions WHERE id = ?", row.id)


def _open_files(path: Path) -> tuple[OpenFile, OpenFile]:
    """Return the database and its write-ahead log."""
    move = "move it back, or stop the server and start it with the data directory that it is to use"
    stop = f"stop the server, which then moves what it has into {path.name}, and start it again"
    return OpenFile(path, move, grows=False), OpenFile(path.with_name(f"{path.name}-wal"), stop, grows=True)


def _never_close(database: sqlite3.Connection) -> None:
    """Keep a database open until the process ends: to close it, SQLite writes into its file and deletes its log."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))


def _as_text(data: bytes) -> str:
    """Return text also of bytes that are none: one damaged row must not keep others from being read."""
    return data.decode(errors="surrogateescape")


def _remedy(message: str, serves: bool) -> str:
    if "locked" in message:
        return "; is another server using this data directory?"
    if "malformed" in message or "not a database" in message:
        return "; engram check says what is damaged" if serves else "; nothing in it can be read: take a copy of before"
    if "full" in message:
        return "; make room on the disk"
    return ""


def _check_writable(directory: Path) -> None:
    """Raise StoreFailed where files of a directory cannot be changed; SQLite would speak of an I/O error."""
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StoreFailed(f"{directory}: the data directory is read-only: make it writable, or choose another (--data)")


def _sync_directory(directory: Path) -> None:
    """Make the names of the files in a directory survive a power cut."""
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
