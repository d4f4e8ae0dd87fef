"""What tests read of a server's memory, and clients that do not read or do not finish."""

import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.app.harness import Server

MB = 10**6


def resident(server: Server, field: str = "VmRSS") -> int:
    """Return the bytes of resident memory of a server; VmHWM: the most that it ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def budget(server: Server, name: str) -> int:
    """Return the bytes that are held of a budget."""
    text = httpx.get(f"{server.url}/metrics").text
    return int(float(re.search(rf'engram_budget_bytes{{budget="{name}"}} (\S+)', text)[1]))  # type: ignore[index]


def ask(
    server: Server, method: str, path: str, body: bytes = b"", length: int | None = None, kind: str = "json"
) -> Any:
    """Send a request and return its socket; length: of the body that is announced, if not all of it is sent."""
    host, port = server.url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect((host, int(port)))
    _send(client, method, f"{host}:{port}", path, body, len(body) if length is None else length, kind)
    return client


def ask_again(client: socket.socket, server: Server, path: str, body: bytes) -> None:
    """Send a POST request over the same connection."""
    _send(client, "POST", server.url.removeprefix("http://"), path, body, len(body), "json")


def _send(client: socket.socket, method: str, host: str, path: str, body: bytes, size: int, kind: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/{kind}\r\n"
    client.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + body)


def status(client: socket.socket) -> int:
    """Return the status of an answer, of which no more is read."""
    return int(client.recv(12)[9:])


def traced(server: Server, model: str, size: int) -> bytes:
    """Return the body of a request to /infer whose answer has about `size` bytes of traces."""
    card: Mapping[str, Any] = httpx.get(f"{server.url}/models/{model}").json()
    numbers = sum(_product(shape) for shape in card["trace"].values())
    steps = [[0] * card["input_size"]] * (size // (4 * numbers))
    return json.dumps({"model": model, "inputs": steps, "trace": list(card["trace"])}).encode()


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
