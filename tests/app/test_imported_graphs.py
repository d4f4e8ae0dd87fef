"""Imported graphs behind a real server: their leaves in other dtypes, through a kill, forks and snapshots."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load

from app.catalogue import ServedModel
from app.loading import load_models
from app.metrics import Metrics
from app.settings import Settings, SettingsError
from models.manifest import MANIFEST_FILE, ONNX_FILE
from tests.app.budgets import budgets
from tests.app.harness import Server, running_server
from tests.training.one_step import cell, graph, imported, several_dtypes

SPEC = """
inputs = {x = {}}
state = {h = "h_out", count = {next = "count_out", initial = 9007199254740993}, sum = "sum_out"}
outputs = {y = {}}
trace = {drive = {}}
"""
LARGE = 2**53 + 1
"""The first count, which neither float32 nor float64 can hold."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("graphs")
    imported(directory, several_dtypes(), SPEC)
    (directory / "step.onnx").unlink()
    (directory / "spec.toml").unlink()
    return directory


@pytest.fixture
def server(checkpoints: Path, tmp_path: Path) -> Iterator[Server]:
    with running_server(data=tmp_path / "data", checkpoints=checkpoints) as server:
        yield server


def opened(server: Server) -> str:
    return httpx.post(f"{server.url}/sessions", json={"model": "model"}).json()["id"]


def step(server: Server, session: str, *inputs: float) -> dict:
    rows = [[value] * 3 for value in inputs]
    answer = httpx.post(f"{server.url}/sessions/{session}/steps", json={"inputs": rows, "trace": ["drive"]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def state(server: Server, session: str) -> dict:
    answer = httpx.get(f"{server.url}/sessions/{session}/state")
    assert answer.status_code == 200, answer.text + server.log
    return answer.json()["state"]


def test_state_has_leaves_in_their_dtypes(server):
    session = opened(server)
    assert np.shape(step(server, session, 0.1, 0.2)["trace"]["drive"]) == (2, 4)
    assert state(server, session)["count"] == LARGE + 2
    answer = httpx.get(f"{server.url}/sessions/{session}/state", headers={"Accept": "application/x-safetensors"})
    leaves = load(answer.content)
    assert {name: str(leaf.dtype) for name, leaf in leaves.items()} == {
        "h": "float32",
        "count": "int64",
        "sum": "float64",
    }
    assert int(leaves["count"]) == LARGE + 2
    assert leaves["sum"].tolist() == [float(np.float32(0.1)) + float(np.float32(0.2))] * 3


def test_session_goes_on_after_a_kill_with_its_very_state(checkpoints, tmp_path):
    with running_server(data=tmp_path / "data", checkpoints=checkpoints) as server:
        session, other = opened(server), opened(server)
        expected = step(server, other, *[0.1 * t for t in range(20)])
        step(server, session, *[0.1 * t for t in range(10)])
        server.stop(signal.SIGKILL)
    with running_server(data=tmp_path / "data", checkpoints=checkpoints) as server:
        answer = step(server, session, *[0.1 * t for t in range(10, 20)])
        assert answer["outputs"] == expected["outputs"][10:]
        assert state(server, session) == state(server, other)


def test_forks_rewinds_and_snapshots_keep_every_leaf(server):
    session = opened(server)
    step(server, session, 1, 2, 3)
    fork = httpx.post(f"{server.url}/sessions/{session}/fork", json={"step": 1}).json()["id"]
    assert (state(server, fork)["count"], state(server, fork)["sum"]) == (LARGE + 1, [1.0] * 3)
    httpx.post(f"{server.url}/sessions/{session}/rewind", json={"step": 2})
    assert state(server, session)["count"] == LARGE + 2
    snapshot = httpx.get(f"{server.url}/sessions/{session}/snapshot").content
    headers = {"Content-Type": "application/x-safetensors"}
    copy = httpx.post(f"{server.url}/sessions", content=snapshot, headers=headers).json()["id"]
    assert state(server, copy) == state(server, session)
    assert step(server, copy, 5)["outputs"] == step(server, session, 5)["outputs"]


def loaded(directory: Path, **values: object) -> ServedModel:
    settings = Settings(checkpoints=directory, **values)  # type: ignore[arg-type]
    return load_models(settings, Metrics(), lambda *_: None, budgets()).get("model")  # type: ignore[arg-type]


def changed_manifest(directory: Path, **values: object) -> None:
    path = directory / "model" / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_other_back_ends_are_refused_by_name(checkpoints, backend):
    with pytest.raises(SettingsError, match=f"computed by the back end onnx alone, not by {backend}"):
        loaded(checkpoints, backend=backend)


def test_changed_graph_is_not_served(tmp_path):
    imported(tmp_path, cell())
    path = tmp_path / "model" / ONNX_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(SettingsError, match=r"model\.onnx: .*(SHA-256|cannot load)"):
        loaded(tmp_path)


GRAPH = {
    "form": "batched",
    "inputs": [{"name": "x", "shape": [3], "range": None}],
    "outputs": [],
    "trace": [],
    "step": {},
    "about": {},
}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"config\.graph must be an object, got None"),
        ({"graph": GRAPH | {"form": "fast"}}, r"config\.graph\.form must be one of batched, scan, loop, got 'fast'"),
        ({"graph": GRAPH | {"inputs": None}}, r"config\.graph\.inputs must be a list of name"),
        (
            {"graph": GRAPH | {"trace": [{"name": "a", "shape": [0]}]}},
            r"config\.graph\.trace must be a list of name",
        ),
        (
            {"graph": GRAPH | {"outputs": [{"name": "a", "shape": [1], "range": [0]}]}},
            r"config\.graph\.outputs must be",
        ),
        ({"graph": GRAPH | {"inputs": []}}, r"config\.graph\.inputs have 0 numbers, but input_size is 3"),
        ({"graph": GRAPH | {"about": "me"}}, r"config\.graph\.about must be an object, got 'me'"),
        ({"graph": GRAPH, "dtypes": {"h": "int64"}}, "its step gives .* but its manifest says"),
        ({"graph": GRAPH, "dtypes": {"g": "int64"}}, r"config\.dtypes must have dtypes of leaves"),
        ({"graph": GRAPH, "dtypes": {"h": "complex64"}}, r"config\.dtypes must have dtypes of leaves"),
        ({"graph": GRAPH, "dtypes": {"h": ["int64"]}}, r"config\.dtypes must have dtypes of leaves"),
        ({"graph": GRAPH, "dtypes": 3}, r"config\.dtypes must have dtypes of leaves"),
    ],
)
def test_manifest_that_contradicts_its_graph_is_not_served(tmp_path, config, message):
    imported(tmp_path, cell())
    changed_manifest(tmp_path, config={"output_activation": "identity"} | config)
    with pytest.raises(SettingsError, match=message):
        loaded(tmp_path)


