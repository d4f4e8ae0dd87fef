"""The HTTP protocol of the server: uvicorn takes a class that `answering` returns as its `http`.

A usual request that `AtOnce` accepts is answered by a call while the socket is read: without a task and without the
messages of ASGI. All other requests, and those that `AtOnce` declines later, are answered by the ASGI application.

    reading --- head ---> find --- none --------------------------> a task, the ASGI application
                            '----- body ---> answer --- False ------^
                                               '------- True ... respond ---> one write

Bytes are counted before the parser, which keeps a head as long as it is not whole. While a request is answered, no
request behind it is parsed.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.errors import (
    ConnectionsFull,
    EngramError,
    HeadersTooLarge,
    MalformedRequest,
    RequestTimeout,
    TargetTooLong,
    UploadsFull,
)
from app.protocols.connections import LARGE, LEAST_RATE, Connections, Limits, Wait, Watch, refusal
from app.protocols.websocket import WebSocketProtocol

HEAD_END = b"\r\n\r\n"

MAX_PIECES = 64
"""Pieces of a client's bytes that are parsed in one iteration of the event loop, at most. They end behind a head, or
bytes that look like its end."""

PIECE_BYTES = 2**12
"""Bytes of a piece, at most: short header fields and chunks take long to parse, and are counted after each piece."""

MAX_CHUNKS = 256
"""Pieces of a body after which a client's bytes are parsed further in the next iteration of the event loop."""

FIELD_BYTES = 4
"""Bytes of a header field beside its name and its value: the colon, a space and CR LF."""

BYTES_PER_BYTE = 16
"""Bytes on the wire for one byte of a body in chunks, beside those that header fields may have."""

UNUSUAL = frozenset((b"content-encoding", b"expect", b"transfer-encoding", b"upgrade", b"x-request-id"))
"""Requests with any of these header fields are left to the ASGI application."""

BODY_FIELDS = frozenset((b"content-length", b"transfer-encoding"))
"""Header fields that announce a body."""

LENGTH_DIGITS = 9
"""A request with more digits in its Content-Length is left to the ASGI application."""

Respond = Callable[[int, bytes, bytes], None]
"""respond(status, fields, body): write a response. fields: the response's own header lines, each with CR LF."""

Gone = Callable[[], None]
"""Called once if the client disconnects before its response is written."""

Answer = Callable[[bytes, Respond], bool | Gone]
"""answer(body, respond): call `respond` once, now or later on the event loop, and return True. Or do nothing and return
False: the ASGI application answers. Instead of True, it may return a Gone; once that is called, it need not respond. It
never raises."""


