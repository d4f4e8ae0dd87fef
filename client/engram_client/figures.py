"""Figures over time: inputs, outputs, and where the heads of a memory write and read. They need matplotlib."""

import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WATCHED = ("write_weights", "read_weights", "usage")
"""The traces that a figure has, unless others are asked for."""

MOST_HEADS = 16
"""The most parts of a figure for one array; one of more has a single part with all of its numbers."""

STEP_INCHES, ROW_INCHES = 0.09, 0.11


class Panel(NamedTuple):
    title: str
    values: NDArray[Any]
    """[T, rows]"""


def figure_over_time(title: str, steps: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> "Figure":
    """Draw arrays, name -> [T, ...], under each other over T steps; one of [T, heads, N] has a part for each head.

    steps: their numbers, in order. Raises ValueError without steps, ModuleNotFoundError without matplotlib.
    """
    if not steps:
        raise ValueError(f"{title}: there is nothing to draw: run some steps first")
    panels = [panel for name, values in arrays.items() for panel in _panels(name, values)]
    heights = [min(3.0, max(0.5, ROW_INCHES * panel.values.shape[1])) for panel in panels]
    width = min(24.0, max(8.0, STEP_INCHES * len(steps)))
    figure = _new_figure((width, 0.8 + sum(heights) + 0.35 * len(panels)))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    figure.suptitle(title, fontsize=10)
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, panel, steps)
    axes[-1].set_xlabel("step")
    return figure


def _panels(name: str, values: NDArray[Any]) -> Iterator[Panel]:
    words = name.replace("_", " ")
    if values.ndim != 3 or values.shape[1] > MOST_HEADS:
        yield Panel(words, values.reshape(len(values), -1))
        return
    for head in range(values.shape[1]):
        yield Panel(f"{words}, head {head}", values[:, head])


def _new_figure(size: tuple[float, float]) -> "Figure":
    """Return a figure that a notebook shows, also where pyplot was not imported."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: a figure needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=size, layout="constrained")
    figure._repr_png_ = functools.partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: "Figure") -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    return drawn.getvalue()


def _draw(axis: "Axes", panel: Panel, steps: Sequence[int]) -> None:
    """Draw numbers from 0 to 1 on that scale, others on one that is symmetric about 0."""
    values = np.ma.masked_invalid(panel.values.T)
    is_unit = values.size == 0 or (values.min() >= -1e-6 and values.max() <= 1 + 1e-6)
    limit = 1.0 if is_unit else float(np.abs(values).max())
    colors, least = ("viridis", 0.0) if is_unit else ("RdBu_r", -limit)
    ends = (steps[0] - 0.5, steps[0] + len(steps) - 0.5, -0.5, len(values) - 0.5)
    options: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "nearest", "extent": ends}
    image = axis.imshow(values, vmin=least, vmax=limit, cmap=colors, **options)
    axis.set_title(panel.title, loc="left", fontsize=9)
    axis.locator_params(integer=True)
    axis.figure.colorbar(image, ax=axis, fraction=0.02, pad=0.01)
