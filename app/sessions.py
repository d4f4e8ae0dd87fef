"""The life of a session: opened, stepped in order, looked into, reset; then deleted or expired.

A session's requests are served one after the other, in the order in which they came. One that was accepted is carried
out whole or not at all.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from app.backends.base import Array
from app.catalogue import ModelCatalogue, ServedModel
from app.engine.arenas import Slot
from app.engine.run import Result
from app.errors import (
    QueueFull,
    SequenceConflict,
    SessionGone,
    SessionNotFound,
    SessionsFull,
    ShuttingDown,
    StepConflict,
)
from app.metrics import Metrics
from app.stores.base import EndReason, Store

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Session:
    """An open session. Whoever steps it or reads it holds `turn`."""

    id: str
    model: ServedModel
    slot: Slot
    opened: float
    """Seconds since the epoch."""
    used: float
    """Seconds on the service's clock."""
    ended: "asyncio.Future[SessionGone]"
    """Set when the session ends, for those who wait on it."""
    step: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    seq: int | None = None
    """The number of the last numbered frame that was carried out."""
    last: "Stepped | None" = None
    """What that frame gave."""


class Stepped(NamedTuple):
    """What a request to step gave."""

    result: Result
    step: int
    """The number of steps that the session has taken."""


class Duplicate(NamedTuple):
    """What a frame gives that was carried out before, and whose result is no longer kept."""

    step: int
    """The number of steps that the session has taken."""


