"""engram import: checkpoints of the weights of original implementations."""

import json
import re

import numpy as np
import pytest
import torch

from tests.engram.running import complaint, done
from tests.training import tiny

CELLS = tiny.ROOT / "tests" / "reference" / "tf_rnn_cells.npz"


@pytest.mark.slow
def test_imported_cell_becomes_an_exported_checkpoint(tmp_path, capsys):
    printed = done(capsys, "import", "--format", "tf-rnn-cell", CELLS, "--cell", "gru", "--out", tmp_path / "gru")
    assert "198 parameters imported" in printed
    assert {path.name for path in (tmp_path / "gru").iterdir()} == {"manifest.json", "model.safetensors", "model.onnx"}


@pytest.mark.slow
def test_import_of_a_cell_that_cannot_step_leaves_nothing(tmp_path, capsys):
    cells = {"cells": [{"type": "BasicRNNCell", "num_units": 2, "activation": "relu"}]}
    names = {"kernel": "basic_rnn_cell/kernel:0", "bias": "basic_rnn_cell/bias:0"}
    arrays = {names["kernel"]: np.full((3, 2), 2e38), names["bias"]: np.full(2, 2e38)}
    file, out = tmp_path / "relu.npz", tmp_path / "relu"
    np.savez(file, config=json.dumps(cells), **arrays)
    words = ["import", "--format", "tf-rnn-cell", file, "--out", out]
    assert "its first step is not finite, in torch as well" in complaint(capsys, *words)
    assert not out.exists()
    np.savez(file, config=json.dumps(cells), **{name: array / 1e38 for name, array in arrays.items()})
    assert "8 parameters imported" in done(capsys, *words)


def test_import_without_its_cell_is_an_error(tmp_path, capsys):
    message = complaint(capsys, "import", "--format", "tf-rnn-cell", CELLS, "--out", tmp_path / "cell")
    assert "--cell takes one of basic_lstm, basic_rnn, gru" in message


NTM = tiny.ROOT / "tests" / "reference" / "pytorch_ntm_2heads_2layers.pt"


@pytest.mark.slow
def test_imported_model_with_a_task_is_measured_drawn_and_described(tmp_path, capsys):
    tensors, out = torch.load(NTM, weights_only=True), tmp_path / "ntm"
    output = {name: tensors[name][:3] for name in ("ntm.fc.weight", "ntm.fc.bias")}
    torch.save(tensors | output, tmp_path / "ntm.pt")
    task = ["--task", "name=copy", "bits=3", "length=[1,4]"]
    done(capsys, "import", tmp_path / "ntm.pt", "--format", "pytorch-ntm", "--out", out, *task)
    measured = done(capsys, "evaluate", out, "--sequences", 5)
    assert re.search(r"^as in training .*\d/5 ", measured, re.MULTILINE)
    assert str(out / "weightings.png") in done(capsys, "plot", out)
    assert done(capsys, "card", out) == f"{out / 'README.md'}\n"


def test_imported_model_without_a_task_names_the_remedy(tmp_path, capsys):
    out = tmp_path / "gru"
    done(capsys, "import", "--format", "tf-rnn-cell", CELLS, "--cell", "gru", "--out", out)
    message = "engram: task.name: the model was imported without a task; engram import --task name=TASK sets one"
    assert complaint(capsys, "evaluate", out) == complaint(capsys, "plot", out) == message
    assert done(capsys, "card", out) == f"{out / 'README.md'}\n"


def test_import_over_a_checkpoint_or_of_no_weights_is_refused(checkpoint, tmp_path, capsys):
    message = complaint(capsys, "import", NTM, "--format", "pytorch-ntm", "--out", checkpoint)
    assert message == f"engram: {checkpoint} holds a checkpoint, training.safetensors: give another --out"
    message = complaint(capsys, "import", tiny.ROOT / "LICENSE", "--format", "pytorch-ntm", "--out", tmp_path / "new")
    assert "LICENSE: neither an npz file of arrays nor a state_dict" in message
