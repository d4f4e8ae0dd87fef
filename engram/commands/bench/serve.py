"""engram bench serve: the cost of a served request."""

from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
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
from engram.options import Checkpoints, one_of, positive, recorded

PATHS = ["ws-json", "ws-msgpack", "post", "steps", "streams", "infer"]
"""The keys of benchmarks.serve.paths.PATHS."""

CONNECTIONS = [1, 32, 256, 1000]


def run(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Option("--paths", parser=one_of(PATHS), metavar=f"{'|'.join(PATHS)}{SEVERAL}", help="which ways"),
    ] = PATHS,
    idle: Annotated[
        int | None,
        typer.Option("--idle", parser=positive, metavar="N", help="measure N idle WebSockets in place of all else"),
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
    """Measure each way, or idle connections."""
    from benchmarks import serve
    from benchmarks.serve import Options
    from benchmarks.serve import idle as idling

    if idle:
        idling.run(checkpoints, model, idle, data_root, recorded(context))
        return 0
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
        packages=None,
        before=before,
    )
    serve.run(options, paths)
    return 0
