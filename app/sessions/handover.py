"""Sessions handed over to other servers that share the store, and dropped where the lease was lost."""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from app.errors import EngramError, ModelChanged, SessionGone, SessionMoved, SessionNotFound, lease_lost
from app.futures import begin
from app.metrics import Metrics
from app.sessions.residents import Residents, logged
from app.sessions.session import Session
from app.sessions.turns import Turns
from app.stores.ownership import Ownership
from app.stores.writer import Writer

logger = logging.getLogger(__name__)

HANDED_OVER_AT_MOST = 4
"""How often a session is handed over within KEPT_SECONDS: clients at several servers pull it apart, then it stays."""

KEPT_SECONDS = 2.0

LEAVING_AT_ONCE = 8
"""Sessions that are handed over at the same time before the server stops: more wait longer, each for the others."""


class Handover:
    """Hands sessions over when other servers ask for them."""

    def __init__(
        self, writer: Writer, turns: Turns, residents: Residents, ownership: Ownership, metrics: Metrics
    ) -> None:
        self._writer = writer
        self._turns = turns
        self._residents = residents
        self._ownership = ownership
        self._metrics = metrics
        self._pulls = Pulls(HANDED_OVER_AT_MOST, KEPT_SECONDS)
        self._askers: dict[str, set[str]] = {}
        """The owners that have asked for the sessions that are being handed over."""
        self._working: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to answer other servers."""
        self._ownership.start(self._asked, self._lost)

    async def leave(self) -> None:
        """Hand all sessions over before the server stops, a few at a time: the others are served meanwhile."""
        if self._ownership.is_shared:
            self._turns.claim_no_more()
            left = iter(self._turns.all_known())
            await asyncio.gather(*(self._give_each(left) for _ in range(LEAVING_AT_ONCE)))

    async def _give_each(self, sessions: Iterator[Session]) -> None:
        for session in sessions:
            with logged(session, "it was not handed over"):
                await self._give(
                    session, f"this server stops, and has released session {session.public_id}: connect again"
                )

    def _asked(self, session_id: str, asker: str) -> None:
        """Hand a session over to an owner that asks for it; one that asks again meanwhile gets the same answer."""
        if session_id in self._askers:
            self._askers[session_id].add(asker)
            return
        self._askers[session_id] = {asker}
        begin(self._answer(session_id), self._working)

    def _lost(self) -> None:
        """Drop everything, after the lease was lost."""
        begin(self._drop_all(), self._working)

    async def _answer(self, session_id: str) -> None:
        """Hand a session over, and answer those who have asked for it."""
        handed_over = False
        try:
            handed_over = await self._hand_over(session_id)
        except EngramError as error:
            logger.warning("session %s could not be handed over: %s", session_id, error)
        finally:
            for asker in self._askers.pop(session_id):
                self._ownership.answer(session_id, asker, handed_over)

    async def _hand_over(self, session_id: str) -> bool:
        """Finish the requests that came before, keep a snapshot, and release a session; False: it stays for now."""
        if not self._pulls.allow(session_id):
            return False
        try:
            session = self._turns.shared(await self._turns.find(session_id))
        except (SessionGone, SessionNotFound):  # the asker finds that out
            return True
        except ModelChanged:  # it is in no arena
            await self._release(session_id)
            return True
        await self._give(session, f"another server has asked for session {session.public_id}: connect again")
        return True

    async def _give(self, session: Session, reason: str) -> None:
        """Finish the requests that came before, keep a snapshot, release a session, and report why to its watchers."""
        async with self._turns.hold(session):
            if session.ended.done():
                return
            await self._residents.evict(session)
            await self._release(session.id, self._turns.take_use(session))
            session.depart(SessionMoved(reason))

    async def _release(self, session_id: str, used: float | None = None) -> None:
        """Release a session in the store, and count it, unless this server does not have it any more."""
        owner = self._ownership.owner
        if await self._writer.call(lambda store: store.release(session_id, owner, used)):
            self._metrics.handovers.labels("out").inc()

    async def _drop_all(self) -> None:
        """Drop the states of all sessions, which other servers may have claimed, and then take a new lease."""
        sessions = self._turns.all_known()
        logger.error("the lease was lost: %d sessions are dropped from memory, and claimed again", len(sessions))
        await asyncio.gather(*map(self._drop, sessions))
        self._ownership.rejoin()

    async def _drop(self, session: Session) -> None:
        """Drop the state of a session; where that fails, log it and forget the session, which the store has too."""
        try:
            async with self._turns.hold(session):
                self._residents.drop(session)
                if not session.ended.done():
                    session.depart(lease_lost(self._ownership.seconds))
        except Exception:
            logger.exception("session %s was not dropped from memory as it should be", session.id)
            self._turns.forget(session.id)


class Pulls:
    """Which sessions were handed over lately, and how often."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """most: times within `seconds` that a session may be handed over."""
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def allow(self, session: str) -> bool:
        """Return whether a session may be handed over now, and if so, count it."""
        now = self._clock()
        self._forget(now - self._seconds)
        times = self._times.setdefault(session, deque(maxlen=self._most))
        if len(times) == self._most and times[0] > now - self._seconds:
            return False
        times.append(now)
        self._times.move_to_end(session)
        return True

    def _forget(self, before: float) -> None:
        """Forget the sessions that were last handed over before that time."""
        while self._times:
            session, times = next(iter(self._times.items()))
            if times[-1] > before:
                return
            del self._times[session]
