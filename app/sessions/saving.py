"""Snapshots of sessions whose model keeps no log: one replaces the last within a set time of each step."""

import asyncio
import logging
from collections.abc import Callable

from app.errors import EngramError, ShuttingDown
from app.sessions.residents import Residents
from app.sessions.session import Session
from app.sessions.turns import Turns

logger = logging.getLogger(__name__)


class Saving:
    """Replaces the snapshots of sessions, by a task for each that has steps which its snapshot lacks."""

    def __init__(self, turns: Turns, residents: Residents, clock: Callable[[], float]) -> None:
        self._turns = turns
        self._residents = residents
        self._clock = clock
        self._unsaved: set[Session] = set()
        """Sessions with steps that their last snapshot lacks."""
        self._tasks: dict[Session, asyncio.Task[None]] = {}

    def save_within(self, session: Session, seconds: float) -> None:
        """Have a snapshot of a session replace its last one within some seconds. The caller holds its turn."""
        session.outrun_store()
        self._unsaved.add(session)
        if session not in self._tasks:
            self._tasks[session] = asyncio.ensure_future(self._save_all(session, seconds))

    async def stop(self, until: float) -> None:
        """Stop replacing snapshots, at the latest at the time `until`; nobody then holds the turns of the sessions."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, until - self._clock()))

    async def _save_all(self, session: Session, seconds: float) -> None:
        """Replace a session's snapshot at intervals until it has all steps; log the first failure in a row."""
        failed = False
        try:
            while session in self._unsaved:
                await asyncio.sleep(seconds)
                if not session.is_volatile:  # it was evicted, with a snapshot, or has ended
                    return
                try:
                    await self._save(session)
                    failed = False
                except ShuttingDown:
                    return
                except EngramError as error:
                    self._unsaved.add(session)
                    if not failed:
                        logger.warning("session %s: its last snapshot is not replaced: %s", session.id, error)
                    failed = True
        finally:
            self._tasks.pop(session, None)
            self._unsaved.discard(session)

    async def _save(self, session: Session) -> None:
        """Replace a session's snapshot: its steps wait while the state is read, but not while it is written."""
        async with self._turns.hold(session):
            if not session.is_volatile:
                return
            self._unsaved.discard(session)
            data = await self._residents.packed_now(session)
            writing = asyncio.ensure_future(self._residents.park(session, data))
            await asyncio.sleep(0)  # then it is in the writer's queue, ahead of all that comes in later turns
        await writing
