"""engram bench served-steps: session-steps per second over WebSocket."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from engram.cli import SEVERAL
from engram.commands.bench.serving import JsonFile, Model
from engram.options import Checkpoints, positive, recorded
from engram.options import seconds as seconds_of

SESSIONS = [1, 32, 256]


Backend = Literal["fused", "onnx"]
"""The keys of benchmarks.server.BACKENDS."""


def run(
    context: typer.Context,
    checkpoints: Checkpoints = Path("checkpoints"),
    model: Model = "dnc-copy",
    sessions: Annotated[
        list[int],
        typer.Option("--sessions", parser=positive, metavar=f"N{SEVERAL}", help="concurrent sessions"),
    ] = SESSIONS,
    backend: Annotated[Backend, typer.Option("--backend", help="what computes the steps")] = "fused",
    rounds: Annotated[
        int,
        typer.Option("--rounds", parser=positive, metavar="N", help="measurements of which the median is taken"),
    ] = 3,
    seconds: Annotated[
        float, typer.Option("--seconds", parser=seconds_of, metavar="S", help="time of each measurement")
    ] = 3.0,
    json_file: JsonFile = None,
) -> int:
    """Measure each number of sessions."""
    from benchmarks import served_steps
    from benchmarks.table import written_tables

    with written_tables(json_file, recorded(context)):
        served_steps.run(checkpoints, model, sessions, backend, rounds, seconds)
    return 0
