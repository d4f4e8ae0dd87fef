"""engram bench gpu: back ends and trainer on a GPU, checked against the CPU and timed beside the card's limits."""

import os
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.commands.bench.kernels import SIZES
from engram.commands.bench.serving import JsonFile
from engram.options import one_of, positive, recorded
from engram.options import seconds as seconds_of

TABLES = ["checks", "rates", "training", "served"]
"""The keys of benchmarks.gpu.TABLES."""

BATCHES = [1, 8, 64, 256, 1024, 4096, 8192]


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
        list[int], typer.Option("--batches", parser=positive, metavar=f"N{SEVERAL}", help="sessions of a step")
    ] = BATCHES,
    training_batch: Annotated[
        int, typer.Option("--training-batch", parser=positive, metavar="N", help="sequences of an update")
    ] = 256,
    rounds: Annotated[
        int, typer.Option("--rounds", parser=positive, metavar="N", help="turns of which the median is taken")
    ] = 3,
    seconds: Annotated[float, typer.Option("--seconds", parser=seconds_of, metavar="S", help="time of a turn")] = 0.1,
    limit: Annotated[
        float, typer.Option("--limit", parser=seconds_of, metavar="S", help="time after which no row is begun")
    ] = 200.0,
    no_compile: Annotated[bool, typer.Option("--no-compile", help="leave out torch.compile")] = False,
    device: Annotated[
        str, typer.Option("--device", parser=one_of(["cuda", "cpu"]), metavar="cuda|cpu", help="what steps; cpu: a try")
    ] = "cuda",
    json_file: JsonFile = None,
) -> int:
    """Check the back ends, then measure them, the trainer and a server, within about four minutes."""
    if device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")
    from benchmarks import gpu
    from benchmarks.table import written_tables

    command = recorded(context)
    with written_tables(json_file, command):
        gpu.run(tables, sizes, batches, training_batch, rounds, seconds, limit, not no_compile, device, command)
    return 0
