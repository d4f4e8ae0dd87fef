"""Middleware around all routes of a server."""

import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.methods import OFFERED
from app.logs import asked
from app.metrics import Metrics
from app.tracing import Tracing

FAILED = 500
"""The lowest status of an error of the server."""

METHODS = frozenset((*OFFERED, "HEAD", "OPTIONS", "WEBSOCKET"))


class MeasureRequests:
    """Count HTTP requests by route and status, and time them."""

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, noted = self._clock(), _NotedStatus(send)
        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(known_method(scope["method"]), route, noted.status, self._clock() - began)


class TraceRequests:
    """Make the spans of HTTP requests; those of frames are made by their channels."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        noted = _NotedStatus(send)
        with self._tracing.request(asked()) as trace:
            try:
                await self._app(scope, receive, noted)
            finally:
                name, attributes = span_of(scope)
                attributes["http.response.status_code"] = noted.status
                parent = self._tracing.parent_of(scope["headers"])
                self._tracing.end(trace, name, parent, attributes, noted.status >= FAILED)


class _NotedStatus:
    """A `send` that notes the status of a response; FAILED as long as none has begun."""

    def __init__(self, send: Send) -> None:
        self.status = FAILED
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def span_of(scope: Scope) -> tuple[str, dict[str, Any]]:
    """Return the name and the attributes of the span of a request or a frame; neither has what a client made up."""
    method = known_method(scope.get("method", "WEBSOCKET"))
    route = getattr(scope.get("route"), "path", "other")
    tenant = getattr(scope.get("caller"), "tenant", None)
    attributes = {"http.request.method": method, "http.route": route}
    return f"{method} {route}", attributes | ({} if tenant is None else {"engram.tenant": tenant})


def known_method(method: str) -> str:
    """Return a method, or `other` for one that no route has."""
    return method if method in METHODS else "other"
