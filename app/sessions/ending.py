"""Sessions ended: deleted, expired, or lost in a failure."""

import asyncio
import contextlib
import copy
import logging
import math
from collections.abc import Callable

from app.errors import (
    EngramError,
    ModelChanged,
    SessionDamaged,
    SessionGone,
    SessionHeld,
    SessionNotFound,
    ShuttingDown,
)
from app.sessions.counts import OpenSessions
from app.sessions.residents import Residents
from app.sessions.session import Session, gone
from app.sessions.turns import Turns
from app.stores.base import EndReason, Record
from app.stores.writer import Writer
from app.tenants import tenant_of

logger = logging.getLogger(__name__)

EXPIRED_AT_ONCE = 100
"""Sessions that the store is asked for at a time."""

EXPIRY_SECONDS = 5.0
"""Seconds between two looks for idle sessions, at most."""

TIDIED_EVERY = 60.0
"""Seconds after which the time is recorded again: a crash takes back the clock by as much, at most."""


class Ending:
    """Ends sessions."""

    def __init__(
        self,
        writer: Writer,
        turns: Turns,
        residents: Residents,
        counts: OpenSessions,
        clock: Callable[[], float],
        idle_timeout: float,
    ) -> None:
        """idle_timeout: seconds without use until a session expires."""
        self._writer = writer
        self._turns = turns
        self._residents = residents
        self._counts = counts
        self._clock = clock
        self._idle_timeout = idle_timeout

    async def delete(self, session_id: str) -> None:
        """End a session, after the requests that came before."""
        try:
            await self._turns.run_by_id(session_id, self._delete)
        except (ModelChanged, SessionDamaged):
            await self._end_stored(session_id, "deleted")

    async def _delete(self, session: Session) -> None:
        await self._claim(session)
        await self._end(session, "deleted")

    async def _claim(self, session: Session) -> None:
        """Claim a session that is in no arena here: another server may have it, or have used it since."""
        if session.slot is None:
            await self._residents.claim(session)

    async def expire_idle(self) -> None:
        """End the sessions that have not been used for the idle timeout."""
        await self._turns.write_uses()
        since = self._clock() - self._idle_timeout
        idle = await self._writer.call(lambda store: store.idle_since(since, EXPIRED_AT_ONCE))
        while idle:
            for session_id in idle:
                known = self._turns.known(session_id)
                if known is not None and known.users:
                    continue
                await self._expire(session_id, since)
            seen = set(idle)
            idle = await self._writer.call(lambda store: store.idle_since(since, EXPIRED_AT_ONCE))
            idle = [] if seen & set(idle) else idle  # those that are left are in use

    async def _expire(self, session_id: str, since: float) -> None:
        """End a session unless it was used after the time `since`, or has ended meanwhile; log any other error."""
        try:
            await self._end_unused(session_id, since)
        except (SessionGone, SessionNotFound, SessionHeld):
            pass
        except EngramError as error:
            logger.warning("session %s has expired but could not be ended; trying again: %s", session_id, error)
        except Exception:
            logger.exception("session %s has expired but could not be ended; trying again", session_id)

    async def _end_unused(self, session_id: str, since: float) -> None:
        async def end(session: Session) -> None:
            await self._claim(session)
            if session.used <= since:
                await self._end(session, "expired")

        try:
            await self._turns.run_by_id(session_id, end)
        except (ModelChanged, SessionDamaged):
            await self._end_stored(session_id, "expired", since)

    async def tidy(self) -> None:
        """Record the time in the store, and have it forget the sessions that ended long ago, some at a time."""
        while await self._writer.call(lambda store: store.tidy(self._clock())):
            pass

    async def keep_expiring(self) -> None:
        """Look for idle sessions again and again, and tidy the store now and then, until cancelled."""
        tidied = -math.inf
        while True:
            await asyncio.sleep(min(self._idle_timeout / 4, EXPIRY_SECONDS))
            try:
                await self.expire_idle()
                if self._clock() - tidied >= TIDIED_EVERY:
                    await self.tidy()
                    tidied = self._clock()
            except ShuttingDown:
                return
            except EngramError as error:
                logger.error("idle sessions could not be ended, or ended ones forgotten; trying again: %s", error)
            except Exception:
                logger.exception("idle sessions could not be ended, or ended ones forgotten; trying again")

    async def _end(self, session: Session, reason: EndReason) -> None:
        await self._end_record(session.id, session.model.name, reason)
        session.end(gone(session.id, reason))
        self._turns.forget(session.id)
        await self._residents.free(session)

    async def give_up(self, session: Session, error: EngramError) -> EngramError:
        """Drop the state of a session, which may differ from the log, and return the error for the client.

        The session is restored from the log. A volatile one goes back to its last snapshot, and the error then says so,
        or it is lost. The caller holds the turn.
        """
        was_volatile = session.is_volatile
        self._residents.drop(session)
        if not was_volatile:
            return error
        with contextlib.suppress(EngramError):
            if session.snapshot_seconds is None:
                await self._end(session, "lost in a failure")
            else:
                await self._residents.claim(session)
                return _at_snapshot(error, session)
        return error

    async def _end_stored(self, session_id: str, reason: EndReason, since: float = math.inf) -> None:
        """End a session that is not resident, unless it was used after the time `since`.

        One whose row is damaged stays in the counts until the next start.
        """
        now = self._clock()
        try:
            found = await self._residents.claim_by_id(session_id)
        except SessionDamaged:
            await self._writer.call(lambda store: store.end(session_id, reason, now))
            return
        if isinstance(found, Record) and found.used <= since:
            await self._end_record(session_id, found.model, reason)

    async def _end_record(self, session_id: str, model: str, reason: EndReason) -> None:
        now = self._clock()
        if not await self._writer.call(lambda store: store.end(session_id, reason, now)):
            return
        self._turns.forget(session_id)
        self._counts.ended(model, tenant_of(session_id), reason)


def _at_snapshot(error: EngramError, session: Session) -> EngramError:
    """Return an error that also says at which step the session is, back at its last snapshot."""
    placed = copy.copy(error)
    placed.detail = f"{error.detail}; session {session.public_id} is back at its last snapshot, step {session.step}"
    placed.more = error.more | {"step": session.step, "seq": session.seq}
    placed.args = (placed.detail,)
    return placed
