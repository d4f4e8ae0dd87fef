"""The outermost middleware: the id of each request, its unexpected error, and its line in the access log."""

import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from app.api.problems import CLIENT_GONE, problem_response
from app.errors import unexpected_error
from app.logs import asking, new_request_id
from app.protocols import websocket

logger = logging.getLogger(__name__)

HEADER = b"x-request-id"

VALID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
"""The ids of clients that are taken; in place of another, the server makes one."""

SESSION = re.compile(r"/sessions/([A-Za-z0-9_-]{1,64})(?:/|$)")

STARTS = frozenset(("http.response.start", "websocket.http.response.start", "websocket.accept"))

SWITCHING_PROTOCOLS = 101

INTERNAL_ERROR = 1011


class IdentifyRequests:
    """Give each request an id, which is in its response, its problem document, and its lines of the log.

    An unexpected error is logged once and answered; a client that disconnects is no error. access_log: whether each
    request is logged when it ends.
    """

    def __init__(self, app: ASGIApp, access_log: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._access_log = access_log
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began = self._clock()
        exchange = _Exchange(taken_id(scope["headers"]) or new_request_id(), send)
        found = SESSION.search(scope["path"])
        with asking(exchange.request_id, found and found[1]):
            try:
                await self._app(scope, receive, exchange.send)
            except (ClientDisconnect, WebSocketDisconnect):
                pass
            except Exception as error:
                await _fail(scope, receive, exchange, error)
            finally:
                if self._access_log:
                    _log_access(scope, exchange, self._clock() - began)


class _Exchange:
    """The response to one request, as far as it was sent."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.status: int | None = None
        self.bytes = 0
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] in STARTS:
            self.status = message.get("status", SWITCHING_PROTOCOLS)
            headers = [*message.get("headers", ()), (HEADER, self.request_id.encode())]
            message = {**message, "headers": headers}
        self.bytes += len(message.get("body", b""))
        await self._send(message)


def taken_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the id that a client gave its request, if it is valid."""
    given = next((value for name, value in headers if name == HEADER), b"")
    return given.decode() if VALID.fullmatch(given) else None


async def _fail(scope: Scope, receive: Receive, exchange: _Exchange, error: Exception) -> None:
    """Log an unexpected error, and answer it as far as it still can be."""
    if isinstance(error, OSError) and scope["type"] == "websocket":  # the server's protocol raises it: a client is gone
        raise error
    logger.error("%s %s failed", _method(scope), scope["path"], exc_info=error)
    if exchange.status is None:
        await problem_response(unexpected_error())(scope, receive, exchange.send)
    elif scope["type"] == "websocket":
        await exchange.send({"type": "websocket.close", "code": INTERNAL_ERROR})


def _log_access(scope: Scope, exchange: _Exchange, seconds: float) -> None:
    """Log a request that has ended; the path is logged where no route is known."""
    fields: dict[str, Any] = {"method": _method(scope)}
    route = getattr(scope.get("route"), "path", None)
    fields |= {"path": scope["path"]} if route is None else {"route": route}
    fields |= {"status": exchange.status or CLIENT_GONE, "seconds": round(seconds, 6)}
    if scope["type"] == "http":
        fields["bytes"] = exchange.bytes
    elif exchange.status == SWITCHING_PROTOCOLS and websocket.EXTENSION in scope.get("extensions", {}):
        fields["close_code"] = scope["extensions"][websocket.EXTENSION].ended[0]
    caller = scope.get("caller")
    fields |= {name: value for name in ("tenant", "key_id") if (value := getattr(caller, name, None)) is not None}
    logger.info(" ".join(f"{name}=%s" for name in fields), *fields.values(), extra={"fields": fields})


def _method(scope: Scope) -> str:
    method: str = scope.get("method", "WEBSOCKET")
    return method
