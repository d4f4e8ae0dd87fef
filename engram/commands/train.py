"""engram train: train a model from a preset, with one seed or several."""

import argparse
import math
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.options import Commands, add_preset, add_training, changes, command, load_own, training_options

if TYPE_CHECKING:
    from training.own import OwnFiles
    from training.preset import Preset
    from training.seeds import End
    from training.trainer import Trainer


def add(commands: Commands) -> None:
    parser = command(commands, "train", "Train a model from a preset and leave a checkpoint.")
    add_preset(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the checkpoint goes")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in DIR, exactly; with more --updates, also from one that has finished",
    )
    parser.add_argument(
        "--init-from", type=Path, metavar="DIR", help="begin with the weights of this checkpoint, trained or imported"
    )
    parser.add_argument("--seed", type=int, help="of weights and data (default: the preset's)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="several, side by side, into DIR/seed-SEED; each resumes"
    )
    parser.add_argument("--updates", type=int, help="at most so many updates (default: the preset's)")
    add_training(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from training.preset import load_preset

    own = load_own(options)
    preset = load_preset(options.preset, changes(options.set))
    preset = preset.with_training(seed=options.seed, updates=options.updates)
    if options.seeds and options.seed is not None:
        raise ValueError("--seed trains one seed and --seeds several: give one of them")
    if options.seeds:
        ends = train_seeds(options, preset, options.out, own, init_from=options.init_from, training_on=options.resume)
        return 1 if any(ends.values()) else 0
    return _train(options, preset, own)


def _train(options: argparse.Namespace, preset: "Preset", own: "OwnFiles") -> int:
    """Train one seed, report how it ended, and return the exit status."""
    from training.distributed import launcher
    from training.run import train

    started_by = launcher() + options.command_line
    trainer = train(
        preset,
        options.out,
        started_by,
        resuming=options.resume,
        init_from=options.init_from,
        training_on=options.resume,
        **training_options(options),
    )
    if trainer.processes.leads:
        _report(trainer, options.out, started_by, own)
    return 0 if trainer.finished else 130


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
    options: argparse.Namespace, preset: "Preset", out: Path, own: "OwnFiles", **how: Any
) -> "dict[int, End]":
    """Train several seeds, print how each ended, and return it. how: more arguments of training.run.train."""
    from training import seeds
    from training.distributed import process_count
    from training.table import seed_lines

    if process_count() > 1:
        raise ValueError("several seeds are trained by a process each: start them without torchrun, with --jobs")
    twice = [seed for seed, count in Counter(options.seeds).items() if count > 1]
    if twice:
        raise ValueError(f"--seeds: {twice[0]} is there twice, and would be one run: give each seed once")
    how |= training_options(options) | {"threads": options.threads, "own": own}
    ends = seeds.train_seeds(preset, options.seeds, out, options.command_line, options.jobs, **how)
    print("", *seed_lines(out, ends), sep="\n")
    return ends
