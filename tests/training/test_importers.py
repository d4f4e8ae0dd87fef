"""Files that differ from the original's; tests/reference compares the outputs of imported weights."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.commands.import_ import ORIGINALS
from models.artefact import load
from models.config import ConfigError
from models.contract import unroll
from models.manifest import ONNX_FILE, read_manifest
from tests.models.naive import ACTIVATIONS
from tests.training import tiny
from training.card import render_card
from training.files import CheckpointError
from training.importers import FORMATS, ImportFailed, import_checkpoint, read_original
from training.importers.tf_rnn_cell import SCOPES
from training.preset import load_preset
from training.tasks import build_task

ROLLOUTS = Path(__file__).parents[1] / "reference"
NTM = ROLLOUTS / "pytorch_ntm_2heads_2layers.pt"
DNC = ROLLOUTS / "deepmind_dnc_3writes.npz"
PORT = ROLLOUTS / "dnc_pytorch_2writes.pt"
COPIER = ROLLOUTS / "ntm_lasagne_copy.npz"

CONFIG = {"cells": [{"type": "GRUCell", "num_units": 2}]}
SCOPE = "gru_cell"


def variables():
    """Return a GRU of two units over three inputs, by TensorFlow's names."""
    draw = np.random.default_rng(0).standard_normal
    return {
        f"{SCOPE}/gates/kernel:0": draw((5, 4)),
        f"{SCOPE}/gates/bias:0": draw(4),
        f"{SCOPE}/candidate/kernel:0": draw((5, 2)),
        f"{SCOPE}/candidate/bias:0": draw(2),
    }


def write(path, arrays, config=CONFIG):
    text = config if isinstance(config, str) else json.dumps(config)
    np.savez(path, config=text, **arrays)
    return path


def refusal(path, original="tf-rnn-cell", cell=None):
    with pytest.raises(ImportFailed) as error:
        read_original(original, path, cell)
    return str(error.value)


def test_import_writes_a_checkpoint_that_says_where_it_is_from(tmp_path):
    import_checkpoint("tf-rnn-cell", write(tmp_path / "gru.npz", variables()), tmp_path / "out", None, "engram import")
    model, manifest = load(tmp_path / "out")
    assert (manifest.kind, manifest.input_size, manifest.output_size) == ("rnn", 3, 2)
    assert manifest.training == {"command": "engram import", "original": "tf-rnn-cell"}
    assert model.controller.gates.weight.shape == (4, 5)
    assert not (tmp_path / "out" / ONNX_FILE).exists()


def test_variables_may_stand_under_params(tmp_path):
    arrays = {f"params/{name}": array for name, array in variables().items()} | {"outputs": np.zeros(3)}
    assert read_original("tf-rnn-cell", write(tmp_path / "gru.npz", arrays)).config.input_size == 3


def test_missing_variable_is_named_with_its_shape(tmp_path):
    arrays = variables()
    del arrays[f"{SCOPE}/candidate/bias:0"]
    message = refusal(write(tmp_path / "gru.npz", arrays))
    assert "gru.npz: variable 'gru_cell/candidate/bias:0' of shape [2] is missing" in message


def test_variable_of_another_shape_is_named_with_both(tmp_path):
    arrays = variables() | {f"{SCOPE}/gates/bias:0": np.zeros(5)}
    assert "variable 'gru_cell/gates/bias:0' must have shape [4], got [5]" in refusal(write(tmp_path / "a.npz", arrays))


def test_variable_left_over_is_named(tmp_path):
    arrays = variables() | {"gru_cell/peephole:0": np.zeros(2)}
    message = refusal(write(tmp_path / "gru.npz", arrays))
    assert "variable 'gru_cell/peephole:0' of shape [2] has no place in the model" in message


def test_failed_import_leaves_nothing(tmp_path):
    with pytest.raises(ImportFailed):
        import_checkpoint("tf-rnn-cell", write(tmp_path / "gru.npz", {}), tmp_path / "out", None, "engram import")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [[], ["notes.txt"]])
