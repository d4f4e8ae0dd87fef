"""Other steps of a session: state, snapshot and recording of the past; rewind and reset."""

from collections.abc import AsyncIterator, Mapping, Sequence

from app.backends.base import Array
from app.errors import EngramError, InvalidRequest, StepNotKept
from app.sessions.ending import Ending
from app.sessions.past import Piece, resolved
from app.sessions.residents import Residents
from app.sessions.saving import Saving
from app.sessions.session import Session, SessionInfo
from app.sessions.turns import Turns
from app.stores.writer import Writer


class TimeTravel:
    """Reads sessions at any step that is kept, and moves them there."""

    def __init__(self, writer: Writer, turns: Turns, residents: Residents, saving: Saving, ending: Ending) -> None:
        self._writer = writer
        self._turns = turns
        self._residents = residents
        self._saving = saving
        self._ending = ending

    async def state(self, session: Session, step: int | None = None) -> tuple[int, Mapping[str, Array]]:
        """Return (step, state) where the session is, or at another step. Raises StepNotKept."""
        at, found = await self._turns.run(session, lambda shared: self._residents.look(shared, step))
        return at, await resolved(at, found)

    async def snapshot(self, session: Session, step: int | None = None) -> bytes:
        """Return a snapshot file of a session where it is, or at another step. Raises StepNotKept."""
        return await self._residents.packed(session, *await self.state(session, step))

    async def recording(
        self, session: Session, start: int | None = None, stop: int | None = None, trace: Sequence[str] = ()
    ) -> AsyncIterator[Piece]:
        """Return the steps of a session from `start`, if not given the first that is kept, up to `stop`.

        Raises StepNotKept, if `start` is given also for the first piece: retention may have taken it meanwhile.
        """
        first, pieces = await self._turns.run(session, lambda shared: self._recording(shared, start, stop, trace))
        return pieces if start is not None else self._from_oldest(session, first, pieces, stop, trace)

    async def rewind(self, session_id: str, step: int) -> SessionInfo:
        """Put a session to a step that it was at; until its next step it can also be put forward again.

        Raises StepNotKept.
        """
        return await self._turns.run_by_id(session_id, lambda session: self._move(session, step, session.seq))

    async def reset(self, session_id: str) -> SessionInfo:
        """Put a session back to before its first step, as `rewind` does; its frames are numbered anew."""
        return await self._turns.run_by_id(session_id, lambda session: self._move(session, 0, None))

    async def _recording(
        self, session: Session, start: int | None, stop: int | None, trace: Sequence[str]
    ) -> tuple[int, AsyncIterator[Piece]]:
        """Return the step before the first of a recording, and its pieces, none of which is read yet."""
        await self._residents.locate(session)
        last = session.step if stop is None else stop
        first = min(session.step if session.is_volatile else session.oldest, last) if start is None else start
        if first > last:
            raise InvalidRequest(
                f"from: {first} is after {last}, which is `to`",
                place="from",
                expected=f"at most {last}",
                got=str(first),
            )
        session.check_kept(last)
        session.check_kept(first)
        session.check_recorded(first, last)
        return first, self._residents.past(session).pieces(first, last, trace)

    async def _from_oldest(
        self, session: Session, first: int, pieces: AsyncIterator[Piece], stop: int | None, trace: Sequence[str]
    ) -> AsyncIterator[Piece]:
        """Yield the pieces of a recording; where retention has taken the first, those from what is kept now."""
        while True:
            try:
                begun = await anext(pieces, None)
                break
            except StepNotKept:
                taken = first
                first, pieces = await self._turns.run(session, lambda shared: self._begin_again(shared, stop, trace))
                if first == taken:
                    raise
        if begun is not None:
            yield begun
            async for piece in pieces:
                yield piece

    async def _begin_again(
        self, session: Session, stop: int | None, trace: Sequence[str]
    ) -> tuple[int, AsyncIterator[Piece]]:
        """Return the same as `_recording`, from the oldest step that the store has now."""
        await self._residents.note_oldest(session)
        return await self._recording(session, None, stop, trace)

    async def _move(self, session: Session, step: int, seq: int | None) -> SessionInfo:
        slot = await self._residents.restore(session)
        session.check_kept(step)
        if (step, seq) == (session.step, session.seq):
            return session.info
        reached = await self._residents.past(session).reach(step)
        if session.is_volatile and session.snapshot_seconds is not None:
            await self._move_saved(session, session.snapshot_seconds, step, seq)
        try:
            if session.is_volatile:
                session.move(step, seq)
            else:
                session.follow(await self._writer.call(lambda store: store.move(session.id, step, seq)))
            await session.model.engine.write(slot, reached.state)
        except EngramError as error:
            raise await self._ending.give_up(session, error) from None
        session.recomputed(reached.kept)
        return session.info

    async def _move_saved(self, session: Session, seconds: float, step: int, seq: int | None) -> None:
        """Put what the store has of a session that keeps snapshots only to a step; if that fails, it stays as it is."""
        try:
            await self._writer.call(lambda store: store.move(session.id, step, seq))
        except EngramError:
            self._saving.save_within(session, seconds)  # which undoes the move of a store that hung
            raise
