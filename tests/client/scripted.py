"""A wire that answers by a script, and a session over it."""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgpack

from engram_client import (
    AsyncClient,
    AsyncSession,
)
from engram_client.wires import Answer, Request


@dataclass
class ScriptedSocket:
    """A WebSocket that says what a script has: frames, or an exception in their place."""

    script: deque[dict[str, Any] | Exception]
    sent: list[dict[str, Any]]

    async def send(self, data: bytes) -> None:
        self.sent.append(msgpack.unpackb(data))

    async def receive(self, timeout: float) -> bytes:
        event = self.script.popleft()
        if isinstance(event, Exception):
            raise event
        return bytes(msgpack.packb(event))

    async def close(self) -> None:
        pass


class Script:
    """A wire of events: each request takes the next, an answer or an exception, and each connection a list."""

    def __init__(self, *events: Any) -> None:
        self.events = deque(events)
        self.requests: list[Request] = []
        self.frames: list[dict[str, Any]] = []
        self.pauses: list[float] = []

    async def request(self, request: Request, timeout: float) -> Answer:
        self.requests.append(request)
        return self._next()

    async def connect(self, path: str, timeout: float) -> ScriptedSocket:
        return ScriptedSocket(deque(self._next()), self.frames)

    def _next(self) -> Any:
        event = self.events.popleft()
        if isinstance(event, BaseException):
            raise event
        return event

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def close(self) -> None:
        pass


def ok(document: Any, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(document).encode())


def refusal(status: int, code: str, **more: Any) -> Answer:
    problem = {"status": status, "code": code, "detail": "so it is"} | more
    return Answer(status, {"Retry-After": "7"} if status == 503 else {}, json.dumps(problem).encode())


def lines(*inputs: list[float]) -> Answer:
    steps = [
        {"step": step, "inputs": values, "outputs": [step + 0.5], "trace": {"gate": [0.25]}}
        for step, values in enumerate(inputs, 1)
    ]
    return Answer(200, {}, "\n".join(map(json.dumps, steps)).encode())


OPENED = {"id": "abc", "model": "m", "memory_size": None, "step": 0}


STEPPED = {"outputs": [[1.5], [2.5]], "trace": {"gate": [[0.25], [0.25]]}, "step": 2}


GREETING = {"type": "session", "session": "abc", "model": "m", "memory_size": None, "step": 0, "seq": None}


def carried_out(seq: int) -> dict[str, Any]:
    return {"type": "result", "seq": seq, "step": seq + 1, "outputs": [[seq + 0.5]], "trace": {}}


def scripted(*events: Any, timeout: float = 60.0) -> tuple[AsyncSession, Script]:
    script = Script(*events)
    return AsyncSession(AsyncClient("http://nowhere", timeout, wire=script), OPENED), script
