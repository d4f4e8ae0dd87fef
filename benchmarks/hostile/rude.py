"""Rude clients: each act opens a connection, does what an honest client does not, and drops it."""

import json
import random
import socket
import struct
from collections.abc import Callable
from contextlib import closing

from benchmarks.hostile.wire import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    TIMEOUT,
    Wire,
    handshake,
    masked,
    read_frame,
    read_reply,
)

Act = Callable[[str, str, random.Random], None]

LARGE = 9 * 2**20
"""Bytes of a body that is over max_body_bytes."""


def _post(address: str, path: str, body: bytes, length: int | None = None) -> bytes:
    """Return a request whose Content-Length may be wrong."""
    fields = f"Host: {address}\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body


def half_a_head(address: str, _: str, chance: random.Random) -> None:
    with Wire(address) as wire:
        head = _post(address, "/infer", b"{}")
        wire.send(head[: chance.randrange(1, len(head) - 4)])


def half_a_body(address: str, _: str, chance: random.Random) -> None:
    with Wire(address) as wire:
        wire.send(_post(address, chance.choice(["/infer", "/sessions", "/steps"]), b'{"model": "', 1000))


def garbage_in_a_body(address: str, model: str, chance: random.Random) -> None:
    with Wire(address) as wire:
        wire.send(_post(address, "/infer", json.dumps({"model": model, "inputs": [[1e39] * 3]}).encode()))
        read_reply(wire)
        wire.send(_post(address, "/sessions", chance.randbytes(200)))
        read_reply(wire)


def too_large_a_body(address: str, *_: object) -> None:
    with Wire(address) as wire:
        wire.send(_post(address, "/infer", b"[" * 1000, LARGE))
        read_reply(wire)


def answers_not_read(address: str, *_: object) -> None:
    with Wire(address) as wire:
        wire.send(f"GET /openapi.json HTTP/1.1\r\nHost: {address}\r\n\r\n".encode() * 20)


def no_http(address: str, _: str, chance: random.Random) -> None:
    with Wire(address) as wire:
        wire.send(chance.randbytes(300) + b"\r\n\r\n")
        wire.end()
        wire.read()


def garbage_in_a_stream(address: str, model: str, chance: random.Random) -> None:
    with _stream(address, model) as wire:
        wire.send(masked(0x80 | TEXT, chance.choice([b"{", b"\xff\xfe", b'{"inputs": 1}', b"[" * 500])))
        read_until_closed(wire)


def pings_and_half_a_frame(address: str, model: str, _: random.Random) -> None:
    with _stream(address, model) as wire:
        wire.send(masked(0x80 | PING, b"x") * 50, masked(0x80 | BINARY, bytes(90))[:40])


def reset_after_a_frame(address: str, model: str, _: random.Random) -> None:
    """Send a frame, and reset the connection instead of reading the answer."""
    host, _colon, port = address.rpartition(":")
    with closing(socket.create_connection((host, int(port)), timeout=TIMEOUT)) as raw:
        raw.sendall(handshake(address, f"/stream?model={model}", "engram.json"))
        raw.recv(4096)
        raw.sendall(masked(0x80 | TEXT, b'{"inputs": [[0,0,0,0,0,0,0,0,0,0]]}'))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _stream(address: str, model: str) -> Wire:
    """Return a WebSocket of a new session, behind its greeting."""
    wire = Wire(address)
    wire.send(handshake(address, f"/stream?model={model}", "engram.json"))
    read_reply(wire, head_only=True)
    read_frame(wire)
    return wire


def read_until_closed(wire: Wire) -> None:
    """Read frames up to a close frame or the end."""
    frame = read_frame(wire)
    while frame is not None and frame[0] != CLOSE:
        frame = read_frame(wire)


ACTS: tuple[Act, ...] = (
    half_a_head,
    half_a_body,
    garbage_in_a_body,
    too_large_a_body,
    answers_not_read,
    no_http,
    garbage_in_a_stream,
    pings_and_half_a_frame,
    reset_after_a_frame,
)
