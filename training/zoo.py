"""From a preset to a model worth serving: several seeds, the best of them, its figures, graph and card."""

import dataclasses
import json
import shlex
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.artefact import load
from models.manifest import MANIFEST_FILE, NEXT_WEIGHTS_FILE, ONNX_FILE, WEIGHTS_FILE, read_manifest, weights_file
from training.card import CARD_FILE, FIGURES, write_card
from training.checkpoint import CheckpointError, replacing, save_evaluation, write_atomically, write_manifest
from training.config import Point, Preset
from training.evaluation import CHOICE_SEED, evaluate
from training.export import export
from training.metrics import read_metrics
from training.plots import LEARNING_DATA, plot_all
from training.seeds import seed_directories
from training.table import HEAD, line
from training.tasks import Task, build_task

PUBLISHED = {MANIFEST_FILE, WEIGHTS_FILE, NEXT_WEIGHTS_FILE, ONNX_FILE, CARD_FILE, LEARNING_DATA, *FIGURES}
"""What may lie where a checkpoint is published: the next one takes the place of it all."""

CHOICE_SEQUENCES = 256
LEAST_ERRORS = 1e-3
"""Fewer errors per sequence count as so many: a geometric mean of none would be none."""


def publish(
    preset: Preset,
    runs: Path,
    out: Path,
    command: str,
    sequences: int,
    tell: Callable[[str], object],
) -> Path:
    """Make a checkpoint to serve of the best of the runs in `runs`, and return `out`, where it is.

    The best has the least geometric mean of errors per sequence, beyond the optimum, over the preset's points of
    evaluation, on sequences that no table reports. It is then measured there on `sequences` fresh ones, exported, and
    described. The manifest records every seed: after how many sequences it had converged, or None, and its mean.
    `out` is replaced as a whole once everything is there. `tell` hears of each step. Raises CheckpointError where no
    run has come to its end, or where `out` holds what would be lost.
    """
    foreign = sorted({path.name for path in out.glob("*")} - PUBLISHED)
    if foreign:
        raise CheckpointError(
            f"{out} holds {foreign[0]}, which is no part of a published checkpoint: give another --out"
        )
    points = preset.evaluation or (Point({}),)
    finished = [run for run in seed_directories(runs) if _has_finished(run, preset)]
    if not finished:
        raise CheckpointError(f"{runs}: no run of preset {preset.name!r} has come to its end there: train some first")
    means, due = {}, _choice_points(preset.task, points)
    for run in finished:
        means[run] = _mean_errors(run, due)
        tell(f"{run}: {means[run]:.4g} errors per sequence, as a geometric mean over {len(due)} measurements")
    best = min(finished, key=lambda run: means[run])
    measured_by = {"command": shlex.join(["engram", "evaluate", str(out), "--sequences", str(sequences)])}
    with replacing(out) as fresh:
        _copy(best, fresh, command, {_seed(run): _record(run, means[run]) for run in finished})
        _write_learning_curves(finished, fresh)
        model, manifest = load(fresh)
        rows = []
        tell(HEAD)
        for row in evaluate(model, build_task(manifest.task), points, sequences):
            rows.append(row | measured_by)
            tell(line(row))
        save_evaluation(fresh, manifest, rows)
        export(fresh)
        plot_all(fresh, fresh)
        write_card(fresh)
    return out


def _has_finished(run: Path, preset: Preset) -> bool:
    try:
        training = read_manifest(run).training
    except ValueError:
        return False
    return bool(training.get("finished")) and training.get("preset") == preset.name


def _choice_points(task: Task, points: Sequence[Point]) -> Sequence[Point]:
    """Return the points to choose by: those that draw sequences. What was chosen by a test set says nothing on it."""
    drawn = [point for point in points if task.with_options(point.options).test_set(1) is None]
    return drawn or [Point({})]


def _mean_errors(run: Path, points: Sequence[Point]) -> float:
    model, manifest = load(run)
    rows = evaluate(model, build_task(manifest.task), points, CHOICE_SEQUENCES, CHOICE_SEED)
    return statistics.geometric_mean(max(LEAST_ERRORS, row["errors"] - (row["optimum"] or 0.0)) for row in rows)


def _seed(run: Path) -> str:
    return run.name.removeprefix("seed-")


def _record(run: Path, mean: float) -> dict[str, Any]:
    training = read_manifest(run).training
    return {"sequences": training["sequences"], "converged_after": training["converged_after"], "mean_errors": mean}


def _copy(run: Path, out: Path, command: str, seeds: dict[str, Any]) -> None:
    """Write the model of a run to `out`, with the record of all seeds."""
    manifest = read_manifest(run)
    shutil.copyfile(weights_file(run, manifest), out / WEIGHTS_FILE)
    training = manifest.training | {"command": command, "seeds": seeds}
    write_manifest(out, dataclasses.replace(manifest, training=training, evaluation=[]))


def _write_learning_curves(runs: Sequence[Path], out: Path) -> None:
    """Write the validations of every run, [sequences, errors], as JSON by seed."""
    curves = {
        _seed(run): [
            [line["sequences"], line["validation_errors"]] for line in read_metrics(run) if "validation_errors" in line
        ]
        for run in runs
    }
    write_atomically(out / LEARNING_DATA, (json.dumps(curves) + "\n").encode())
