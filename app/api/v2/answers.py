"""Answers to requests to infer: JSON, or JSON with tensors in binary behind it; compressed on request."""

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastapi import Response
from fastapi.responses import StreamingResponse

from app.api.answers import answer_numbers
from app.api.codec import PIECE_BYTES, array_bytes, encode_json, in_turns, json_pieces, slices
from app.api.encodings import WINDOW_BITS
from app.api.media import JSON, OCTETS
from app.api.v2.schemas import FP32
from app.api.v2.tensors import tensor_bytes
from app.backends.base import Array

JSON_BYTES = "Inference-Header-Content-Length"
"""The header field with the length of the JSON, where tensors stand behind it."""

CODINGS = ("gzip", "deflate")
"""The codings of answers, the preferred one first."""

COMPRESSED_FROM = 2**10
"""Bytes of numbers from which an answer is compressed."""

LEVEL = 1


class Answered(NamedTuple):
    """An output; binary: whether it stands behind the JSON."""

    name: str
    values: Array
    binary: bool


async def answer_outputs(document: dict[str, Any], outputs: Sequence[Answered], accept: str) -> Response:
    """Return the answer to a request; document: all but its outputs. accept: the header field Accept-Encoding."""
    whole = document | {"outputs": [_described(output) for output in outputs]}
    raw = [tensor_bytes(output.values) for output in outputs if output.binary]
    is_binary = any(output.binary for output in outputs)
    head = encode_json(whole) if is_binary else b""
    headers = {JSON_BYTES: str(len(head))} if is_binary else {}
    media = OCTETS if is_binary else JSON
    coding = _coding(accept)
    if coding is not None and array_bytes([output.values for output in outputs]) >= COMPRESSED_FROM:
        pieces = [head, *raw] if is_binary else json_pieces(whole)
        body = await asyncio.to_thread(_compressed, pieces, coding)
        return _sent(body, headers | {"Content-Encoding": coding}, media)
    return _sent(b"".join([head, *raw]), headers, media) if is_binary else answer_numbers(whole)


def _described(output: Answered) -> dict[str, Any]:
    name, values, binary = output
    described = {"name": name, "datatype": FP32, "shape": values.shape}
    if binary:
        return described | {"parameters": {"binary_data_size": values.nbytes}}
    return described | {"data": values.reshape(-1)}


def _sent(body: bytes, headers: dict[str, str], media: str) -> Response:
    """Return a response, sent in pieces if it is large."""
    if len(body) <= PIECE_BYTES:
        return Response(body, headers=headers, media_type=media)
    headers = headers | {"Content-Length": str(len(body))}
    return StreamingResponse(in_turns(slices(body)), headers=headers, media_type=media)


def _coding(accept: str) -> str | None:
    """Return the coding of an answer, None for none."""
    accepted = set()
    for part in accept.lower().split(","):
        name, _, weight = part.replace(" ", "").partition(";q=")
        if weight.strip("0.") or not weight:
            accepted.add(name)
    return next((coding for coding in CODINGS if coding in accepted), None)


def _compressed(pieces: Iterable[bytes], coding: str) -> bytes:
    packer = zlib.compressobj(LEVEL, wbits=WINDOW_BITS[coding])
    return b"".join([*map(packer.compress, pieces), packer.flush()])
