"""engram train: train a model from a preset, with one seed or several."""

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.cli import SEVERAL
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
    TensorBoard,
    Unroll,
    changes,
    load_own,
    recorded,
    training_options,
    whole,
)
from engram.output import print_json, print_table

if TYPE_CHECKING:
    from training.own import OwnFiles
    from training.preset import Preset as Loaded
    from training.seeds import End
    from training.trainer import Trainer


def run(
    context: typer.Context,
    preset: Preset,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the checkpoint goes")],
    set_: Changes = None,
    tasks: OwnTasks = None,
    models: OwnModels = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="go on from the checkpoint in DIR, exactly; with more --updates, also from one that has finished",
        ),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from", metavar="DIR", help="begin with the weights of this checkpoint, trained or imported"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", parser=whole, metavar="SEED", help="of weights and data (default: the preset's)"),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--seeds",
            parser=whole,
            metavar=f"SEED{SEVERAL}",
            help="several, side by side, into DIR/seed-SEED; each resumes",
        ),
    ] = None,
    updates: Annotated[
        int | None,
        typer.Option("--updates", parser=whole, metavar="N", help="the most updates (default: the preset's)"),
    ] = None,
    jobs: Jobs = 1,
    device: Device = "auto",
    threads: RunThreads = 1,
    unroll: Unroll = "auto",
    save_every: SaveEvery = 500,
    tensorboard: TensorBoard = False,
    as_json: Json = False,
) -> int:
    """Train, and return 130 where it was interrupted, 1 where a seed did not finish."""
    from training.preset import load_preset

    own = load_own(tasks, models)
    loaded = load_preset(preset, changes(set_)).with_training(seed=seed, updates=updates)
    if seeds and seed is not None:
        raise ValueError("--seed trains one seed and --seeds several: give one of them")
    how = training_options(device, threads, unroll, save_every, tensorboard)
    how |= {"init_from": init_from, "training_on": resume}
    if seeds:
        ends = train_seeds(context, loaded, seeds, out, jobs, own, threads=threads, **how)
        print_seeds(out, ends, as_json)
        return 1 if any(ends.values()) else 0
    return _train(context, loaded, out, own, as_json, resuming=resume, **how)


def _train(context: typer.Context, preset: "Loaded", out: Path, own: "OwnFiles", as_json: bool, **how: Any) -> int:
    """Train one seed, report how it ended, and return the exit status. how: arguments of training.run.train."""
    from training.distributed import launcher
    from training.run import train

    started_by = launcher() + recorded(context)
    trainer = train(preset, out, started_by, **how)
    if trainer.processes.leads and as_json:
        print_json(_document(trainer, out))
    elif trainer.processes.leads:
        _report(trainer, out, started_by, own)
    return 0 if trainer.finished else 130


def _document(trainer: "Trainer", out: Path) -> dict[str, Any]:
    """Return how the training ended, for programs."""
    progress = trainer.progress
    return {
        "checkpoint": str(out),
        "finished": trainer.finished,
        "updates": progress.update,
        "sequences": progress.sequences,
        "validation_errors": progress.validation_errors,
    }


def _report(trainer: "Trainer", out: Path, started_by: str, own: "OwnFiles") -> None:
    """Print how the training ended, and the commands that come next."""
    progress = trainer.progress
    to_export = own._replace(tasks=())
    evaluate, plot, export = (
        shlex.join(["engram", name, str(out), *files.words])
        for name, files in (("evaluate", own), ("plot", own), ("export", to_export))
    )
    print(f"{out}: {progress.update} updates, {progress.sequences} sequences, weights in model.safetensors")
    if not trainer.finished:
        print(f"Interrupted. Go on with: {started_by} --resume")
        return
    if math.isfinite(progress.validation_errors):
        print(f"Validation: {progress.validation_errors:g} {trainer.preset.task.unit} per sequence.")
    print(f"Next: {evaluate}    {plot}    {export}")


def train_seeds(
    context: typer.Context, preset: "Loaded", chosen: Sequence[int], out: Path, jobs: int, own: "OwnFiles", **how: Any
) -> "dict[int, End]":
    """Train several seeds, and return how each ended. how: more arguments of training.run.train."""
    from training import seeds
    from training.distributed import process_count

    if process_count() > 1:
        raise ValueError("several seeds are trained by a process each: start them without torchrun, with --jobs")
    twice = [seed for seed, count in Counter(chosen).items() if count > 1]
    if twice:
        raise ValueError(f"--seeds: {twice[0]} is there twice, and would be one run: give each seed once")
    return seeds.train_seeds(preset, chosen, out, recorded(context), jobs, own=own, **how)


def print_seeds(out: Path, ends: "dict[int, End]", as_json: bool = False) -> None:
    """Print how each seed ended, and when it converged."""
    from training.table import SEED_HEADINGS, seed_cells, seed_records, seeds_line

    records = seed_records(out, ends)
    if as_json:
        print_json({"directory": str(out), "seeds": records})
        return
    print()
    print_table(SEED_HEADINGS, map(seed_cells, records))
    if line := seeds_line(records):
        print(line)
