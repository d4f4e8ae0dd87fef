"""The sessions whose states are in arenas: woken when they are used, taken out when others need the room."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

from app.backends.base import NUMBER_BYTES, Array
from app.catalogue import ServedModel
from app.engine.arenas import Slot
from app.engine.run import Replayed
from app.errors import EngramError, OutOfMemory, ShuttingDown
from app.sessions.past import Beginning, Past, beginning
from app.sessions.session import Session, gone
from app.sessions.snapshot import LARGE
from app.stores.base import EndReason, Record, Store
from app.stores.writer import Writer

T = TypeVar("T")

logger = logging.getLogger(__name__)

ENTRY_BYTES = 16
"""What a request's steps take in the log beside their inputs, about."""

LOG_PER_STATE = 2
"""How many times the bytes of a state the log since a snapshot has, when another one is kept that stays."""

SNAPSHOT_STEPS = 1000
"""Steps after which a snapshot is kept, however small the log: so many are taken again, at most, to wake a session."""

REPLAYED_STEPS = 8
"""So few steps since a snapshot are taken again rather than another one kept when a session leaves its arena."""

LEAVING = 8
"""So many idle sessions at most leave an arena that is full, so that the next ones find room: more take too long."""

LEAVING_AT_ONCE = 64


class Residents:
    """The sessions in arenas, by model, the least recently used first. Whoever asks for one holds its turn.

    owner: whom the store is told of; max_resident: of a model; left: called when a session is in no arena any more.
    """

    def __init__(
        self,
        writer: Writer,
        owner: str,
        max_resident: int,
        clock: Callable[[], float],
        left: Callable[[Session], None],
    ) -> None:
        self._writer = writer
        self._owner = owner
        self._max_resident = max_resident
        self._clock = clock
        self._left = left
        self._sessions: dict[str, OrderedDict[str, Session]] = {}
        self._making_room: dict[str, asyncio.Lock] = {}
        self._writing: set[asyncio.Future[None]] = set()

    def count(self, model: str) -> int:
        """Return the number of sessions of a model that are in its arena."""
        return len(self._sessions.get(model, ()))

    def use(self, session: Session) -> None:
        """Note that a session that is in an arena was used."""
        self._sessions[session.model.name].move_to_end(session.id)

    async def leave_all(self, until: float) -> None:
        """Take all sessions out that nobody uses; at the time `until`, the others stay where they are."""
        left = [session for sessions in self._sessions.values() for session in sessions.values()]
        await self._stop_saving(left, until)
        while left and self._clock() < until:
            leaving = [asyncio.ensure_future(self.try_leave(session)) for session in left[:LEAVING_AT_ONCE]]
            await asyncio.wait(leaving, timeout=until - self._clock())
            del left[:LEAVING_AT_ONCE]
        if left:
            logger.warning("%d sessions did not leave their arenas in time", len(left))

    async def look(self, session: Session, step: int | None) -> tuple[int, Mapping[str, Array] | Past]:
        """Return a step, if not given that which a session is at, and the state there, or the past that leads to it.

        Raises StepNotKept.
        """
        if step is not None:
            await self.locate(session)
            session.check_kept(step)
            if step != session.step:
                return step, self.past(session)
        slot = await self.wake(session)
        return session.step, await session.model.engine.read(slot)

    async def packed(self, session: Session, step: int, state: Mapping[str, Array]) -> bytes:
        """Return a session at a step, with its state there, as a file."""
        if session.state_bytes < LARGE:
            return session.packed(step, state)
        return await asyncio.to_thread(session.packed, step, state)

    def past(self, session: Session) -> Past:
        """Return the past of a session, as its tape has it now."""
        model, memory_size = session.model, session.memory_size

        async def replay(*arguments: Any) -> Replayed:
            return await self.with_room(model, lambda: model.engine.replay(*arguments))

        async def first() -> Mapping[str, Array]:
            return await self.first_state(model, memory_size)

        return Past(self._writer, replay, first, model.shapes(memory_size), session.tape)

    async def first_state(self, model: ServedModel, memory_size: int | None) -> Mapping[str, Array]:
        """Return the state before the first step. Raises OutOfMemory."""
        slot = await self.with_room(model, lambda: model.engine.open(memory_size))
        try:
            return await model.engine.read(slot)
        finally:
            model.engine.drop(slot)

    async def with_room(self, model: ServedModel, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do what takes memory of a model's arena; sessions that nobody uses leave it where there is none."""
        while True:
            try:
                return await work()
            except OutOfMemory:
                if not await self._make_room(model, lambda: True):
                    raise

    async def locate(self, session: Session) -> None:
        """Learn where a session is, which is known of one in an arena. Raises SessionGone."""
        if session.slot is not None:
            return
        session.model.engine.check_accepting()  # before the log is read: a step that hangs may still be written
        await self.go_back(session)

    def _follow(self, session: Session, found: Record | EndReason | None) -> None:
        """Put a session where the store says that it is. Raises SessionGone."""
        if not isinstance(found, Record):
            raise gone(session.id, found or "deleted")
        if found.unlogged:  # its steps were in an arena, and it is in none
            raise gone(session.id, "lost in a failure")
        session.follow(found)
        unlasting = max(0, session.step - found.kept)
        session.logged = unlasting * (session.model.inputs.width * NUMBER_BYTES + ENTRY_BYTES)

    async def go_back(self, session: Session) -> None:
        """Put a session that is in no arena where the store has it. Raises SessionGone, StoreFailed."""
        self._follow(session, await self._writer.call(lambda store: store.claim(session.id, self._owner)))

    async def wake(self, session: Session) -> Slot:
        """Return the slot of a session, after its state was put there if it was not. Raises as `locate` does."""
        if session.slot is not None:
            return session.slot
        session.model.engine.check_accepting()  # as in `locate`
        found, begun = await self._writer.call(lambda store: _claimed(store, session.id, self._owner))
        self._follow(session, found)
        reached = await self.past(session).reach(session.step, begun)
        session.slot = await self._take_slot(session.model, session.memory_size, reached.state)
        session.kept, session.last = reached.kept, None
        self._of(session.model)[session.id] = session
        return session.slot

    async def _take_slot(self, model: ServedModel, memory_size: int | None, state: Mapping[str, Array] | None) -> Slot:
        residents = self._of(model)

        def is_full() -> bool:
            return len(residents) >= self._max_resident

        if is_full():
            await self._make_room(model, is_full)
        return await self.with_room(model, lambda: model.engine.open(memory_size, state))

    async def _make_room(self, model: ServedModel, is_needed: Callable[[], bool]) -> bool:
        """Take the sessions that were not used for the longest time out of an arena; False: there are none."""
        async with self._making_room.setdefault(model.name, asyncio.Lock()):
            if not is_needed():
                return True
            residents = self._of(model)
            idle = (session for session in residents.values() if not session.users)
            some = min(LEAVING, 1 + len(residents) // LEAVING)
            leaving = list(islice(idle, max(some, len(residents) + 1 - self._max_resident)))
            return any(await asyncio.shield(asyncio.gather(*map(self.try_leave, leaving))))

    async def try_leave(self, session: Session) -> bool:
        """Take a session out of its arena unless somebody uses it; return whether it left."""
        if session.users or session.slot is None:
            return False
        session.users += 1
        try:
            async with session.turn:  # which is free
                with _telling(session, "it stays in its arena"):
                    await self._leave(session, session.slot)
                return session.slot is None
        finally:
            session.users -= 1
            self._left(session)

    async def _leave(self, session: Session, slot: Slot) -> None:
        """Keep a snapshot, and give the slot back. A session whose steps are not logged stays if that fails."""
        if session.unlogged:
            await self._park(session, await self._packed_now(session))
            session.unlogged = False
        elif session.step - session.kept > REPLAYED_STEPS:
            await self._keep(session, await self._packed_now(session), passing=True)
        self._leave_arena(session)
        await session.model.engine.free(slot)

    def _park(self, session: Session, data: bytes) -> Coroutine[Any, Any, None]:
        """Keep a snapshot of where a session is now as all that there is of it. Raises StoreFailed."""
        step, seq, now = session.step, session.seq, self._clock()
        return self._writer.call(lambda store: store.park(session.id, step, seq, data, now))

    def save_later(self, session: Session, seconds: float) -> None:
        """Have a snapshot of a session with steps that no log has replace its last one within so many seconds."""
        session.unlogged = session.unsaved = True
        if session.saving is None:
            session.saving = asyncio.ensure_future(self._save_all(session, seconds))

    async def _save_all(self, session: Session, seconds: float) -> None:
        """Replace a session's snapshot every so many seconds until it has all steps; log the first failure in a row."""
        failed = False
        try:
            while session.unsaved:
                await asyncio.sleep(seconds)
                try:
                    await self._save(session)
                    failed = False
                except ShuttingDown:
                    return
                except EngramError as error:
                    session.unsaved = True
                    if not failed:
                        logger.warning("session %s: its last snapshot is not replaced: %s", session.id, error)
                    failed = True
        finally:
            if session.saving is asyncio.current_task():
                session.saving = None

    async def _stop_saving(self, sessions: Sequence[Session], until: float) -> None:
        """Stop replacing the snapshots of sessions, which are then in nobody's turn and can leave."""
        saving = [session.saving for session in sessions if session.saving is not None]
        for task in saving:
            task.cancel()
        if saving:
            await asyncio.wait(saving, timeout=max(0.0, until - self._clock()))

    async def _save(self, session: Session) -> None:
        """Replace a session's snapshot: its steps wait while the state is read, but not while it is written."""
        session.users += 1
        try:
            async with session.turn:
                if session.slot is None or not session.unlogged:
                    return
                writing = asyncio.ensure_future(self._park(session, await self._packed_now(session)))
                session.unsaved = False
                await asyncio.sleep(0)  # then it is in the writer's queue, ahead of all that comes in later turns
        finally:
            session.users -= 1
            self._left(session)
        await writing

    async def keep_later(self, session: Session) -> None:
        """Keep a snapshot of where a session is, written while the session goes on."""
        passing = not _has_long_log(session)
        with _telling(session, "no snapshot of it was kept"):
            self._keep(session, await self._packed_now(session), passing)

    async def keep_for_fork(self, session: Session) -> None:
        """Keep a passing snapshot of a session in an arena, so that a fork of it wakes from there."""
        is_logged = session.slot is not None and not session.unlogged
        if is_logged and session.step - session.kept > REPLAYED_STEPS:
            with _telling(session, "no snapshot of it was kept"):
                self._keep(session, await self._packed_now(session), passing=True)

    async def _packed_now(self, session: Session) -> bytes:
        return await self.packed(session, session.step, await session.model.engine.read(await self.wake(session)))

    def _keep(self, session: Session, data: bytes, passing: bool) -> "asyncio.Future[None]":
        """Write a snapshot of where a session is now; where that fails, the log has it all the same."""
        tape, step, now = session.tape, session.step, self._clock()
        session.kept = step
        if not passing:
            session.logged = 0

        async def write() -> None:
            with _telling(session, "no snapshot of it was kept"):
                oldest = await self._writer.call(lambda store: store.snapshot(tape, step, data, now, passing))
                if session.tape == tape:
                    session.oldest = oldest

        writing = asyncio.ensure_future(write())
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return writing

    def snapshot_is_due(self, session: Session) -> bool:
        """Return whether to keep a snapshot after a step.

        It is to be kept when the log has outgrown the state; after many steps, a passing one, to wake the session from.
        """
        return _has_long_log(session) or session.step - session.kept >= SNAPSHOT_STEPS

    async def free(self, session: Session) -> None:
        """Give up the slot of a session that has ended, and wait until it is free, unless the engine hangs or stops."""
        slot = session.slot
        if slot is not None:
            self._leave_arena(session)
            with suppress(EngramError):
                await session.model.engine.free(slot)

    def drop(self, session: Session) -> None:
        """Give up a session's slot, whatever is in it; the store says where the session is."""
        slot = session.slot
        if slot is not None:
            self._leave_arena(session)
            session.unlogged = False
            session.model.engine.drop(slot)

    def _leave_arena(self, session: Session) -> None:
        session.slot, session.last, session.unsaved = None, None, False
        if session.saving is not None:
            session.saving.cancel()
            session.saving = None
        del self._of(session.model)[session.id]

    def _of(self, model: ServedModel) -> OrderedDict[str, Session]:
        return self._sessions.setdefault(model.name, OrderedDict())


def _claimed(store: Store, session: str, owner: str) -> tuple[Record | EndReason | None, Beginning | None]:
    """Claim a session, and return also what its state is computed from."""
    found = store.claim(session, owner)
    return found, beginning(store, found.tape, found.step) if isinstance(found, Record) else None


def _has_long_log(session: Session) -> bool:
    """Return whether the log since the last snapshot that stays has outgrown the state."""
    return session.logged >= LOG_PER_STATE * session.state_bytes


@contextmanager
def _telling(session: Session, outcome: str) -> Iterator[None]:
    """Tell in the log of an error, and go on."""
    try:
        yield
    except EngramError as error:
        logger.warning("session %s: %s: %s", session.id, outcome, error)
