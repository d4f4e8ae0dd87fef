"""Arguments from Python, which may be of any type."""

from typing import Any

import numpy as np

from app.api.inputs import brief
from app.backends.base import Array
from app.errors import InvalidInput, InvalidRequest

NUMBERS = "biufO"
"""The kinds of dtypes that have real numbers; objects may be."""


def numbers_of(place: str, value: Any) -> Array:
    """Return numbers of any shape as float32, infinite beyond it. place: of the argument, for errors.

    Raises InvalidInput for complex numbers, text, times and masked values, which NumPy would convert.
    """
    try:
        array = np.asarray(value)
        if array.dtype.kind not in NUMBERS or np.ma.is_masked(value):
            raise TypeError(f"got masked values of {array.dtype}" if np.ma.is_masked(value) else f"got {array.dtype}")
        with np.errstate(over="ignore"):
            return np.array(array, np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: of a tensor with gradients
        raise InvalidInput(f"{place}: expected real numbers: {error}", place=place) from error


def whole_number(place: str, value: Any) -> int:
    """Return a whole number, also one of NumPy. Raises InvalidRequest for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidRequest(f"{place}: expected a whole number, got {brief(value)}", place=place)
    return int(value)
