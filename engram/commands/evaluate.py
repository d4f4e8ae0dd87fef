"""engram evaluate: measure the errors of checkpoints."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.cli import SEVERAL, TOGETHER
from engram.options import (
    Device,
    Json,
    OwnModels,
    OwnTasks,
    Sequences,
    changes,
    device,
    load_own,
    positive,
    recorded,
    whole,
)
from engram.output import line_printer, print_json, print_table

if TYPE_CHECKING:
    from training.table import Measurement


def run(
    context: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="the checkpoint; with --all a directory of checkpoints"),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="measure all that is recorded of every checkpoint again")] = False,
    at: Annotated[
        list[Any] | None,
        typer.Option(
            "--at",
            parser=shlex.split,
            metavar=f"[KEY=VALUE{TOGETHER}",
            help="options of the task, such as length=50; may be given several times (default: what is recorded)",
        ),
    ] = None,
    sequences: Sequences = 1000,
    memory_size: Annotated[
        int | None,
        typer.Option("--memory-size", parser=positive, metavar="N", help="memory locations (default: as trained)"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            parser=whole,
            metavar="SEED",
            help="of the sequences (default: one that training never uses)",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar=f"KEY=VALUE{SEVERAL}",
            help="options of the task for all measurements, such as directory=DIR",
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", parser=positive, metavar="N", help="CPU threads")] = 1,
    device_: Device = "auto",
    save: Annotated[bool, typer.Option("--save", help="record the figures in the checkpoint's manifest")] = False,
    tasks: OwnTasks = None,
    models: OwnModels = None,
    as_json: Json = False,
) -> int:
    """Measure one checkpoint, or all of a directory, and return 1 where one is damaged."""
    load_own(tasks, models)
    if all_ and (at or memory_size or save):
        raise ValueError("--all measures what is recorded: it takes no --at, --memory-size or --save")
    if not all_ and directory is None:
        raise ValueError("which checkpoint? Give its DIR, or --all")
    measurement = _measurement(sequences, seed, device(device_, threads), changes(set_), save)
    if directory is None or all_:
        return _evaluate_all(directory or Path("checkpoints"), measurement, as_json)
    rows = _evaluate_one(directory, at, memory_size, measurement, as_json)
    if save:
        _record(directory, rows, recorded(context))
    return 0


def _evaluate_all(directory: Path, measurement: "Measurement", as_json: bool) -> int:
    """Measure every checkpoint of a directory again, and return 1 where one is damaged."""
    from training.table import all_checkpoints

    reports = []
    for report in all_checkpoints(directory, measurement, line_printer(as_json)):
        reports.append(report)
        if not as_json and sys.stdout.isatty():
            _print_report(report)
    if as_json:
        print_json(reports)
    return 1 if any(report["damaged"] for report in reports) else 0


def _print_report(report: dict[str, Any]) -> None:
    """Print the table of a checkpoint, or why there is none."""
    from training.table import heading

    checkpoint = Path(report["checkpoint"])
    if "error" in report:
        print(f"{checkpoint.name}: {'damaged' if report['damaged'] else 'not measured'}: {report['error']}")
    else:
        print(heading(checkpoint))
        _print_rows(report["rows"])


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    from training.table import HEADINGS, cells

    print_table(HEADINGS, map(cells, rows))


def _evaluate_one(
    directory: Path,
    at: Sequence[Sequence[str]] | None,
    memory_size: int | None,
    measurement: "Measurement",
    as_json: bool,
) -> list[dict[str, Any]]:
    """Measure one checkpoint, print the rows, and return them."""
    from training.preset import Point
    from training.table import checkpoint_rows, heading

    points = [Point(changes(words), memory_size) for words in at or ([[]] if memory_size else [])]
    if not as_json:
        print(heading(directory))
    rows = checkpoint_rows(directory, points, measurement, line_printer(as_json))
    if as_json:
        print_json({"checkpoint": str(directory), "rows": rows})
    elif sys.stdout.isatty():
        _print_rows(rows)
    return rows


def _record(directory: Path, rows: Sequence[dict[str, Any]], command: str) -> None:
    """Record measurements in the manifest of their checkpoint."""
    from models.manifest import read_manifest
    from training.checkpoint import save_evaluation

    save_evaluation(directory, read_manifest(directory), [row | {"command": command} for row in rows])


def _measurement(sequences: int, seed: int | None, on: str, options: dict[str, Any], save: bool) -> "Measurement":
    """Return how each row is measured. Raises ValueError."""
    from training.evaluation import EVALUATION_SEED
    from training.preset import MOST_SEED
    from training.table import Measurement

    chosen = EVALUATION_SEED if seed is None else seed
    if not 0 <= chosen <= MOST_SEED:
        raise ValueError(f"--seed must be from 0 to {MOST_SEED}, got {chosen}")
    if save and set(options) - {"directory"}:
        raise ValueError("--save records what --at says: --set may only give the directory of the data then")
    return Measurement(sequences, chosen, on, options)
