"""Import of a user's own step in torch."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from app.backends.onnx import OnnxBackend
from models.manifest import read_manifest
from training.graphs import import_step
from training.importers import ImportFailed

pytestmark = pytest.mark.slow

HEAD = """
from typing import NamedTuple
import torch
from torch import nn

class State(NamedTuple):
    h: torch.Tensor
    count: torch.Tensor

class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(4, 8), nn.Linear(8, 3)

    def forward(self, inputs, state):
        h = self.cell(inputs, state.h)
        return self.out(h), State(h, state.count + 1), {"gate": torch.sigmoid(h)}

torch.manual_seed(0)
"""


def made(directory: Path, body: str, spec: str | None = None):
    """Import the step of the function `make` with this body."""
    file = directory / f"steps_{abs(hash(body))}.py"
    file.write_text(f"{HEAD}\ndef make():\n{body}")
    spec_file = None
    if spec is not None:
        spec_file = directory / "spec.toml"
        spec_file.write_text(spec)
    out = directory / "model"
    return import_step(f"{file}:make", out, "engram import", lambda _: nullcontext(lambda done, total: None), spec_file)


CELL = "    return Cell(), torch.zeros(1, 4), State(torch.full((1, 8), 0.5), torch.zeros(1, dtype=torch.int64))"


def test_step_is_exported_with_names_of_its_state(tmp_path):
    result = made(tmp_path, CELL)
    assert (result.verdict.form, result.verdict.difference) == ("batched", 0)
    manifest = read_manifest(tmp_path / "model")
    assert (manifest.state, manifest.trace) == ({"h": [8], "count": []}, {"gate": [8]})
    assert manifest.config["dtypes"] == {"count": "int64"}
    assert manifest.training["difference_from_torch"] < 1e-6
    backend = OnnxBackend(tmp_path / "model", 2)
    slot = backend.open()
    _, traces = backend.step([slot], np.ones((1, 4), np.float32), ["gate"])
    state = backend.read(slot)
    assert int(state["count"]) == 1
    np.testing.assert_allclose(traces["gate"][0], torch.sigmoid(torch.from_numpy(state["h"])), atol=1e-6)


def test_closure_with_dicts_is_exported(tmp_path):
    result = made(
        tmp_path,
        """
    cell = nn.GRUCell(4, 8)
    def step(inputs, state):
        h = cell(torch.cat([inputs["left"], inputs["right"]], 1), state["h"])
        return {"first": h[:, :2], "sum": h.sum(1)}, {"h": h}
    return step, {"left": torch.zeros(2, 1), "right": torch.zeros(2, 3)}, {"h": torch.zeros(2, 8)}
""",
    )
    assert [part.name for part in (*result.spec.inputs, *result.spec.outputs)] == ["left", "right", "first", "sum"]
    assert (result.spec.input_size, result.verdict.form) == (4, "batched")


def test_specification_adds_to_the_step(tmp_path):
    spec = """
    inputs = {inputs = {name = "joints", range = [-2, 2]}}
    state = {"state.h" = {initial = 0.25}}
    step = {units = "radians"}
    """
    made(tmp_path, CELL, spec)
    manifest = read_manifest(tmp_path / "model")
    assert manifest.config["graph"]["inputs"] == [{"name": "joints", "shape": [4], "range": [-2, 2]}]
    assert manifest.config["graph"]["step"] == {"units": "radians"}
    backend = OnnxBackend(tmp_path / "model", 1)
    assert backend.read(backend.open())["h"].tolist() == [0.25] * 8


def test_first_state_of_zeros_replaces_that_of_the_step(tmp_path):
    made(tmp_path, CELL, 'state = {"state.h" = {initial = 0}}')
    backend = OnnxBackend(tmp_path / "model", 1)
    assert backend.read(backend.open())["h"].tolist() == [0] * 8


STEP = "return step, torch.zeros(1, 4), {'h': torch.zeros(1, 4)}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return 3", r"the factory must return \(step, inputs, state\), got a int"),
        ("    raise KeyError('weights')", r"the factory failed, line \d+ of steps_.*: KeyError: 'weights'"),
        (f"    def step(x, s): return x\n    {STEP}", r"the step must return \(outputs, state\)"),
        (f"    def step(x, s): return x, {{'c': x}}\n    {STEP}", "the next state must have the leaves h, got c"),
        (
            f"    def step(x, s): return x @ s['h'], s\n    {STEP}",
            "the step failed, line .* RuntimeError: mat1 and mat2",
        ),
        (
            f"    def step(x, s):\n        s['h'] += x\n        return x, s\n    {STEP}",
            "changes its inputs or its state in place",
        ),
        (
            f"    def step(x, s): return x + torch.rand(1), s\n    {STEP}",
            "gives other results when it is taken again",
        ),
        (
            "    def step(x, s): return x, s\n    return step, torch.zeros(1, 4), {'h': torch.zeros(3, 4)}",
            r"axis 0 of inputs and state must be the batch, of one size, got inputs \[1\], state.h \[3\]",
        ),
        (
            "    def step(x, s): return x, s\n    return step, torch.zeros(1, 4), {'h': 3}",
            "state.h must be a tensor, got a int",
        ),
        (
            f"    def step(x, s): return x.round(), {{'h': s['h'].double()}}\n    {STEP}",
            "h is of float32, but its next value 'next.h' is of float64",
        ),
    ],
)
def test_step_with_a_fault_is_refused(tmp_path, body, message):
    with pytest.raises(ImportFailed, match=message):
        made(tmp_path, body)
    assert not (tmp_path / "model").exists()


def test_step_of_the_how_to_is_imported(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
    (tmp_path / "leaky.py").write_text(text.split("```python")[1].split("```")[0])
    result = import_step(f"{tmp_path}/leaky.py:leaky", tmp_path / "model", "", lambda _: nullcontext(lambda *_: None))
    assert (result.verdict.form, result.verdict.difference) == ("batched", 0)
    assert read_manifest(tmp_path / "model").trace == {"contrast": [16]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("steps", "expected module:factory, or file.py:factory"),
        ("nowhere.py:make", "there is no file nowhere.py"),
        ("no_such_module:make", "importing no_such_module failed: ModuleNotFoundError"),
        ("json:make", "json has no function 'make'"),
        ("json:loads", "loads must take no arguments"),
    ],
)
def test_factory_that_is_not_there_is_named(tmp_path, name, message):
    with pytest.raises(ImportFailed, match=message):
        import_step(name, tmp_path / "model", "", lambda _: nullcontext(lambda done, total: None))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ('state = {inputs = "next"}', r"\[state\]: there is no 'inputs' in .*; it has state.h, state.count"),
        ("constants = {inputs = 1}", r"\[constants\]: there is no 'inputs' in .*; it has none there"),
        ("inputs = {inputs = {carry = 1}}", r"\[inputs\] inputs.carry: .* keep old numbers in its state"),
        ('state = {"state.h" = "outputs"}', r"\[state\] state.h.next: .* has its next value already"),
    ],
)
def test_addition_that_does_not_fit_the_step_is_refused(tmp_path, spec, message):
    with pytest.raises(ImportFailed, match=message):
        made(tmp_path, CELL, spec)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["models.py", "graphs/json.py"])
def test_file_of_any_name_is_run(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("def make():\n    raise KeyError('weights')")
    with pytest.raises(ImportFailed, match=f"the factory failed, line 2 of {file.name}: KeyError"):
        import_step(f"{file}:make", tmp_path / "model", "", lambda _: nullcontext(lambda done, total: None))
