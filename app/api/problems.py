"""Convert errors of any origin to problem documents (RFC 9457), in this one place.

Under /v2 an error is a document of the Open Inference Protocol instead, `{"error": TEXT}`.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.codec import encode_json
from app.api.media import JSON, PROBLEM
from app.api.methods import allowed_methods
from app.api.schemas import invalid_value, place_of
from app.errors import LONGEST_TEXT, EngramError, MethodNotAllowed, NotFound
from app.logs import request_id

CLIENT_GONE = 499
"""The status that is logged for a client that went away; it is never sent."""


V2 = "/v2"

UNPROCESSABLE, BAD_REQUEST = 422, 400
"""The Open Inference Protocol has no 422: a request that is not valid is answered 400."""

NOT_OFFERED = {
    "/systemsharedmemory": "this server shares no memory with clients: send tensors in the body",
    "/cudasharedmemory": "this server shares no memory with clients: send tensors in the body",
    "/repository/models": "models are loaded from the directory of checkpoints: put one there, then POST /admin/reload",
    "/trace": "this server has no trace settings; its traces go to OpenTelemetry, as the settings say at the start",
    "/logging": "this server has no log settings that a client may change",
}
"""Extensions of the protocol that the server does not have, by the beginnings of their paths, and what there is."""


def is_v2(path: str) -> bool:
    """Return whether a path is one of the Open Inference Protocol."""
    return path == V2 or path.startswith(f"{V2}/")


class ProblemResponse(Response):
    """The document of an error, which counts as a refusal when it is sent."""

    def __init__(self, error: EngramError, headers: Mapping[str, str] | None = None) -> None:
        body, self._extra = encode_json(problem_document(error)), {**error.headers, **(headers or {})}
        super().__init__(body, error.status, self._extra, PROBLEM)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"].state.metrics.refusal(self._error.code)
        if is_v2(scope["path"]):
            status = BAD_REQUEST if self.status_code == UNPROCESSABLE else self.status_code
            await Response(encode_json(v2_document(self._error)), status, self._extra, JSON)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def v2_document(error: EngramError) -> dict[str, str]:
    """Return an error as the Open Inference Protocol has it, with what is expected."""
    expected = error.more.get("expected", "")
    hint = f"; expected {expected}" if expected and expected not in error.detail else ""
    return {"error": f"{error.detail[:LONGEST_TEXT]}{hint}"}


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
    if is_v2(path):
        for start, reason in NOT_OFFERED.items():
            if path.startswith(V2 + start) or (path.startswith(f"{V2}/models/") and f"{start}/" in path):
                return f"{method} {path}: {reason}"
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
