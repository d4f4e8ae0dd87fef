"""Streaming sessions over WebSocket.

    client                                            server
    connects (subprotocol engram.json, or engram.msgpack)
                                                      {"type": "session", "session", "model", "memory_size",
                                                       "step", "seq"}
    {"seq": 0, "inputs": [[...]], "trace": [...]}     {"type": "result", "seq", "step", "outputs", "trace"}
    ...                                               ...
                                                      {"type": "error", and a problem document}, then a close code

`seq` numbers the frames of a session, each one more than the last. The greeting tells the last that was carried out,
so that a client which lost its connection knows where to go on. A frame that comes again is not carried out again, but
gets its answer once more; where that cannot be computed any more, "duplicate": true and no outputs. A refused frame
changes nothing, and the session outlives its connection.
"""

import asyncio
import enum
import logging
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from app.api.codec import CODECS, JSON_PROTOCOL, Codec, in_turns, json_pieces
from app.api.decoders import Decoders
from app.api.deps import TheDecoders, TheMetrics, TheSessions, TheSettings, too_large
from app.api.requests import read_frame
from app.api.schemas import Frame, StreamQuery, parse
from app.backends.base import Array
from app.errors import EngramError, InternalError, InvalidRequest, MalformedBody, NotFound, SessionGone
from app.metrics import Metrics
from app.session import Duplicate, Session
from app.sessions import SessionService
from app.settings import Settings

logger = logging.getLogger(__name__)

router = APIRouter()

MAX_TRACE_BYTES = 4 * 2**20
"""Bytes of the traces in an answer, at most: a frame is sent whole, and copied several times on its way."""


class State(enum.Enum):
    """Where a stream is."""

    OPENING = "accepted, and the session is looked up or opened"
    WAITING = "greeted, and the next frame may come"
    STEPPING = "a frame is carried out"
    CLOSED = "no more frames are taken"


@router.websocket("/stream")
async def stream_new_session(
    socket: WebSocket, sessions: TheSessions, settings: TheSettings, metrics: TheMetrics, decoders: TheDecoders
) -> None:
    """Open a session of ?model=NAME, with &memory_size=N if asked, and stream it."""
    await _Stream(socket, sessions, settings, metrics, decoders).run(None)


@router.websocket("/sessions/{session}/stream")
async def stream_session(
    socket: WebSocket,
    session: str,
    sessions: TheSessions,
    settings: TheSettings,
    metrics: TheMetrics,
    decoders: TheDecoders,
) -> None:
    """Stream an open session."""
    await _Stream(socket, sessions, settings, metrics, decoders).run(session)


@router.websocket("/{path:path}")
async def stream_nothing(socket: WebSocket, path: str) -> None:
    """Refuse a WebSocket where there is none."""
    error = NotFound(f"there is no WebSocket at /{path}: /stream?model=NAME opens a session")
    await socket.accept()
    await socket.send_json(_error_frame(error))
    await socket.close(error.close_code, error.code)


def _error_frame(error: EngramError) -> dict[str, Any]:
    return error.problem() | {"type": "error"}


