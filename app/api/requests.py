"""From the bytes of a request to what it asks for, checked. Decoders call these functions, here or elsewhere."""

from collections.abc import Mapping
from typing import NamedTuple

from app.api.codec import CODECS, decode_json
from app.api.inputs import parse_sequence, parse_sequences
from app.api.schemas import Document, Frame, InferRequest, StepsRequest, parse
from app.backends.base import Array
from app.catalogue import InputFormat


class Sequences(NamedTuple):
    """The inputs of an /infer request, each float32 [T, width], and whether they came as a batch."""

    inputs: list[Array]
    batched: bool


def read_document(data: bytes, document: type[Document]) -> Document:
    """Return the request in a body. Raises MalformedBody, InvalidRequest."""
    return parse(document, decode_json(data))


def read_infer(
    data: bytes, formats: Mapping[str, InputFormat], max_steps: int, max_sequences: int
) -> tuple[InferRequest, Sequences]:
    """Return an /infer request, its inputs apart: none where the model is none of `formats`.

    Raises MalformedBody, InvalidRequest, InvalidInput.
    """
    wanted = parse(InferRequest, decode_json(data))
    value, wanted.inputs = wanted.inputs, None
    if wanted.model not in formats:
        return wanted, Sequences([], False)
    return wanted, Sequences(*parse_sequences(value, formats[wanted.model], max_steps, max_sequences))


def read_steps(data: bytes, expected: InputFormat, max_steps: int) -> tuple[StepsRequest, Array]:
    """Return a request to step, and its inputs, float32 [T, width].

    Raises MalformedBody, InvalidRequest, InvalidInput.
    """
    wanted = parse(StepsRequest, decode_json(data))
    value, wanted.inputs = wanted.inputs, None
    return wanted, parse_sequence(value, expected, max_steps)


def read_frame(data: bytes, protocol: str, expected: InputFormat, max_steps: int) -> tuple[Frame, Array]:
    """Return a frame of a WebSocket, as read_steps does."""
    wanted = parse(Frame, CODECS[protocol].decode(data))
    value, wanted.inputs = wanted.inputs, None
    return wanted, parse_sequence(value, expected, max_steps)