def test_wide_sample_is_cut_to_what_a_server_reads(tmp_path):
    text = (
        "g (float[B, 5000] x, float[B, 1] h) => (float[B, 5000] y, float[B, 1] h_out) { y = Neg(x)\n h_out = Neg(h) }"
    )
    np.save(tmp_path / "sample.npy", np.ones((1000, 5000), np.float32))
    imported(tmp_path, graph(text), 'sample = "sample.npy"\ninputs = {x = {}}\nstate = {h = "h_out"}')
    (tmp_path / "step.onnx").unlink()
    sample = loaded(tmp_path).sample
    assert sample.shape[1] == 5000
    assert 2**24 - 30000 < sample.nbytes < 2**24


WHOLE = """g (int64[B, 1] token, float[B, 2] x, int32[B, 1] n, bool[B, 1] on, float[B, 4] h)
    => (float[B, 4] y, float[B, 4] h_out) {
    row = Gather(table, token)
    word = Squeeze(row, one)
    h_out = Add(h, word)
    y = Identity(h_out)
}"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("whole")
    spec = """
    inputs = {token = {vocabulary = 7}, x = {}, n = {range = [0, 9]}, on = {}}
    state = {h = "h_out"}
    """
    imported(directory, graph(WHOLE, table=np.eye(7, 4, dtype=np.float32), one=np.array([1])), spec)
    (directory / "step.onnx").unlink()
    (directory / "spec.toml").unlink()
    with running_server(data=directory.with_suffix(".data"), checkpoints=directory) as server:
        yield server


@pytest.mark.parametrize(
    ("inputs", "place", "expected"),
    [
        ([7, 0, 0, 0, 0], "inputs[1][0]", "a whole number from 0 to 6"),
        ([-1, 0, 0, 0, 0], "inputs[1][0]", "a whole number from 0 to 6"),
        ([1.5, 0, 0, 0, 0], "inputs[1][0]", "a whole number from 0 to 6"),
        ([1e30, 0, 0, 0, 0], "inputs[1][0]", "a whole number from 0 to 6"),
        ([0, 0, 0, 0.5, 0], "inputs[1][3]", "a whole number from -2147483648 to 2147483520"),
        ([0, 0, 0, 2147483647, 0], "inputs[1][3]", "a whole number from -2147483648 to 2147483520"),
        ([0, 0, 0, 0, 2], "inputs[1][4]", "a whole number from 0 to 1"),
        ([0, 1e39, 0, 0, 0], "inputs[1][1]", "a finite number within the range of float32"),
    ],
)
def test_numbers_that_must_be_whole_are_refused_by_place(whole, inputs, place, expected):
    session = opened(whole)
    steps = [[6, 0.5, -2, 3, 1], inputs]
    requests = [
        httpx.post(f"{whole.url}/sessions/{session}/steps", json={"inputs": steps}),
        httpx.post(f"{whole.url}/infer", json={"model": "model", "inputs": steps}),
    ]
    for answer in requests:
        problem = answer.json()
        assert (answer.status_code, problem["place"], problem["expected"]) == (422, place, expected)
    answer = httpx.post(f"{whole.url}/steps", json={"sessions": [session], "inputs": [steps]})
    assert (answer.status_code, answer.json()["expected"]) == (422, expected)
    assert httpx.get(f"{whole.url}/sessions/{session}").json()["step"] == 0
    taken = httpx.post(f"{whole.url}/sessions/{session}/steps", json={"inputs": [[1, 0.5, -2, 3, True]]})
    assert taken.json()["outputs"] == [[0, 1, 0, 0]]
    assert "Traceback" not in whole.log
