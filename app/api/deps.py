"""Dependencies of the routes, as annotated types.

All of them are coroutines: FastAPI runs other functions in threads, one after the other, for each request.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, NamedTuple

from fastapi import Depends, Header, Path, Request
from fastapi.requests import HTTPConnection
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.access.keys import Caller
from app.api.decoders import Decoders
from app.api.encodings import content_encoding, decompress
from app.api.leases import hold
from app.api.schemas import EXAMPLE_MODEL
from app.api.uploads import Uploads
from app.budget import Budget, Budgets
from app.catalogue import ModelCatalogue, Reloaded
from app.errors import BodyTooLarge
from app.metrics import Metrics
from app.sessions.service import SessionService
from app.settings import Settings
from app.tenants import Tenant, inside

Reload = Callable[[], Awaitable[Reloaded]]
"""Loads the checkpoints again. Raises ReloadFailed, after which everything is as before."""

LENGTH_DIGITS = 20
"""Digits of a Content-Length that count: `int` refuses thousands of leading zeros."""

FREE_BYTES = 2**16
"""Bytes of each body that are not counted: about what the server has read of it before it asks for more."""


async def _settings(connection: HTTPConnection) -> Settings:
    settings: Settings = connection.app.state.settings
    return settings


async def _models(connection: HTTPConnection) -> ModelCatalogue:
    models: ModelCatalogue = connection.app.state.models
    return models


async def _sessions(connection: HTTPConnection) -> SessionService:
    sessions: SessionService = connection.app.state.sessions
    return sessions


async def _metrics(connection: HTTPConnection) -> Metrics:
    metrics: Metrics = connection.app.state.metrics
    return metrics


async def _reload(connection: HTTPConnection) -> Reload:
    reload: Reload = connection.app.state.reloader.reload
    return reload


async def _may_see_all(connection: HTTPConnection) -> bool:
    return connection.scope["caller"] is not None


async def _is_draining(connection: HTTPConnection) -> bool:
    draining: bool = connection.app.state.draining
    return draining


async def _decoders(connection: HTTPConnection) -> Decoders:
    decoders: Decoders = connection.app.state.decoders
    return decoders


async def _budgets(connection: HTTPConnection) -> Budgets:
    budgets: Budgets = connection.app.state.budgets
    return budgets


async def _uploads(connection: HTTPConnection) -> Uploads:
    uploads: Uploads = connection.app.state.uploads
    return uploads


async def _caller(connection: HTTPConnection) -> Caller:
    return caller_of(connection)


async def _session_name(connection: HTTPConnection, session: Annotated[str, Path()]) -> str:
    return inside(caller_of(connection).tenant, session)


def caller_of(connection: HTTPConnection) -> Caller:
    """Return the caller of a request that the gate admitted."""
    caller: Caller = connection.scope["caller"]
    return caller


def tenant_of_caller(caller: Caller) -> Tenant:
    """Return the tenant of a caller, with its limit."""
    return Tenant(caller.tenant, caller.limits.max_sessions)


TheSettings = Annotated[Settings, Depends(_settings)]
TheModels = Annotated[ModelCatalogue, Depends(_models)]
TheSessions = Annotated[SessionService, Depends(_sessions)]
TheMetrics = Annotated[Metrics, Depends(_metrics)]
TheDecoders = Annotated[Decoders, Depends(_decoders)]
TheCaller = Annotated[Caller, Depends(_caller)]
TheBudgets = Annotated[Budgets, Depends(_budgets)]
TheUploads = Annotated[Uploads, Depends(_uploads)]
TheReload = Annotated[Reload, Depends(_reload)]

ModelName = Annotated[str, Path(examples=[EXAMPLE_MODEL])]
"""The name of the model in the path."""

SessionName = Annotated[str, Depends(_session_name)]
"""The name inside the server of the session in the path, which is one of the caller's tenant."""

IsDraining = Annotated[bool, Depends(_is_draining)]
"""Whether the server is about to stop, and still answers."""

MaySeeAll = Annotated[bool, Depends(_may_see_all)]
"""Whether the caller has a valid key, or none is needed: a public route then answers in full."""

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="the same key opens one session, however often it comes"),
]


class Services(NamedTuple):
    """The services for a hot route, which has no dependencies."""

    models: ModelCatalogue
    sessions: SessionService
    settings: Settings
    decoders: Decoders
    caller: Caller
    budgets: Budgets


def services(request: Request) -> Services:
    """Return the services of the server that received a request."""
    state = request.scope["app"].state
    return Services(state.models, state.sessions, state.settings, state.decoders, caller_of(request), state.budgets)


async def read_body(request: Request, limit: int, uploads: Budget) -> bytes:
    """Return the decompressed body, of which never more than the limit is read.

    Raises BodyTooLarge, UnsupportedEncoding, UploadsFull, MalformedBody if it is not of its Content-Encoding, and the
    error of the caller's key if it is valid no more.
    """
    return b"".join([chunk async for chunk in body_chunks(request, limit, uploads)])


async def body_chunks(request: Request, limit: int, uploads: Budget) -> AsyncIterator[bytes]:
    """Yield the decompressed body as it arrives, all over FREE_BYTES held of the budget. Raises as `read_body` does."""
    caller = caller_of(request)
    headers = dict(request.scope["headers"])
    announced = headers.get(b"content-length", b"")
    size = int(announced[-LENGTH_DIGITS:]) if announced.isdigit() else 0
    if size > limit:
        raise too_large(size, limit)
    coding = content_encoding(request) if b"content-encoding" in headers else None
    chunks = _at_most(_arriving(request.receive), limit)
    if coding is not None:
        chunks = _at_most(decompress(chunks, coding), limit)
    lease, free = hold(request, uploads), FREE_BYTES
    async for chunk in chunks:
        caller.check()  # a body may take hours
        lease.grow(max(0, len(chunk) - free))
        free = max(0, free - len(chunk))
        yield chunk


async def _arriving(receive: Receive) -> AsyncIterator[bytes]:
    """Yield a body as it arrives. Raises ClientDisconnect."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _at_most(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Yield chunks of at most `limit` bytes in total. Raises BodyTooLarge."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise too_large(size, limit)
        yield chunk


async def _body(request: Request, settings: TheSettings, budgets: TheBudgets) -> bytes:
    return await read_body(request, settings.max_body_bytes, budgets.uploads)


Body = Annotated[bytes, Depends(_body)]
"""The body of a request. Raises BodyTooLarge."""


def too_large(size: int, limit: int) -> BodyTooLarge:
    """Return the error for a body or a frame over the limit."""
    return BodyTooLarge(
        f"{size} bytes came, but at most {limit} are accepted (setting max_body_bytes): send fewer steps at a time",
        expected=f"at most {limit} bytes",
        got=f"{size} bytes",
    )
