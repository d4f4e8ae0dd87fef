"""Rows of imported graphs beside onnxruntime's own loop over the original file, as examples/graphs has it."""

from pathlib import Path

import numpy as np
import pytest

from app.backends.base import Array, Backend
from app.backends.onnx import OnnxBackend
from models.manifest import read_manifest
from tests.app.harness import ROOT
from tests.training.one_step import LIKENESSES, imported

GRAPHS = ROOT / "examples" / "graphs"
MOST_ROWS = 64
ROUNDING = 1e-4


@pytest.fixture(scope="module", params=LIKENESSES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a graph, step.onnx, and of its checkpoint, model, named after its specification."""
    directory = tmp_path_factory.mktemp("graph") / request.param
    directory.mkdir()
    imported(directory, LIKENESSES[request.param](), (GRAPHS / f"{request.param}.toml").read_text())
    return directory


def stepped_in_random_order(backend: Backend, inputs: Array, generator: np.random.Generator) -> Array:
    """Return the outputs [B, T, O] of inputs [B, T, I], each row in slots that change on the way."""
    slots = [backend.open() for _ in inputs]
    outputs = np.empty((*inputs.shape[:2], backend.spec.output_size), np.float32)
    for step in range(inputs.shape[1]):
        order = generator.permutation(len(inputs))
        outputs[order, step], _ = backend.step([slots[row] for row in order], inputs[order, step])
        moving = generator.permutation(len(inputs))[:3]
        states = [backend.read(slots[row]) for row in moving]
        for row in moving:
            backend.close(slots[row])
        stranger = backend.open()
        backend.step([stranger], inputs[0, [step]])
        for number in generator.permutation(len(moving)):
            slots[moving[number]] = backend.open(states[number])
        backend.close(stranger)
    return outputs


@pytest.mark.parametrize("steps", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_rows_in_any_slots_equal_own_loop(directory, steps, monkeypatch):
    monkeypatch.syspath_prepend(GRAPHS)
    from own_loops import run_alone

    manifest, generator = read_manifest(directory / "model"), np.random.default_rng(0)
    inputs = generator.uniform(-1, 1, (MOST_ROWS, steps, manifest.input_size)).astype(np.float32)
    alone = np.stack([run_alone(directory.name, directory / "step.onnx", row) for row in inputs])
    tolerance = ROUNDING if manifest.training["verified"]["difference"] else 0
    for rows in (1, 2, 5, MOST_ROWS):
        backend = OnnxBackend(directory / "model", capacity=rows + 1)
        outputs = stepped_in_random_order(backend, inputs[:rows], generator)
        np.testing.assert_allclose(outputs, alone[:rows], rtol=0, atol=tolerance)
