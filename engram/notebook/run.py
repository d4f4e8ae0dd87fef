"""The run of a sequence: inputs, outputs, traces, and the answer where one is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.backends.base import Array
from engram.notebook.given import numbers_of
from engram.notebook.optional import data_frame, figures
from engram.notebook.tables import columns_of, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

WATCHED = ("write_weights", "read_weights", "usage")
"""The traces of a run, unless others are asked for."""

UNITS = {"sigmoid": "wrong bits", "softmax": "wrong classes", "identity": "mean square error"}
"""The unit of errors, by the activation of the outputs."""


@dataclass(frozen=True, eq=False)
class Run:
    """T steps of a model."""

    card: Mapping[str, Any]
    """The description of the model."""
    steps: NDArray[np.int64]
    """[T], the number of steps that the session had taken after each."""
    inputs: Array
    """[T, input_size]."""
    outputs: Array
    """[T, output_size]."""
    trace: dict[str, Array]
    """Name -> [T, ...]."""
    targets: Array | None
    """[T, output_size], NaN where nothing is due; None where no answer is known."""
    force: dict[str, Any] | None = None
    """The gates that were held at values."""
    memory_size: int | None = None
    """The number of memory locations."""

    @property
    def unit(self) -> str:
        """The unit of `errors`: wrong bits, wrong classes or mean square error."""
        return UNITS[self.card["output_activation"]]

    @property
    def errors(self) -> Array | None:
        """The errors of each step, [T], NaN where nothing is due; None without targets. `unit` is their unit."""
        if self.targets is None:
            return None
        if self.unit == "wrong bits":
            wrong = (self.outputs > 0.5) != (self.targets > 0.5)
        elif self.unit == "wrong classes":
            wrong = self._classes(self.outputs) != self._classes(np.nan_to_num(self.targets))
        else:
            return np.asarray(np.square(self.outputs - self.targets).mean(axis=1))
        return np.where(np.isnan(self.targets).any(axis=1), np.nan, wrong.sum(axis=1))

    def _classes(self, values: Array) -> NDArray[np.int64]:
        groups: int = self.card["output_groups"]
        return np.asarray(values.reshape(len(values), groups, -1).argmax(axis=2))

    @property
    def error(self) -> float | None:
        """The errors of all steps together, or their mean where the unit is a mean; None without targets."""
        errors = self.errors
        if errors is None or np.isnan(errors).all():
            return None
        return float(np.nanmean(errors) if self.unit.startswith("mean") else np.nansum(errors))

    def plot(self) -> "Figure":
        """Draw inputs, target and output, and the traces over time. Raises ModuleNotFoundError without matplotlib."""
        figure: Figure = figures().figure_of_run(self)
        return figure

    def to_pandas(self) -> "DataFrame":
        """Return a row for each step, with columns such as `outputs[0]`. Raises ModuleNotFoundError without pandas."""
        targets = {} if self.targets is None else {"targets": self.targets}
        columns = columns_of({"inputs": self.inputs, "outputs": self.outputs, **targets, **self.trace})
        frame = data_frame(columns, self.steps)
        frame.index.name = "step"
        return frame

    def __repr__(self) -> str:
        return f"<Run of {self.card['name']}: {', '.join(' '.join(row) for row in self._rows())}>"

    def _repr_html_(self) -> str:
        return html_table(f"Run of {self.card['name']}", self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        arrays = {"inputs": self.inputs, "outputs": self.outputs, **self.trace}
        rows = [(name, " x ".join(map(str, values.shape))) for name, values in arrays.items()]
        rows += [] if self.error is None else [(self.unit, f"{self.error:g}")]
        return rows + ([] if self.force is None else [("force", str(self.force))])


def due(targets: ArrayLike | None, mask: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """Return the targets, NaN where nothing is due.

    Raises ValueError unless they have the shape of the outputs, InvalidInput for anything but numbers.
    """
    if targets is None:
        if mask is not None:
            raise ValueError("mask: there are no targets that it could be of; give both, or neither")
        return None
    array = numbers_of("targets", targets)
    due = np.ones(shape[0], bool) if mask is None else numbers_of("mask", mask) > 0
    for name, found, expected in (("targets", array.shape, shape), ("mask", due.shape, shape[:1])):
        if found != expected:
            raise ValueError(f"{name}: expected shape {list(expected)}, as the outputs have it, got {list(found)}")
    array[~due] = np.nan
    return array
