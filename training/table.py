"""Tables of measured errors: of one checkpoint, or of all in a directory."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.artefact import load
from models.config import ConfigError
from models.manifest import MANIFEST_FILE, Manifest, ManifestError, read_manifest
from training.evaluation import evaluate, options_text, points_of
from training.listing import find_checkpoints
from training.preset import Point, check_options
from training.seeds import End, seed_directory
from training.tasks import AnswerTask, build_task

HEADINGS = ("what", "slots", "errors/sequence", "of", "with an error", "cost in bits", "goal", "published")

LINE = "{:<42} {:>5} {:>16} {:>14} {:>14} {:>13}  {:<38}  {}"

HEAD = LINE.format(*HEADINGS)

SEED_HEADINGS = ("seed", "sequences", "converged after", "")


WHY_NOT = {
    End.FAILED: "failed, for the reason printed above",
    End.DIVERGED: "diverged: its numbers are not finite, as printed above",
    End.INTERRUPTED: "came to no end: the same command goes on with it",
}
"""The text for a seed that did not finish, by how it ended."""


@dataclass(frozen=True)
class Measurement:
    """Settings of measurements: the fresh sequences of each, their seed, the device, options for all tasks."""

    sequences: int
    seed: int
    device: str
    options: Mapping[str, Any]


def checkpoint_rows(
    directory: Path, points: Sequence[Point], how: Measurement, show: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Measure a checkpoint at these points, or, if there are none, at those that its manifest records.

    Returns the rows for its manifest; `show` is called with each line of the table as soon as it is known. Raises
    ManifestError, ConfigError.
    """
    model, manifest = load(directory)
    task = check_options(build_task(manifest.task), how.options, "--set")
    where = "--at" if points else str(directory / MANIFEST_FILE)
    points = points or points_of(manifest.evaluation) or [Point({})]
    for point in points:
        check_options(task, point.options, where)
        model.initial_state(1, point.memory_size)  # raises for an impossible size, before anything is shown
    show(HEAD)
    rows = []
    for row in evaluate(model.to(how.device), task, points, how.sequences, how.seed):
        show(line(row))
        rows.append(row)
    return rows


def heading(directory: Path) -> str:
    """Return the heading of a checkpoint's rows: its name, its task and its seeds. Raises ManifestError."""
    manifest = read_manifest(directory)
    return f"{directory.resolve().name}: {manifest.task.get('name')}, {seeds_text(manifest)}"


