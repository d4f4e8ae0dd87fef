"""Decode and check requests to infer. Decoders call `read_infer`, in this process or another."""

from collections.abc import Collection
from typing import Any, NamedTuple

from app.api.codec import decode_json
from app.api.inputs import brief
from app.api.schemas import NAME_LENGTH, parse
from app.api.v2.schemas import (
    INPUTS,
    MAX_SEQUENCE_ID,
    OUTPUTS,
    InferParameters,
    InputTensor,
    RequestedOutput,
    V2InferRequest,
)
from app.api.v2.tensors import read_tensor
from app.backends.base import Array
from app.errors import InvalidRequest, MalformedBody

BINARY, BINARY_SIZE = "binary_data", "binary_data_size"
"""Parameters of tensors."""


class Sequence(NamedTuple):
    """The sequence that a request belongs to."""

    id: int | str
    start: bool
    end: bool


class Output(NamedTuple):
    """An output that a request asks for."""

    name: str
    binary: bool


class Asked(NamedTuple):
    """A request to infer, whose model is not known yet."""

    id: str
    sequence: Sequence | None
    inputs: Array
    """[B, T, I], [T, I] or [I], float32 or float64; the numbers are not checked."""
    shape: list[int]
    """The shape in which the inputs came."""
    outputs: list[Output]
    memory_size: int | None
    if_step: int | None

    @property
    def traces(self) -> list[str]:
        """The outputs that are traces."""
        return [output.name for output in self.outputs if output.name != OUTPUTS]


def read_infer(data: bytes, json_bytes: int | None) -> Asked:
    """Return a request to infer; json_bytes: of the JSON at its beginning, None: all of it.

    Raises MalformedBody, InvalidRequest, InvalidInput.
    """
    head = data if json_bytes is None else data[:json_bytes]
    wanted = parse(V2InferRequest, decode_json(head))
    parameters = parse(InferParameters, wanted.parameters, "parameters")
    tensor = _only_input(wanted.inputs)
    binary = _binary(tensor, memoryview(data)[len(head) :])
    sequence = _sequence(parameters)
    return Asked(
        wanted.id,
        sequence,
        read_tensor(tensor, binary),
        tensor.shape,
        _outputs(wanted.outputs, parameters.binary_data_output),
        parameters.memory_size,
        _only_of_sequences("if_step", parameters.if_step, sequence),
    )


def _sequence(parameters: InferParameters) -> Sequence | None:
    name, start, end = parameters.sequence_id, parameters.sequence_start, parameters.sequence_end
    is_number = type(name) is int and 0 <= name <= MAX_SEQUENCE_ID
    if name is not None and not is_number and not (isinstance(name, str) and len(name) <= NAME_LENGTH):
        expected = f"a whole number from 0 to {MAX_SEQUENCE_ID}, or text of at most {NAME_LENGTH} characters"
        raise _invalid("parameters.sequence_id", expected, name)
    if name:
        return Sequence(name, start, end)
    for flag, value in (("sequence_start", start), ("sequence_end", end)):
        if value:
            raise _invalid(f"parameters.{flag}", "a sequence_id beside it, which is not 0", name)
    return None


def _only_of_sequences(name: str, value: int | None, sequence: Sequence | None) -> int | None:
    if value is not None and sequence is None:
        raise _invalid(f"parameters.{name}", "a sequence_id beside it", value)
    return value


def _only_input(tensors: list[InputTensor]) -> InputTensor:
    """Return the one input. Raises InvalidRequest."""
    names = [tensor.name for tensor in tensors]
    if names != [INPUTS]:
        raise _invalid("inputs", f"one tensor, of the name {INPUTS!r}", names)
    [tensor] = tensors
    _check_parameters(tensor.parameters, (BINARY_SIZE,), "inputs[0].parameters")
    return tensor


def _binary(tensor: InputTensor, rest: memoryview) -> memoryview | None:
    """Return the bytes of a tensor behind the JSON; None if its numbers are in the JSON. Raises MalformedBody."""
    size = tensor.parameters.get(BINARY_SIZE)
    if (size or 0) != len(rest):
        raise MalformedBody(
            f"inputs[0].parameters.binary_data_size: {size or 'none'} is given, but {len(rest)} bytes stand behind the "
            "JSON, whose length the header Inference-Header-Content-Length has",
            expected=f"{size or 0} bytes behind the JSON",
            got=f"{len(rest)} bytes",
        )
    if size is not None and tensor.data is not None:
        raise _invalid("inputs[0].data", "no data beside binary_data_size", tensor.data)
    return None if size is None else rest


def _outputs(wanted: list[RequestedOutput] | None, binary: bool) -> list[Output]:
    """Return the outputs to answer. Raises InvalidRequest."""
    if not wanted:
        return [Output(OUTPUTS, binary)]
    outputs = []
    for index, output in enumerate(wanted):
        place = f"outputs[{index}].parameters"
        _check_parameters(output.parameters, (BINARY, BINARY_SIZE), place)
        outputs.append(Output(output.name, output.parameters.get(BINARY, binary)))
    names = [output.name for output in outputs]
    if len(set(names)) < len(names):
        raise _invalid("outputs", "each output once", names)
    return outputs


def _check_parameters(parameters: dict[str, Any], known: Collection[str], place: str) -> None:
    """Raise InvalidRequest for a parameter of a tensor that is not known, or has another value than it takes."""
    for name, value in parameters.items():
        if name.startswith("shared_memory_"):
            raise _invalid(f"{place}.{name}", "a tensor in the body: this server shares no memory with clients", value)
        if name == "classification":
            raise _invalid(f"{place}.{name}", "no classification: outputs come as they are", value)
        if name not in known:
            raise _invalid(place, f"one of {', '.join(known)}", name)
        if name == BINARY and type(value) is not bool:
            raise _invalid(f"{place}.{name}", "true or false", value)
        if name == BINARY_SIZE and (type(value) is not int or value < 0):
            raise _invalid(f"{place}.{name}", "a whole number of at least 0", value)


def _invalid(place: str, expected: str, got: Any) -> InvalidRequest:
    shown = brief(got)
    return InvalidRequest(f"{place}: expected {expected}, got {shown}", place=place, expected=expected, got=shown)
