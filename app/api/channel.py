"""A WebSocket whose frames are answered one after the other.

    socket -- take -> read -> carry_out ... answer -- socket
                  '----------'--> fail: an error frame, then a close code

Frames come as calls from the connection: no task is woken for one. The task of the connection opens, waits for the
end, and closes.
"""

import abc
import asyncio
import enum
import logging
from collections.abc import Callable, Collection, Sized
from typing import Any

from fastapi import WebSocket

from app.api.codec import CODECS, JSON_PROTOCOL, PIECE_BYTES, REST_SECONDS, Codec, array_bytes
from app.api.decoders import Decoders, is_large
from app.api.deps import caller_of, too_large
from app.api.leases import check_answer
from app.api.middleware import FAILED, span_of
from app.api.problems import problem_document
from app.budget import Budgets, Lease
from app.errors import EngramError, MalformedBody, unexpected_error
from app.futures import resolve
from app.logs import Asked, asked
from app.metrics import Metrics
from app.protocols import websocket
from app.settings import Settings
from app.tracing import RequestTrace, Tracing

logger = logging.getLogger(__name__)


class Stage(enum.Enum):
    """The state of a channel."""

    OPENING = "accepted, and not greeted yet"
    WAITING = "the next frame may come"
    WORKING = "a frame is carried out"
    SENDING = "a large answer is sent in parts, as fast as the client reads"
    ANSWERING = "the answer was written, and the client reads it"
    CLOSED = "no more frames are accepted"


