"""The results of calls: arrays, and tuples of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

Traces = dict[str, Array]


class Result(NamedTuple):
    """The result of a whole sequence."""

    outputs: Array
    """[T, output_size]."""
    trace: Traces
    """Name -> [T, ...]."""
    steps: int
    """T."""


class Episode(NamedTuple):
    """A sequence to try a model with, and its answer."""

    inputs: Array
    """[T, input_size]."""
    targets: Array | None
    """[T, output_size]; None where no answer is known."""
    mask: NDArray[np.bool_] | None
    """[T], whether an answer is due; None where no answer is known."""


class Stepped(NamedTuple):
    """The result of some steps of a session."""

    outputs: Array
    """[T, output_size]."""
    trace: Traces
    """Name -> [T, ...]."""
    step: int
    """The number of steps that the session has taken after these."""


class Recorded(NamedTuple):
    """One step of a session's past."""

    step: int
    """The number of steps that the session had taken after this one."""
    inputs: Array
    """[input_size]."""
    outputs: Array
    """[output_size]."""
    trace: Traces
    """Name -> [...]."""
