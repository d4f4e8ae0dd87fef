"""Figure of a trained model's errors beyond the sizes of its training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.plots.learning import ERROR_SCALE, has_optimum
from training.tasks import Task


class Line(NamedTuple):
    """A line of measurements that differ in one option only."""

    name: str
    rows: list[dict[str, Any]]


def lines_measured(rows: Sequence[dict[str, Any]]) -> dict[str, list[Line]]:
    """Return the lines over each option that varies: one for each memory size and each choice of the other options.

    A line has its rows in the order of the option. A single row is a line, unless it lies on a line of another option.
    """
    lines = {name: _lines_over(rows, name) for name in _options_measured(rows)}
    longer = [line for found in lines.values() for line in found if len(line.rows) > 1]
    joined = {id(row) for line in longer for row in line.rows}
    return {
        name: [line for line in found if len(line.rows) > 1 or id(line.rows[0]) not in joined]
        for name, found in lines.items()
    }


def _lines_over(rows: Sequence[dict[str, Any]], name: str) -> list[Line]:
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(_with_number(rows, name), key=lambda row: float(row["options"][name])):
        others = [
            f"{other.replace('_', ' ')} {_plain(value)}" for other, value in row["options"].items() if other != name
        ]
        size = [] if row["memory_size"] is None else [f"{row['memory_size']} locations"]
        lines.setdefault(", ".join([*size, *others]) or "measured", []).append(row)
    return [Line(label, found) for label, found in lines.items()]


def _with_number(rows: Sequence[Any], name: str) -> list[Any]:
    """Return the rows in which this option is one number, not a range."""
    return [row for row in rows if isinstance(row["options"].get(name), int | float)]


def _options_measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options that have several values in an evaluation."""
    names = dict.fromkeys(name for row in rows for name in row["options"])
    return [name for name in names if len({row["options"][name] for row in _with_number(rows, name)}) > 1]


def _plain(value: Any) -> str:
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)


def figure_of_generalisation(lines: Mapping[str, Sequence[Line]], task: Task) -> Figure:
    """Draw the errors over each option that was measured; task: as in training, whose sizes are shaded."""
    figure = Figure(figsize=(1 + 6.5 * len(lines), 4.2), layout="constrained")
    axes = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
    scale = {"value": "linear"} if has_optimum(type(task)) else ERROR_SCALE
    for axis, name in zip(axes, lines, strict=True):
        axis.set_yscale(**scale)
        if name in task.sizes:
            least, greatest = task.sizes[name]
            axis.axvspan(least - 0.5, greatest + 0.5, color="0.88", label="sizes of training")
        for color, line in enumerate(lines[name]):
            _draw_line(axis, name, line, f"C{color}")
        axis.set_xlabel(name.replace("_", " "))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel(f"{task.unit} per sequence")
    axes[0].set_ylim(bottom=-0.002)
    return figure


def _draw_line(axis: Axes, name: str, line: Line, color: str) -> None:
    values = [row["options"][name] for row in line.rows]
    axis.plot(values, [row["errors"] for row in line.rows], "o-", color=color, clip_on=False, label=line.name)
    if all(row["optimum"] is not None for row in line.rows):
        optima = [row["optimum"] for row in line.rows]
        axis.plot(values, optima, "--", color=color, label=f"{line.name}: least that can be expected")