class AtOnce(Protocol):
    """Chooses the requests that are answered without ASGI."""

    max_body_bytes: int

    def find(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Answer | None:
        """Return the Answer of a POST request whose head was read; None: the ASGI application answers.

        target: of the request line, as received; headers: all header fields in order of arrival, names in lower case.
        The body arrives later, or never.
        """


class Never:
    """Leaves all requests to the ASGI application (an AtOnce)."""

    max_body_bytes = -1

    def find(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Answer | None:  # noqa: ARG002
        """Return None: the ASGI application answers."""
        return None


class HttpProtocol(HttpToolsProtocol):
    """A connection of HTTP/1.1."""

    at_once: ClassVar[AtOnce]
    open_connections: ClassVar[Connections]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._always_asgi = bool(config.root_path or config.access_log or config.limit_concurrency is not None)
        self._answer: Answer | None = None  # of the request whose body is awaited
        self._gone: Gone | None = None  # of the request that is answered later
        self._unread = 0  # bytes of answers that are held because the client does not read them
        self._may_answer = True  # whether no request of these bytes was answered at once
        self.url, self.headers = b"", []  # uvicorn sets them when a request begins: empty lines before it have none
        self._limits = self.open_connections.limits
        self.drained = 0
        self._watch: Watch | None = None
        self._ended = False  # whether the client was refused: further bytes are ignored
        self._refusal: EngramError | None = None  # of bytes behind a request that is not answered yet
        self._unparsed = b""  # bytes behind a request that is not answered yet
        self._counted = 0  # how many of them are held for all clients
        self._in_head = True  # whether a head is awaited, or is not whole
        self._completed = False  # whether the bytes that were parsed last had the end of a request
        self._parsed = 0  # their number
        self._head = 0  # bytes of the head, without those behind the end of a request
        self._head_most = 0  # bytes of the head, with those
        self._heads = 0  # heads so far
        self._body = 0  # bytes of the body
        self._body_sent = 0  # bytes of the body as they came, with the sizes and extensions of chunks and the trailers
        self._chunks = 0  # pieces of bodies that were parsed in this iteration of the event loop

    # Called by the parser and the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.flow = _Flow(self.transport)
        try:
            self._watch = self.open_connections.enter(self, self.transport)
        except ConnectionsFull as error:
            self._refuse(error)

    def data_received(self, data: bytes) -> None:
        """Answer one request at once; leave the others in these bytes to ASGI, so that other tasks run in between."""
        if self._ended:
            return
        self._may_answer = True
        if self._unparsed or self._is_answering():
            self._hold(data)
        elif len(data) > PIECE_BYTES or data.count(HEAD_END) > 1:
            self._parse_requests(data)
        else:
            self._parse(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._hold_unread(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self.drained += 1
        self._hold_unread(0)
        super().resume_writing()

    def on_headers_complete(self) -> None:
        self._check_head()
        self._in_head = False
        self._heads += 1
        self._body = self._body_sent = 0
        self._answer = self._find()
        if self._answer is None:
            self._check_path()
            super().on_headers_complete()
            self.headers = self.headers.copy()  # the parser appends trailers, which are no header fields of the request
        else:
            self._may_answer = False
            self.cycle = _Cycle()  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._chunks += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = self._completed = True
        self._head, self._head_most = 0, self._parsed
        super().on_message_complete()
        if self._answer is not None:
            answer, self._answer = self._answer, None
            cycle: Any = self.cycle
            taken = answer(bytes(cycle.body), functools.partial(self._respond, cycle))
            if taken is False:
                self._hand_over()
            elif taken is not True and not cycle.response_complete:
                self._gone = taken

    def on_response_complete(self) -> None:
        """Go on with the bytes behind the request, as uvicorn does; `Connections` closes idle connections."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._unparsed:
            self.loop.call_soon(self._go_on)
        self.flow.resume_reading()
        if self._refusal is not None and not self._is_whole():
            self.pipeline.clear()
            self._refuse(self._refusal)
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.leave()
        if self._answer is not None:
            self._answer = None
            self._hand_over()  # the application learns that its client has disconnected
        self._drop()
        self._hold_unread(0)
        self._count_unparsed(0)
        super().connection_lost(exc)

    # Parsing

    def _parse(self, data: bytes) -> None:
        """Parse bytes with at most one end of a head. Refuse the client if they break a limit, or are no HTTP."""
        self._parsed = size = len(data)
        self._head_most += size
        self._completed, in_body = False, not self._in_head
        try:
            self.parser.feed_data(data)
            if self._completed:
                return
            if self._in_head:
                self._count_head(size)
            elif in_body:
                self._count_body(size)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except _LimitExceeded as exceeded:
            self._refuse(exceeded.error)
        except httptools.HttpParserError as error:
            self._refuse(self._error_of(error))

    def _error_of(self, error: httptools.HttpParserError) -> EngramError:
        """Return the error for a client; log what a callback of the parser raised unless the client caused it."""
        cause = error.__context__
        if isinstance(cause, _LimitExceeded):
            return cause.error
        if cause is not None and not isinstance(cause, (httptools.HttpParserError, UnicodeDecodeError)):
            self.logger.error("a request could not be parsed", exc_info=cause)
        return MalformedRequest(f"the request is no valid HTTP/1.1: {cause or error}")

    def _parse_requests(self, data: bytes) -> None:
        """Parse requests, each when those before it are answered; hold the bytes behind them."""
        start = self._chunks = 0
        for _ in range(MAX_PIECES):
            most = start + PIECE_BYTES
            found = data.find(HEAD_END, start, most)
            end = min(most, len(data)) if found < 0 else found + len(HEAD_END)
            self._parse(data[start:end])
            start = end
            if (
                self._ended
                or self._refusal is not None
                or start == len(data)
                or self.transport.get_protocol() is not self
            ):
                return
            if self._is_answering():
                break
            if self._chunks > MAX_CHUNKS:
                self.loop.call_soon(self._go_on)
                break
        else:
            self.loop.call_soon(self._go_on)
        self._hold(data[start:])

    @property
    def is_at_work(self) -> bool:
        """Whether a request has begun to arrive, or is not answered."""
        return bool(self._head or self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _is_answering(self) -> bool:
        """Return whether the bytes behind a request must wait: it is not answered, or waits for the one before it."""
        return bool(self.pipeline) or self._is_whole()

    def _is_whole(self) -> bool:
        """Return whether the last request was read whole and is not answered."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def _hold(self, data: bytes) -> None:
        """Keep bytes to be parsed later, and read no others before; refuse them if all clients have too many."""
        self._unparsed += data
        cast(_Flow, self.flow).hold()
        if self._is_answering() and not self._count_unparsed(len(self._unparsed)):
            self._unparsed = b""
            self._refuse(UploadsFull("the bytes of all clients behind requests that are not answered are too many"))

    def _count_unparsed(self, size: int) -> bool:
        """Count this many bytes behind a request that is not answered, from LARGE on; return whether there is room."""
        held, more = self.open_connections.frames, (size if size >= LARGE else 0) - self._counted
        if held is None or (more > 0 and not held.try_add(more)):
            return held is None
        held.subtract(max(0, -more))
        self._counted += more
        return True

    def _go_on(self) -> None:
        """Parse the bytes that were held, unless they must wait longer."""
        if self._ended or self.transport.is_closing() or not self._unparsed or self._is_answering():
            return
        data, self._unparsed = self._unparsed, b""
        self._count_unparsed(0)
        self._parse_requests(data)
        if not self._unparsed and not self._ended:
            cast(_Flow, self.flow).release()

    def _upgrade(self) -> None:
        """Make the connection a WebSocket, or go on with HTTP if the client asked for something else."""
        if not self._should_upgrade():
            return
        self._hold_unread(0)  # the next protocol is called when the client has read its answers
        self.handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        if self._watch is not None and isinstance(protocol, WebSocketProtocol):
            self._watch.watched, protocol.watch = protocol, self._watch

    # Limits

    def _check_head(self) -> None:
        """Check a whole head. Raises _LimitExceeded."""
        if self.parser.should_upgrade() and any(name in BODY_FIELDS for name, _ in self.headers):
            raise _LimitExceeded(  # the parser takes the body for the next request
                MalformedRequest("a request with a body cannot ask for another protocol: leave the field Upgrade out")
            )
        self._check_fields()
        if self._head_most > min(self._limits.max_header_bytes, self._limits.max_target_bytes):
            self._check_target()
            fields = sum(len(name) + len(value) + FIELD_BYTES for name, value in self.headers)
            if fields > self._limits.max_header_bytes:
                raise _LimitExceeded(_too_many_bytes(self._limits))

    def _check_path(self) -> None:
        """Check that the target of a request has a path, as http://host has not. Raises _LimitExceeded."""
        if not self.url.startswith(b"/") and httptools.parse_url(self.url).path is None:
            raise _LimitExceeded(MalformedRequest("the URL of the request has no path: the shortest one is /"))

    def _count_head(self, size: int) -> None:
        """Count bytes of a head that is not whole. Raises _LimitExceeded."""
        self._head += size
        self._check_target()
        self._check_fields()
        if self._head - len(self.url) > self._limits.max_header_bytes:
            raise _LimitExceeded(_too_many_bytes(self._limits))

    def _check_fields(self) -> None:
        if len(self.headers) > self._limits.max_header_fields:
            raise _LimitExceeded(_too_many_fields(self._limits))

    def _check_target(self) -> None:
        limit = self._limits.max_target_bytes
        if len(self.url) > limit:
            raise _LimitExceeded(
                TargetTooLong(
                    f"the URL has more than {limit} bytes: max_target_bytes", expected=f"at most {limit} bytes"
                )
            )

    def _count_body(self, size: int) -> None:
        """Count bytes of a body. Raises _LimitExceeded."""
        self._body_sent += size
        if self._body_sent > self._limits.max_header_bytes + BYTES_PER_BYTE * self._body:
            raise _LimitExceeded(
                HeadersTooLarge("the body has more bytes of chunk extensions and trailers than of content")
            )

    def _hold_unread(self, size: int) -> None:
        """Hold this many bytes of answers that the client does not read."""
        if self.open_connections.answers is not None:
            self.open_connections.answers.subtract(self._unread)
            self.open_connections.answers.add(size)
            self._unread = size

    def wait(self) -> Wait | None:
        """Return what the client has to send, as `Watched` has it."""
        if self._ended or self.flow.read_paused or self._is_answering():
            return None
        if not self._in_head:
            timeout = self._limits.body_timeout
            if self.cycle is not None and self.cycle.response_complete:
                return Wait(("rest", self._heads), timeout)
            return Wait(("body", self._heads), timeout, self._body, LEAST_RATE * timeout)
        if self._head or not self._heads:
            return Wait(("head", self._heads), self._limits.header_timeout)
        return Wait(("next", self._heads), self.timeout_keep_alive)

    def time_out(self) -> None:
        """Refuse a request that has begun to arrive; close a connection without one."""
        if self._in_head and not self._head:
            self.transport.close()
        elif self._in_head:
            self._refuse(RequestTimeout(f"the header fields took longer than {self._limits.header_timeout:g} s"))
        else:
            self._refuse(
                RequestTimeout(f"in {self._limits.body_timeout:g} s less than {LEAST_RATE} bytes/s of the body arrived")
            )

    def _refuse(self, error: EngramError) -> None:
        """Answer with an error, unless the request has an answer, and close; first answer what was read whole."""
        if self._is_answering():
            self._refusal = error
            cast(_Flow, self.flow).hold()
            return
        self.open_connections.refused(error.code)
        self._ended = True
        self._answer, self._unparsed = None, b""
        self._count_unparsed(0)
        self._drop()
        cycle: Any = self.cycle
        has_answer = False
        if cycle is not None and not self._in_head:
            has_answer = cycle.response_complete or getattr(cycle, "response_started", False)
            cycle.disconnected, cycle.waiting_for_100_continue = True, False
            cycle.message_event.set()
        if self.transport.is_closing():
            return
        if not has_answer:
            self.transport.write(refusal(error))
        cast(_Flow, self.flow).release()
        self.open_connections.linger(self.transport)

    def _drop(self) -> None:
        """Drop the request that is answered later: its client is gone."""
        if self._gone is not None:
            gone, self._gone = self._gone, None
            gone()

    # Answering at once

    def _find(self) -> Answer | None:
        """Return the Answer of the request whose head was read; None: the ASGI application answers."""
        if self._always_asgi or self.parser.get_method() != b"POST" or self._is_busy():
            return None
        fields = dict(self.headers)
        if not UNUSUAL.isdisjoint(fields) or not self._is_short(fields.get(b"content-length", b"")):
            return None
        if self.parser.get_http_version() != "1.1" or not self.parser.should_keep_alive():
            return None
        return self.at_once.find(self.url, self.headers)

    def _is_busy(self) -> bool:
        """Return whether these bytes had their answer, another response is due, or the client does not read them."""
        return (
            not self._may_answer
            or self.flow.write_paused
            or (self.cycle is not None and not self.cycle.response_complete)
        )

    def _is_short(self, length: bytes) -> bool:
        return length.isdigit() and len(length) <= LENGTH_DIGITS and int(length) <= self.at_once.max_body_bytes

    def _hand_over(self) -> None:
        """Let the ASGI application answer the request, with the part of the body that was received."""
        kept: Any = self.cycle
        self.cycle = None  # type: ignore[assignment]
        super().on_headers_complete()
        self.cycle.body, self.cycle.more_body = kept.body, kept.more_body
        self.cycle.keep_alive = self.cycle.keep_alive and kept.keep_alive
        self.cycle.message_event.set()

    def _respond(self, cycle: "_Cycle", status: int, fields: bytes, body: bytes) -> None:
        """Write a response as uvicorn does, unless the client has disconnected."""
        self._gone = None
        if self._ended or self.transport.is_closing():
            return
        defaults = _default_lines(tuple(self.server_state.default_headers))
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], defaults, fields, end, body)))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


