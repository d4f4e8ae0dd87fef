"""Any step of a session again, forks, snapshots: over HTTP, with real models, across restarts and back ends."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from websockets.sync.client import connect

from app.stores.base import Entry, NewSession, Record
from app.stores.sqlite import SqliteStore
from tests.app.api.test_http import open_session, problem
from tests.app.checkpoints import make_checkpoint
from tests.app.copying import answer, sequence
from tests.app.harness import Server, running_server

pytestmark = pytest.mark.slow

SNAPSHOT = {"Content-Type": "application/x-safetensors"}
TOLERANCE = 1e-4


def step(client: httpx.Client, session: str, inputs: list[list[float]]) -> list[list[float]]:
    response = client.post(f"/sessions/{session}/steps", json={"inputs": inputs})
    response.raise_for_status()
    outputs: list[list[float]] = response.json()["outputs"]
    return outputs


def state(client: httpx.Client, session: str, **params: int) -> dict[str, "np.ndarray[Any, Any]"]:
    response = client.get(f"/sessions/{session}/state", params=params, headers={"Accept": SNAPSHOT["Content-Type"]})
    response.raise_for_status()
    return dict(safetensors.numpy.load(response.content))


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def recording(client: httpx.Client, session: str, **params: Any) -> list[dict[str, Any]]:
    response = client.get(f"/sessions/{session}/recording", params=params)
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_past_state_has_the_same_bits(client):
    session, inputs = open_session(client), sequence(12)[0]
    then = {}
    for position in range(0, len(inputs), 5):
        step(client, session, inputs[position : position + 5])
        then[min(position + 5, len(inputs))] = state(client, session)
    for at, expected in then.items():
        assert equal(state(client, session, step=at), expected)
    assert client.get(f"/sessions/{session}/state", params={"step": 3, "names": "usage"}).json()["step"] == 3


def test_recording_has_inputs_outputs_and_traces_of_every_step(client):
    session, inputs = open_session(client), sequence(6)[0]
    outputs = step(client, session, inputs[:4]) + step(client, session, inputs[4:])
    lines = recording(client, session)
    assert [line["step"] for line in lines] == list(range(1, len(inputs) + 1))
    assert [line["inputs"] for line in lines] == inputs
    assert [line["outputs"] for line in lines] == outputs
    some = recording(client, session, **{"from": 2, "to": 4}, trace="usage,read_weights")
    assert [line["step"] for line in some] == [3, 4]
    assert np.shape(some[0]["trace"]["read_weights"]) == (1, 32)
    assert recording(client, session, to=0) == []


def test_recording_of_a_restored_session_that_was_reset_is_empty(client):
    session, inputs = open_session(client), sequence(2)[0]
    step(client, session, inputs[:4])
    data = client.get(f"/sessions/{session}/snapshot").content
    restored = client.post("/sessions", content=data, headers=SNAPSHOT).json()["id"]
    step(client, restored, inputs[4:6])
    assert len(recording(client, restored)) == 2
    client.post(f"/sessions/{restored}/reset").raise_for_status()
    assert recording(client, restored) == recording(client, restored, to=0) == []
    step(client, restored, inputs[:1])
    assert [line["step"] for line in recording(client, restored)] == [1]


def test_recording_of_what_is_not_there_is_refused(client):
    session = open_session(client)
    step(client, session, sequence(1)[0])
    url = f"/sessions/{session}/recording"
    assert problem(client.get(url, params={"to": 99}), 409, "step_not_kept")["place"] == "step"
    assert problem(client.get(url, params={"from": 3, "to": 2}), 422, "invalid_request")["place"] == "from"
    assert problem(client.get(url, params={"trace": "gates"}), 422, "unknown_name")["place"] == "trace[0]"
    problem(client.get(url, params={"from": -1}), 422, "invalid_request")
    problem(client.get("/sessions/nobody/recording"), 404, "session_not_found")


def test_session_is_rewound_and_goes_on_differently(client):
    session, (inputs, vectors) = open_session(client), sequence(8)
    outputs = step(client, session, inputs[:9])
    told = client.post(f"/sessions/{session}/rewind", json={"step": 5}).json()
    assert (told["step"], told["latest"]) == (5, 9)
    step(client, session, sequence(9, seed=5)[0][5:9])
    client.post(f"/sessions/{session}/rewind", json={"step": 5}).raise_for_status()
    assert step(client, session, inputs[5:9]) == outputs[5:9]
    assert answer(outputs + step(client, session, inputs[9:])) == vectors


def test_forks_are_sessions_of_their_own(client):
    session, (inputs, vectors) = open_session(client), sequence(8)
    half = len(inputs) // 2
    step(client, session, inputs[:half])
    response = client.post(f"/sessions/{session}/fork")
    fork = response.json()
    assert (response.status_code, fork["step"], response.headers["location"]) == (201, half, f"../{fork['id']}")
    early = client.post(f"/sessions/{session}/fork", json={"step": 1}).json()
    client.delete(f"/sessions/{session}").raise_for_status()
    step(client, early["id"], inputs[1:half])
    for name in (fork["id"], early["id"]):
        assert [line["inputs"] for line in recording(client, name)] == inputs[:half]
        assert len(step(client, name, inputs[half:])) == len(inputs) - half
    whole = [line["outputs"] for line in recording(client, fork["id"])]
    assert answer(whole) == vectors


REFUSED = {
    "rewind without a step": ("rewind", {}, 422, "invalid_request"),
    "rewind to what is not there": ("rewind", {"step": 2}, 409, "step_not_kept"),
    "rewind to half a step": ("rewind", {"step": 0.5}, 422, "invalid_request"),
    "fork before the beginning": ("fork", {"step": -1}, 422, "invalid_request"),
    "fork of the future": ("fork", {"step": 2**63 - 1}, 409, "step_not_kept"),
    "fork with an unknown key": ("fork", {"at": 1}, 422, "invalid_request"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_time_travel_changes_nothing(client, case):
    path, body, status, code = REFUSED[case]
    session = open_session(client)
    step(client, session, sequence(1)[0][:1])
    before = state(client, session)
    assert problem(client.post(f"/sessions/{session}/{path}", json=body), status, code)["place"] in ("step", "at")
    told = client.get(f"/sessions/{session}").json()
    assert (told["step"], told["latest"]) == (1, 1)
    assert equal(state(client, session), before)


def test_same_idempotency_key_opens_one_session(client):
    ask = {"json": {"model": "dnc-copy"}, "headers": {"Idempotency-Key": "once"}}
    first, second = client.post("/sessions", **ask), client.post("/sessions", **ask)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] == second.json()["id"]
    other = client.post("/sessions", json={"model": "ntm-copy"}, headers=ask["headers"])
    assert problem(other, 409, "idempotency_conflict")["place"] == "Idempotency-Key"
    fork = [
        client.post(f"/sessions/{first.json()['id']}/fork", headers={"Idempotency-Key": "fork"}).json()["id"]
        for _ in range(2)
    ]
    assert fork[0] == fork[1] != first.json()["id"]
    empty = client.post("/sessions", json={"model": "dnc-copy"}, headers={"Idempotency-Key": ""})
    problem(empty, 422, "invalid_request")


def test_snapshot_of_another_model_or_changed_is_refused_by_name(client):
    session = open_session(client, "lstm-copy")
    data = client.get(f"/sessions/{session}/snapshot").content
    before = len(client.get("/sessions").json())
    changed = bytearray(data)
    changed[-1] ^= 1
    told = problem(client.post("/sessions", content=bytes(changed), headers=SNAPSHOT), 422, "invalid_snapshot")
    assert "damaged, or was changed" in told["detail"]
    other = client.post("/sessions", params={"model": "dnc-copy"}, content=data, headers=SNAPSHOT)
    assert "is of lstm-copy" in problem(other, 422, "invalid_snapshot")["detail"]
    for junk in (b"", b"junk", data[:100]):
        problem(client.post("/sessions", content=junk, headers=SNAPSHOT), 422, "invalid_snapshot")
    assert len(client.get("/sessions").json()) == before


def test_frame_sent_again_is_answered_also_after_a_restart(data, few):
    inputs = sequence(3)[0]
    frames = [{"seq": seq, "inputs": [row], "trace": ["usage"]} for seq, row in enumerate(inputs)]
    with (
        running_server(data=data, checkpoints=few) as server,
        connect(f"{server.socket_url}/stream?model=dnc-copy") as stream,
    ):
        session = json.loads(stream.recv())["session"]
        told = []
        for frame in frames:
            stream.send(json.dumps(frame))
            told.append(json.loads(stream.recv()))
        server.stop(signal.SIGKILL)
    with (
        running_server(data=data, checkpoints=few) as server,
        connect(f"{server.socket_url}/sessions/{session}/stream") as stream,
    ):
        greeting = json.loads(stream.recv())
        assert (greeting["step"], greeting["seq"]) == (len(inputs), len(inputs) - 1)
        for frame, expected in zip(frames, told, strict=True):
            stream.send(json.dumps(frame))
            assert json.loads(stream.recv()) == expected


def killed(server: Server) -> None:
    server.stop(signal.SIGKILL)


def stopped(server: Server) -> None:
    server.stop(signal.SIGTERM)


@pytest.mark.parametrize("end", [killed, stopped])
def test_sessions_go_on_after_a_restart_to_the_bit(data, few, end):
    inputs, models = sequence(18)[0], ("dnc-copy", "ntm-copy", "lstm-copy")
    with running_server(data=data, checkpoints=few) as server, httpx.Client(base_url=server.url) as client:
        sessions, straight = ([open_session(client, model) for model in models] for _ in range(2))
        wholes = [step(client, name, inputs) for name in straight]
        outputs = [step(client, name, inputs[:7]) for name in sessions]
        before = [state(client, name) for name in sessions]
        end(server)
    with running_server(data=data, checkpoints=few) as server, httpx.Client(base_url=server.url) as client:
        for session, other, whole, first, then in zip(sessions, straight, wholes, outputs, before, strict=True):
            assert client.get(f"/sessions/{session}").json()["step"] == 7
            assert equal(state(client, session), then)
            assert equal(state(client, session, step=4), state(client, other, step=4))
            assert first + step(client, session, inputs[7:]) == whole


def test_thousands_of_sessions_are_there_after_a_crash(tmp_path: Path, data: Path):
    """The server does not wait for them: each is computed when it is used."""
    make_checkpoint(tmp_path / "checkpoints" / "tiny", "ntm")
    with (
        running_server(data=data, checkpoints=tmp_path / "checkpoints") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        session = open_session(client, "tiny")
        outputs = step(client, session, [[1.0] * 4] * 3)
        server.stop(signal.SIGKILL)
    store = SqliteStore(data)
    known = store.find(session)
    assert isinstance(known, Record)
    inputs = np.ones((3, 4), "<f4").tobytes()
    for number in range(10_000):
        new = NewSession(f"s{number}", "tiny", known.fingerprint, known.memory_size, known.opened)
        tape = store.create(new, "somebody").tape
        assert store.append([Entry(tape, 1, 0, 3, inputs)]) == set()
    store.close()
    with (
        running_server(data=data, checkpoints=tmp_path / "checkpoints") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        assert 'engram_sessions{model="tiny"} 10001.0' in client.get("/metrics").text
        for number in (0, 5000, 9999):
            assert client.get(f"/sessions/s{number}").json()["step"] == 3
            assert [line["outputs"] for line in recording(client, f"s{number}")] == outputs
            step(client, f"s{number}", [[1.0] * 4])
        assert 'engram_resident_sessions{model="tiny"} 3.0' in client.get("/metrics").text


def test_sessions_of_other_weights_are_refused_and_can_be_deleted(tmp_path: Path, data: Path):
    make_checkpoint(tmp_path / "one" / "tiny")
    make_checkpoint(tmp_path / "two" / "tiny", seed=2)
    with running_server(data=data, checkpoints=tmp_path / "one") as server:
        session = httpx.post(f"{server.url}/sessions", json={"model": "tiny"}).json()["id"]
    with running_server(data=data, checkpoints=tmp_path / "two") as server, httpx.Client(base_url=server.url) as client:
        told = problem(client.get(f"/sessions/{session}/state"), 409, "model_changed")
        assert "of a model tiny with other weights" in told["detail"]
        assert [listed["id"] for listed in client.get("/sessions").json()] == [session]
        assert client.delete(f"/sessions/{session}").status_code == 204
        assert client.get("/sessions").json() == []


@pytest.fixture(scope="module")
def by_back_end(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Run a server of each back end."""
    directory, names = tmp_path_factory.mktemp("by_back_end"), ("onnx", "torch", "fused")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running_server("--backend", name, data=directory / name, checkpoints=few))
            for name in names
        }


