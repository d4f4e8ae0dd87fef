"""engram bench sessions: the cost of many open sessions."""

from pathlib import Path
from typing import Annotated

import typer

from engram.commands.bench.serving import DataRoot, Model
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
) -> int:
    """Measure them."""
    from benchmarks import sessions as measured

    measured.run(checkpoints, model, sessions, max_resident, data_root, recorded(context))
    return 0
