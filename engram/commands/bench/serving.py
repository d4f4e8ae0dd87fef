"""Options of the benchmarks that serve a model."""

from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.options import one_of, percent, positive, seconds

Model = Annotated[str, typer.Option("--model", metavar="NAME", help="which of them")]
Connections = Annotated[
    list[int], typer.Option("--connections", parser=positive, metavar=f"N{SEVERAL}", help="at a time")
]
Rounds = Annotated[
    int,
    typer.Option("--rounds", parser=positive, metavar="N", help="turns of each server of which the median is taken"),
]
Seconds = Annotated[float, typer.Option("--seconds", parser=seconds, metavar="S", help="time of each turn")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="where the servers write meanwhile (default: .)"),
]

DURABILITIES = ["ack", "none", "interval"]
"""The keys of benchmarks.serve.servers.SERVERS that are Engram."""

DEFAULT_DURABILITIES = ["ack", "none"]

Durabilities = Annotated[
    list[str],
    typer.Option(
        "--durability",
        parser=one_of(DURABILITIES),
        metavar=f"{'|'.join(DURABILITIES)}{SEVERAL}",
        help="of Engram's servers; the first is the one whose ratios are printed",
    ),
]
OpenLoop = Annotated[
    list[float] | None,
    typer.Option(
        "--open-loop",
        parser=percent,
        metavar=f"PERCENT{SEVERAL}",
        help="also requests at fixed times, at these percentages of the rate, as in 50 80 95",
    ),
]
Triton = Annotated[
    Path | None,
    typer.Option("--triton", metavar="DIR", help="also NVIDIA Triton, which a package put there"),
]
Before = Annotated[
    Path | None,
    typer.Option("--before", metavar="DIR", help="also Engram of another checkout, built, in DIR"),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="also write all figures to a JSON file"),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="also draw the processor time of a request, as PNG"),
]
