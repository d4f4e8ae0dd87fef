"""Every error that a client can be told, in one tree.

    EngramError
    |-- InvalidRequest          the request cannot be understood
    |   |-- MalformedBody
    |   |-- InvalidInput        an input at a named place
    |   |-- UnknownName         a trace or a state leaf that the model does not have
    |   |-- InvalidSnapshot     of another model, of another version, or damaged
    |   `-- NonFiniteOutput     the model's numbers overflowed on this input
    |-- BodyTooLarge
    |-- UnsupportedEncoding     the body came in a coding that is not taken
    |-- NotFound
    |   |-- ModelNotFound
    |   `-- SessionNotFound
    |-- MethodNotAllowed
    |-- UpgradeRequired         a WebSocket was asked for as a page
    |-- SessionGone             deleted, expired or lost
    |-- Conflict
    |   |-- StepConflict        not at the step that the client believed
    |   |-- StepNotKept         a step of the past that is not, or no more, in the store
    |   |-- ModelChanged        the session's model is served with other weights now
    |   |-- IdempotencyConflict  an Idempotency-Key that came with another request
    |   `-- SequenceConflict    a frame number that does not follow the last
    |-- Unavailable             try again later
    |   |-- QueueFull
    |   |-- SessionsFull
    |   |-- OutOfMemory
    |   |-- ShuttingDown
    |   |-- StepTimedOut        the back end hangs
    |   |-- SessionMoved        another server has the session now
    |   `-- StoreFailed
    `-- InternalError           ours, not the client's
        |-- StepFailed
        `-- SessionDamaged      what the store has of the session is not what was written

`code` is stable and documented in docs/api.md; `status` is of HTTP, and `close_code` ends a WebSocket.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

LONGEST_TEXT = 4000
"""Characters of a text in a problem document, at most: what a client sent is not sent back in full."""


class EngramError(Exception):
    """An error for a client: `detail` says what is wrong; place, expected and got, where they apply, say where."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    unsettled: bool = False
    """Whether a session's state in memory may be another than its log leads to: it must be computed anew."""
    headers: ClassVar[Mapping[str, str]] = {}
    """Headers of the HTTP response that tells this error."""

    def __init__(
        self, detail: str, *, place: str | None = None, expected: str | None = None, got: str | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        named = {"place": place, "expected": expected, "got": got}
        self.more = {key: value for key, value in named.items() if value is not None} | more

    @property
    def close_code(self) -> int:
        """Return the WebSocket close code: 4000 + status for what the client did, the registered codes otherwise."""
        return {413: 1009, 500: 1011, 503: 1013}.get(self.status, 4000 + self.status)

    def problem(self) -> dict[str, Any]:
        """Return the error as a problem document (RFC 9457)."""
        known = {"type": "about:blank", "title": self.title, "status": self.status, "code": self.code}
        told = {"detail": self.detail} | self.more
        return known | {name: value[:LONGEST_TEXT] if isinstance(value, str) else value for name, value in told.items()}


class InvalidRequest(EngramError):
    code, status, title = "invalid_request", 422, "The request is not valid"


class MalformedBody(InvalidRequest):
    code, status, title = "malformed_body", 400, "The body cannot be decoded"


class InvalidInput(InvalidRequest):
    code, title = "invalid_input", "An input is not valid"


class UnknownName(InvalidRequest):
    code, title = "unknown_name", "The model has nothing of this name"


class InvalidSnapshot(InvalidRequest):
    code, title = "invalid_snapshot", "The snapshot cannot be used"


class NonFiniteOutput(InvalidRequest):
    code, title = "non_finite_output", "The model's numbers overflowed on this input"


class BodyTooLarge(EngramError):
    code, status, title = "body_too_large", 413, "The body is too large"


class UnsupportedEncoding(EngramError):
    code, status, title = "unsupported_encoding", 415, "The coding of the body is not taken"
    headers: ClassVar[Mapping[str, str]] = {"Accept-Encoding": "gzip, deflate"}


class NotFound(EngramError):
    code, status, title = "not_found", 404, "There is nothing here"


class ModelNotFound(NotFound):
    code, title = "model_not_found", "No such model"


class SessionNotFound(NotFound):
    code, title = "session_not_found", "No such session"


class MethodNotAllowed(EngramError):
    code, status, title = "method_not_allowed", 405, "The route has other methods"


class UpgradeRequired(EngramError):
    code, status, title = "upgrade_required", 426, "This is a WebSocket"
    headers: ClassVar[Mapping[str, str]] = {"Upgrade": "websocket"}


class SessionGone(EngramError):
    code, status, title = "session_gone", 410, "The session is gone"


class Conflict(EngramError):
    code, status, title = "conflict", 409, "The request does not fit what came before"


class StepConflict(Conflict):
    code, title = "step_conflict", "The session is at another step"


class StepNotKept(Conflict):
    code, title = "step_not_kept", "This step is not kept"


class ModelChanged(Conflict):
    code, title = "model_changed", "The model is served with other weights now"


class IdempotencyConflict(Conflict):
    code, title = "idempotency_conflict", "The key belongs to another request"


class SequenceConflict(Conflict):
    code, title = "sequence_conflict", "The frame does not follow the last one"


class Unavailable(EngramError):
    code, status, title = "unavailable", 503, "Not now"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class QueueFull(Unavailable):
    code, title = "queue_full", "Too much work is waiting"


class SessionsFull(Unavailable):
    code, title = "sessions_full", "Too many sessions are open"


class OutOfMemory(Unavailable):
    code, title = "out_of_memory", "There is not enough memory"


class ShuttingDown(Unavailable):
    code, title = "shutting_down", "The server is stopping"


class StepTimedOut(Unavailable):
    code, title = "step_timed_out", "The step takes too long"
    unsettled = True


class SessionMoved(Unavailable):
    code, title = "session_moved", "Another server has the session now"
    unsettled = True


class StoreFailed(Unavailable):
    code, title = "store_failed", "The sessions' store cannot be used"
    unsettled = True


class InternalError(EngramError):
    code, status, title = "internal_error", 500, "Something went wrong in the server"


class StepFailed(InternalError):
    code, title = "step_failed", "The step could not be computed"


class SessionDamaged(InternalError):
    code, title = "session_damaged", "What is kept of the session is damaged"


def unexpected_error() -> InternalError:
    """Return the error for what nobody expected; whoever tells it has written the details into the log."""
    return InternalError("an unexpected error; the server's log has the details")


def stopping() -> ShuttingDown:
    """Return the error for whoever comes while the server stops."""
    return ShuttingDown("the server is stopping; try again later")
