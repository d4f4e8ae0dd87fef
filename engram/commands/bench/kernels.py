"""engram bench kernels: the fused kernels beside all else that computes the same."""

from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.commands.bench.serving import JsonFile
from engram.options import one_of, positive, recorded
from engram.options import seconds as seconds_of

TABLES = ["step", "arena", "threads", "calls", "training", "training-threads"]
"""The keys of benchmarks.kernels.report.TABLES."""

SIZES = ["S", "M", "L", "NTM"]
"""The keys of benchmarks.kernels.sizes.SIZES."""


def run(
    context: typer.Context,
    tables: Annotated[
        list[str],
        typer.Option("--tables", parser=one_of(TABLES), metavar=f"{'|'.join(TABLES)}{SEVERAL}", help="which tables"),
    ] = TABLES,
    sizes: Annotated[
        list[str],
        typer.Option("--sizes", parser=one_of(SIZES), metavar=f"{'|'.join(SIZES)}{SEVERAL}", help="which models step"),
    ] = SIZES,
    batches: Annotated[
        list[int] | None,
        typer.Option(
            "--batches",
            parser=positive,
            metavar=f"N{SEVERAL}",
            help="batches of every table, if not each table's own",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", parser=positive, metavar="N", help="turns of which the median is taken")
    ] = 5,
    seconds: Annotated[float, typer.Option("--seconds", parser=seconds_of, metavar="S", help="time of a turn")] = 0.3,
    peers: Annotated[
        Path | None,
        typer.Option("--peers", metavar="DIR", help="public implementations to train beside, if any"),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="also where the time goes, by Linux's perf")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="one call a turn, one turn: to see that all works")] = False,
    json_file: JsonFile = None,
) -> int:
    """Measure the chosen tables."""
    from benchmarks.kernels import report
    from benchmarks.table import written_tables

    turns, turn = (1, 0.0) if quick else (rounds, seconds)
    command = recorded(context)
    with written_tables(json_file, command):
        report.run(tables, sizes, batches, turns, turn, peers, command, profile)
    return 0
