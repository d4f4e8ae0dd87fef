"""Dependencies of the routes, as annotated types.

All of them are coroutines: FastAPI runs other functions in threads, one after the other, for each request.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from fastapi.requests import HTTPConnection
from starlette.requests import ClientDisconnect

from app.api.decoders import Decoders
from app.api.encodings import content_encoding, decompress
from app.catalogue import ModelCatalogue
from app.errors import BodyTooLarge
from app.metrics import Metrics
from app.sessions import SessionService
from app.settings import Settings

T = TypeVar("T")


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


async def _decoders(connection: HTTPConnection) -> Decoders:
    decoders: Decoders = connection.app.state.decoders
    return decoders


TheSettings = Annotated[Settings, Depends(_settings)]
TheModels = Annotated[ModelCatalogue, Depends(_models)]
TheSessions = Annotated[SessionService, Depends(_sessions)]
TheMetrics = Annotated[Metrics, Depends(_metrics)]
TheDecoders = Annotated[Decoders, Depends(_decoders)]


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body and decompress it, never more of it than the limit.

    Raises BodyTooLarge, UnsupportedEncoding, or MalformedBody where it is not what its Content-Encoding says.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > limit:
        raise too_large(int(announced), limit)
    coding = content_encoding(request)
    chunks = _at_most(request.stream(), limit)
    if coding is not None:
        chunks = _at_most(decompress(chunks, coding), limit)
    return b"".join([chunk async for chunk in chunks])


async def _at_most(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Pass on chunks of at most so many bytes in all. Raises BodyTooLarge."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise too_large(size, limit)
        yield chunk


async def _body(request: Request, settings: TheSettings) -> bytes:
    return await read_body(request, settings.max_body_bytes)


Body = Annotated[bytes, Depends(_body)]
"""The body of a request. Raises BodyTooLarge."""


def too_large(size: int, limit: int) -> BodyTooLarge:
    """Return the error for a body or a frame over the limit."""
    return BodyTooLarge(
        f"{size} bytes came, but at most {limit} are taken (setting max_body_bytes): send fewer steps at a time",
        expected=f"at most {limit} bytes",
        got=f"{size} bytes",
    )


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Return what `work` gives, but cancel it when the client goes away meanwhile."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
