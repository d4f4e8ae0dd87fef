"""The embedded store: one SQLite file in the data directory."""

import logging
import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from app.errors import SessionDamaged, StepNotKept, StoreFailed
from app.stores.base import EndReason, Entry, NewSession, Record, Retention, Steps

logger = logging.getLogger(__name__)

FILE = "sessions.sqlite"
MEMORY = ":memory:"
SCHEMA_VERSION = 2

SCHEMA = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    memory_size INTEGER,
    opened REAL NOT NULL,
    used REAL NOT NULL,
    ended REAL,
    reason TEXT,
    creation_key TEXT UNIQUE,
    creation_digest BLOB,
    owner TEXT NOT NULL,
    tape INTEGER UNIQUE,   -- none once it has ended
    head INTEGER,          -- the step that it was rewound to; none where it is at the end of its tape
    unlogged INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_use ON sessions (used) WHERE ended IS NULL;
CREATE INDEX sessions_by_model ON sessions (model, used) WHERE ended IS NULL;
CREATE TABLE tapes (
    number INTEGER PRIMARY KEY,
    parent INTEGER,        -- the tape that it begins with, up to `base`
    base INTEGER NOT NULL,
    first INTEGER NOT NULL,
    stop INTEGER NOT NULL, -- the step after its last
    seq INTEGER,
    epoch INTEGER NOT NULL
);
CREATE INDEX tapes_by_parent ON tapes (parent, base) WHERE parent IS NOT NULL;
CREATE TABLE log (
    tape INTEGER NOT NULL,
    step INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    seq INTEGER,
    inputs BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (tape, step)
) WITHOUT ROWID;
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

FROM_1 = f"""
ALTER TABLE sessions RENAME TO sessions_1;
{SCHEMA};
INSERT INTO sessions SELECT id, model, '', NULL, opened, opened, coalesce(ended, opened),
    coalesce(reason, 'lost in a restart'), NULL, NULL, '', NULL, NULL, 0 FROM sessions_1;
DROP TABLE sessions_1
"""  # noqa: S608

RECORD = """
SELECT id, model, fingerprint, memory_size, opened, used, tape, epoch, coalesce(head, stop), stop,
    coalesce((SELECT max(step) FROM snapshots WHERE snapshots.tape = number AND NOT passing), base), seq, head,
    unlogged, reason
FROM sessions LEFT JOIN tapes ON number = sessions.tape
"""

HEIRS = """
WITH RECURSIVE heirs(number, base) AS (
    SELECT number, base FROM tapes WHERE parent = ?
    UNION ALL
    SELECT tapes.number, min(tapes.base, heirs.base) FROM tapes JOIN heirs ON parent = heirs.number
)
SELECT min(min(base, coalesce(head, base))) FROM heirs LEFT JOIN sessions ON tape = number
"""
"""The first step up to which a tape is the past of another, be it by way of a third, or at which a session is there."""

REMEMBERED_FOR = 30 * 86400
"""Seconds after which it is forgotten that a session ended."""

KEEP_ALL = Retention(2**62, 1e12)

