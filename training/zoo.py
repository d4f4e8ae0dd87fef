"""From a preset to a model worth serving: several seeds, the best of them, its figures, graph and card."""

import dataclasses
import json
import math
import shlex
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from models.artefact import load
from models.manifest import MANIFEST_FILE, NEXT_WEIGHTS_FILE, ONNX_FILE, WEIGHTS_FILE, read_manifest, weights_file
from training.card import CARD_FILE, FIGURES, write_card
from training.checkpoint import CheckpointError, replacing, save_evaluation, write_atomically, write_manifest
from training.evaluation import CHOICE_SEED, evaluate, is_finite
from training.export import export
from training.plots import LEARNING_DATA, plot_all
from training.preset import Point, Preset
from training.run_metrics import read_metrics
from training.seeds import End, seed_directory
from training.table import HEAD, line
from training.tasks import Task, task_values

PUBLISHED = {MANIFEST_FILE, WEIGHTS_FILE, NEXT_WEIGHTS_FILE, ONNX_FILE, CARD_FILE, LEARNING_DATA, *FIGURES}
"""What may lie where a checkpoint is published: the next one takes the place of it all."""

CHOICE_SEQUENCES = 256
LEAST_ERRORS = 1e-3
"""Fewer errors per sequence count as so many: a geometric mean of none would be none."""


class Candidate(NamedTuple):
    """One seed of a preset, and how well it did on sequences that no table reports.

    run: where it was trained; finished: whether it came to its end, or diverged. mean_errors: per sequence, beyond the
    optimum, as a geometric mean over what was measured; infinity where a number is not finite.
    """

    seed: int
    run: Path
    finished: bool
    mean_errors: float

    @property
    def record(self) -> dict[str, Any]:
        """What the manifest says of it: None for what is not known, or not finite."""
        training = read_manifest(self.run).training if self.finished else {}
        return {
            "sequences": training.get("sequences"),
            "converged_after": training.get("converged_after"),
            "mean_errors": self.mean_errors if math.isfinite(self.mean_errors) else None,
        }


class Choice(NamedTuple):
    """Which seed of a preset is to be published, and what is to be measured of it.

    task: the preset's, whose data may lie elsewhere than where the runs found them.
    """

    task: Task
    best: Candidate
    candidates: Sequence[Candidate]
    points: Sequence[Point]


def require_replaceable(out: Path) -> None:
    """Raise CheckpointError where `out` holds what would be lost if a checkpoint took its place."""
    foreign = sorted({path.name for path in out.glob("*")} - PUBLISHED)
    if foreign:
        raise CheckpointError(
            f"{out} holds {foreign[0]}, which is no part of a published checkpoint: give another --out"
        )


def choose(preset: Preset, runs: Path, ends: Mapping[int, End], tell: Callable[[str], object]) -> Choice:
    """Choose the best of the seeds that were trained in `runs`; `ends` says which they are, and how each ended.

    The best has the least geometric mean of errors per sequence, beyond the optimum, over the preset's points of
    evaluation, on sequences that no table reports. `tell` hears of each seed. Raises CheckpointError where one may
    still come to its end, and where the errors of none are finite.
    """
    unfinished = [seed for seed, end in ends.items() if end not in (End.FINISHED, End.DIVERGED)]
    if unfinished:
        raise CheckpointError(
            f"{seed_directory(runs, unfinished[0])} came to no end: nothing is chosen before every seed has"
        )
    points = preset.evaluation or (Point({}),)
    due = _choice_points(preset.task, points)
    candidates = []
    for seed, end in sorted(ends.items()):
        run = seed_directory(runs, seed)
        mean = _mean_errors(run, preset.task, due) if end == End.FINISHED else math.inf
        candidates.append(Candidate(seed, run, end == End.FINISHED, mean))
        tell(f"{run}: {mean:.4g} errors per sequence, as a geometric mean over {len(due)} measurements")
    best = min(candidates, key=lambda candidate: candidate.mean_errors)
    if not math.isfinite(best.mean_errors):
        raise CheckpointError(
            f"{runs}: no seed of {', '.join(map(str, ends))} has errors that are finite, so that none can be "
            "published: lower optimizer.learning_rate or optimizer.clip_norm, or give other --seeds"
        )
    return Choice(preset.task, best, candidates, points)


