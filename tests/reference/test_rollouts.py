"""Outputs of the original implementations, reproduced from their weights: by torch, by ONNX, and by a server."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from app.backends.base import Array
from app.backends.fused import FusedBackend
from app.backends.onnx import OnnxBackend
from kernels.support import not_fused
from models.artefact import load
from models.manifest import ONNX_FILE, ManifestError, read_manifest
from models.state import flatten
from tests.app.harness import Server, running_server
from tests.exports import parse_operators_once
from tests.reference.rollouts import ROLLOUTS, Rollout
from tests.slots import SLOT_AXES, matching_slots, reordered
from training.export import build_graph
from training.importers import import_checkpoint, read_original

pytestmark = pytest.mark.slow

TOLERANCE = 5e-5

every_rollout = pytest.mark.parametrize("name", ROLLOUTS)


@functools.cache
def rollout(name: str) -> Rollout:
    return ROLLOUTS[name]()


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that exports a checkpoint of a rollout's weights once and returns its directory."""
    root = tmp_path_factory.mktemp("imported")
    parse_operators_once()

    @functools.cache
    def checkpoint(name: str) -> Path:
        import_checkpoint(rollout(name).format, rollout(name).file, root / name, rollout(name).cell, "engram import")
        model, manifest = load(root / name)  # without the check of `engram export`: the steps are compared here
        (root / name / ONNX_FILE).write_bytes(build_graph(model, manifest).SerializeToString())
        return root / name

    return checkpoint


@pytest.fixture(scope="module")
def server(imported: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = {imported(name).parent for name in ROLLOUTS}.pop()
    with running_server(data=tmp_path_factory.mktemp("data") / "data", checkpoints=root) as server:
        yield server


def assert_close(actual: Any, expected: Array, what: str) -> None:
    """Compare values by their difference, relative to the largest if that is above 1."""
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale, err_msg=what)


def assert_state_close(leaves: dict[str, Array], expected: Rollout, step: int) -> None:
    """Compare the leaves, [B, ...], with the recorded ones, after the locations of each row are matched."""
    recorded = {name: values[step] for name, values in expected.states.items()}
    if step == len(expected.inputs) - 1:
        recorded |= expected.last
    for name in recorded.keys() - SLOT_AXES:
        np.testing.assert_allclose(
            leaves[name], recorded[name], rtol=0, atol=TOLERANCE, err_msg=f"{name} at step {step}"
        )
    if "memory" in recorded:
        for row in range(len(recorded["memory"])):
            ours = {name: leaves[name][row] for name in recorded.keys() & SLOT_AXES.keys()}
            theirs = {name: recorded[name][row] for name in ours}
            order = matching_slots(ours, theirs) if "usage" in theirs else np.arange(len(theirs["memory"]))
            for name, values in ours.items():
                assert_close(reordered(values, name, order), theirs[name], f"{name} of row {row} at step {step}")


@every_rollout
@torch.no_grad()
def test_torch_rollout_equals_the_original_at_every_step(name):
    expected = rollout(name)
    model = read_original(expected.format, expected.file, expected.cell).model
    state = model.initial_state(expected.inputs.shape[1])
    for step, inputs in enumerate(torch.from_numpy(expected.inputs)):
        outputs, state, _ = model.step(inputs, state)
        np.testing.assert_allclose(model.activate(outputs), expected.outputs[step], rtol=0, atol=TOLERANCE)
        leaves = {leaf: values.numpy() for leaf, values in flatten(state).items()}
        assert_state_close(leaves, expected, step)


@pytest.mark.parametrize("back_end", [OnnxBackend, FusedBackend], ids=["onnx", "fused"])
@every_rollout
def test_back_end_rollout_equals_the_original_at_every_step(name, back_end, imported):
    expected, checkpoint = rollout(name), imported(name)
    manifest = read_manifest(checkpoint)
    if back_end is FusedBackend and not_fused(manifest.kind, manifest.config):
        with pytest.raises(ManifestError, match="there is no fused kernel for this model"):
            FusedBackend(checkpoint, capacity=3)
        return
    backend = back_end(checkpoint, capacity=3)
    slots = [backend.open() for _ in range(expected.inputs.shape[1])]
    for step, inputs in enumerate(expected.inputs):
        outputs, _ = backend.step(slots, inputs)
        np.testing.assert_allclose(outputs, expected.outputs[step], rtol=0, atol=TOLERANCE)
        rows = [backend.read(slot) for slot in slots]
        assert_state_close({leaf: np.stack([row[leaf] for row in rows]) for leaf in rows[0]}, expected, step)


@every_rollout
def test_served_outputs_are_those_of_the_original(name, server):
    expected = rollout(name)
    request = {"model": name, "inputs": expected.inputs.swapaxes(0, 1).tolist()}
    answer = httpx.post(f"{server.url}/infer", json=request, timeout=30).raise_for_status().json()
    served = np.swapaxes(answer["outputs"], 0, 1)
    np.testing.assert_allclose(served, expected.outputs, rtol=0, atol=TOLERANCE)
