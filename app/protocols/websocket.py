"""The WebSocket protocol of the server: uvicorn takes `WebSocketProtocol` as its `ws`.

An application receives the messages of ASGI. Or it uses the extension `engram.websocket`, whose value is a `WebSocket`:
its functions are called while the socket is read, without a queue and without waking a task for each message.
"""

import asyncio
import enum
import logging
import random
from asyncio import TimerHandle
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

from starlette.types import Message
from uvicorn.config import Config
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from app.errors import EngramError, FramesFull, TooManyFrames
from app.protocols import frames
from app.protocols.connections import LARGE, Connections, Wait, Watch, end_writing
from app.protocols.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, SHORT_HEADS, TEXT, FrameError, FrameReader

logger = logging.getLogger("uvicorn.error")

EXTENSION: Final = "engram.websocket"

handshakes = logging.getLogger("uvicorn.error.handshake")
handshakes.setLevel(logging.WARNING)  # below, it logs header fields, and a key may be among them

CLOSE_TIMEOUT = 10.0
"""Seconds after which a closing connection is aborted."""

STOP_TIMEOUT = 1.0
"""CLOSE_TIMEOUT while the server stops."""

MAX_UNREAD = 2**16
"""Bytes that may be read from the socket while messages are held back."""

MAX_FRAMES = 64
"""Frames of one client that are handled in one iteration of the event loop, at most."""

LEAST_FRAGMENT = 64
"""Bytes of a fragment below which it counts as a control frame."""

BURST_SECONDS = 10
"""The control frames of this time may come at once."""

JOINED = 2**14
"""Bytes of payload up to which head and payload are joined before they are written."""

OnMessage = Callable[[bytes, bool], None]
OnClose = Callable[[int, str], None]
OnDrain = Callable[[], None]


class ConnectionState(enum.Enum):
    """The states of a WebSocket, in their order."""

    OPENING = "the application has not accepted it yet"
    OPEN = "both sides may send messages"
    CLOSING = "a close frame was sent, and the client's is awaited"
    ENDING = "close frames were exchanged, or the connection failed: further bytes are ignored until its end"


OPENING, OPEN, CLOSING, ENDING = ConnectionState  # to look up an attribute of an enumeration is slow in Python 3.11


