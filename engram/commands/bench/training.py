"""engram bench training: updates of the trainer beside those of public implementations."""

from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.commands.bench.serving import JsonFile
from engram.options import positive, recorded
from engram.options import seconds as seconds_of

BATCHES = [16, 1]


def run(
    context: typer.Context,
    batches: Annotated[
        list[int], typer.Option("--batches", parser=positive, metavar=f"N{SEVERAL}", help="batches")
    ] = BATCHES,
    updates: Annotated[
        int, typer.Option("--updates", parser=positive, metavar="N", help="updates of a turn, at least")
    ] = 20,
    rounds: Annotated[
        int, typer.Option("--rounds", parser=positive, metavar="N", help="turns of which the median is taken")
    ] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", parser=seconds_of, metavar="S", help="time of a turn, at least")
    ] = 0.3,
    peers: Annotated[
        Path | None,
        typer.Option("--peers", metavar="DIR", help="public implementations to train beside, if any"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="two updates a turn, one turn: to see that all works")] = False,
    json_file: JsonFile = None,
) -> int:
    """Measure each batch."""
    from benchmarks.table import written_tables
    from benchmarks.training import report

    turn_updates, turns, turn = (2, 1, 0.0) if quick else (updates, rounds, seconds)
    command = recorded(context)
    with written_tables(json_file, command):
        report.run(batches, turn_updates, turns, turn, peers, command)
    return 0
