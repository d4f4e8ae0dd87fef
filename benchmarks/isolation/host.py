"""One model on a running server, reached only through the server's port."""

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgpack
import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.server import PROTOCOL, Server

Array = NDArray[Any]

Sizes = tuple[float, ...]
"""The histogram of batch sizes: how many were up to each size, how many there were, and the sum of all sizes."""

COUNT = -2
"""The place of the number of all batches."""

Start = Callable[..., AbstractContextManager[Server]]
"""Starts a server: takes the directory of checkpoints, the data directory and flags, as `running_server` does."""

ANSWER_SECONDS = 120.0
IDLE_SECONDS = 1.0
"""Seconds without a request after which a connection is not used again."""
JSON = {"Content-Type": "application/json"}
SNAPSHOT = {"Content-Type": "application/x-safetensors"}
MSGPACK = {"Content-Type": "application/msgpack"}


class ServerFault(RuntimeError):
    """A server that ended, or gave an answer that it must not give; the message has the request and the answer."""


class NotStarted(RuntimeError):
    """A server that did not start; the message is its last line."""


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes


class Stepped(NamedTuple):
    """The answer to one step of several sessions."""

    outputs: Array
    """[B, output_size], zeros for a session that was refused"""
    refused: dict[int, str]
    """row -> the code of its error"""


@dataclass(frozen=True)
class Card:
    """The parts of a model's card that its inputs depend on."""

    kind: str
    backend: str
    input_size: int
    memory_size: int | None
    vocabulary_size: int | None
    ranges: Array | None
    """[input_size, 2], the ranges of the inputs of an imported graph; None for other models."""
    whole: Array | None = None
    """[input_size, 2], the least and the greatest of those that must be whole numbers, and NaN for the others."""


