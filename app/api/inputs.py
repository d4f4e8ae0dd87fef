"""Parse the inputs of requests to arrays. Every refusal names the place, the expected and the actual value."""

import functools
import itertools
import math
import reprlib
import struct
from typing import Any

import numpy as np

from app.backends.base import Array, are_ordinary
from app.catalogue import InputFormat
from app.errors import InvalidInput

FLOAT32_MAX = math.nextafter(2.0**128 - 2.0**103, 0)
"""The largest float64 that float32 rounds to a finite number; NumPy prints float32's own as 3.4028235e+38, above it."""

NUMBERS = frozenset((int, float, bool))
BRIEF_LENGTH = 60


def parse_sequences(value: Any, expected: InputFormat, max_steps: int, max_sequences: int) -> tuple[list[Array], bool]:
    """Return the sequences of an /infer request, each float32 [T, width], and whether they came as a batch.

    value: [T][width], or [B][T][width], each sequence of its own length; one sequence of tokens may also be [T]. Raises
    InvalidInput.
    """
    packed = _pack(value, expected, max_steps)
    if packed is not None:
        return [packed], False
    if not _is_batch(value, max(max_steps, max_sequences)):
        return [_parse_any(value, expected, max_steps, "inputs")], False
    if len(value) > max_sequences:
        raise InvalidInput(
            f"inputs: at most {max_sequences} sequences are accepted at a time, but {len(value)} came",
            place="inputs",
            expected=f"at most {max_sequences} sequences",
            got=f"{len(value)} sequences",
        )
    return [parse_sequence(item, expected, max_steps, f"inputs[{index}]") for index, item in enumerate(value)], True


def parse_sequence(value: Any, expected: InputFormat, max_steps: int, place: str = "inputs") -> Array:
    """Return one sequence as float32 [T, width].

    value: a list of T steps, each a list of `width` numbers, or of one token, which may also stand without its list;
    true and false count as 1 and 0. Raises InvalidInput for the first fault.
    """
    packed = _pack(value, expected, max_steps)
    return _parse_any(value, expected, max_steps, place) if packed is None else packed


def _pack(value: Any, expected: InputFormat, max_steps: int) -> Array | None:
    """Return a sequence of the usual form as float32 [T, width]; None leaves it to _parse_any."""
    if not isinstance(value, (list, np.ndarray)) or not 0 < len(value) <= max_steps:
        return None
    if expected.whole:
        return None
    if isinstance(value, np.ndarray):
        return _pack_array(value, expected)
    try:
        if expected.vocabulary_size is None:
            return _pack_numbers(value, expected.width)
        return _pack_tokens(value, expected.vocabulary_size)
    except (struct.error, OverflowError, TypeError, ValueError):
        return None


def _pack_array(array: Array, expected: InputFormat) -> Array | None:
    shape = (len(array), expected.width)
    if array.dtype != np.float32 or array.shape != shape or expected.vocabulary_size is not None:
        return None
    return np.array(array) if are_ordinary(array) or np.isfinite(array).all() else None


def _pack_numbers(steps: list[Any], width: int) -> Array | None:
    """Return steps as float32 [T, width]; `struct` refuses numbers beyond float32, the sum shows NaN and infinities."""
    for step in steps:
        if type(step) is not list or len(step) != width:
            return None
    numbers = steps[0] if len(steps) == 1 else list(itertools.chain.from_iterable(steps))
    if not NUMBERS.issuperset(map(type, numbers)) or not math.isfinite(sum(numbers)):
        return None
    sequence = np.empty((len(steps), width), np.float32)
    _packer(len(numbers)).pack_into(sequence.data, 0, *numbers)
    return sequence


def _pack_tokens(steps: list[Any], vocabulary_size: int) -> Array | None:
    tokens = [token for (token,) in steps] if type(steps[0]) is list else steps
    if {*map(type, tokens)} != {int} or min(tokens) < 0 or max(tokens) >= vocabulary_size:
        return None
    return np.array(tokens, np.float64).astype(np.float32).reshape(-1, 1)


@functools.lru_cache(256)
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"={count}f")


def _parse_any(value: Any, expected: InputFormat, max_steps: int, place: str) -> Array:
    """Do what parse_sequence does, for values of any form."""
    if not isinstance(value, (list, np.ndarray)):
        raise _invalid(place, "a list of steps, each a list of numbers", value)
    if len(value) == 0:
        raise _invalid(place, "at least one step", value)
    if len(value) > max_steps:
        raise InvalidInput(
            f"{place}: at most {max_steps} steps are accepted at a time (setting max_steps), but {len(value)} came",
            place=place,
            expected=f"at most {max_steps} steps",
            got=f"{len(value)}",
        )
    if isinstance(value, np.ndarray) and value.shape == (len(value), expected.width):
        return _checked(np.asarray(value).ravel(), expected, place)
    steps = value.tolist() if isinstance(value, np.ndarray) else value
    if expected.vocabulary_size is not None and not any(isinstance(step, (list, np.ndarray)) for step in steps):
        return _checked(steps, expected, place, alone=True)
    return _parse_steps(steps, expected, place)


