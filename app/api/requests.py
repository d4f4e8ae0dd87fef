"""Decode and check requests. Decoders call these functions, in this process or another.

A request to step in its usual form is read without pydantic, which saves time if a step has few numbers. A request in
any other form is left to pydantic, which accepts it or names the fault.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from app.api.codec import CODECS, check_dtype, decode_json
from app.api.inputs import parse_sequence, parse_sequences
from app.api.schemas import (
    LARGEST,
    MAX_NAMES,
    NAME_LENGTH,
    Document,
    Frame,
    FrameRequest,
    InferRequest,
    StepsRequest,
    StrictDocument,
    parse,
)
from app.backends.base import Array
from app.catalogue import InputFormat
from app.sessions.dtypes import form_of


class InferOptions(NamedTuple):
    """The options of an /infer request, all but its inputs."""

    model: str
    trace: list[str]
    memory_size: int | None
    force: dict[str, Any] | None


class StepOptions(NamedTuple):
    """The options of a request to step a session, all but its inputs."""

    trace: list[str]
    if_step: int | None


class Sequences(NamedTuple):
    """The inputs of an /infer request, each float32 [T, width], and whether they came as a batch."""

    inputs: list[Array]
    batched: bool


def read_document(data: bytes, document: type[Document]) -> Document:
    """Return the request in a body. Raises MalformedBody, InvalidRequest."""
    return parse(document, decode_json(data))


def read_infer(
    data: bytes, formats: Mapping[str, InputFormat], max_steps: int, max_sequences: int
) -> tuple[InferOptions, Sequences]:
    """Return the options and the inputs of an /infer request; no inputs if the model is not in `formats`.

    Raises MalformedBody, InvalidRequest, InvalidInput.
    """
    values = _fields(decode_json(data), InferRequest)
    wanted = InferOptions(values["model"], values.get("trace", []), values.get("memory_size"), values.get("force"))
    if wanted.model not in formats:
        return wanted, Sequences([], False)
    return wanted, Sequences(*parse_sequences(values["inputs"], formats[wanted.model], max_steps, max_sequences))


def read_steps(data: bytes, expected: InputFormat, max_steps: int) -> tuple[StepOptions, Array]:
    """Return the options and the inputs, float32 [T, width], of a request to step.

    Raises MalformedBody, InvalidRequest, InvalidInput.
    """
    values = _fields(decode_json(data), StepsRequest)
    inputs = parse_sequence(values["inputs"], expected, max_steps)
    return StepOptions(values.get("trace", []), values.get("if_step")), inputs


def read_frame(data: bytes, protocol: str, expected: InputFormat, max_steps: int) -> tuple[Frame, Array]:
    """Return a frame of a WebSocket, and its inputs, float32 [T, width].

    Raises MalformedBody, InvalidRequest, InvalidInput.
    """
    values = _fields(CODECS[protocol].decode(data), FrameRequest)
    sent, dtype = values["inputs"], values.get("dtype", "float32")
    inputs = parse_sequence(sent, expected, max_steps)
    check_dtype(dtype, protocol)
    return Frame(values.get("trace", []), values.get("seq"), dtype, form_of(sent)), inputs


def _fields(values: dict[str, Any], request: type[StrictDocument]) -> dict[str, Any]:
    """Return the fields of a request; one with a default may be missing. Raises InvalidRequest."""
    return values if _is_usual(values, request) else dict(parse(request, values))


def _is_usual(values: dict[str, Any], request: type[StrictDocument]) -> bool:
    """Return whether pydantic would accept the values unchanged."""
    required, checks = USUAL[request]
    for key, value in values.items():
        if key not in checks or not checks[key](value):
            return False
    return required <= values.keys()


def _is_anything(_: Any) -> bool:
    return True


def _is_name(value: Any) -> bool:
    return type(value) is str and len(value) <= NAME_LENGTH


def _are_names(value: Any) -> bool:
    return type(value) is list and len(value) <= MAX_NAMES and all(map(_is_name, value))


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value <= LARGEST)


def _is_size(value: Any) -> bool:
    return value is None or (type(value) is int and 1 <= value <= LARGEST)


def _is_force(value: Any) -> bool:
    return value is None or (type(value) is dict and all(type(gate) is list for gate in value.values()))


def _is_dtype(value: Any) -> bool:
    return type(value) is str and value in ("float32", "float16")


USUAL: dict[type[StrictDocument], tuple[frozenset[str], dict[str, Callable[[Any], bool]]]] = {
    InferRequest: (
        frozenset(("model", "inputs")),
        {"model": _is_name, "inputs": _is_anything, "trace": _are_names, "memory_size": _is_size, "force": _is_force},
    ),
    StepsRequest: (frozenset(("inputs",)), {"inputs": _is_anything, "trace": _are_names, "if_step": _is_count}),
    FrameRequest: (
        frozenset(("inputs",)),
        {"inputs": _is_anything, "trace": _are_names, "seq": _is_count, "dtype": _is_dtype},
    ),
}
"""The usual forms of requests: the required keys of each, and a check of the value for each possible key."""
