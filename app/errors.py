"""The errors that a client can receive, in one tree.
    EngramError
    |-- KeyRequired             the request names no key
    |   `-- InvalidKey          an unknown key, or a revoked one
    |-- InvalidRequest          the request cannot be understood
    |   |-- MalformedRequest    no HTTP/1.1
    |   |-- MalformedBody
    |   |-- InvalidInput        an input at a named place
    |   |-- SequenceUnknown     a request of the Open Inference Protocol goes on with a sequence that has not begun
    |   |-- UnknownName         the model has no trace or state leaf of this name
    |   |-- InvalidSnapshot     of another model, of another version, or damaged
    |   `-- NonFiniteOutput     the model's numbers overflowed on this input
    |-- InvalidHost             no Host header field, or several
    |-- HostRefused             a Host that is no name of the server
    |-- Forbidden
    |   |-- OriginRefused       a page of another origin
    |   `-- ScopeMissing        the key is for other requests
    |-- UnsupportedMediaType    the body has a Content-Type that the route does not take
    |-- TargetTooLong           of the request line
    |-- HeadersTooLarge         too many bytes or header fields
    |-- RequestTimeout          the client does not send its request
    |-- TooManyFrames           of a WebSocket, that carry nothing
    |-- BodyTooLarge
    |-- UnsupportedEncoding     the body has a content coding that is not supported
    |-- NotFound
    |   |-- ModelNotFound
    |   `-- SessionNotFound
    |-- MethodNotAllowed
    |-- UpgradeRequired         a plain request for a WebSocket
    |-- SessionGone             deleted, expired or lost
    |-- Conflict
    |   |-- StepConflict        the session is not at the step that the client expects
    |   |-- StepNotKept         a past step that is not, or no longer, in the store
    |   |-- ModelChanged        the session's model is served with other weights now
    |   |-- IdempotencyConflict  another request had this Idempotency-Key
    |   `-- SequenceConflict    a frame number that does not follow the last one
    |-- TooManyRequests         more than the key allows; try again later
    |   |-- RateLimited         its steps per second
    |   |-- TenantFull          open sessions of its tenant
    |   `-- StreamsFull         its open WebSockets
    |-- Unavailable             try again later
    |   |-- ConnectionsFull
    |   |-- FramesFull          of messages that are not whole
    |   |-- QueueFull
    |   |-- SessionsFull
    |   |-- AnswersFull         too many bytes of answers are in the making, or not read
    |   |-- UploadsFull         too many bytes of bodies are in the making
    |   |-- OutOfMemory
    |   |-- ShuttingDown
    |   |-- StepTimedOut        the back end hangs
    |   |-- SessionMoved        another server has claimed the session
    |   |-- SessionHeld         another server has the session, and does not hand it over now
    |   |-- LeaseLost           the server may no longer answer for sessions: others may have claimed them
    |   |-- ReloadFailed        the checkpoints are served as before
    |   `-- StoreFailed
    `-- InternalError           a fault of the server, not of the client
        |-- StepFailed
        `-- SessionDamaged      the store's data of the session are not as they were written

`code` is stable and documented in docs/errors.md; `status` is the HTTP status, and `close_code` that of a WebSocket.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

LONGEST_TEXT = 4000
"""Longest text in a problem document, in characters: a client's input is not sent back in full."""


SERVICE_RESTART = 1012
"""The WebSocket close code by which a client connects again, to whichever server then has the session."""


