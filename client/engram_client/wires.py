"""Requests and WebSockets on the network: by asyncio, or blocking the thread."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import httpx
import websockets.asyncio.client
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.http11 import Response
from websockets.typing import Subprotocol

from engram_client.errors import Lost, described, problem_in, refusal

CONNECT_SECONDS = 10.0
"""Seconds that one try to connect may take."""

CLOSE_SECONDS = 2.0
"""Seconds that the closing of a WebSocket may take."""


class Request(NamedTuple):
    method: str
    path: str
    query: Mapping[str, str | int] = {}
    headers: Mapping[str, str] = {}
    content: bytes = b""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


class Socket(Protocol):
    """An open WebSocket. Every method raises Lost when the connection drops, or the error of its close code."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self, timeout: float) -> str | bytes: ...

    async def close(self) -> None: ...


class Wire(Protocol):
    """HTTP, WebSockets and time, as a client uses them. Every method raises Lost where no answer comes."""

    async def request(self, request: Request, timeout: float) -> Answer: ...

    async def connect(self, path: str, timeout: float) -> Socket: ...

    async def pause(self, seconds: float) -> None: ...

    async def close(self) -> None: ...


@contextlib.contextmanager
def border() -> Iterator[None]:
    """Raise errors of httpx, websockets and sockets as Lost, or as the error of a refusal."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise Lost(described(error), reached=False) from error
    except ConnectionClosed as error:
        raise _closing(error) from error
    except InvalidStatus as error:
        raise _handshake_refusal(error.response) from error
    except (httpx.RequestError, WebSocketException, OSError, EOFError) as error:
        raise Lost(described(error)) from error


def _handshake_refusal(response: Response) -> Exception:
    problem = problem_in(response.status_code, bytes(response.body or b""))
    return refusal(problem, response.headers.get("Retry-After", ""))


def _closing(error: ConnectionClosed) -> Exception:
    """Return the error of a WebSocket's end: 4000 + status and 1009 are refusals, all others are Lost."""
    code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
    status = 413 if code == 1009 else code - 4000
    if 400 <= status < 600:
        return refusal({"code": reason or f"http_{status}", "status": status, "detail": f"closed with {code} {reason}"})
    return Lost(described(error))


def _socket_url(url: str, path: str) -> str:
    return "ws" + url.removeprefix("http") + path


def _socket_options(headers: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """Return the options of both kinds of WebSockets. The frames under way bound the messages that wait unread."""
    return {
        "subprotocols": [Subprotocol("engram.msgpack")],
        "additional_headers": headers,
        "compression": None,
        "open_timeout": min(timeout, CONNECT_SECONDS),
        "close_timeout": CLOSE_SECONDS,
        "max_size": None,
        "max_queue": None,
    }


def _timeouts(timeout: float) -> httpx.Timeout:
    return httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))


@dataclass
class AsyncioSocket:
    connection: websockets.asyncio.client.ClientConnection

    async def send(self, data: bytes) -> None:
        with border():
            await self.connection.send(data)

    async def receive(self, timeout: float) -> str | bytes:
        with border():
            async with asyncio.timeout(timeout):
                return await self.connection.recv()

    async def close(self) -> None:
        await self.connection.close()


class AsyncioWire:
    """Waits in asyncio."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers
        self._http = httpx.AsyncClient(base_url=url, headers=headers)

    async def request(self, request: Request, timeout: float) -> Answer:
        method, path, query, headers, content = request
        with border():
            answer = await self._http.request(
                method, path, params=query, headers=headers, content=content, timeout=_timeouts(timeout)
            )
        return Answer(answer.status_code, answer.headers, answer.content)

    async def connect(self, path: str, timeout: float) -> Socket:
        options = _socket_options(self._headers, timeout)
        with border():
            return AsyncioSocket(await websockets.asyncio.client.connect(_socket_url(self._url, path), **options))

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self._http.aclose()


@dataclass
class BlockingSocket:
    connection: websockets.sync.client.ClientConnection

    async def send(self, data: bytes) -> None:
        with border():
            self.connection.send(data)

    async def receive(self, timeout: float) -> str | bytes:
        with border():
            return self.connection.recv(timeout)

    async def close(self) -> None:
        self.connection.close()


class BlockingWire:
    """Blocks the thread: none of its coroutines suspends."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers
        self._http = httpx.Client(base_url=url, headers=headers)

    async def request(self, request: Request, timeout: float) -> Answer:
        method, path, query, headers, content = request
        with border():
            answer = self._http.request(
                method, path, params=query, headers=headers, content=content, timeout=_timeouts(timeout)
            )
        return Answer(answer.status_code, answer.headers, answer.content)

    async def connect(self, path: str, timeout: float) -> Socket:
        options = _socket_options(self._headers, timeout)
        with border():
            connection = websockets.sync.client.connect(_socket_url(self._url, path), **options)
            return BlockingSocket(connection.__enter__())

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 (to block is its nature)

    async def close(self) -> None:
        self._http.close()
