"""The HTTP protocol of the server: uvicorn takes a class that `answering` returns as its `http`.

A request in its usual form is answered from within the reading of the socket, by a call, where an `AtOnce` takes it: no
task is made for it, and no messages of ASGI pass. All other requests, and those that `AtOnce` hands back, are answered
by the ASGI application as uvicorn has it.

    reading --- head ---> find --- none --------------------------> a task, the ASGI application
                            '----- body ---> answer --- False ------^
                                               '------- True ... respond ---> one write
"""

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

UNUSUAL = frozenset((b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"))
"""Header fields with which a request is left to the ASGI application."""

LENGTH_DIGITS = 9
"""Digits of a Content-Length that is looked at."""

Respond = Callable[[int, bytes, bytes], None]
"""respond(status, fields, body): writes a response. fields: its own header fields, each line with its end."""

Gone = Callable[[], None]
"""Called once where the client goes away before its response is written."""

Answer = Callable[[bytes, Respond], bool | Gone]
"""answer(body, respond): calls `respond` once, at once or later in the event loop, and returns True; or returns False,
having done nothing, where the ASGI application is to answer. In place of True it may return a Gone, after which it need
not respond. It never raises."""


class AtOnce(Protocol):
    """Chooses the requests that are answered without ASGI."""

    max_body_bytes: int

    def find(self, target: bytes) -> Answer | None:
        """Return the answer to a POST request as its head is read, None where the ASGI application is to answer.

        target: of the request line, as it came. The body comes later, or never.
        """


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
        self._answer: Answer | None = None  # to the request whose body is awaited
        self._gone: Gone | None = None  # of the request that is answered later
        self._may_answer = True

    # What the parser and the transport call

    def data_received(self, data: bytes) -> None:
        """Answer one request at once; those that came together with it leave the event loop to others in between."""
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
            self._hand_over()  # the application learns that its client is gone
        elif self._gone is not None:
            gone, self._gone = self._gone, None
            gone()
        super().connection_lost(exc)

    # How a request is answered

    def _find(self) -> Answer | None:
        """Return what may answer the request whose head was read, None where the ASGI application does."""
        if self._always_asgi or self.parser.get_method() != b"POST" or self._is_busy():
            return None
        fields = dict(self.headers)
        if not UNUSUAL.isdisjoint(fields) or not self._is_short(fields.get(b"content-length", b"")):
            return None
        if self.parser.get_http_version() != "1.1" or not self.parser.should_keep_alive():
            return None
        return self.at_once.find(self.url)

    def _is_busy(self) -> bool:
        """Return whether this read had its answer, another response is owed, or the client does not read them."""
        return (
            not self._may_answer
            or self.flow.write_paused
            or (self.cycle is not None and not self.cycle.response_complete)
        )

    def _is_short(self, length: bytes) -> bool:
        return length.isdigit() and len(length) <= LENGTH_DIGITS and int(length) <= self.at_once.max_body_bytes

    def _hand_over(self) -> None:
        """Have the ASGI application answer the request, of which all that has come was kept."""
        kept: Any = self.cycle
        self.cycle = None  # type: ignore[assignment]
        super().on_headers_complete()
        self.cycle.body, self.cycle.more_body = kept.body, kept.more_body
        self.cycle.keep_alive = self.cycle.keep_alive and kept.keep_alive
        self.cycle.message_event.set()

    def _respond(self, cycle: "_Cycle", status: int, fields: bytes, body: bytes) -> None:
        """Write a response as uvicorn does, unless the client is gone."""
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
    """Return header fields as they are sent, each line with its end."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


_default_lines = functools.lru_cache(4)(lines_of)  # of the fields that all responses of a second have


def answering(at_once: AtOnce) -> type[HttpProtocol]:
    """Return the protocol of a server whose requests `at_once` may answer."""
    return type("AnsweringHttpProtocol", (HttpProtocol,), {"at_once": at_once})


class _Cycle:
    """What uvicorn's protocol uses of a RequestResponseCycle, of a request that may be answered without ASGI."""

    message_event = asyncio.Event()
    """Nobody waits for it."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.more_body = True
        self.keep_alive = True
        """False once the server stops: the connection is closed after the response."""
        self.disconnected = False
        self.response_complete = False
