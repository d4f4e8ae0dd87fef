"""engram bench graphs: the cost of a served step of imported graphs."""

from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.commands.bench.serving import (
    DEFAULT_DURABILITIES,
    Connections,
    DataRoot,
    Durabilities,
    JsonFile,
    Rounds,
    Seconds,
)
from engram.options import Checkpoints, recorded

CONNECTIONS = [1, 64]


def run(
    context: typer.Context,
    checkpoints: Checkpoints = Path("checkpoints"),
    models: Annotated[
        list[str] | None, typer.Option("--models", metavar=f"NAME{SEVERAL}", help="some of its graphs, if not all")
    ] = None,
    connections: Connections = CONNECTIONS,
    durability: Durabilities = DEFAULT_DURABILITIES,
    rounds: Rounds = 5,
    seconds: Seconds = 1.0,
    data_root: DataRoot = None,
    json_file: JsonFile = None,
) -> int:
    """Measure each graph."""
    from benchmarks.serve import graphs
    from benchmarks.table import written_tables

    command = recorded(context)
    with written_tables(json_file, command):
        graphs.run(checkpoints, models or [], connections, durability, rounds, seconds, data_root, command)
    return 0
