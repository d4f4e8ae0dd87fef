"""Sequences: sessions that clients call by a number or a text of their own, begun by START and ended by END.

    START, not under way    open a session under the key of the sequence; the one before, which has ended, loses the key
    START, under way        end its session, then as above; the answer says so
    neither, under way      step its session
    neither, not under way  refused: a sequence that is gone is never begun again in silence
    END                     end its session once the step is answered for; a step that is refused ends nothing

The store has the key of a session (`app.tenants.sequence_key`), so sequences last as sessions do, whichever server has
them. The requests of a sequence that are under way here begin in the order in which they came. A START that another
server overtakes, by a START of its own or by a step, begins again.
"""

import asyncio
import contextlib
import functools
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

from app.access.keys import Caller
from app.api.deps import tenant_of_caller
from app.api.inputs import brief
from app.api.v2.requests import Sequence
from app.catalogue import ServedModel
from app.errors import (
    EngramError,
    SequenceUnknown,
    SessionGone,
    SessionMoved,
    SessionNotFound,
    StepConflict,
    StoreFailed,
)
from app.sessions.service import SessionService
from app.sessions.session import Duplicate, Session, Stepped, Steps, Turn
from app.tenants import inside, outside, sequence_key

KNOWN = 2**16
"""Sequences whose sessions are remembered; those of others are looked up in the store."""

LABEL_LENGTH = 24
"""The most characters of a sequence's id in the ID of its session, which has at most 64."""

BEGUN_AT_MOST = 4
"""How often a START begins, at most, as long as other servers overtake it."""

Prepare = Callable[[ServedModel, int | None], Steps]
"""Checks a request against the model and the memory size of its session."""


class Taken(NamedTuple):
    """A step of a sequence. session: its ID; restarted: whether the sequence was under way and began anew."""

    stepped: Stepped
    session: str
    restarted: bool


