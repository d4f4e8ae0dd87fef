"""The sessions of a server: opened, stepped in order, read and moved to any step, forked; then deleted or expired.

A session's requests are carried out one after the other, in the order in which they came, each whole or not at all.
The store has the truth of a session; its state is in an arena only while it is used:

    opening       a record in the store                             no memory is taken
    turns         find the session, and take its turn
    residents     restore its state into an arena; evict it when others need the room
    stepping      step; now and then keep a snapshot, when the log has outgrown the state
    saving        where there is no log: a snapshot every few seconds
    time_travel   read or move it at any step; `past` computes the state there
    ending        delete, expire, give up
    inference     whole sequences, which leave no session

A slot whose state may differ from the log, because something failed in between, is dropped, never served.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from app.catalogue import ModelCatalogue, ServedModel
from app.errors import EngramError, ShuttingDown, StoreFailed
from app.metrics import Metrics
from app.sessions.clock import Clock
from app.sessions.counts import OpenSessions
from app.sessions.ending import Ending
from app.sessions.handover import Handover
from app.sessions.inference import Inference
from app.sessions.opening import Opening
from app.sessions.recency import Recency
from app.sessions.residents import Residents
from app.sessions.saving import Saving
from app.sessions.session import SessionInfo, info_of
from app.sessions.stepping import Stepping
from app.sessions.time_travel import TimeTravel
from app.sessions.turns import Turns
from app.stores.base import Store
from app.stores.ownership import Alone, Ownership
from app.stores.writer import Durability, Writer
from app.tenants import DEFAULT

POLL_SECONDS = 0.01

FOLLOWED_EVERY = 1.0
"""Seconds between two looks at what other servers of the same store have done."""

LAST_TOUCH_SECONDS = 0.5
"""How long the store has at least to write when sessions were last used, as the server stops."""


@dataclass(frozen=True)
class Limits:
    """Limits on the sessions of a server.

    sessions: open sessions of a model; resident: sessions of a model in its arena; waiting: requests of a model that
    wait for the turn of a session. idle_timeout: seconds without use until a session expires.
    """

    sessions: int
    resident: int
    waiting: int
    idle_timeout: float


class SessionService:
    """All sessions of a server. Its parts are the files of this room."""

    def __init__(
        self,
        models: ModelCatalogue,
        writer: Writer,
        metrics: Metrics,
        limits: Limits,
        clock: Clock,
        counts: Mapping[str, int],
        tenants: Mapping[str, int],
        durability: Durability = "ack",
        snapshots: Mapping[str, float] | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        """counts, tenants: how many sessions of each model, and of each tenant, are open.

        snapshots: models whose sessions keep snapshots only, each with the seconds within which one has a step.
        ownership: that of a server alone, if not given.
        """
        self._models = models
        self._writer = writer
        self._ownership = ownership or Alone()
        self._limits = limits
        self._clock = clock
        self._recency = Recency()
        ownership, logs = self._ownership, durability != "none"
        self._opened = opened = OpenSessions(models, metrics, counts, tenants, limits.sessions)
        self.turns = Turns(models, writer, self._recency, ownership, clock, limits.waiting, logs, snapshots or {})
        self._residents = Residents(self.turns, writer, self._recency, ownership, metrics, limits.resident, clock)
        self._saving = Saving(self.turns, self._residents, self._recency, clock)
        self.opening = Opening(models, writer, self.turns, self._residents, opened, clock, ownership)
        self.ending = Ending(writer, self.turns, self._residents, opened, clock, limits.idle_timeout)
        self.stepping = Stepping(writer, self.turns, self._residents, self._saving, self.ending)
        self.inference = Inference(self._residents)
        self.handover = Handover(writer, self.turns, self._residents, ownership, metrics)
        self.time_travel = TimeTravel(writer, self.turns, self._residents, self._saving, self.ending)

    @property
    def are_shared(self) -> bool:
        """Whether other servers may have sessions of the same store."""
        return self._ownership.is_shared

    async def keep_in_step(self) -> None:
        """Follow the counts and the clock of a store that several servers share, until cancelled."""
        while self._ownership.is_shared:
            await asyncio.sleep(FOLLOWED_EVERY)
            with contextlib.suppress(StoreFailed, ShuttingDown):
                counts, tenants, latest = await self._writer.call(_shared)
                self._opened.follow(counts, tenants)
                self._clock.advance(latest)

    async def probe(self) -> None:
        """Raise StoreFailed unless the store can be read and written, LeaseLost while the lease is lost."""
        self._ownership.check()
        await self._writer.call(lambda store: store.probe())

    async def all(self, model: str | None, limit: int, tenant: str = DEFAULT) -> list[SessionInfo]:
        """Return open sessions of a tenant, of one model if it is given, the most recently used first.

        Raises StoreFailed, LeaseLost.
        """
        with contextlib.suppress(StoreFailed):  # on a full disk, the order is that of a moment ago
            await self.turns.write_uses()
        records = await self._writer.call(lambda store: store.list(tenant, model, limit))
        self._ownership.check()
        known = [self.turns.known(record.id) for record in records]
        return [
            session.info if session and session.slot else info_of(record, record.model)
            for session, record in zip(known, records, strict=True)
        ]

    def resident(self, model_name: str) -> int:
        """Return the number of sessions of this model, in all of its versions, that are in an arena."""
        return sum(self._recency.count(model) for model in self._models.all if model.name == model_name)

    async def needs(self, model: ServedModel) -> bool:
        """Return whether sessions of this version of a model are open, or in use."""
        name, version = model.name, model.fingerprint
        return self.turns.uses(model) or await self._writer.call(lambda store: store.has_sessions(name, version))

    def idle_seconds(self, session: SessionInfo) -> float:
        """Return the seconds since a session was last used."""
        return max(0.0, self._clock() - session.used)

    def expires_in(self, session: SessionInfo) -> float:
        """Return the seconds until a session expires if it is not used."""
        return max(0.0, self._limits.idle_timeout - self.idle_seconds(session))

    async def close(self, timeout: float) -> None:
        """Refuse new requests, finish those that were accepted, and evict all sessions.

        After `timeout` seconds, the rest is given up: every step that was answered is in the log all the same.
        """
        self.turns.close()
        end = self._clock() + timeout
        await asyncio.gather(*(model.engine.drain(timeout) for model in self._models.all))
        while self.turns.in_use() and self._clock() < end:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        await self._saving.stop(end)
        await self._residents.evict_all(end)
        with contextlib.suppress(EngramError, TimeoutError):
            await asyncio.wait_for(self._write_last(), max(LAST_TOUCH_SECONDS, end - self._clock()))
        await self._ownership.close()

    async def _write_last(self) -> None:
        await self.turns.write_uses()
        await self._writer.call(lambda store: store.tidy(self._clock()))


def _shared(store: Store) -> tuple[dict[str, int], dict[str, int], float]:
    """Return the counts of open sessions by model and by tenant, and the latest time, of a store."""
    return store.counts(), store.tenants(), store.latest_time()