class EngramError(Exception):
    """An error for a client.

    detail: the whole message; place, expected, got: the same in parts, as far as they apply; more: further members of
    the problem document.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    in_doubt: bool = False
    """Whether a session's state in memory may differ from its log: it must be dropped, and computed again."""
    headers: Mapping[str, str] = {}
    """Headers of the HTTP response to this error."""

    def __init__(
        self, detail: str, *, place: str | None = None, expected: str | None = None, got: str | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        named = {"place": place, "expected": expected, "got": got}
        self.more = {key: value for key, value in named.items() if value is not None} | more

    @property
    def close_code(self) -> int:
        """The WebSocket close code: 4000 + status for an error of the client, else a registered code."""
        return {413: 1009, 500: 1011, 503: 1013}.get(self.status, 4000 + self.status)

    def problem(self) -> dict[str, Any]:
        """Return the error as a problem document (RFC 9457)."""
        known = {"type": "about:blank", "title": self.title, "status": self.status, "code": self.code}
        own = {"detail": self.detail} | self.more
        return known | {name: value[:LONGEST_TEXT] if isinstance(value, str) else value for name, value in own.items()}


class KeyRequired(EngramError):
    code, status, title = "key_required", 401, "A key is required"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class InvalidKey(KeyRequired):
    code, title = "invalid_key", "The key is not valid"


class InvalidRequest(EngramError):
    code, status, title = "invalid_request", 422, "The request is not valid"


class MalformedRequest(InvalidRequest):
    code, status, title = "malformed_request", 400, "The request is no HTTP/1.1"


class MalformedBody(InvalidRequest):
    code, status, title = "malformed_body", 400, "The body cannot be decoded"


class InvalidInput(InvalidRequest):
    code, title = "invalid_input", "An input is not valid"


class SequenceUnknown(InvalidRequest):
    code, status, title = "sequence_unknown", 400, "The sequence has not begun"


class UnknownName(InvalidRequest):
    code, title = "unknown_name", "The model has nothing of this name"


class InvalidSnapshot(InvalidRequest):
    code, title = "invalid_snapshot", "The snapshot cannot be used"


class NonFiniteOutput(InvalidRequest):
    code, title = "non_finite_output", "The model's numbers overflowed on this input"


class TargetTooLong(EngramError):
    code, status, title = "target_too_long", 414, "The URL is too long"


class HeadersTooLarge(EngramError):
    code, status, title = "headers_too_large", 431, "The header fields are too large"


class RequestTimeout(EngramError):
    code, status, title = "request_timeout", 408, "The request did not arrive in time"


class TooManyFrames(EngramError):
    code, status, title = "too_many_frames", 429, "Too many frames that carry nothing"

    @property
    def close_code(self) -> int:
        """The WebSocket close code for a client that breaks a rule of the server (RFC 6455, 7.4.1)."""
        return 1008


class BodyTooLarge(EngramError):
    code, status, title = "body_too_large", 413, "The body is too large"


class InvalidHost(EngramError):
    code, status, title = "invalid_host", 400, "The request has not one Host"


class HostRefused(EngramError):
    code, status, title = "host_refused", 421, "The server does not have this name"


class Forbidden(EngramError):
    code, status, title = "forbidden", 403, "The request is not allowed"


class OriginRefused(Forbidden):
    code, title = "origin_refused", "Pages of this origin may not use the server"


class ScopeMissing(Forbidden):
    code, title = "scope_missing", "The key is not for this request"


class UnsupportedMediaType(EngramError):
    code, status, title = "unsupported_media_type", 415, "The type of the body is not taken"


class UnsupportedEncoding(EngramError):
    code, status, title = "unsupported_encoding", 415, "The coding of the body is not taken"
    headers: Mapping[str, str] = {"Accept-Encoding": "gzip, deflate"}


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
    headers: Mapping[str, str] = {"Upgrade": "websocket"}


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


class TooManyRequests(EngramError):
    """retry_after: seconds until the same request may succeed: in the header, and for WebSockets in the document."""

    code, status, title = "too_many_requests", 429, "More than the key allows"

    def __init__(self, detail: str, *, retry_after: float = 1.0, **more: Any) -> None:
        seconds = max(1, math.ceil(retry_after))
        super().__init__(detail, retry_after=seconds, **more)
        self.headers = {"Retry-After": str(seconds)}


class RateLimited(TooManyRequests):
    code, title = "rate_limited", "Too many steps per second"


class TenantFull(TooManyRequests):
    code, title = "tenant_full", "The tenant has as many sessions as the key may open"


class StreamsFull(TooManyRequests):
    code, title = "streams_full", "Too many WebSockets of the key are open"


class Unavailable(EngramError):
    code, status, title = "unavailable", 503, "Not now"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class ConnectionsFull(Unavailable):
    code, title = "connections_full", "Too many connections are open"


class FramesFull(Unavailable):
    code, title = "frames_full", "Too many bytes of messages are not whole"


class QueueFull(Unavailable):
    code, title = "queue_full", "Too much work is waiting"


class SessionsFull(Unavailable):
    code, title = "sessions_full", "Too many sessions are open"


class AnswersFull(Unavailable):
    code, title = "answers_full", "Too many answers are in the making"


class UploadsFull(Unavailable):
    code, title = "uploads_full", "Too many bodies are on their way"


class OutOfMemory(Unavailable):
    code, title = "out_of_memory", "There is not enough memory"


class ShuttingDown(Unavailable):
    code, title = "shutting_down", "The server is stopping"


class StepTimedOut(Unavailable):
    code, title = "step_timed_out", "The step takes too long"
    in_doubt = True


class SessionMoved(Unavailable):
    code, title = "session_moved", "Another server has the session now"
    headers: Mapping[str, str] = {"Retry-After": "0"}
    in_doubt = True
    close_code = SERVICE_RESTART


class SessionHeld(Unavailable):
    code, title = "session_held", "Another server has the session, and keeps it for now"


class LeaseLost(Unavailable):
    code, title = "lease_lost", "The server may not answer for sessions now"
    close_code = SERVICE_RESTART


class ReloadFailed(Unavailable):
    code, title = "reload_failed", "The checkpoints could not be loaded again"


class StoreFailed(Unavailable):
    code, title = "store_failed", "The store cannot be used"
    in_doubt = True


class InternalError(EngramError):
    code, status, title = "internal_error", 500, "Something went wrong in the server"


class StepFailed(InternalError):
    code, title = "step_failed", "The step could not be computed"


class SessionDamaged(InternalError):
    code, title = "session_damaged", "What is kept of the session is damaged"


def unexpected_error() -> InternalError:
    """Return the error for an unexpected exception, which the caller has logged."""
    return InternalError("an unexpected error; the server's log has the details")


def stopping() -> ShuttingDown:
    """Return the error for requests while the server stops."""
    return ShuttingDown("the server is stopping; try again later")


def lease_lost(seconds: float) -> LeaseLost:
    """Return the error for requests while other servers may have claimed the sessions of this one.

    seconds: how long its lease lasts.
    """
    return LeaseLost(
        f"this server has had no answer of the store for {seconds:g} s (setting lease), so others may have claimed its "
        "sessions: try again"
    )