class SessionService:
    """All sessions of a server."""

    def __init__(
        self,
        models: ModelCatalogue,
        store: Store,
        metrics: Metrics,
        max_sessions: int,
        max_waiting: int,
        idle_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._store = store
        self._metrics = metrics
        self._max_sessions = max_sessions
        self._max_waiting = max_waiting
        self._idle_timeout = idle_timeout
        self._clock = clock
        self._open: OrderedDict[str, Session] = OrderedDict()  # least recently used first
        self._counts: dict[str, int] = {model.name: 0 for model in models}
        self._waiting: dict[str, int] = {model.name: 0 for model in models}

    async def open(self, model_name: str, memory_size: int | None = None) -> Session:
        """Open a session; memory_size: other than the model's own.

        Raises ModelNotFound, InvalidRequest where it cannot have this memory size, SessionsFull, OutOfMemory,
        StoreFailed.
        """
        model = self._models.get(model_name)
        model.memory.check(memory_size)
        if self._counts[model.name] >= self._max_sessions:
            raise SessionsFull(
                f"{self._max_sessions} sessions of {model.name} are open, and no more can be: delete some, or try later"
            )
        session_id = secrets.token_urlsafe(16)
        self._counts[model.name] += 1
        try:
            slot = await self._take_slot(model, memory_size, session_id)
        except BaseException:
            self._counts[model.name] -= 1
            raise
        ended = asyncio.get_running_loop().create_future()
        session = Session(session_id, model, slot, time.time(), self._clock(), ended)
        self._open[session.id] = session
        self._metrics.sessions.labels(model.name).inc()
        return session

    async def _take_slot(self, model: ServedModel, memory_size: int | None, session_id: str) -> Slot:
        """Take a slot and write down the session that it is for: both, or neither where an exception comes."""
        slot = await model.engine.open(memory_size)
        try:
            self._store.add(session_id, model.name)
        except BaseException:
            await model.engine.free(slot)
            raise
        return slot

    def get(self, session_id: str) -> Session:
        """Return an open session. Raises SessionGone or SessionNotFound."""
        session = self._open.get(session_id)
        if session is not None:
            return session
        reason = self._store.end_reason(session_id)
        if reason:
            raise _gone(session_id, reason)
        raise SessionNotFound(f"there is no session {session_id!r}", place="session", got=session_id)

    def all(self) -> list[Session]:
        """Return the open sessions, the most recently used first."""
        return list(reversed(self._open.values()))

    def waiting(self, model_name: str) -> int:
        """Return the number of requests that wait for their turn with a session of this model."""
        return self._waiting[model_name]

    def idle_seconds(self, session: Session) -> float:
        """Return for how long a session has not been used."""
        return self._clock() - session.used

    def expires_in(self, session: Session) -> float:
        """Return the seconds until a session expires if it is not used."""
        return max(0.0, self._idle_timeout - self.idle_seconds(session))

    async def step(
        self, session_id: str, inputs: Array, trace: Sequence[str] = (), if_step: int | None = None
    ) -> Stepped:
        """Step a session over a sequence, float32 [T, input_size].

        if_step: the step that the client believes the session is at. Raises StepConflict where it is at another,
        SessionGone, SessionNotFound, and what Engine.run raises; the session is then as it was.
        """
        return await self._in_turn(session_id, lambda session: self._step(session, inputs, trace, if_step))

    async def step_frame(
        self, session_id: str, inputs: Array, trace: Sequence[str], seq: int | None
    ) -> Stepped | Duplicate:
        """Step a session as `step` does, but never twice for the same frame.

        seq: the frame's number, one more than the last. The last frame gives again what it gave, one before it a
        Duplicate. Raises SequenceConflict where frames were left out.
        """
        return await self._in_turn(session_id, lambda session: self._step_frame(session, inputs, trace, seq))

    async def settled(self, session_id: str) -> Session:
        """Return a session once everything that it was asked before is carried out."""
        return await self._in_turn(session_id, _itself)

    async def state(self, session_id: str, step: int | None = None) -> tuple[int, dict[str, Array]]:
        """Return the step that a session is at, and its state there. Raises StepConflict where it is not at `step`."""
        return await self._in_turn(session_id, lambda session: self._state(session, step))

    async def reset(self, session_id: str) -> Session:
        """Put a session back to before its first step."""
        return await self._in_turn(session_id, self._reset)

    async def delete(self, session_id: str) -> None:
        """End a session, after what it was asked before."""
        await self._in_turn(session_id, lambda session: self._end(session, "deleted"))

    async def _in_turn(self, session_id: str, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Do something with a session when its turn comes, all of it even if whoever asked is gone meanwhile."""
        session = self.get(session_id)
        model = session.model.name
        if session.turn.locked() and self._waiting[model] >= self._max_waiting:
            raise QueueFull(f"{self._max_waiting} requests wait for a session of {model}; try again later")
        self._waiting[model] += 1

        async def take_turn() -> T:
            async with session.turn:
                self._waiting[model] -= 1
                if session.ended.done():
                    raise session.ended.result()
                try:
                    return await work(session)
                finally:
                    session.used = self._clock()
                    if session.id in self._open:
                        self._open.move_to_end(session.id)

        task = asyncio.ensure_future(take_turn())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, even if nobody waits any more
        return await asyncio.shield(task)

    async def _step(self, session: Session, inputs: Array, trace: Sequence[str], if_step: int | None) -> Stepped:
        _check_step(session, if_step, "if_step", f"not {if_step}")
        session.model.check_trace_bytes(trace, len(inputs), session.slot.memory_size)
        result = await session.model.engine.run(session.slot, inputs, trace)
        session.step += len(inputs)
        return Stepped(result, session.step)

    async def _step_frame(
        self, session: Session, inputs: Array, trace: Sequence[str], seq: int | None
    ) -> Stepped | Duplicate:
        if seq is None:
            return await self._step(session, inputs, trace, None)
        if session.seq is None or seq == session.seq + 1:
            session.last = await self._step(session, inputs, trace, None)
            session.seq = seq
            return session.last
        if seq == session.seq and session.last is not None:
            return session.last
        if seq < session.seq:
            return Duplicate(session.step)
        raise SequenceConflict(
            f"frame {seq} came after frame {session.seq}: none may be left out",
            place="seq",
            expected=str(session.seq + 1),
            got=str(seq),
            step=session.step,
        )

    async def _state(self, session: Session, step: int | None) -> tuple[int, dict[str, Array]]:
        _check_step(session, step, "step", "and states of other steps are not kept")
        return session.step, await session.model.engine.read(session.slot)

    async def _reset(self, session: Session) -> Session:
        await session.model.engine.reset(session.slot)
        session.step, session.seq, session.last = 0, None, None
        return session

    async def expire_idle(self) -> None:
        """End the sessions that have not been used for the idle timeout."""
        for session in list(self._open.values()):
            if self.expires_in(session) > 0:
                return
            if not session.turn.locked():
                async with session.turn:
                    await self._end(session, "expired")

    async def keep_expiring(self) -> None:
        """Look for idle sessions again and again, until cancelled."""
        while True:
            await asyncio.sleep(min(self._idle_timeout / 4, 5.0))
            try:
                await self.expire_idle()
            except Exception:
                logger.exception("idle sessions could not be ended; trying again")

    async def _end(self, session: Session, reason: EndReason) -> None:
        self._store.end(session.id, reason)
        session.ended.set_result(_gone(session.id, reason))
        del self._open[session.id]
        self._counts[session.model.name] -= 1
        self._metrics.sessions.labels(session.model.name).dec()
        self._metrics.ended.labels(session.model.name, reason).inc()
        with contextlib.suppress(ShuttingDown):  # the slot goes with the engine
            await session.model.engine.free(session.slot)


def _check_step(session: Session, wanted: int | None, place: str, remark: str) -> None:
    """Raise StepConflict unless the session is at the wanted step, if any."""
    if wanted not in (None, session.step):
        raise StepConflict(
            f"session {session.id} is at step {session.step}, {remark}",
            place=place,
            expected=str(session.step),
            got=str(wanted),
            step=session.step,
        )


async def _itself(session: Session) -> Session:
    return session


def _gone(session_id: str, reason: EndReason) -> SessionGone:
    return SessionGone(f"session {session_id} is gone: {reason}", reason=reason)
