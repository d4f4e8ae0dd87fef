"""engram bench durability: session-steps per second with each durability."""

from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.commands.bench.serving import DataRoot, JsonFile, Model, Rounds, Seconds
from engram.options import Checkpoints, positive, recorded

SESSIONS = [1, 64, 1024]


def run(
    context: typer.Context,
    checkpoints: Checkpoints = Path("checkpoints"),
    model: Model = "dnc-copy",
    sessions: Annotated[
        list[int],
        typer.Option("--sessions", parser=positive, metavar=f"N{SEVERAL}", help="concurrent sessions"),
    ] = SESSIONS,
    rounds: Rounds = 5,
    seconds: Seconds = 3.0,
    data_root: DataRoot = None,
    json_file: JsonFile = None,
) -> int:
    """Measure each durability."""
    from benchmarks import durability
    from benchmarks.table import written_tables

    command = recorded(context)
    with written_tables(json_file, command):
        durability.run(checkpoints, model, sessions, rounds, seconds, data_root, command)
    return 0
