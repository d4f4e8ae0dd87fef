"""The gate: every request and every WebSocket passes it before any route.

    Host        a name of this server, once                       400 invalid_host, 421 host_refused
    Origin      of WebSockets and unsafe methods: the server's    403 origin_refused
    key         where keys are required, one that is valid        401 key_required, invalid_key
    scope       of the key, for the path                          403 scope_missing
    path        without control characters                        404 not_found
    body        of a media type that the path takes               415 unsupported_media_type

A request that is answered at once (`app.api.at_once`) passes `Admission.at_once` instead, which sends all but the usual
ones here.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.hosts import Hosts
from app.access.keyring import Keyring
from app.access.keys import Caller
from app.api.media import JSON, MSGPACK, OCTETS, SAFETENSORS, Headers, media_type
from app.api.problems import is_v2, problem_response
from app.errors import EngramError, NotFound, ScopeMissing, UnsupportedMediaType

SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
"""Methods that change nothing."""

PUBLIC = frozenset(
    ("/", "/learn", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
)
"""Paths that need no key; so do the files of the pages."""

STATIC = "/static/"

CONTROL = re.compile("[\x00-\x1f\x7f]")

ANY_SCOPE = ""

SCOPES = (
    ("/models", ANY_SCOPE),
    ("/infer", "infer"),
    ("/sessions", "sessions"),
    ("/steps", "sessions"),
    ("/stream", "sessions"),
    ("/streams", "sessions"),
    ("/metrics", "admin"),
    ("/admin", "admin"),
)
"""The scope that a path needs, and all paths below it. Any other path needs a key."""

V2_STATISTICS = re.compile("/v2/models/(.+/)?stats")
"""The paths under /v2 that need the scope admin. A request to infer there needs one that its body decides."""

MEDIA_TYPES = {"/sessions": (JSON, SAFETENSORS), "/steps": (JSON, MSGPACK)}
"""The media types of bodies, for paths that take others than JSON."""

V2_MEDIA_TYPES = (JSON, OCTETS, "")
"""The media types of bodies under /v2: clients name none, or octets for tensors in binary."""

BEARER = "engram.bearer."
"""The beginning of the WebSocket subprotocol that carries a key: a page can set no header field of a WebSocket."""


class Gate:
    """Admits requests and WebSockets; puts the caller, a `Caller`, into the scope as `caller`.

    A public path has a caller too, None if the request has no valid key where one is required.
    """

    def __init__(self, app: ASGIApp, admission: "Admission") -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            scope["caller"] = self._admission.admit(scope)
        except EngramError as error:
            await _refuse(error, scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Admission(NamedTuple):
    """The checks of the gate."""

    hosts: Hosts
    keyring: Keyring

    def admit(self, scope: Scope) -> Caller | None:
        """Return the caller of a request. Raises the error that refuses it."""
        headers, path = scope["headers"], scope["path"]
        hosts = [value for name, value in headers if name == b"host"]
        server = scope.get("server")
        self.hosts.check(hosts, server[0] if server else None)
        is_safe = scope["type"] == "http" and scope["method"] in SAFE
        if not is_safe:
            self.hosts.check_origin([value for name, value in headers if name == b"origin"], hosts[0])
        if path in PUBLIC or path.startswith(STATIC):
            return self._caller_if_valid(scope)
        caller = self._caller(scope)
        _check_path(path)
        check_scope(caller, scope_of(path), path)
        if not is_safe and scope["type"] == "http":
            _check_media_type(headers, path)
        return caller

    def at_once(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | None:
        """Return the caller of a usual request with a JSON body; None: it is to pass the gate.

        A request that repeats any header field is not usual: which of its keys or media types counts is for the gate.
        """
        fields = dict(headers)
        if len(fields) != len(headers) or b"origin" in fields or fields.get(b"content-type") != b"application/json":
            return None
        host = fields.get(b"host")
        if host is None or not self.hosts.accepts(host):
            return None
        try:
            return self.keyring.caller(_bearer(fields.get(b"authorization")))
        except EngramError:
            return None

    def _caller_if_valid(self, scope: Scope) -> Caller | None:
        try:
            return self._caller(scope)
        except EngramError:
            return None

    def _caller(self, scope: Scope) -> Caller:
        """Return the caller of a request. Raises KeyRequired, InvalidKey, StoreFailed."""
        offered = _take_offered(scope) if scope["type"] == "websocket" else None
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        return self.keyring.caller(offered or _bearer(sent[0] if len(sent) == 1 else None))


def cross_origin(origins: Sequence[str]) -> dict[str, Any]:
    """Return the options of CORSMiddleware for pages of these origins."""
    return {
        "allow_origins": [origin.lower() for origin in origins],
        "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
        "allow_headers": [
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "Inference-Header-Content-Length",
            "X-Request-ID",
        ],
        "expose_headers": ["Inference-Header-Content-Length", "Location", "Retry-After", "X-Request-ID"],
    }


def scope_of(path: str) -> str:
    """Return the scope that a path needs: the name of one, or ANY_SCOPE."""
    if V2_STATISTICS.fullmatch(path):
        return "admin"
    return next((scope for start, scope in SCOPES if path == start or path.startswith(f"{start}/")), ANY_SCOPE)


def _bearer(authorization: bytes | None) -> bytes | None:
    """Return the key in the header field Authorization, None for none."""
    scheme, _, key = (authorization or b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def _take_offered(scope: Scope) -> bytes | None:
    """Take the subprotocol that carries a key out of those that are offered, and return the key."""
    offers = scope["subprotocols"]
    keys = [offer for offer in offers if offer.startswith(BEARER)]
    scope["subprotocols"] = [offer for offer in offers if offer not in keys]
    return keys[0].removeprefix(BEARER).encode("latin-1") if len(keys) == 1 else None


def _check_path(path: str) -> None:
    """Raise NotFound for a path with control characters: routes also take theirs with a newline behind it."""
    if CONTROL.search(path):
        raise NotFound(f"{path!r}: no path has control characters; GET /docs lists what there is")


def check_scope(caller: Caller, needed: str, path: str) -> None:
    """Raise ScopeMissing for a caller whose key lacks the scope that a request to a path needs."""
    if needed != ANY_SCOPE and needed not in caller.scopes:
        raise ScopeMissing(
            f"the key has the scopes {', '.join(sorted(caller.scopes))}, but {path} needs {needed}",
            place="Authorization",
            expected=f"a key with the scope {needed}",
            got=", ".join(sorted(caller.scopes)),
        )


def _check_media_type(headers: Headers, path: str) -> None:
    """Raise UnsupportedMediaType for a body of another type than the path takes."""
    if not any(_is_of_body(name, value) for name, value in headers):
        return
    allowed, got = V2_MEDIA_TYPES if is_v2(path) else MEDIA_TYPES.get(path, (JSON,)), media_type(headers)
    if got not in allowed:
        expected = " or ".join(filter(None, allowed))
        raise UnsupportedMediaType(
            f"Content-Type: the body of {path} must be {expected}, got {got or 'none'}; with curl: -H 'Content-Type: "
            f"{allowed[0]}', or --json",
            place="Content-Type",
            expected=expected,
            got=got or "none",
        )


def _is_of_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")


async def _refuse(error: EngramError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or a WebSocket's handshake, with an error."""
    response = problem_response(error)
    error.__traceback__ = None
    await response(scope, receive, send)  # starlette sends it as a denial of the handshake
