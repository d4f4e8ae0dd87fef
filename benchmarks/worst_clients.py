"""The worst clients known to us, by name: each breaks a limit of its connections, or opens many.

The sockets are raw: no library would send these bytes.
"""

import base64
import contextlib
import itertools
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.worst_requests import TIMEOUT_SECONDS, Attacker

SHORT_TIMES = ("--header-timeout", "2", "--body-timeout", "2", "--write-timeout", "2")
"""Flags of the server that these clients meet: with its own times, each row would take half a minute."""

MANY = 1000
"""Connections of a client that opens many: as many as max_connections."""

MASK = b"\x80\0\0\0\0"
"""The second byte of a frame without payload, and a mask that changes nothing."""

PING, PONG, TEXT, CONTINUATION = b"\x89" + MASK, b"\x8a" + MASK, b"\x01" + MASK, b"\x00" + MASK

LIMIT = 2**16


@contextmanager
def _connected(a: Attacker) -> Iterator[socket.socket]:
    host, _, port = a.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as connection:
        yield connection


def _head(a: Attacker, line: str, *fields: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", f"Host: {a.address}", *fields, "", ""]).encode()


def _send(connection: socket.socket, *parts: bytes) -> None:
    with contextlib.suppress(OSError):  # refused before all was sent
        for part in parts:
            connection.sendall(part)


def _answer(connection: socket.socket) -> str:
    """Return the status and the code of an answer, "closed" without one."""
    received = b""
    with contextlib.suppress(OSError):
        while len(received) < LIMIT and (part := connection.recv(LIMIT)):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return "closed"
    with contextlib.suppress(ValueError, KeyError):
        return f"{head.split()[1].decode()} {json.loads(body)['code']}"
    return head.split()[1].decode()


def _sent(a: Attacker, *parts: bytes) -> str:
    """Send bytes on a connection, and return the answer."""
    with _connected(a) as connection:
        _send(connection, *parts)
        return _answer(connection)


def _many(a: Attacker, sent: bytes, count: int = MANY) -> str:
    """Send the same bytes on many connections, and return the answers with their numbers."""
    answers: Counter[str] = Counter()
    with ExitStack() as stack:
        connections = [stack.enter_context(_connected(a)) for _ in range(count)]
        for connection in connections:
            _send(connection, sent)
        answers.update(map(_answer, connections))
    return ", ".join(f"{number} x {answer}" for answer, number in answers.most_common())


def _upgrade(a: Attacker) -> bytes:
    key = base64.b64encode(bytes(16)).decode()
    handshake = "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"
    return _head(a, f"GET /stream?model={a.model}", *handshake)


def _frames(a: Attacker, *parts: bytes) -> str:
    """Send frames over a WebSocket while its answers are read, and return how it was closed."""
    with _connected(a) as connection:
        connection.sendall(_upgrade(a))
        received = connection.recv(LIMIT)
        sender = threading.Thread(target=_send, args=(connection, *parts))
        sender.start()
        with contextlib.suppress(OSError):
            while part := connection.recv(LIMIT):
                received = received[-200:] + part
        sender.join()
    close = received[received.rfind(b"\x88") :]
    return f"{int.from_bytes(close[2:4], 'big')} {close[4:].decode(errors='replace')}" if len(close) > 3 else "closed"


def _unread(a: Attacker, sent: bytes, handshake: bytes = b"") -> str:
    """Send bytes again and again and read no answer, until the connection ends."""
    with _connected(a) as connection:
        if handshake:
            connection.sendall(handshake)
            connection.recv(LIMIT)
        with contextlib.suppress(OSError):
            for _ in range(10**6):
                connection.sendall(sent)
            return "taken"
    return "aborted"


JSON_BODY = "Content-Type: application/json"


def _traced(a: Attacker) -> bytes:
    """Return a request for an answer of some MB."""
    inputs = a.rows(a.traced(2**20))
    body = b'{"model":%b,"inputs":%b,"trace":%b}' % (json.dumps(a.model).encode(), inputs, a.names())
    return _head(a, "POST /infer", JSON_BODY, f"Content-Length: {len(body)}") + body


def _step(a: Attacker) -> bytes:
    """Return a frame with one step, of less than 64 KiB."""
    payload = b'{"inputs":%b,"trace":%b}' % (a.rows(1), a.names())
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


def _pieces(piece: bytes, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of one piece, again and again."""
    part = piece * (2**20 // len(piece))
    return itertools.repeat(part, size // len(part))


CHUNKED = "Transfer-Encoding: chunked"

CLIENTS: dict[str, Callable[[Attacker], str]] = {
    "a header field of 200 MB": lambda a: _sent(a, _head(a, "GET /")[:-2] + b"X: ", *_pieces(b"v", 200 * 10**6)),
    "a URL of 100 MB": lambda a: _sent(a, b"GET /", *_pieces(b"u", 100 * 10**6)),
    "a million header fields": lambda a: _sent(a, _head(a, "GET /")[:-2], *_pieces(b"a: b\r\n", 6 * 10**6)),
    "60 kB of header fields": lambda a: _sent(a, _head(a, "GET /", *["a: b"] * 10_000)),
    "a handshake of 100 MB": lambda a: _sent(a, _upgrade(a)[:-2] + b"X: ", *_pieces(b"v", 100 * 10**6)),
    "chunk extensions of 100 MB": lambda a: _sent(
        a, _head(a, "POST /infer", JSON_BODY, CHUNKED) + b"1;", *_pieces(b"e", 100 * 10**6)
    ),
    "trailers of 100 MB": lambda a: _sent(
        a, _head(a, "POST /infer", JSON_BODY, CHUNKED) + b"0\r\n", *_pieces(b"a: b\r\n", 100 * 10**6)
    ),
    "a body of 200 MB behind the answer": lambda a: _sent(
        a, _head(a, "POST /nothing", JSON_BODY, "Content-Length: 200000000"), *_pieces(b"b", 199 * 10**6)
    ),
    "1,000 half-sent heads": lambda a: _many(a, _head(a, "GET /")[:-2]),
    "1,000 half-sent bodies": lambda a: _many(a, _head(a, "POST /infer", JSON_BODY, "Content-Length: 1000") + b"{"),
    "1,000 connections that send nothing": lambda a: _many(a, b""),
    "3,000 connections": lambda a: _many(a, _head(a, "GET /")[:-2], 3 * MANY),
    "1,000,000 pings": lambda a: _frames(a, *_pieces(PING, 6 * 10**6)),
    "1,000,000 pongs": lambda a: _frames(a, *_pieces(PONG, 6 * 10**6)),
    "3,000,000 empty fragments": lambda a: _frames(a, TEXT, *_pieces(CONTINUATION, 18 * 10**6)),
    "a million requests behind one another": lambda a: _unread(a, _head(a, "GET /healthz") * 1000),
    "large answers that are not read": lambda a: _unread(a, _traced(a)),
    "frames whose answers are not read": lambda a: _unread(a, _step(a), _upgrade(a)),
}
"""Functions by name that act as such a client and return how the server ended it."""