def publish(
    choice: Choice,
    out: Path,
    command: str,
    sequences: int,
    tell: Callable[[str], object],
    tasks: Sequence[Path] = (),
) -> None:
    """Make a checkpoint to serve of the run that was chosen: measured on `sequences` fresh ones, exported, described.

    The manifest records every seed: after how many sequences it had converged, or None, and its mean errors. `out` is
    replaced as a whole once everything is there. `tell` hears each line of the table. tasks: the files that a command
    needs to measure it again. Raises CheckpointError where a measurement is not finite, or where `out` holds what would
    be lost.
    """
    require_replaceable(out)
    own = [word for file in tasks for word in ("--tasks", str(file))]
    measuring = shlex.join(["engram", "evaluate", str(out), *own, "--sequences", str(sequences)])
    with replacing(out) as fresh:
        _copy(choice, fresh, command)
        _write_learning_curves(choice.candidates, fresh)
        _measure(fresh, choice, sequences, measuring, tell)
        export(fresh)
        plot_all(fresh, fresh)
        write_card(fresh)


def _choice_points(task: Task, points: Sequence[Point]) -> Sequence[Point]:
    """Return the points to choose by: those that draw sequences. What was chosen by a test set says nothing on it."""
    drawn = [point for point in points if task.with_options(point.options).test_set(1) is None]
    return drawn or [Point({})]


def _mean_errors(run: Path, task: Task, points: Sequence[Point]) -> float:
    model, _ = load(run)
    rows = list(evaluate(model, task, points, CHOICE_SEQUENCES, CHOICE_SEED))
    return statistics.geometric_mean([_errors_beyond(row) for row in rows])


def _errors_beyond(row: Mapping[str, Any]) -> float:
    """Return the errors of a measurement beyond the optimum; infinity where a number of it is not finite."""
    return max(LEAST_ERRORS, row["errors"] - (row["optimum"] or 0.0)) if is_finite(row) else math.inf


def _copy(choice: Choice, out: Path, command: str) -> None:
    """Write the model that was chosen to `out`, with the record of all seeds."""
    run = choice.best.run
    manifest = read_manifest(run)
    shutil.copyfile(weights_file(run, manifest), out / WEIGHTS_FILE)
    seeds = {str(candidate.seed): candidate.record for candidate in choice.candidates}
    training = manifest.training | {"command": command, "seeds": seeds}
    task = task_values(choice.task)
    write_manifest(out, dataclasses.replace(manifest, task=task, training=training, evaluation=[]))


def _write_learning_curves(candidates: Sequence[Candidate], out: Path) -> None:
    """Write the validations of every seed that are finite, [sequences, errors], as JSON by seed."""
    curves = {
        str(candidate.seed): [
            [line["sequences"], line["validation_errors"]]
            for line in read_metrics(candidate.run)
            if math.isfinite(line.get("validation_errors", math.nan))
        ]
        for candidate in candidates
    }
    write_atomically(out / LEARNING_DATA, (json.dumps(curves) + "\n").encode())


def _measure(directory: Path, choice: Choice, sequences: int, command: str, tell: Callable[[str], object]) -> None:
    """Measure the checkpoint that was chosen and record it in its manifest, with the command that prints the same."""
    model, manifest = load(directory)
    rows = []
    tell(HEAD)
    for row in evaluate(model, choice.task, choice.points, sequences):
        tell(line(row))
        if not is_finite(row):
            raise CheckpointError(f"what was measured at {row['options']} is not finite: nothing is published")
        rows.append(row | {"command": command})
    save_evaluation(directory, manifest, rows)
