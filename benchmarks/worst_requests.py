"""The worst requests known to us, by name, and the client that sends them."""

import http.client
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from benchmarks.server import PROTOCOL
from benchmarks.timing import Array

BODY = 8 * 2**20 - 1024
"""Bytes of a large request: a little less than max_body_bytes."""

LONGEST = 10_000
"""Steps of a long sequence: max_steps."""

TRACES = 60 * 2**20
"""Bytes of the traces of a large answer: a little less than max_trace_bytes."""

FRAME_TRACES = 4 * 2**20
"""Bytes of the traces that a frame may ask for."""

TIMEOUT_SECONDS = 300
JSON = "engram.json"
JSON_BODY = {"Content-Type": "application/json"}
SAFETENSORS = {"Content-Type": "application/x-safetensors"}


@dataclass(frozen=True)
class Attacker:
    """A client of a server; its methods return the status of the answer, and the code of a problem."""

    address: str
    model: str
    width: int
    traces: Mapping[str, Sequence[int]]

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        """Return the document of an answer; the body is JSON unless a header says otherwise.

        Raises KeyError, ValueError for another kind of answer.
        """
        with closing(http.client.HTTPConnection(self.address, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request(method, path, body, JSON_BODY | (headers or {}))
            return json.loads(connection.getresponse().read())

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> str:
        """Send a request and read its answer."""
        with closing(http.client.HTTPConnection(self.address, timeout=TIMEOUT_SECONDS)) as connection:
            try:
                connection.request(method, path, body, JSON_BODY | (headers or {}))
                answer = connection.getresponse()
                beginning = answer.read(2**16)
                while answer.read(2**20):
                    pass
            except (http.client.HTTPException, OSError) as error:
                return type(error).__name__
        return str(answer.status) if answer.status < 400 else f"{answer.status} {_code(beginning)}".strip()

    def outputs(self, inputs: Sequence[Sequence[float]]) -> Array:
        """Return the outputs of a sequence, [T, output_size]."""
        asked = _json({"model": self.model, "inputs": inputs})
        return np.array(self.ask("POST", "/infer", asked)["outputs"], np.float32)

    def infer(self, **members: bytes) -> str:
        """Send an /infer request with these members, in JSON."""
        return self.send("POST", "/infer", _object(model=_json(self.model), **members))

    def step(self, body: bytes) -> str:
        """Send a request to step a new session."""
        return self.send("POST", f"/sessions/{self.open()}/steps", body)

    def frame(self, message: str | bytes) -> str:
        """Send a frame over a WebSocket of a new session, in JSON where it is text, else in msgpack."""
        protocols = [Subprotocol(JSON if isinstance(message, str) else PROTOCOL)]
        url = f"ws://{self.address}/stream?model={self.model}"
        with connect(url, subprotocols=protocols, max_size=None, compression=None, ping_interval=None) as socket:
            socket.recv()
            try:
                socket.send(message)
                if b"result" in socket.recv(decode=False)[:32]:
                    return "result"
                socket.recv(decode=False)
            except ConnectionClosedError as error:
                return f"{error.rcvd.code} {error.rcvd.reason}" if error.rcvd else "closed"
        return "closed"

    def restore(self, snapshot: bytes) -> str:
        return self.send("POST", "/sessions", snapshot, SAFETENSORS)

    def open(self, memory_size: int | None = None, steps: int = 1) -> str:
        """Return the id of a new session that has taken steps."""
        document = {"model": self.model} | ({} if memory_size is None else {"memory_size": memory_size})
        session: str = self.ask("POST", "/sessions", _json(document))["id"]
        self.ask("POST", f"/sessions/{session}/steps", _object(inputs=self.rows(steps)))
        return session

    def open_large(self) -> str:
        """Return the id of a session with the largest possible memory."""
        refused = self.ask("POST", "/sessions", _json({"model": self.model, "memory_size": 10**8}))
        return self.open(int(re.findall(r"\d+", refused["expected"])[0]))

    def rows(self, steps: int, last: bytes = b"1") -> bytes:
        """Return steps of zeros in JSON, [T][width], but the last number."""
        row = _list(b"0", self.width)
        return b"[" + (row + b",") * (steps - 1) + row[:-2] + last + b"]]"

    def batch(self, last: bytes = b"1") -> bytes:
        """Return as many sequences in JSON as fit into a body, of one length, but the last number."""
        steps = min(LONGEST, BODY // 256 // len(_list(b"0", self.width) + b",") - 1)
        return b"[" + (self.rows(steps) + b",") * 255 + self.rows(steps, last) + b"]"

    def names(self) -> bytes:
        """Return the names of all traces in JSON."""
        return _json(list(self.traces))

    def traced(self, size: int) -> int:
        """Return the number of steps, at most LONGEST, whose traces have `size` bytes."""
        return min(LONGEST, size // sum(4 * int(np.prod(shape)) for shape in self.traces.values()))


def attacker(address: str, model: str) -> Attacker:
    """Return a client of a model, with the model's card."""
    with closing(http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request("GET", f"/models/{model}")
        card = json.load(connection.getresponse())
    return Attacker(address, model, card["input_size"], card["trace"])


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _list(item: bytes, count: int) -> bytes:
    return b"[" + (item + b",") * (count - 1) + item + b"]"


def _filled(item: bytes) -> bytes:
    """Return a list in JSON of as many items as fit into a body."""
    return _list(item, (BODY - 64) // (len(item) + 1))


def _object(**members: bytes) -> bytes:
    return b"{" + b",".join(_json(name) + b":" + value for name, value in members.items()) + b"}"


def _keys() -> bytes:
    """Return the members of an object in JSON, all unknown, that fill a body."""
    return b",".join(b'"%06x":1' % number for number in range(BODY // 11))


def _code(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["code"])
    except (ValueError, KeyError):
        return ""


def _msgpack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _packed(member: bytes, value: bytes) -> bytes:
    """Return a msgpack map of one member with an encoded value."""
    return b"\x81" + _msgpack(member.decode()) + value


def _many(item: bytes) -> bytes:
    """Return a msgpack array that fills a frame."""
    count = (BODY - 64) // len(item)
    return b"\xdd" + struct.pack(">I", count) + item * count


def _array(shape: bytes, data: bytes) -> bytes:
    return b"\x82" + _msgpack("shape") + shape + _msgpack("data") + _msgpack(data)


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _metadata() -> bytes:
    members = b",".join(b'"%07x":"0123456789"' % number for number in range(49 * 10**6 // 23))
    return _safetensors(b'{"__metadata__":{' + members + b"}}")


def _tensors() -> bytes:
    """Return a file with one leaf of 60 MB that no model has."""
    header = _json({"memory": {"dtype": "F32", "shape": [15_000_000], "data_offsets": [0, 60_000_000]}})
    return _safetensors(header, bytes(60_000_000))


def _restore_large(a: Attacker) -> str:
    with closing(http.client.HTTPConnection(a.address, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request("GET", f"/sessions/{a.open_large()}/snapshot")
        return a.restore(connection.getresponse().read())


REQUESTS: dict[str, Callable[[Attacker], str]] = {
    # Refused, over HTTP
    "trace: 4 million numbers": lambda a: a.infer(inputs=a.rows(1), trace=_filled(b"1")),
    "trace: 2 million empty names": lambda a: a.infer(inputs=a.rows(1), trace=_filled(b'""')),
    "trace: a name of 8 MB": lambda a: a.infer(inputs=a.rows(1), trace=b'["' + b"x" * (BODY - 300) + b'"]'),
    "600,000 unknown keys": lambda a: a.send("POST", "/infer", b"{" + _keys() + b"}"),
    "a key of 8 MB": lambda a: a.send("POST", "/infer", b'{"' + b"k" * (BODY - 9) + b'":1}'),
    "a model's name of 8 MB": lambda a: a.send("POST", "/infer", _object(model=b'"%s"' % (b"m" * (BODY - 99)))),
    "10,000 steps, the last number null": lambda a: a.infer(inputs=a.rows(LONGEST, b"null")),
    "10,000 steps, all null": lambda a: a.infer(inputs=_list(_list(b"null", a.width), LONGEST)),
    "a batch of 8 MB, the last number text": lambda a: a.infer(inputs=a.batch(b'"x"')),
    "a batch of 8 MB, the last number NaN": lambda a: a.infer(inputs=a.batch(b"NaN")),
    "4 million numbers for steps": lambda a: a.infer(inputs=_filled(b"1")),
    "3 million empty steps": lambda a: a.infer(inputs=_filled(b"[]")),
    "3 million objects for steps": lambda a: a.infer(inputs=_filled(b"{}")),
    "1 million sequences of a step": lambda a: a.infer(inputs=_filled(b"[[0,0]]")),
    "a number's text of 1 MB, among 10,000 steps": lambda a: a.infer(
        inputs=a.rows(LONGEST, b'"' + b"1" * 10**6 + b'"')
    ),
    "an integer of 8 million digits": lambda a: a.infer(inputs=b"[[" + b"1" * (BODY - 99) + b"]]"),
    "lists 8 million deep": lambda a: a.send("POST", "/infer", b"[" * BODY),
    "lists 1,000 deep, 4,000 times": lambda a: a.infer(inputs=_filled(b"[" * 1000 + b"]" * 1000)),
    "8 MB that are no text": lambda a: a.send("POST", "/infer", b'{"model":"' + b"\xff" * (BODY - 12) + b'"}'),
    "8 MB of escapes": lambda a: a.send("POST", "/infer", b'{"model":"' + rb"\u00e9" * (BODY // 6 - 9) + b'"}'),
    "steps: 3 million empty ones": lambda a: a.step(_object(inputs=_filled(b"[]"))),
    "rewind: 600,000 unknown keys": lambda a: a.send("POST", f"/sessions/{a.open()}/rewind", b"{" + _keys() + b"}"),
    "fork: 3 million objects": lambda a: a.send("POST", f"/sessions/{a.open()}/fork", _object(step=_filled(b"{}"))),
    "leaves: 60 kB of names": lambda a: a.send("GET", f"/sessions/{a.open()}/state?names={'a,' * 30_000}"),
    "recording: 60 kB of names": lambda a: a.send("GET", f"/sessions/{a.open()}/recording?trace={'a,' * 30_000}"),
    "20,000 parameters": lambda a: a.send("GET", f"/sessions?{'a=&' * 20_000}limit=x"),
    "a session's id of 60 kB": lambda a: a.send("GET", f"/sessions/{'i' * 60_000}"),
    "a path of 60 kB of escapes": lambda a: a.send("GET", f"/sessions/{'%41' * 20_000}"),
    "a path of 8 MB": lambda a: a.send("GET", f"/sessions/{'i' * 2**23}"),
    "60 kB of empty steps": lambda a: a.infer(inputs=_list(b"[]", 20_000)),
    "60 kB of empty names of traces": lambda a: a.infer(inputs=a.rows(1), trace=_list(b'""', 20_000)),
    "60 kB, the last number NaN": lambda a: a.infer(inputs=a.rows(60_000 // (2 * a.width + 2), b"NaN")),
    "an Idempotency-Key of 4 MB": lambda a: a.send(
        "POST", "/sessions", _json({"model": a.model}), {"Idempotency-Key": "k" * 2**22}
    ),
    "a snapshot with 49 MB of metadata": lambda a: a.restore(_metadata()),
    "a snapshot with a header of 2^60 bytes": lambda a: a.restore(struct.pack("<Q", 2**60) + bytes(2**20)),
    "a snapshot of 60 MB, of no model": lambda a: a.restore(_tensors()),
    # Refused, over WebSocket
    "frame, trace: 4 million numbers": lambda a: a.frame(_object(inputs=a.rows(1), trace=_filled(b"1")).decode()),
    "frame: 600,000 unknown keys": lambda a: a.frame((b"{" + _keys() + b"}").decode()),
    "frame: 3 million empty steps": lambda a: a.frame(_object(inputs=_filled(b"[]")).decode()),
    "frame: 10,000 steps, the last number NaN": lambda a: a.frame(_object(inputs=a.rows(LONGEST, b"NaN")).decode()),
    "frame: lists 8 million deep": lambda a: a.frame("[" * BODY),
    "msgpack: 8 million empty maps": lambda a: a.frame(_packed(b"inputs", _many(b"\x80"))),
    "msgpack: 60 kB of empty maps": lambda a: a.frame(
        _packed(b"inputs", b"\xdd" + struct.pack(">I", 60_000) + b"\x80" * 60_000)
    ),
    "msgpack: 8 million empty lists": lambda a: a.frame(_packed(b"inputs", _many(b"\x90"))),
    "msgpack: 8 million times nothing": lambda a: a.frame(_packed(b"inputs", _many(b"\xc0"))),
    "msgpack: extensions": lambda a: a.frame(_packed(b"inputs", _many(b"\xd4\x05\x00"))),
    "msgpack: an array of a million axes": lambda a: a.frame(
        _packed(b"inputs", _array(_many(b"\xcf" + b"\x7f" * 8), b""))
    ),
    "msgpack: 2 million numbers in another shape": lambda a: a.frame(
        _packed(b"inputs", _array(_msgpack([2, 10**6]), bytes(8 * 10**6)))
    ),
    "msgpack: bytes for steps": lambda a: a.frame(_packed(b"inputs", _msgpack(bytes(BODY - 64)))),
    # Taken
    "a batch of 8 MB": lambda a: a.infer(inputs=a.batch()),
    "256 sequences of one step, with traces": lambda a: a.infer(inputs=_list(a.rows(1), 256), trace=a.names()),
    "10,000 steps, with traces": lambda a: a.infer(inputs=a.rows(a.traced(TRACES)), trace=a.names()),
    "a batch with 60 MB of traces": lambda a: a.infer(
        inputs=_list(a.rows(a.traced(TRACES // 32)), 32), trace=a.names()
    ),
    "frame, JSON: 10,000 steps, with traces": lambda a: a.frame(
        _object(inputs=a.rows(a.traced(FRAME_TRACES)), trace=a.names()).decode()
    ),
    "frame, msgpack: 10,000 steps, with traces": lambda a: a.frame(
        _msgpack(
            {
                "inputs": {
                    "shape": [a.traced(FRAME_TRACES), a.width],
                    "data": bytes(4 * a.width * a.traced(FRAME_TRACES)),
                },
                "trace": list(a.traces),
            }
        )
    ),
    "a recording of 10,000 steps, with traces": lambda a: a.send(
        "GET", f"/sessions/{a.open(steps=LONGEST)}/recording?trace={','.join(a.traces)}"
    ),
    "the largest session": lambda a: a.send("GET", f"/sessions/{a.open_large()}"),
    "the largest state, as JSON": lambda a: a.send("GET", f"/sessions/{a.open_large()}/state"),
    "the largest state, as safetensors": lambda a: a.send(
        "GET", f"/sessions/{a.open_large()}/state", headers={"Accept": SAFETENSORS["Content-Type"]}
    ),
    "the largest snapshot": lambda a: a.send("GET", f"/sessions/{a.open_large()}/snapshot"),
    "the largest snapshot, restored": _restore_large,
    "the schema of the interface": lambda a: a.send("GET", "/openapi.json"),
    "all cards": lambda a: a.send("GET", "/models"),
}
"""Functions by name that send a request and return the status of its answer."""
