"""Runs or models side by side: one figure and one table."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engram.notebook.model import Model
from engram.notebook.optional import data_frame, figures
from engram.notebook.run import Run
from engram.notebook.tables import html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs over the same inputs. A notebook shows the table and the figure."""

    runs: Sequence[Run]

    @property
    def names(self) -> list[str]:
        """The names of the models, with a number where several runs are of one."""
        names = [run.card["name"] for run in self.runs]
        return [
            f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name
            for place, name in enumerate(names)
        ]

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each run: name, kind, parameters, memory, gates held at values, and the errors where known."""
        return [
            {
                "model": name,
                "kind": run.card["kind"],
                "parameters": run.card["parameters"],
                "memory_size": run.memory_size,
                "force": run.force,
                "steps": len(run.inputs),
                run.unit: run.error,
            }
            for name, run in zip(self.names, self.runs, strict=True)
        ]

    def plot(self) -> "Figure":
        """Draw the outputs under each other, and the errors of each step. Raises ModuleNotFoundError."""
        figure: Figure = figures().figure_of_runs(list(zip(self.names, self.runs, strict=True)))
        return figure

    def to_pandas(self) -> "DataFrame":
        """Return the table as a data frame. Raises ModuleNotFoundError without pandas."""
        return data_frame({name: [row[name] for row in self.table] for name in self.table[0]})

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.names)}>"

    def _repr_html_(self) -> str:
        heads = [name for name in self.table[0] if any(row[name] is not None for row in self.table)]
        rows = [["" if row[name] is None else row[name] for name in heads] for row in self.table]
        return html_table("Comparison", rows, heads) + self._image()

    def _image(self) -> str:
        try:
            drawn = base64.b64encode(figures().png(self.plot())).decode()
        except ModuleNotFoundError:
            return ""
        return f'<img alt="outputs over time" style="max-width:100%" src="data:image/png;base64,{drawn}">'


def compare(runs: Sequence[Run | Model], seed: int = 0, **sizes: int | str) -> Comparison:
    """Compare runs over the same inputs, or models, which then run one sample of the task of the first.

    seed, sizes: of that sample, as of `Model.sample`. Raises ValueError where there is nothing to compare, or where
    inputs or outputs differ; InvalidRequest for a size that the task does not have.
    """
    given = list(runs) if isinstance(runs, Iterable) else []
    if not given or not all(isinstance(one, (Run, Model)) for one in given):
        raise ValueError(f"compare: expected a list of runs or models, got {runs!r}")
    models = [one for one in given if isinstance(one, Model)]
    measured = [one for one in given if isinstance(one, Run)]
    if models and measured:
        raise ValueError("compare: expected runs alone or models alone, got both: run the models first")
    if models:
        sample = models[0].sample(seed, **sizes)
        for model in models:
            _check_sizes(models[0].card, model.card)
        measured = [model.run(sample) for model in models]
    for run in measured:
        _check_sizes(measured[0].card, run.card)
        if not np.array_equal(measured[0].inputs, run.inputs):
            raise ValueError(f"compare: the run of {run.card['name']} has other inputs than the first")
    return Comparison(measured)


def _check_sizes(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raise ValueError unless two models take the same inputs and give outputs of one kind."""
    for name in ("input_size", "output_size", "output_activation", "output_groups", "vocabulary_size"):
        if first[name] != other[name]:
            raise ValueError(
                f"compare: expected models of one task, but {first['name']} has {name} {first[name]}, "
                f"and {other['name']} {other[name]}"
            )