class _Line:
    """The requests of one sequence that have not begun; users: those, and the one that begins."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.users = 0


class Sequences:
    """Steps sequences."""

    def __init__(self, sessions: SessionService) -> None:
        self._sessions = sessions
        self._known: OrderedDict[str, str] = OrderedDict()
        """Key of a sequence -> name of its session. An open session has its key as long as it is open."""
        self._lines: dict[str, _Line] = {}

    async def step(
        self, caller: Caller, model: ServedModel, sequence: Sequence, memory_size: int | None, prepare: Prepare
    ) -> Taken:
        """Step a sequence of a model. memory_size: with START, that of its session.

        Raises SequenceUnknown; SessionGone where it expired or was lost; what `prepare` raises, and then nothing was
        done; as Opening.begin and Stepping.step do.
        """
        key = sequence_key(caller.tenant, model.name, sequence.id)
        async with self._first_in_line(key):
            if sequence.start:
                return await self._begin(caller, model, sequence, memory_size, prepare, key)
            session = await self._find(key, model.name, sequence)
            pending = self._submit(session, prepare)
            if sequence.end:
                with _as_of_sequence(model.name, sequence, session.id):
                    return Taken(await self._end(session, pending, key), session.public_id, False)
        with _as_of_sequence(model.name, sequence, session.id):
            return Taken(_stepped(await pending), session.public_id, False)

    async def _begin(
        self,
        caller: Caller,
        model: ServedModel,
        sequence: Sequence,
        memory_size: int | None,
        prepare: Prepare,
        key: str,
    ) -> Taken:
        """Begin a sequence, anew if it is under way. If its first step fails, it has not begun.

        Raises SessionMoved where other servers overtake it again and again.
        """
        model.memory.check(memory_size)
        steps = prepare(model, memory_size)
        first = steps._replace(if_step=steps.if_step or 0)
        for _ in range(BEGUN_AT_MOST):
            try:
                return await self._begin_once(caller, model, sequence, memory_size, first, key)
            except (SessionGone, SessionMoved, StepConflict):
                if steps.if_step:
                    raise
        raise _overtaken(model.name, sequence)

    async def _begin_once(
        self, caller: Caller, model: ServedModel, sequence: Sequence, memory_size: int | None, steps: Steps, key: str
    ) -> Taken:
        """Begin a sequence. Raises SessionGone, SessionMoved or StepConflict where another server overtakes it."""
        self._known.pop(key, None)
        last = await self._sessions.opening.opened_under(key)
        before = last if last is not None and await self._is_under_way(last) else None
        end_before = None if before is None else functools.partial(self._end_session, before)
        label, tenant = _label(sequence), tenant_of_caller(caller)
        try:
            opened = await self._sessions.opening.begin(model, memory_size, key, label, tenant, end_before)
        except StoreFailed:
            if await self._sessions.opening.opened_under(key) == last:
                raise
            raise _overtaken(model.name, sequence) from None
        name = inside(caller.tenant, opened.id)
        stepped = await self._first_step(name, steps)
        if sequence.end:
            await self._end_session(name)
        else:
            self._remember(key, name)
        return Taken(stepped, opened.id, before is not None)

    async def _first_step(self, name: str, steps: Steps) -> Stepped:
        """Step a session that has just been opened; if that fails, delete it."""
        try:
            session = await self._sessions.turns.find(name)
            return _stepped(await self._sessions.stepping.begin(session, steps))
        except EngramError:
            with contextlib.suppress(EngramError):
                await self._sessions.ending.delete(name)
            raise

    async def _is_under_way(self, name: str) -> bool:
        """Return whether the session of a sequence is open."""
        try:
            await self._sessions.turns.find(name)
        except (SessionGone, SessionNotFound):
            return False
        except EngramError:  # it is open, but cannot be stepped here
            pass
        return True

    async def _end_session(self, name: str) -> None:
        with contextlib.suppress(SessionGone, SessionNotFound):
            await self._sessions.ending.delete(name)

    async def _end(self, session: Session, pending: "asyncio.Future[Stepped | Duplicate]", key: str) -> Stepped:
        """Return the result of the last step of a sequence, after its session has ended."""
        stepped = _stepped(await pending)
        self._known.pop(key, None)
        await self._end_session(session.id)
        return stepped

    def _submit(self, session: Session, prepare: Prepare) -> "asyncio.Future[Stepped | Duplicate]":
        steps = prepare(session.model, session.memory_size)
        return self._sessions.stepping.begin(session, steps)

    async def _find(self, key: str, model: str, sequence: Sequence) -> Session:
        """Return the session of a sequence that is under way. Raises SequenceUnknown, SessionGone."""
        known = self._known.get(key)
        if known is not None:
            with contextlib.suppress(SessionGone, SessionNotFound):  # another server may have begun it anew
                return await self._sessions.turns.find(known)
        name = await self._sessions.opening.opened_under(key)
        if name is None:
            raise _unknown(model, sequence)
        with _as_of_sequence(model, sequence, name):
            session = await self._sessions.turns.find(name)
        self._remember(key, name)
        return session

    def _remember(self, key: str, name: str) -> None:
        self._known[key] = name
        self._known.move_to_end(key)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)

    @contextlib.asynccontextmanager
    async def _first_in_line(self, key: str) -> AsyncIterator[None]:
        """Wait until the requests of this sequence that came before have begun; those behind wait for the block."""
        line = self._lines.setdefault(key, _Line())
        line.users += 1
        try:
            async with line.turn:
                yield
        finally:
            line.users -= 1
            if not line.users:
                del self._lines[key]


def _label(sequence: Sequence) -> str:
    """Return the beginning of the ID of a sequence's session."""
    return f"sequence-{re.sub('[^A-Za-z0-9_-]', '-', str(sequence.id))[:LABEL_LENGTH]}-"


def _stepped(outcome: Stepped | Duplicate) -> Stepped:
    assert isinstance(outcome, Stepped), "only frames come again"
    return outcome


@contextlib.contextmanager
def _as_of_sequence(model: str, sequence: Sequence, name: str) -> Iterator[None]:
    """Raise the errors of a session that is gone as those of its sequence: SequenceUnknown, SessionGone."""
    try:
        yield
    except SessionNotFound:
        raise _unknown(model, sequence) from None
    except SessionGone as gone:
        if gone.more["reason"] == "deleted":
            raise _unknown(model, sequence) from None
        raise _gone(sequence, name, gone) from None


def _unknown(model: str, sequence: Sequence) -> SequenceUnknown:
    shown = brief(sequence.id)
    return SequenceUnknown(
        f"sequence {shown} of {model} has not begun, or has ended: its first request must have sequence_start, true",
        place="parameters.sequence_start",
        got=shown,
    )


def _overtaken(model: str, sequence: Sequence) -> SessionMoved:
    """Return the error for a START while other servers have requests of the same sequence."""
    return SessionMoved(f"other servers begin or step sequence {brief(sequence.id)} of {model} too: send it again")


def _gone(sequence: Sequence, name: str, gone: SessionGone) -> SessionGone:
    """Return the error for a sequence whose session expired or was lost."""
    reason = gone.more["reason"]
    return SessionGone(
        f"sequence {brief(sequence.id)} is gone, its session {outside(name)}: {reason}; begin it anew with "
        "sequence_start",
        reason=reason,
    )
