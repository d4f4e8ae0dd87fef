"""Learning curves: errors and loss over the sequences of training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.manifest import MANIFEST_FILE, read_manifest
from training.panels import Array
from training.run_metrics import METRICS_FILE, read_metrics
from training.seeds import seed_directories
from training.tasks import TASKS, Task

LEARNING_DATA = "learning.json"
"""The file of every seed's validations beside a published manifest, which records when each converged."""


class PlotError(ValueError):
    """A directory that has nothing to draw; the message names the file and the fault."""


class Curve(NamedTuple):
    """The learning curves of one run."""

    name: str
    points: dict[str, Array]
    """For each of MEASURES that it has: rows of [sequences, value], in order."""
    converged_after: int | None
    """Sequences until the first validation at the target; None if there was none, or it is not known."""


class Measure(NamedTuple):
    """A quantity that is drawn over the sequences of training."""

    title: str
    unit: str | None
    """The axis label; None for errors, which have the unit of the task."""
    scale: dict[str, Any]


ERROR_SCALE = {"value": "symlog", "linthresh": 0.01, "linscale": 0.5}
"""A scale that is logarithmic down to 0.01, and linear from there to 0."""

MEASURES = {
    "validation_errors": Measure("validation, at the greatest sizes of training", None, ERROR_SCALE),
    "errors": Measure("training, mean of the last updates", None, ERROR_SCALE),
    "loss": Measure("loss per element asked for, mean of the last updates", "nats", {"value": "log"}),
}
"""Measures, by their names in the metrics."""


def learning_curves(directory: Path) -> list[Curve]:
    """Return the curves of the checkpoint, of the run, or of the runs in seed-N; none if there are no metrics.

    Raises PlotError if a file of metrics cannot be read, ManifestError.
    """
    if (directory / LEARNING_DATA).exists():
        curves = _shipped_curves(directory)
    else:
        curves = [_curve_of_run(run) for run in seed_directories(directory) or [directory]]
    return [curve for curve in curves if curve.points]


def _shipped_curves(directory: Path) -> list[Curve]:
    path, training = directory / LEARNING_DATA, read_manifest(directory).training
    try:
        curves = {seed: _points(rows) for seed, rows in json.loads(path.read_bytes()).items()}
        return [
            Curve(
                f"seed-{seed}" + " (chosen)" * (seed == str(training["seed"])),
                {"validation_errors": points} if len(points) else {},
                training["seeds"][seed]["converged_after"],
            )
            for seed, points in curves.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlotError(f"{path}: it does not hold learning curves: {error!r}; engram zoo writes it") from error


def _curve_of_run(run: Path) -> Curve:
    try:
        lines = read_metrics(run)
        points = {
            name: _points([[line["sequences"], line[name]] for line in lines if name in line]) for name in MEASURES
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        path = run / METRICS_FILE
        raise PlotError(f"{path}: it does not hold the metrics of a run: {error!r}; engram train writes it") from error
    training = read_manifest(run).training if (run / MANIFEST_FILE).exists() else {}
    measured = {name: values for name, values in points.items() if len(values)}
    return Curve(run.name, measured, training.get("converged_after"))


def _points(rows: Sequence[Sequence[float]]) -> Array:
    """Return the rows of [sequences, value] that are finite."""
    finite = [row for row in rows if np.isfinite(row).all()]
    return np.array(finite, dtype=float).reshape(-1, 2)


def task_learned(directory: Path) -> type[Task] | None:
    """Return the kind of task in the manifest, or in that of the first seed that has one; None if none has."""
    described = [run for run in (directory, *seed_directories(directory)) if (run / MANIFEST_FILE).exists()]
    return TASKS.get(read_manifest(described[0]).task.get("name", "")) if described else None


def figure_of_learning(curves: Sequence[Curve], task: type[Task] | None) -> Figure:
    """Draw errors and loss over the sequences; several runs are thin lines, their median a bold one."""
    shown = [name for name in MEASURES if any(name in curve.points for curve in curves)]
    figure = Figure(figsize=(9, 0.8 + 2.6 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, shown, strict=True):
        axis.set_title(MEASURES[name].title, loc="left", fontsize=9)
        axis.set_ylabel(MEASURES[name].unit or _error_unit(task, name))
        axis.set_yscale(**_scale(task, name))
        axis.grid(alpha=0.3)
        _draw_curves(axis, name, curves)
    axes[-1].set_xlabel("sequences (thousands)")
    axes[-1].set_xlim(left=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def _error_unit(task: type[Task] | None, name: str) -> str:
    """Return the label of errors, with their unit. Validations leave out those that no model can avoid."""
    beyond = has_optimum(task) and name == "validation_errors"
    return f"{task.unit if task else 'errors'} per sequence" + "\nbeyond the optimum" * beyond


def _scale(task: type[Task] | None, name: str) -> dict[str, Any]:
    """Return the scale of a measure; it is linear for errors that never come near 0, being partly unavoidable."""
    return {"value": "linear"} if has_optimum(task) and name == "errors" else MEASURES[name].scale


def has_optimum(task: type[Task] | None) -> bool:
    """Return whether a task has errors that no model can avoid."""
    return task is not None and task.optimum is not Task.optimum


def _draw_curves(axis: Axes, name: str, curves: Sequence[Curve]) -> None:
    several = len(curves) > 1
    for number, curve in enumerate(curves):
        points = curve.points.get(name, np.empty((0, 2)))
        width = 0.8 if several else 1.6
        axis.plot(*_thousands(points), _style(points), color=f"C{number}", linewidth=width, label=curve.name)
    drawn = [curve for curve in curves if name in curve.points]
    if several:
        middle = median([curve.points[name] for curve in drawn])
        axis.plot(*_thousands(middle), _style(middle), color="black", linewidth=2.2, label="median")
    ends = [(curve.converged_after, curve.points[name]) for curve in drawn if curve.converged_after is not None]
    if ends:
        reached = np.array([[end, np.interp(end, *points.T)] for end, points in ends])
        axis.plot(
            *_thousands(reached),
            "kv",
            markerfacecolor="white",
            markersize=7,
            clip_on=False,
            zorder=3,
            label="converged",
        )
    if axis.get_yscale() == "symlog":
        axis.update_datalim([(0, 0)], updatex=False)  # a flat line must not lie on the edge
        axis.set_ylim(bottom=min(0, *(curve.points[name][:, 1].min() for curve in drawn)) - 0.002)


def _style(points: Array) -> str:
    """Return the style of a curve: a line, which needs two points, or a dot."""
    return "." if len(points) == 1 else "-"


def _thousands(points: Array) -> tuple[Array, Array]:
    return points[:, 0] / 1000, points[:, 1]


def median(curves: Sequence[Array]) -> Array:
    """Return the median of curves at the points of any of them. curves: rows of [sequences, value].

    Curves are interpolated linearly between their points, and constant before and after them: a run that ended counts
    with its last value.
    """
    sequences = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    values = np.median([np.interp(sequences, *curve.T) for curve in curves], axis=0)
    return np.stack([sequences, values], 1)
