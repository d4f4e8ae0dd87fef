"""The HTTP protocol of the server: uvicorn takes a class that `answering` returns as its `http`.

A usual request that `AtOnce` accepts is answered by a call while the socket is read: without a task and without the
messages of ASGI. All other requests, and those that `AtOnce` declines later, are answered by the ASGI application.

    reading --- head ---> find --- none --------------------------> a task, the ASGI application
                            '----- body ---> answer --- False ------^
                                               '------- True ... respond ---> one write
"""

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

UNUSUAL = frozenset((b"content-encoding", b"expect", b"transfer-encoding", b"upgrade", b"x-request-id"))
"""Requests with any of these header fields are left to the ASGI application."""

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
        self._may_answer = True  # whether no request of these bytes was answered at once

    # Called by the parser and the transport

    def data_received(self, data: bytes) -> None:
        """Answer one request at once; leave the others in these bytes to ASGI, so that other tasks run in between."""
        self._may_answer = True
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._answer = self._find()
        if self._answer is None:
            super().on_headers_complete()
        else:
            self._may_answer = False
            self.cycle = _Cycle()  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._answer is not None:
            answer, self._answer = self._answer, None
            cycle: Any = self.cycle
            taken = answer(bytes(cycle.body), functools.partial(self._respond, cycle))
            if taken is False:
                self._hand_over()
            elif taken is not True and not cycle.response_complete:
                self._gone = taken

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer = None
            self._hand_over()  # the application learns that its client has disconnected
        elif self._gone is not None:
            gone, self._gone = self._gone, None
            gone()
        super().connection_lost(exc)

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
        if self.transport.is_closing():
            return
        defaults = _default_lines(tuple(self.server_state.default_headers))
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], defaults, fields, end, body)))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


def lines_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return header fields as lines, each with CR LF."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


_default_lines = functools.lru_cache(4)(lines_of)  # all responses of one second have the same default fields


def answering(at_once: AtOnce) -> type[HttpProtocol]:
    """Return the protocol of a server whose requests `at_once` may answer."""
    return type("AnsweringHttpProtocol", (HttpProtocol,), {"at_once": at_once})


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
