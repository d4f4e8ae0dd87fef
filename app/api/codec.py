"""Documents on the wire: JSON, or msgpack with raw arrays.

In msgpack an array is {"shape": [T, I], "data": bytes}, the bytes float32, little-endian, row by row. With "dtype":
"float16" or "int16" they are of that dtype; int16 may have a "scale", by which the numbers are multiplied. Nested
lists are also accepted.
"""

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import orjson

from app.api.inputs import brief
from app.backends.base import Array
from app.errors import InvalidRequest, MalformedBody
from app.sessions.dtypes import LARGEST_SCALE, SMALLEST_SCALE, WIRE, Form, widened

JSON_PROTOCOL = "engram.json"
MSGPACK_PROTOCOL = "engram.msgpack"

ARRAY_KEYS = {"shape", "data"}

FLOAT16_MAX = float(np.finfo(np.float16).max)

SHORTEST_STEP, SHORTEST_PACKED_STEP = 4, 2
"""Bytes of the shortest list that a request may have many of, a step of one number: `[0],`, and in msgpack."""

MANY = 2**16
"""Lists beside those of steps, and objects, that a request may have; one of fewer bytes need not be counted."""

SAFE_DIGITS = 19
"""A whole number with fewer characters fits in 64 bits."""

MAX_AXES = 8
"""The most axes of an array in msgpack; inputs have two."""

PIECE_BYTES = 2**17
"""Bytes of numbers that are encoded as JSON at once: one or two milliseconds of work."""


NO_BYTES = b"\xc4\x00"
"""Empty bytes in msgpack; \xc6 and four bytes of length begin long ones."""

REST_SECONDS = 0.001
"""Pause of the event loop between two pieces of work. Without it, the loop takes the interpreter's lock again before a
thread that waits for the lock, such as an engine's, can wake."""


