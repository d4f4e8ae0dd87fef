"""The methods of HTTP that a route answers beside its own: HEAD if it has GET, and OPTIONS."""

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OFFERED = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """Return the methods of all routes of a path; none if there is no route."""
    found = [method for method in OFFERED if _is_routed(app, path, method)]
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"] if found else []


def _is_routed(app: FastAPI, path: str, method: str) -> bool:
    scope = {"type": "http", "path": path, "method": method, "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


class AnswerHead:
    """Answer HEAD as GET without the body, whose further computation is dropped (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, _without_body(send))
        finally:
            scope["route"] = as_get.get("route")  # for the metrics


def _without_body(send: Send) -> Send:
    """Return a `send` that ends an answer where its body begins, so that a route that streams stops."""
    ended = False

    async def send_head(message: Message) -> None:
        nonlocal ended
        if message["type"] != "http.response.body":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b""})

    return send_head
