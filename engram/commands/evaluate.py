"""engram evaluate: measure the errors of checkpoints."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from engram.options import Commands, add_json, add_own, changes, command, device, load_own, positive
from engram.output import print_json

if TYPE_CHECKING:
    from training.table import Measurement


def add(commands: Commands) -> None:
    parser = command(commands, "evaluate", "Measure the errors of a checkpoint on fresh sequences.")
    parser.add_argument(
        "directory", type=Path, metavar="DIR", nargs="?", help="the checkpoint; with --all a directory of checkpoints"
    )
    parser.add_argument("--all", action="store_true", help="measure all that is recorded of every checkpoint again")
    parser.add_argument(
        "--at",
        nargs="+",
        action="append",
        metavar="KEY=VALUE",
        help="options of the task, such as length=50; may be given several times (default: what is recorded)",
    )
    parser.add_argument("--sequences", type=positive, default=1000, help="fresh sequences of each measurement")
    parser.add_argument("--memory-size", type=positive, metavar="N", help="memory slots (default: as trained)")
    parser.add_argument("--seed", type=int, help="of the sequences (default: one that training never uses)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the task for all measurements, such as directory=DIR",
    )
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to run")
    parser.add_argument("--save", action="store_true", help="record the figures in the checkpoint's manifest")
    add_own(parser, "tasks", "models")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    load_own(options)
    if options.all and (options.at or options.memory_size or options.save):
        raise ValueError("--all measures what is recorded: it takes no --at, --memory-size or --save")
    if not options.all and options.directory is None:
        raise ValueError("which checkpoint? Give its DIR, or --all")
    return _evaluate_all(options) if options.all else _evaluate_one(options)


def _evaluate_all(options: argparse.Namespace) -> int:
    """Measure every checkpoint of a directory again, and return 1 where one is damaged."""
    from training.table import all_checkpoints

    show = str if options.json else print
    reports = all_checkpoints(options.directory or Path("checkpoints"), _measurement(options), show)
    if options.json:
        print_json(reports)
    return 1 if any(report["damaged"] for report in reports) else 0


def _evaluate_one(options: argparse.Namespace) -> int:
    """Measure one checkpoint; with --save, record the figures in its manifest."""
    from models.manifest import read_manifest
    from training.checkpoint import save_evaluation
    from training.preset import Point
    from training.table import checkpoint_rows, heading

    measurement = _measurement(options)
    show = str if options.json else print
    at = options.at or ([[]] if options.memory_size else [])
    points = [Point(changes(words), options.memory_size) for words in at]
    show(heading(options.directory))
    rows = checkpoint_rows(options.directory, points, measurement, show)
    if options.json:
        print_json({"checkpoint": str(options.directory), "rows": rows})
    if options.save:
        details = {"command": options.command_line}
        save_evaluation(options.directory, read_manifest(options.directory), [row | details for row in rows])
    return 0


def _measurement(options: argparse.Namespace) -> "Measurement":
    """Return how each row is measured. Raises ValueError, SettingsError."""
    from training.evaluation import EVALUATION_SEED
    from training.preset import MOST_SEED
    from training.table import Measurement

    seed = EVALUATION_SEED if options.seed is None else options.seed
    measurement = Measurement(options.sequences, seed, device(options.device, options.threads), changes(options.set))
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"--seed must be from 0 to {MOST_SEED}, got {seed}")
    if options.save and set(measurement.options) - {"directory"}:
        raise ValueError("--save records what --at says: --set may only give the directory of the data then")
    return measurement