def test_failed_import_leaves_the_directory_and_can_be_repeated(tmp_path, inside):
    file, out = write(tmp_path / "gru.npz", variables()), tmp_path / "new" / "out"
    for name in inside:
        out.mkdir(parents=True)
        (out / name).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ZeroDivisionError):
        import_checkpoint("tf-rnn-cell", file, out, None, "engram import", finish=lambda fresh: 1 / 0)
    assert sorted(tmp_path.rglob("*")) == before
    import_checkpoint("tf-rnn-cell", file, out, None, "engram import", finish=lambda fresh: (fresh / "more").touch())
    assert {path.name for path in out.iterdir()} == {*inside, "more", "manifest.json", "model.safetensors"}
    assert load(out)[1].kind == "rnn"


@pytest.mark.parametrize("moves", [0, 1])
def test_import_killed_between_moves_can_be_repeated(tmp_path, monkeypatch, moves):
    file, out, replace, made = write(tmp_path / "gru.npz", variables()), tmp_path / "out", os.replace, []

    def killed(source, target):
        if Path(target).parent == out:
            made.append(target)
        if len(made) > moves:
            raise SystemExit
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(SystemExit):
        import_checkpoint("tf-rnn-cell", file, out, None, "engram import")
    assert not (out / "manifest.json").exists()
    monkeypatch.undo()
    import_checkpoint("tf-rnn-cell", file, out, None, "engram import")
    assert {path.name for path in out.iterdir()} == {"manifest.json", "model.safetensors"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gru.npz", "out"]


@pytest.mark.parametrize("name", ["manifest.json", "training.safetensors"])
def test_import_into_a_checkpoint_or_run_is_refused(tmp_path, name):
    tiny.checkpoint(tmp_path / "out", "dnc")
    for path in (tmp_path / "out").iterdir():
        if path.name != name:
            path.unlink()
    before = (tmp_path / "out" / name).read_bytes()
    with pytest.raises(CheckpointError, match=f"out holds a checkpoint, {name}: give another --out"):
        import_checkpoint("tf-rnn-cell", write(tmp_path / "gru.npz", variables()), tmp_path / "out", None, "again")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "out").iterdir()] == [(name, before)]


def test_task_given_is_the_checkpoints_where_it_fits_the_model(tmp_path):
    task, out = build_task({"name": "copy", "bits": 3, "length": [1, 4]}), tmp_path / "out"
    import_checkpoint("pytorch-ntm", copier(tmp_path / "ntm.pt"), out, None, "engram import", task)
    assert read_manifest(out).task == {"name": "copy", "bits": 3, "length": [1, 4], "flags": "start-and-end"}


def test_task_that_needs_another_model_is_refused(tmp_path):
    task, file = build_task({"name": "copy", "bits": 4}), copier(tmp_path / "ntm.pt")
    wrong = "copy with .* needs a model with input_size = 6, but that of the file has 5"
    with pytest.raises(ConfigError, match=wrong):
        import_checkpoint("pytorch-ntm", file, tmp_path / "other", None, "engram import", task)
    assert not (tmp_path / "other").exists()


def copier(path):
    """Write an NTM of theirs whose sizes are those of copying vectors of three bits; return the path."""
    tensors = state_dict()
    tensors["ntm.fc.weight"], tensors["ntm.fc.bias"] = tensors["ntm.fc.weight"][:3], tensors["ntm.fc.bias"][:3]
    return save(path, tensors)


@pytest.mark.parametrize("task", [None, {"name": "copy", "bits": 3}])
def test_card_names_the_origin_and_task_of_weights(tmp_path, task):
    out = tmp_path / "out"
    import_checkpoint("pytorch-ntm", copier(tmp_path / "ntm.pt"), out, None, "engram import", task and build_task(task))
    card = render_card("theirs", read_manifest(out))
    about = ", for the task `copy` (bits 3, length 1 to 20, flags start-and-end)." if task else ".\n"
    assert f"1410.5401), with weights of pytorch-ntm{about}" in card
    assert "Not trained here: the weights are those of a file of pytorch-ntm." in card
    assert "none" not in card


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("{", "config is not JSON"),
        ({"cells": [{"type": "GRUCell"}]}, "num_units of a cell must be a whole number, got None"),
        (
            {"cells": [{"type": "Elman", "num_units": 2}]},
            "type of a cell: expected one of BasicRNNCell, GRUCell, BasicLSTMCell, LSTMCell, got 'Elman'",
        ),
        ({"cells": []}, "config does not describe a tf-rnn-cell"),
        ([1], "config does not describe a tf-rnn-cell"),
        ({"cells": [{"type": "GRUCell", "num_units": 0}]}, "hidden_size must be at least 1, got 0"),
        ({"cells": [{"type": "LSTMCell", "num_units": 2, "forget_bias": "x"}]}, "gru.npz: config does not describe a"),
    ],
)
def test_config_of_something_else_is_refused(tmp_path, config, complaint):
    assert complaint in refusal(write(tmp_path / "gru.npz", variables(), config))


