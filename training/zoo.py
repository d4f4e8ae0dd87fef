"""Publish a preset's model: the best of several seeds, with its figures, graph and card."""

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
from training.checkpoint import save_evaluation, write_manifest
from training.evaluation import CHOICE_SEED, evaluate, is_finite
from training.export import export
from training.files import CheckpointError, replacing, write_atomically
from training.front_matter import license_of
from training.own import NO_FILES, OwnFiles
from training.plots import LEARNING_DATA, plot_all
from training.preset import Point, Preset
from training.progress import counting
from training.run_metrics import read_metrics
from training.seeds import End, seed_directory
from training.table import HEAD, line
from training.tasks import Task, task_values

PUBLISHED = {MANIFEST_FILE, WEIGHTS_FILE, NEXT_WEIGHTS_FILE, ONNX_FILE, CARD_FILE, LEARNING_DATA, *FIGURES}
"""The files of a published checkpoint: the next one replaces them all."""

CHOICE_SEQUENCES = 256
LEAST_ERRORS = 1e-3
"""The least errors per sequence that count in a geometric mean, which 0 would make 0."""


class Candidate(NamedTuple):
    """One seed of a preset, and its errors on sequences that no table reports.

    run: where it was trained; finished: False if it diverged. mean_errors: per sequence, beyond the optimum, as a
    geometric mean over the measurements; infinity if a number is not finite.
    """

    seed: int
    run: Path
    finished: bool
    mean_errors: float

    @property
    def record(self) -> dict[str, Any]:
        """The manifest's record of a seed: None for a value that is not known, or not finite."""
        training = read_manifest(self.run).training if self.finished else {}
        return {
            "sequences": training.get("sequences"),
            "converged_after": training.get("converged_after"),
            "mean_errors": self.mean_errors if math.isfinite(self.mean_errors) else None,
        }


class Choice(NamedTuple):
    """The seed of a preset to publish, and the points to measure.

    task: the preset's, with the present location of its data.
    """

    task: Task
    best: Candidate
    candidates: Sequence[Candidate]
    points: Sequence[Point]


def require_replaceable(out: Path) -> None:
    """Raise CheckpointError if `out` holds files that replacing it by a checkpoint would lose."""
    foreign = sorted({path.name for path in out.glob("*")} - PUBLISHED)
    if foreign:
        raise CheckpointError(
            f"{out} holds {foreign[0]}, which is no part of a published checkpoint: give another --out"
        )


def choose(preset: Preset, runs: Path, ends: Mapping[int, End], show: Callable[[str], object]) -> Choice:
    """Choose the best of the seeds that were trained in `runs`. ends: the seeds, and how each ended.

    The best has the least geometric mean of errors per sequence, beyond the optimum, over the preset's points of
    evaluation, on sequences that no table reports. `show` is called with a line for each seed. Raises
    CheckpointError if a seed has not finished, or if no seed has finite errors.
    """
    unfinished = [seed for seed, end in ends.items() if end not in (End.FINISHED, End.DIVERGED)]
    if unfinished:
        raise CheckpointError(
            f"{seed_directory(runs, unfinished[0])} has not finished: nothing is chosen before every seed has"
        )
    points = preset.evaluation or (Point({}),)
    due = _choice_points(preset.task, points)
    candidates = []
    for seed, end in sorted(ends.items()):
        run = seed_directory(runs, seed)
        mean = _mean_errors(run, preset.task, due) if end == End.FINISHED else math.inf
        candidates.append(Candidate(seed, run, end == End.FINISHED, mean))
        show(f"{run}: {mean:.4g} errors per sequence, as a geometric mean over {len(due)} measurements")
    best = min(candidates, key=lambda candidate: candidate.mean_errors)
    if not math.isfinite(best.mean_errors):
        raise CheckpointError(
            f"{runs}: no seed of {', '.join(map(str, ends))} has finite errors, so that none can be "
            "published: lower optimizer.learning_rate or optimizer.clip_norm, or give other --seeds"
        )
    return Choice(preset.task, best, candidates, points)


def publish(
    choice: Choice,
    out: Path,
    command: str,
    sequences: int,
    show: Callable[[str], object],
    own: OwnFiles = NO_FILES,
) -> None:
    """Make a checkpoint of the chosen run: measured on `sequences` fresh sequences, exported, described.

    The manifest records every seed: the sequences after which it had converged, or None, and its mean errors. `out` is
    replaced as a whole once everything is there. `show` is called with each line of the table. own: the files that a
    command needs to measure it again. Raises CheckpointError if a measurement is not finite, or if `out` holds files
    that would be lost.
    """
    require_replaceable(out)
    measuring = shlex.join(["engram", "evaluate", str(out), *own.words, "--sequences", str(sequences)])
    with replacing(out) as fresh:
        _copy(choice, fresh, command)
        _write_learning_curves(choice.candidates, fresh)
        _measure(fresh, choice, sequences, measuring, show)
        with counting("checking against torch", "step") as after_step:
            export(fresh, after_step)
        plot_all(fresh, fresh)
        write_card(fresh, license_of(out / CARD_FILE))


def _choice_points(task: Task, points: Sequence[Point]) -> Sequence[Point]:
    """Return the points to choose by: those that draw sequences, for a test set must not take part in the choice."""
    drawn = [point for point in points if task.with_options(point.options).test_set(1) is None]
    return drawn or [Point({})]


def _mean_errors(run: Path, task: Task, points: Sequence[Point]) -> float:
    model, _ = load(run)
    rows = list(evaluate(model, task, points, CHOICE_SEQUENCES, CHOICE_SEED))
    return statistics.geometric_mean([_errors_beyond(row) for row in rows])


def _errors_beyond(row: Mapping[str, Any]) -> float:
    """Return the errors of a measurement beyond the optimum; infinity if one of its numbers is not finite."""
    return max(LEAST_ERRORS, row["errors"] - (row["optimum"] or 0.0)) if is_finite(row) else math.inf


def _copy(choice: Choice, out: Path, command: str) -> None:
    """Write the chosen model to `out`, with the record of all seeds."""
    run = choice.best.run
    manifest = read_manifest(run)
    shutil.copyfile(weights_file(run, manifest), out / WEIGHTS_FILE)
    seeds = {str(candidate.seed): candidate.record for candidate in choice.candidates}
    training = manifest.training | {"command": command, "seeds": seeds}
    task = task_values(choice.task)
    write_manifest(out, dataclasses.replace(manifest, task=task, training=training, evaluation=[]))


def _write_learning_curves(candidates: Sequence[Candidate], out: Path) -> None:
    """Write the finite validations of every seed, [sequences, errors], as JSON by seed."""
    curves = {
        str(candidate.seed): [
            [line["sequences"], line["validation_errors"]]
            for line in read_metrics(candidate.run)
            if math.isfinite(line.get("validation_errors", math.nan))
        ]
        for candidate in candidates
    }
    write_atomically(out / LEARNING_DATA, (json.dumps(curves) + "\n").encode())


def _measure(directory: Path, choice: Choice, sequences: int, command: str, show: Callable[[str], object]) -> None:
    """Measure the chosen checkpoint and record it in its manifest, with the command that prints the same."""
    model, manifest = load(directory)
    rows = []
    show(HEAD)
    for row in evaluate(model, choice.task, choice.points, sequences):
        show(line(row))
        if not is_finite(row):
            raise CheckpointError(f"the measurement at {row['options']} is not finite: nothing is published")
        rows.append(row | {"command": command})
    save_evaluation(directory, manifest, rows)
