"""Requests and frames as they are sent, answers and frames as they come."""

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgpack
import numpy as np
from numpy.typing import ArrayLike

from engram_client.cards import Card
from engram_client.errors import EngramClientError, Lost, described, refusal
from engram_client.results import Array, Episode, Recorded, Result, Stepped, Traces
from engram_client.wires import Request

JSON, SAFETENSORS, JSON_LINES = "application/json", "application/x-safetensors", "application/x-ndjson"
MSGPACK = "application/msgpack"

Force = Mapping[str, Sequence[Any]]
"""Gates that are held at values: name -> nested lists in the shape of its trace, None for what is free."""

BYTES = {"float32": "<f4", "float16": "<f2", "int16": "<i2"}
"""The format of an array's numbers, by its dtype."""

REAL = "biufO"
"""The kinds of dtypes that have real numbers; objects may be."""

LEAF_DTYPES = {
    "F32": "<f4",
    "F16": "<f2",
    "F64": "<f8",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
"""The format of a tensor's numbers, by its dtype in a safetensors file."""

COMPACT = ("float16", "int16")
"""Dtypes of inputs that a stream sends as they are."""


def quoted(name: str) -> str:
    return quote(name, safe="")


def without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def get(path: str, accept: str = JSON, **query: str | int | None) -> Request:
    return Request("GET", path, without_none(**query), {"Accept": accept})


def post(path: str, document: Mapping[str, Any]) -> Request:
    """Return a request with a key of its own: the server opens one session, however often the request comes."""
    headers = {"Content-Type": JSON, "Idempotency-Key": uuid.uuid4().hex}
    return Request("POST", path, {}, headers, json.dumps(without_none(**document)).encode())


def post_packed(path: str, document: Mapping[str, Any]) -> Request:
    """Return a request in msgpack, which is answered in msgpack."""
    return Request("POST", path, {}, {"Content-Type": MSGPACK}, msgpack.packb(document))


def sequence_of(inputs: ArrayLike) -> Array:
    """Return inputs as [T, input_size]: float16 and int16 as they are, all others as float32. Raises ValueError."""
    array = _real(inputs)
    if array.ndim not in (1, 2):
        raise ValueError(f"inputs: expected [T, input_size], or [T] of tokens, got shape {list(array.shape)}")
    if not np.isfinite(array).all():
        place = "".join(f"[{index}]" for index in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"inputs{place}: expected a finite number within float32")
    return array if array.ndim == 2 else array[:, np.newaxis]


def _real(inputs: ArrayLike) -> Array:
    """Return real numbers in their dtype on the wire. Raises ValueError for what NumPy would convert, such as text."""
    try:
        array = np.asarray(inputs)
        if array.dtype.kind not in REAL or np.ma.is_masked(inputs):
            raise TypeError(f"got {'masked values of ' if np.ma.is_masked(inputs) else ''}{array.dtype}")
        is_compact = isinstance(inputs, np.ndarray) and array.dtype.name in COMPACT
        with np.errstate(over="ignore"):
            return np.asarray(array, None if is_compact else np.float32)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # RuntimeError: of a tensor with gradients
        raise ValueError(f"inputs: expected real numbers: {error}") from error


def names_of(names: Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def packed(array: Array, scale: float) -> dict[str, Any]:
    """Return an array as a frame holds it, in its dtype; scale: of int16."""
    name = array.dtype.name
    packed = {"shape": array.shape, "data": np.ascontiguousarray(array, BYTES[name]).tobytes()}
    if name != "float32":
        packed["dtype"] = name
    return packed | {"scale": scale} if name == "int16" else packed


def _array(values: Any) -> Array:
    return np.asarray(values, np.float32)


def _traces(traces: Mapping[str, Any]) -> Traces:
    return {name: _array(values) for name, values in traces.items()}


def read_card(content: bytes) -> Card:
    return Card.of(json.loads(content))


def read_cards(content: bytes) -> list[Card]:
    return [Card.of(document) for document in json.loads(content)]


def read_result(content: bytes) -> Result:
    answer = json.loads(content)
    return Result(_array(answer["outputs"]), _traces(answer["trace"]), answer["steps"])


def read_results(content: bytes) -> list[Result]:
    answer = json.loads(content)
    traces = [{name: values[b] for name, values in answer["trace"].items()} for b in range(len(answer["steps"]))]
    columns = zip(answer["outputs"], traces, answer["steps"], strict=True)
    return [Result(_array(outputs), _traces(trace), steps) for outputs, trace, steps in columns]


def read_kept(content: bytes) -> tuple[int, int]:
    """Return the first step that is kept of a session, but for 0, and the step that it has reached."""
    session = json.loads(content)
    return session["oldest"], session["step"]


def read_stepped(answer: Mapping[str, Any]) -> Stepped:
    return Stepped(_array(answer["outputs"]), _traces(answer["trace"]), answer["step"])


def read_many(content: bytes) -> list[Stepped | EngramClientError | Lost]:
    """Return the result of each session of a request, or its error: Lost for "not now"."""
    answer = msgpack.unpackb(content, object_hook=_unpacked_array)
    errors = {problem["index"]: refusal(problem) for problem in answer["errors"]}

    def read(place: int, step: int) -> Stepped | EngramClientError | Lost:
        traces = {name: values[place] for name, values in answer["trace"].items()}
        return Stepped(_array(answer["outputs"][place]), _traces(traces), step)

    return [errors[place] if place in errors else read(place, step) for place, step in enumerate(answer["steps"])]


def read_steps(lines: bytes) -> list[Recorded]:
    """Return the steps of a recording. Where it breaks off, its last line has the problem."""
    return [read_step(line) for line in lines.splitlines()]


def read_step(text: bytes) -> Recorded:
    """Return the step in a line of a recording. Raises the error of one that breaks off."""
    line = json.loads(text)
    if "error" in line:
        raise refusal(line["error"])
    return Recorded(line["step"], _array(line["inputs"]), _array(line["outputs"]), _traces(line["trace"]))


def read_frame(message: str | bytes) -> dict[str, Any]:
    """Return a frame of the server, its arrays as NumPy arrays. Raises EngramClientError; Lost for "not now"."""
    if isinstance(message, str):
        raise EngramClientError({"code": "no_subprotocol", "detail": "the server does not speak engram.msgpack"})
    with reading(message):
        document: dict[str, Any] = msgpack.unpackb(message, object_hook=_unpacked_array)
        if document["type"] == "error":
            raise refusal(document)
        return document


def _unpacked_array(value: dict[str, Any]) -> Any:
    if not {"shape", "data"} <= value.keys() <= {"shape", "data", "dtype"}:
        return value
    return np.frombuffer(value["data"], BYTES[value.get("dtype", "float32")]).reshape(value["shape"])


def read_episode(data: bytes) -> Episode:
    """Return the sequence in a safetensors file."""
    tensors = read_leaves(data)
    mask = tensors.get("mask")
    return Episode(tensors["inputs"], tensors.get("targets"), None if mask is None else mask > 0)


def read_leaves(data: bytes) -> dict[str, Array]:
    """Return the tensors of a safetensors file: the header's size in 8 bytes, header, numbers."""
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    places = {name: [begin + offset for offset in leaf["data_offsets"]] for name, leaf in header.items()}
    return {
        name: np.frombuffer(data[start:stop], LEAF_DTYPES[header[name]["dtype"]]).reshape(header[name]["shape"])
        for name, (start, stop) in places.items()
    }


@contextlib.contextmanager
def reading(content: bytes) -> Iterator[None]:
    """Raise EngramClientError for an answer that is not one of Engram's, as when another server listens there."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, msgpack.UnpackException) as error:
        detail = f"the answer is not one of Engram's ({described(error)}): {content[:200].decode(errors='replace')}"
        raise EngramClientError({"code": "unreadable_answer", "detail": detail}) from error
