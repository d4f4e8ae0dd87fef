"""The errors of the client, and problem documents as errors."""

import json
import re
from collections.abc import Mapping
from typing import Any

AWAY = (429, 502, 503, 504)
"""HTTP statuses that say "not now": the server's, or those of a proxy that finds no server."""


class EngramClientError(Exception):
    """An error of a request, from the server or from this client: a problem document (RFC 9457).

    EngramClientError
    |-- InvalidRequest    400, 413, 415, 422: the request is wrong
    |-- InvalidKey        401: the server wants a key, and there is none, or it is unknown or revoked
    |-- Forbidden         403, 421: the key lacks the scope, or the server does not take the host of the URL as its own
    |-- NotFound          404: no such model, session or route
    |-- Conflict          409: the session, or its past, is not as the request expects
    |-- SessionGone       410: deleted, expired or lost
    |-- TooManyRequests   429: more than the key allows; the cause of an Unreachable
    |-- ServerError       5xx: the server failed
    |-- AnswerLost        a frame was carried out, but its outputs can no longer be computed
    `-- Unreachable       no answer, or none but "not now", until the timeout
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem)
        self.problem = dict(problem)
        """All members of the problem document: place, expected, got, step, reason, ... where they apply."""
        self.code: str = problem["code"]
        """A stable name of the error: docs/errors.md lists the server's."""
        self.status: int | None = problem.get("status")
        """The HTTP status, None without one."""
        self.detail: str = problem["detail"]
        """The error in words."""

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})"


class InvalidRequest(EngramClientError):
    pass


class InvalidKey(EngramClientError):
    pass


class Forbidden(EngramClientError):
    pass


class NotFound(EngramClientError):
    pass


class Conflict(EngramClientError):
    pass


class SessionGone(EngramClientError):
    pass


class TooManyRequests(EngramClientError):
    pass


class ServerError(EngramClientError):
    pass


class AnswerLost(EngramClientError):
    pass


class Unreachable(EngramClientError):
    """`problem` has `url`, `seconds` and `tries`; __cause__ is the error of the last try."""


KINDS: dict[int, type[EngramClientError]] = {
    400: InvalidRequest,
    401: InvalidKey,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: SessionGone,
    413: InvalidRequest,
    415: InvalidRequest,
    421: Forbidden,
    422: InvalidRequest,
    429: TooManyRequests,
}


class Lost(Exception):
    """A request without an answer, which may be sent again.

    reached: whether the server may have carried it out. after: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, reached: bool = True, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reached = reached
        self.after = after


def problem_in(status: int, content: bytes) -> dict[str, Any]:
    """Return the problem document in the body of an answer, or one in its place, as for the page of a proxy."""
    stranger = {"code": f"http_{status}", "detail": f"HTTP status {status}: {content[:200].decode(errors='replace')}"}
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    return stranger | (document if isinstance(document, dict) else {}) | {"status": status}


def refusal(problem: Mapping[str, Any], retry_after: str = "") -> EngramClientError | Lost:
    """Return the error of a problem: Lost where its status says "not now".

    retry_after: the header; a WebSocket has the member of the problem in its place.
    """
    status = problem["status"]
    error = KINDS.get(status, ServerError if status >= 500 else EngramClientError)(problem)
    if status not in AWAY:
        return error
    seconds = retry_after or str(problem.get("retry_after"))
    lost = Lost(str(error), after=float(seconds) if re.fullmatch("[0-9]+", seconds) else 0.0)
    lost.__cause__ = error
    return lost


def answer_lost(seq: int) -> AnswerLost:
    detail = f"frame {seq} was carried out, but its outputs can no longer be computed: the session was rewound or reset"
    return AnswerLost({"code": "answer_lost", "detail": detail})


def described(error: Exception) -> str:
    """Return an error as text: its kind, and its message where it has one."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
