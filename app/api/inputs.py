"""From what a client sent to arrays: every refusal names the place, what was expected and what came."""

import math
import reprlib
from typing import Any

import numpy as np

from app.backends.base import Array
from app.catalogue import InputFormat
from app.errors import InvalidInput

FLOAT32_MAX = math.nextafter(2.0**128 - 2.0**103, 0)
"""The largest float64 that float32 rounds to a finite number; NumPy prints float32's own as 3.4028235e+38, above it."""


def parse_sequences(value: Any, expected: InputFormat, max_steps: int, max_sequences: int) -> tuple[list[Array], bool]:
    """Return the sequences of an /infer request, each float32 [T, width], and whether they came as a batch.

    value: [T][width], or [B][T][width] where each sequence has a length of its own; one sequence of tokens may also
    come as [T]. Raises InvalidInput.
    """
    if not _is_batch(value):
        return [parse_sequence(value, expected, max_steps)], False
    if len(value) > max_sequences:
        raise InvalidInput(
            f"inputs: at most {max_sequences} sequences are taken at a time, but {len(value)} came",
            place="inputs",
            expected=f"at most {max_sequences} sequences",
            got=f"{len(value)} sequences",
        )
    return [parse_sequence(item, expected, max_steps, f"inputs[{index}]") for index, item in enumerate(value)], True


def parse_sequence(value: Any, expected: InputFormat, max_steps: int, place: str = "inputs") -> Array:
    """Return one sequence as float32 [T, width].

    value: a list of T steps, each a list of `width` numbers, or of one token, which may then stand without its list;
    true and false pass for 1 and 0. Raises InvalidInput.
    """
    if not isinstance(value, (list, np.ndarray)):
        raise _invalid(place, "a list of steps, each a list of numbers", value)
    if len(value) == 0:
        raise _invalid(place, "at least one step", value)
    if len(value) > max_steps:
        raise InvalidInput(
            f"{place}: at most {max_steps} steps are taken at a time (setting max_steps), but {len(value)} came",
            place=place,
            expected=f"at most {max_steps} steps",
            got=f"{len(value)}",
        )
    numbers = _as_numbers(value)
    if numbers is not None and numbers.ndim == 1 and expected.vocabulary_size is not None:
        numbers = numbers[:, np.newaxis]
    if numbers is None or numbers.shape != (len(value), expected.width) or not _are_valid(numbers, expected):
        raise _first_fault(value, expected, place)
    return numbers.astype(np.float32)


def brief(value: Any) -> str:
    """Return a short text for a value of any size and depth."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_batch(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(step, list) and step and isinstance(step[0], list) for step in value
    )


def _as_numbers(value: Any) -> Array | None:
    """Return the numbers as an array of one type, or None where they are ragged or not numbers."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    if array.dtype == object and all(_is_number(number) for number in array.flat):
        array = array.astype(np.float64)  # integers beyond 64 bits
    return array if array.dtype.kind in "fiub" else None


def _are_valid(numbers: Array, expected: InputFormat) -> bool:
    if expected.vocabulary_size is None:
        return bool((np.abs(numbers, dtype=np.float64) <= FLOAT32_MAX).all())
    return bool(((numbers >= 0) & (numbers < expected.vocabulary_size) & (numbers == np.floor(numbers))).all())


def _first_fault(value: Any, expected: InputFormat, place: str) -> InvalidInput:
    """Return the error for the first thing that is wrong with a sequence that could not be taken as it is."""
    steps = value.tolist() if isinstance(value, np.ndarray) else value
    alone = expected.vocabulary_size is not None and not any(isinstance(step, (list, np.ndarray)) for step in steps)
    for t, step in enumerate(steps):
        fault = (_number_fault if alone else _step_fault)(step, expected, f"{place}[{t}]")
        if fault is not None:
            return fault
    return _invalid(place, f"a list of steps, each a list of {_count(expected)}", value)


def _step_fault(step: Any, expected: InputFormat, place: str) -> InvalidInput | None:
    if not isinstance(step, (list, np.ndarray)):
        return _invalid(place, f"a list of {_count(expected)}", step)
    if len(step) != expected.width:
        return InvalidInput(
            f"{place}: expected {_count(expected)}, got {len(step)}",
            place=place,
            expected=_count(expected),
            got=f"{len(step)} numbers",
        )
    numbers = enumerate(step.tolist() if isinstance(step, np.ndarray) else step)
    faults = (_number_fault(number, expected, f"{place}[{i}]") for i, number in numbers)
    return next((fault for fault in faults if fault is not None), None)


def _number_fault(number: Any, expected: InputFormat, place: str) -> InvalidInput | None:
    if _is_number(number) and _are_valid(np.asarray(number, np.float64), expected):
        return None
    if expected.vocabulary_size is None:
        return _invalid(place, "a finite number within the range of float32", number)
    return _invalid(place, f"a token, a whole number from 0 to {expected.vocabulary_size - 1}", number)


def _count(expected: InputFormat) -> str:
    """Return in words how much a step is."""
    if expected.vocabulary_size is not None:
        return "one token"
    return f"{expected.width} number" + ("s" if expected.width > 1 else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= FLOAT32_MAX


def _invalid(place: str, expected: str, got: Any) -> InvalidInput:
    shown = brief(got)
    return InvalidInput(f"{place}: expected {expected}, got {shown}", place=place, expected=expected, got=shown)