@pytest.mark.parametrize(("source", "target"), [("onnx", "torch"), ("torch", "fused"), ("fused", "onnx")])
def test_snapshot_moves_a_session_to_another_server_and_back_end(by_back_end, source, target):
    inputs, vectors = sequence(12)
    with (
        httpx.Client(base_url=by_back_end[source].url) as here,
        httpx.Client(base_url=by_back_end[target].url) as there,
    ):
        session = open_session(here)
        outputs = step(here, session, inputs[:15])
        data = here.get(f"/sessions/{session}/snapshot").content
        moved = there.post("/sessions", content=data, headers=SNAPSHOT).json()
        assert (moved["step"], moved["model"]) == (15, "dnc-copy")
        assert equal(state(there, moved["id"]), state(here, session))
        expected, came = step(here, session, inputs[15:]), step(there, moved["id"], inputs[15:])
    np.testing.assert_allclose(came, expected, atol=TOLERANCE, rtol=0)
    assert answer(outputs + came) == vectors


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_replayed_state_is_within_rounding_on_other_back_ends(data, few, backend):
    inputs = sequence(10)[0]
    with (
        running_server("--backend", backend, data=data, checkpoints=few) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        session = open_session(client)
        for row in inputs:
            step(client, session, [row])
        before = state(client, session)
        server.stop(signal.SIGKILL)
    with (
        running_server("--backend", backend, data=data, checkpoints=few) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        after = state(client, session)
    for name, leaf in before.items():
        np.testing.assert_allclose(after[name], leaf, atol=TOLERANCE, rtol=0, err_msg=name)


def test_past_beyond_what_is_kept_is_let_go_of(data, few):
    arguments = ["--keep-steps", "50"]
    with running_server(*arguments, data=data, checkpoints=few) as server, httpx.Client(base_url=server.url) as client:
        session, inputs, oldest = open_session(client, "lstm-copy"), sequence(20)[0], 0
        while not oldest:
            step(client, session, inputs)
            oldest = client.get(f"/sessions/{session}").json()["oldest"]
        reached = client.get(f"/sessions/{session}").json()["step"]
        assert oldest <= reached - 50
        told = problem(client.get(f"/sessions/{session}/state", params={"step": oldest - 1}), 409, "step_not_kept")
        assert told["expected"] == f"0, or {oldest} to {reached}"
        assert [line["step"] for line in recording(client, session)] == list(range(oldest + 1, reached + 1))
        state(client, session, step=oldest)
        assert client.post(f"/sessions/{session}/rewind", json={"step": oldest}).json()["step"] == oldest
