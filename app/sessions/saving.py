"""Snapshots of sessions whose model keeps no log: one replaces the last within a set time of each step."""

import asyncio
import logging
from collections.abc import Callable

from app.errors import EngramError, ShuttingDown
from app.sessions.recency import Recency
from app.sessions.residents import Residents
from app.sessions.session import Session
from app.sessions.turns import Turns

logger = logging.getLogger(__name__)


class Saving:
    """Replaces the snapshots of sessions, by a task for each resident one with steps that its snapshot lacks."""

    def __init__(self, turns: Turns, residents: Residents, recency: Recency, clock: Callable[[], float]) -> None:
        self._turns = turns
        self._residents = residents
        self._recency = recency
        self._clock = clock

    def save_within(self, session: Session, seconds: float) -> None:
        """Have a snapshot of a session replace its last one within some seconds. The caller holds its turn."""
        session.outrun_store()
        session.unsaved = True
        if session.saving is None:
            session.saving = asyncio.ensure_future(self._save_all(session, seconds))

    async def stop(self, until: float) -> None:
        """Stop replacing snapshots, at the latest at the time `until`; nobody then holds the turns of the sessions."""
        tasks = [session.saving for session in self._recency.all() if session.saving is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, until - self._clock()))

    async def _save_all(self, session: Session, seconds: float) -> None:
        """Replace a session's snapshot at intervals until it has all steps; log the first failure in a row.

        `Session.leave` cancels this task: an eviction writes a snapshot of its own.
        """
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

    async def _save(self, session: Session) -> None:
        """Replace a session's snapshot: its steps wait while the state is read, but not while it is written."""
        async with self._turns.hold(session):
            if not session.is_volatile:
                return
            data = await self._residents.packed_now(session)
            writing = asyncio.ensure_future(self._residents.park(session, data))
            session.unsaved = False
            await asyncio.sleep(0)  # then it is in the writer's queue, ahead of all that comes in later turns
        await writing
