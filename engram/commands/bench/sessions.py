"""engram bench sessions: the cost of many open sessions."""

from pathlib import Path
from typing import Annotated

import typer

from engram.commands.bench.serving import DataRoot, JsonFile, Model
from engram.options import Checkpoints, positive, recorded


def run(
    context: typer.Context,
    checkpoints: Checkpoints = Path("checkpoints"),
    model: Model = "dnc-copy",
    sessions: Annotated[
        int, typer.Option("--sessions", parser=positive, metavar="N", help="how many are opened")
    ] = 100_000,
    max_resident: Annotated[
        int, typer.Option("--max-resident", parser=positive, metavar="N", help="how many may be in memory")
    ] = 4096,
    data_root: DataRoot = None,
    json_file: JsonFile = None,
) -> int:
    """Measure them."""
    from benchmarks import sessions as measured
    from benchmarks.table import written_tables

    command = recorded(context)
    with written_tables(json_file, command):
        measured.run(checkpoints, model, sessions, max_resident, data_root, command)
    return 0