def brief(value: Any) -> str:
    """Return a short text for a value of any size and depth."""
    return cut(_BRIEF.repr(value))


def cut(text: str) -> str:
    """Return a text, or the beginning of a long one."""
    return text if len(text) <= BRIEF_LENGTH else f"{text[: BRIEF_LENGTH - 3]}..."


class _Brief(reprlib.Repr):
    """A repr of a few items only, where reprlib sorts all keys of an object, and writes bytes and arrays in full."""

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict(dict(itertools.islice(x.items(), self.maxdict + 1)), level)

    def repr_bytes(self, x: bytes, _: int) -> str:
        return f"{len(x)} bytes"

    def repr_ndarray(self, x: Array, _: int) -> str:
        return f"an array of shape {list(x.shape)}"

    repr_CompactArray = repr_ndarray  # noqa: N815 - reprlib looks for the name of the class


_BRIEF = _Brief()


def _is_batch(value: Any, most: int) -> bool:
    """Return whether a value is a list of sequences, not of steps, judged by its first `most` items."""
    return isinstance(value, list) and any(
        isinstance(step, list) and step and isinstance(step[0], list) for step in itertools.islice(value, most)
    )


def _parse_steps(steps: list[Any], expected: InputFormat, place: str) -> Array:
    """Return a sequence of lists as float32 [T, width]. Raises InvalidInput for the first fault."""
    steps = [step.tolist() if isinstance(step, np.ndarray) and step.ndim == 1 else step for step in steps]
    width = expected.width
    whole = next((t for t, step in enumerate(steps) if type(step) is not list or len(step) != width), len(steps))
    sequence = _checked(list(itertools.chain.from_iterable(steps[:whole])), expected, place)
    if whole < len(steps):
        raise _step_fault(steps[whole], expected, f"{place}[{whole}]")
    return sequence


def _checked(values: list[Any] | Array, expected: InputFormat, place: str, alone: bool = False) -> Array:
    """Return the values of whole steps as float32 [T, width]; alone: the steps stand without their lists.

    Raises InvalidInput for the first value that is no number, or not allowed in a step.
    """
    numbers = values if isinstance(values, np.ndarray) else _leading_numbers(values)
    valid = _are_valid(numbers, expected)
    first = len(numbers) if valid.all() else int(valid.argmin())
    if first == len(values):
        return numbers.reshape(-1, expected.width).astype(np.float32)
    t, i = divmod(first, expected.width)
    raise _number_fault(values[first], expected, i, f"{place}[{t}]" if alone else f"{place}[{t}][{i}]")


def _leading_numbers(values: list[Any]) -> Array:
    """Return the values up to the first that is no number, as float64 [N]."""
    count = len(values)
    if not NUMBERS.issuperset(map(type, values)):
        count = [kind in NUMBERS for kind in map(type, values)].index(False)
    try:
        return np.fromiter(values, np.float64, count)
    except OverflowError:  # an integer beyond any float
        return np.array([value if abs(value) <= FLOAT32_MAX else math.inf for value in values[:count]], np.float64)


def _are_valid(numbers: Array, expected: InputFormat) -> Array:
    """Return which of the numbers, [N], are allowed in a step, bool [N]."""
    if expected.vocabulary_size is None:
        valid: Array = np.abs(numbers, dtype=np.float64) <= FLOAT32_MAX
        for start, stop, least, greatest in expected.whole:
            places = np.arange(len(numbers)) % expected.width
            outside = (places < start) | (places >= stop)
            valid &= outside | ((numbers >= least) & (numbers <= greatest) & (numbers == np.floor(numbers)))
    else:
        valid = (numbers >= 0) & (numbers < expected.vocabulary_size) & (numbers == np.floor(numbers))
    return valid


def _step_fault(step: Any, expected: InputFormat, place: str) -> InvalidInput:
    if not isinstance(step, list):
        return _invalid(place, f"a list of {_count(expected)}", step)
    return InvalidInput(
        f"{place}: expected {_count(expected)}, got {len(step)}",
        place=place,
        expected=_count(expected),
        got=f"{len(step)} numbers",
    )


def _number_fault(number: Any, expected: InputFormat, index: int, place: str) -> InvalidInput:
    number = number.item() if isinstance(number, np.generic) else number
    for start, stop, least, greatest in expected.whole:
        if start <= index < stop:
            return _invalid(place, f"a whole number from {least:.0f} to {greatest:.0f}", number)
    if expected.vocabulary_size is None:
        return _invalid(place, "a finite number within the range of float32", number)
    return _invalid(place, f"a token, a whole number from 0 to {expected.vocabulary_size - 1}", number)


def _count(expected: InputFormat) -> str:
    """Return the size of a step in words."""
    if expected.vocabulary_size is not None:
        return "one token"
    return f"{expected.width} number" + ("s" if expected.width > 1 else "")


def _invalid(place: str, expected: str, got: Any) -> InvalidInput:
    shown = brief(got)
    return InvalidInput(f"{place}: expected {expected}, got {shown}", place=place, expected=expected, got=shown)
