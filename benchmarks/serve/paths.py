"""The paths by which steps reach a server: one entry of PATHS for each.

A new path is a new entry: the encoding of requests, the decoding of answers, the URL, and the servers beside Engram's.
"""

import http.client
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgpack
import numpy as np
import orjson
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from app.backends.base import Array
from benchmarks.load import Kind, LoadRequest
from benchmarks.server import PROTOCOL, Server, frame
from benchmarks.timing import WrongOutputs

ECHO = "echo"
"""The server to which ratios are relative."""

TRITON_TARGET = "/v2/models/engram/infer"

LITSERVE_TARGET = "/predict"

UNKNOWN = (403, 404, 4404)
"""The statuses and close codes with which a server refuses an unknown path; 403 and 4404 for a WebSocket."""


class UnknownPath(WrongOutputs):
    """The server does not have the path."""


class Asked(NamedTuple):
    """The contents of one request. inputs: float32 [sessions, steps, input_size]; without sessions, [1, ...]."""

    model: str
    sessions: Sequence[str]
    inputs: Array


@dataclass(frozen=True)
class ServedPath:
    """A path to the model's step."""

    name: str
    about: str
    kind: Kind
    target: str
    """The path of the URL; {session} is replaced by the first session of a request, {sessions} by all of them."""
    sessions: int
    """Sessions of one request; with 0 its steps begin from a fresh state."""
    steps: int
    """Steps of each session in a request."""
    encode: Callable[[Asked], bytes]
    decode: Callable[[bytes], Array]
    """Return the outputs in an answer, [sessions, steps, output_size]."""
    beside: tuple[str, ...]
    """The servers that are measured beside Engram's, in order: keys of benchmarks.serve.servers.SERVERS."""
    subprotocol: str = ""
    most: int = 100_000
    """The most connections to measure with: with many sessions each, few are enough."""

    def counts(self, connections: Sequence[int]) -> list[int]:
        """Return the numbers of connections to measure with."""
        return [count for count in connections if count <= self.most]

    @property
    def for_triton(self) -> "ServedPath":
        """Return the path to the same steps of Triton."""
        return replace(self, target=TRITON_TARGET, encode=_triton_step, decode=_triton_outputs)

    @property
    def for_litserve(self) -> "ServedPath":
        """Return the path to the same steps of LitServe."""
        return replace(self, target=LITSERVE_TARGET, encode=_litserve_step)

    def request(self, asked: Asked) -> LoadRequest:
        """Return the request that a connection repeats."""
        target = self.target.format(
            session=asked.sessions[0] if asked.sessions else "", sessions=",".join(asked.sessions)
        )
        return LoadRequest(target, self.encode(asked))

    def ask(self, server: Server, requests: Sequence[LoadRequest]) -> list[bytes]:
        """Send requests of the same sessions over one connection, and return the answers. Raises WrongOutputs."""
        ask = _post_each if self.kind == "http" else _stream_each
        return ask(server, self, requests)


def _post_each(server: Server, path: ServedPath, requests: Sequence[LoadRequest]) -> list[bytes]:
    with closing(http.client.HTTPConnection(server.address)) as connection:
        return [_post(connection, path, request) for request in requests]


