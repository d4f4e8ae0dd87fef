"""From what a client sent to arrays: every refusal names the place, what was expected and what came."""

import reprlib
from typing import Any

import numpy as np

from app.backends.base import Array
from app.errors import InvalidInput

FLOAT32_MAX = float(np.finfo(np.float32).max)


def parse_sequences(value: Any, width: int, max_steps: int, max_sequences: int) -> tuple[list[Array], bool]:
    """Return the sequences of an /infer request, each float32 [T, width], and whether they came as a batch.

    value: [T][width], or [B][T][width] where each sequence has a length of its own. Raises InvalidInput.
    """
    if not _is_batch(value):
        return [parse_sequence(value, width, max_steps)], False
    if len(value) > max_sequences:
        raise InvalidInput(
            f"inputs: at most {max_sequences} sequences are taken at a time, but {len(value)} came",
            place="inputs",
            expected=f"at most {max_sequences} sequences",
            got=f"{len(value)} sequences",
        )
    return [parse_sequence(item, width, max_steps, f"inputs[{index}]") for index, item in enumerate(value)], True


def parse_sequence(value: Any, width: int, max_steps: int, place: str = "inputs") -> Array:
    """Return one sequence as float32 [T, width].

    value: a list of T steps, each a list of `width` numbers; true and false pass for 1 and 0. Raises InvalidInput.
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
    array = _as_float32(value)
    if array is None or array.shape != (len(value), width) or not np.isfinite(array).all():
        raise _first_fault(value, width, place)
    return array


def brief(value: Any) -> str:
    """Return a short text for a value of any size and depth."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_batch(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(step, list) and step and isinstance(step[0], list) for step in value
    )


def _as_float32(value: Any) -> Array | None:
    """Return the numbers as float32, or None where they are ragged or not numbers."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    if array.dtype == object and all(_is_number(number) for number in array.flat):
        array = array.astype(np.float64)  # integers beyond 64 bits
    if array.dtype.kind not in "fiub":
        return None
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _first_fault(value: Any, width: int, place: str) -> InvalidInput:
    """Return the error for the first thing that is wrong with a sequence that could not be taken as it is."""
    for t, step in enumerate(value):
        if not isinstance(step, (list, np.ndarray)):
            return _invalid(f"{place}[{t}]", f"a list of {width} numbers", step)
        if len(step) != width:
            return InvalidInput(
                f"{place}[{t}]: expected {width} numbers, got {len(step)}",
                place=f"{place}[{t}]",
                expected=f"{width} numbers",
                got=f"{len(step)} numbers",
            )
        for i, number in enumerate(step.tolist() if isinstance(step, np.ndarray) else step):
            if not _is_number(number):
                return _invalid(f"{place}[{t}][{i}]", "a finite number within the range of float32", number)
    return _invalid(place, f"a list of steps, each a list of {width} numbers", value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= FLOAT32_MAX


def _invalid(place: str, expected: str, got: Any) -> InvalidInput:
    shown = brief(got)
    return InvalidInput(f"{place}: expected {expected}, got {shown}", place=place, expected=expected, got=shown)
