"""The clients known to us that make a server hold most: answers that nobody reads, and bodies that never end."""

import contextlib
import json
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks.worst_requests import TIMEOUT_SECONDS, TRACES, Attacker

UNREAD, UNFINISHED = 10, 10
"""Requests at a time."""

HELD_SECONDS = 10
"""The longest time that the answers are waited for: those of a server that is full come at once."""


def unread_answers(a: Attacker) -> str:
    """Ask for answers with 60 MB of traces, one after the other, and read none of them."""
    steps = a.traced(TRACES // 32)
    inputs = b"[" + b",".join([a.rows(steps)] * 32) + b"]"
    body = b'{"model":%b,"inputs":%b,"trace":%b}' % (json.dumps(a.model).encode(), inputs, a.names())
    return _held(a, [_request(a, "/infer", "application/json", body, len(body))] * UNREAD)


def unfinished_snapshots(a: Attacker) -> str:
    """Send snapshots of 16 MB, but for their last byte."""
    size = 16 * 2**20
    return _held(a, [_request(a, "/sessions", "application/x-safetensors", bytes(size), size + 1)] * UNFINISHED)


def unfinished_bodies(a: Attacker) -> str:
    """Send bodies of 8 MB in JSON, but for their last byte."""
    size = 8 * 10**6
    return _held(a, [_request(a, "/infer", "application/json", b" " * size, size + 1)] * 10 * UNFINISHED)


def large_sessions_of_all_models(a: Attacker) -> str:
    """Open and step sessions with the largest memory, more than there is room for."""
    statuses = Counter(a.send("GET", f"/sessions/{a.open_large()}/state?names=usage") for _ in range(64))
    return _summary(statuses)


HOLDERS: dict[str, Callable[[Attacker], str]] = {
    "10 answers of 60 MB of traces, not read": unread_answers,
    "10 snapshots of 16 MB, not finished": unfinished_snapshots,
    "100 bodies of 8 MB, not finished": unfinished_bodies,
    "64 of the largest sessions": large_sessions_of_all_models,
}
"""Functions by name that hold what they can for a while, and return the answers with their numbers."""


def _request(a: Attacker, path: str, kind: str, body: bytes, length: int) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {a.address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + body


def _held(a: Attacker, requests: Sequence[bytes]) -> str:
    """Send requests on connections of their own, and return the beginnings of the answers, of which no more is read."""
    host, _, port = a.address.rpartition(":")
    answers: Counter[str] = Counter()
    with ExitStack() as stack:
        connections = []
        for request in requests:
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect((host, int(port)))
            with contextlib.suppress(OSError):  # refused before all was sent
                connection.sendall(request)
            connections.append(connection)
        for connection in connections:
            answers[_begun(connection)] += 1
    return _summary(answers)


def _begun(connection: socket.socket) -> str:
    connection.settimeout(HELD_SECONDS / UNREAD)
    try:
        return connection.recv(12)[9:].decode() or "closed"
    except TimeoutError:
        return "none yet"
    except OSError:
        return "closed"


def _summary(answers: Counter[str]) -> str:
    return ", ".join(f"{number} x {answer}" for answer, number in answers.most_common())
