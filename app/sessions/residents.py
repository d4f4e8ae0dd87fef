"""The sessions in arenas: restored when they are used, evicted when others need the room.

restore     claim the session, compute its state from the store, and put it into a slot
evict       keep a snapshot where the log is not enough, and free the slot; the least recently used first
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from app.backends.base import Array
from app.catalogue import ServedModel
from app.engine.arenas import Slot
from app.engine.run import Replayed
from app.errors import EngramError, OutOfMemory, SessionGone, SessionHeld
from app.futures import begin
from app.metrics import Metrics
from app.sessions.past import Beginning, Past, beginning
from app.sessions.recency import Recency
from app.sessions.session import Onto, Session, gone
from app.sessions.snapshot import LARGE
from app.sessions.turns import Turns
from app.stores.base import EndReason, Held, Record, Store
from app.stores.ownership import Ownership
from app.stores.writer import Writer
from app.tenants import outside

T = TypeVar("T")

logger = logging.getLogger(__name__)

SNAPSHOT_STEPS = 1000
"""Steps after which a snapshot is kept, however small the log: at most this many are replayed to restore a session."""

REPLAYED_STEPS = 8
"""Steps since a snapshot that are replayed rather than another one kept when a session is evicted, at most."""

EVICTED = 8
"""Sessions evicted from a full arena for the next one, at most: more take too long."""

HANDOVER_SECONDS = 3.0
"""Seconds for which another server is asked for a session, beyond those of its lease."""

LEASE_SECONDS = 10.0
"""Seconds of its lease for which it is asked, at most: clients and proxies do not wait for a longer one."""

COOL_SECONDS = 1.0
"""The longest time to wait until arenas have returned the memory of free slots; one whose step hangs may not."""

EVICTED_AT_ONCE = 64
"""Sessions evicted at the same time when the server stops."""


class Residents:
    """Puts sessions into arenas and evicts them. The caller holds the turn of the session that it passes."""

    def __init__(
        self,
        turns: Turns,
        writer: Writer,
        recency: Recency,
        ownership: Ownership,
        metrics: Metrics,
        max_resident: int,
        clock: Callable[[], float],
    ) -> None:
        """max_resident: sessions of a model."""
        self._turns = turns
        self._writer = writer
        self._recency = recency
        self._ownership = ownership
        self._metrics = metrics
        self._max_resident = max_resident
        self._clock = clock
        self._making_room: WeakKeyDictionary[ServedModel, asyncio.Lock] = WeakKeyDictionary()
        self._freeing = asyncio.Lock()
        self._freed = 0
        """How often memory was made free."""
        self._writing: set[asyncio.Task[None]] = set()

    # What others need of a session

    async def look(self, session: Session, step: int | None) -> tuple[int, Mapping[str, Array] | Past]:
        """Return (step, state) where the session is, or (step, Past) for another step. Raises StepNotKept."""
        if step is not None:
            await self.locate(session)
            session.check_kept(step)
            if step != session.step:
                return step, self.past(session)
        slot = await self.restore(session)
        return session.step, await session.model.engine.read(slot)

    async def packed(self, session: Session, step: int, state: Mapping[str, Array], onto: Onto | None = None) -> bytes:
        """Return a snapshot file of a session at a step, with its state there; onto: as `Session.packed` has it."""
        if session.state_bytes < LARGE:
            return session.packed(step, state, onto)
        return await asyncio.to_thread(session.packed, step, state, onto)

    async def packed_now(self, session: Session) -> bytes:
        """Return a snapshot file of a session where it is. Raises as `restore` does."""
        slot = await self.restore(session)
        return await self.packed(session, session.step, await session.model.engine.read(slot))

    def past(self, session: Session) -> Past:
        """Return the past of a session, as its tape has it now."""
        model, memory_size = session.model, session.memory_size

        async def replay(*arguments: Any) -> Replayed:
            return await self.with_room(lambda: model.engine.replay(*arguments))

        async def first() -> Mapping[str, Array]:
            return await self.first_state(model, memory_size)

        return Past(self._writer, replay, first, model.shapes(memory_size, session.force), session.tape)

    async def first_state(self, model: ServedModel, memory_size: int | None) -> Mapping[str, Array]:
        """Return the state before the first step. Raises OutOfMemory."""
        slot = await self.with_room(lambda: model.engine.open(memory_size))
        try:
            return await model.engine.read(slot)
        finally:
            model.engine.drop(slot)

    # Restoring

    async def locate(self, session: Session) -> None:
        """Read a session's position from the store, unless it is resident. Raises SessionGone."""
        if session.slot is not None:
            return
        session.model.engine.check_accepting()  # before the log is read: a step that hangs may still be written
        await self.claim(session)

    async def claim(self, session: Session) -> None:
        """Put a session that is not resident where the store has it. Raises SessionGone, and as `claim_by_id` does."""
        await self._follow(session, await self.claim_by_id(session.id))

    async def claim_by_id(self, session_id: str) -> Record | EndReason | None:
        """Claim a session, and return what the store has of it. Raises SessionHeld, LeaseLost, StoreFailed."""
        found, _ = await self._claimed(session_id, lambda owner: lambda store: (store.claim(session_id, owner), None))
        return found

    async def restore(self, session: Session) -> Slot:
        """Return the slot of a session, whose state is put there if it is not resident. Raises as `locate` does."""
        assert session.turn.taken, "the caller holds the turn"
        if session.slot is not None:
            return session.slot
        session.model.engine.check_accepting()  # as in `locate`
        found, begun = await self._claimed(session.id, lambda owner: lambda store: _begun(store, session.id, owner))
        await self._follow(session, found)
        reached = await self.past(session).reach(session.step, begun)
        slot = await self._open_slot(session, reached.state)
        session.enter(slot, reached.kept)
        self._recency.add(session)
        return slot

    async def _claimed(
        self, session_id: str, claim: Callable[[str], Callable[[Store], tuple[Record | EndReason | Held | None, T]]]
    ) -> tuple[Record | EndReason | None, T]:
        """Return the result of a claim; where another server has the session, have that one hand it over.

        claim: returns the call of the store that claims the session for an owner. Where the other server has died, it
        succeeds once that lease has run out. Raises SessionHeld where that takes too long.
        """
        ownership = self._ownership
        end = time.monotonic() + min(ownership.seconds, LEASE_SECONDS) + HANDOVER_SECONDS
        handed_over: bool | None = None
        while True:
            self._turns.check_claims()
            found, more = await self._writer.call(claim(ownership.owner))
            if not isinstance(found, Held):
                if handed_over:
                    self._metrics.handovers.labels("in").inc()
                return found, more
            handed_over = await ownership.ask(session_id, found.owner)
            if handed_over is False or time.monotonic() > end:
                raise _held(session_id, found.server, handed_over is not None)

    async def _follow(self, session: Session, found: Record | EndReason | None) -> None:
        """Put a session where the store has it. Raises SessionGone."""
        if not isinstance(found, Record):
            raise gone(session.id, found or "deleted")
        if found.volatile:  # its steps were in an arena, and it is in none
            raise await self._lost(session)
        session.follow(found)
        session.restart_log(max(0, session.step - found.kept))

    async def _lost(self, session: Session) -> SessionGone:
        """End a session whose last steps are nowhere, and return the error for it."""
        reason: EndReason = "lost in a failure"
        if self._ownership.is_shared:  # of a server that died; one that starts alone ends such sessions at once
            await self._writer.call(lambda store: store.end(session.id, reason, self._clock()))
        return gone(session.id, reason)

    async def _open_slot(self, session: Session, state: Mapping[str, Array] | None) -> Slot:
        if self._recency.count(session.model) >= self._max_resident:
            await self._make_room(session.model)
        engine, size, force = session.model.engine, session.memory_size, session.force
        return await self.with_room(lambda: engine.open(size, state, force))

    async def with_room(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do work that takes memory of an arena; where there is none, idle sessions of any model are evicted."""
        while True:
            freed = self._freed
            try:
                return await work()
            except OutOfMemory:
                if not await self._free_memory(freed):
                    raise

    # Evicting

    async def _make_room(self, model: ServedModel) -> None:
        """Evict the least recently used of the idle sessions of a model that has max_resident or more."""
        async with self._making_room.setdefault(model, asyncio.Lock()):
            count = self._recency.count(model)
            if count >= self._max_resident:
                some = min(EVICTED, 1 + count // EVICTED)
                await self._evict_first(self._recency.of(model), max(some, count + 1 - self._max_resident))

    async def _free_memory(self, freed: int) -> bool:
        """Make memory of arenas free: that of free slots, or of idle sessions of any model; False: there is none.

        freed: how often memory was made free before the caller found none; if more was since, that may do.
        """
        async with self._freeing:
            if self._freed > freed:
                return True
            if not await self._cool():
                count = self._recency.count()
                evicted = await self._evict_first(self._recency.of(), min(EVICTED, 1 + count // EVICTED))
                if not evicted:
                    return False
                await self._cool()
            self._freed += 1
            return True

    async def _evict_first(self, sessions: Iterator[Session], count: int) -> bool:
        """Evict the first `count` of those sessions that nobody uses; return whether any left its arena."""
        idle = list(islice((session for session in sessions if not session.users), count))
        return any(await asyncio.shield(asyncio.gather(*map(self.try_evict, idle))))

    async def _cool(self) -> bool:
        """Return the memory of free slots of all models to the system; return whether that was any."""
        spare = {engine: engine.spare_bytes for engine in self._turns.engines if engine.spare_bytes}
        if spare:
            cooling = asyncio.gather(*(engine.cool() for engine in spare), return_exceptions=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(cooling, COOL_SECONDS)
        return any(engine.spare_bytes < before for engine, before in spare.items())

    async def try_evict(self, session: Session) -> bool:
        """Evict a session unless somebody uses it; return whether it left its arena."""
        if session.users or session.slot is None:
            return False
        async with self._turns.hold(session):  # which is free
            with logged(session, "its eviction failed"):
                await self.evict(session)
            return session.slot is None

    async def evict_all(self, until: float) -> None:
        """Evict all sessions that nobody uses; at the time `until`, the others stay."""
        left = self._recency.all()
        while left and self._clock() < until:
            evicted = [asyncio.ensure_future(self.try_evict(session)) for session in left[:EVICTED_AT_ONCE]]
            await asyncio.wait(evicted, timeout=until - self._clock())
            del left[:EVICTED_AT_ONCE]
        if left:
            logger.warning("%d sessions were not evicted from their arenas in time", len(left))

    async def evict(self, session: Session) -> None:
        """Keep a snapshot, and free the slot, if any. For a volatile session, raises where the snapshot fails."""
        if session.slot is None:
            return
        if session.is_volatile:
            await self.park(session, await self.packed_now(session))
        elif session.unsnapshotted > REPLAYED_STEPS:
            await self._keep(session, await self.packed_now(session), passing=True)
        await session.model.engine.free(self._leave(session))

    async def free(self, session: Session) -> None:
        """Free the slot of a session that has ended, and wait until that is done, unless the engine hangs or stops."""
        if session.slot is not None:
            with suppress(EngramError):
                await session.model.engine.free(self._leave(session))

    def drop(self, session: Session) -> None:
        """Drop a session's state, which may be wrong, and its slot; the store has the position of the session."""
        if session.slot is not None:
            session.model.engine.drop(self._leave(session))

    def _leave(self, session: Session) -> Slot:
        assert session.turn.taken, "the caller holds the turn"
        self._recency.remove(session)
        return session.leave()

    # Snapshots

    def snapshot_is_due(self, session: Session) -> bool:
        """Return whether to keep a snapshot after a step.

        One that stays is due when the log has outgrown the state; after many steps, a passing one, to restore from.
        """
        return session.log_is_long or session.unsnapshotted >= SNAPSHOT_STEPS

    async def keep_snapshot(self, session: Session) -> None:
        """Keep a snapshot of where a session is; it is written while the session goes on."""
        passing = not session.log_is_long
        with logged(session, "no snapshot of it was kept"):
            self._keep(session, await self.packed_now(session), passing)

    async def keep_for_fork(self, session: Session) -> None:
        """Keep a passing snapshot of a resident session, so that a fork of it is restored from there."""
        is_logged = session.slot is not None and not session.is_volatile
        if is_logged and session.unsnapshotted > REPLAYED_STEPS:
            with logged(session, "no snapshot of it was kept"):
                self._keep(session, await self.packed_now(session), passing=True)

    async def note_oldest(self, session: Session) -> None:
        """Note the oldest step that the store keeps: after a snapshot that failed it may be another than is known."""
        found = await self._writer.call(lambda store: store.find(session.id))
        if isinstance(found, Record):
            session.retain(found.tape, found.oldest)

    def park(self, session: Session, data: bytes) -> Coroutine[Any, Any, None]:
        """Write a snapshot of where a session is now as all that the store has of it. Raises StoreFailed."""
        step, seq, now = session.step, session.seq, self._clock()
        return self._writer.call(lambda store: store.park(session.id, step, seq, data, now))

    def _keep(self, session: Session, data: bytes, passing: bool) -> "asyncio.Task[None]":
        """Write a snapshot of where a session is now; if that fails, the log leads there all the same."""
        tape, step, now = session.tape, session.step, self._clock()
        session.snapshotted(passing)

        async def write() -> None:
            with logged(session, "no snapshot of it was kept"):
                oldest = await self._writer.call(lambda store: store.snapshot(tape, step, data, now, passing))
                session.retain(tape, oldest)

        return begin(write(), self._writing)


def _begun(store: Store, session: str, owner: str) -> tuple[Record | EndReason | Held | None, Beginning | None]:
    """Claim a session, and return also what its state is computed from."""
    found = store.claim(session, owner)
    return found, beginning(store, found.tape, found.step) if isinstance(found, Record) else None


def _held(session_id: str, server: str, answers: bool) -> SessionHeld:
    reason, remedy = "does not hand it over now", "try again, or ask that server"
    if not answers:
        reason, remedy = "has not answered yet", "try again; if it died, the session is free once its lease has run out"
    return SessionHeld(f"server {server} has session {outside(session_id)}, and {reason}: {remedy}", owner=server)


@contextmanager
def logged(session: Session, outcome: str) -> Iterator[None]:
    """Log an error and go on: others do not depend on this session."""
    try:
        yield
    except EngramError as error:
        logger.warning("session %s: %s: %s", session.id, outcome, error)
    except Exception:
        logger.exception("session %s: %s", session.id, outcome)
