"""engram plot: draw the figures of a checkpoint or of runs."""

from pathlib import Path
from typing import Annotated

import typer

from engram.options import OwnModels, OwnTasks, load_own


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="the checkpoint, the run, or the directory of runs")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="where the figures go (default: beside what is drawn)")
    ] = None,
    tasks: OwnTasks = None,
    models: OwnModels = None,
) -> int:
    """Draw, and print the files."""
    from training.plots import plot_all

    load_own(tasks, models)
    for path in plot_all(directory, out or directory):
        print(path)
    return 0
