"""engram bench fairness: the time that the worst requests keep another session waiting."""

from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.commands.bench.serving import DataRoot, JsonFile, Model
from engram.options import Checkpoints, positive, recorded


def run(
    context: typer.Context,
    checkpoints: Checkpoints = Path("checkpoints"),
    model: Model = "dnc-copy",
    neighbour: Annotated[
        str, typer.Option("--neighbour", metavar="NAME", help="the model of the session that waits")
    ] = "lstm-copy",
    requests: Annotated[
        list[str] | None, typer.Option("--requests", metavar=f"NAME{SEVERAL}", help="which requests, if not all")
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", parser=positive, metavar="N", help="tries of which the median is taken")
    ] = 5,
    data_root: DataRoot = None,
    json_file: JsonFile = None,
) -> int:
    """Measure each request."""
    from benchmarks import fairness
    from benchmarks.table import written_tables

    chosen = fairness.chosen(requests)
    command = recorded(context)
    with written_tables(json_file, command):
        fairness.run(checkpoints, model, neighbour, chosen, rounds, data_root, command)
    return 0
