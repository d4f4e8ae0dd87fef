"""Sessions opened: new ones, those of a snapshot file, and forks; under a key, once however often the request comes."""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from app.catalogue import ModelCatalogue, ServedModel
from app.errors import IdempotencyConflict, InvalidSnapshot, StoreFailed
from app.forces import force_document
from app.sessions.counts import OpenSessions
from app.sessions.past import resolved
from app.sessions.residents import Residents
from app.sessions.session import Onto, Session, SessionInfo, gone, info_of
from app.sessions.snapshot import Snapshot
from app.sessions.turns import Turns
from app.stores.base import NOBODY, NewSession, Record, Store
from app.stores.ownership import Ownership
from app.stores.writer import Writer
from app.tenants import ANYBODY, Tenant, key_inside, key_outside, prefix, tenant_of


class Opening:
    """Opens sessions."""

    def __init__(
        self,
        models: ModelCatalogue,
        writer: Writer,
        turns: Turns,
        residents: Residents,
        counts: OpenSessions,
        clock: Callable[[], float],
        ownership: Ownership,
    ) -> None:
        self._models = models
        self._writer = writer
        self._turns = turns
        self._residents = residents
        self._counts = counts
        self._clock = clock
        self._ownership = ownership

    async def open(
        self,
        model_name: str,
        memory_size: int | None = None,
        key: str | None = None,
        tenant: Tenant = ANYBODY,
        force: Mapping[str, Any] | None = None,
    ) -> SessionInfo:
        """Open a session of a tenant; memory_size: other than the model's own; force: the gates to hold at values.

        key: the same key opens one session of a tenant, however often it comes. Raises ModelNotFound, InvalidRequest
        where it cannot have this memory size or force these gates, SessionsFull, TenantFull, StoreFailed;
        IdempotencyConflict where the key came with another request, SessionGone where the session that it opened has
        ended.
        """
        model = self._models.get(model_name)
        model.memory.check(memory_size)
        size, forced = model.shapes(memory_size).memory_size, model.force(force)
        digest = _hash(json.dumps([model_name, memory_size, *([] if forced is None else [forced])]).encode())
        key = key and key_inside(tenant.name, key)
        if opened := await self._opened(key, digest):
            return opened
        return await self._create(self._new(tenant, model, size, key=key, digest=digest, force=forced), tenant)

    async def begin(
        self,
        model: ServedModel,
        memory_size: int | None,
        key: str,
        label: str,
        tenant: Tenant = ANYBODY,
        end_before: Callable[[], Awaitable[None]] | None = None,
    ) -> SessionInfo:
        """Open a session under a key that no open session has: one that has ended loses it.

        label: the beginning of its ID, of letters, digits, `_` and `-`, for people. end_before: ends the open session
        of this key, whose place among those that may be open the new one takes, so that no other can. Raises as `open`
        does, and StoreFailed where an open session has the key.
        """
        model.memory.check(memory_size)
        size = model.shapes(memory_size).memory_size
        new = self._new(tenant, model, size, label, key=key, digest=_hash(key.encode()), takes_key=True)
        return await self._create(new, tenant, end_before)

    async def opened_under(self, key: str) -> str | None:
        """Return the name of the session that was opened under a key, if any, which may have ended."""
        found = await self._writer.call(lambda store: store.created(key))
        return None if found is None else found[0]

    async def open_from(
        self, data: bytes, model_name: str | None = None, key: str | None = None, tenant: Tenant = ANYBODY
    ) -> SessionInfo:
        """Open a session with a snapshot. Raises InvalidSnapshot, and as `open` does."""
        snapshot = await asyncio.to_thread(Snapshot.from_bytes, data)
        model = self._model_of(snapshot, model_name)
        model.memory.check(snapshot.memory_size)
        force = _force_of(snapshot, model)
        await asyncio.to_thread(snapshot.check, model.shapes(snapshot.memory_size, force))
        if snapshot.step == 0:
            snapshot.check_first(await self._residents.first_state(model, snapshot.memory_size))
        digest = await asyncio.to_thread(_hash, data) if key is not None else None
        key = key and key_inside(tenant.name, key)
        past: dict[str, Any] = {"base": snapshot.step, "snapshot": data, "key": key, "digest": digest, "force": force}
        if opened := await self._opened(key, digest):
            return opened
        return await self._create(self._new(tenant, model, snapshot.memory_size, **past), tenant)

    async def fork(
        self,
        session_id: str,
        step: int | None = None,
        key: str | None = None,
        tenant: Tenant = ANYBODY,
        onto: str | None = None,
        force: Mapping[str, Any] | None = None,
    ) -> SessionInfo:
        """Open a session with the past of another up to a step, if not given where that one is. Raises StepNotKept.

        tenant: that of the other session. onto: the name of the model that the session is to be of, in the version on
        offer, with the state of the other at that step and no past; by default, it is of the other's version. force:
        the gates that it holds at values from there on, by default those of the other; where they are others, it has no
        past. Raises ModelNotFound, InvalidRequest where the model has no such memory size or gates, InvalidSnapshot
        where its states differ.
        """
        assert tenant_of(session_id) == tenant.name, "a fork is of the tenant of its session"
        more = [item for item in (onto, None if force is None else {"force": force}) if item is not None]
        digest = _hash(json.dumps([session_id, step, *more], sort_keys=True).encode())
        key = key and key_inside(tenant.name, key)
        opened = await self._opened(key, digest)
        if opened is not None:
            return opened
        return await self._turns.run_by_id(
            session_id, lambda session: self._fork(session, step, tenant, onto, force, key=key, digest=digest)
        )

    async def _fork(
        self,
        session: Session,
        step: int | None,
        tenant: Tenant,
        onto: str | None,
        force: Mapping[str, Any] | None,
        **request: Any,
    ) -> SessionInfo:
        model = session.model if onto is None else self._models.get(onto)
        forced = model.force(force_document(session.force) if force is None else force)
        await self._residents.locate(session)
        base = session.step if step is None else step
        session.check_kept(base)
        if (model, forced) != (session.model, session.force):
            past = await self._moved(session, base, Onto(model, forced))
        elif session.is_volatile:
            past = await self._kept(session, base, Onto(model, forced))
        else:
            past = {"base": base, "parent": session.tape}
            if base == session.step:
                await self._residents.keep_for_fork(session)
        new = self._new(tenant, model, session.memory_size, force=forced, **past, **request)
        return await self._create(new, tenant)

    async def _moved(self, session: Session, base: int, onto: Onto) -> dict[str, Any]:
        """Return where a session of another model or with other forced gates begins, with the state of this one."""
        model = onto.model
        model.memory.check(session.memory_size)
        here, there = session.model.shapes(session.memory_size), model.shapes(session.memory_size)
        if any((here.state, here.dtype(name)) != (there.state, there.dtype(name)) for name in here.state):
            raise InvalidSnapshot(
                f"model: the state of session {session.public_id} is {here.state}, but that of {model.name} as it is "
                f"served now is {there.state}: fork it without a model, and it stays on its version",
                place="model",
                expected="a model whose state has the same leaves",
                got=model.name,
            )
        return await self._kept(session, base, onto) if base else {"base": 0}

    async def _kept(self, session: Session, base: int, onto: Onto) -> dict[str, Any]:
        """Return the beginning of a fork with nothing but the state of this session at a step."""
        at, found = await self._residents.look(session, base)
        return {"base": base, "snapshot": await self._residents.packed(session, at, await resolved(at, found), onto)}

    def _new(
        self, tenant: Tenant, model: ServedModel, memory_size: int | None, label: str = "", **more: Any
    ) -> NewSession:
        name, now = prefix(tenant.name) + label + _fresh_id(), self._clock()
        return NewSession(name, model.name, model.fingerprint, memory_size, now, opened=time.time(), **more)

    async def _opened(self, key: str | None, digest: bytes | None) -> SessionInfo | None:
        """Return the session that this request has opened before, if it has."""
        if key is None:
            return None
        record = await self._writer.call(lambda store: _created(store, key, digest))
        return info_of(record, record.model) if record else None

    async def _create(
        self, new: NewSession, tenant: Tenant, end_before: Callable[[], Awaitable[None]] | None = None
    ) -> SessionInfo:
        self._turns.check_open()
        self._turns.check_claims()
        self._counts.reserve(new.model, tenant, in_place=end_before is not None)
        created = False
        owner = NOBODY if self._ownership.is_shared else self._ownership.owner  # its first request may go elsewhere
        try:
            if end_before is not None:
                await end_before()
            record, created = await self._writer.call(lambda store: _create_once(store, new, owner))
        finally:
            self._counts.confirm(new.model, tenant, created)
        return info_of(record, record.model)

    def _model_of(self, snapshot: Snapshot, name: str | None) -> ServedModel:
        """Return the model that a snapshot is of, whatever it is called here. Raises InvalidSnapshot, ModelNotFound."""
        served = {model.name: model for model in self._models if model.fingerprint == snapshot.fingerprint}
        if name is not None:
            served = {known: model for known, model in served.items() if known == self._models.get(name).name}
        if not served:
            wanted = f"{name} is another model" if name else "no model here is of that kind, with these weights"
            raise InvalidSnapshot(
                f"the snapshot is of {snapshot.model}, fingerprint {snapshot.fingerprint[:16]}, but {wanted}",
                place="body",
                expected="a snapshot of a model that is served here",
                got=f"one of {snapshot.model}",
            )
        return served.get(snapshot.model) or next(iter(served.values()))