class Channel(abc.ABC):
    """One WebSocket from its greeting to its close."""

    def __init__(
        self, socket: WebSocket, settings: Settings, metrics: Metrics, decoders: Decoders, budgets: Budgets
    ) -> None:
        self.codec = _choose_codec(socket)
        self.state = Stage.OPENING
        self._socket = socket
        self._connection: websocket.WebSocket = socket.scope["extensions"][websocket.EXTENSION]
        self._settings = settings
        self._metrics = metrics
        self._decoders = decoders
        self._caller = caller_of(socket)
        self._budgets = budgets
        self._answer = Lease(budgets.answers)  # of the frame in work
        self._inputs = Lease(budgets.uploads)  # of a frame that waits for the caller's budget of steps
        self._is_partly_sent = False  # whether a part of an answer was sent, and not its last one
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None  # of work that takes several turns of the loop
        self._tracing: Tracing | None = socket.app.state.tracing
        self._timer: asyncio.TimerHandle | None = None  # carries on with a frame that waits
        self._trace: RequestTrace | None = None  # of the frame in work
        self._asked: Asked | None = None

    # For subclasses to define

    @abc.abstractmethod
    async def serve(self) -> None:
        """Open, greet, and `listen`. Raises the error that ends the channel."""

    @abc.abstractmethod
    def read(self, payload: bytes, call: Callable[..., Any]) -> Any:
        """Return call(function, payload, ...), with a function that decodes a frame as for `Decoders.call`."""

    @abc.abstractmethod
    def carry_out(self, frame: Any) -> None:
        """Carry out a decoded frame, and `answer` it. Raises the error that ends the channel."""

    def end_of_turn(self) -> None:  # noqa: B027 - by default there is nothing to do
        """Check the channel between an answer and the next frame. Raises the error that ends the channel."""

    # For subclasses to use

    def send(self, document: dict[str, Any]) -> bool:
        """Send a document, and return whether more may be sent at once."""
        return self._connection.send(self.codec.encode(document), not self.codec.binary)

    async def listen(self) -> None:
        """Take frames until the client is gone. Raises the error that ends the channel."""
        self.state = Stage.WAITING
        self._asked = asked()
        take = self._take if self._tracing is None else self._take_traced
        self._connection.listen(take, self._leave, self._go_on)
        try:
            await self._over
        finally:
            self.state = Stage.CLOSED

    def hold(self, outputs: int, traces: int) -> None:
        """Hold the bytes of an answer in the making until it is read, unless it is small: the engine counts those.

        Raises AnswersFull, InvalidRequest.
        """
        if outputs + traces > PIECE_BYTES and self.state is not Stage.CLOSED:
            check_answer(self._budgets, outputs)
            self._answer.grow(outputs + traces)

    def answer(self, document: dict[str, Any], size: int | None = None) -> None:
        """Answer the frame that was carried out, and let the next one come; within `attempt` or `do`.

        size: bytes of the arrays, if known.
        """
        if self.state is not Stage.WORKING:
            return
        if (array_bytes(document) if size is None else size) > PIECE_BYTES:
            self.state = Stage.SENDING
            self.do(self._send_large(document))
            return
        self.state = Stage.ANSWERING
        payload = self.codec.encode(document)
        if self._connection.send(payload, not self.codec.binary):
            self._go_on()
        else:
            self._answer.force(len(payload))  # until the client has read it

    def when_allowed(self, sequences: Collection[Sized], work: Callable[[], None]) -> None:
        """Do the work of a frame once the steps of its sequences are within the caller's budget. Raises InvalidInput.

        Unlike a request, a frame is not refused but waits, and so does the client.
        """
        seconds = self._caller.reserve_steps(sequences)
        if seconds:
            self._inputs.grow(array_bytes(sequences))
            self._timer = asyncio.get_running_loop().call_later(seconds, self._carry_on, work)
        else:
            work()

    def _carry_on(self, work: Callable[[], None]) -> None:
        """Do work that had to wait, unless the channel has ended."""
        self._inputs.release()
        if self.state is Stage.WORKING:
            self.attempt(work)

    def attempt(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function with the outcome of a frame. Its error ends the channel."""
        try:
            function(*arguments)
        except Exception as error:
            self.fail(error)

    def do(self, work: Any) -> None:
        """Run a coroutine in a task. Its error ends the channel."""
        self._task = asyncio.ensure_future(self._done(work))

    def fail(self, error: Exception) -> None:
        """End the channel with an error."""
        self.state = Stage.CLOSED
        resolve(self._over, error)

    # Its life

    async def run(self) -> None:
        """Serve; send an error in a frame, then close the socket with its code."""
        offered = self._socket.scope["subprotocols"]
        await self._socket.accept(self.codec.protocol if self.codec.protocol in offered else None)
        with self._metrics.streams.track_inprogress():
            try:
                with self._caller.stream(self.fail):
                    await self.serve()
            except EngramError as error:
                self._refuse(error)
            except Exception:
                logger.exception("a stream failed while %s", self.state.value)
                self._refuse(unexpected_error())
            finally:
                self.state = Stage.CLOSED
                self._release()
                self._end_trace()

    def _take(self, payload: bytes, is_text: bool) -> None:
        """Carry out a frame. No other comes before it is answered."""
        if self.state is not Stage.WAITING:
            return
        self.state = Stage.WORKING
        self._connection.pause()
        try:
            self._check(payload, is_text)
            if is_large(payload):
                self.do(self._take_large(payload))
            else:
                self.carry_out(self.read(payload, _call))
        except Exception as error:
            self.fail(error)

    def _take_traced(self, payload: bytes, is_text: bool) -> None:
        """Carry out a frame as `_take` does, and have the times of its runs noted."""
        assert self._tracing is not None
        if self.state is Stage.WAITING:
            with self._tracing.request(self._asked) as self._trace:
                self._take(payload, is_text)

    def _release(self) -> None:
        """Let go of the frame in work."""
        self._answer.release()
        self._inputs.release()
        if self._timer is not None:
            self._timer.cancel()

    def _end_trace(self) -> None:
        """Make the spans of the frame that was answered, or that ended the channel."""
        trace, self._trace = self._trace, None
        if trace is not None and self._tracing is not None:
            name, attributes = span_of(self._socket.scope)
            parent = self._tracing.parent_of(self._socket.scope["headers"])
            failed = trace.error is not None and trace.error.status >= FAILED
            self._tracing.end(trace, name, parent, attributes, failed)

    def _check(self, payload: bytes, is_text: bool) -> None:
        if is_text is self.codec.binary:
            expected = "binary" if self.codec.binary else "text"
            raise MalformedBody(f"{self.codec.protocol} has {expected} frames", expected=f"a {expected} frame")
        if len(payload) > self._settings.max_body_bytes:
            raise too_large(len(payload), self._settings.max_body_bytes)

    async def _take_large(self, payload: bytes) -> None:
        with self._budgets.uploads.take(len(payload)):
            frame = await self.read(payload, self._decoders.call)
        self.carry_out(frame)

    async def _send_large(self, document: dict[str, Any]) -> None:
        """Send a document in pieces, a fragment of the message each, as fast as the client reads."""
        pieces, is_text = self.codec.pieces(document), not self.codec.binary
        part, is_first = next(pieces), True
        for following in pieces:
            self._is_partly_sent = True
            self._connection.send_part(part, is_text, is_first, False)
            part, is_first = following, False
            await asyncio.sleep(REST_SECONDS)
            await self._connection.drain()
            if self.state is not Stage.SENDING:
                return
        self.state, self._is_partly_sent = Stage.ANSWERING, False
        if self._connection.send_part(part, is_text, is_first, True):
            self._go_on()

    async def _done(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            self.fail(error)

    def _go_on(self) -> None:
        """Accept the next frame, once the last was answered and the client has read enough of the answers."""
        if self.state is not Stage.ANSWERING:
            return
        self._answer.release()
        self.state = Stage.WAITING
        if self._trace is not None:
            self._end_trace()
        try:
            self.end_of_turn()
        except EngramError as error:
            self.fail(error)
        else:
            self._connection.resume()

    def _leave(self, *_: object) -> None:
        """End the channel, because the client is gone."""
        self.state = Stage.CLOSED
        resolve(self._over, None)

    def _refuse(self, error: EngramError) -> None:
        self._metrics.refusal(error.code)
        if self._trace is not None:
            self._trace.error = error
        if not self._is_partly_sent:  # nothing but control frames may come before the rest of the answer
            self.send(error_frame(error))
        self._connection.close(error.close_code, error.code)


def error_frame(error: EngramError) -> dict[str, Any]:
    """Return the last frame before a WebSocket is closed for an error."""
    return problem_document(error) | {"type": "error"}


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _choose_codec(socket: WebSocket) -> Codec:
    offered: list[str] = socket.scope["subprotocols"]
    return next((CODECS[name] for name in offered if name in CODECS), CODECS[JSON_PROTOCOL])
