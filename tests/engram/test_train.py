"""engram train: presets and values set, several seeds, and its errors."""

import json
import re
import sys

import pytest
import torch

from engram import main as cli
from models.manifest import read_manifest
from tests.engram.running import complaint, done, no_cuda
from tests.training import tiny
from training.checkpoint import resume, save_checkpoint
from training.preset import preset_names


def test_values_set_are_those_of_the_run(tmp_path, capsys):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "out"
    words = ["--set", "task.length=[1,5]", "optimizer.kind=rmsprop", "--set", "training.batch_size=2"]
    ended = json.loads(done(capsys, "train", preset, "--out", out, *words, "--json"))
    assert (ended["checkpoint"], ended["finished"], ended["updates"], ended["sequences"]) == (str(out), True, 30, 60)
    manifest, trained = read_manifest(out), resume(out).preset
    assert (manifest.task["length"], manifest.training["sequences"]) == ([1, 5], 60)
    assert (trained.optimizer.kind, trained.optimizer.learning_rate) == ("rmsprop", 0.01)


@pytest.mark.slow
def test_seeds_are_listed_with_when_they_converged(tmp_path, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml", target_errors=100, patience=0)
    printed = done(capsys, "train", preset, "--out", tmp_path, "--seeds", 7, 2, "--jobs", 2)
    head, *seeds, last = printed.splitlines()[-4:]
    assert head.split() == ["seed", "sequences", "converged", "after"]
    assert [line.split() for line in seeds] == [["7", "120", "40"], ["2", "120", "40"]]
    assert last == "2 of 2 seeds converged: median 40 sequences, from 40 to 40"


@pytest.mark.parametrize("command", ["train", "zoo"])
def test_seed_given_twice_is_refused(tmp_path, capsys, command):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "out"
    message = complaint(capsys, command, preset, "--out", out, "--seeds", 2, 1, 2)
    assert message == "engram: --seeds: 2 is there twice, and would be one run: give each seed once"
    assert not out.exists()


def test_unknown_preset_is_an_error_that_names_all_presets(tmp_path, capsys):
    message = complaint(capsys, "train", "dnc-sort", "--out", tmp_path / "out")
    assert "no preset 'dnc-sort'" in message
    assert all(name in message for name in preset_names())
    assert not (tmp_path / "out").exists()


@no_cuda
def test_training_on_a_missing_device_is_an_error(tmp_path, capsys):
    message = complaint(capsys, "train", "dnc-copy", "--out", tmp_path / "out", "--device", "cuda")
    assert message == "engram: device cuda was asked for, but torch sees no CUDA device here"
    assert not (tmp_path / "out").exists()


def test_bad_value_in_a_preset_is_an_error(tmp_path, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml", updates="many")
    message = complaint(capsys, "train", preset, "--out", tmp_path / "out")
    assert message == "engram: training.updates: expected int, got 'many'"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "length=3",
            "length: expected TABLE.KEY, with a table of task, model, training, optimizer, "
            "or a whole list, curriculum or evaluation",
        ),
        (
            "curriculum=3",
            "preset: curriculum must be a list of tables, [[curriculum]], got 3",
        ),
        ("task.length", "expected KEY=VALUE, got 'task.length'"),
        ("=3", "expected KEY=VALUE, got '=3'"),
        ("task.width=3", "task: unknown key 'width'; known keys are bits, length, flags"),
        ("task.length=[3,1]", "Copy.length must be [least, greatest] with 1 <= least <= greatest, got [3, 1]"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate: expected float or NoneType, got 'fast'"),
        ("model.input_size=3", "model.input_size: the task sets it, here to 4; leave it out"),
    ],
)
def test_value_set_that_cannot_be_is_an_error(tmp_path, capsys, word, message):
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    assert complaint(capsys, "train", preset, "--out", tmp_path / "out", "--set", word) == f"engram: {message}"
    assert complaint(capsys, "zoo", preset, "--out", tmp_path / "out", "--set", word) == f"engram: {message}"
    assert not (tmp_path / "out").exists()


def test_one_seed_and_several_are_not_both_trained(tmp_path, capsys):
    message = complaint(capsys, "train", "dnc-copy", "--out", tmp_path / "out", "--seed", 1, "--seeds", 1, 2)
    assert message == "engram: --seed trains one seed and --seeds several: give one of them"


@pytest.mark.parametrize("words", [["train"], ["train", "--seeds", "1", "2"], ["zoo"]])
def test_tensorboard_without_its_package_is_an_error_before_training(tmp_path, capsys, monkeypatch, words):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    message = complaint(capsys, words[0], preset, *words[1:], "--out", tmp_path / "out", "--tensorboard")
    assert message.endswith("pip install -c constraints.txt -e '.[tensorboard]', or leave --tensorboard out")
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.toml"}


def test_run_of_numbers_not_finite_ends_with_an_error(tmp_path, capsys):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml", seed=6), tmp_path / "out"
    spoilt = tiny.checkpoint(out, updates=4, seed=6)
    torch.nn.init.constant_(spoilt.model.output.bias, torch.nan)
    save_checkpoint(out, spoilt, "engram train")
    assert cli.main(["train", str(preset), "--out", str(out), "--resume"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"engram: update 10, seed 6: output\.bias is not finite \(.*\), for 6 updates in a row; .*", message
    )


def test_directory_that_holds_a_run_is_refused(tmp_path, checkpoint, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    message = complaint(capsys, "train", preset, "--out", checkpoint)
    assert message == f"engram: {checkpoint} holds a training run: go on with it (--resume) or give another --out"


def test_resuming_nothing_or_another_run_is_refused(tmp_path, checkpoint, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    nothing = complaint(capsys, "train", preset, "--out", tmp_path / "nowhere", "--resume")
    assert "there is no training run to resume here" in nothing
    other = complaint(capsys, "train", preset, "--out", checkpoint, "--resume", "--seed", 9)
    assert "training.seed = 1, but 9 was asked for" in other