def test_cell_is_taken_from_a_file_of_several(tmp_path):
    arrays = {f"first/{name}": array for name, array in variables().items()} | {"first/config": json.dumps(CONFIG)}
    path = tmp_path / "cells.npz"
    np.savez(path, **arrays)
    assert read_original("tf-rnn-cell", path, "first").config.output_size == 2
    assert "--cell takes one of first" in refusal(path)
    assert "there is no config of cell 'second'; --cell takes one of first" in refusal(path, cell="second")


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_file_that_is_no_archive_is_refused_by_name(tmp_path, data):
    (tmp_path / "x.npz").write_bytes(data)
    assert "x.npz: not an npz file of arrays" in refusal(tmp_path / "x.npz")


def test_archive_damaged_anywhere_is_refused_by_name(tmp_path):
    """The bytes that zip reads: one member's compressed data and the list of members at the end."""
    np.savez_compressed(tmp_path / "gru.npz", config=json.dumps(CONFIG), **variables())
    data, path = (tmp_path / "gru.npz").read_bytes(), tmp_path / "x.npz"
    listed = data.index(b"PK\x01\x02")
    for place in [*range(40, 240), *range(listed, len(data))]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with contextlib.suppress(ImportFailed):  # no other error; some bytes, such as times, have no effect
            read_original("tf-rnn-cell", path)


def test_single_array_is_no_archive(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert "x.npy: not an npz file of arrays" in refusal(tmp_path / "x.npy")


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", config=np.array([{"cells": []}], dtype=object))
    assert "not an npz file of arrays" in refusal(tmp_path / "x.npz")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    arrays = variables() | {f"{SCOPE}/gates/bias:0": np.full(4, np.nan)}
    assert "variable 'gru_cell/gates/bias:0' has values that are not finite" in refusal(
        write(tmp_path / "a.npz", arrays)
    )


def test_variables_of_tensorflow_need_no_output_number_behind_their_names(tmp_path):
    bare = {name.removesuffix(":0"): array for name, array in variables().items()}
    paths = write(tmp_path / "bare.npz", bare), write(tmp_path / "full.npz", variables())
    bare, full = (read_original("tf-rnn-cell", path).model.state_dict() for path in paths)
    assert all(torch.equal(bare[name], full[name]) for name in full)


def test_variable_with_and_without_output_number_is_left_over(tmp_path):
    arrays = variables() | {f"{SCOPE}/gates/bias": np.zeros(4)}
    message = refusal(write(tmp_path / "gru.npz", arrays))
    assert "variable 'gru_cell/gates/bias' of shape [4] has no place in the model" in message


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_number_beyond_float32_is_refused_and_leaves_nothing(tmp_path, value):
    file = write(tmp_path / "a.npz", variables() | {f"{SCOPE}/gates/bias:0": np.full(4, value)})
    with pytest.raises(
        ImportFailed,
        match=re.escape(f"'gru_cell/gates/bias:0' has values that are not finite in float32, such as {value}"),
    ):
        import_checkpoint("tf-rnn-cell", file, tmp_path / "out", None, "engram import")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


# TensorFlow's options


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ({"type": "GRUCell", "num_units": 2, "activation": "selu"}, "cell.activation: expected one of 'tanh'"),
        ({"type": "LSTMCell", "num_units": 2, "activation": "selu"}, "cell.activation: expected one of 'tanh'"),
        ({"type": "GRUCell", "num_units": 2, "use_peepholes": True}, "use_peepholes = True of a GRUCell"),
        ({"type": "BasicRNNCell", "num_units": 2, "activation": "swish"}, "cell.activation: expected one of 'tanh'"),
        ({"num_units": 2}, "config has no 'type', which a tf-rnn-cell needs"),
    ],
)
def test_option_that_would_change_a_cells_outputs_is_refused(tmp_path, cell, complaint):
    assert complaint in refusal(write(tmp_path / "cell.npz", variables(), {"cells": [cell]}))