class _Flow(FlowControl):
    """uvicorn's control of a connection's reading, which also pauses while unparsed bytes are held."""

    held = False

    def hold(self) -> None:
        """Read nothing before `release`."""
        self.pause_reading()
        self.held = True

    def release(self) -> None:
        """Read again."""
        self.held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class _LimitExceeded(Exception):
    """A request breaks a limit; `error` is for its client."""

    def __init__(self, error: EngramError) -> None:
        super().__init__(error.detail)
        self.error = error


def _too_many_bytes(limits: Limits) -> HeadersTooLarge:
    limit = limits.max_header_bytes
    return HeadersTooLarge(
        f"the header fields have more than {limit} bytes: max_header_bytes", expected=f"at most {limit} bytes"
    )


def _too_many_fields(limits: Limits) -> HeadersTooLarge:
    limit = limits.max_header_fields
    return HeadersTooLarge(
        f"the request has more than {limit} header fields: max_header_fields", expected=f"at most {limit} header fields"
    )


def lines_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return header fields as lines, each with CR LF."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


_default_lines = functools.lru_cache(4)(lines_of)  # all responses of one second have the same default fields


def answering(at_once: AtOnce, connections: Connections | None = None) -> type[HttpProtocol]:
    """Return the protocol of a server whose requests `at_once` may answer.

    connections: those of the server; by default with the limits of `Limits`.
    """
    shared = {"at_once": at_once, "open_connections": connections or Connections(Limits())}
    return type("AnsweringHttpProtocol", (HttpProtocol,), shared)


class _Cycle:
    """A request that may be answered without ASGI: the part of a RequestResponseCycle that uvicorn's protocol uses."""

    message_event = asyncio.Event()
    """Set by uvicorn; no task waits for it."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.more_body = True
        self.keep_alive = True
        """False once the server stops: the connection is closed after the response."""
        self.disconnected = False
        self.response_complete = False