class _Stream:
    """One WebSocket from its greeting to its close."""

    def __init__(
        self,
        socket: WebSocket,
        sessions: SessionService,
        settings: Settings,
        metrics: Metrics,
        decoders: Decoders,
    ) -> None:
        self._socket = socket
        self._sessions = sessions
        self._settings = settings
        self._metrics = metrics
        self._decoders = decoders
        self._codec = _choose_codec(socket)
        self._state = State.OPENING
        task = asyncio.current_task()
        assert task is not None, "a stream is served by a task"
        self._task = task

    async def run(self, session_id: str | None) -> None:
        """Serve the stream; an error is told in a frame, then the socket closes with its code."""
        offered = self._socket.scope["subprotocols"]
        await self._socket.accept(self._codec.protocol if self._codec.protocol in offered else None)
        with self._metrics.streams.track_inprogress():
            try:
                async with self._sessions.watching(session_id or await self._open()) as session:
                    await self._serve(session)
            except WebSocketDisconnect:
                pass
            except EngramError as error:
                await self._refuse(error)
            except Exception:
                logger.exception("a stream failed while %s", self._state.value)
                await self._refuse(InternalError("an unexpected error; the server's log has the details"))
            finally:
                self._state = State.CLOSED

    async def _open(self) -> str:
        if "model" not in self._socket.query_params:
            raise InvalidRequest("/stream needs ?model=NAME", place="model", expected="the name of a model")
        wanted = parse(StreamQuery, dict(self._socket.query_params))
        return (await self._sessions.open(wanted.model, wanted.memory_size)).id

    async def _serve(self, session: Session) -> None:
        await self._send(
            {
                "type": "session",
                "session": session.id,
                "model": session.model.name,
                "memory_size": session.memory_size,
                "step": session.step,
                "seq": session.seq,
            }
        )
        session.ended.add_done_callback(self._wake)
        try:
            while True:
                self._state = State.WAITING
                message = await self._receive(session)
                self._state = State.STEPPING
                frame, inputs = await self._read(session, message)
                await self._send(await self._carry_out(session, frame, inputs))
        finally:
            self._state = State.CLOSED  # a wake-up that is on its way must not cancel the last frames
            session.ended.remove_done_callback(self._wake)

    async def _receive(self, session: Session) -> dict[str, Any]:
        """Return the next message. Raises SessionGone when the session ends first."""
        try:
            if not session.ended.done():
                return dict(await self._socket.receive())
        except asyncio.CancelledError:
            if not session.ended.done():
                raise
            self._task.uncancel()
        raise session.ended.result()

    def _wake(self, _: "asyncio.Future[SessionGone]") -> None:
        """Stop waiting for a frame, for the session has ended; a step that is under way is answered first."""
        if self._state is State.WAITING:
            self._task.cancel()

    async def _read(self, session: Session, message: dict[str, Any]) -> tuple[Frame, Array]:
        """Return the frame in a message, and its inputs, float32 [T, width]."""
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        data: bytes | str | None = message.get("bytes") if self._codec.binary else message.get("text")
        if data is None:
            expected = "binary" if self._codec.binary else "text"
            raise MalformedBody(f"{self._codec.protocol} has {expected} frames", expected=f"a {expected} frame")
        data = data.encode() if isinstance(data, str) else data
        if len(data) > self._settings.max_body_bytes:
            raise too_large(len(data), self._settings.max_body_bytes)
        limits = (session.model.inputs, self._settings.max_steps)
        return await self._decoders.call(read_frame, data, self._codec.protocol, *limits)

    async def _carry_out(self, session: Session, frame: Frame, inputs: Array) -> dict[str, Any]:
        trace = session.model.traces(frame.trace)
        session.model.check_trace_bytes(trace, len(inputs), session.memory_size, MAX_TRACE_BYTES)
        stepped = await self._sessions.step_frame(session.id, inputs, trace, frame.seq)
        reply = {"type": "result", "seq": frame.seq, "step": stepped.step}
        if isinstance(stepped, Duplicate):
            return reply | {"duplicate": True}
        steps = len(stepped.result.outputs)  # of a frame that came again: those that it had when it came first
        session.model.check_trace_bytes(trace, steps, session.memory_size, MAX_TRACE_BYTES)
        return reply | {"outputs": stepped.result.outputs, "trace": stepped.result.trace}

    async def _send(self, document: dict[str, Any]) -> None:
        if self._codec.binary:
            await self._socket.send_bytes(self._codec.encode(document))
        else:
            pieces = [piece async for piece in in_turns(json_pieces(document))]
            await self._socket.send_text(b"".join(pieces).decode())

    async def _refuse(self, error: EngramError) -> None:
        try:
            await self._send(_error_frame(error))
            await self._socket.close(error.close_code, error.code)
        except (WebSocketDisconnect, RuntimeError):
            logger.debug("the client was gone before it could be told: %s", error)


def _choose_codec(socket: WebSocket) -> Codec:
    offered: list[str] = socket.scope["subprotocols"]
    return next((CODECS[name] for name in offered if name in CODECS), CODECS[JSON_PROTOCOL])
