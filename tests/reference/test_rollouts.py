"""What the original implementations computed, reproduced from their weights: by torch, by ONNX, and by a server.

The file is a copy of rollouts of TensorFlow's rnn_cell.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from app.backends.base import Array
from app.backends.onnx import OnnxBackend
from models.state import flatten
from tests.app.harness import Server, running_server
from training.export import export
from training.importers import import_checkpoint, read_original

FILE = Path(__file__).parent / "tf_rnn_cells.npz"
TOLERANCE = 1e-5

CELLS = ["basic_rnn", "gru", "basic_lstm", "lstm", "lstm_peephole", "lstm_proj_clip", "multi"]


def rollout(cell: str) -> dict[str, Array]:
    with np.load(FILE) as archive:
        return {key.removeprefix(f"{cell}/"): archive[key] for key in archive.files if key.startswith(f"{cell}/")}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every rollout's weights as an exported checkpoint."""
    root = tmp_path_factory.mktemp("imported")
    for name in CELLS:
        import_checkpoint("tf-rnn-cell", FILE, root / name, name, "engram import")
        export(root / name)
    return root


@pytest.fixture(scope="module")
def server(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(data=tmp_path_factory.mktemp("data") / "data", checkpoints=checkpoints) as server:
        yield server


def close(actual: Any, expected: Array, what: str) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE, err_msg=what)


@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_cell_states_are_those_of_the_original_at_every_step(name):
    model, expected = read_original("tf-rnn-cell", FILE, name).model, rollout(name)
    state = model.initial_state(expected["inputs"].shape[1])
    for t, inputs in enumerate(torch.from_numpy(expected["inputs"])):
        outputs, state, _ = model.step(inputs, state)
        close(outputs, expected["outputs"][t], f"outputs at step {t}")
        for number, leaf in enumerate(in_their_order(flatten(state))):
            close(leaf, expected[f"state{number}"][t], f"state {number} at step {t}")


def in_their_order(leaves: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return the leaves layer by layer, an LSTM's as c, h."""
    layers = sorted({name.rpartition(".")[0] for name in leaves})
    return [leaves[f"{layer}.{leaf}"] for layer in layers for leaf in ("c", "h") if f"{layer}.{leaf}" in leaves]


@pytest.mark.parametrize("name", CELLS)
def test_onnx_outputs_are_those_of_the_original(name, checkpoints):
    expected = rollout(name)
    backend = OnnxBackend(checkpoints / name, capacity=3)
    slots = [backend.open() for _ in range(expected["inputs"].shape[1])]
    for t, inputs in enumerate(expected["inputs"]):
        close(backend.step(slots, inputs)[0], expected["outputs"][t], f"outputs at step {t}")


@pytest.mark.parametrize("name", CELLS)
def test_served_outputs_are_those_of_the_original(name, server):
    expected = rollout(name)
    request = {"model": name, "inputs": expected["inputs"].swapaxes(0, 1).tolist()}
    answer = httpx.post(f"{server.url}/infer", json=request, timeout=30).raise_for_status().json()
    close(np.swapaxes(answer["outputs"], 0, 1), expected["outputs"], "outputs")