class WebSocket(asyncio.Protocol):
    """The server's side of a WebSocket. All methods are called on the event loop in which it was made."""

    def __init__(
        self,
        transport: asyncio.Transport,
        limit: int,
        ping_interval: float | None,
        ping_timeout: float | None,
        on_lost: Callable[[], None],
        connections: Connections | None = None,
    ) -> None:
        """Make the WebSocket of a connection that is not open yet.

        limit: bytes of a message, at most. ping_interval, ping_timeout: seconds from a ping to the next, and to its
        pong; None: no pings, no limit. on_lost: called at the end of the connection. connections: those of the
        server, with the limits of each; None: no limits.
        """
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(limit)
        self._keepalive = _Keepalive(ping_interval, ping_timeout)
        self._on_lost = on_lost
        self._connections = connections
        self._frames = connections.frames if connections else None
        self._counted = 0  # bytes held in _frames
        self._allowance = _Allowance(connections.limits.max_control_frames, self._loop) if connections else None
        self._state = OPENING
        self._ended: tuple[int, str] | None = None  # code and reason
        self._timer: TimerHandle | None = None  # aborts the connection
        self._unwritten = 0  # bytes in the write buffer when that timer began
        self._late_pong: bytes | None = None  # to send when the write buffer is no longer full
        self._held = True  # whether messages are held back
        self._reading = True  # whether the socket is read
        self._dispatching = False
        self.drained = 0
        self._resting = False  # until the next iteration of the loop, after MAX_FRAMES
        self._writable = asyncio.Event()  # the write buffer is not full
        self._writable.set()
        self._arrived = asyncio.Event()  # a message, or the end
        self._parked: tuple[bytes, bool] | None = None  # the message for `receive`
        self._on_message: OnMessage = self._park
        self._on_close: OnClose = _ignore
        self._on_drain: OnDrain = _ignore

    def listen(self, on_message: OnMessage, on_close: OnClose, on_drain: OnDrain) -> None:
        """Call these functions from now on, first for waiting messages; `receive` returns no messages any more.

        on_message(payload, is_text): for each whole message when its last byte is read, and never from within itself.
            If it raises, the connection is closed with 1011.
        on_close(code, reason): once, in an iteration of the loop of its own, when the connection is no longer open,
            whichever side closed it. No message follows. 1006: the client disconnected without a close frame.
        on_drain(): when the write buffer is no longer full.
        """
        self._on_message, self._on_close, self._on_drain = on_message, on_close, on_drain
        if self._ended is not None:
            self._loop.call_soon(on_close, *self._ended)
        first, self._parked = self._parked, None
        self._held = False
        self._dispatch(first)

    def send(self, payload: bytes, is_text: bool) -> bool:
        """Write a message as one frame; return whether more may be sent now.

        False: the write buffer is full, and no more should be sent before on_drain. Or the connection is not open: then
        nothing was written, and on_close is or was called.
        """
        if not self.is_open:
            return False
        opcode, length = TEXT if is_text else BINARY, len(payload)
        if length < 126:
            self._transport.write(SHORT_HEADS[opcode][length] + payload)
        elif length <= JOINED:
            self._transport.write(frames.head(opcode, length) + payload)
        else:
            self._transport.writelines([frames.head(opcode, length), payload])
        return self._writable.is_set()

    def send_part(self, payload: bytes, is_text: bool, first: bool, last: bool) -> bool:
        """Write a part of a message as one fragment, and return as `send` does.

        Only parts of the message may follow, up to its last one; `drain` waits until the client has read enough.
        """
        if not self.is_open:
            return False
        opcode = (TEXT if is_text else BINARY) if first else CONTINUATION
        self._transport.writelines([frames.head(opcode, len(payload), frames.FINAL_BIT if last else 0), payload])
        return self._writable.is_set()

    def pause(self) -> None:
        """Hold messages back until `resume`, also those that are read already. Pings before them are answered.

        While more than MAX_UNREAD bytes are held back, the socket is not read, and the client has to wait. Messages
        that are held back when the client disconnects are dropped.
        """
        self._held = True

    def resume(self) -> None:
        """Deliver messages again.

        The messages that were held back are delivered before this returns, up to the next `pause`. If this is called
        within on_message, they are delivered after that returns; after MAX_FRAMES, in the next iteration of the loop.
        """
        self._held = False
        self._dispatch()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame if the connection is open; a reason that is too long is truncated.

        Raises ValueError for a code that no close frame may have.
        """
        payload = frames.close_payload(code, reason)
        if self._state is OPEN:
            self._end(CLOSING, code, reason, payload)
            self._abort_after(CLOSE_TIMEOUT)
            self._dispatch()

    # For ASGI

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent; False also after a failed write, before connection_lost is called."""
        return self._state is OPEN and not self._transport.is_closing()

    @property
    def ended(self) -> tuple[int, str]:
        """The close code and the reason of the end of the connection; (1006, "") while it is open."""
        return self._ended or (1006, "")

    async def receive(self) -> tuple[bytes, bool] | None:
        """Return the next message, as payload and whether it is text; None if the connection is no longer open.

        Messages are held back except while this waits.
        """
        while self._parked is None and self._ended is None:
            self._arrived.clear()
            self.resume()
            await self._arrived.wait()
        message, self._parked = self._parked, None
        return message or self._read_rest()

    async def drain(self) -> None:
        """Wait until the write buffer is not full, or the connection has ended."""
        if not self._writable.is_set():
            await self._writable.wait()

    # For the handshake and the stop of the server

    def open(self) -> None:
        """Open the WebSocket after the answer to the handshake was written."""
        self._state = OPEN
        self._transport.set_protocol(self)
        self._keepalive.start(self)
        self._dispatch()

    def stop(self) -> None:
        """Close with 1012: the server stops."""
        self.close(1012)
        self._abort_after(STOP_TIMEOUT)

    # Called by the transport

    def data_received(self, data: bytes) -> None:
        if self._state is not ENDING:
            self._reader.feed(data)
            self._dispatch()

    def eof_received(self) -> None:
        """Let the transport close itself."""

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self.drained += 1
        self._writable.set()
        if self._state is OPEN:
            if self._late_pong is not None:
                self._pong(self._late_pong)
            self._on_drain()

    def connection_lost(self, _: Exception | None) -> None:
        self._note_end(1006, "")
        if self._state is OPENING:
            self._reader.clear()
        self._state = ENDING
        self._release()
        self._writable.set()  # the transport does not call resume_writing any more
        if self._timer is not None:
            self._timer.cancel()
        self._on_lost()
        # Break cycles of references: the garbage collector runs rarely
        self._on_message = self._on_close = self._on_drain = self._on_lost = _ignore

    # Received frames

    def _dispatch(self, first: tuple[bytes, bool] | None = None) -> None:
        """Handle control frames and deliver messages, up to a frame of a message that is held back.

        first: a message that was received before.
        """
        if self._dispatching:
            return
        self._dispatching = True
        try:
            if first is not None:
                self._deliver(*first)
            if not self._resting:
                self._take_frames()
        except FrameError as error:
            self.fail(error.code, error.reason)
        finally:
            self._dispatching = False
        if self._frames is not None:
            self._count_held(self._reader.held)
        self._bound_reading()

    def _take_frames(self) -> None:
        """Handle the frames that are there, at most MAX_FRAMES; handle the rest in the next iteration of the loop."""
        for _ in range(MAX_FRAMES):
            if self._state is not OPEN and self._state is not CLOSING:
                return
            frame = self._reader.read(self._held and self._state is OPEN)
            if frame is None:
                return
            opcode, payload = frame
            if opcode >= CLOSE:
                if opcode != CLOSE:
                    self._count_frame()
                self._take_control(opcode, payload)
            elif not opcode:
                if self._reader.last_fragment < LEAST_FRAGMENT:
                    self._count_frame()
            elif self._state is OPEN:
                self._deliver(payload, opcode == TEXT)
        self._resting = True
        self._loop.call_soon(self._go_on)

    def _count_held(self, size: int) -> None:
        """Count the bytes of a message that is not whole; close the connection if those of all clients are too many."""
        assert self._frames is not None
        size = 0 if size < LARGE or self._state is ENDING else size
        more = size - self._counted
        if more <= 0 or self._frames.try_add(more):
            self._frames.subtract(max(0, -more))
            self._counted = size
        else:
            self._refuse(FramesFull("the messages of all clients that are not whole have too many bytes"))

    def _refuse(self, error: EngramError) -> None:
        """Close the connection with the code of an error, and count it."""
        assert self._connections is not None
        self._connections.refused(error.code)
        self.fail(error.close_code, error.code)
        self._release()

    def _release(self) -> None:
        if self._frames is not None and self._counted:
            self._frames.subtract(self._counted)
            self._counted = 0

    def _go_on(self) -> None:
        self._resting = False
        self._dispatch()

    def _count_frame(self) -> None:
        """Count a frame that carries next to nothing. Raises FrameError if there are too many."""
        if self._connections is not None and self._allowance is not None and not self._allowance.take():
            self._connections.refused(TooManyFrames.code)
            raise FrameError(TooManyFrames("").close_code, TooManyFrames.code)

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE and self._state is CLOSING:
            self._close_transport()
        elif self._state is not OPEN:
            pass
        elif opcode == PING:
            self._pong(payload)
        elif opcode == PONG:
            self._keepalive.pong(self, payload)
        else:
            self._end(ENDING, *frames.read_close(payload), payload)
            self._close_transport()

    def _deliver(self, payload: bytes, is_text: bool) -> None:
        try:
            self._on_message(payload, is_text)
        except Exception:
            logger.exception("a message could not be handled: its WebSocket is closed with 1011")
            self.close(1011)

    def _park(self, payload: bytes, is_text: bool) -> None:
        """Keep a message for `receive`, and hold the next ones back."""
        self._parked = payload, is_text
        self._held = True
        self._arrived.set()

    def _read_rest(self) -> tuple[bytes, bool] | None:
        """Return the next message that was held back when the client disconnected; read its close code, if there."""
        if self.ended[0] != 1006:
            return None
        try:
            while (frame := self._reader.read()) is not None:
                opcode, payload = frame
                if opcode == CLOSE:
                    self._ended = frames.read_close(payload)
                    break
                if CONTINUATION < opcode < CLOSE:
                    return payload, opcode == TEXT
        except FrameError:
            self._reader.clear()
        return None

    def _bound_reading(self) -> None:
        """Read from the socket unless MAX_UNREAD bytes are held back, or frames that were read wait to be handled."""
        held = (self._held and self._state is OPEN) or self._state is OPENING
        waits = self._resting or (held and self._reader.unread > MAX_UNREAD)
        if waits is self._reading:
            self._reading = not waits
            if waits:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # Pings

    def write_control(self, opcode: int, payload: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(frames.head(opcode, len(payload)) + payload)

    def _pong(self, payload: bytes) -> None:
        """Answer a ping; while the write buffer is full, keep the answer to the last ping for later."""
        self._late_pong = None if self._writable.is_set() else payload
        if self._late_pong is None:
            self.write_control(PONG, payload)

    @property
    def held_back(self) -> int | None:
        """Bytes of a message that is not complete; None: messages are held back, and a pong may be behind them."""
        return None if self._held and self._reader.unread else self._reader.unread

    # The end

    def fail(self, code: int, reason: str) -> None:
        """Close with this code, and ignore all further bytes."""
        if self._state is OPEN:
            self._end(ENDING, code, reason, frames.close_payload(code, reason))
            self._reader.clear()
            # To close a socket with unread bytes would reset it and lose the frame
            if not self._transport.is_closing() and end_writing(self._transport):
                self._abort_after(CLOSE_TIMEOUT)
                return
        self._close_transport()

    def _end(self, state: ConnectionState, code: int, reason: str, payload: bytes) -> None:
        self.write_control(CLOSE, payload)
        self._state = state
        self._note_end(code, reason)

    def _note_end(self, code: int, reason: str) -> None:
        self._keepalive.stop()
        if self._ended is None:
            self._ended = code, reason
            self._arrived.set()
            self._loop.call_soon(self._on_close, code, reason)

    def _close_transport(self) -> None:
        self._state = ENDING
        self._transport.close()
        self._abort_after(CLOSE_TIMEOUT)  # a client that reads nothing would keep it open: its buffer never empties

    def _abort_after(self, seconds: float) -> None:
        """Abort the connection after this time, unless sooner is planned; wait longer while the client still reads."""
        if self._timer is not None:
            if self._timer.when() <= self._loop.time() + seconds:
                return
            self._timer.cancel()
        self._unwritten = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(seconds, self._abort, seconds)

    def _abort(self, seconds: float) -> None:
        self._timer = None
        if self._transport.get_write_buffer_size() < self._unwritten:
            self._abort_after(seconds)
        else:
            self._transport.abort()


class _Allowance:
    """How many more frames a client may send: a token bucket."""

    def __init__(self, rate: int, loop: asyncio.AbstractEventLoop) -> None:
        """rate: frames per second."""
        self._rate = rate
        self._loop = loop
        self._left = float(BURST_SECONDS * rate)
        self._since = loop.time()

    def take(self) -> bool:
        """Take one frame, if there is one left."""
        if self._left < 1:
            now = self._loop.time()
            self._left += min(BURST_SECONDS, now - self._since) * self._rate
            self._since = now
        self._left -= 1
        return self._left >= 0


def _ignore(*_: object) -> None:
    """Do nothing: the application has set no function."""


class _Keepalive:
    """Pings a client, and fails its WebSocket with 1011 when a pong does not come."""

    def __init__(self, interval: float | None, timeout: float | None) -> None:
        self._interval = interval
        self._timeout = timeout
        self._timer: TimerHandle | None = None  # of the next ping, or of the pong that is awaited
        self._payload: bytes | None = None  # of the ping whose pong is awaited
        self._held_back: int | None = 0  # WebSocket.held_back when the wait for the pong began

    def start(self, socket: WebSocket) -> None:
        if self._interval:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._ping, socket)

    def stop(self) -> None:
        self._payload = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pong(self, socket: WebSocket, payload: bytes) -> None:
        if payload == self._payload:
            self.stop()
            self.start(socket)

    def _ping(self, socket: WebSocket) -> None:
        payload = random.randbytes(4)
        socket.write_control(PING, payload)
        if self._timeout is None:
            self.start(socket)
        else:
            self._payload = payload
            self._await_pong(socket, self._timeout)

    def _await_pong(self, socket: WebSocket, timeout: float) -> None:
        self._held_back = socket.held_back
        self._timer = asyncio.get_running_loop().call_later(timeout, self._late, socket, timeout)

    def _late(self, socket: WebSocket, timeout: float) -> None:
        """Fail, unless the pong may be behind messages that are held back, or behind a long one that still arrives."""
        held_back = socket.held_back
        if held_back is None or held_back > (self._held_back or 0):
            self._await_pong(socket, timeout)
        else:
            socket.fail(1011, "keepalive ping timeout")


