"""Panels of a figure under each other on one time axis: heat maps, lines and words."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

Array = np.ndarray[Any, np.dtype[Any]]

UNIT_COLORS = mpl.colormaps["viridis"].with_extremes(bad="0.9")
SIGNED_COLORS = mpl.colormaps["RdBu_r"].with_extremes(bad="0.9")


@dataclass(frozen=True)
class Panel(ABC):
    """A part of a figure over time, drawn on an axis in units of one step."""

    title: str
    label: str
    """The label of the vertical axis."""

    step_width: ClassVar[float] = 0.06
    """The preferred width of a step in inches."""

    @property
    @abstractmethod
    def height(self) -> float:
        """The height in inches."""

    @abstractmethod
    def draw(self, axis: Axes) -> None: ...


@dataclass(frozen=True)
class HeatMap(Panel):
    """Values from 0 to 1, or, if signed, on a scale symmetric about 0; NaN is grey."""

    values: Array
    """[T, rows]"""
    rows: Sequence[str] = ()
    """The label of each row; numbers, if there are none."""
    group: int = 0
    """The number of rows between separating lines; 0 for no lines."""
    signed: bool = False

    @property
    def height(self) -> float:
        return 0.15 * len(self.rows) or max(0.7, min(4.0, 0.11 * len(self.values.T)))

    def draw(self, axis: Axes) -> None:
        heat_map(axis, self.values.T, largest(self.values) if self.signed else None)
        if self.rows:
            axis.set_yticks(range(len(self.rows)), self.rows, fontsize=7)
        for row in range(self.group, len(self.values.T), self.group) if self.group else ():
            axis.axhline(row - 0.5, color="white", linewidth=0.8)


@dataclass(frozen=True)
class Lines(Panel):
    """A line for each of some quantities, from 0 to `top`, or to the largest value if `top` is None."""

    values: Array
    """[T, lines]"""
    names: Sequence[str]
    top: float | None

    height = 1.1

    def draw(self, axis: Axes) -> None:
        for values, name in zip(self.values.T, self.names, strict=True):
            axis.plot(values, label=name, linewidth=1.2, marker=".", markersize=3)
        axis.set_ylim(0, 1.05 * (self.top or largest(self.values)))
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7)


@dataclass(frozen=True)
class Words(Panel):
    """A word for each step."""

    words: Sequence[str]

    height = 0.7
    step_width = 0.11

    def draw(self, axis: Axes) -> None:
        points_per_step = 72 * _width(len(self.words), self.step_width) / len(self.words)
        axis.set_yticks([])
        axis.set_ylim(0, 1)
        for step, word in enumerate(self.words):
            axis.text(step, 0.5, word, rotation=90, ha="center", va="center", fontsize=min(8.0, 0.75 * points_per_step))


def figure_over_time(panels: Sequence[Panel], steps: int) -> Figure:
    """Draw panels under each other, with one scale of colours for all from 0 to 1, and one for each that is signed."""
    heights = [panel.height for panel in panels]
    width = _width(steps, max(panel.step_width for panel in panels))
    figure = Figure(figsize=(width, 0.5 + sum(heights) + 0.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        axis.set_title(panel.title, loc="left", fontsize=9)
        axis.set_ylabel(panel.label)
        panel.draw(axis)
    axes[-1].set_xlim(-0.5, steps - 0.5)
    axes[-1].set_xlabel("time (steps)")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    images = [image for axis in axes for image in axis.images]
    unit = [image for image in images if image.cmap == UNIT_COLORS]
    if unit:
        figure.colorbar(unit[0], ax=[image.axes for image in unit], fraction=0.03, label="value, from 0 to 1")
    for image in images:
        if image not in unit:
            figure.colorbar(image, ax=image.axes, fraction=0.03, label="value")
    return figure


def heat_map(axis: Axes, values: Array, limit: float | None, **options: Any) -> AxesImage:
    """Draw values as colours on a fixed scale, from 0 to 1, or from -limit to limit; NaN is grey."""
    least, greatest, colors = (0.0, 1.0, UNIT_COLORS) if limit is None else (-limit, limit, SIGNED_COLORS)
    options = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"} | options
    image = axis.imshow(np.ma.masked_invalid(values), vmin=least, vmax=greatest, cmap=colors, **options)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    return image


def largest(values: Array) -> float:
    """Return the largest distance from 0; 1 if all values are 0."""
    return float(np.nanmax(np.abs(values), initial=0)) or 1.0


def _width(steps: int, step_width: float) -> float:
    """Return the width in inches of a figure of `steps` steps."""
    return max(9.0, min(30.0, steps * step_width))