def _force_of(snapshot: Snapshot, model: ServedModel) -> str | None:
    """Return the gates that the session of a snapshot forces. Raises InvalidSnapshot, InvalidRequest."""
    try:
        asked = force_document(snapshot.force)
    except (ValueError, RecursionError):
        asked = {}
    force = model.force(asked) if isinstance(asked, dict) else None
    if force != snapshot.force:
        raise InvalidSnapshot(
            "the snapshot cannot be used: its metadata engram.force is not as this server writes it",
            place="body",
            expected="what GET /sessions/{session}/snapshot gave",
        )
    return force


def _create_once(store: Store, new: NewSession, owner: str) -> tuple[Record, bool]:
    """Open a session unless one was opened under its key; return it, and whether it is new."""
    if new.key is None or new.takes_key:
        return store.create(new, owner), True
    if before := _created(store, new.key, new.digest):
        return before, False
    try:
        return store.create(new, owner), True
    except StoreFailed:
        if before := _created(store, new.key, new.digest):  # another server was faster
            return before, False
        raise


def _created(store: Store, key: str, digest: bytes | None) -> Record | None:
    """Return the session that a request has opened under a key, if it has. Raises IdempotencyConflict, SessionGone."""
    before = store.created(key)
    if before is None:
        return None
    if before[1] != digest:
        sent = key_outside(key)
        raise IdempotencyConflict(
            f"Idempotency-Key {sent!r} came before with another request", place="Idempotency-Key", got=sent
        )
    found = store.find(before[0])
    if not isinstance(found, Record):
        raise gone(before[0], found or "deleted")
    return found


def _fresh_id() -> str:
    """Return a name that nobody can guess; a command line would take one that begins with - for an option."""
    name = secrets.token_urlsafe(16)
    return _fresh_id() if name.startswith("-") else name


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
