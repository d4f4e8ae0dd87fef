"""The sessions in use, and whose turn each of them is.

A session that is in use or resident has one object, which everybody shares; any other is in the store alone, and is
found there. Requests take the turn of a session in the order in which they came. One that got in line is carried out
whole, also if the client goes away meanwhile.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from app.catalogue import ModelCatalogue, ServedModel
from app.engine.engine import Engine
from app.errors import (
    EngramError,
    InvalidRequest,
    ModelChanged,
    ModelNotFound,
    QueueFull,
    SessionDamaged,
    SessionNotFound,
    stopping,
)
from app.forces import force_document
from app.sessions.recency import Recency
from app.sessions.session import Session, SessionInfo, gone
from app.stores.base import EndReason, Record, Store
from app.stores.ownership import Ownership
from app.stores.writer import Writer
from app.tenants import outside

T = TypeVar("T")


class Turns:
    """Finds sessions, and gives their turns."""

    def __init__(
        self,
        models: ModelCatalogue,
        writer: Writer,
        recency: Recency,
        ownership: Ownership,
        clock: Callable[[], float],
        max_waiting: int,
        logs: bool,
        snapshots: Mapping[str, float],
    ) -> None:
        """max_waiting: requests of a model that may wait for a turn. logs, snapshots: as SessionService has them."""
        self._models = models
        self._writer = writer
        self._recency = recency
        self._ownership = ownership
        self._clock = clock
        self._max_waiting = max_waiting
        self._logs = logs
        self._snapshots = snapshots
        self._closing = self._leaving = False
        self._sessions: dict[str, Session] = {}
        self._waiting: Counter[str] = Counter()
        self._touched: dict[str, float] = {}

    @property
    def engines(self) -> list[Engine]:
        """The engines of all models, on offer or retired."""
        return [model.engine for model in self._models.all]

    def close(self) -> None:
        """Refuse new requests."""
        self._closing = True

    def claim_no_more(self) -> None:
        """Refuse to open a session, and what asks for one that is not resident: another server has it from now on."""
        self._leaving = True

    def check_open(self) -> None:
        """Raise ShuttingDown where new requests are refused, LeaseLost where others may have the sessions."""
        if self._closing:
            raise stopping()
        self._ownership.check()

    def check_claims(self) -> None:
        """Raise ShuttingDown where no session is claimed any more, LeaseLost where others may have the sessions."""
        if self._leaving:
            raise stopping()
        self._ownership.check()

    # Finding

    def known(self, session_id: str) -> Session | None:
        """Return an open session that is in use or resident, None for any other."""
        return self._sessions.get(session_id)

    def all_known(self) -> list[Session]:
        """Return the open sessions that are in use or resident."""
        return list(self._sessions.values())

    def uses(self, model: ServedModel) -> bool:
        """Return whether a session of this version of a model is in use or resident."""
        return any(session.model is model for session in self._sessions.values())

    async def find(self, session_id: str) -> Session:
        """Return an open session. Raises SessionGone, SessionNotFound, ModelChanged, StoreFailed or LeaseLost."""
        self._ownership.check()
        known = self._sessions.get(session_id)
        if known is not None and not self._may_be_elsewhere(known):
            return known
        found = await self._writer.call(lambda store: store.find(session_id))
        return self._current(session_id, found) or self._made(session_id, found)

    async def find_all(self, session_ids: Sequence[str]) -> list[Session | EngramError]:
        """Return open sessions, or the error of one, as `find` raises it. Raises StoreFailed, ShuttingDown."""
        self._ownership.check()
        known = {name: self._sessions.get(name) for name in session_ids}  # some may be evicted meanwhile
        missing = [name for name, session in known.items() if session is None or self._may_be_elsewhere(session)]
        found = await self._writer.call(lambda store: _find_each(store, missing)) if missing else []
        records = dict(zip(missing, found, strict=True))
        return [
            self._current(name, records.get(name)) or known[name] or self._made_or_error(name, records[name])
            for name in session_ids
        ]

    async def info(self, session_id: str) -> SessionInfo:
        """Return where an open session is, also while requests here wait for another server to hand it over.

        Raises as `find` does.
        """
        self._ownership.check()
        known = self._sessions.get(session_id)
        if known is not None and self._is_here(known):
            return known.info
        return self._made(session_id, await self._writer.call(lambda store: store.find(session_id))).info

    def shared(self, session: Session) -> Session:
        """Return the one object of this session that everybody uses: this one where there is none yet."""
        return self._sessions.setdefault(session.id, session)

    def _is_here(self, session: Session) -> bool:
        """Return whether no other server can step a session that is known here."""
        return session.slot is not None or not self._ownership.is_shared

    def _may_be_elsewhere(self, session: Session) -> bool:
        """Return whether nobody uses a session that is known here, and another server may step it meanwhile."""
        return not session.users and not self._is_here(session)

    def _current(self, session_id: str, found: Record | EndReason | EngramError | None) -> Session | None:
        """Return a session that is known, put where the store has it if it may be elsewhere."""
        session = self._sessions.get(session_id)
        if session is not None and isinstance(found, Record) and self._may_be_elsewhere(session):
            session.follow(found)
        return session

    def _made_or_error(self, session_id: str, found: Record | EndReason | EngramError | None) -> Session | EngramError:
        if isinstance(found, EngramError):
            return found
        try:
            return self._made(session_id, found)
        except EngramError as error:
            return error

    def _made(self, session_id: str, found: Record | EndReason | None) -> Session:
        if found is None:
            public_id = outside(session_id)
            raise SessionNotFound(f"there is no session {public_id!r}", place="session", got=public_id)
        if not isinstance(found, Record):
            raise gone(session_id, found)
        loop = asyncio.get_running_loop()
        seconds = self._snapshots.get(found.model)
        model, logs = self._model(found), self._logs and seconds is None
        used = max(found.used, self._touched.get(found.id, 0.0))
        futures = loop.create_future(), loop.create_future()
        session = Session(
            found.id, model, found.memory_size, found.opened, used, *futures, logs, seconds, force=found.force
        )
        session.follow(found)
        return session

    def _model(self, record: Record) -> ServedModel:
        """Return the model of a session. Raises ModelChanged where it is not served with the session's weights."""
        version = self._models.version(record.model, record.fingerprint)
        if version is not None:
            _check_force(record, version)
            return version
        remedy = "serve that one again, or delete the session"
        if self._ownership.is_shared:
            remedy = "load the same checkpoints at all servers, POST /admin/reload at each, or delete the session"
        try:
            model = self._models.get(record.model)
        except ModelNotFound as error:
            raise ModelChanged(
                f"session {outside(record.id)} is of {record.model}, which is not served here, {error}: {remedy}"
            ) from error
        raise ModelChanged(
            f"session {outside(record.id)} is of a model {record.model} with other weights or another config, "
            f"fingerprint {record.fingerprint[:16]}, than the one that is served here: {remedy}",
            expected=record.fingerprint,
            got=model.fingerprint,
        )

    # Turns

    def is_free(self, session: Session) -> bool:
        """Return whether a request can take the turn at once."""
        return not session.turn.taken and not self._closing and self._ownership.holds

    def take(self, session: Session) -> None:
        """Take the turn of a session, which must be free, until `leave`."""
        session.turn.take()
        session.users += 1

    def leave(self, session: Session) -> None:
        """Give the turn of a session to the next, and note that the session was used."""
        session.turn.leave()
        session.users -= 1
        self._use(session)

    async def run(self, session: Session, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Do something in the next turn of a session, whole, even if the caller is cancelled meanwhile.

        Raises as `enqueue` does, and what `work` raises.
        """
        self.check_open()
        session = self.shared(session)
        return await asyncio.shield(self.enqueue(session, lambda: work(session)))

    async def run_by_id(self, session_id: str, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Find a session, and do something in its next turn. Raises as `find` and `run` do; ShuttingDown first."""
        self.check_open()
        return await self.run(await self.find(session_id), work)

    def enqueue(self, session: Session, work: Callable[[], Coroutine[Any, Any, T]]) -> "asyncio.Task[T]":
        """Do something in the next turn of a session. Raises QueueFull, ShuttingDown; the task: SessionGone."""
        self.check_open()
        if session.slot is None:
            self.check_claims()
        model = session.model.name
        if session.turn.taken and self._waiting[model] >= self._max_waiting:
            raise QueueFull(f"{self._max_waiting} requests wait for a session of {model}; try again later")
        self._waiting[model] += 1
        session.users += 1
        place = session.turn.join()

        async def take_turn() -> T:
            if place is not None:
                await place
            try:
                self._waiting[model] -= 1
                if session.ended.done():
                    raise session.ended.result()
                return await work()
            finally:
                self.leave(session)

        task = asyncio.ensure_future(take_turn())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, even if nobody waits any more
        return task

    @contextlib.asynccontextmanager
    async def hold(self, session: Session) -> AsyncIterator[None]:
        """Hold the turn of a session for work of the server's own, which does not count as use."""
        session.users += 1
        try:
            async with session.turn:
                yield
        finally:
            session.users -= 1
            self._release(session)

    def waiting(self, model_name: str) -> int:
        """Return the number of requests that wait for the turn of a session of this model."""
        return self._waiting[model_name]

    def in_use(self) -> bool:
        """Return whether somebody has the turn of a session, or waits for one."""
        return any(session.users for session in self._sessions.values())

    # Watching

    async def info_in_turn(self, session: Session) -> SessionInfo:
        """Return the info of a session once all requests that came before are carried out."""
        return await self.run(session, self._info)

    async def _info(self, session: Session) -> SessionInfo:
        """Return the info of a session, whose turn the caller has, as it is now. Raises SessionGone."""
        if not self._is_here(session):
            found = await self._writer.call(lambda store: store.find(session.id))
            if not isinstance(found, Record):
                raise gone(session.id, found or "deleted")
            session.follow(found)
        return session.info

    @contextlib.asynccontextmanager
    async def watching(self, session: Session) -> AsyncIterator[Session]:
        """Give a session as `watch` does, for as long as the context lasts."""
        session = await self.watch(session)
        try:
            yield session
        finally:
            self.unwatch(session)

    async def watch(self, session: Session) -> Session:
        """Return a session after its earlier requests; until `unwatch`, its `ended` is resolved at its end.

        Raises as `run` does.
        """
        session = self.shared(session)
        session.watchers += 1
        try:
            await self.info_in_turn(session)
        except BaseException:
            self.unwatch(session)
            raise
        return session

    def unwatch(self, session: Session) -> None:
        """Let go of a session that was watched."""
        session.watchers -= 1
        self._release(session)

    # Use

    async def write_uses(self) -> None:
        """Write down when sessions were last used. Raises StoreFailed, ShuttingDown: then the next call does."""
        touched, self._touched = self._touched, {}
        try:
            await self._writer.call(lambda store: store.touch(list(touched.items())))
        except EngramError:
            self._touched = touched | self._touched
            raise

    def take_use(self, session: Session) -> float | None:
        """Return when a session was last used, for the caller to write down; None where the store has it."""
        return self._touched.pop(session.id, None)

    def forget(self, session_id: str) -> None:
        """Forget a session that has ended."""
        self._sessions.pop(session_id, None)
        self._touched.pop(session_id, None)

    def _use(self, session: Session) -> None:
        """Note that a session was used."""
        name = session.id
        now = session.used = self._clock()
        if name in self._sessions:
            self._touched[name] = now
            if session.slot is None:
                self._release(session)
            else:
                self._recency.use(session)

    def _release(self, session: Session) -> None:
        """Forget a session that nobody uses and that is in the store alone."""
        if session.slot is None and not session.users and not session.watchers:
            self._sessions.pop(session.id, None)


def _check_force(record: Record, model: ServedModel) -> None:
    """Raise ModelChanged where the model, as it is served, cannot force the gates that a session forces."""
    try:
        model.force(force_document(record.force))
    except InvalidRequest as error:
        raise ModelChanged(f"session {outside(record.id)} cannot go on: {error}") from error


def _find_each(store: Store, session_ids: Sequence[str]) -> list[Record | EndReason | EngramError | None]:
    """Return what a store has of each session, or the error of one that is damaged."""
    found: list[Record | EndReason | EngramError | None] = []
    for name in session_ids:
        try:
            found.append(store.find(name))
        except SessionDamaged as error:
            found.append(error)
    return found
