"""The life of a session: opened, stepped in order, looked into at any step, rewound, forked; then deleted or expired.

A session's requests are served one after the other, in the order in which they came. One that was accepted is carried
out whole or not at all. What a session is, is in the store; its state is in an arena only while it is in use:

    find        its record is read from the store
    wake        its state is computed from there, and takes a slot of an arena
    step        ...; now and then a snapshot is kept, when the log has outgrown the state
    leave       a snapshot is kept, and the slot is free for another session

A slot whose state may not be what the log says, because something failed in between, is dropped, never served.
"""

import asyncio
import contextlib
import copy
import functools
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from app.backends.base import Array
from app.catalogue import ModelCatalogue, ServedModel
from app.dtypes import packed_bytes
from app.engine.run import Outcome, Result, Run
from app.errors import (
    EngramError,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSnapshot,
    ModelChanged,
    ModelNotFound,
    OutOfMemory,
    QueueFull,
    SequenceConflict,
    SessionDamaged,
    SessionGone,
    SessionNotFound,
    SessionsFull,
    ShuttingDown,
    StoreFailed,
    stopping,
    unexpected_error,
)
from app.metrics import Metrics
from app.sessions.past import Piece, resolved
from app.sessions.residents import ENTRY_BYTES, Residents
from app.sessions.session import Duplicate, Session, SessionInfo, Stepped, Steps, gone, info_of
from app.sessions.snapshot import Snapshot
from app.stores.base import EndReason, NewSession, Record, Store
from app.stores.writer import Durability, Writer
from app.waiting import settle

T = TypeVar("T")

Done = Callable[[Stepped | Duplicate | EngramError], None]
"""Called with the outcome of a request to step."""

logger = logging.getLogger(__name__)

KEPT_RESULT_BYTES = 65_536
"""A larger result of a session's last frame is computed again, should the frame come again."""

EXPIRED_AT_ONCE = 100
EXPIRY_SECONDS = 5.0
POLL_SECONDS = 0.01

LAST_TOUCH_SECONDS = 0.5
"""How long the store has at least to take when sessions were last used, as the server stops."""


@dataclass(frozen=True)
class Limits:
    """What a server's sessions may take.

    sessions: open ones of a model; resident: of a model, those in an arena; waiting: requests of a model that wait
    for their session. idle_timeout: seconds without use until a session expires.
    """

    sessions: int
    resident: int
    waiting: int
    idle_timeout: float


