"""The store that several servers share, in PostgreSQL.

PostgresStore   the calls, each one statement or one transaction
  SessionTable    Tapes    Snapshots    Log    Partitions      the tables
  Database        one connection, errors

A server is the owner of the sessions that it has claimed, as long as its row in `servers` is there. Another server may
delete the row once the lease has run out, which fences the server: its steps are refused from then on, and its sessions
are free. No row of a session is changed for that.
"""

import functools
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

from app.errors import SessionDamaged, StepNotKept, StoreFailed
from app.stores.archive import ArchivedClock, Item
from app.stores.base import (
    FORGOTTEN_AT_ONCE,
    KEEP_ALL,
    REMEMBERED_FOR,
    EndReason,
    Entry,
    Held,
    LoggedSteps,
    NewSession,
    Record,
    Retention,
)
from app.stores.postgres.archive import Arrivals, Contents, check_unused
from app.stores.postgres.check import problems
from app.stores.postgres.database import DISK_FULL, NO_PARTITION, READ_ONLY, REMEDIES, Database, retried, state
from app.stores.postgres.log import Log
from app.stores.postgres.partitions import Partitions
from app.stores.postgres.schema import check_version, prepare
from app.stores.postgres.sessions import SessionTable
from app.stores.postgres.snapshots import Snapshots
from app.stores.postgres.tapes import TapeRow, Tapes, moved

P = ParamSpec("P")
T = TypeVar("T")

ADD_UP = """
    WITH gone AS (
        DELETE FROM counts WHERE server <> '' AND NOT EXISTS (SELECT FROM servers WHERE id = server)
        RETURNING model, tenant, sessions
    )
    INSERT INTO counts SELECT '', model, tenant, sum(sessions) FROM gone GROUP BY model, tenant
    ON CONFLICT (server, model, tenant) DO UPDATE SET sessions = counts.sessions + excluded.sessions
    """
"""Add the counts of servers that are gone to those of nobody."""


def call(method: "Callable[Concatenate[PostgresStore, P], T]") -> "Callable[Concatenate[PostgresStore, P], T]":
    """Have a method begin again where the database undid it, and forget what is remembered where it fails."""
    again = retried(method)

    @functools.wraps(method)
    def carry_out(store: "PostgresStore", /, *arguments: P.args, **named: P.kwargs) -> T:
        store._ahead = None
        try:
            return again(store, *arguments, **named)
        except BaseException:
            store._log.forget_all()
            raise

    return carry_out


TRY_TO_WRITE = ("CREATE UNLOGGED TABLE room AS SELECT generate_series(1, 10000)", "DROP TABLE room")
"""Write some hundred kilobytes to the disk of the log, and delete them."""

PATIENT = "SET LOCAL idle_in_transaction_session_timeout = 0"
"""Let a client that reads or writes everything take its time between two statements."""


class FenceObserver(Protocol):
    """The store reports to it, from its own thread."""

    def takeover(self) -> None:
        """The lease of another server, which had run out, was ended for its sessions."""

    def refused(self, entries: int) -> None:
        """Entries were refused because of their epoch, or because this server is fenced."""


class Ahead(NamedTuple):
    """Steps of a tape that were read with the snapshot before them."""

    tape: int
    start: int
    stop: int
    log: list[LoggedSteps]


