"""Decompress bodies as they arrive (RFC 9110, 8.4), in pieces between which other tasks run."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from fastapi import Request

from app.api.inputs import brief
from app.errors import MalformedBody, UnsupportedEncoding

WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""The codings that are accepted, with the window bits of zlib; deflate is the format of RFC 1950, as in RFC 9110."""

PIECE_BYTES = 2**18
"""The most bytes that are decompressed at once."""

MAX_MEMBERS = 4096
"""The most members of a gzip body: even an empty one takes time."""


def content_encoding(request: Request) -> str | None:
    """Return the coding of a body, or None. Raises UnsupportedEncoding."""
    named = ",".join(request.headers.getlist("content-encoding"))
    codings = [word for word in named.lower().replace(" ", "").split(",") if word not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in WINDOW_BITS:
        raise UnsupportedEncoding(
            f"Content-Encoding: a body may be gzip, deflate or not compressed, got {brief(named)}",
            place="Content-Encoding",
            expected="gzip, deflate or none",
            got=brief(named),
        )
    return codings[0]


async def decompress(chunks: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """Yield the decompressed bytes of chunks, at most PIECE_BYTES at a time. Raises MalformedBody."""
    member, members = None, 0
    async for chunk in chunks:
        rest = chunk
        while rest:
            if member is None or member.eof:  # a gzip file is a series of members
                member, members = zlib.decompressobj(WINDOW_BITS[coding]), members + 1
            if members > MAX_MEMBERS:
                raise MalformedBody(f"the {coding} data have too many members", expected=f"at most {MAX_MEMBERS}")
            for piece in _pieces(member, rest, coding):
                yield piece
                await asyncio.sleep(0)
            rest = member.unused_data
    if member is not None and not member.eof:
        raise MalformedBody(f"the body ends before its {coding} data do", expected=f"whole {coding} data")


def _pieces(member: "zlib._Decompress", data: bytes, coding: str) -> Iterator[bytes]:
    """Yield the decompressed bytes of a member, up to its end. Raises MalformedBody."""
    while data and not member.eof:
        try:
            piece = member.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise MalformedBody(f"this is not {coding}: {error}", expected=f"{coding} data") from None
        data = member.unconsumed_tail
        yield piece
