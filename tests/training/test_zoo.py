"""From runs to a published model: the choice, and the files that a served model needs."""

import dataclasses
import json
import math
import shutil

import pytest
import torch

from engram import main as cli
from models.artefact import load
from models.config import ConfigError
from models.manifest import MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE, read_manifest
from tests.training import tiny
from tests.training.graphs import metadata, session
from tests.training.tasks.situations import write_stories
from training import zoo
from training.card import render_card
from training.checkpoint import save_checkpoint
from training.evaluation import CHOICE_SEED, EVALUATION_SEED, evaluate, measure
from training.files import CheckpointError
from training.preset import Point, preset_from_values
from training.run import train
from training.run_metrics import read_metrics
from training.seeds import End
from training.table import HEAD, line, seeds_text
from training.tasks import Babi
from training.trainer import Trainer
from training.zoo import CHOICE_SEQUENCES, LEAST_ERRORS, _choice_points, choose, publish

pytestmark = pytest.mark.slow

ENDS = {2: End.FINISHED, 10: End.FINISHED, 1: End.FINISHED}

POINTS = [{"length": 2, "target": 1.5}, {"length": 5, "memory_size": 16, "published": "none"}]


def preset(**changes):
    return tiny.preset("ntm", evaluation=POINTS, target_errors=3.0, patience=0, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The runs of three seeds, finished."""
    directory = tmp_path_factory.mktemp("runs")
    for seed in (2, 10, 1):
        one = preset(updates=40).with_training(seed=seed)
        train(one, directory / f"seed-{seed}", "engram zoo", device="cpu", resuming=False, save_every=500)
    return directory


def ngrams():
    """A preset of the small RNN for a task whose errors are a cost."""
    model = {"kind": "rnn", "controller": tiny.LSTM}
    return preset_from_values(tiny.values() | {"task": {"name": "ngrams", "order": 2, "length": 20}, "model": model})


def choose_and_publish(runs, out, sequences=5, tell=str, ends=ENDS):
    choice = choose(preset(updates=40), runs, ends, tell)
    publish(choice, out, "engram zoo tiny", sequences, tell)


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    """The published checkpoint, and the lines shown."""
    shown = []
    out = tmp_path_factory.mktemp("zoo") / "with a space" / "ntm-tiny"
    choose_and_publish(runs, out, 30, shown.append)
    return out, shown


def choose_only(monkeypatch):
    """Skip the slow parts after the choice."""
    for name in ("export", "plot_all", "write_card"):
        monkeypatch.setattr(zoo, name, lambda *_: None)


def test_everything_that_a_served_model_needs_is_there(published):
    out, _ = published
    figures = ["learning.png", "generalisation.png", "weightings.png", "gates.png", "memory.png"]
    files = {MANIFEST_FILE, WEIGHTS_FILE, ONNX_FILE, "README.md", "learning.json", *figures}
    assert {path.name for path in out.iterdir()} == files
    assert (out / "README.md").read_text() == render_card("ntm-tiny", read_manifest(out), figures)
    graph = json.loads(metadata(session(out / ONNX_FILE))["engram.manifest"])
    assert graph["weights_sha256"] == load(out)[1].weights_sha256


def test_seed_with_the_least_mean_errors_is_chosen(runs, published):
    out, shown = published
    means = {}
    for seed in (1, 2, 10):
        model, _ = load(runs / f"seed-{seed}")
        task = preset().task
        errors = [
            measure(model, task.with_options({"length": 2}), CHOICE_SEQUENCES, CHOICE_SEED).errors,
            measure(model, task.with_options({"length": 5}), CHOICE_SEQUENCES, CHOICE_SEED, 16).errors,
        ]
        means[str(seed)] = math.sqrt(errors[0] * errors[1])
    training = read_manifest(out).training
    assert {seed: record["mean_errors"] for seed, record in training["seeds"].items()} == pytest.approx(means)
    assert training["seed"] == int(min(means, key=means.__getitem__))
    assert (out / WEIGHTS_FILE).read_bytes() == (runs / f"seed-{training['seed']}" / WEIGHTS_FILE).read_bytes()
    assert len([text for text in shown if "as a geometric mean over 2 measurements" in text]) == 3


def test_choice_depends_on_ratios_of_errors_not_sums(runs, tmp_path, monkeypatch):
    due = iter([([1.0, 1.0], None), ([0.0, 50.0], None), ([5.5, 6.2], 5.0)])

    def found(model, task, points, sequences, seed=EVALUATION_SEED):
        if seed != CHOICE_SEED:
            return evaluate(model, task, points, sequences, seed)
        assert sequences == CHOICE_SEQUENCES
        errors, optimum = next(due)
        return [{"errors": count, "cost": None, "optimum": optimum} for count in errors]

    monkeypatch.setattr(zoo, "evaluate", found)
    choose_only(monkeypatch)
    choose_and_publish(runs, tmp_path)
    training = read_manifest(tmp_path).training
    means = {seed: record["mean_errors"] for seed, record in training["seeds"].items()}
    assert training["seed"] == 2
    assert means == pytest.approx({"1": 1.0, "2": math.sqrt(LEAST_ERRORS * 50), "10": math.sqrt(0.6)})


def test_manifest_records_every_seed_with_when_it_had_converged(runs, published):
    out, _ = published
    training = read_manifest(out).training
    assert list(training["seeds"]) == ["1", "2", "10"]
    for seed, record in training["seeds"].items():
        own = read_manifest(runs / f"seed-{seed}").training
        assert (record["sequences"], record["converged_after"]) == (160, own["converged_after"])
    assert (training["command"], training["finished"]) == ("engram zoo tiny", True)


def test_learning_curves_have_every_validation_of_every_seed(runs, published):
    out, _ = published
    curves = json.loads((out / "learning.json").read_text())
    assert list(curves) == list(read_manifest(out).training["seeds"]) == ["1", "2", "10"]
    for seed, points in curves.items():
        lines = [row for row in read_metrics(runs / f"seed-{seed}") if "validation_errors" in row]
        assert points == [[row["sequences"], row["validation_errors"]] for row in lines]
        assert [sequences for sequences, _ in points] == [40, 80, 120, 160]


def test_recorded_errors_equal_those_the_command_prints(published, capsys):
    out, shown = published
    rows = read_manifest(out).evaluation
    assert [(row["options"], row["memory_size"], row["target"], row["published"]) for row in rows] == [
        ({"length": 2}, 8, 1.5, None),
        ({"length": 5}, 16, None, "none"),
    ]
    assert {row["seed"] for row in rows} == {EVALUATION_SEED}
    command = rows[0]["command"]
    assert command == f"engram evaluate '{out}' --sequences 30"
    assert cli.main(["evaluate", str(out), "--sequences", "30"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == [HEAD, *map(line, rows)] == shown[-3:]


def test_same_runs_published_again_give_the_same_files(runs, published, tmp_path, monkeypatch):
    out, _ = published
    monkeypatch.setattr(zoo, "export", lambda *_: None)
    choose_and_publish(runs, tmp_path / "ntm-tiny", 30)
    for name in (WEIGHTS_FILE, "learning.json", "learning.png", "weightings.png"):
        assert (tmp_path / "ntm-tiny" / name).read_bytes() == (out / name).read_bytes(), name


def test_seeds_that_were_not_asked_for_are_no_candidates(runs, tmp_path, monkeypatch):
    choose_only(monkeypatch)
    choose_and_publish(runs, tmp_path, ends={10: End.FINISHED})
    training = read_manifest(tmp_path).training
    assert (training["seed"], list(training["seeds"])) == (10, ["10"])
    assert list(json.loads((tmp_path / "learning.json").read_text())) == ["10"]


@pytest.mark.parametrize("end", [End.FAILED, End.INTERRUPTED])
def test_nothing_is_chosen_while_a_seed_is_unfinished(runs, end):
    shown = []
    with pytest.raises(CheckpointError, match="seed-3 has not finished: nothing is chosen before every seed has"):
        choose(preset(updates=40), runs, ENDS | {3: end}, shown.append)
    assert shown == []


def test_seed_that_diverged_is_recorded_without_convergence(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "export", lambda *_: None)
    choose_and_publish(runs, tmp_path, ends={1: End.FINISHED, 3: End.DIVERGED})
    training = read_manifest(tmp_path).training
    assert (training["seed"], list(training["seeds"])) == (1, ["1", "3"])
    assert training["seeds"]["3"] == {"sequences": None, "converged_after": None, "mean_errors": None}
    assert json.loads((tmp_path / "learning.json").read_text())["3"] == []
    assert "\n| 3 | - | not | not finite |\n" in (tmp_path / "README.md").read_text()
    assert seeds_text(read_manifest(tmp_path)).startswith("1 of 2 seeds converged")


def test_model_with_nonfinite_numbers_has_infinite_errors(tmp_path):
    """With n-grams, whose errors are a cost; bits that are no numbers would only count as wrong or right."""
    for seed, bias in ((1, math.nan), (2, 0.0)):
        spoilt = Trainer(ngrams().with_training(seed=seed))
        torch.nn.init.constant_(spoilt.model.output.bias, bias)
        save_checkpoint(tmp_path / f"seed-{seed}", spoilt, "engram train")
    choice = choose(ngrams(), tmp_path, {1: End.FINISHED, 2: End.FINISHED}, str)
    assert [candidate.mean_errors for candidate in choice.candidates] == [math.inf, choice.best.mean_errors]
    assert choice.candidates[0].record["mean_errors"] is None
    with pytest.raises(CheckpointError, match="no seed of 1 has finite errors, so that none can be published"):
        choose(ngrams(), tmp_path, {1: End.FINISHED}, str)


def test_nothing_is_published_where_a_measurement_is_not_finite(runs, tmp_path, monkeypatch):
    def found(*arguments):
        return [row | {"cost": math.nan} for row in evaluate(*arguments)]

    choice = choose(preset(updates=40), runs, ENDS, str)
    monkeypatch.setattr(zoo, "evaluate", found)
    with pytest.raises(CheckpointError, match=r"the measurement at {'length': 2} is not finite: nothing is published"):
        publish(choice, tmp_path / "out", "engram zoo tiny", 5, str)
    assert list(tmp_path.iterdir()) == []


def test_impossible_measurement_is_reported_with_its_reason(runs):
    none = dataclasses.replace(preset(updates=40), evaluation=(Point({}, memory_size=0),))
    with pytest.raises(ConfigError, match="memory_size must be at least 1, got 0"):
        choose(none, runs, ENDS, str)


def test_runs_that_were_never_validated_are_published_without_curves(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "export", lambda *_: None)
    for seed in (1, 2):
        short = preset(updates=2).with_training(seed=seed)
        train(short, tmp_path / f"seed-{seed}", "engram zoo", device="cpu", resuming=False, save_every=500)
    choice = choose(preset(updates=2), tmp_path, {1: End.FINISHED, 2: End.FINISHED}, str)
    publish(choice, tmp_path / "out", "engram zoo tiny", 5, str)
    assert json.loads((tmp_path / "out" / "learning.json").read_text()) == {"1": [], "2": []}
    assert not (tmp_path / "out" / "learning.png").exists()


def test_publication_that_fails_leaves_the_checkpoint_that_was_there(runs, published, tmp_path, monkeypatch):
    out = shutil.copytree(published[0], tmp_path / "ntm-tiny")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "export", fail)
    with pytest.raises(KeyboardInterrupt):
        choose_and_publish(runs, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["ntm-tiny"]


def test_directory_with_more_than_a_checkpoint_is_not_replaced(runs, published, tmp_path):
    out = shutil.copytree(published[0], tmp_path / "ntm-tiny")
    (out / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"ntm-tiny holds notes\.txt, which is no part of a published checkpoint"):
        choose_and_publish(runs, out)
    assert (out / "notes.txt").exists()


def test_data_of_a_task_may_move_after_training(tmp_path, monkeypatch):
    choose_only(monkeypatch)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    task = {"name": "babi", "directory": write_stories(old), "tasks": [1]}
    model = {"kind": "rnn", "controller": tiny.LSTM, "embedding": {"size": 4}}
    values = tiny.values() | {"task": task, "model": model}
    save_checkpoint(tmp_path / "runs" / "seed-1", Trainer(preset_from_values(values)), "engram train")
    old.rename(new)
    moved = preset_from_values(values | {"task": task | {"directory": str(new)}})
    publish(choose(moved, tmp_path / "runs", {1: End.FINISHED}, str), tmp_path / "out", "engram zoo tiny", 5, str)
    assert read_manifest(tmp_path / "out").task["directory"] == str(new)


def test_model_is_chosen_by_drawn_sequences_not_test_sets(tmp_path):
    directory = write_stories(tmp_path)
    task = Babi(directory, tasks=(1,))
    test, drawn = Point({"split": "test"}), Point({"max_words": 20})
    assert _choice_points(task, [test]) == [Point({})]
    assert _choice_points(task, [test, drawn]) == [drawn]
    assert _choice_points(task, [drawn, Point({})]) == [drawn, Point({})]
