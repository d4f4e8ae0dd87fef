"""Runs that begin with the weights of a checkpoint, and the errors of those that do not fit."""

import re
import shlex

import numpy as np
import pytest
import torch

from engram import main as cli
from models.artefact import load
from models.manifest import MANIFEST_FILE, ManifestError, read_manifest
from tests.training import tiny
from training.card import render_card
from training.checkpoint import resume
from training.files import CheckpointError
from training.initial import begin_from
from training.preset import preset_from_values
from training.run import train
from training.trainer import Trainer


def run(preset, out, init_from=None, resuming=False):
    return train(preset, out, "engram train", device="cpu", resuming=resuming, save_every=500, init_from=init_from)


def refusal(preset, directory):
    """Return the error of a checkpoint whose weights do not fit the run, which keeps its own."""
    trainer = Trainer(preset)
    before = [weight.clone() for weight in trainer.model.parameters()]
    with pytest.raises(CheckpointError) as error:
        begin_from(trainer, directory)
    assert all(map(torch.equal, before, trainer.model.parameters()))
    return str(error.value)


@pytest.mark.parametrize("model", list(tiny.MODELS))
def test_run_begins_with_a_checkpoints_weights_only(tmp_path, model):
    source = tiny.checkpoint(tmp_path / "source", model, updates=5)
    trainer = Trainer(tiny.preset(model, seed=7))
    begin_from(trainer, tmp_path / "source")
    assert trainer.model.state_dict().keys() == source.model.state_dict().keys()
    assert all(map(torch.equal, trainer.model.parameters(), source.model.parameters()))
    first = Trainer(tiny.preset(model, seed=7))
    first.model.load_state_dict(source.model.state_dict())
    assert trainer.update() == first.update()
    assert all(map(torch.equal, trainer.model.parameters(), first.model.parameters()))


def test_run_records_its_initial_weights_and_resumes(tmp_path):
    tiny.checkpoint(tmp_path / "source", updates=5)
    whole = run(tiny.preset(), tmp_path / "out", tmp_path / "source")
    sha256 = read_manifest(tmp_path / "source").weights_sha256
    assert whole.progress.initial_weights == sha256
    assert f"It began from the weights whose file has the SHA-256 {sha256}." in render_card(
        "out", read_manifest(tmp_path / "out")
    )
    for init_from in (None, tmp_path / "source"):
        assert run(tiny.preset(), tmp_path / "out", init_from, resuming=True).progress == whole.progress
    tiny.checkpoint(tmp_path / "other", updates=1)
    with pytest.raises(
        CheckpointError, match=r"did not begin from the weights that .*other holds: leave --init-from out"
    ):
        run(tiny.preset(), tmp_path / "out", tmp_path / "other", resuming=True)


def test_memory_of_another_size_and_activation_are_no_difference(tmp_path):
    tiny.checkpoint(tmp_path, "dnc", updates=1)
    manifest = tmp_path / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace('"sigmoid"', '"identity"'))
    values = tiny.values("dnc")
    values["model"]["memory_size"] = 32
    trainer = Trainer(preset_from_values(values))
    begin_from(trainer, tmp_path)
    assert all(map(torch.equal, trainer.model.parameters(), load(tmp_path)[0].parameters()))


def test_different_model_is_refused_with_the_options_to_set(tmp_path, capsys):
    tiny.checkpoint(tmp_path / "source", "ntm", updates=1)
    message = refusal(tiny.preset("ntm-feed-forward-shift-5"), tmp_path / "source")
    assert "source has model.read_heads = 1, but this run has 2, " in message
    assert " model.controller = {'kind': 'lstm', " in message
    words = shlex.split(re.search(r"--set .* makes", message)[0])[:-1]
    file = tiny.write_toml(tmp_path / "five.toml", "ntm-feed-forward-shift-5", updates=2)
    command = ["train", file, "--out", tmp_path / "out", "--init-from", tmp_path / "source", *words]
    assert cli.main(list(map(str, command))) == 0, capsys.readouterr().err


def test_option_of_the_same_cell_is_named_alone(tmp_path):
    tiny.checkpoint(tmp_path / "source")
    values = tiny.values()
    values["model"]["controller"] = {"kind": "lstm", "hidden_size": 6}
    message = refusal(preset_from_values(values), tmp_path / "source")
    words = "--set model.controller.hidden_size=8 makes them the same"
    assert message == f"{tmp_path / 'source'} has model.controller.hidden_size = 8, but this run has 6: {words}"


def test_model_of_another_kind_or_task_is_refused_by_name(tmp_path):
    tiny.checkpoint(tmp_path / "rnn")
    assert "has model.kind = 'rnn', but this run has 'dnc': --set" in refusal(tiny.preset("dnc"), tmp_path / "rnn")
    message = refusal(tiny.preset(task={"bits": 3}), tmp_path / "rnn")
    assert "rnn has model.input_size = 4, but this run has 5, model.output_size = 2, but this run has 3" in message
    assert message.endswith(": the task needs another model")
    learned = tiny.values("ntm")
    learned["model"]["memory_start"] = "learned"
    run(preset_from_values(learned), tmp_path / "learned")
    learned["model"]["memory_size"] = 16
    message = refusal(preset_from_values(learned), tmp_path / "learned")
    assert re.search(r"has shape \[8, 4\], but this run needs \[16, 4\]: --set model.memory_size=8 makes", message)


def test_directory_without_a_checkpoint_is_refused_and_nothing_is_begun(tmp_path):
    with pytest.raises(ManifestError, match=r"manifest\.json: No such file"):
        run(tiny.preset(), tmp_path / "out", tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_imported_weights_are_trained_on_by_several_seeds(tmp_path, capsys):
    arrays = {"basic_rnn_cell/kernel:0": np.full((6, 2), 0.1), "basic_rnn_cell/bias:0": np.zeros(2)}
    np.savez(tmp_path / "cell.npz", config='{"cells": [{"type": "BasicRNNCell", "num_units": 2}]}', **arrays)
    words = ["import", "--format", "tf-rnn-cell", tmp_path / "cell.npz", "--out", tmp_path / "cell"]
    assert cli.main(list(map(str, words))) == 0
    preset = tiny.write_toml(tmp_path / "tiny.toml", updates=3)
    changes = ["--set", 'model.controller={"kind":"basic-rnn","hidden_size":2}', "model.readout=false"]
    words = ["train", preset, "--out", tmp_path / "runs", "--init-from", tmp_path / "cell", "--seeds", 1, 2, *changes]
    assert cli.main(list(map(str, words))) == 0, capsys.readouterr().err
    progress = [resume(tmp_path / "runs" / f"seed-{seed}").progress for seed in (1, 2)]
    assert {run.initial_weights for run in progress} == {read_manifest(tmp_path / "cell").weights_sha256}
