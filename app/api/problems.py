"""Convert errors of any origin to problem documents (RFC 9457), in this one place."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.codec import encode_json
from app.api.media import PROBLEM
from app.api.methods import allowed_methods
from app.api.schemas import invalid_value, place_of
from app.errors import EngramError, MethodNotAllowed, NotFound
from app.logs import request_id

CLIENT_GONE = 499
"""The status that is logged for a client that went away; it is never sent."""


class ProblemResponse(Response):
    """The problem document of an error, which counts as a refusal when it is sent."""

    def __init__(self, error: EngramError, headers: Mapping[str, str] | None = None) -> None:
        body = encode_json(problem_document(error))
        super().__init__(body, error.status, {**error.headers, **(headers or {})}, PROBLEM)
        self._code = error.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"].state.metrics.refusal(self._code)
        await super().__call__(scope, receive, send)


def problem_document(error: EngramError) -> dict[str, Any]:
    """Return the problem document of an error, with the id of the request that is carried out."""
    identity = request_id()
    return error.problem() | ({} if identity is None else {"request_id": identity})


def problem_response(error: EngramError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response with the problem document of an error."""
    return ProblemResponse(error, headers)


def error_response(error: EngramError | ClientDisconnect) -> Response:
    """Return the response to an error that a route may raise."""
    return problem_response(error) if isinstance(error, EngramError) else Response(status_code=CLIENT_GONE)


def add_problem_handlers(app: FastAPI) -> None:
    """Convert every error that leaves a route to a problem document, but for the unexpected: see IdentifyRequests."""

    @app.exception_handler(EngramError)
    @app.exception_handler(ClientDisconnect)
    async def known_error(_: Request, error: EngramError | ClientDisconnect) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def parameter_error(_: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        return problem_response(invalid_value(place_of(problem["loc"][1:]), problem["msg"], problem.get("input")))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, _: HTTPException) -> Response:
        path: str = request.scope["path"]
        methods = allowed_methods(app, path)
        if request.method == "OPTIONS" and path == "*":  # about the whole server
            return Response(status_code=204)
        if not methods:
            return problem_response(NotFound(_not_found(app, request.method, path)))
        allow = {"Allow": ", ".join(methods)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        return problem_response(_not_allowed(request.method, path, allow["Allow"]), allow)


def _not_found(app: FastAPI, method: str, path: str) -> str:
    """Return the detail of the error for a path without a route."""
    shorter = path.rstrip("/")
    if shorter != path and allowed_methods(app, shorter):
        return f"{method} {path}: there is nothing here; the path without the slash at its end is {shorter}"
    return f"{method} {path}: there is nothing here; GET /docs lists what there is"


def _not_allowed(method: str, path: str, allowed: str) -> MethodNotAllowed:
    return MethodNotAllowed(
        f"{method} {path}: the methods of this path are {allowed}; GET /docs lists what there is",
        expected=f"one of {allowed}",
        got=method,
    )
