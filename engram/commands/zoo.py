"""engram zoo: train several seeds of a preset, and publish the best."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from engram.cli import SEVERAL
from engram.commands.train import print_seeds, train_seeds
from engram.options import (
    Changes,
    Device,
    Jobs,
    Json,
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
from engram.output import line_printer, print_json, print_serve_command, print_table

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
    as_json: Json = False,
) -> int:
    """Train the seeds, publish the best, and print what is there."""
    from models.manifest import read_manifest
    from training.preset import load_preset
    from training.table import HEADINGS, cells, seed_records
    from training.zoo import choose, publish, require_replaceable

    own = load_own(tasks, models)
    loaded = load_preset(preset, changes(set_))
    runs = runs or Path("runs") / loaded.name
    out = out or Path("checkpoints") / loaded.name
    require_replaceable(out)
    how = training_options(device, threads, unroll, save_every, tensorboard)
    ends = train_seeds(context, loaded, seeds, runs, jobs, own, threads=threads, **how)
    if not as_json:
        print_seeds(runs, ends)
    choice = choose(loaded, runs, ends, str if as_json else print)
    publish(choice, out, recorded(context), sequences, line_printer(as_json), own)
    if as_json:
        print_json({"checkpoint": str(out), "seeds": seed_records(runs, ends), "rows": read_manifest(out).evaluation})
        return 0
    if sys.stdout.isatty():
        print_table(HEADINGS, map(cells, read_manifest(out).evaluation))
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    print_serve_command(out)
    return 0