def test_options_left_out_are_the_constructors_own(tmp_path):
    draw = np.random.default_rng(0).standard_normal
    arrays = {"lstm_cell/kernel:0": draw((5, 8)), "lstm_cell/bias:0": draw(8)}
    config = {"cells": [{"type": "LSTMCell", "num_units": 2, "num_proj": None, "proj_clip": 0.5, "name": "lstm"}]}
    cell = read_original("tf-rnn-cell", write(tmp_path / "lstm.npz", arrays, config)).config.controller
    assert (cell.forget_bias, cell.peepholes, cell.projection_size, cell.projection_clip) == (1, False, 0, 0)


def gru_of_tensorflow(arrays, activation, inputs):
    """Return the outputs of TensorFlow's GRUCell of two units after each input, as documented."""
    h, outputs = np.zeros(2), []
    for x in inputs:
        gates = np.concatenate([x, h]) @ arrays[f"{SCOPE}/gates/kernel:0"] + arrays[f"{SCOPE}/gates/bias:0"]
        r, u = np.split(1 / (1 + np.exp(-gates)), 2)
        seen = np.concatenate([x, r * h]) @ arrays[f"{SCOPE}/candidate/kernel:0"]
        h = u * h + (1 - u) * activation(seen + arrays[f"{SCOPE}/candidate/bias:0"])
        outputs.append(h)
    return outputs


@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
def test_activation_of_a_cell_is_imported_with_it(tmp_path, name):
    arrays, inputs = variables(), np.random.default_rng(1).standard_normal((4, 3))
    config = {"cells": [{"type": "GRUCell", "num_units": 2, "activation": name}]}
    model = read_original("tf-rnn-cell", write(tmp_path / "gru.npz", arrays, config)).model
    outputs, _, _ = unroll(model, torch.tensor(inputs[:, None], dtype=torch.float32), model.initial_state(1))
    expected = gru_of_tensorflow(arrays, ACTIVATIONS[name or "tanh"], inputs)
    np.testing.assert_allclose(outputs[:, 0].detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["BasicRNNCell", "BasicLSTMCell", "LSTMCell"])
def test_activation_of_every_type_of_cell_is_imported(tmp_path, kind):
    scope, width = SCOPES[kind], 2 if kind == "BasicRNNCell" else 8
    arrays = {f"{scope}/kernel:0": np.ones((5, width)), f"{scope}/bias:0": np.ones(width)}
    config = {"cells": [{"type": kind, "num_units": 2, "activation": "softsign"}]}
    imported = read_original("tf-rnn-cell", write(tmp_path / "cell.npz", arrays, config))
    assert imported.config.controller.activation == "softsign"


# pytorch-ntm


def state_dict():
    """Return the small NTM among the reference rollouts, as torch saved it."""
    return torch.load(NTM, weights_only=True)


def save(path, tensors):
    torch.save(tensors, path)
    return path


def test_state_dict_in_torchs_older_format_is_read(tmp_path):
    torch.save(state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    older, newer = (read_original("pytorch-ntm", path).model.state_dict() for path in (tmp_path / "old.pt", NTM))
    assert all(torch.equal(older[name], newer[name]) for name in newer)


def test_state_dict_gives_the_sizes_of_a_config(tmp_path):
    config = read_original("pytorch-ntm", NTM).config
    assert (config.input_size, config.output_size, config.memory_size, config.word_size) == (5, 4, 10, 6)
    assert (config.read_heads, config.write_heads, len(config.controller.cells)) == (2, 2, 2)
    assert config.controller.cells[0].hidden_size == 12


@pytest.mark.parametrize("name", ["memory.mem_bias", "ntm.controller.lstm.weight_hh_l1", "ntm.heads.3.fc_write.bias"])
def test_state_dict_without_a_tensor_names_it(tmp_path, name):
    tensors = state_dict()
    del tensors[name]
    assert f"variable {name!r} of shape" in refusal(save(tmp_path / "x.pt", tensors), "pytorch-ntm")


def test_state_dict_with_another_shape_names_tensor_and_shapes(tmp_path):
    tensors = state_dict() | {"ntm.heads.0.fc_read.weight": torch.zeros(11, 12)}
    message = refusal(save(tmp_path / "x.pt", tensors), "pytorch-ntm")
    assert "variable 'ntm.heads.0.fc_read.weight' must have shape [12, 12], got [11, 12]" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            torch.Tensor.to_sparse,
            "must be a dense tensor of numbers, got one of torch.float32, torch.sparse_coo, on cpu",
        ),
        (
            lambda tensor: tensor.to("meta"),
            "must be a dense tensor of numbers, got one of torch.float32, torch.strided",
        ),
        (lambda tensor: tensor + 1j, "must hold real numbers, got torch.complex64"),
    ],
)
def test_state_dict_with_a_tensor_of_another_sort_names_it(tmp_path, change, message):
    name = "ntm.heads.0.fc_read.weight"
    tensors = state_dict()
    file = save(tmp_path / "x.pt", tensors | {name: change(tensors[name])})
    assert f"{file}: {name!r} {message}" in refusal(file, "pytorch-ntm")