class PostgresStore:
    """Sessions and tapes in a PostgreSQL database, which several servers may share; each uses a store of its own."""

    def __init__(
        self,
        url: str,
        retention: Retention = KEEP_ALL,
        owners: Callable[[], Collection[str]] = tuple,
        name: str = "",
        observer: FenceObserver | None = None,
    ) -> None:
        """Open the store, and make its tables where there are none. Raises StoreFailed where it cannot be used.

        owners: under which this process claims sessions at present, each with a row in `servers`. name: of the server,
        for people who look into the database.
        """
        self._retention = retention
        self._owners = owners
        self._database = database = Database(url, f"engram {name}".rstrip())
        self._tapes = Tapes(database, owners)
        self._sessions = SessionTable(database, owners)
        self._snapshots = Snapshots(database, owners)
        self._log = Log(database, owners)
        if observer is not None:
            self._log.on_refused = observer.refused
            self._sessions.on_takeover = observer.takeover
        self._partitions = Partitions(database, retention)
        self._is_full = False
        """Whether the last steps could not be written because the disk of the database was full."""
        self._ahead: Ahead | None = None
        """Read by `before` for the next call, which usually asks for it."""
        try:
            prepare(database)
            self._partitions.extend()
        except BaseException:
            database.close()
            raise

    def interrupt(self) -> None:
        """Break the connection, from any thread: a call that waits for the database raises StoreFailed."""
        self._database.interrupt()

    # Sessions

    @call
    def create(self, session: NewSession, owner: str) -> Record:
        if session.parent is None or not session.base:
            first = session.base if session.snapshot is not None else 0
            with self._database.transaction() if session.takes_key else nullcontext():
                if session.takes_key:
                    self._sessions.release_key(str(session.key))
                record = self._sessions.insert(session, owner, None, first)
            return self._remembered(record)
        with self._database.transaction():
            locked = self._tapes.lock(session.parent)
            oldest = self._tapes.oldest(locked.row) if locked is not None else 0
            if locked is None or not oldest <= session.base <= locked.row.stop:
                raise StepNotKept(f"step {session.base} is not kept any more", place="step", got=str(session.base))
            holder = self._tapes.holder(locked.row, session.base)
            record = self._sessions.insert(session, owner, holder, oldest)
        return self._remembered(record)

    @call
    def created(self, key: str) -> tuple[str, bytes] | None:
        return self._sessions.created(key)

    @call
    def find(self, session: str) -> Record | EndReason | None:
        return self._sessions.find(session)

    @call
    def claim(self, session: str, owner: str) -> Record | EndReason | Held | None:
        found, died = self._sessions.claim(session, owner)
        if not isinstance(found, Record):
            return found
        if died and found.volatile:
            reason: EndReason = "lost in a restart"
            self._end(session, reason, self._sessions.latest_time())
            return reason
        return self._remembered(found)

    @call
    def release(self, session: str, owner: str, used: float | None = None) -> bool:
        tape = self._sessions.release(session, owner, used)
        if tape is None:
            return False
        self._log.forget(tape)
        return True

    @call
    def move(self, session: str, step: int, seq: int | None) -> Record:
        with self._database.transaction():
            row = self._own(session)
            if 0 < step < self._tapes.oldest(row):
                raise StepNotKept(f"step {step} is not kept any more", place="step", got=str(step))
            self._tapes.move(row, step, seq)
            record = self._sessions.find(session)
        assert isinstance(record, Record)
        return self._remembered(record)

    @call
    def mark_volatile(self, session: str) -> None:
        self._sessions.mark_volatile(session)

    @call
    def end(self, session: str, reason: EndReason, now: float) -> bool:
        return self._end(session, reason, now)

    # Tapes

    @call
    def append(self, entries: Sequence[Entry]) -> set[int]:
        try:
            return self._append(entries)
        except StoreFailed as error:
            self._is_full = state(error) == DISK_FULL
            if state(error) != NO_PARTITION:
                raise
        self._log.forget_all()
        self._partitions.extend()
        return self._append(entries)

    def fold(self) -> None:
        """Return: nothing is put off."""

    @call
    def snapshot(self, tape: int, step: int, state: bytes, now: float, passing: bool) -> int:
        if passing:
            oldest = self._snapshots.keep(tape, step, state, now, passing)
            return step if oldest is None else oldest
        with self._database.transaction():
            row = self._tapes.lock_own(tape)
            if row is None:
                return step
            oldest = self._snapshots.keep(tape, step, state, now, passing)
            cut = self._forget(row, step, now)
        return cut or oldest or 0

    @call
    def park(self, session: str, step: int, seq: int | None, state: bytes, now: float) -> None:
        with self._database.transaction():
            old = self._own(session)
            tape = self._tapes.new_number()
            self._tapes.begin(tape, None, step, first=step, seq=seq, epoch=old.epoch, owner=old.owner)
            self._sessions.put(tape, old.number, volatile=False)
            self._snapshots.keep(tape, step, state, now, passing=False)
            self._tapes.leave(old)
        self._log.forget(old.number)

    @call
    def before(self, tape: int, step: int) -> tuple[int, bytes] | None:
        found = self._log.beginning(tape, step)
        if found is None:
            return None
        if found.snapshot is None and 0 < found.oldest <= step:
            raise SessionDamaged(f"{self._database.name}: there is no snapshot of tape {tape} up to step {step}")
        start = found.snapshot[0] if found.snapshot is not None else 0
        if start >= found.oldest:
            with suppress(SessionDamaged):  # which `steps` raises
                self._ahead = Ahead(tape, start, step, [*found.log])
        return found.snapshot

    def steps(self, tape: int, start: int, stop: int, limit: int) -> list[LoggedSteps]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[:3] == (tape, start, stop):
            found, is_whole = up_to(limit, ahead.log)
            if is_whole or (found and found[-1].step + found[-1].steps == stop):
                return found
        row = self._tapes.row(tape)
        if row is None or start < self._tapes.oldest(row):
            return []
        return up_to(limit, self._log.steps(tape, start, min(stop, row.stop)))[0]

    @call
    def frame(self, tape: int, seq: int) -> LoggedSteps | None:
        row = self._tapes.row(tape)
        return None if row is None else self._log.frame(row, seq, self._tapes.oldest(row))

    # Upkeep

    @call
    def list(self, tenant: str, model: str | None, limit: int) -> Sequence[Record]:
        return self._sessions.newest(tenant, model, limit)

    @call
    def counts(self) -> dict[str, int]:
        return self._sessions.counts("model")

    @call
    def has_sessions(self, model: str, fingerprint: str) -> bool:
        return self._sessions.has(model, fingerprint)

    @call
    def tenants(self) -> dict[str, int]:
        return self._sessions.counts("tenant")

    @call
    def touch(self, used: Sequence[tuple[str, float]]) -> None:
        self._sessions.touch(used)

    @call
    def idle_since(self, time: float, limit: int) -> Sequence[str]:
        return self._sessions.idle(time, limit)

    @call
    def latest_time(self) -> float:
        return self._sessions.latest_time()

    @call
    def tidy(self, now: float) -> bool:
        """Besides: make partitions of the log ahead of time, drop those that are old, add up the counts of servers."""
        self._sessions.record_time(now)
        self._partitions.extend()
        if self._sessions.forget(now - REMEMBERED_FOR, FORGOTTEN_AT_ONCE) == FORGOTTEN_AT_ONCE:
            return True
        self._database.run(ADD_UP)
        return self._partitions.drop_some()

    @call
    def probe(self) -> None:
        version, read_only = self._database.row("SELECT version, current_setting('transaction_read_only') FROM meta")
        check_version(self._database, version)
        if read_only == "on":
            raise StoreFailed(f"{self._database.name}: {REMEDIES[READ_ONLY]}")
        if self._is_full:  # no step comes while the server is not ready
            with self._database.transaction():
                for statement in TRY_TO_WRITE:
                    self._database.run(statement)
            self._is_full = False

    def sync(self) -> None:
        """Return: what is committed is on disk, as far as the database's settings say so."""

    def check(self, progress: Callable[[int, int], None]) -> Iterator[str]:
        with self._one_moment():
            yield from problems(self._database, progress)

    def close(self) -> None:
        self._database.close()

    # All that is kept

    def contents(self) -> Generator[Item, None, None]:
        with self._one_moment():
            check_unused(self._database, self._owners())
            yield ArchivedClock(self._sessions.latest_time())
            yield from Contents(self._database).items()

    def put(self, items: Iterable[Item]) -> None:
        self._partitions.extend()
        with self._database.transaction():
            self._database.run(PATIENT)
            check_unused(self._database, self._owners())
            Arrivals(self._database).put(items)

    # Parts of the calls

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Read everything in the block as it is at one moment."""
        with self._database.transaction():
            self._database.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._database.run(PATIENT)
            yield

    def _remembered(self, record: Record) -> Record:
        """Remember where the tape of a session of this process ends."""
        self._log.remember(record.tape, record.epoch, record.latest, record.seq)
        return record

    def _own(self, session: str) -> TapeRow:
        """Lock the tape of an open session of this process. Raises StoreFailed, SessionMoved."""
        locked = self._tapes.lock(self._sessions.opened(session))
        if locked is None or not locked.is_own:
            raise moved()
        return locked.row

    def _end(self, session: str, reason: EndReason, now: float) -> bool:
        """End a session of this process, or one that no server has."""
        with self._database.transaction():
            tape = self._sessions.tape(session)
            if tape is None:
                return False
            locked = self._tapes.lock(tape)
            if locked is None or not (locked.is_own or self._sessions.is_free(locked.row)):
                raise moved()
            if not self._sessions.end(session, reason, now, locked.row):
                raise moved()
            self._tapes.collect(tape)
        self._log.forget(tape)
        return True

    def _append(self, entries: Sequence[Entry]) -> set[int]:
        previous = [entry.previous_tape for entry in entries if entry.previous_tape is not None]
        if not previous:
            return self._log.append(entries)
        with self._database.transaction():
            if len(previous) > 1:
                self._tapes.lock_families(previous)
            for entry in entries:
                if entry.previous_tape is not None:
                    self._begin_next(entry, entry.previous_tape)
            return self._log.append(entries)

    def _begin_next(self, entry: Entry, previous: int) -> None:
        """Put the session on the tape `previous` on a new one, which begins with it up to the entry's step.

        Do nothing where it is not there, under this epoch and at this step: the entry is then refused.
        """
        locked = self._tapes.lock(previous)
        if locked is None or not locked.is_own or (locked.row.epoch, locked.row.head) != (entry.epoch, entry.step):
            return
        row = locked.row
        self._tapes.begin(entry.tape, row, entry.step, seq=row.seq, epoch=row.epoch, owner=row.owner)
        self._sessions.put(entry.tape, previous)
        self._tapes.leave(row)
        self._log.forget(previous)
        self._log.remember(entry.tape, row.epoch, entry.step, row.seq)

    def _forget(self, tape: TapeRow, step: int, now: float) -> int | None:
        """Delete what retention does not ask for, of a tape with a snapshot at `step`; return its first step then."""
        shared = self._tapes.shared(tape)
        last = step if shared is None else min(step, shared)
        found = self._snapshots.last_old(tape, last, self._retention, now)
        if found is not None:
            self._tapes.cut(tape, found)
        return found


def up_to(limit: int, log: Iterable[LoggedSteps]) -> tuple[list[LoggedSteps], bool]:
    """Return the first steps of a log, with at least `limit` bytes of inputs, and whether there are that many."""
    found = []
    for steps in log:
        found.append(steps)
        limit -= len(steps.inputs)
        if limit <= 0:
            return found, True
    return found, False
