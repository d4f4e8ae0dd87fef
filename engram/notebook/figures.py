"""Figures of runs, alone and beside each other."""

import functools
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from app.backends.base import Array
from training.panels import HeatMap, Lines, Panel, Words, figure_over_time

if TYPE_CHECKING:
    from engram.notebook.run import Run


MOST_HEADS = 16
"""The most panels for one trace; one of more has a single panel with all of its numbers."""


def figure_of_run(run: "Run") -> Figure:
    """Draw input, target and output, and the traces over time; a trace of several heads has a panel for each."""
    traces = [panel for name, values in run.trace.items() for panel in _panels(name, values)]
    return _figure([_inputs(run), *_targets(run), _outputs(run, "output"), *traces], len(run.inputs))


def figure_of_runs(runs: "Sequence[tuple[str, Run]]") -> Figure:
    """Draw the outputs of runs over the same inputs under each other, and below the errors of each step.

    runs: with their names, which differ.
    """
    first = runs[0][1]
    panels = [_inputs(first), *_targets(first), *(_outputs(run, f"output of {name}") for name, run in runs)]
    errors = [run.errors for _, run in runs]
    known = [(name, found) for (name, _), found in zip(runs, errors, strict=True) if found is not None]
    if known:
        names, values = [name for name, _ in known], np.stack([found for _, found in known], axis=1)
        panels.append(Lines(f"{first.unit} of each step", "errors", values, names, None))
    return _figure(panels, len(first.inputs))


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    return drawn.getvalue()


def _figure(panels: Sequence[Panel], steps: int) -> Figure:
    """Return a figure that a notebook shows, also where pyplot was not imported."""
    figure = figure_over_time(panels, steps)
    figure._repr_png_ = functools.partial(png, figure)  # type: ignore[attr-defined]
    return figure


def _inputs(run: "Run") -> Panel:
    if run.card["vocabulary_size"] is None:
        return _heat_map("input", "channel", run.inputs)
    return Words("input", "token", [str(int(token)) for token in run.inputs[:, 0]])


def _targets(run: "Run") -> list[Panel]:
    title = "target (grey: no answer is asked for)"
    return [] if run.targets is None else [_heat_map(title, "output", run.targets)]


def _outputs(run: "Run", title: str) -> Panel:
    error = "" if run.error is None else f" ({run.error:g} {run.unit})"
    return _heat_map(title + error, "output", run.outputs)


def _panels(name: str, values: Array) -> Iterator[Panel]:
    words = name.replace("_", " ")
    if values.ndim == 3 and values.shape[1] <= MOST_HEADS:
        for head in range(values.shape[1]):
            yield _heat_map(f"{words}, head {head}", "location" if name.endswith("weights") else "", values[:, head])
    else:
        yield _heat_map(words, "location" if name == "usage" else "", values.reshape(len(values), -1))


def _heat_map(title: str, label: str, values: Array) -> Panel:
    known = values[np.isfinite(values)]
    return HeatMap(title, label, values, signed=bool(((known < 0) | (known > 1)).any()))
