"""Sessions with another memory size than in training, on real servers of both back ends."""

import json
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from websockets.sync.client import connect

from models.artefact import load
from models.contract import unroll
from tests.app.checkpoints import make_checkpoint
from tests.app.copying import sequence
from tests.app.harness import CHECKPOINTS, Server, running_server

MODELS = ["dnc-copy", "ntm-copy"]
MAX_STATE_BYTES = 2**20
TOLERANCE = 1e-4
PAGE = resource.getpagesize()


@pytest.fixture(scope="module", params=["onnx", "torch"])
def server(request: pytest.FixtureRequest, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    arguments = ["--backend", request.param, "--max-state-bytes", str(MAX_STATE_BYTES)]
    data = tmp_path_factory.mktemp("sizes") / "data"
    with running_server(*arguments, data=data, checkpoints=few) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def outputs_of_torch(name: str, inputs: list[list[float]], memory_size: int) -> Any:
    """Return the outputs of the torch model for a sequence, [T, output_size]."""
    model, _ = load(CHECKPOINTS / name)
    with torch.no_grad():
        outputs, _, _ = unroll(model, torch.tensor(inputs)[:, None], model.initial_state(1, memory_size))
        return model.activate(outputs)[:, 0].numpy()


def open_session(client: httpx.Client, model: str, memory_size: int | None = None) -> dict[str, Any]:
    response = client.post("/sessions", json={"model": model, "memory_size": memory_size})
    assert response.status_code == 201, response.text
    return dict(response.json())


@pytest.mark.parametrize("model", MODELS)
def test_session_of_another_memory_size_agrees_with_torch(client, model):
    inputs, _ = sequence(8, seed=3)
    session = open_session(client, model, 256)
    answer = client.post(f"/sessions/{session['id']}/steps", json={"inputs": inputs, "trace": ["read_weights"]}).json()
    np.testing.assert_allclose(answer["outputs"], outputs_of_torch(model, inputs, 256), atol=TOLERANCE, rtol=0)
    assert np.shape(answer["trace"]["read_weights"]) == (18, 1, 256)
    state = client.get(f"/sessions/{session['id']}/state").json()["state"]
    word_size = client.get(f"/models/{model}").json()["word_size"]
    assert np.shape(state["memory"]) == (256, word_size)


@pytest.mark.parametrize("model", MODELS)
def test_infer_uses_the_requested_memory_size(client, model):
    sequences = [sequence(length, seed=length)[0] for length in (3, 5)]
    request = {"model": model, "inputs": sequences, "memory_size": 100, "trace": ["write_weights"]}
    answer = client.post("/infer", json=request).json()
    for inputs, outputs, weights in zip(sequences, answer["outputs"], answer["trace"]["write_weights"], strict=True):
        np.testing.assert_allclose(outputs, outputs_of_torch(model, inputs, 100), atol=TOLERANCE, rtol=0)
        assert np.shape(weights) == (len(inputs), 1, 100)


def test_stream_uses_the_requested_memory_size(server, client):
    inputs, _ = sequence(4, seed=1)
    with connect(f"{server.socket_url}/stream?model=dnc-copy&memory_size=48") as stream:
        greeting = json.loads(stream.recv())
        stream.send(json.dumps({"inputs": inputs, "trace": ["usage"]}))
        answer = json.loads(stream.recv())
    assert (greeting["model"], greeting["memory_size"]) == ("dnc-copy", 48)
    np.testing.assert_allclose(answer["outputs"], outputs_of_torch("dnc-copy", inputs, 48), atol=TOLERANCE, rtol=0)
    assert np.shape(answer["trace"]["usage"]) == (10, 48)
    with connect(f"{server.socket_url}/sessions/{greeting['session']}/stream") as stream:
        assert json.loads(stream.recv())["memory_size"] == 48


def test_session_info_has_the_memory_size(client):
    sizes = {"dnc-copy": 32, "ntm-copy": 128, "lstm-copy": None}
    for model, trained in sizes.items():
        assert client.get(f"/models/{model}").json()["memory_size"] == trained
        assert open_session(client, model)["memory_size"] == trained
    session = open_session(client, "ntm-copy", 7)
    assert (session["memory_size"], session["step"]) == (7, 0)
    assert client.get(f"/sessions/{session['id']}").json()["memory_size"] == 7
    assert client.get("/sessions", params={"limit": 1}).json()[0]["memory_size"] == 7
    assert client.post(f"/sessions/{session['id']}/reset").json()["memory_size"] == 7


def test_reset_keeps_the_memory_size(client):
    session, inputs = open_session(client, "dnc-copy", 40), sequence(3)[0]
    url = f"/sessions/{session['id']}"
    first = client.post(f"{url}/steps", json={"inputs": inputs}).json()
    client.post(f"{url}/reset").raise_for_status()
    again = client.post(f"{url}/steps", json={"inputs": inputs}).json()
    assert again["outputs"] == [pytest.approx(step, abs=1e-6) for step in first["outputs"]]


@pytest.mark.parametrize("model", MODELS)
def test_sessions_of_several_sizes_step_as_if_alone(client, model):
    sizes = [16, 40, 128] * 4

    def stream(seed: int) -> tuple[list[list[float]], list[list[float]], int]:
        inputs, outputs = sequence(6, seed)[0], []
        session = open_session(client, model, sizes[seed])["id"]
        for start in range(0, len(inputs), 2):
            answer = client.post(f"/sessions/{session}/steps", json={"inputs": inputs[start : start + 2]})
            outputs += answer.json()["outputs"]
        client.delete(f"/sessions/{session}").raise_for_status()
        return inputs, outputs, sizes[seed]

    with ThreadPoolExecutor(len(sizes)) as pool:
        streamed = list(pool.map(stream, range(len(sizes))))
    for inputs, outputs, size in streamed:
        np.testing.assert_allclose(outputs, outputs_of_torch(model, inputs, size), atol=TOLERANCE, rtol=0)


REFUSED = {
    "0": ("dnc-copy", "0", "greater than or equal to 1"),
    "negative": ("dnc-copy", "-3", "greater than or equal to 1"),
    "a fraction": ("dnc-copy", "2.5", "a valid integer"),
    "whole but a float": ("dnc-copy", "64.0", "a valid integer"),
    "true": ("dnc-copy", "true", "a valid integer"),
    "text": ("dnc-copy", '"64"', "a valid integer"),
    "a list": ("dnc-copy", "[64]", "a valid integer"),
    "beyond 63 bits": ("dnc-copy", str(2**63), "less than or equal to"),
    "beyond 64 bits": ("dnc-copy", str(10**30), "a valid integer"),
    "beyond any float": ("dnc-copy", "1" + "0" * 400, "a valid integer"),
    "a state over the limit": ("dnc-copy", "10000", "at most 501"),
    "an enormous state": ("dnc-copy", str(2**62), "at most 501"),
    "a state without links over the limit": ("ntm-copy", "20000", "at most 11905"),
    "no memory": ("lstm-copy", "64", "no memory_size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_memory_size_is_refused_by_name(client, case):
    model, size, expected = REFUSED[case]
    before = len(client.get("/sessions").json())
    for path, inputs in (("/sessions", ""), ("/infer", f', "inputs": [{[0] * 10}]')):
        body = f'{{"model": "{model}", "memory_size": {size}{inputs}}}'
        refused = client.post(path, content=body, headers={"Content-Type": "application/json"})
        answer = refused.json()
        assert (refused.status_code, answer["code"], answer["place"]) == (422, "invalid_request", "memory_size"), answer
        assert expected in answer["expected"]
        assert answer["got"]
    assert len(client.get("/sessions").json()) == before


def test_largest_memory_size_in_a_refusal_is_accepted(client):
    assert open_session(client, "dnc-copy", 501)["memory_size"] == 501
    assert client.post("/sessions", json={"model": "dnc-copy", "memory_size": 502}).status_code == 422


@pytest.mark.parametrize("size", ["0", "x", "1.5", "", "100000", "9" * 30])
def test_stream_with_an_invalid_memory_size_is_refused(server, size):
    with connect(f"{server.socket_url}/stream?model=dnc-copy&memory_size={size}") as stream:
        answer = json.loads(stream.recv())
    assert (answer["type"], answer["code"], answer["place"]) == ("error", "invalid_request", "memory_size")


@pytest.mark.slow
def test_sparse_links_need_as_many_locations_as_links(tmp_path, data):
    make_checkpoint(tmp_path / "checkpoints" / "sparse", "sparse")
    with running_server(data=data, checkpoints=tmp_path / "checkpoints") as server:
        url = f"{server.url}/sessions"
        refused = httpx.post(url, json={"model": "sparse", "memory_size": 2}).json()
        least = httpx.post(url, json={"model": "sparse", "memory_size": 3})
    assert (refused["place"], refused["expected"], refused["got"]) == ("memory_size", "at least 3", "2")
    assert (least.status_code, least.json()["memory_size"]) == (201, 3)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_override_is_the_default_memory_size_of_sessions(backend, data, few):
    arguments = ["--backend", backend, "--memory-size", "dnc-copy=64", "--memory-size", "ntm-copy=16"]
    with running_server(*arguments, data=data, checkpoints=few) as server, httpx.Client(base_url=server.url) as client:
        card = client.get("/models/dnc-copy").json()
        sessions = [open_session(client, *asked) for asked in (("dnc-copy",), ("dnc-copy", 32), ("ntm-copy",))]
        inputs = sequence(3)[0]
        answer = client.post("/infer", json={"model": "dnc-copy", "inputs": inputs, "trace": ["usage"]}).json()
        states = [client.get(f"/sessions/{session['id']}/state").json()["state"] for session in sessions]
    assert (card["memory_size"], card["state"]["memory"], card["trace"]["read_weights"]) == (64, [64, 16], [1, 64])
    assert [session["memory_size"] for session in sessions] == [64, 32, 16]
    assert [len(state["memory"]) for state in states] == [64, 32, 16]
    assert np.shape(answer["trace"]["usage"]) == (8, 64)
    np.testing.assert_allclose(answer["outputs"], outputs_of_torch("dnc-copy", inputs, 64), atol=TOLERANCE, rtol=0)


def test_override_may_be_in_the_environment(data, few):
    with running_server(data=data, checkpoints=few, ENGRAM_MEMORY_SIZE="dnc-copy=40,ntm-copy=50") as server:
        models = httpx.get(f"{server.url}/models").json()
    sizes = {model["name"]: model["memory_size"] for model in models}
    assert [sizes[name] for name in ("dnc-copy", "ntm-copy", "lstm-copy")] == [40, 50, None]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_sessions_beyond_the_memory_take_turns_in_it(backend, data, few):
    state = 4 * (200**2 + 200 * 20) + 1000
    arguments = ["--backend", backend, "--max-memory-bytes", str(2 * state)]
    with running_server(*arguments, data=data, checkpoints=few) as server, httpx.Client(base_url=server.url) as client:
        sessions = [open_session(client, "dnc-copy", 200)["id"] for _ in range(5)]
        inputs = {"inputs": sequence(9)[0]}
        steps = [client.post(f"/sessions/{name}/steps", json=inputs).json()["step"] for name in 2 * sessions]
        infer = client.post("/infer", json={"model": "dnc-copy", "memory_size": 200, **inputs})
        assert client.get("/readyz").status_code == 200
        refused = client.post("/sessions", json={"model": "dnc-copy", "memory_size": 400})
        resident = client.get("/metrics").text
    assert (steps, infer.status_code) == ([20] * 5 + [40] * 5, 200)
    assert 'engram_resident_sessions{model="dnc-copy"} 1.0' in resident
    assert (refused.status_code, refused.json()["place"]) == (422, "memory_size")


def test_traces_beyond_the_limit_are_refused_and_change_nothing(data, few):
    with (
        running_server("--max-trace-bytes", "40000", data=data, checkpoints=few) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        session = open_session(client, "ntm-copy", 1000)["id"]
        url, request = f"/sessions/{session}/steps", {"inputs": [[0] * 10] * 11, "trace": ["read_weights"]}
        refused = [
            client.post(url, json=request),
            client.post("/infer", json={"model": "ntm-copy", "memory_size": 1000, **request}),
        ]
        with connect(f"{server.socket_url}/sessions/{session}/stream") as stream:
            stream.recv()
            stream.send(json.dumps(request))
            problems = [response.json() for response in refused] + [json.loads(stream.recv())]
        assert client.get(f"/sessions/{session}").json()["step"] == 0
        assert client.post(url, json={**request, "inputs": [[0] * 10] * 10}).json()["step"] == 10
    for problem in problems:
        assert (problem["status"], problem["code"], problem["place"]) == (422, "invalid_request", "trace")
        assert (problem["expected"], problem["got"]) == ("at most 40000 bytes", "44000 bytes")


def memory_of(server: Server) -> tuple[int, int]:
    """Return the bytes of virtual and of resident memory of the server, from /proc."""
    addresses, resident, *_ = map(int, Path(f"/proc/{server.process.pid}/statm").read_text().split())
    return addresses * PAGE, resident * PAGE


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_session_beyond_the_machines_memory_is_refused_alone(backend, data, few):
    flags = ("--backend", backend, "--max-state-bytes", str(64 * 2**20))
    with running_server(*flags, data=data, checkpoints=few) as server, httpx.Client(base_url=server.url) as client:
        small = open_session(client, "dnc-copy")["id"]
        limit = memory_of(server)[0] + 500 * 2**20
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, limit))
        large = [open_session(client, "dnc-copy", 4000)["id"] for _ in range(10)]
        answers = [client.post(f"/sessions/{name}/steps", json={"inputs": [[0] * 10]}) for name in large]
        assert client.post(f"/sessions/{small}/steps", json={"inputs": [[0] * 10]}).status_code == 200
        assert client.get("/readyz").status_code == 200
        steps = [client.get(f"/sessions/{name}").json()["step"] for name in large]
    assert steps == [int(response.status_code == 200) for response in answers]
    assert {response.json().get("code") for response in answers} <= {None, "out_of_memory", "step_failed"}


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_memory_of_large_sessions_is_freed(backend, data, few):
    state = 4 * 1400**2
    with (
        running_server("--backend", backend, data=data, checkpoints=few) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        client.post("/infer", json={"model": "dnc-copy", "memory_size": 1400, "inputs": [[0] * 10]}).raise_for_status()
        _, before = memory_of(server)
        sessions = [open_session(client, "dnc-copy", 1400)["id"] for _ in range(8)]
        for session in sessions:
            client.get(f"/sessions/{session}/state", params={"names": "usage"}).raise_for_status()
        _, grown = memory_of(server)
        for session in sessions:
            client.delete(f"/sessions/{session}").raise_for_status()
        assert grown - before > 7 * state
        assert memory_of(server)[1] - before < 3 * state
