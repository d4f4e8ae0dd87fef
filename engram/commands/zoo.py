"""engram zoo: train several seeds of a preset, and publish the best."""

from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.commands.train import train_seeds
from engram.options import (
    Changes,
    Device,
    Jobs,
    OwnModels,
    OwnTasks,
    Preset,
    RunThreads,
    SaveEvery,
    Sequences,
    TensorBoard,
    Unroll,
    changes,
    load_own,
    recorded,
    training_options,
    whole,
)
from engram.output import print_serve_command

SEEDS = [1, 2, 3, 4]


def run(
    context: typer.Context,
    preset: Preset,
    set_: Changes = None,
    tasks: OwnTasks = None,
    models: OwnModels = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="where it goes (default: checkpoints/PRESET)")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", metavar="DIR", help="where the runs go (default: runs/PRESET)")
    ] = None,
    seeds: Annotated[
        list[int], typer.Option("--seeds", parser=whole, metavar=f"SEED{SEVERAL}", help="of the runs")
    ] = SEEDS,
    sequences: Sequences = 1000,
    jobs: Jobs = 1,
    device: Device = "auto",
    threads: RunThreads = 1,
    unroll: Unroll = "auto",
    save_every: SaveEvery = 500,
    tensorboard: TensorBoard = False,
) -> int:
    """Train the seeds, publish the best, and print what is there."""
    from training.preset import load_preset
    from training.zoo import choose, publish, require_replaceable

    own = load_own(tasks, models)
    loaded = load_preset(preset, changes(set_))
    runs = runs or Path("runs") / loaded.name
    out = out or Path("checkpoints") / loaded.name
    require_replaceable(out)
    how = training_options(device, threads, unroll, save_every, tensorboard)
    ends = train_seeds(context, loaded, seeds, runs, jobs, own, threads=threads, **how)
    publish(choose(loaded, runs, ends, print), out, recorded(context), sequences, print, own)
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    print_serve_command(out)
    return 0