def _post(connection: http.client.HTTPConnection, path: ServedPath, request: LoadRequest) -> bytes:
    connection.request("POST", request.path, request.payload, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        message = f"not timed, {path.name}: POST {request.path} answered {answer.status}: {body[:300]!r}"
        raise UnknownPath(message) if answer.status in UNKNOWN else WrongOutputs(message)
    return body


def _stream_each(server: Server, path: ServedPath, requests: Sequence[LoadRequest]) -> list[bytes]:
    try:
        return _stream(f"ws://{server.address}{requests[0].path}", path, requests)
    except (InvalidStatus, ConnectionClosed) as error:
        message = f"not timed, {path.name}: the WebSocket {requests[0].path} failed: {error}"
        raise UnknownPath(message) if _status(error) in UNKNOWN else WrongOutputs(message) from error


def _status(error: InvalidStatus | ConnectionClosed) -> int | None:
    if isinstance(error, InvalidStatus):
        return error.response.status_code
    return error.rcvd.code if error.rcvd else None


def _stream(url: str, path: ServedPath, requests: Sequence[LoadRequest]) -> list[bytes]:
    answers, protocols = [], [Subprotocol(path.subprotocol)] if path.subprotocol else None
    with connect(url, subprotocols=protocols, compression=None) as socket:
        socket.recv()  # the greeting
        for request in requests:
            socket.send(request.payload, text=path.kind == "ws-text")
            answers.append(socket.recv(decode=False))
    return answers


# Encoding of requests and decoding of answers


def triton_request(session: str, inputs: Array, start: bool) -> bytes:
    """Return Triton's request for a step of a sequence, or to open it; its number is in the session's name."""
    values = {"name": "INPUT", "shape": inputs.shape, "datatype": "FP32", "data": inputs.ravel()}
    sequence = {"sequence_id": int(session[1:]) + 1, "sequence_start": start}
    return orjson.dumps({"parameters": sequence, "inputs": [values]}, option=orjson.OPT_SERIALIZE_NUMPY)


def _triton_step(asked: Asked) -> bytes:
    return triton_request(asked.sessions[0], asked.inputs[0], start=False)


def _triton_outputs(answer: bytes) -> Array:
    return np.array([[orjson.loads(answer)["outputs"][0]["data"]]], np.float32)


def _litserve_step(asked: Asked) -> bytes:
    asks = {"session": asked.sessions[0], "inputs": asked.inputs[0]}
    return orjson.dumps(asks, option=orjson.OPT_SERIALIZE_NUMPY)


def _json_steps(asked: Asked) -> bytes:
    return orjson.dumps({"inputs": asked.inputs[0]}, option=orjson.OPT_SERIALIZE_NUMPY)


def _json_sequence(asked: Asked) -> bytes:
    return orjson.dumps({"model": asked.model, "inputs": asked.inputs[0]}, option=orjson.OPT_SERIALIZE_NUMPY)


def _msgpack_steps(asked: Asked) -> bytes:
    return frame(asked.inputs[0])


def _json_steps_of_many(asked: Asked) -> bytes:
    asks = {"sessions": list(asked.sessions), "inputs": asked.inputs}
    return orjson.dumps(asks, option=orjson.OPT_SERIALIZE_NUMPY)


def _msgpack_steps_of_many(asked: Asked) -> bytes:
    raw = {"shape": asked.inputs.shape, "data": asked.inputs.tobytes()}
    packed: bytes = msgpack.packb({"sessions": list(range(len(asked.sessions))), "inputs": raw})
    return packed


def _json_outputs_of_many(answer: bytes) -> Array:
    return np.array(orjson.loads(answer)["outputs"], np.float32)


def _msgpack_outputs_of_many(answer: bytes) -> Array:
    outputs = msgpack.unpackb(answer)["outputs"]
    values: Array = np.frombuffer(outputs["data"], "<f4").reshape(outputs["shape"])
    return values


def _json_outputs(answer: bytes) -> Array:
    return np.array([orjson.loads(answer)["outputs"]], np.float32)


def _msgpack_outputs(answer: bytes) -> Array:
    outputs = msgpack.unpackb(answer)["outputs"]
    values: Array = np.frombuffer(outputs["data"], "<f4").reshape(1, *outputs["shape"])
    return values


PATHS = {
    path.name: path
    for path in (
        ServedPath(
            name="ws-json",
            about="WebSocket, a frame of 1 step, JSON",
            kind="ws-text",
            target="/sessions/{session}/stream",
            sessions=1,
            steps=1,
            encode=_json_steps,
            decode=_json_outputs,
            beside=(ECHO, "picows", "plain", "ceiling"),
        ),
        ServedPath(
            name="ws-msgpack",
            about="WebSocket, a frame of 16 steps, msgpack",
            kind="ws-binary",
            target="/sessions/{session}/stream",
            sessions=1,
            steps=16,
            encode=_msgpack_steps,
            decode=_msgpack_outputs,
            beside=(ECHO, "picows", "ceiling"),
            subprotocol=PROTOCOL,
        ),
        ServedPath(
            name="post",
            about="POST /sessions/{id}/steps, 1 step, JSON",
            kind="http",
            target="/sessions/{session}/steps",
            sessions=1,
            steps=1,
            encode=_json_steps,
            decode=_json_outputs,
            beside=(ECHO, "plain", "triton", "ceiling"),
        ),
        ServedPath(
            name="steps",
            about="POST /steps, 64 sessions a request, 1 step, JSON",
            kind="http",
            target="/steps",
            sessions=64,
            steps=1,
            encode=_json_steps_of_many,
            decode=_json_outputs_of_many,
            beside=(ECHO, "ceiling"),
            most=8,
        ),
        ServedPath(
            name="streams",
            about="WebSocket /streams, a frame of 256 sessions, 1 step, msgpack",
            kind="ws-binary",
            target="/streams?open={sessions}",
            sessions=256,
            steps=1,
            encode=_msgpack_steps_of_many,
            decode=_msgpack_outputs_of_many,
            beside=(ECHO, "ceiling"),
            subprotocol=PROTOCOL,
            most=4,
        ),
        ServedPath(
            name="infer",
            about="POST /infer, a sequence of 42 steps, JSON",
            kind="http",
            target="/infer",
            sessions=0,
            steps=42,
            encode=_json_sequence,
            decode=_json_outputs,
            beside=(ECHO, "ceiling"),
        ),
    )
}

BESIDE_PEERS = replace(PATHS["post"], beside=("plain", "triton", "litserve", "ray", "ceiling"))
"""The path on which `engram bench peers` measures other servers with the same steps."""
