"""The results of calls: arrays, and tuples of them."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engram_client.figures import figure_over_time
from engram_client.tables import data_frame, html_arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

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

    def to_pandas(self) -> "DataFrame":
        """Return a row for each step, with columns such as `outputs[0]`. Raises ModuleNotFoundError without pandas."""
        return data_frame(range(1, self.steps + 1), _arrays(self))

    def plot(self) -> "Figure":
        """Draw outputs and traces over time. Raises ModuleNotFoundError without matplotlib."""
        return figure_over_time(f"Result of {self.steps} steps", range(1, self.steps + 1), _arrays(self))

    def _repr_html_(self) -> str:
        return html_arrays(f"Result of {self.steps} steps", _arrays(self))


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

    def to_pandas(self) -> "DataFrame":
        """Return a row for each step, with columns such as `outputs[0]`. Raises ModuleNotFoundError without pandas."""
        return data_frame(range(self.step - len(self.outputs) + 1, self.step + 1), _arrays(self))

    def plot(self) -> "Figure":
        """Draw outputs and traces over time. Raises ModuleNotFoundError without matplotlib."""
        return figure_over_time(
            f"Steps up to {self.step}", range(self.step - len(self.outputs) + 1, self.step + 1), _arrays(self)
        )

    def _repr_html_(self) -> str:
        return html_arrays(f"Steps up to {self.step}", _arrays(self))


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


def _arrays(result: Result | Stepped) -> Traces:
    return {"outputs": result.outputs, **result.trace}
