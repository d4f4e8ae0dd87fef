"""Random messages to streams: good ones with something changed, in JSON and in msgpack."""

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import msgpack

ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, 1e38, 3.5e38, 1e308,
    5e-324, math.nan, math.inf, -math.inf, "", "0", "usage", "\0", "\U0001f600", "x" * 300, "x" * 5000, [], {}, [[]],
    [[[]]], [None], [[None]], [{}], {"shape": [1, 10], "data": ""}, {"a": {"b": {}}}, ["usage"] * 300, [0] * 3000,
)  # fmt: skip
"""Values that a key may not have, or at the edge of what it may have."""

KEYS = (
    "inputs",
    "seq",
    "trace",
    "dtype",
    "sessions",
    "seqs",
    "open",
    "model",
    "count",
    "memory_size",
    "shape",
    "data",
    "",
)

ARRAY_FAULTS: tuple[dict[str, Any], ...] = (
    {"shape": [1, 10]}, {"shape": [1, 10], "data": b""}, {"shape": [-1, -10], "data": bytes(40)},
    {"shape": [2**32, 2**32], "data": b""}, {"shape": [0, 10], "data": b""}, {"shape": [1, 0], "data": b""},
    {"shape": [], "data": bytes(4)}, {"shape": [1] * 70, "data": bytes(4)}, {"shape": [1, 10], "data": bytes(39)},
    {"shape": [1, 10], "data": b"\xff" * 40}, {"shape": [1, 10], "data": b"\x7f\x7f\xff\xff" * 10},
    {"shape": [1, 10], "data": bytes(20), "dtype": "float16"},
    {"shape": [1, 10], "data": bytes(20), "dtype": "int16"},
    {"shape": [1, 10], "data": bytes(20), "dtype": "int16", "scale": math.nan},
    {"shape": [1, 10], "data": b"\xff\x7f" * 10, "dtype": "int16", "scale": 3.4e38},
    {"shape": [1, 10], "data": bytes(40), "dtype": "O"}, {"shape": [True, 10], "data": bytes(40)},
    {"shape": [1.0, 10], "data": bytes(40)}, {"shape": [1, 10], "data": "0" * 40}, {"shape": 10, "data": bytes(40)},
    {"shape": [1, 1, 10], "data": bytes(40)}, {"shape": [10], "data": bytes(40)},
    {"shape": [1, 11], "data": bytes(44)},
)  # fmt: skip


def changed(chance: random.Random, document: dict[str, Any], odd: tuple[Any, ...]) -> dict[str, Any]:
    """Return a copy of a document with one to three changes: of a value, a key, or a list's length."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice([1, 1, 2, 3])):
        if document:
            _change(chance, chance.choice(_places(document)), odd)
    return document


def _places(value: Any) -> list[Any]:
    """Return all dictionaries and lists in a document that have items."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [place for item in items for place in _places(item)]
    return [value, *found] if isinstance(value, (dict, list)) and value else found


def _change(chance: random.Random, place: Any, odd: tuple[Any, ...]) -> None:
    key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
    act = chance.choice(["replace", "replace", "delete", "add", "repeat"])
    if act == "replace":
        place[key] = copy.deepcopy(chance.choice(odd))
    elif act == "delete":
        del place[key]
    elif isinstance(place, dict):
        place[chance.choice(KEYS)] = copy.deepcopy(chance.choice(odd))
    elif act == "add":
        place.insert(key, copy.deepcopy(chance.choice(odd)))
    else:
        place *= chance.choice([2, 3, 50])


def json_message(chance: random.Random, document: dict[str, Any]) -> bytes:
    """Return a message near to a good one, in JSON or almost."""
    if chance.random() < 0.6:
        return json.dumps(changed(chance, document, ODD)).encode()
    return chance.choice(TEXT_FAULTS)(chance, json.dumps(document)).encode("utf-8", "surrogatepass")


def _cut(chance: random.Random, text: str) -> str:
    return text[: chance.randrange(len(text))]


def _flip(chance: random.Random, text: str) -> str:
    place = chance.randrange(len(text))
    return text[:place] + chance.choice("\0\t\"'\\{}[],:0eE+-.nft\u00e9\u2028\uffff") + text[place + 1 :]


def _twice(chance: random.Random, text: str) -> str:
    return text[:-1] + chance.choice([", ", ","]) + text[1:]


def _deep(chance: random.Random, text: str) -> str:
    depth = chance.choice([100, 1100, 30_000])
    return (
        text.replace("[", "[" * depth, 1) if chance.random() < 0.5 else '{"inputs":' + "[" * depth + "]" * depth + "}"
    )


def _huge(chance: random.Random, text: str) -> str:
    number = chance.choice(
        ["1e400", "-1e400", "1" * 5000, "0." + "1" * 5000, "1e-400", "1E+38", "00", "0x1", "1_0", "-"]
    )
    return text.replace("0.0", number, 1)


def _dressed(chance: random.Random, text: str) -> str:
    return chance.choice(
        ["\ufeff" + text, text + "x", text + text, " " * 1000 + text, "//\n" + text, text + "\0", f"[{text}]"]
    )


def _escaped(chance: random.Random, text: str) -> str:
    return text.replace('"inputs"', chance.choice(['"\\ud800"', '"in\\u0070uts"', '"\\u0000"', '"inputs\\x"']), 1)


TEXT_FAULTS: tuple[Callable[[random.Random, str], str], ...] = (_cut, _flip, _twice, _deep, _huge, _dressed, _escaped)


def msgpack_message(chance: random.Random, document: dict[str, Any]) -> bytes:
    """Return a message near to a good one, in msgpack or almost."""
    odd = (*ODD, *ARRAY_FAULTS, b"", b"\0" * 40, msgpack.ExtType(5, b"x"), {1: 2}, {b"k": 1}, msgpack.Timestamp(1, 2))
    if chance.random() < 0.3:
        document = {**document, "inputs": copy.deepcopy(chance.choice(ARRAY_FAULTS))}
        return bytes(msgpack.packb(document))
    if chance.random() < 0.6:
        return bytes(msgpack.packb(changed(chance, document, odd)))
    return chance.choice(BYTE_FAULTS)(chance, bytes(msgpack.packb(document)))


def _cut_bytes(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _flip_bytes(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5])):
        changed[chance.randrange(len(changed))] = chance.choice([chance.randrange(256), 0xC1, 0xDD, 0xDF, 0xC6, 0xC9])
    return bytes(changed)


def _boasting(chance: random.Random, data: bytes) -> bytes:
    """Return bytes that announce far more items than come."""
    many = chance.choice([b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"]) + chance.choice(
        [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]
    )
    return many + data if chance.random() < 0.5 else b"\x81\xa6inputs" + many


def _deep_bytes(chance: random.Random, _: bytes) -> bytes:
    return b"\x81\xa6inputs" + chance.choice([b"\x91", b"\x81\xa1k"]) * chance.choice([100, 600, 2000, 30_000])


def _dressed_bytes(chance: random.Random, data: bytes) -> bytes:
    return chance.choice([data + b"\xc0", data + data, b"", b"\xc1", b"\x91" + data, data[:1] + data])


BYTE_FAULTS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _cut_bytes,
    _flip_bytes,
    _flip_bytes,
    _boasting,
    _deep_bytes,
    _dressed_bytes,
)
