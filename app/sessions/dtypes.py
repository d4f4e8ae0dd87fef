"""Inputs on the wire and in the log, in the dtype that the client sent.

    dtype      a step of width W in the log
    float32    4 W bytes: the numbers
    float16    2 W bytes: the numbers
    int16      5 + 2 W bytes: a tag, the scale as float32, the numbers

All values are little-endian. The number of bytes of a step determines its dtype. Every step is encoded by itself, so
that the store can split an entry of several steps between any two of them. The model computes with float32, and
decoding the log returns the same float32 numbers, bit for bit.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from app.backends.base import NUMBER_BYTES, Array

WIRE = {"float32": "<f4", "float16": "<f2", "int16": "<i2"}
"""The dtypes of arrays in msgpack, and their NumPy types."""

SMALLEST_SCALE, LARGEST_SCALE = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))
"""As float32, scales outside of this range lose digits, or are 0 or infinite."""

INT16_TAG = 0x49


class Form(NamedTuple):
    """A dtype with two bytes a number: float16, or int16, whose numbers times `scale` are the inputs."""

    dtype: str
    scale: float = 1.0


class CompactArray(np.ndarray[Any, np.dtype[np.float32]]):
    """A float32 array that a client sent in another form, which `form` passes on to the log."""

    form: Form | None = None
    """None for a part of such an array."""


def widened(numbers: Array, form: Form) -> CompactArray:
    """Return the numbers of a form as float32, infinite for those that float32 cannot hold. numbers: of form.dtype."""
    with np.errstate(over="ignore"):
        wide = numbers.astype(np.float32) if form.dtype == "float16" else numbers * np.float32(form.scale)
    array = wide.view(CompactArray)
    array.form = form
    return array


def form_of(value: Any) -> Form | None:
    """Return the form in which a client sent an array; None for float32, for a part of an array, and for no array."""
    return value.form if type(value) is CompactArray else None


def pack(inputs: Array, form: Form | None) -> bytes:
    """Return inputs, float32 [T, W], as bytes for the log: in the form that the client sent, if that is shorter."""
    if form is None:
        return inputs.astype("<f4", copy=False).tobytes()
    if form.dtype == "float16":
        return inputs.astype("<f2").tobytes()
    kind = _int16_steps(inputs.shape[1])
    if kind.itemsize > NUMBER_BYTES * inputs.shape[1]:
        return pack(inputs, None)
    steps = np.empty(len(inputs), kind)
    steps["tag"], steps["scale"] = INT16_TAG, form.scale
    steps["numbers"] = np.rint(inputs / np.float32(form.scale))  # exact: the quotient is off by less than 1/100
    return steps.tobytes()


def packed_bytes(inputs: Array, form: Form | None) -> int:
    """Return the number of bytes that `pack` returns."""
    if form is None:
        return inputs.nbytes
    if form.dtype == "float16":
        return inputs.nbytes // 2
    return min(inputs.nbytes, len(inputs) * _int16_steps(inputs.shape[1]).itemsize)


def unpack(data: bytes, steps: int, width: int) -> Array:
    """Return inputs of the log as float32 [steps, width]. Raises ValueError if `pack` cannot have written them."""
    size, rest = divmod(len(data), steps)
    if not rest and size == NUMBER_BYTES * width:
        return np.frombuffer(data, "<f4").reshape(steps, width)
    if not rest and size == 2 * width:
        return np.frombuffer(data, "<f2").reshape(steps, width).astype(np.float32)
    if rest or size != _int16_steps(width).itemsize:
        raise ValueError(f"{len(data)} bytes are not {steps} steps of {width} numbers of any dtype")
    found = np.frombuffer(data, _int16_steps(width))
    scales = found["scale"]
    if (found["tag"] != INT16_TAG).any() or not ((scales >= SMALLEST_SCALE) & (scales <= LARGEST_SCALE)).all():
        raise ValueError("the tag of a step is not that of int16, or its scale is not valid")
    numbers: Array = found["numbers"] * scales[:, np.newaxis]
    return numbers


@functools.lru_cache(256)
def _int16_steps(width: int) -> np.dtype[Any]:
    return np.dtype([("tag", "u1"), ("scale", "<f4"), ("numbers", "<i2", (width,))])