def decode_json(data: bytes | str) -> dict[str, Any]:
    """Return the JSON object in `data`. Raises MalformedBody.

    NaN and Infinity are not JSON, but many clients write them, and integers may be too large for any type: these are
    decoded as floats, so that the refusal names their place.
    """
    if len(data) > MANY:
        text = data if isinstance(data, bytes) else data.encode(errors="replace")
        _check_count("lists", text.count(b"["), len(text) // SHORTEST_STEP)
        _check_count("objects", text.count(b"{"), 0)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            value = json.loads(data, parse_int=_whole)
            orjson.dumps(value)
        except (ValueError, TypeError, RecursionError):
            raise MalformedBody(f"this is not JSON: {error}", expected="a JSON object") from None
    return value if type(value) is dict else _object(value)


def encode_json(document: Any) -> bytes:
    """Return a document, with arrays anywhere in it, as JSON."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)


def json_pieces(document: Any) -> Iterator[bytes]:
    """Yield the bytes of encode_json in pieces of about PIECE_BYTES."""
    return _pieces(_json_parts(document))


def msgpack_pieces(document: Any) -> Iterator[bytes]:
    """Yield the bytes of encode_msgpack in pieces of about PIECE_BYTES."""
    return _pieces(_msgpack_parts(document))


def slices(data: bytes | memoryview) -> Iterator[bytes]:
    """Yield a file in pieces of PIECE_BYTES."""
    return (bytes(data[start : start + PIECE_BYTES]) for start in range(0, len(data), PIECE_BYTES))


async def in_turns(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces, between which other tasks and threads run."""
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(REST_SECONDS)
        yield piece


def array_bytes(document: Any) -> int:
    """Return the bytes of the arrays in a document of dicts and lists."""
    if isinstance(document, np.ndarray):
        return document.nbytes
    items = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return sum([array_bytes(item) for item in items if isinstance(item, (np.ndarray, dict, list))])


def decode_msgpack(data: bytes) -> dict[str, Any]:
    """Return the msgpack map in `data`, its arrays as NumPy arrays. Raises MalformedBody."""
    try:
        hooks = _counting(len(data)) if len(data) > MANY else {"object_hook": _array}
        value = msgpack.unpackb(data, ext_hook=_refuse_extension, **hooks)
    except MalformedBody:
        raise
    except Exception as error:  # msgpack raises ValueError and several classes of its own
        reason = str(error) or type(error).__name__
        raise MalformedBody(f"this is not msgpack: {reason}", expected="a msgpack map") from None
    return _object(value)


def encode_msgpack(document: Any) -> bytes:
    """Return a document, with arrays anywhere in it, as msgpack."""
    packed: bytes = msgpack.packb(document, default=_raw)
    return packed


def check_dtype(dtype: str, protocol: str) -> None:
    """Raise InvalidRequest if the answer of a protocol cannot have arrays of this dtype."""
    if dtype != "float32" and protocol != MSGPACK_PROTOCOL:
        raise InvalidRequest(
            f"dtype: {dtype} arrays are in msgpack only, but the answer to this request is JSON: ask in msgpack, or "
            "leave out dtype",
            place="dtype",
            expected="float32",
            got=dtype,
        )


def in_dtype(value: Any, dtype: str) -> Any:
    """Return a document with its arrays, float32, in the requested dtype: float32 or float16.

    An array with a number beyond float16, 65504, stays float32.
    """
    if dtype == "float32":
        return value
    if isinstance(value, np.ndarray):
        return value.astype(np.float16) if np.abs(value).max(initial=0) <= FLOAT16_MAX else value
    if isinstance(value, dict):
        return {key: in_dtype(item, dtype) for key, item in value.items()}
    return [in_dtype(item, dtype) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Codec:
    """The encoding of the frames of a WebSocket; `protocol` is the subprotocol that chooses it."""

    protocol: str
    binary: bool
    decode: Callable[[Any], dict[str, Any]]
    encode: Callable[[Any], bytes]
    pieces: Callable[[Any], Iterator[bytes]]


CODECS = {
    JSON_PROTOCOL: Codec(JSON_PROTOCOL, binary=False, decode=decode_json, encode=encode_json, pieces=json_pieces),
    MSGPACK_PROTOCOL: Codec(
        MSGPACK_PROTOCOL, binary=True, decode=decode_msgpack, encode=encode_msgpack, pieces=msgpack_pieces
    ),
}


def _whole(digits: str) -> int | float:
    """Return a whole number of JSON, as a float if it may be too large for any type."""
    return int(digits) if len(digits) < SAFE_DIGITS else float(digits)


def _check_count(what: str, count: int, most: int) -> None:
    """Raise MalformedBody for more lists or objects than a request has: each takes much more memory than its bytes."""
    if count > most + MANY:
        raise MalformedBody(
            f"there are {count} {what}, which no request of this length has", expected=f"at most {most + MANY} {what}"
        )


def _counting(size: int) -> dict[str, Any]:
    """Return hooks for msgpack that raise MalformedBody as soon as there are too many lists or maps."""
    lists, maps = itertools.count(1), itertools.count(1)

    def take_list(value: list[Any]) -> list[Any]:
        _check_count("lists", next(lists), size // SHORTEST_PACKED_STEP)
        return value

    def take_map(value: dict[Any, Any]) -> Any:
        _check_count("maps", next(maps), 0)
        return _array(value)

    return {"list_hook": take_list, "object_hook": take_map}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedBody(f"expected an object, got {type(value).__name__}", expected="an object")
    if not {str}.issuperset(map(type, value)):
        raise MalformedBody("the keys of an object must be text", expected="an object with keys of text")
    return value


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield parts, joined to pieces of about PIECE_BYTES."""
    piece = bytearray()
    for part in parts:
        piece += part
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _msgpack_parts(value: Any) -> Iterator[bytes]:
    """Yield a value as msgpack, in parts of at most PIECE_BYTES of numbers."""
    packer = msgpack.Packer()
    if array_bytes(value) <= PIECE_BYTES:
        yield encode_msgpack(value)
    elif isinstance(value, dict):
        yield packer.pack_map_header(len(value))
        for key, item in value.items():
            yield packer.pack(key)
            yield from _msgpack_parts(item)
    elif isinstance(value, np.ndarray):
        half = {"dtype": "float16"} if value.dtype == np.float16 else {}
        head = packer.pack({"shape": value.shape, **half, "data": b""})
        yield head.removesuffix(NO_BYTES) + b"\xc6" + value.nbytes.to_bytes(4, "big")
        yield from slices(np.ascontiguousarray(value, "<f2" if half else "<f4").reshape(-1).view(np.uint8).data)
    else:
        yield packer.pack_array_header(len(value))
        for item in value:
            yield from _msgpack_parts(item)


def _json_parts(value: Any) -> Iterator[bytes]:
    """Yield a value as JSON, in parts of at most PIECE_BYTES of numbers."""
    if array_bytes(value) <= PIECE_BYTES:
        yield encode_json(value)
    elif isinstance(value, dict):
        yield from _separated(
            b"{}", (itertools.chain((orjson.dumps(key), b":"), _json_parts(item)) for key, item in value.items())
        )
    elif isinstance(value, np.ndarray) and value[0].nbytes <= PIECE_BYTES:
        rows = PIECE_BYTES // value[0].nbytes
        groups = (value[start : start + rows] for start in range(0, len(value), rows))
        yield from _separated(b"[]", ((encode_json(group)[1:-1],) for group in groups))
    else:
        yield from _separated(b"[]", map(_json_parts, value))


def _separated(brackets: bytes, items: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield items, each in parts, with commas between them and brackets around them."""
    yield brackets[:1]
    for number, parts in enumerate(items):
        if number:
            yield b","
        yield from parts
    yield brackets[1:]


def _plain(value: Any) -> Any:
    """Return an array that orjson refuses as one that it takes: contiguous; or as a number, if it has no axes."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value) if value.ndim else value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _raw(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} cannot be written as msgpack")
    if value.dtype == np.float16:
        return {"shape": value.shape, "dtype": "float16", "data": np.ascontiguousarray(value, "<f2").tobytes()}
    return {"shape": value.shape, "data": np.ascontiguousarray(value, "<f4").tobytes()}


def _refuse_extension(code: int, _: bytes) -> Any:
    raise MalformedBody(
        f"msgpack extension type {code} is not supported", expected="a msgpack map without extension types"
    )


def _array(value: dict[Any, Any]) -> Any:
    if value.keys() == ARRAY_KEYS:
        return _numbers(value["shape"], value["data"], "float32")
    if not ARRAY_KEYS <= value.keys() <= ARRAY_KEYS | {"dtype", "scale"}:
        return value
    form = _form(value)
    numbers = _numbers(value["shape"], value["data"], form.dtype)
    return numbers if form.dtype == "float32" else widened(numbers, form)


def _form(value: dict[Any, Any]) -> Form:
    """Return the form of an array that names a dtype or a scale. Raises MalformedBody."""
    dtype, scale = value.get("dtype", "float32"), value.get("scale", 1.0)
    if type(dtype) is not str or dtype not in WIRE:
        raise _malformed("dtype", "float32, float16 or int16", dtype)
    if "scale" not in value:
        return Form(dtype)
    if dtype != "int16":
        raise _malformed("scale", f"no scale, which only int16 may have, beside {dtype}", scale)
    if type(scale) not in (int, float) or not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise _malformed("scale", f"a number from {SMALLEST_SCALE:.4g} to {LARGEST_SCALE:.4g}", scale)
    return Form(dtype, float(scale))


def _malformed(key: str, expected: str, got: Any) -> MalformedBody:
    shown = brief(got)
    return MalformedBody(
        f"{key} of an array: expected {expected}, got {shown}", place=key, expected=expected, got=shown
    )


def _numbers(shape: Any, data: Any, dtype: str) -> Array:
    """Return an array of a dtype of WIRE. Raises MalformedBody."""
    kind = WIRE[dtype]
    if not isinstance(data, bytes) or not isinstance(shape, list):
        raise MalformedBody('an array must be {"shape": [sizes], "data": bytes}', expected="sizes and bytes")
    if len(shape) > MAX_AXES or not all(type(size) is int for size in shape):
        raise MalformedBody(
            f"the shape of an array must be at most {MAX_AXES} sizes", expected=f"at most {MAX_AXES} sizes"
        )
    size = int(kind[-1])
    if not shape or min(shape) < 0 or size * math.prod(shape) != len(data):
        raise MalformedBody(
            f"an array of {dtype} and of shape {shape} has {len(data)} bytes of data",
            expected=f"{size} bytes for each number",
        )
    array: Array = np.frombuffer(data, kind).reshape(shape)
    return array
