"""The calls of the store in memory."""

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from app.errors import StepNotKept, StoreFailed
from app.stores.archive import (
    ArchivedClock,
    ArchivedSession,
    ArchivedSnapshot,
    ArchivedSteps,
    ArchivedTape,
    Item,
)
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
from app.stores.memory.tape import StoredSnapshot, Tape
from app.tenants import tenant_of


@dataclass(eq=False)
class StoredSession:
    """A session, open or ended. tape: None once it has ended; new: as it was opened."""

    new: NewSession
    owner: str
    used: float
    tape: Tape | None = None
    volatile: bool = False
    ended: float = -math.inf
    reason: EndReason | None = None


USED = attrgetter("used")


class MemoryStore:
    """Sessions by id, and tapes by number."""

    def __init__(self, retention: Retention = KEEP_ALL) -> None:
        self._retention = retention
        self._sessions: dict[str, StoredSession] = {}
        self._keys: dict[str, str] = {}
        """Which session was opened under a key."""
        self._tapes: dict[int, Tape] = {}
        self._last = 0
        """The highest number that a tape has had, or is to have."""
        self._ended: deque[str] = deque()
        """The sessions that ended, in the order in which they did."""
        self._time = 0.0
        """The latest time that was recorded by `tidy`."""

    # Sessions

    def create(self, session: NewSession, owner: str) -> Record:
        parent = self._parent(session)
        before = self._sessions.get(self._keys.get(session.key or "", ""))
        is_free = before is None or (session.takes_key and before.tape is None)
        if session.id in self._sessions or not is_free:
            raise StoreFailed(f"session {session.id} cannot be opened: its id or its key {session.key!r} is taken")
        if before is not None:
            before.new = replace(before.new, key=None, digest=None)
        first = session.base if session.snapshot is not None else 0
        tape = self._begin(self._new_number(), parent, session.base, first)
        if session.snapshot is not None:
            tape.keep(session.base, session.snapshot, session.now, passing=False)
        stored = StoredSession(replace(session, snapshot=None), owner, session.now)
        self._sessions[session.id] = stored
        if session.key is not None:
            self._keys[session.key] = session.id
        self._put(stored, tape)
        return self._record(stored, tape)

    def created(self, key: str) -> tuple[str, bytes] | None:
        session = self._keys.get(key)
        return None if session is None else (session, self._sessions[session].new.digest or b"")

    def find(self, session: str) -> Record | EndReason | None:
        return self._find(session)

    def claim(self, session: str, owner: str) -> Record | EndReason | None:
        found = self._sessions.get(session)
        if found is not None and found.tape is not None and found.owner != owner:
            found.owner = owner
            found.tape.epoch += 1
        return self._find(session)

    def release(self, session: str, owner: str, used: float | None = None) -> bool:
        found = self._sessions.get(session)
        if found is None or found.tape is None or found.owner != owner:
            return False
        if used is not None:
            found.used = used
        found.owner = NOBODY
        found.tape.epoch += 1
        return True

    def move(self, session: str, step: int, seq: int | None) -> Record:
        found, tape = self._opened(session)
        tape.head, tape.seq = None if step == tape.stop else step, seq
        return self._record(found, tape)

    def mark_volatile(self, session: str) -> None:
        self._opened(session)[0].volatile = True

    def end(self, session: str, reason: EndReason, now: float) -> bool:
        found = self._sessions.get(session)
        if found is None or found.tape is None:
            return False
        found.ended, found.reason = now, reason
        self._ended.append(session)
        self._put(found, None)
        return True

    # Tapes

    def append(self, entries: Sequence[Entry]) -> set[int]:
        for entry in entries:
            if entry.previous_tape is not None:
                self._begin_next(entry, self._tapes.get(entry.previous_tape))
        return {index for index, entry in enumerate(entries) if not self._add(entry)}

    def fold(self) -> None:
        """Return: nothing is put off."""

    def snapshot(self, tape: int, step: int, state: bytes, now: float, passing: bool) -> int:
        found = self._tapes.get(tape)
        if found is None:
            return step
        found.keep(step, state, now, passing)
        if not passing:
            self._forget(found, step, now)
        return found.oldest

    def park(self, session: str, step: int, seq: int | None, state: bytes, now: float) -> None:
        found, old = self._opened(session)
        tape = self._begin(self._new_number(), None, step, step, seq, old.epoch)
        tape.keep(step, state, now, passing=False)
        found.volatile = False
        self._put(found, tape)

    def before(self, tape: int, step: int) -> tuple[int, bytes] | None:
        found = self._tapes.get(tape)
        for part, stop in found.upwards(step) if found is not None else ():
            at = max((at for at in part.snapshots if at <= stop), default=None)
            if at is not None:
                return at, part.snapshots[at].state
        return None

    def steps(self, tape: int, start: int, stop: int, limit: int) -> list[LoggedSteps]:
        found, steps = self._tapes.get(tape), list[LoggedSteps]()
        if found is None or start < found.oldest:
            return steps
        for piece in found.past(start, min(stop, found.stop)):
            steps.append(piece)
            limit -= len(piece.inputs)
            if limit <= 0:
                break
        return steps

    def frame(self, tape: int, seq: int) -> LoggedSteps | None:
        found = self._tapes.get(tape)
        if found is None:
            return None
        numbered = (piece for piece in reversed(found.log) if piece.seq is not None and piece.seq <= seq)
        piece = next(numbered, None)
        return piece if piece is not None and piece.seq == seq and piece.step >= found.oldest else None

    # Upkeep

    def list(self, tenant: str, model: str | None, limit: int) -> Sequence[Record]:
        of_tenant = (found for found in self._open() if tenant_of(found.new.id) == tenant)
        wanted = (found for found in of_tenant if model in (None, found.new.model))
        return [self._record(*self._opened(found.new.id)) for found in heapq.nlargest(limit, wanted, key=USED)]

    def counts(self) -> dict[str, int]:
        return dict(Counter(found.new.model for found in self._open()))

    def has_sessions(self, model: str, fingerprint: str) -> bool:
        return any((found.new.model, found.new.fingerprint) == (model, fingerprint) for found in self._open())

    def tenants(self) -> dict[str, int]:
        return dict(Counter(tenant_of(found.new.id) for found in self._open()))

    def touch(self, used: Sequence[tuple[str, float]]) -> None:
        for session, moment in used:
            if session in self._sessions:
                self._sessions[session].used = moment

    def idle_since(self, time: float, limit: int) -> Sequence[str]:
        idle = (found for found in self._open() if found.used <= time)
        return [found.new.id for found in heapq.nsmallest(limit, idle, key=USED)]

    def latest_time(self) -> float:
        return max((self._time, *(max(found.used, found.ended) for found in self._sessions.values())))

    def tidy(self, now: float) -> bool:
        self._time = now
        for _ in range(FORGOTTEN_AT_ONCE):
            if not self._ended or self._sessions[self._ended[0]].ended >= now - REMEMBERED_FOR:
                return False
            self._forget_session(self._ended.popleft())
        return True

    def probe(self) -> None:
        """Return: memory can be read and written."""

    def sync(self) -> None:
        """Return: nothing survives a power cut."""

    def check(self, progress: Callable[[int, int], None]) -> Iterator[str]:
        progress(0, 0)  # nothing in memory has a checksum
        return iter(())

    def close(self) -> None:
        """Return: there is nothing to release."""

    # All that is kept

    def contents(self) -> Generator[Item, None, None]:
        yield ArchivedClock(self.latest_time())
        roots = [tape for tape in self._tapes.values() if tape.parent is None]
        for tape in (tape for root in roots for tape in root.descendants()):
            yield from tape.items()
            if tape.session is not None:
                yield _archived(self._sessions[tape.session])
        yield from (_archived(self._sessions[session]) for session in self._ended)

    def put(self, items: Iterable[Item]) -> None:
        if self._sessions:
            raise StoreFailed("there are sessions in memory already")
        taken = MemoryStore(self._retention)
        for item in items:
            taken._put_item(item)
        vars(self).update(vars(taken))

    def _put_item(self, item: Item) -> None:
        match item:
            case ArchivedClock():
                self._time = item.time
            case ArchivedTape():
                self._put_tape(item)
            case ArchivedSteps():
                self._tapes[item.tape].log.append(LoggedSteps(*item[1:]))
            case ArchivedSnapshot():
                self._tapes[item.tape].snapshots[item.step] = StoredSnapshot(item.state, item.taken, item.passing)
            case ArchivedSession():
                self._put_session(item)

    def _put_tape(self, item: ArchivedTape) -> None:
        number, parent, base, first, stop, head, seq, epoch, _ = item
        tape = Tape(number, None if parent is None else self._tapes[parent], base, first, seq, epoch, stop, head)
        if tape.parent is not None:
            tape.parent.children.add(tape)
        self._tapes[number] = tape
        self._last = max(self._last, number)

    def _put_session(self, item: ArchivedSession) -> None:
        new = NewSession(
            *(item.id, item.model, item.fingerprint, item.memory_size, item.used),
            *(item.creation_key, item.digest),
            opened=item.opened,
            force=item.force,
        )
        tape = None if item.tape is None else self._tapes[item.tape]
        ended = -math.inf if item.ended is None else item.ended
        stored = StoredSession(new, NOBODY, item.used, tape, item.volatile, ended, item.reason)
        self._sessions[item.id] = stored
        if item.creation_key is not None:
            self._keys[item.creation_key] = item.id
        if tape is None:
            self._ended.append(item.id)
        else:
            tape.session = item.id

    # Sessions: where they are, and what is said of them

    def _open(self) -> Iterator[StoredSession]:
        return (found for found in self._sessions.values() if found.tape is not None)

    def _opened(self, session: str) -> tuple[StoredSession, Tape]:
        found = self._sessions.get(session)
        if found is None or found.tape is None:
            raise StoreFailed(f"session {session} is not open")
        return found, found.tape

    def _find(self, session: str) -> Record | EndReason | None:
        found = self._sessions.get(session)
        if found is None or found.tape is None:
            return None if found is None else found.reason
        return self._record(found, found.tape)

    def _record(self, found: StoredSession, tape: Tape) -> Record:
        new = found.new
        opened = new.now if new.opened is None else new.opened
        return Record(
            *(new.id, new.model, new.fingerprint, new.memory_size, opened, found.used, tape.number, tape.epoch),
            step=tape.stop if tape.head is None else tape.head,
            latest=tape.stop,
            oldest=tape.oldest,
            kept=tape.kept,
            seq=tape.seq,
            next_tape=None if tape.head is None else self._new_number(),
            volatile=found.volatile,
            force=new.force,
        )

    def _put(self, found: StoredSession, tape: Tape | None) -> None:
        """Put a session on a tape, None where it ends; delete what it alone could reach of the last one."""
        last, found.tape = found.tape, tape
        if tape is not None:
            tape.session = found.new.id
        if last is not None:
            last.session = last.head = None
            self._collect(last)

    def _forget_session(self, session: str) -> None:
        key = self._sessions.pop(session).new.key
        if key is not None:
            del self._keys[key]

    # Tapes: how they begin, go on, and are deleted

    def _new_number(self) -> int:
        self._last += 1
        return self._last

    def _parent(self, session: NewSession) -> Tape | None:
        """Return the tape that a new session is to begin with. Raises StepNotKept."""
        if session.parent is None or not session.base:
            return None
        parent = self._tapes.get(session.parent)
        if parent is None or session.base < parent.oldest:
            raise StepNotKept(f"step {session.base} is not kept any more", place="step", got=str(session.base))
        return parent

    def _begin(
        self, number: int, parent: Tape | None, base: int, first: int = 0, seq: int | None = None, epoch: int = 1
    ) -> Tape:
        """Begin a tape with another up to a step: with that tape of its line that has the step, so that no tape is kept
        only because it leads to another. first: of a root.
        """
        holder = parent.with_step(base) if parent is not None and base else None
        tape = Tape(number, holder, base, first if holder is None else 0, seq, epoch, stop=base)
        if holder is not None:
            holder.children.add(tape)
        self._tapes[number] = tape
        return tape

    def _begin_next(self, entry: Entry, tape: Tape | None) -> None:
        """Put the session that was rewound on a tape on the next one, if it is there under this epoch, at this step."""
        if tape is None or tape.session is None or (tape.epoch, tape.head) != (entry.epoch, entry.step):
            return
        begun = self._begin(entry.tape, tape, entry.step, seq=tape.seq, epoch=tape.epoch)
        self._put(self._sessions[tape.session], begun)

    def _add(self, entry: Entry) -> bool:
        """Add an entry to its tape, unless it is refused; return whether it was added."""
        tape = self._tapes.get(entry.tape)
        if tape is None or tape.session is None or (tape.epoch, tape.stop) != (entry.epoch, entry.step):
            return False
        tape.log.append(LoggedSteps(entry.step, entry.steps, entry.inputs, entry.seq))
        tape.stop += entry.steps
        tape.seq = tape.seq if entry.seq is None else entry.seq
        return True

    def _forget(self, tape: Tape, step: int, now: float) -> None:
        """Delete what retention does not ask for, of a tape with a snapshot at `step`; nothing that others share.

        Others share what comes after the first step at which a tape begins, or to which a session was rewound.
        """
        bases = [child.base for child in tape.children]
        heads = [other.head for other in tape.root.descendants() if other.head is not None]
        last = min([step, *bases, *heads])
        steps, taken = last - self._retention.steps, now - self._retention.seconds
        old = [at for at, kept in tape.snapshots.items() if at <= last and (at <= steps or kept.taken <= taken)]
        if old and max(old) >= max(tape.base, tape.first):
            self._cut(tape, max(old))

    def _cut(self, tape: Tape, step: int) -> None:
        """Let a tape begin at `step`, where it has a snapshot, as a root."""
        parent, tape.parent, tape.first = tape.parent, None, step
        tape.log = [piece for piece in tape.log if piece.step + piece.steps > step]
        tape.snapshots = {at: kept for at, kept in tape.snapshots.items() if at >= step}
        if parent is not None:
            parent.children.remove(tape)
            self._collect(parent)

    def _collect(self, tape: Tape | None) -> None:
        """Delete what no session can reach any more of a tape, and of those that it began with."""
        while tape is not None and tape.session is None:
            last = max((child.base for child in tape.children), default=None)
            if last is not None:
                tape.log = [piece for piece in tape.log if piece.step < last]
                tape.snapshots = {at: kept for at, kept in tape.snapshots.items() if at <= last}
                tape.stop = min(tape.stop, last)
                return
            del self._tapes[tape.number]
            if tape.parent is not None:
                tape.parent.children.remove(tape)
            tape = tape.parent


def _archived(found: StoredSession) -> ArchivedSession:
    new, tape = found.new, found.tape
    return ArchivedSession(
        *(new.id, new.model, new.fingerprint, new.memory_size, new.force),
        opened=new.now if new.opened is None else new.opened,
        used=found.used,
        ended=None if tape is not None else found.ended,
        reason=found.reason,
        creation_key=new.key,
        digest=new.digest,
        tape=None if tape is None else tape.number,
        volatile=found.volatile,
    )