CHECKPOINT_PAGES = 8192
"""Pages of the write-ahead log after which they are moved into the database: 32 MiB."""


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
        self._wal: int | None = None
        self._synced = 0
        self._sync_failed = False
        with self._errors():
            if directory and not opens and not self._path.is_file():
                raise StoreFailed(f"{self._path}: no such file; a server with --data {directory} makes it")
            if directory and not directory.is_dir():
                directory.mkdir(parents=True)
                _sync_directory(directory.absolute().parent)
            if directory:
                _check_writable(directory)
            self._database = sqlite3.connect(self._path, isolation_level=None, timeout=0, check_same_thread=False)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")  # what is more is for `sync` to do
            self._database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            self._migrate(opens)
            if opens:
                self._settle(time.time() if now is None else now)
            if directory:
                self._wal = os.open(f"{self._path}-wal", os.O_RDONLY)
                _sync_directory(directory)
            self._tapes: int = self._row("SELECT coalesce(max(number), 0) FROM tapes")[0]

    def create(self, session: NewSession, owner: str) -> Record:
        with self._transaction():
            tape = self._new_tape()
            first = session.base if session.snapshot is not None else 0
            parent = self._holder(session.parent, session.base)
            if parent is not None and session.base < self._oldest(parent):
                raise StepNotKept(f"step {session.base} is not kept any more", place="step", got=str(session.base))
            self._run(
                "INSERT INTO tapes VALUES (?, ?, ?, ?, ?, NULL, 1)", tape, parent, session.base, first, session.base
            )
            self._run(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?, ?, ?, NULL, 0)",
                *(session.id, session.model, session.fingerprint, session.memory_size, session.now, session.now),
                *(session.key, session.digest, owner, tape),
            )
            if session.snapshot is not None:
                self._keep(tape, session.base, session.snapshot, session.now, passing=False)
            return cast(Record, self._find(session.id))

    def created(self, key: str) -> tuple[str, bytes] | None:
        with self._errors():
            row = self._row("SELECT id, creation_digest FROM sessions WHERE creation_key = ?", key)
            return (row[0], row[1]) if row else None

    def find(self, session: str) -> Record | EndReason | None:
        with self._errors():
            return self._find(session)

    def claim(self, session: str, owner: str) -> Record | EndReason | None:
        with self._transaction():
            changed = self._run(
                "UPDATE sessions SET owner = ? WHERE id = ? AND owner != ? AND ended IS NULL", owner, session, owner
            )
            if changed:
                self._run(
                    "UPDATE tapes SET epoch = epoch + 1 WHERE number = (SELECT tape FROM sessions WHERE id = ?)",
                    session,
                )
            return self._find(session)

    def append(self, entries: Sequence[Entry]) -> set[int]:
        try:
            with self._transaction():
                self._append(entries)
        except _RefusedError:
            with self._transaction():
                return {index for index, entry in enumerate(entries) if not self._append_alone(entry)}
        return set()

    def snapshot(self, tape: int, step: int, state: bytes, now: float, passing: bool) -> int:
        with self._transaction():
            if not self._keep(tape, step, state, now, passing):
                return step
            if not passing:
                self._forget(tape, step, now)
            return self._oldest(tape)

    def park(self, session: str, step: int, seq: int | None, state: bytes, now: float) -> None:
        with self._transaction():
            old, epoch = self._row("SELECT tape, epoch FROM sessions JOIN tapes ON number = tape WHERE id = ?", session)
            tape = self._new_tape()
            self._run("INSERT INTO tapes VALUES (?, NULL, ?, ?, ?, ?, ?)", tape, step, step, step, seq, epoch)
            self._run("UPDATE sessions SET tape = ?, unlogged = 0, head = NULL WHERE id = ?", tape, session)
            self._keep(tape, step, state, now, passing=False)
            self._collect(old)

    def unlogged(self, session: str) -> None:
        with self._transaction():
            self._run("UPDATE sessions SET unlogged = 1 WHERE id = ?", session)

    def before(self, tape: int, step: int) -> tuple[int, bytes] | None:
        is_damaged = False
        with self._errors():
            for part, stop in self._chain(tape, step):
                rows = self._database.execute(
                    "SELECT step, state, checksum FROM snapshots WHERE tape = ? AND step <= ? ORDER BY step DESC",
                    (part, stop),
                )
                for found, state, checksum in rows:
                    if checksum == _snapshot_checksum(part, found, state):
                        return found, state
                    logger.error("%s: the snapshot of tape %d at step %d is damaged", self._path, part, found)
                    is_damaged = True
            if is_damaged and self._oldest(tape):
                raise SessionDamaged(f"{self._path}: no snapshot of tape {tape} up to step {step} is whole")
        return None

    def steps(self, tape: int, start: int, stop: int, limit: int) -> list[Steps]:
        found: list[Steps] = []
        with self._errors():
            parts = [(part, end) for part, end in self._chain(tape, stop, start)]
            for part, end in reversed(parts):
                for steps in self._log(part, start, end):
                    found.append(steps)
                    start, limit = steps.step + steps.steps, limit - len(steps.inputs)
                    if limit <= 0:
                        return found
        return found

    def frame(self, tape: int, seq: int) -> Steps | None:
        with self._errors():
            row = self._row("SELECT step, steps FROM log WHERE tape = ? AND seq = ? ORDER BY step DESC", tape, seq)
            return next(self._log(tape, row[0], row[0] + row[1])) if row else None

    def move(self, session: str, step: int, seq: int | None) -> Record:
        with self._transaction():
            self._run("UPDATE sessions SET head = ? WHERE id = ?", step, session)
            self._run("UPDATE tapes SET seq = ? WHERE number = (SELECT tape FROM sessions WHERE id = ?)", seq, session)
            return cast(Record, self._find(session))

    def end(self, session: str, reason: EndReason, now: float) -> bool:
        with self._transaction():
            row = self._row("SELECT tape FROM sessions WHERE id = ? AND ended IS NULL", session)
            if row is None:
                return False
            self._run("UPDATE sessions SET ended = ?, reason = ?, tape = NULL WHERE id = ?", now, reason, session)
            self._run("UPDATE tapes SET epoch = epoch + 1 WHERE number = ?", row[0])  # it may stay, for a fork
            self._collect(row[0])
            return True

    def list(self, model: str | None, limit: int) -> "list[Record]":
        chosen, values = ("AND model = ?", (model,)) if model is not None else ("", ())
        with self._errors():
            rows = self._database.execute(
                f"{RECORD} WHERE ended IS NULL {chosen} ORDER BY used DESC LIMIT ?", (*values, limit)
            ).fetchall()
            return [self._record(row) for row in rows]

    def counts(self) -> dict[str, int]:
        with self._errors():
            return dict(
                self._database.execute("SELECT model, count(*) FROM sessions WHERE ended IS NULL GROUP BY model")
            )

    def touch(self, used: Sequence[tuple[str, float]]) -> None:
        with self._transaction():
            self._database.executemany(
                "UPDATE sessions SET used = ? WHERE id = ?", [(moment, session) for session, moment in used]
            )

    def idle_since(self, time: float, limit: int) -> Sequence[str]:
        with self._errors():
            rows = self._database.execute(
                "SELECT id FROM sessions WHERE ended IS NULL AND used <= ? ORDER BY used LIMIT ?", (time, limit)
            )
            return [session for (session,) in rows]

    def latest_time(self) -> float:
        with self._errors():
            (latest,) = self._row("SELECT coalesce(max(max(used), max(coalesce(ended, 0))), 0.0) FROM sessions")
            return float(latest)

    def sync(self) -> None:
        if self._wal is None or self._database.total_changes == self._synced:
            return
        try:
            if self._sync_failed:  # the system may have given up on those pages: write what is in them anew
                self._checkpoint()
            os.fdatasync(self._wal)
            self._synced, self._sync_failed = self._database.total_changes, False
        except OSError as error:
            self._sync_failed = True
            raise StoreFailed(f"{self._path}: what was written may not survive a power cut: {error}") from error

    def check(self, tell: Callable[[int, int], None]) -> Iterator[str]:
        with self._errors():
            for (line,) in self._database.execute("PRAGMA integrity_check").fetchall():
                if line != "ok":
                    yield f"{self._path}: {line}"
            sessions = self._database.execute("SELECT id FROM sessions WHERE ended IS NULL ORDER BY id").fetchall()
        for done, (session,) in enumerate(sessions):
            tell(done, len(sessions))
            yield from self._check_session(session)
        tell(len(sessions), len(sessions))

    def close(self) -> None:
        self._database.close()
        if self._wal is not None:
            os.close(self._wal)
            self._wal = None

    # What calls are made of: within a transaction, or within `_errors`

    def _append(self, entries: Sequence[Entry]) -> None:
        """Raises _RefusedError where an entry's epoch is over or its step is not the next."""
        for entry in entries:
            if entry.branch is not None:
                self._begin_tape(entry, entry.branch)
        changed = self._database.executemany(
            "UPDATE tapes SET stop = stop + ?, seq = coalesce(?, seq) WHERE number = ? AND epoch = ? AND stop = ?",
            [(entry.steps, entry.seq, entry.tape, entry.epoch, entry.step) for entry in entries],
        ).rowcount
        if changed != len(entries):
            raise _RefusedError
        self._database.executemany(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)",
            [(entry.tape, entry.step, entry.steps, entry.seq, entry.inputs, _checksum(entry)) for entry in entries],
        )

    def _append_alone(self, entry: Entry) -> bool:
        """Append an entry within a transaction, unless it is refused, which is before it writes anything."""
        try:
            self._append([entry])
        except _RefusedError:
            return False
        return True

    def _checkpoint(self) -> None:
        """Move what is in the write-ahead log into the database, and sync that."""
        with self._errors():
            busy, _, _ = self._row("PRAGMA wal_checkpoint(TRUNCATE)")
            if busy:
                raise OSError("the write-ahead log could not be moved into the database")

    def _begin_tape(self, entry: Entry, parent: int) -> None:
        """Put the session that is on the tape `parent` on a new one, which begins with it up to the entry's step."""
        row = self._row(
            "SELECT id, seq FROM sessions JOIN tapes ON number = tape WHERE tape = ? AND epoch = ? AND head = ?",
            *(parent, entry.epoch, entry.step),
        )
        if row is None:
            raise _RefusedError
        self._run(
            "INSERT INTO tapes VALUES (?, ?, ?, 0, ?, ?, ?)",
            *(entry.tape, self._holder(parent, entry.step), entry.step, entry.step, row[1], entry.epoch),
        )
        self._run("UPDATE sessions SET tape = ?, head = NULL WHERE id = ?", entry.tape, row[0])
        self._collect(parent)

    def _holder(self, tape: int | None, step: int) -> int | None:
        """Return which has the last step up to `step`, of a tape and those that it begins with; None before the first.

        What begins there begins with that one alone: no tape is kept only because it leads to another.
        """
        if not step:
            return None
        while tape is not None:
            parent, base = self._row("SELECT parent, base FROM tapes WHERE number = ?", tape)
            if parent is None or step > base:
                break
            tape = parent
        return tape

    def _keep(self, tape: int, step: int, state: bytes, now: float, passing: bool) -> bool:
        """Keep a snapshot, unless its tape is gone meanwhile; return whether it was kept."""
        self._run("DELETE FROM snapshots WHERE tape = ? AND passing", tape)
        written = self._run(
            "INSERT OR REPLACE INTO snapshots SELECT number, ?1, ?2, ?3 AND NOT EXISTS "
            "(SELECT 1 FROM snapshots WHERE tape = number AND step = ?1), ?4, ?5 FROM tapes WHERE number = ?6",
            *(step, now, passing, _snapshot_checksum(tape, step, state), state, tape),
        )
        return written > 0

    def _forget(self, tape: int, step: int, now: float) -> None:
        """Delete what retention does not ask for, of a tape with a snapshot at `step`."""
        (shared,) = self._row(HEIRS, tape)
        last = step if shared is None else min(step, shared)
        (by_count,) = self._row(
            "SELECT max(step) FROM snapshots WHERE tape = ? AND step <= ?", tape, last - self._retention.steps
        )
        (by_age,) = self._row(
            "SELECT max(step) FROM snapshots WHERE tape = ? AND step <= ? AND taken <= ?",
            *(tape, last, now - self._retention.seconds),
        )
        limits = [limit for limit in (by_count, by_age) if limit is not None]
        if limits:
            self._cut(tape, max(limits))

    def _cut(self, tape: int, step: int) -> None:
        """Let a tape begin with its snapshot at `step`."""
        (parent,) = self._row("SELECT parent FROM tapes WHERE number = ?", tape)
        self._run("DELETE FROM log WHERE tape = ? AND step + steps <= ?", tape, step)
        self._run("DELETE FROM snapshots WHERE tape = ? AND step < ?", tape, step)
        self._run("UPDATE tapes SET first = ?, parent = NULL WHERE number = ?", step, tape)
        self._collect(parent)

    def _collect(self, tape: int | None) -> None:
        """Delete what no session can reach any more of a tape, and of those that it began with."""
        while tape is not None and self._row("SELECT 1 FROM sessions WHERE tape = ?", tape) is None:
            (last,) = self._row("SELECT max(base) FROM tapes WHERE parent = ?", tape)
            self._run("DELETE FROM log WHERE tape = ? AND step >= ?", tape, -1 if last is None else last)
            self._run("DELETE FROM snapshots WHERE tape = ? AND step > ?", tape, -1 if last is None else last)
            if last is not None:
                return
            (parent,) = self._row("SELECT parent FROM tapes WHERE number = ?", tape)
            self._run("DELETE FROM tapes WHERE number = ?", tape)
            tape = parent

    def _chain(self, tape: int, stop: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the tapes that lead to the step `stop`, the last one first, each with the step up to which it does.

        Those that only lead to `start` are left out.
        """
        part: int | None = tape
        while part is not None:
            yield part, stop
            part, base = self._row("SELECT parent, base FROM tapes WHERE number = ?", part) or (None, 0)
            stop = min(stop, base)
            if stop <= start:
                return

    def _log(self, tape: int, start: int, stop: int) -> Iterator[Steps]:
        """Yield the log of one tape from `start` up to `stop`. Raises SessionDamaged."""
        rows = self._database.execute(
            "SELECT step, steps, inputs, seq, checksum FROM log WHERE tape = ?1 AND step < ?2 AND step >= "
            "coalesce((SELECT max(step) FROM log WHERE tape = ?1 AND step <= ?3), ?3) ORDER BY step",
            (tape, stop, start),
        )
        for step, steps, inputs, seq, checksum in rows:
            if checksum != _checksum(Entry(tape, 0, step, steps, inputs, seq)):
                raise SessionDamaged(f"{self._path}: the log of tape {tape} is damaged at step {step}")
            first, last = max(step, start), min(step + steps, stop)
            width = len(inputs) // steps
            if first < last:
                yield Steps(first, last - first, inputs[(first - step) * width : (last - step) * width], seq)

    def _find(self, session: str) -> Record | EndReason | None:
        row = self._row(f"{RECORD} WHERE id = ?", session)
        if row is None:
            return None
        return cast(EndReason, row[-1]) if row[-1] else self._record(row)

    def _record(self, row: Sequence[Any]) -> Record:
        (
            session,
            model,
            fingerprint,
            memory_size,
            opened,
            used,
            tape,
            epoch,
            step,
            latest,
            kept,
            seq,
            head,
            unlogged,
            _,
        ) = row
        return Record(
            id=session,
            model=model,
            fingerprint=fingerprint,
            memory_size=memory_size,
            opened=opened,
            used=used,
            tape=tape,
            epoch=epoch,
            step=step,
            latest=latest,
            oldest=self._oldest(tape),
            kept=kept,
            seq=seq,
            branch=None if head is None else self._new_tape(),
            unlogged=bool(unlogged),
        )

    def _oldest(self, tape: int) -> int:
        """Return the first step that a tape, or those that it begins with, can lead to."""
        part: int | None = tape
        first = 0
        while part is not None:
            row = self._row("SELECT parent, first FROM tapes WHERE number = ?", part)
            part, first = row[0], int(row[1])
        return first

    def _new_tape(self) -> int:
        """Return a number that no tape has had since the store was opened."""
        self._tapes += 1
        return self._tapes

    def _check_session(self, session: str) -> Iterator[str]:
        """Yield what is damaged of an open session."""
        try:
            record = self.find(session)
            assert isinstance(record, Record)
            reached = record.oldest
            for steps in self._whole_log(record.tape, reached, record.latest):
                if steps.step != reached:
                    break
                reached += steps.steps
            if reached < record.latest:
                yield f"session {session}: its log ends at step {reached}, but it was at {record.latest}"
            for tape, stop in self._chain(record.tape, record.latest):
                rows = self._database.execute(
                    "SELECT step, state, checksum FROM snapshots WHERE tape = ? AND step <= ?", (tape, stop)
                )
                for step, state, checksum in rows:
                    if checksum != _snapshot_checksum(tape, step, state):
                        yield f"session {session}: its snapshot at step {step} is damaged"
        except (SessionDamaged, StoreFailed) as error:
            yield f"session {session}: {error}"

    def _whole_log(self, tape: int, start: int, stop: int) -> Iterator[Steps]:
        while found := self.steps(tape, start, stop, 2**20):
            yield from found
            start = found[-1].step + found[-1].steps

    def _row(self, statement: str, *values: Any) -> Any:
        return self._database.execute(statement, values).fetchone()

    def _run(self, statement: str, *values: Any) -> int:
        return self._database.execute(statement, values).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"{self._path}: {error}{_remedy(str(error))}") from error

    def _migrate(self, opens: bool) -> None:
        (version,) = self._row("PRAGMA user_version")
        if version > SCHEMA_VERSION:
            raise StoreFailed(f"{self._path}: schema {version} is newer than this version's, {SCHEMA_VERSION}")
        if version < SCHEMA_VERSION and not opens:
            raise StoreFailed(
                f"{self._path}: schema {version} is an earlier version's: engram serve brings it up to date"
            )
        if version < SCHEMA_VERSION:
            change = SCHEMA if version == 0 else FROM_1
            self._database.executescript(f"BEGIN; {change}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")

    def _settle(self, now: float) -> None:
        """End the sessions that the last server did not park, and forget those that ended long ago."""
        for (session,) in self._database.execute("SELECT id FROM sessions WHERE unlogged AND ended IS NULL").fetchall():
            self.end(session, "lost in a restart", now)
        self._run("DELETE FROM sessions WHERE ended < ?", now - REMEMBERED_FOR)


class _RefusedError(Exception):
    """An entry is not to be written."""


def _checksum(entry: Entry) -> int:
    key = struct.pack("<qqqq", entry.tape, entry.step, entry.steps, -1 if entry.seq is None else entry.seq)
    return zlib.crc32(entry.inputs, zlib.crc32(key))


def _snapshot_checksum(tape: int, step: int, state: bytes) -> int:
    return zlib.crc32(state, zlib.crc32(struct.pack("<qq", tape, step)))


def _remedy(message: str) -> str:
    if "locked" in message:
        return "; is another server using this data directory?"
    if "malformed" in message or "not a database" in message:
        return "; engram check says what is damaged"
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
