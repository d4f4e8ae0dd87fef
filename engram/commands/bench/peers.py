"""engram bench peers: steps of sessions by Engram and by other servers."""

from pathlib import Path
from typing import Annotated

import typer

from engram.commands.bench.serving import (
    DEFAULT_DURABILITIES,
    Before,
    Connections,
    DataRoot,
    Durabilities,
    JsonFile,
    Model,
    OpenLoop,
    Plot,
    Rounds,
    Seconds,
    Triton,
)
from engram.options import Checkpoints, recorded

CONNECTIONS = [1, 32, 256]


def run(
    context: typer.Context,
    packages: Annotated[
        Path | None,
        typer.Option("--packages", metavar="DIR", help="where LitServe and Ray Serve are (default: beside Engram)"),
    ] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
    model: Model = "dnc-copy",
    connections: Connections = CONNECTIONS,
    durability: Durabilities = DEFAULT_DURABILITIES,
    rounds: Rounds = 3,
    seconds: Seconds = 1.0,
    open_loop: OpenLoop = None,
    triton: Triton = None,
    before: Before = None,
    json_file: JsonFile = None,
    plot: Plot = None,
    data_root: DataRoot = None,
) -> int:
    """Measure all servers."""
    from benchmarks.serve import Options, run_peers

    options = Options(
        checkpoints=checkpoints,
        model=model,
        connections=connections,
        durabilities=durability,
        rounds=rounds,
        seconds=seconds,
        percents=open_loop or [],
        data_root=data_root,
        command=recorded(context),
        json_file=json_file,
        plot_file=plot,
        triton=triton,
        packages=packages,
        before=before,
    )
    run_peers(options)
    return 0
