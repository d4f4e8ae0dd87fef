"""Tensors of the Open Inference Protocol: read from requests, checked against a model, and results as tensors.

An input has one of three shapes: [B, T, input_size], B sequences of T steps; [T, input_size], one sequence;
[input_size], one step. Outputs and traces have the same leading axes.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.api.inputs import NUMBERS, brief, parse_sequence
from app.api.v2.schemas import FP32, OUTPUTS, InputTensor
from app.backends.base import NUMBER_BYTES, Array
from app.catalogue import InputFormat
from app.engine.run import Result
from app.errors import InvalidInput

MOST_AXES = 3


def read_tensor(tensor: InputTensor, binary: memoryview | None) -> Array:
    """Return an input in its shape; binary: its numbers, float32, little-endian, unless they are in the JSON.

    Raises InvalidInput.
    """
    if tensor.datatype != FP32:
        raise invalid(
            "inputs[0].datatype", f"{FP32}: convert it, with NumPy by .astype(numpy.float32)", tensor.datatype
        )
    shape = tensor.shape
    if not 1 <= len(shape) <= MOST_AXES or 0 in shape:
        expected = "[B, T, input_size], [T, input_size] or [input_size], no size of it 0"
        raise invalid("inputs[0].shape", expected, shape)
    if binary is not None:
        return _of_bytes(binary, shape)
    numbers = _flat(tensor.data, shape)
    if len(numbers) != math.prod(shape):
        raise invalid("inputs[0].data", f"{math.prod(shape)} numbers, as the shape {shape} has", f"{len(numbers)}")
    return np.asarray(numbers).reshape(shape)


def sequences_of(
    inputs: Array, shape: list[int], expected: InputFormat, max_steps: int, max_sequences: int
) -> list[Array]:
    """Return the sequences of an input, each float32 [T, width]; shape: as it came. Raises InvalidInput."""
    if inputs.shape[-1] != expected.width:
        wanted = f"{expected.width} as the last size, the input_size of the model"
        raise invalid("inputs[0].shape", wanted, shape)
    if inputs.ndim < MOST_AXES:
        return [parse_sequence(inputs.reshape(-1, inputs.shape[-1]), expected, max_steps)]
    if len(inputs) > max_sequences:
        wanted = f"at most {max_sequences} sequences (setting max_sequences)"
        raise invalid("inputs[0].shape", wanted, shape)
    return [parse_sequence(rows, expected, max_steps, f"inputs[{index}]") for index, rows in enumerate(inputs)]


def check_single(inputs: Array, shape: list[int]) -> None:
    """Raise InvalidInput for a request of a sequence that has several rows; shape: as its input came."""
    if inputs.ndim == MOST_AXES and len(inputs) > 1:
        expected = "a batch of 1: a request of a sequence has the steps of that sequence alone"
        raise invalid("inputs[0].shape", expected, shape)


def output_tensor(name: str, results: Sequence[Result], axes: int) -> Array:
    """Return an output of all sequences; axes: of the input."""
    values = [result.outputs if name == OUTPUTS else result.trace[name] for result in results]
    if axes == MOST_AXES:
        return np.stack(values)
    return values[0] if axes > 1 else values[0][0]


def tensor_bytes(array: Array) -> bytes:
    """Return a tensor in binary."""
    return np.ascontiguousarray(array, "<f4").tobytes()


def _of_bytes(data: memoryview, shape: list[int]) -> Array:
    size = NUMBER_BYTES * math.prod(shape)
    if size != len(data):
        expected = f"{size} bytes, as the shape {shape} of {FP32} has"
        raise invalid("inputs[0].parameters.binary_data_size", expected, len(data))
    return np.frombuffer(data, "<f4").reshape(shape)


def _flat(data: Any, shape: list[int]) -> Array:
    """Return the numbers of a list, or of lists nested as the shape is, as float64 [N]. Raises InvalidInput."""
    numbers = _flattened(data, shape) if isinstance(data, list) and data and isinstance(data[0], list) else data
    if not isinstance(numbers, list) or not NUMBERS.issuperset(map(type, numbers)):
        raise invalid("inputs[0].data", f"a list of numbers, or lists nested as the shape {shape} is", data)
    return np.fromiter(numbers, np.float64, len(numbers))


def _flattened(data: list[Any], shape: list[int]) -> list[Any] | None:
    """Return the items of lists that are nested as a shape is; None for lists of another shape."""
    items = [data]
    for size in shape:
        if not all(isinstance(item, list) and len(item) == size for item in items):
            return None
        items = list(itertools.chain.from_iterable(items))
    return items


def invalid(place: str, expected: str, got: Any) -> InvalidInput:
    """Return the error of an input that is not as expected."""
    shown = got if isinstance(got, str) else brief(got)
    return InvalidInput(f"{place}: expected {expected}, got {shown}", place=place, expected=expected, got=shown)