def test_state_dict_with_one_tensor_more_names_it(tmp_path):
    tensors = state_dict() | {"ntm.heads.4.fc_read.weight": torch.zeros(3)}
    message = refusal(save(tmp_path / "x.pt", tensors), "pytorch-ntm")
    assert "variable 'ntm.heads.4.fc_read.weight' of shape [3] has no place in the model" in message


def test_state_dict_with_different_copies_of_memory_is_refused(tmp_path):
    tensors = state_dict() | {"ntm.heads.1.memory.mem_bias": torch.zeros(10, 6)}
    message = refusal(save(tmp_path / "x.pt", tensors), "pytorch-ntm")
    assert "variable 'ntm.heads.1.memory.mem_bias' must hold what 'memory.mem_bias' does" in message


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
@pytest.mark.parametrize("holder", [None, "state_dict", "model_state_dict", "model"])
def test_state_dict_of_a_wrapped_trainers_model_is_found(tmp_path, wrapper, holder):
    tensors = {wrapper + name: tensor for name, tensor in state_dict().items()}
    saved = {"epoch": 3, "optimizer": {"state": {}}, holder: tensors} if holder else tensors
    found = read_original("pytorch-ntm", save(tmp_path / "x.pt", saved)).model.state_dict()
    plain = read_original("pytorch-ntm", NTM).model.state_dict()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_npz_of_a_wrapped_model_is_read_too(tmp_path):
    arrays = {f"module.{name}": tensor.numpy() for name, tensor in state_dict().items()}
    np.savez(tmp_path / "x.npz", **arrays)
    assert read_original("pytorch-ntm", tmp_path / "x.npz").config.memory_size == 10


def test_prefix_of_some_tensors_is_part_of_their_names(tmp_path):
    tensors = {name if name == "ntm.fc.bias" else f"module.{name}": value for name, value in state_dict().items()}
    assert "variable 'memory.mem_bias' of shape" in refusal(save(tmp_path / "x.pt", tensors), "pytorch-ntm")


def test_holder_of_something_else_than_tensors_is_refused(tmp_path):
    message = refusal(save(tmp_path / "x.pt", {"state_dict": {"epoch": 3}}), "pytorch-ntm")
    assert (
        "expected a state_dict, names to tensors, by itself or as 'state_dict', 'model_state_dict', 'model'" in message
    )


# The PyTorch port of DeepMind's DNC


def port(**config):
    """Return the file of a trainer of the port, its config with other entries."""
    saved = torch.load(PORT, weights_only=True)
    return saved | {"config": saved["config"] | config}


def test_port_saved_by_a_trainer_equals_its_variables():
    wrapped, plain = (read_original("dnc-pytorch", path) for path in (PORT, PORT.with_suffix(".npz")))
    assert wrapped.config == plain.config
    weights = plain.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in wrapped.model.state_dict().items())


def test_port_gives_the_sizes_missing_in_its_config():
    config = read_original("dnc-pytorch", PORT).config
    assert (config.input_size, config.output_size, config.memory_size, config.word_size) == (4, 3, 8, 6)
    assert (config.read_heads, config.write_heads, config.controller.hidden_size, config.clip) == (2, 2, 12, 0.8)


