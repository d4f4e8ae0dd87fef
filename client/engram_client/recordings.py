"""Recordings of sessions as arrays, and in files."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from engram_client.errors import EngramClientError, Lost
from engram_client.figures import figure_over_time
from engram_client.messages import read_step
from engram_client.results import Array, Recorded, Traces
from engram_client.tables import data_frame, html_arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Recording:
    """T steps of a session's past. As an array of NumPy it is its outputs."""

    steps: NDArray[np.int64]
    """[T], the number of steps that the session had taken after each."""
    inputs: Array
    """[T, input_size]."""
    outputs: Array
    """[T, output_size]."""
    trace: Traces
    """Name -> [T, ...]."""

    @classmethod
    def of(cls, steps: Iterable[Recorded]) -> Self:
        """Return the steps that `Session.recording` gives one by one. Raises ValueError where they do not fit."""
        past = list(steps)
        for recorded in past:
            if _shapes(recorded) != _shapes(past[0]):
                raise ValueError(
                    f"step {recorded.step}: expected {_shapes(past[0])}, as step {past[0].step} has, "
                    f"got {_shapes(recorded)}"
                )
        traces = {
            name: np.stack([recorded.trace[name] for recorded in past]) for name in (past[0].trace if past else ())
        }
        return cls(
            np.array([recorded.step for recorded in past], np.int64),
            _stacked([recorded.inputs for recorded in past]),
            _stacked([recorded.outputs for recorded in past]),
            traces,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the recording in a file of lines of JSON: one that `save` wrote, or the body of GET .../recording.

        Raises ValueError, which names the line, for any other.
        """
        with Path(path).open("rb") as lines:
            return cls.of([_read(f"{path}:{number}", line) for number, line in enumerate(lines, 1)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recording to a file of lines of JSON, a step each. A file of this name is replaced at the end."""
        part = Path(f"{os.fspath(path)}.part")
        try:
            with part.open("w") as file:
                file.writelines(json.dumps(_document(recorded)) + "\n" for recorded in self)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Recorded]:
        for t, step in enumerate(self.steps.tolist()):
            trace = {name: values[t] for name, values in self.trace.items()}
            yield Recorded(step, self.inputs[t], self.outputs[t], trace)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.outputs, dtype) if copy else np.asarray(self.outputs, dtype)

    def __repr__(self) -> str:
        return f"<{self._title} {list(self.inputs.shape)} -> {list(self.outputs.shape)}, trace {list(self.trace)}>"

    def _repr_html_(self) -> str:
        return html_arrays(self._title, self._arrays)

    def to_pandas(self) -> "DataFrame":
        """Return a row for each step, with columns such as `inputs[0]`. Raises ModuleNotFoundError without pandas."""
        return data_frame(self.steps, self._arrays)

    def plot(self) -> "Figure":
        """Draw inputs, outputs and traces over time. Raises ModuleNotFoundError without matplotlib."""
        return figure_over_time(self._title, self.steps.tolist(), self._arrays)

    @property
    def _title(self) -> str:
        return f"Recording of steps {self.steps[0]} to {self.steps[-1]}" if len(self) else "Recording of no step"

    @property
    def _arrays(self) -> dict[str, Array]:
        return {"inputs": self.inputs, "outputs": self.outputs, **self.trace}


def _shapes(recorded: Recorded) -> dict[str, list[int]]:
    arrays = {"inputs": recorded.inputs, "outputs": recorded.outputs, **recorded.trace}
    return {name: list(values.shape) for name, values in arrays.items()}


def _stacked(rows: list[Array]) -> Array:
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


def _document(recorded: Recorded) -> Mapping[str, Any]:
    step, inputs, outputs, trace = recorded
    traces = {name: values.tolist() for name, values in trace.items()}
    return {"step": step, "inputs": inputs.tolist(), "outputs": outputs.tolist(), "trace": traces}


def _read(place: str, line: bytes) -> Recorded:
    try:
        recorded = read_step(line)
    except (EngramClientError, Lost) as error:
        raise ValueError(f"{place}: the recording breaks off here: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        got = line[:60].decode(errors="replace").strip()
        raise ValueError(
            f'{place}: expected a step, {{"step": 1, "inputs": [...], "outputs": [...], "trace": {{...}}}}, got {got!r}'
        ) from error
    if recorded.inputs.ndim != 1 or recorded.outputs.ndim != 1 or not _is_step(recorded.step):
        raise ValueError(f"{place}: expected a whole number as step, and inputs and outputs in lists of numbers")
    return recorded


def _is_step(step: Any) -> bool:
    return type(step) is int and 0 < step < 2**63
