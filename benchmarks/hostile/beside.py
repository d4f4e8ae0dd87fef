"""An honest client beside hostile ones, and the vital signs of a server."""

import contextlib
import http.client
import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import connect

from benchmarks.server import random_inputs

SESSION_STEPS = 1000
"""Steps that a neighbour takes before it begins again."""

JSON = {"Content-Type": "application/json"}

PATIENCE = 30.0
"""Seconds within which a server must be back where it was."""


class Violation(AssertionError):
    """A broken promise of the server; the message names it."""


class Neighbour:
    """An honest client: each step over HTTP and over a WebSocket is compared with the outputs of /infer."""

    def __init__(self, address: str, model: str, seed: int = 1) -> None:
        """address: host and port."""
        self._model = model
        self._http = http.client.HTTPConnection(address, timeout=PATIENCE)
        width = self.ask("GET", f"/models/{model}")["input_size"]
        self.inputs: list[list[float]] = random_inputs(SESSION_STEPS, width, seed).tolist()
        """[T, input_size], over and over again."""
        self.expected: list[Any] = self.ask("POST", "/infer", {"model": model, "inputs": self.inputs})["outputs"]
        self._session: str = self.ask("POST", "/sessions", {"model": model})["id"]
        url = f"ws://{address}/stream?model={model}"
        self._open = contextlib.ExitStack()
        self._open.callback(self._http.close)
        self._socket = self._open.enter_context(connect(url, compression=None, ping_interval=None))
        self._streamed: str = json.loads(self._socket.recv(PATIENCE))["session"]
        self._taken = 0
        self.steps = 0
        """Steps taken and compared."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def ask(self, method: str, path: str, document: Any = None, text: bool = False) -> Any:
        """Return the document of an answer, or its text. Raises Violation for an error."""
        body = None if document is None else json.dumps(document)
        self._http.request(method, path, body, JSON if body else {})
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise Violation(f"an honest {method} {path} was answered {answer.status} {content[:300]!r}")
        if text:
            return content.decode()
        return json.loads(content) if content else None

    def step(self) -> None:
        """Take the next step, over HTTP and over the WebSocket. Raises Violation."""
        if self._taken == SESSION_STEPS:
            self._taken = 0
            for session in (self._session, self._streamed):
                self.ask("POST", f"/sessions/{session}/reset")
        frame = {"inputs": [self.inputs[self._taken]]}
        stepped = self.ask("POST", f"/sessions/{self._session}/steps", frame)
        self._socket.send(json.dumps(frame))
        streamed = json.loads(self._socket.recv(PATIENCE))
        expected = [self.expected[self._taken]]
        for way, answer in (("HTTP", stepped), ("a WebSocket", streamed)):
            if answer.get("outputs") != expected:
                raise Violation(f"step {self._taken} over {way}: expected {expected}, got {answer}")
        self._taken += 1
        self.steps += 2

    def streams(self) -> int:
        """Return the number of open WebSockets by the server's metrics, among them the neighbour's own."""
        self._http.request("GET", "/metrics")
        found = re.search(r"^engram_streams (\S+)$", self._http.getresponse().read().decode(), re.M)
        assert found, "the server counts its streams"
        return int(float(found[1]))


@dataclass(frozen=True)
class Vitals:
    """The resources of a process. Needs Linux."""

    memory: float
    """Resident, in MB."""
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Vitals":
        """Return those of a process."""
        process = Path(f"/proc/{pid}")
        status = (process / "status").read_text()
        found = {name: int(re.findall(rf"^{name}:\s+(\d+)", status, re.M)[0]) for name in ("VmRSS", "Threads")}
        return cls(found["VmRSS"] * 1024 / 1e6, len(os.listdir(process / "fd")), found["Threads"])


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition. Raises Violation, which names `what`, if it does not come true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Violation(f"after {PATIENCE:g} s: {what}")
        time.sleep(0.02)


def check_log(log: str) -> None:
    """Raise Violation if a server's log has a traceback or an error: no client may cause one."""
    found = re.search(r"^(Traceback|.* (ERROR|CRITICAL) ).*$", log, re.M)
    if found:
        raise Violation(f"the log has:\n{log[found.start() : found.start() + 3000]}")


def warm_up(address: str, model: str) -> None:
    """Let a server start its processes for large requests, so that its descriptors can be compared later."""
    body = json.dumps({"model": model, "inputs": [["x" * 70_000]]})

    def post(_: int) -> int:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=PATIENCE)) as connection:
            connection.request("POST", "/infer", body, JSON)
            return connection.getresponse().status

    with ThreadPoolExecutor(2) as pool:
        if list(pool.map(post, range(2))) != [422, 422]:
            raise Violation("large requests were not refused with 422")


def check_rest(neighbour: Neighbour, pid: int, log: str, before: Vitals) -> None:
    """Raise Violation unless a server is back where it was, its log without an error, and its neighbour well."""
    wait_until(lambda: neighbour.streams() == 1, "streams are still open")
    wait_until(lambda: Vitals.of(pid).descriptors <= before.descriptors, "descriptors are still open")
    neighbour.step()
    check_log(log)