@pytest.mark.parametrize("key", ["memory_size", "clip_value"])
def test_port_without_required_config_is_refused_with_remedy(tmp_path, key):
    saved = port()
    del saved["config"][key]
    message = refusal(save(tmp_path / "x.pt", saved), "dnc-pytorch")
    assert f"config has no {key!r}, which a dnc-pytorch needs; it is a JSON string beside the variables" in message
    assert "config has no 'memory_size'" in refusal(save(tmp_path / "y.pt", saved["state_dict"]), "dnc-pytorch")


def test_port_takes_its_config_as_json_too(tmp_path):
    saved = port() | {"config": json.dumps({"memory_size": 5, "clip_value": None})}
    config = read_original("dnc-pytorch", save(tmp_path / "x.pt", saved)).config
    assert (config.memory_size, config.clip) == (5, 0)


def test_port_with_contradicting_config_is_refused(tmp_path):
    message = refusal(save(tmp_path / "x.pt", port(num_writes=3)), "dnc-pytorch")
    assert "variable '_access._write_keys.0.weight' must have shape [18, 12], got [12, 12]" in message


def test_port_with_a_config_of_tensors_is_refused(tmp_path):
    message = refusal(save(tmp_path / "x.pt", port(memory_size=torch.zeros(2))), "dnc-pytorch")
    assert "x.pt: config beside the state_dict is not plain values" in message


# ntm-lasagne


def lasagne(name="copy"):
    """Return the parameters of a network among the reference rollouts, in their order."""
    with np.load(ROLLOUTS / f"ntm_lasagne_{name}.npz") as archive:
        return [archive[f"params/arr_{number}"] for number in range(sum("arr_" in name for name in archive.files))]


def save_lasagne(path, parameters, **config):
    np.savez(path, *parameters, config=json.dumps(config))
    return path


@torch.no_grad()
def test_published_ntm_lasagne_model_copies_longer_sequences():
    """It was trained on up to 5 vectors; these are 20, and no bit is wrong."""
    model = read_original("ntm-lasagne", COPIER).model
    inputs = torch.zeros(41, 10, 9)
    inputs[:20, :, :8] = torch.randint(0, 2, (20, 10, 8), generator=torch.Generator().manual_seed(0))
    inputs[20, :, 8] = 1
    state, outputs = model.initial_state(10), []
    for step in inputs:
        logits, state, _ = model.step(step, state)
        outputs.append(model.activate(logits))
    assert torch.equal(torch.stack(outputs)[21:, :, :8].round(), inputs[:20, :, :8])


def test_preset_of_ntm_lasagne_makes_the_model_that_it_published():
    theirs = read_original("ntm-lasagne", COPIER).config
    ours = load_preset("ntm-lasagne-copy").model
    assert dataclasses.replace(theirs, memory_start="constant", weights_start="one-hot") == ours


@pytest.mark.parametrize("name", ["dense", "recurrent", "gru", "lstm"])
def test_ntm_lasagne_controller_is_recognised_by_its_parameters(tmp_path, name):
    kinds = {"dense": "feed-forward", "recurrent": "basic-rnn"}
    config = read_original("ntm-lasagne", save_lasagne(tmp_path / "x.npz", lasagne(name))).config
    assert config.controller.kind == kinds.get(name, name)
    assert (config.input_size, config.output_size, config.memory_size, config.word_size) == (3, 2, 6, 4)
    assert config.controller.hidden_size == 7
    assert (config.read_heads, config.write_heads) == {"dense": (2, 1), "recurrent": (2, 2)}.get(name, (1, 1))


def test_ntm_lasagne_without_one_parameter_is_refused_with_the_shapes(tmp_path):
    parameters = lasagne()
    for number in range(len(parameters)):
        path = save_lasagne(tmp_path / "x.npz", parameters[:number] + parameters[number + 1 :])
        message = refusal(path, "ntm-lasagne")
        assert "must be those of a controller, the memory, the heads" in message or "must have shape" in message


def test_ntm_lasagne_parameter_of_another_shape_is_named_with_both(tmp_path):
    parameters = lasagne()
    parameters[9] = np.zeros((100, 3))
    message = refusal(save_lasagne(tmp_path / "x.npz", parameters), "ntm-lasagne")
    assert "variable 'arr_9' must have shape [100, 1], got [100, 3]" in message


