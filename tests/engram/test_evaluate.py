"""engram evaluate: rows, JSON, damaged checkpoints, and its errors."""

import json
import re

import pytest
import torch

from engram import main as cli
from models.manifest import MANIFEST_FILE, read_manifest
from tests.engram.running import complaint, done, no_cuda
from tests.training import tiny
from tests.training.tasks.situations import write_stories
from training.checkpoint import save_checkpoint
from training.preset import preset_from_values
from training.trainer import Trainer


def test_evaluation_without_save_changes_nothing(checkpoint, capsys):
    before = (checkpoint / MANIFEST_FILE).read_bytes()
    printed = done(capsys, "evaluate", checkpoint, "--at", "length=1", "--sequences", 5)
    assert (checkpoint / MANIFEST_FILE).read_bytes() == before
    assert re.search(r"^length 1 +- +[\d.]+ +2 +\d/5 +[\d.]+$", printed, re.MULTILINE)


def test_evaluation_with_another_memory_size_is_recorded_beside_the_first(tmp_path, capsys):
    tiny.checkpoint(tmp_path, "ntm")
    words = ["evaluate", tmp_path, "--at", "length=2", "--sequences", 5, "--save"]
    done(capsys, *words)
    done(capsys, *words, "--memory-size", 16)
    assert [row["memory_size"] for row in read_manifest(tmp_path).evaluation] == [8, 16]


def test_memory_size_alone_is_measured_as_in_training(tmp_path, capsys):
    tiny.checkpoint(tmp_path, "ntm")
    printed = done(capsys, "evaluate", tmp_path, "--memory-size", 16, "--sequences", 5)
    assert re.search(r"^as in training +16 ", printed, re.MULTILINE)


def test_seed_of_the_evaluation_draws_other_sequences(checkpoint, capsys):
    words = ["evaluate", checkpoint, "--at", "length=3", "--sequences", 100]
    first, again, other = (done(capsys, *words, *seed) for seed in ([], [], ["--seed", 5]))
    assert first == again != other


def test_options_set_hold_for_all_that_is_measured(checkpoint, capsys):
    printed = done(capsys, "evaluate", checkpoint, "--set", "length=7", "--sequences", 5)
    assert re.search(r"^as in training +- +[\d.]+ +14 ", printed, re.MULTILINE)


def test_test_set_is_measured_on_all_its_sequences(tmp_path, capsys):
    stories = write_stories(tmp_path)
    task = {"name": "babi", "directory": stories, "tasks": [1]}
    model = {"kind": "rnn", "controller": tiny.LSTM, "embedding": {"size": 4}}
    trainer = Trainer(preset_from_values(tiny.values() | {"task": task, "model": model}))
    save_checkpoint(tmp_path / "out", trainer, "engram train")
    printed = done(capsys, "evaluate", tmp_path / "out", "--at", "split=test", "--at", "split=train", "--sequences", 7)
    heading, _, *rows = printed.splitlines()
    assert heading == "out: babi, one seed"
    assert [re.search(r"/(\d+)", row)[1] for row in rows] == ["1", "7"]


def test_damaged_checkpoint_is_reported_beside_the_others_with_status_1(tmp_path, capsys):
    for name in ("one", "two"):
        tiny.checkpoint(tmp_path / name)
    (tmp_path / "one" / MANIFEST_FILE).write_text("{")
    assert cli.main(["evaluate", "--all", str(tmp_path), "--sequences", "5"]) == 1
    first, second, _, row = [line for line in capsys.readouterr().out.splitlines() if line]
    assert first.startswith(f"damaged: {tmp_path / 'one' / MANIFEST_FILE}: not JSON: ")
    assert (second, row.split()[:3]) == ("two: copy, one seed", ["as", "in", "training"])


def test_evaluation_of_all_prints_the_rows_of_each(tmp_path, capsys):
    for name in ("one", "two"):
        tiny.checkpoint(tmp_path / name)
        done(capsys, "evaluate", tmp_path / name, "--at", "length=2", "--sequences", 5, "--save")
    printed = done(capsys, "evaluate", "--all", tmp_path, "--sequences", 7)
    assert re.findall(r"^\w+: .*|^length 2 .* \d/7 .*$", printed, re.MULTILINE)[::2] == [
        "one: copy, one seed",
        "two: copy, one seed",
    ]
    assert printed.count("/7") == 2


def test_evaluation_as_json_has_null_for_numbers_not_finite(tmp_path, capsys):
    trainer = tiny.checkpoint(tmp_path / "one")
    torch.nn.init.constant_(trainer.model.output.bias, torch.nan)
    save_checkpoint(tmp_path / "two", trainer, "engram train")
    for words in ([tmp_path / "two", "--at", "length=2"], ["--all", tmp_path]):
        message = json.loads(done(capsys, "evaluate", *words, "--sequences", 5, "--json"), parse_constant=pytest.fail)
        reports = message if isinstance(message, list) else [message]
        assert reports[-1]["checkpoint"] == str(tmp_path / "two")
        assert [(row["sequences"], row["cost"]) for row in reports[-1]["rows"]] == [(5, None)]


def test_evaluation_of_all_as_json_names_the_damaged(tmp_path, capsys):
    for name in ("one", "two"):
        tiny.checkpoint(tmp_path / name)
    (tmp_path / "one" / MANIFEST_FILE).write_text("{")
    assert cli.main(["evaluate", "--all", str(tmp_path), "--sequences", "5", "--json"]) == 1
    one, two = json.loads(capsys.readouterr().out)
    assert (one["damaged"], one["rows"], "not JSON" in one["error"]) == (True, [], True)
    assert (two["damaged"], len(two["rows"]), "error" in two) == (False, 1, False)


@no_cuda
def test_evaluating_on_a_missing_device_is_an_error(checkpoint, capsys):
    assert "no CUDA device" in complaint(capsys, "evaluate", checkpoint, "--device", "cuda")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--at", "length"], "expected KEY=VALUE, got 'length'"),
        (["--at", "len=3"], "--at: task: unknown key 'len'; known keys are bits, length, flags"),
        (["--at", "length=0"], "--at: Copy.length must be [least, greatest] with 1 <= least <= greatest, got [0, 0]"),
        (["--at", "bits=3"], "--at: with {'bits': 3} the task copy needs another model"),
        (["--set", "len=3"], "--set: task: unknown key 'len'; known keys are bits, length, flags"),
        (
            ["--set", "length=3", "--save"],
            "--save records what --at says: --set may only give the directory of the data then",
        ),
        (
            ["--all", "--at", "length=3"],
            "--all measures what is recorded: it takes no --at, --memory-size or --save",
        ),
        (["--seed", "99999999999"], "--seed must be from 0 to 4294967295, got 99999999999"),
        (["--memory-size", "16"], "memory_size 16 was asked for, but an RNN has no memory to resize"),
    ],
)
def test_measurement_that_cannot_be_is_an_error(checkpoint, capsys, words, message):
    assert complaint(capsys, "evaluate", checkpoint, *words) == f"engram: {message}"


def test_evaluation_of_nothing_is_an_error(tmp_path, capsys):
    assert complaint(capsys, "evaluate") == "engram: which checkpoint? Give its DIR, or --all"
    assert "there is no checkpoint" in complaint(capsys, "evaluate", "--all", tmp_path)


def test_weights_of_another_size_are_an_error(checkpoint, capsys):
    manifest = checkpoint / MANIFEST_FILE
    values = json.loads(manifest.read_text())
    values["config"]["controller"]["hidden_size"] = 9
    manifest.write_text(json.dumps(values))
    assert "size mismatch" in complaint(capsys, "evaluate", checkpoint)