class Host:
    """A served model. Each method is one request; it raises ServerFault unless it is answered with success."""

    def __init__(self, server: Server, model: str) -> None:
        self.server, self.model = server, model
        self._http = http.client.HTTPConnection(server.address, timeout=ANSWER_SECONDS)
        self._used = time.monotonic()
        card = self._json("GET", f"/models/{quote(model, safe='')}")
        names = ("kind", "backend", "input_size", "memory_size", "vocabulary_size")
        self.card = Card(
            **{name: card[name] for name in names}, ranges=_ranges(card.get("graph")), whole=_whole(card.get("graph"))
        )

    def close(self) -> None:
        self._http.close()

    def open(self, count: int, memory_size: int | None = None) -> list[str]:
        """Return the ids of new sessions."""
        body = {"model": self.model} | ({} if memory_size is None else {"memory_size": memory_size})
        return [str(self._json("POST", "/sessions", body)["id"]) for _ in range(count)]

    def step(self, sessions: Sequence[str], inputs: Array) -> Stepped:
        """Step sessions together by `POST /steps`; inputs: [B, input_size]."""
        return stepped(msgpack.unpackb(self._done("POST", "/steps", _steps(sessions, inputs), MSGPACK)))

    def is_refused(self, sessions: Sequence[str], inputs: Array) -> bool:
        """Return whether the server refuses inputs, [B, input_size], as not valid, and steps no session."""
        return self._request("POST", "/steps", _steps(sessions, inputs), MSGPACK).status == 422

    def infer(self, inputs: Array) -> Array:
        """Return the outputs [B, T, output_size] of whole sequences [B, T, input_size], which leave no session."""
        answer = self._json("POST", "/infer", {"model": self.model, "inputs": inputs.tolist()})
        return np.array(answer["outputs"], np.float32)

    def snapshot(self, session: str, step: int | None = None) -> bytes:
        """Return a session as a file, where it is, or at another step. It is resident afterwards."""
        query = "" if step is None else f"?step={step}"
        return self._done("GET", f"/sessions/{session}/snapshot{query}")

    def adopt(self, snapshot: bytes) -> str:
        """Return a new session that goes on from a snapshot."""
        path = f"/sessions?model={quote(self.model, safe='')}"
        return str(json.loads(self._done("POST", path, snapshot, SNAPSHOT))["id"])

    def fork(self, session: str, step: int | None = None) -> str:
        """Return a fork of a session, where it is, or at another step."""
        body = {} if step is None else {"step": step}
        return str(self._json("POST", f"/sessions/{session}/fork", body)["id"])

    def rewind(self, session: str, step: int) -> None:
        self._json("POST", f"/sessions/{session}/rewind", {"step": step})

    def reset(self, session: str) -> None:
        self._done("POST", f"/sessions/{session}/reset")

    def delete(self, *sessions: str) -> None:
        for session in sessions:
            self._done("DELETE", f"/sessions/{session}")

    def batches(self) -> Sizes:
        """Return the histogram of the sizes of all batches so far."""
        lines = self._done("GET", "/metrics").decode().splitlines()
        mine = [line for line in lines if line.startswith("engram_batch_size") and f'model="{self.model}"' in line]
        if not mine:
            raise ServerFault(f"GET /metrics: no engram_batch_size of the model {self.model!r}")
        return tuple(float(line.rpartition(" ")[2]) for line in mine if "_created" not in line)

    @contextmanager
    def streams(self, sessions: Sequence[str]) -> Iterator[list[ClientConnection]]:
        """Open a WebSocket for each of these sessions."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self._socket(f"/sessions/{session}/stream")) for session in sessions]

    @contextmanager
    def many(self, sessions: Sequence[str]) -> Iterator[ClientConnection]:
        """Open one WebSocket for all of these sessions, which it then numbers from 0."""
        with self._socket(f"/streams?open={','.join(sessions)}") as socket:
            yield socket

    @contextmanager
    def _socket(self, path: str) -> Iterator[ClientConnection]:
        """Open a WebSocket, whose greeting is read."""
        url = f"ws://{self.server.address}{path}"
        protocols = [Subprotocol(PROTOCOL)]
        try:
            with connect(url, subprotocols=protocols, compression=None, ping_interval=None, proxy=None) as socket:
                receive(socket)
                yield socket
        except WebSocketException as error:
            raise ServerFault(f"a WebSocket at {path} broke off: {error!r}") from error

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Request with JSON, and return the answer's."""
        content = None if body is None else json.dumps(body).encode()
        document: dict[str, Any] = json.loads(self._done(method, path, content, JSON))
        return document

    def _done(self, method: str, path: str, content: bytes | None = None, headers: dict[str, str] = JSON) -> bytes:
        """Return the body of an answer. Raises ServerFault unless it is a success."""
        answer = self._request(method, path, content, headers)
        if answer.status >= 300:
            raise ServerFault(f"{method} {path}: {answer.status} {answer.body.decode(errors='replace')}")
        return answer.body

    def _request(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Answer:
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._http.close()  # the next request opens it again; the server closes one that is idle for 5 s
        try:
            self._http.request(method, path, content, headers)
            response = self._http.getresponse()
            answer = Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            status = self.server.process.poll()
            state = "runs" if status is None else f"ended with status {status}"
            raise ServerFault(f"{method} {path} was not answered: {error!r}; the server {state}") from error
        self._used = time.monotonic()
        return answer


@contextmanager
def hosted(start: Start, checkpoints: Path, data: Path, model: str, *flags: str) -> Iterator[Host]:
    """Start a server and yield one of its models. Raises NotStarted."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(start(checkpoints, data, *flags))
        except SystemExit as error:
            raise NotStarted(_last_line(str(error))) from None
        yield stack.enter_context(closing(Host(server, model)))


def packed(inputs: Array) -> dict[str, Any]:
    """Return an array as a message has it."""
    return {"shape": inputs.shape, "data": np.ascontiguousarray(inputs, "<f4").tobytes()}


def _steps(sessions: Sequence[str], inputs: Array) -> bytes:
    """Return the message that steps sessions once; inputs: [B, input_size]."""
    message: bytes = msgpack.packb({"sessions": list(sessions), "inputs": packed(inputs[:, None])})
    return message


def stepped(answer: dict[str, Any]) -> Stepped:
    """Return the answer to a message that stepped sessions once."""
    outputs = _unpacked(answer["outputs"])
    outputs = outputs[:, 0] if outputs.ndim == 3 else np.zeros((len(outputs), 0), np.float32)  # all were refused
    return Stepped(outputs, {error["index"]: error["code"] for error in answer["errors"]})


def receive(socket: ClientConnection) -> dict[str, Any]:
    """Return the next message of a WebSocket. Raises ServerFault if it is an error, or if none comes."""
    try:
        message: dict[str, Any] = msgpack.unpackb(socket.recv(timeout=ANSWER_SECONDS))
    except TimeoutError as error:
        raise ServerFault(f"a WebSocket was not answered within {ANSWER_SECONDS:g} s") from error
    if message["type"] == "error":
        raise ServerFault(f"a WebSocket was answered: {message}")
    return message


def output_of(message: dict[str, Any]) -> Array:
    """Return the output [output_size] of the one step of a stream's answer."""
    output: Array = _unpacked(message["outputs"])[0]
    return output


def _unpacked(array: dict[str, Any]) -> Array:
    return np.frombuffer(array["data"], "<f4").reshape(array["shape"])


def _ranges(graph: dict[str, Any] | None) -> Array | None:
    """Return the range of each number of a step of an imported graph, by default -1 to 1, or 0 to 1 of whole ones."""
    if graph is None:
        return None
    return _each(graph, [entry["range"] or ((0, 1) if entry.get("whole") else (-1, 1)) for entry in graph["inputs"]])


def _whole(graph: dict[str, Any] | None) -> Array | None:
    """Return `Card.whole` of an imported graph."""
    if graph is None:
        return None
    return _each(graph, [entry.get("whole") or (np.nan, np.nan) for entry in graph["inputs"]])


def _each(graph: dict[str, Any], ends: Sequence[Sequence[float]]) -> Array:
    """Return the ends of parts of a step for each of their numbers, [input_size, 2]."""
    sizes = [int(np.prod(entry["shape"], dtype=int)) for entry in graph["inputs"]]
    return np.repeat(np.array(ends, np.float64), sizes, 0)


def _last_line(log: str) -> str:
    lines = log.strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
