"""Streaming sessions over WebSocket.

    client                                            server
    connects (subprotocol engram.json, or engram.msgpack)
                                                      {"type": "session", "session", "model", "memory_size",
                                                       "step", "seq", "force"}
    {"seq": 0, "inputs": [[...]], "trace": [...]}     {"type": "result", "seq", "step", "outputs", "trace"}
    ...                                               ...
                                                      {"type": "error", and a problem document}, then a close code

`seq` numbers the frames of a session, each one more than the last. The greeting has the last that was carried out,
so that a client which lost its connection knows where to continue. A frame that is sent again is not carried out again:
its answer is computed again or, if that is not possible any more, is "duplicate": true without outputs. A refused frame
changes nothing, and the session outlives its connection. In msgpack a frame may name the "dtype" of its answer.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, WebSocket

from app.api.channel import Channel, Stage, error_frame
from app.api.codec import CODECS, in_dtype
from app.api.decoders import Decoders
from app.api.deps import TheBudgets, TheDecoders, TheMetrics, TheModels, TheSessions, TheSettings, tenant_of_caller
from app.api.many import Answer, Many, asked_of, bytes_of_many, document, parse_many
from app.api.requests import read_frame
from app.api.schemas import ManyFrame, OpenFrame, StreamQuery, StreamsQuery, parse
from app.api.steps import output_bytes
from app.budget import Budgets
from app.catalogue import ModelCatalogue
from app.errors import EngramError, InvalidRequest, LeaseLost, NotFound
from app.forces import force_document
from app.logs import name_session
from app.metrics import Metrics
from app.sessions.service import SessionService
from app.sessions.session import Duplicate, Session, Stepped, Steps
from app.settings import Settings
from app.tenants import inside

router = APIRouter()

MAX_TRACE_BYTES = 4 * 2**20
"""The most bytes of traces in an answer: a frame is sent whole, and copied several times."""


@router.websocket("/stream")
async def stream_new_session(
    socket: WebSocket,
    sessions: TheSessions,
    settings: TheSettings,
    metrics: TheMetrics,
    decoders: TheDecoders,
    budgets: TheBudgets,
) -> None:
    """Open a session of ?model=NAME, with &memory_size=N and &force=JSON if asked, and stream it."""
    await Stream(socket, sessions, settings, metrics, decoders, budgets).run()


@router.websocket("/sessions/{session}/stream")
async def stream_session(
    socket: WebSocket,
    session: str,
    sessions: TheSessions,
    settings: TheSettings,
    metrics: TheMetrics,
    decoders: TheDecoders,
    budgets: TheBudgets,
) -> None:
    """Stream an open session."""
    await Stream(socket, sessions, settings, metrics, decoders, budgets, session).run()


@router.websocket("/streams")
async def stream_sessions(
    socket: WebSocket,
    models: TheModels,
    sessions: TheSessions,
    settings: TheSettings,
    metrics: TheMetrics,
    decoders: TheDecoders,
    budgets: TheBudgets,
) -> None:
    """Stream many sessions over one socket."""
    await Streams(socket, models, sessions, settings, metrics, decoders, budgets).run()


@router.websocket("/{path:path}")
async def stream_nothing(socket: WebSocket, path: str, metrics: TheMetrics) -> None:
    """Refuse a WebSocket at any other path."""
    error = NotFound(f"there is no WebSocket at /{path}: /stream?model=NAME opens a session, /streams takes many")
    await socket.accept()
    metrics.refusal(error.code)
    await socket.send_json(error_frame(error))
    await socket.close(error.close_code, error.code)


class Stream(Channel):
    """The steps of one session."""

    _session: Session

    def __init__(
        self,
        socket: WebSocket,
        sessions: SessionService,
        settings: Settings,
        metrics: Metrics,
        decoders: Decoders,
        budgets: Budgets,
        session: str | None = None,
    ) -> None:
        """session: its id; a new one without it."""
        super().__init__(socket, settings, metrics, decoders, budgets)
        self._sessions = sessions
        self._id = session
        self._left_by: EngramError | None = None
        """The error of the session, once it has ended or left this server: it ends the stream."""

    async def serve(self) -> None:
        async with self._sessions.turns.watching(await self._found()) as session:
            self._session = session
            name_session(session.public_id)
            self.send({"type": "session", **_where(session)})
            ends = session.ended, session.moved
            for end in ends:
                end.add_done_callback(self._end)
            try:
                await self.listen()
            finally:
                for end in ends:
                    end.remove_done_callback(self._end)

    def read(self, payload: bytes, call: Callable[..., Any]) -> Any:
        return call(read_frame, payload, self.codec.protocol, self._session.model.inputs, self._settings.max_steps)

    def carry_out(self, frame: Any) -> None:
        wanted, inputs = frame
        model, trace = self._session.model, wanted.trace
        if trace:
            trace = model.traces(trace)
            model.check_trace_bytes(trace, len(inputs), self._session.memory_size, MAX_TRACE_BYTES)
        steps = Steps(inputs, trace, seq=wanted.seq, form=wanted.form)
        self.when_allowed([inputs], lambda: self._step(steps, wanted.dtype))

    def _step(self, steps: Steps, dtype: str) -> None:
        model, count = self._session.model, len(steps.inputs)
        traces = model.trace_bytes(steps.trace, count, self._session.memory_size) if steps.trace else 0
        self.hold(output_bytes(model, count), traces)
        done = functools.partial(self.attempt, self._reply, steps, dtype)
        self._sessions.stepping.submit(self._session, steps, done)

    def end_of_turn(self) -> None:
        if self._left_by is not None:
            raise self._left_by

    async def _found(self) -> Session:
        return await self._sessions.turns.find(inside(self._caller.tenant, self._id or await self._open()))

    async def _open(self) -> str:
        if "model" not in self._socket.query_params:
            raise InvalidRequest("/stream needs ?model=NAME", place="model", expected="the name of a model")
        wanted = parse(StreamQuery, dict(self._socket.query_params))
        tenant = tenant_of_caller(self._caller)
        opened = await self._sessions.opening.open(wanted.model, wanted.memory_size, tenant=tenant, force=wanted.force)
        return opened.id

    def _end(self, end: "asyncio.Future[Any]") -> None:
        """End the stream, because its session has ended, or left this server; a frame in work is answered first."""
        self._left_by = end.result()
        if self.state is Stage.WAITING:
            self.fail(end.result())

    def _reply(self, steps: Steps, dtype: str, outcome: Stepped | Duplicate | EngramError) -> None:
        """Answer a frame with its outcome. Raises the error that ends the stream."""
        if isinstance(outcome, EngramError):
            raise outcome
        reply: dict[str, Any] = {"type": "result", "seq": steps.seq, "step": outcome.step}
        if isinstance(outcome, Duplicate):
            self.answer(reply | {"duplicate": True})
            return
        result = outcome.result
        if steps.trace:  # a repeated frame may ask for traces of more steps than it has
            size = self._session.memory_size
            self._session.model.check_trace_bytes(steps.trace, len(result.outputs), size, MAX_TRACE_BYTES)
        reply["outputs"], reply["trace"] = in_dtype(result.outputs, dtype), in_dtype(result.trace, dtype)
        self.answer(reply, None if result.trace else result.outputs.nbytes)


class Streams(Channel):
    """The steps of many sessions, which the client opens or names, and which are numbered from 0 in that order."""

    def __init__(
        self,
        socket: WebSocket,
        models: ModelCatalogue,
        sessions: SessionService,
        settings: Settings,
        metrics: Metrics,
        decoders: Decoders,
        budgets: Budgets,
    ) -> None:
        super().__init__(socket, settings, metrics, decoders, budgets)
        self._models = models
        self._sessions = sessions
        self._opened: list[Session] = []
        self._lost: LeaseLost | None = None
        """The error of a session in the last frame, where this server may not answer for any: it ends the streams."""

    async def serve(self) -> None:
        query = parse(StreamsQuery, dict(self._socket.query_params))
        names = query.open.split(",") if query.open is not None else None
        try:
            if names is not None or query.model is not None:
                await self._open(OpenFrame(**query.model_dump() | {"open": names}))
            self.send({"type": "streams", "models": [model.name for model in self._models], **self._opened_from(0)})
            await self.listen()
        finally:
            for session in self._opened:
                self._sessions.turns.unwatch(session)

    def read(self, payload: bytes, call: Callable[..., Any]) -> Any:
        limits = (self._settings.max_steps, self._settings.sequences_at_once)
        return call(read_streams_frame, payload, self.codec.protocol, *limits)

    def carry_out(self, frame: Any) -> None:
        if isinstance(frame, OpenFrame):
            self.do(self._open_more(frame))
            return
        sessions = [self._numbered(number, place) for place, number in enumerate(frame.sessions)]
        asked = asked_of(frame, sessions, MAX_TRACE_BYTES)
        self.when_allowed(frame.inputs, lambda: self._step(frame, asked))

    def _step(self, frame: Many, asked: list[tuple[Session, Steps] | EngramError]) -> None:
        self.hold(*bytes_of_many(frame, asked))
        self._sessions.stepping.submit_all(asked, functools.partial(self.attempt, self._reply, frame))

    def _numbered(self, number: int, place: int) -> Session:
        if number >= len(self._opened):
            raise InvalidRequest(
                f"sessions[{place}]: no session {number} was opened on this socket, which has {len(self._opened)}",
                place=f"sessions[{place}]",
                expected=f"a number below {len(self._opened)}",
                got=str(number),
            )
        return self._opened[number]

    def end_of_turn(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _reply(self, frame: Many, answers: Sequence[Answer]) -> None:
        self._lost = next((answer for answer in answers if isinstance(answer, LeaseLost)), None)
        self.answer({"type": "results", **document(frame, answers)})

    async def _open_more(self, frame: OpenFrame) -> None:
        first = len(self._opened)
        await self._open(frame)
        self.answer({"type": "sessions", **self._opened_from(first)})

    def _opened_from(self, first: int) -> dict[str, Any]:
        """Return the document of the sessions with the numbers from `first` on."""
        return {"first": first, "sessions": [_where(session) for session in self._opened[first:]]}

    async def _open(self, frame: OpenFrame) -> None:
        """Open sessions, or find them. Raises the error of one that is not available, which ends the channel."""
        first = len(self._opened)
        names = frame.open
        if (names is None) is (frame.model is None):
            raise InvalidRequest(
                "a frame without `sessions` opens some: it needs either `open`, ids of sessions, or `model`",
                place="open",
                expected="one of open and model",
            )
        count = frame.count if names is None else len(names)
        self._caller.limits.check_batch(count, "open")
        most = self._settings.max_queue
        if first + count > most:
            raise InvalidRequest(
                f"a socket may have {most} sessions (setting max_queue), but {first + count} were opened",
                place="open",
                expected=f"at most {most} sessions",
                got=str(first + count),
            )
        for number in range(count):
            name = inside(self._caller.tenant, names[number] if names else await self._new(frame))
            found = await self._sessions.turns.find(name)
            session = await self._sessions.turns.watch(found)
            if self.state is Stage.CLOSED:  # `serve` has unwatched the sessions opened before
                self._sessions.turns.unwatch(session)
                return
            self._opened.append(session)

    async def _new(self, frame: OpenFrame) -> str:
        assert frame.model is not None
        tenant = tenant_of_caller(self._caller)
        opened = await self._sessions.opening.open(frame.model, frame.memory_size, tenant=tenant, force=frame.force)
        return opened.id


def read_streams_frame(data: bytes, protocol: str, max_steps: int, max_sequences: int) -> Many | OpenFrame:
    """Return a frame of /streams. Raises MalformedBody, InvalidRequest, InvalidInput."""
    values = CODECS[protocol].decode(data)
    if "sessions" in values or "inputs" in values:
        return parse_many(values, ManyFrame, protocol, max_steps, max_sequences)
    return parse(OpenFrame, values)


def _where(session: Session) -> dict[str, Any]:
    """Return the document of a session and its position."""
    return {
        "session": session.public_id,
        "model": session.model.name,
        "memory_size": session.memory_size,
        "step": session.step,
        "seq": session.seq,
        "force": force_document(session.force),
    }