class SessionService:
    """All sessions of a server."""

    def __init__(
        self,
        models: ModelCatalogue,
        writer: Writer,
        metrics: Metrics,
        limits: Limits,
        clock: Callable[[], float],
        counts: Mapping[str, int],
        durability: Durability = "ack",
        snapshots: Mapping[str, float] | None = None,
    ) -> None:
        """counts: how many sessions of each model are open.

        snapshots: models whose sessions keep snapshots only, each with the seconds within which one has a step.
        """
        self._models = models
        self._writer = writer
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._logs = durability != "none"
        self._snapshots = snapshots or {}
        self._owner = secrets.token_hex(8)
        self._closing = False
        self._sessions: dict[str, Session] = {}
        """Those in use or in an arena."""
        self._residents = Residents(writer, self._owner, limits.resident, clock, self._release)
        self._counts = dict(counts)
        self._waiting: dict[str, int] = {model.name: 0 for model in models}
        self._touched: dict[str, float] = {}
        self._following_up: set[asyncio.Task[None]] = set()
        for model in models:
            metrics.sessions.labels(model.name).set(self._counts.get(model.name, 0))

    async def probe(self) -> None:
        """Raise StoreFailed unless the store can be read and written."""
        await self._writer.call(lambda store: store.probe())

    # Opening

    async def open(self, model_name: str, memory_size: int | None = None, key: str | None = None) -> SessionInfo:
        """Open a session; memory_size: other than the model's own.

        key: the same key opens one session, however often it comes. Raises ModelNotFound, InvalidRequest where it
        cannot have this memory size, SessionsFull, StoreFailed; IdempotencyConflict where the key came with another
        request, SessionGone where the session that it opened has ended.
        """
        model = self._models.get(model_name)
        model.memory.check(memory_size)
        size = model.shapes(memory_size).memory_size
        digest = _hash(json.dumps([model_name, memory_size]).encode())
        return await self._opened(key, digest) or await self._create(self._new(model, size, key=key, digest=digest))

    async def restore(self, data: bytes, model_name: str | None = None, key: str | None = None) -> SessionInfo:
        """Open a session with a snapshot. Raises InvalidSnapshot, and as `open` does."""
        snapshot = await asyncio.to_thread(Snapshot.from_bytes, data)
        model = self._model_of(snapshot, model_name)
        model.memory.check(snapshot.memory_size)
        await asyncio.to_thread(snapshot.check, model.shapes(snapshot.memory_size))
        if snapshot.step == 0:
            snapshot.check_first(await self._residents.first_state(model, snapshot.memory_size))
        digest = await asyncio.to_thread(_hash, data) if key is not None else None
        past: dict[str, Any] = {"base": snapshot.step, "snapshot": data, "key": key, "digest": digest}
        return await self._opened(key, digest) or await self._create(self._new(model, snapshot.memory_size, **past))

    async def fork(self, session_id: str, step: int | None = None, key: str | None = None) -> SessionInfo:
        """Open a session with the past of another up to a step, if not given where that one is. Raises StepNotKept."""
        digest = _hash(json.dumps([session_id, step]).encode())
        opened = await self._opened(key, digest)
        if opened is not None:
            return opened
        return await self._in_turn(session_id, lambda session: self._fork(session, step, key, digest))

    async def _fork(self, session: Session, step: int | None, key: str | None, digest: bytes) -> SessionInfo:
        await self._residents.locate(session)
        base = session.step if step is None else step
        session.check_kept(base)
        past: dict[str, Any] = {"base": base, "parent": session.tape}
        if session.unlogged:
            at, found = await self._residents.look(session, base)
            past = {"base": base, "snapshot": await self._residents.packed(session, at, await resolved(at, found))}
        elif base == session.step:
            await self._residents.keep_for_fork(session)
        return await self._create(self._new(session.model, session.memory_size, key=key, digest=digest, **past))

    def _new(self, model: ServedModel, memory_size: int | None, **more: Any) -> NewSession:
        name = secrets.token_urlsafe(16)
        return NewSession(name, model.name, model.fingerprint, memory_size, self._clock(), **more)

    async def _opened(self, key: str | None, digest: bytes | None) -> SessionInfo | None:
        """Return the session that this request has opened before, if it has."""
        if key is None:
            return None
        record = await self._writer.call(lambda store: _created(store, key, digest))
        return info_of(record, record.model) if record else None

    async def _create(self, new: NewSession) -> SessionInfo:
        if self._closing:
            raise stopping()
        open_now = self._counts.get(new.model, 0)
        if open_now >= self._limits.sessions:
            raise SessionsFull(
                f"{open_now} sessions of {new.model} are open, and no more can be: delete some, or try later"
            )
        self._counts[new.model] = open_now + 1
        created = False
        try:
            record, created = await self._writer.call(lambda store: _create_once(store, new, self._owner))
        finally:
            self._counts[new.model] -= not created
        self._metrics.sessions.labels(new.model).set(self._counts[new.model])
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

    # What there is

    def known(self, session_id: str) -> Session | None:
        """Return an open session that is in use or in an arena, None for any other."""
        return self._sessions.get(session_id)

    async def find(self, session_id: str) -> Session:
        """Return an open session. Raises SessionGone, SessionNotFound, ModelChanged or StoreFailed."""
        known = self._sessions.get(session_id)
        if known is not None:
            return known
        found = await self._writer.call(lambda store: store.find(session_id))
        return self._sessions.get(session_id) or self._made(session_id, found)

    async def find_all(self, session_ids: Sequence[str]) -> list[Session | EngramError]:
        """Return open sessions, or why one cannot be had, as `find` raises it. Raises StoreFailed, ShuttingDown."""
        known = {name: self._sessions.get(name) for name in session_ids}  # some may leave meanwhile
        missing = [name for name, session in known.items() if session is None]
        found = await self._writer.call(lambda store: _find_each(store, missing)) if missing else []
        records = dict(zip(missing, found, strict=True))
        return [
            self._sessions.get(name) or known[name] or self._made_or_not(name, records[name]) for name in session_ids
        ]

    def _made_or_not(self, session_id: str, found: Record | EndReason | EngramError | None) -> Session | EngramError:
        if isinstance(found, EngramError):
            return found
        try:
            return self._made(session_id, found)
        except EngramError as error:
            return error

    async def info(self, session_id: str) -> SessionInfo:
        """Return what is told of a session. Raises as `find` does."""
        return (await self.find(session_id)).info

    async def all(self, model: str | None, limit: int) -> list[SessionInfo]:
        """Return open sessions, of one model if it is given, the most recently used first."""
        with contextlib.suppress(StoreFailed):  # on a full disk, the order is that of a moment ago
            await self._touch()
        records = await self._writer.call(lambda store: store.list(model, limit))
        known = [self._sessions.get(record.id) for record in records]
        return [
            session.info if session else info_of(record, record.model)
            for session, record in zip(known, records, strict=True)
        ]

    async def infer(
        self, model: ServedModel, sequences: Sequence[Array], trace: Sequence[str], memory_size: int | None
    ) -> list[Result]:
        """Run sequences whose states are not kept, as Engine.infer does; sessions make room for them."""
        return await self._residents.with_room(model, lambda: model.engine.infer(sequences, trace, memory_size))

    def submit_inference(
        self,
        model: ServedModel,
        inputs: Array,
        trace: Sequence[str],
        memory_size: int | None,
        done: Callable[[Result | EngramError], None],
    ) -> Callable[[], None]:
        """Run one sequence as `infer` does; `done` is called with its result or error, once this has returned.

        Returns a function that drops it: `done` is then not called. Raises as Engine.submit does.
        """
        again: asyncio.Task[list[Result]] | None = None

        def ended(outcome: Outcome | None) -> None:
            nonlocal again
            if run.cancelled or outcome is None:
                return
            if isinstance(outcome, OutOfMemory):  # sessions make room
                again = asyncio.ensure_future(self.infer(model, [inputs], trace, memory_size))
                again.add_done_callback(ended_again)
            elif isinstance(outcome, EngramError):
                done(outcome)
            else:
                done(outcome.errors.get(0) or outcome.row(0))

        def ended_again(task: "asyncio.Task[list[Result]]") -> None:
            if not run.cancelled:
                outcome = _outcome(task)
                done(outcome if isinstance(outcome, EngramError) else outcome[0])

        def drop() -> None:
            run.cancelled = True
            if again is not None:
                again.cancel()

        run = Run(None, memory_size, inputs[None], trace, ended)
        model.engine.submit((run,))
        return drop

    def waiting(self, model_name: str) -> int:
        """Return the number of requests that wait for their turn with a session of this model."""
        return self._waiting[model_name]

    def resident(self, model_name: str) -> int:
        """Return the number of sessions of this model that are in an arena."""
        return self._residents.count(model_name)

    def idle_seconds(self, session: SessionInfo) -> float:
        """Return for how long a session has not been used."""
        return max(0.0, self._clock() - session.used)

    def expires_in(self, session: SessionInfo) -> float:
        """Return the seconds until a session expires if it is not used."""
        return max(0.0, self._limits.idle_timeout - self.idle_seconds(session))

    def _made(self, session_id: str, found: Record | EndReason | None) -> Session:
        if found is None:
            raise SessionNotFound(f"there is no session {session_id!r}", place="session", got=session_id)
        if not isinstance(found, Record):
            raise gone(session_id, found)
        ended = asyncio.get_running_loop().create_future()
        seconds = self._snapshots.get(found.model)
        model, logs = self._model(found), self._logs and seconds is None
        session = Session(found.id, model, found.memory_size, found.opened, found.used, ended, logs, seconds)
        session.used = max(session.used, self._touched.get(session.id, 0.0))
        session.follow(found)
        return session

    def _model(self, record: Record) -> ServedModel:
        """Return the model of a session. Raises ModelChanged where it is not served with the session's weights."""
        try:
            model = self._models.get(record.model)
        except ModelNotFound as error:
            raise ModelChanged(f"session {record.id} is of {record.model}, which is not served: {error}") from error
        if model.fingerprint != record.fingerprint:
            raise ModelChanged(
                f"session {record.id} is of a model {record.model} with other weights or another config, fingerprint "
                f"{record.fingerprint[:16]}, than the one that is served: serve that one again, or delete the session",
                expected=record.fingerprint,
                got=model.fingerprint,
            )
        return model

    # Stepping

    async def step(
        self, session: Session | str, inputs: Array, trace: Sequence[str] = (), if_step: int | None = None
    ) -> Stepped:
        """Step a session over a sequence, as `submit` does."""
        stepped = await self._submitted(session, Steps(inputs, trace, if_step))
        assert isinstance(stepped, Stepped), "only frames come again"
        return stepped

    async def step_frame(
        self, session: Session | str, inputs: Array, trace: Sequence[str], seq: int | None
    ) -> Stepped | Duplicate:
        """Step a session as `submit` does, but never twice for the same frame.

        seq: the frame's number. A frame that comes again gives what it gave, or a Duplicate where the log of it is
        gone. Raises SequenceConflict where frames were left out.
        """
        return await self._submitted(session, Steps(inputs, trace, seq=seq))

    def submit(self, session: Session, steps: Steps, done: Done) -> None:
        """Step a session over a sequence; `done` is called with the result or the error, perhaps at once.

        All of it is carried out even if nobody needs the result any more. Errors: StepConflict where the session is at
        another step than `if_step`; SequenceConflict where a frame does not follow the last; SessionGone,
        SessionNotFound, and those of Engine.submit; the session is then as it was.
        """
        try:
            if self._is_ready(session, steps):
                self._step_at_once(session, steps, done)
                return
            task = self._take_turn(session, lambda: self._step(session, steps))
        except Exception as error:
            done(_told_of(error))
            return
        task.add_done_callback(lambda finished: done(_outcome(finished)))

    async def _submitted(self, session: Session | str, steps: Steps) -> Stepped | Duplicate:
        if self._closing:
            raise stopping()
        if isinstance(session, str):
            session = await self.find(session)
        waiter: asyncio.Future[Stepped | Duplicate] = asyncio.get_running_loop().create_future()
        self.submit(self._known(session), steps, functools.partial(settle, waiter))
        return await waiter

    async def step_all(
        self, asked: Sequence[tuple[Session, Steps] | EngramError]
    ) -> Sequence[Stepped | Duplicate | EngramError]:
        """Step many sessions, as `submit_all` does."""
        if self._closing:
            raise stopping()
        waiter: asyncio.Future[Sequence[Stepped | Duplicate | EngramError]] = asyncio.get_running_loop().create_future()
        asked = [item if isinstance(item, EngramError) else (self._known(item[0]), item[1]) for item in asked]
        self.submit_all(asked, functools.partial(settle, waiter))
        return await waiter

    def submit_all(
        self,
        asked: Sequence[tuple[Session, Steps] | EngramError],
        done: Callable[[Sequence[Stepped | Duplicate | EngramError]], None],
    ) -> None:
        """Step many sessions, each as `submit` does; `done` is called with all results and errors, in order.

        An error instead of a session is its answer. Those that can be stepped without waiting, of one model and with as
        many steps, go through the engine as one run.
        """
        answers = _Answers(len(asked), done)
        if not asked:
            done([])
        together: dict[tuple[Any, ...], list[tuple[int, Session, Steps]]] = {}
        for number, item in enumerate(asked):
            if isinstance(item, EngramError):
                answers.put(number, item)
                continue
            session, steps = item
            if self._is_ready(session, steps) and steps.if_step in (None, session.step):
                session.turn.take()
                session.users += 1
                alike = (session.model.name, session.memory_size, len(steps.inputs), tuple(steps.trace))
                together.setdefault(alike, []).append((number, session, steps))
            else:
                self.submit(session, steps, functools.partial(answers.put, number))
        for rows in together.values():
            _, session, _ = rows[0]
            most = session.model.engine.rows_at_once(session.memory_size)
            for first in range(0, len(rows), most):
                self._step_together(rows[first : first + most], answers)

    def _step_together(self, rows: Sequence[tuple[int, Session, Steps]], answers: "_Answers") -> None:
        """Step sessions that are ready, whose turns were taken, and whose steps are alike; rows: with their numbers."""

        def end_turns(outcome: Outcome) -> None:
            for row, (number, session, steps) in enumerate(rows):
                settled = _settled(session, steps, outcome, row)
                if isinstance(settled, Stepped) and not self._leaves_snapshot(session):
                    self._leave_turn(session)
                    answers.put(number, settled)
                else:
                    self._end_turn(session, functools.partial(answers.put, number), settled)

        try:
            self._submit_rows([(session, steps) for _, session, steps in rows], end_turns)
        except Exception as error:
            told = _told_of(error)
            for number, session, _ in rows:
                self._leave_turn(session)
                answers.put(number, told)

    def _is_ready(self, session: Session, steps: Steps) -> bool:
        """Return whether a session can be stepped without waiting: it is in an arena, and it is nobody's turn."""
        return (
            session.slot is not None
            and not session.turn.taken
            and not self._closing
            and (session.logs or session.unlogged)
            and (steps.seq is None or session.is_next(steps.seq))
        )

    def _step_at_once(self, session: Session, steps: Steps, done: Done) -> None:
        """Step a session that is ready, in a turn that ends when the engine has answered."""
        session.turn.take()
        session.users += 1
        try:
            self._advance(session, steps, functools.partial(self._end_turn, session, done))
        except BaseException:
            self._leave_turn(session)
            raise

    def _advance(self, session: Session, steps: Steps, done: Callable[[Stepped | EngramError], None]) -> None:
        """Have the engine step a session that is in an arena; `done` is called when the session is where it then is.

        Raises StepConflict, InvalidRequest, and as Engine.submit does.
        """
        if steps.if_step is not None:
            session.check_step(steps.if_step)
        self._submit_rows(((session, steps),), lambda outcome: done(_settled(session, steps, outcome, 0)))

    def _submit_rows(self, asked: Sequence[tuple[Session, Steps]], done: Callable[[Outcome], None]) -> None:
        """Have the engine step sessions that are in an arena, by steps that are alike. Raises as Engine.submit does."""
        session, first = asked[0]
        model, inputs, trace = session.model, first.inputs, first.trace
        if trace:
            model.check_trace_bytes(trace, len(asked) * len(inputs), session.memory_size)
        slots = [each.slot.number for each, _ in asked if each.slot is not None]
        entries = [each.entry(steps) for each, steps in asked] if session.logs else None
        rows = inputs[None] if len(asked) == 1 else np.stack([steps.inputs for _, steps in asked])
        model.engine.submit((Run(slots, session.memory_size, rows, trace, done, entries),))

    def _end_turn(self, session: Session, done: Done, outcome: Stepped | EngramError) -> None:
        """Answer, and give the turn to the next, after what a step has left to do."""
        if isinstance(outcome, EngramError):
            if outcome.unsettled:
                self._follow_up(session, self._give_up(session, outcome), lambda error: done(error or outcome))
                return
            self._leave_turn(session)
        elif self._leaves_snapshot(session):
            self._follow_up(session, self._residents.keep_later(session), lambda _: None)
        else:
            self._leave_turn(session)
        done(outcome)

    def _leaves_snapshot(self, session: Session) -> bool:
        """Return whether to keep a snapshot, after a step; where a model keeps snapshots only, one is kept later."""
        if session.snapshot_seconds is not None:
            self._residents.save_later(session, session.snapshot_seconds)
        return session.logs and self._residents.snapshot_is_due(session)

    def _follow_up(
        self,
        session: Session,
        work: Coroutine[Any, Any, EngramError | None],
        then: Callable[[EngramError | None], None],
    ) -> None:
        """Do something more in the turn of a session, and call `then` with what came of it."""

        async def follow_up() -> None:
            outcome = None
            try:
                outcome = await work
            finally:
                self._leave_turn(session)
                then(outcome)

        task = asyncio.ensure_future(follow_up())
        self._following_up.add(task)
        task.add_done_callback(self._following_up.discard)

    async def _step(self, session: Session, steps: Steps) -> Stepped | Duplicate:
        """Step a session whose turn the caller has, wherever its state is."""
        await self._residents.wake(session)
        if not session.is_next(steps.seq):
            return await self._step_again(session, steps)
        if not session.logs and session.snapshot_seconds is None and not session.unlogged:
            session.check_step(steps.if_step)
            await self._writer.call(lambda store: store.unlogged(session.id))
            session.unlogged = True
        waiter: asyncio.Future[Stepped] = asyncio.get_running_loop().create_future()
        self._advance(session, steps, functools.partial(settle, waiter))
        try:
            stepped = await waiter
        except EngramError as error:
            if error.unsettled:
                raise await self._give_up(session, error) from None
            raise
        if self._leaves_snapshot(session):
            await self._residents.keep_later(session)
        return stepped

    async def _step_again(self, session: Session, steps: Steps) -> Stepped | Duplicate:
        """Return the result of a frame that was carried out before: as it was kept, or computed again.

        Raises SequenceConflict where the frame was not carried out.
        """
        seq, last = steps.seq, session.seq
        assert seq is not None
        assert last is not None
        if seq > last:
            raise SequenceConflict(
                f"frame {seq} came after frame {last}: none may be left out",
                place="seq",
                expected=str(last + 1),
                got=str(seq),
                step=session.step,
            )
        if seq == last and session.last is not None and set(steps.trace) <= set(session.last.result.trace):
            return session.last
        found = await self._writer.call(lambda store: store.frame(session.tape, seq))
        if found is None or session.unlogged:
            return Duplicate(session.step)
        session.model.check_trace_bytes(steps.trace, found.steps, session.memory_size)
        stop = found.step + found.steps
        pieces = [piece async for piece in self._residents.past(session).pieces(found.step, stop, steps.trace)]
        return Stepped(_joined(pieces, steps.trace), stop)

    # The past

    async def settled(self, session_id: str) -> SessionInfo:
        """Return what is told of a session once everything that it was asked before is carried out."""
        return await self._in_turn(session_id, _told)

    @contextlib.asynccontextmanager
    async def watching(self, session_id: str) -> AsyncIterator[Session]:
        """Give a session as `watch` does, for as long as this lasts."""
        session = await self.watch(session_id)
        try:
            yield session
        finally:
            self.unwatch(session)

    async def watch(self, session_id: str) -> Session:
        """Return a session, settled, whose `ended` tells of its end until `unwatch`. Raises as `find` does."""
        session = self._known(await self.find(session_id))
        session.watchers += 1
        try:
            await self.settled(session_id)
        except BaseException:
            self.unwatch(session)
            raise
        return session

    def unwatch(self, session: Session) -> None:
        """Let go of a session that was watched."""
        session.watchers -= 1
        self._release(session)

    async def state(self, session_id: str, step: int | None = None) -> tuple[int, Mapping[str, Array]]:
        """Return a step, if not given that which the session is at, and the state there. Raises StepNotKept."""
        at, found = await self._in_turn(session_id, lambda session: self._residents.look(session, step))
        return at, await resolved(at, found)

    async def snapshot(self, session_id: str, step: int | None = None) -> bytes:
        """Return the session in a file, as it is or as it was at a step. Raises StepNotKept."""
        session = await self.find(session_id)
        return await self._residents.packed(session, *await self.state(session_id, step))

    async def recording(
        self, session_id: str, start: int | None = None, stop: int | None = None, trace: Sequence[str] = ()
    ) -> AsyncIterator[Piece]:
        """Return the steps of a session from `start`, if not given the first that is kept, up to `stop`.

        Raises StepNotKept.
        """
        return await self._in_turn(session_id, lambda session: self._recording(session, start, stop, trace))

    async def rewind(self, session_id: str, step: int) -> SessionInfo:
        """Put a session to a step that it was at; until its next step it can also be put forward again.

        Raises StepNotKept.
        """
        return await self._in_turn(session_id, lambda session: self._move(session, step, session.seq))

    async def reset(self, session_id: str) -> SessionInfo:
        """Put a session back to before its first step, as `rewind` does; its frames are numbered anew."""
        return await self._in_turn(session_id, lambda session: self._move(session, 0, None))

    async def _recording(
        self, session: Session, start: int | None, stop: int | None, trace: Sequence[str]
    ) -> AsyncIterator[Piece]:
        await self._residents.locate(session)
        last = session.step if stop is None else stop
        first = min(session.step if session.unlogged else session.oldest, last) if start is None else start
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
        return self._residents.past(session).pieces(first, last, trace)

    async def _move(self, session: Session, step: int, seq: int | None) -> SessionInfo:
        slot = await self._residents.wake(session)
        session.check_kept(step)
        if (step, seq) == (session.step, session.seq):
            return session.info
        reached = await self._residents.past(session).reach(step)
        if session.unlogged and session.snapshot_seconds is not None:
            await self._move_saved(session, session.snapshot_seconds, step, seq)
        try:
            if session.unlogged:
                session.step, session.latest, session.seq = step, step, seq
            else:
                session.follow(await self._writer.call(lambda store: store.move(session.id, step, seq)))
            await session.model.engine.write(slot, reached.state)
        except EngramError as error:
            raise await self._give_up(session, error) from None
        session.last, session.kept = None, reached.kept
        return session.info

    async def _move_saved(self, session: Session, seconds: float, step: int, seq: int | None) -> None:
        """Put what the store has of a session that keeps snapshots only to a step; if that fails, it stays as it is."""
        try:
            await self._writer.call(lambda store: store.move(session.id, step, seq))
        except EngramError:
            self._residents.save_later(session, seconds)  # which undoes the move of a store that hung
            raise

    # Ending

    async def delete(self, session_id: str) -> None:
        """End a session, after what it was asked before."""
        try:
            await self._in_turn(session_id, lambda session: self._end(session, "deleted"))
        except (ModelChanged, SessionDamaged):
            await self._end_stored(session_id, "deleted")

    async def expire_idle(self) -> None:
        """End the sessions that have not been used for the idle timeout."""
        await self._touch()
        since = self._clock() - self._limits.idle_timeout
        idle = await self._writer.call(lambda store: store.idle_since(since, EXPIRED_AT_ONCE))
        while idle:
            for session_id in idle:
                known = self._sessions.get(session_id)
                if known is not None and known.users:
                    continue
                await self._expire(session_id, since)
            seen = set(idle)
            idle = await self._writer.call(lambda store: store.idle_since(since, EXPIRED_AT_ONCE))
            idle = [] if seen & set(idle) else idle  # what is left is in use

    async def _expire(self, session_id: str, since: float) -> None:
        """End a session unless it was used after the time `since`, or has ended meanwhile; log any other error."""

        async def expire(session: Session) -> None:
            if session.used <= since:
                await self._end(session, "expired")

        try:
            await self._in_turn(session_id, expire)
        except (ModelChanged, SessionDamaged):
            await self._end_stored(session_id, "expired")
        except (SessionGone, SessionNotFound):
            pass
        except EngramError as error:
            logger.warning("session %s has expired but could not be ended; trying again: %s", session_id, error)

    async def keep_expiring(self) -> None:
        """Look for idle sessions again and again, until cancelled."""
        while True:
            await asyncio.sleep(min(self._limits.idle_timeout / 4, EXPIRY_SECONDS))
            try:
                await self.expire_idle()
            except ShuttingDown:
                return
            except Exception:
                logger.exception("idle sessions could not be ended; trying again")

    async def close(self, timeout: float) -> None:
        """Refuse new requests, finish those that were accepted, and take all sessions out of their arenas.

        After `timeout` seconds, what is left is given up: what was answered is in the log all the same.
        """
        self._closing = True
        end = self._clock() + timeout
        await asyncio.gather(*(model.engine.drain(timeout) for model in self._models))
        while any(session.users for session in self._sessions.values()) and self._clock() < end:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        await self._residents.leave_all(end)
        with contextlib.suppress(EngramError, TimeoutError):
            await asyncio.wait_for(self._touch(), max(LAST_TOUCH_SECONDS, end - self._clock()))

    async def _end(self, session: Session, reason: EndReason) -> None:
        await self._end_record(session.id, session.model.name, reason)
        session.ended.set_result(gone(session.id, reason))
        self._sessions.pop(session.id, None)
        await self._residents.free(session)

    async def _give_up(self, session: Session, error: EngramError) -> EngramError:
        """Drop a session's state, which may not be what was told, and return the error for who waits.

        The log has the state. Without one, the session goes back to its last snapshot, which the error then says, or is
        lost.
        """
        had_log = not session.unlogged
        self._residents.drop(session)
        if had_log:
            return error
        with contextlib.suppress(EngramError):
            if session.snapshot_seconds is None:
                await self._end(session, "lost in a failure")
            else:
                await self._residents.go_back(session)
                return _at_snapshot(error, session)
        return error

    async def _end_stored(self, session_id: str, reason: EndReason) -> None:
        """End a session that is in no arena; one whose row is damaged stays in the counts until the next start."""
        now = self._clock()
        try:
            found = await self._writer.call(lambda store: store.find(session_id))
        except SessionDamaged:
            await self._writer.call(lambda store: store.end(session_id, reason, now))
            return
        if isinstance(found, Record):
            await self._end_record(session_id, found.model, reason)

    async def _end_record(self, session_id: str, model: str, reason: EndReason) -> None:
        now = self._clock()
        if not await self._writer.call(lambda store: store.end(session_id, reason, now)):
            return
        self._touched.pop(session_id, None)
        self._counts[model] -= 1
        self._metrics.sessions.labels(model).set(self._counts[model])
        self._metrics.ended.labels(model, reason).inc()

    # Turns

    async def _in_turn(self, session_id: str, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Do something with a session when its turn comes, all of it even if whoever asked is gone meanwhile."""
        if self._closing:
            raise stopping()
        session = self._known(await self.find(session_id))
        return await asyncio.shield(self._take_turn(session, lambda: work(session)))

    def _known(self, session: Session) -> Session:
        """Return the one object of this session that all use, which is this one if there is none."""
        return self._sessions.setdefault(session.id, session)

    def _take_turn(self, session: Session, work: Callable[[], Coroutine[Any, Any, T]]) -> "asyncio.Task[T]":
        """Do something in the next turn of a session. Raises QueueFull, ShuttingDown."""
        if self._closing:
            raise stopping()
        model = session.model.name
        if session.turn.taken and self._waiting[model] >= self._limits.waiting:
            raise QueueFull(f"{self._limits.waiting} requests wait for a session of {model}; try again later")
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
                self._leave_turn(session)

        task = asyncio.ensure_future(take_turn())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, even if nobody waits any more
        return task

    def _leave_turn(self, session: Session) -> None:
        """Give the turn of a session to the next."""
        session.turn.leave()
        session.users -= 1
        self._use(session)

    def _use(self, session: Session) -> None:
        """Note that a session was used."""
        name = session.id
        now = session.used = self._clock()
        if name in self._sessions:
            self._touched[name] = now
            if session.slot is None:
                self._release(session)
            else:
                self._residents.use(session)

    def _release(self, session: Session) -> None:
        """Forget a session that nobody uses and that is in no arena: it is in the store."""
        if session.slot is None and not session.users and not session.watchers:
            self._sessions.pop(session.id, None)

    async def _touch(self) -> None:
        """Write down when sessions were last used."""
        touched, self._touched = self._touched, {}
        try:
            await self._writer.call(lambda store: store.touch(list(touched.items())))
        except EngramError:
            self._touched = touched | self._touched
            raise


def _create_once(store: Store, new: NewSession, owner: str) -> tuple[Record, bool]:
    """Open a session unless one was opened under its key; return it, and whether it is new."""
    before = _created(store, new.key, new.digest) if new.key is not None else None
    return (before, False) if before else (store.create(new, owner), True)


def _find_each(store: Store, session_ids: Sequence[str]) -> list[Record | EndReason | EngramError | None]:
    """Return what a store has of each session, or the error of one that is damaged."""
    found: list[Record | EndReason | EngramError | None] = []
    for name in session_ids:
        try:
            found.append(store.find(name))
        except SessionDamaged as error:
            found.append(error)
    return found


def _created(store: Store, key: str, digest: bytes | None) -> Record | None:
    """Return the session that a request has opened under a key, if it has. Raises IdempotencyConflict, SessionGone."""
    before = store.created(key)
    if before is None:
        return None
    if before[1] != digest:
        raise IdempotencyConflict(
            f"Idempotency-Key {key!r} came before with another request", place="Idempotency-Key", got=key
        )
    found = store.find(before[0])
    if not isinstance(found, Record):
        raise gone(before[0], found or "deleted")
    return found


class _Answers:
    """Gathers the answers to several requests."""

    def __init__(self, count: int, done: Callable[[Sequence[Stepped | Duplicate | EngramError]], None]) -> None:
        self._answers: list[Any] = [None] * count
        self._missing = count
        self._done = done

    def put(self, number: int, answer: Stepped | Duplicate | EngramError) -> None:
        """Take the answer to one request; with the last, pass them all on."""
        self._answers[number] = answer
        self._missing -= 1
        if not self._missing:
            self._done(self._answers)


def _settled(session: Session, steps: Steps, outcome: Outcome, row: int) -> Stepped | EngramError:
    """Return what a row of a run came to, and put its session behind the steps that were taken."""
    if isinstance(outcome, EngramError):
        return outcome
    error = outcome.errors.get(row)
    return error if error is not None else _advanced(session, steps, outcome.row(row))


def _advanced(session: Session, steps: Steps, result: Result) -> Stepped:
    """Put a session behind steps that were taken, and return their result."""
    session.advance(len(steps.inputs), steps.seq)
    session.logged += packed_bytes(steps.inputs, steps.form) + ENTRY_BYTES
    if steps.seq is None:
        return Stepped(result, session.step)
    is_kept = _bytes(result) <= KEPT_RESULT_BYTES
    stepped = Stepped(_alone(result) if is_kept else result, session.step)
    session.last = stepped if is_kept else None
    return stepped


def _at_snapshot(error: EngramError, session: Session) -> EngramError:
    """Return an error that says also where the session is, which went back to its last snapshot."""
    placed = copy.copy(error)
    placed.detail = f"{error.detail}; session {session.id} is back at its last snapshot, step {session.step}"
    placed.more = error.more | {"step": session.step, "seq": session.seq}
    placed.args = (placed.detail,)
    return placed


def _outcome(task: "asyncio.Task[T]") -> T | EngramError:
    """Return the result or the error of a task that has ended."""
    if task.cancelled():
        return stopping()
    error = task.exception()
    return task.result() if error is None else _told_of(error)


def _told_of(error: BaseException) -> EngramError:
    """Return an error for the client: our own as it is, and for another one with an entry in the log."""
    if isinstance(error, EngramError):
        return error
    logger.error("a step failed", exc_info=error)
    return unexpected_error()


def _bytes(result: Result) -> int:
    return result.outputs.nbytes + sum(values.nbytes for values in result.trace.values())


def _alone(result: Result) -> Result:
    """Return a result that keeps no more memory than its own: of those of a block, a copy."""
    trace = {name: _own(values) for name, values in result.trace.items()}
    return Result(_own(result.outputs), trace)


def _own(values: Array) -> Array:
    whole = values.base
    return values if whole is None or whole.nbytes == values.nbytes else values.copy()


def _joined(pieces: Sequence[Piece], trace: Sequence[str]) -> Result:
    """Return what several pieces gave as one result."""
    outputs = np.concatenate([piece.result.outputs for piece in pieces])
    return Result(outputs, {name: np.concatenate([piece.result.trace[name] for piece in pieces]) for name in trace})


async def _told(session: Session) -> SessionInfo:
    return session.info


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