@pytest.mark.parametrize("names", [["arr_0", "arr_2"], ["controller.hid_init"], []])
def test_ntm_lasagne_parameters_that_are_not_numbered_are_refused(tmp_path, names):
    path = write(tmp_path / "x.npz", {name: np.zeros((1, 3)) for name in names}, {})
    assert "x.npz: " in refusal(path, "ntm-lasagne")


@pytest.mark.parametrize(("first", "message"), [(1.5, "a sum of 1.5"), (-1.0, "got -1 at least")])
def test_ntm_lasagne_first_weighting_that_is_none_is_refused(tmp_path, first, message):
    parameters = lasagne()
    parameters[6][0, 0] = first
    complaint = refusal(save_lasagne(tmp_path / "x.npz", parameters), "ntm-lasagne")
    assert "variable 'arr_6', the first weighting of a head, must be at least 0 and sum to 1" in complaint
    assert message in complaint


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"nonlinearity_key": "rectify"}, "nonlinearity_key and nonlinearity_add must be the same, got 'rectify' and"),
        (
            {"nonlinearity_key": "tanh"},
            "ntm-lasagne.nonlinearity_key: expected one of 'ClippedLinear', 'rectify', got 'tanh'",
        ),
        (
            {"nonlinearity_beta": "softplus"},
            "ntm-lasagne: unknown key 'nonlinearity_beta'; known keys are nonlinearity, ",
        ),
    ],
)
def test_ntm_lasagne_unknown_nonlinearity_is_refused(tmp_path, config, complaint):
    assert complaint in refusal(save_lasagne(tmp_path / "x.npz", lasagne(), **config), "ntm-lasagne")


def test_ntm_lasagne_without_a_config_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", *lasagne())
    assert "there is no config; it is a JSON string beside the variables" in refusal(tmp_path / "x.npz", "ntm-lasagne")


NO_WEIGHTS = [
    b"",
    b"no archive",
    b"root:x:0:0:root:/root:/bin/bash\n",  # a pickle that takes from an empty stack
    b"PK\x03\x04 cut off",
    b"\x80\x02}q\x00.",
    b"\x80\x02X\x02\x00\x00\x00\xde\x00.",  # text that is not UTF-8
]


@pytest.mark.parametrize("data", NO_WEIGHTS)
def test_file_that_torch_did_not_save_is_refused_by_name(tmp_path, data):
    (tmp_path / "x.pt").write_bytes(data)
    assert "x.pt: " in refusal(tmp_path / "x.pt", "pytorch-ntm")


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}, torch.zeros(2)])
def test_saved_object_that_is_no_state_dict_is_refused(tmp_path, content):
    message = refusal(save(tmp_path / "x.pt", content), "pytorch-ntm")
    assert "x.pt: expected a state_dict, names to tensors" in message


def test_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    torch.save({"weights": Trap(tmp_path / "sprung")}, tmp_path / "x.pt")
    assert "nor a state_dict of nothing but tensors" in refusal(tmp_path / "x.pt", "pytorch-ntm")
    assert not (tmp_path / "sprung").exists()


class Trap:
    """An attacker's pickle: an object whose loading runs a function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# DeepMind's DNC


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_writes": 2}, "variable 'dnc/memory_access/write_keys/w:0' must have shape [32, 16], got [32, 24]"),
        ({"hidden_size": 7}, "variable 'dnc/lstm/w_gates:0' must have shape"),
        ({"memory_size": 0}, "config: DNCConfig.memory_size must be at least 1, got 0"),
        ({"word_size": "8"}, "config does not describe a deepmind-dnc"),
    ],
)
def test_dnc_with_contradicting_config_is_refused(tmp_path, change, complaint):
    with np.load(DNC) as archive:
        arrays = {name: archive[name] for name in archive.files if name.startswith("params/")}
        config = json.loads(str(archive["config"]))
    assert complaint in refusal(write(tmp_path / "dnc.npz", arrays, config | change), "deepmind-dnc")


def test_dnc_config_without_a_key_names_it(tmp_path):
    message = refusal(write(tmp_path / "dnc.npz", {}, {"input_size": 3}), "deepmind-dnc")
    assert "config has no 'output_size', which a deepmind-dnc needs" in message


def test_command_offers_every_format():
    assert set(ORIGINALS) == set(FORMATS)