def all_checkpoints(directory: Path, how: Measurement, show: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    """Measure every checkpoint in `directory` again at the points of its manifest, and show the whole table.

    The options of `how` apply to tasks that have them. A checkpoint that is damaged, or whose data are missing, is
    named and left out. Yields for each its `checkpoint`, `damaged`, and `rows` or an `error`. Raises ConfigError if
    there is no checkpoint or no task has such an option.
    """
    found = find_checkpoints(directory)
    tasks = {path: _task_of(path) for path in found}
    for name in sorted(set(how.options).difference(*tasks.values())):
        raise ConfigError(f"--set: no task of a checkpoint in {directory} has an option {name!r}")
    for path, task in tasks.items():
        report: dict[str, Any] = {"checkpoint": str(path), "damaged": False, "rows": []}
        try:
            show(f"\n{heading(path)}")
            own = {name: value for name, value in how.options.items() if name in task}
            report["rows"] = checkpoint_rows(path, [], dataclasses.replace(how, options=own), show)
        except (ConfigError, ManifestError) as error:
            damaged = isinstance(error, ManifestError)
            report |= {"damaged": damaged, "error": str(error)}
            show(f"{'damaged' if damaged else 'not measured'}: {error}")
        yield report


def _task_of(directory: Path) -> Mapping[str, Any]:
    """Return the task of a checkpoint as plain values; none if its manifest cannot be read."""
    try:
        return read_manifest(directory).task
    except ManifestError:
        return {}


def seed_records(out: Path, ends: Mapping[int, End]) -> list[dict[str, Any]]:
    """Return a record of each seed trained in `out`: its `seed`, `end`, and the sequences until it ended or converged.

    `sequences` is None where it did not finish, `converged_after` where it did not converge. Raises ManifestError.
    """
    records = []
    for seed, end in ends.items():
        training = read_manifest(seed_directory(out, seed)).training if end == End.FINISHED else {}
        sequences, converged_after = training.get("sequences"), training.get("converged_after")
        record = {"seed": seed, "end": end.name.lower(), "sequences": sequences, "converged_after": converged_after}
        records.append(record)
    return records


def seed_cells(record: Mapping[str, Any]) -> list[str]:
    """Return the record of a seed as cells below SEED_HEADINGS."""
    end = End[record["end"].upper()]
    if end != End.FINISHED:
        return [str(record["seed"]), "-", "-", WHY_NOT[end]]
    return [str(record["seed"]), str(record["sequences"]), str(record["converged_after"] or "not"), ""]


def seeds_line(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a line about the convergence of all seeds; None while one can go on."""
    ended = {End.FINISHED.name.lower(), End.DIVERGED.name.lower()}
    if any(record["end"] not in ended for record in records):
        return None
    return convergence([record["converged_after"] for record in records])


def seeds_text(manifest: Manifest) -> str:
    """Return the sequences after which the seeds of a checkpoint's preset converged, in words."""
    seeds = manifest.training.get("seeds", {})
    return convergence([record["converged_after"] for record in seeds.values()]) if seeds else "one seed"


def convergence(after: Sequence[int | None]) -> str:
    """Return in words the median and the range of the sequences after which seeds converged. after: None for never."""
    known = [math.inf if sequences is None else sequences for sequences in after]
    count = sum(map(math.isfinite, known))
    text = f"{count} of {len(known)} seeds converged"
    if not count:
        return text
    median = statistics.median(known)
    middle = f"{median:,.0f} sequences" if math.isfinite(median) else "never"
    last = "never" if count < len(known) else f"{max(known):,.0f}"
    return f"{text}: median {middle}, from {min(known):,.0f} to {last}"


def line(row: Mapping[str, Any]) -> str:
    """Return a row of a manifest's evaluation as a line of the table."""
    return LINE.format(*cells(row)).rstrip()


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of a manifest's evaluation as cells below HEADINGS."""
    errors, wrong = errors_text(row), f"{row['wrong_sequences']}/{row['sequences']}"
    what, slots, published = options_text(row["options"]), row["memory_size"] or "-", row.get("published") or ""
    return [what, str(slots), errors, of_text(row), wrong, cost_text(row), goal_text(row), published]


def errors_text(row: Mapping[str, Any]) -> str:
    """Return the errors per sequence of a row; for wrong answers also the share."""
    share = f" ({row['errors'] / row['asked']:.2%})" if row["unit"] == AnswerTask.unit and row["asked"] else ""
    return f"{row['errors']:.4g}{share}"


def of_text(row: Mapping[str, Any]) -> str:
    """Return the figure to compare a row's errors with: their greatest number, or the optimum."""
    return f"{row['asked']:g}" if row["optimum"] is None else f"optimum {row['optimum']:.1f}"


def cost_text(row: Mapping[str, Any]) -> str:
    """Return the cost of a row in bits, a dash if its answers are no bits."""
    cost = row.get("cost")
    return "-" if cost is None else f"{cost:.4g}"


def goal_text(row: Mapping[str, Any]) -> str:
    """Return the target of a row, and whether the errors, and then the cost, reached it or by how much they missed it.

    An error costs more than a bit: if the errors miss the target, the cost does too.
    """
    target = row.get("target")
    if target is None:
        return ""
    short = row["errors"] - (row["optimum"] or 0) - target
    if not short <= 0:  # NaN misses it
        return f"{target:g}: missed by {short:.3g}"
    short = (row.get("cost") or 0) - (row["optimum"] or 0) - target
    return f"{target:g}: reached" if short <= 0 else f"{target:g}: reached (cost: missed by {short:.3g})"
