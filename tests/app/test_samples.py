"""Recordings of inputs in checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from app.samples import MAX_SAMPLE_BYTES, read_sample
from models.manifest import SAMPLE_FILE, Manifest, ManifestError

CONFIG = {"output_activation": "identity", "controller": {}}
MANIFEST = Manifest("rnn", CONFIG, {"name": "none"}, 3, 1, 10, {}, {}, "")

SAMPLE = np.arange(6, dtype=np.float32).reshape(2, 3)


def write(directory: Path, **tensors: "np.ndarray") -> Path:
    safetensors.numpy.save_file(tensors, directory / SAMPLE_FILE)
    return directory


def test_checkpoint_without_a_sample_has_none(tmp_path):
    assert read_sample(tmp_path, MANIFEST) is None


def test_sample_is_read_as_it_was_written(tmp_path):
    sample = read_sample(write(tmp_path, inputs=SAMPLE), MANIFEST)
    assert sample is not None
    assert (sample.dtype, sample.tolist()) == (np.float32, SAMPLE.tolist())


@pytest.mark.parametrize(
    ("tensors", "got"),
    [
        ({"inputs": SAMPLE[:, :2]}, "got float32 of shape [2, 2]"),
        ({"inputs": SAMPLE[0]}, "got float32 of shape [3]"),
        ({"inputs": SAMPLE[:0]}, "got float32 of shape [0, 3]"),
        ({"inputs": SAMPLE.astype(np.float64)}, "got float64 of shape [2, 3]"),
        ({"outputs": SAMPLE}, "got tensors of the names ['outputs']"),
        ({"inputs": SAMPLE, "more": SAMPLE}, "got tensors of the names ['inputs', 'more']"),
        ({"inputs": np.where(SAMPLE == 4, np.nan, SAMPLE)}, "inputs[1][1] is nan, expected a finite number"),
    ],
)
def test_sample_that_does_not_fit_is_refused_with_its_fault(tmp_path, tensors, got):
    write(tmp_path, **{name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    with pytest.raises(ManifestError) as refused:
        read_sample(tmp_path, MANIFEST)
    assert got in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / SAMPLE_FILE}: ")


def test_sample_that_is_cut_off_is_refused_with_a_remedy(tmp_path):
    path = write(tmp_path, inputs=SAMPLE) / SAMPLE_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"cannot be read as safetensors: .*: remove the file, or import the model"):
        read_sample(tmp_path, MANIFEST)


def test_sample_that_is_a_directory_is_refused(tmp_path):
    (tmp_path / SAMPLE_FILE).mkdir()
    with pytest.raises(ManifestError, match="Is a directory"):
        read_sample(tmp_path, MANIFEST)


def test_sample_over_the_limit_is_refused_unread(tmp_path):
    with (tmp_path / SAMPLE_FILE).open("wb") as file:
        file.truncate(MAX_SAMPLE_BYTES + 1)
    with pytest.raises(ManifestError, match="16777217 bytes, but a sample has at most 16777216"):
        read_sample(tmp_path, MANIFEST)
