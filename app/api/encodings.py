"""Bodies that come compressed (RFC 9110, 8.4): decompressed as they arrive, in pieces between which other tasks run."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from fastapi import Request

from app.api.inputs import brief
from app.errors import MalformedBody, UnsupportedEncoding

WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""How zlib is told of the codings that are taken; deflate is the format of RFC 1950, as RFC 9110 has it."""

PIECE_BYTES = 2**18
"""Decompressed at once, at most."""

MAX_MEMBERS = 4096
"""Members of one gzip body, each of which costs time however little it holds."""


def content_encoding(request: Request) -> str | None:
    """Return the coding of a body, None where it came as it is. Raises UnsupportedEncoding."""
    named = ",".join(request.headers.getlist("content-encoding"))
    codings = [word for word in named.lower().replace(" ", "").split(",") if word not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in WINDOW_BITS:
        raise UnsupportedEncoding(
            f"Content-Encoding: a body may come as gzip or deflate, or as it is, but not as {brief(named)}",
            place="Content-Encoding",
            expected="gzip, deflate or none",
            got=brief(named),
        )
    return codings[0]


async def decompress(chunks: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """Yield what chunks of this coding hold, at most PIECE_BYTES at a time. Raises MalformedBody."""
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
    """Yield what the member makes of the data, up to its end."""
    while data and not member.eof:
        try:
            piece = member.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise MalformedBody(f"this is not {coding}: {error}", expected=f"{coding} data") from None
        data = member.unconsumed_tail
        yield piece
