"""Files that are not what the original has; that imported weights compute what it did is in tests/reference."""

import json

import numpy as np
import pytest

from models.artefact import load
from models.manifest import ONNX_FILE
from training.importers import ImportFailed, import_checkpoint, read_original

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
    told = refusal(write(tmp_path / "gru.npz", arrays))
    assert "gru.npz: variable 'gru_cell/candidate/bias:0' of shape [2] is missing" in told


def test_variable_of_another_shape_is_named_with_both(tmp_path):
    arrays = variables() | {f"{SCOPE}/gates/bias:0": np.zeros(5)}
    assert "variable 'gru_cell/gates/bias:0' must have shape [4], got [5]" in refusal(write(tmp_path / "a.npz", arrays))


def test_variable_left_over_is_named(tmp_path):
    arrays = variables() | {"gru_cell/peephole:0": np.zeros(2)}
    told = refusal(write(tmp_path / "gru.npz", arrays))
    assert "variable 'gru_cell/peephole:0' of shape [2] has no place in the model" in told


def test_failed_import_leaves_nothing(tmp_path):
    with pytest.raises(ImportFailed):
        import_checkpoint("tf-rnn-cell", write(tmp_path / "gru.npz", {}), tmp_path / "out", None, "engram import")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("{", "config is not JSON"),
        ({"cells": [{"type": "GRUCell"}]}, "config does not describe a tf-rnn-cell: KeyError('num_units')"),
        ({"cells": [{"type": "Elman", "num_units": 2}]}, "KeyError('Elman')"),
        ({"cells": []}, "config does not describe a tf-rnn-cell"),
        ([1], "config does not describe a tf-rnn-cell"),
        ({"cells": [{"type": "GRUCell", "num_units": 0}]}, "hidden_size must be at least 1, got 0"),
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