class WebSocketProtocol(asyncio.Protocol):
    """The protocol of a connection that asks to be a WebSocket: its handshake, and its ASGI application."""

    open_connections: ClassVar[Connections | None] = None
    """The connections of the server, which has no limits without them."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._response: Response | None = None  # 101, once the request is accepted
        self._connects = True  # whether the application has yet to receive websocket.connect
        self._answered = False
        self.watch: Watch | None = None
        """Set by the HTTP protocol that the connection began with."""
        self._denial: tuple[int, Headers, bytes] | None = None  # the application's response if it refuses

    # Called by the transport until the WebSocket is open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        config = self._config
        self._socket = WebSocket(
            self._transport,
            config.ws_max_size,
            config.ws_ping_interval,
            config.ws_ping_timeout,
            self._forget,
            self.open_connections,
        )

    def data_received(self, data: bytes) -> None:
        """Read the request, which uvicorn passes whole, then the bytes that a client sends before it has an answer."""
        if self._response is not None:
            self._socket.data_received(data)
        elif not self._answered:
            self._read_request(data)

    def pause_writing(self) -> None:
        self._socket.pause_writing()

    def resume_writing(self) -> None:
        self._socket.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket.connection_lost(exc)

    def _forget(self) -> None:
        self._server_state.connections.discard(self)
        if self.watch is not None:
            self.watch.leave()

    @property
    def drained(self) -> int:
        """How often the write buffer was full, and then no longer."""
        return self._socket.drained

    def wait(self) -> Wait | None:
        """Return None: a client that is gone is found by pings."""

    def time_out(self) -> None:
        """Do nothing: the server waits for nothing."""

    def shutdown(self) -> None:
        """Close the WebSocket, or refuse the handshake: uvicorn calls this when the server stops."""
        if self._answered:
            self._socket.stop()
        else:
            self._fail()

    # The handshake

    def _read_request(self, data: bytes) -> None:
        handshake = ServerProtocol(logger=handshakes)
        handshake.receive_data(data)
        request = next((event for event in handshake.events_received() if isinstance(event, Request)), None)
        if request is None:
            refusal = b"".join(handshake.data_to_send())
            self._answer(refusal or handshake.reject(HTTPStatus.BAD_REQUEST, "no valid HTTP request\n").serialize())
            return
        response = handshake.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._answer(response.serialize())
            return
        self._response = response
        self._scope = self._make_scope(request)
        task = asyncio.get_running_loop().create_task(self._run())
        task.add_done_callback(self._server_state.tasks.discard)
        self._server_state.tasks.add(task)

    def _make_scope(self, request: Request) -> dict[str, Any]:
        path, _, query = request.path.partition("?")
        root_path = self._config.root_path
        offers = request.headers.get_all("Sec-WebSocket-Protocol")
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self._transport) else "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": root_path,
            "path": root_path + unquote(path),
            "raw_path": (root_path + path).encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [
                (name.lower().encode("ascii"), value.encode("latin-1")) for name, value in request.headers.raw_items()
            ],
            "subprotocols": [name.strip() for offer in offers for name in offer.split(",")],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: self._socket},
        }

    def _answer(self, response: bytes, closes: bool = True) -> None:
        """Write the only answer to the request, unless the client has disconnected."""
        self._answered = True
        if not self._transport.is_closing():
            self._transport.write(response)
            if closes:
                self._transport.close()

    def _fail(self) -> None:
        self._answer(_response(HTTPStatus.INTERNAL_SERVER_ERROR, Headers(), b"Internal Server Error"))

    def _log(self, outcome: str) -> None:
        place = get_client_addr(self._scope), get_path_with_query_string(self._scope)  # type: ignore[arg-type]
        logger.info('%s - "WebSocket %s" %s', *place, outcome)

    # ASGI

    async def _run(self) -> None:
        code = 1000
        try:
            result = await self._config.loaded_app(self._scope, self._receive, self._send)
            if result is not None:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
            elif not self._answered:
                logger.error("ASGI callable returned without completing handshake.")
        except ClientDisconnected:
            pass
        except BaseException:
            logger.exception("Exception in ASGI application\n")
            code = 1011
        if not self._answered:
            self._fail()
        self._socket.close(code)

    async def _receive(self) -> Message:
        if self._connects:
            self._connects = False
            return {"type": "websocket.connect"}
        message = await self._socket.receive()
        if message is None:
            code, reason = self._socket.ended
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        payload, is_text = message
        if is_text:
            return {"type": "websocket.receive", "text": payload.decode()}
        return {"type": "websocket.receive", "bytes": payload}

    async def _send(self, message: Message) -> None:
        await self._socket.drain()
        if self._denial is not None:
            self._add_to_denial(message)
        elif self._answered:
            self._send_open(message)
        elif self._transport.is_closing():
            raise ClientDisconnected
        elif message["type"] == "websocket.accept":
            self._accept(message)
        elif message["type"] == "websocket.close":
            self._log("403")
            self._answer(_response(HTTPStatus.FORBIDDEN, Headers(), b""))
        elif message["type"] == "websocket.http.response.start":
            self._begin_denial(message)
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' but "
                f"got '{message['type']}'."
            )

    def _accept(self, message: Message) -> None:
        assert self._response is not None, "the application runs only after the request was accepted"
        headers = self._response.headers
        del headers["Date"]  # uvicorn's default headers have one, if the server's settings want it
        added = [*self._server_state.default_headers, *message.get("headers", [])]
        headers.update([(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in added])
        if subprotocol := message.get("subprotocol"):
            headers["Sec-WebSocket-Protocol"] = subprotocol
        self._log("[accepted]")
        self._answer(self._response.serialize(), closes=False)
        self._socket.open()

    def _send_open(self, message: Message) -> None:
        if not self._socket.is_open:
            raise ClientDisconnected
        if message["type"] not in ("websocket.send", "websocket.close"):
            raise RuntimeError(
                f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{message['type']}'."
            )
        if message["type"] == "websocket.close":
            self._socket.close(message.get("code", 1000), message.get("reason") or "")
        elif (payload := message.get("bytes")) is not None:
            self._socket.send(payload, False)
        else:
            self._socket.send(message["text"].encode(), True)

    def _begin_denial(self, message: Message) -> None:
        status = message["status"]
        if not 100 <= status < 600:
            raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
        self._log(str(status))
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", [])]
        self._denial = status, Headers(headers), b""

    def _add_to_denial(self, message: Message) -> None:
        if message["type"] != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got '{message['type']}'.")
        assert self._denial is not None
        status, headers, body = self._denial
        self._denial = status, headers, body + message.get("body", b"")
        if not message.get("more_body", False) and not self._answered:
            self._answer(_response(*self._denial))


def limited(connections: Connections) -> type[WebSocketProtocol]:
    """Return the protocol of a server with these connections and their limits."""
    return type("LimitedWebSocketProtocol", (WebSocketProtocol,), {"open_connections": connections})


def _response(status: int, headers: Headers, body: bytes) -> bytes:
    """Return an HTTP response after which the connection is closed."""
    headers.setdefault("Date", formatdate(usegmt=True))
    headers.setdefault("Connection", "close")
    headers.setdefault("Content-Length", str(len(body)))
    headers.setdefault("Content-Type", "text/plain; charset=utf-8")
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    return Response(status, phrase, headers, body).serialize()
