"""Sessions with forced gates, on real servers."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from app.sessions.snapshot import Snapshot
from tests.app.copying import sequence
from tests.app.harness import Server, running_server

SHUT = {"write_gate": [0.0]}
MIXED = {"free_gates": [0.0], "read_modes": [[0.25, 0.25, 0.5]]}
TURNED = {"interpolation_gate": [None, 1.0], "shift_weights": [[0.0, 1.0, 0.0], None]}
FORCES = [("dnc-copy", SHUT), ("dnc-copy", MIXED), ("ntm-copy", TURNED)]
INPUTS, _ = sequence(6, seed=2)
MORE = {"inputs": INPUTS[:4]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Server]:
    with running_server("--max-resident", "4", data=tmp_path_factory.mktemp("forced"), checkpoints=few) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def asked(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.is_success, answer.text
    return dict(answer.json())


def opened(client: httpx.Client, model: str = "dnc-copy", **more: Any) -> str:
    return f"/sessions/{asked(client, '/sessions', model=model, **more)['id']}"


def stepped(client: httpx.Client, session: str, **more: Any) -> dict[str, Any]:
    return asked(client, f"{session}/steps", **({"inputs": INPUTS} | more))


def recorded(client: httpx.Client, session: str, **query: Any) -> list[dict[str, Any]]:
    lines = client.get(f"{session}/recording", params=query).text.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("model", "force"), FORCES)
def test_forced_values_are_in_trace_info_list_and_recording(client, model, force):
    session = opened(client, model, force=force)
    trace = stepped(client, session, trace=list(force))["trace"]
    for name, gate in force.items():
        for head, value in enumerate(gate):
            assert value is None or (np.array(trace[name])[:, head] == np.float32(value)).all()
    assert client.get(session).json()["force"] == force
    assert client.get("/sessions", params={"limit": 1}).json()[0]["force"] == force
    assert {json.dumps(line["force"]) for line in recorded(client, session)} == {json.dumps(force)}


def test_session_whose_write_gate_is_shut_remembers_nothing(client):
    session = opened(client, force=SHUT)
    stepped(client, session)
    assert not np.any(client.get(f"{session}/state").json()["state"]["memory"])


@pytest.mark.parametrize(("model", "force"), FORCES)
def test_free_session_beside_forced_ones_keeps_its_bits(client, model, force):
    alone = stepped(client, opened(client, model), trace=["read_weights"])
    sessions = [opened(client, model, force=force), opened(client, model), opened(client, model, force=force)]
    for session in sessions:  # which are then resident, and stepped together
        stepped(client, session, inputs=INPUTS[:2])
    body = {"sessions": [session.split("/")[2] for session in sessions], "inputs": [INPUTS[2:]] * 3}
    together = asked(client, "/steps", trace=["read_weights"], **body)
    assert together["outputs"][1] == alone["outputs"][2:]
    assert together["trace"]["read_weights"][1] == alone["trace"]["read_weights"][2:]
    assert together["outputs"][0] == together["outputs"][2] != alone["outputs"][2:]
    assert client.get(sessions[1]).json()["force"] is None
    assert "force" not in recorded(client, sessions[1])[0]


@pytest.mark.parametrize(("model", "force"), FORCES)
def test_infer_at_once_and_in_a_batch_forces_gates(client, model, force):
    expected = stepped(client, opened(client, model, force=force))["outputs"]
    one = asked(client, "/infer", model=model, inputs=INPUTS, force=force)
    several = asked(client, "/infer", model=model, inputs=[INPUTS, INPUTS[:3]], force=force)
    free = asked(client, "/infer", model=model, inputs=INPUTS, force={})
    assert one["outputs"] == several["outputs"][0] == expected != free["outputs"]


@pytest.mark.parametrize("path", ["/stream?model=dnc-copy&force={}", "/streams?model=dnc-copy&force={}"])
def test_streams_open_sessions_with_forced_gates(server, client, path):
    with connect(server.socket_url + path.format(quote(json.dumps(SHUT)))) as socket:
        greeting = json.loads(socket.recv())
    greeting = greeting.get("sessions", [greeting])[0]
    assert greeting["force"] == SHUT
    assert client.get(f"/sessions/{greeting['session']}").json()["force"] == SHUT


def test_force_of_a_stream_that_is_no_json_is_refused(server):
    with connect(f"{server.socket_url}/stream?model=dnc-copy&force=shut") as socket:
        answer = json.loads(socket.recv())
    assert (answer["code"], answer["place"]) == ("invalid_request", "force")


@pytest.mark.parametrize(("model", "force"), FORCES)
def test_fork_of_a_forced_session_goes_on_with_its_past(client, model, force):
    session = opened(client, model, force=force)
    past = stepped(client, session)["outputs"]
    fork = asked(client, f"{session}/fork", step=5)
    assert (fork["force"], fork["oldest"]) == (force, 0)
    assert stepped(client, f"/sessions/{fork['id']}", inputs=INPUTS[5:])["outputs"] == past[5:]
    assert [line["outputs"] for line in recorded(client, f"/sessions/{fork['id']}")] == past


@pytest.mark.parametrize(("model", "force"), FORCES)
def test_fork_with_another_force_begins_with_the_state_alone(client, model, force):
    session = opened(client, model)
    stepped(client, session)
    before = client.get(f"{session}/state", params={"step": 7}).json()["state"]
    fork = asked(client, f"{session}/fork", step=7, force=force)
    assert (fork["force"], fork["step"], fork["oldest"]) == (force, 7, 7)
    assert client.get(f"/sessions/{fork['id']}/state").json()["state"] == before
    forced = stepped(client, f"/sessions/{fork['id']}", **MORE)["outputs"]
    freed = asked(client, f"/sessions/{fork['id']}/fork", step=7, force={})
    free = stepped(client, f"/sessions/{freed['id']}", **MORE)["outputs"]
    again = asked(client, f"{session}/fork", step=7)
    assert (freed["force"], free) == (None, stepped(client, f"/sessions/{again['id']}", **MORE)["outputs"])
    assert forced != free


def test_fork_of_the_first_step_forces_gates_from_the_start(client):
    session = opened(client)
    stepped(client, session)
    fork = asked(client, f"{session}/fork", step=0, force=SHUT)
    outputs = stepped(client, f"/sessions/{fork['id']}")["outputs"]
    assert outputs == asked(client, "/infer", model="dnc-copy", inputs=INPUTS, force=SHUT)["outputs"]


@pytest.mark.parametrize(("model", "force"), FORCES)
def test_evicted_session_goes_on_with_the_same_bits(client, model, force):
    sessions = [opened(client, model, force=force) for _ in range(2)]
    for session in sessions:
        stepped(client, session)
    for _ in range(8):
        stepped(client, opened(client, model), **MORE)
    state = client.get(f"{sessions[0]}/state").json()["state"]
    rewound = asked(client, f"{sessions[1]}/rewind", step=3)
    assert (rewound["force"], rewound["step"]) == (force, 3)
    stepped(client, sessions[1], inputs=INPUTS[3:])
    assert client.get(f"{sessions[1]}/state").json()["state"] == state


def test_snapshot_opens_with_the_same_forces(client):
    session = opened(client, force=MIXED)
    stepped(client, session)
    data = client.get(f"{session}/snapshot").content
    copy = client.post("/sessions", content=data, headers={"Content-Type": "application/x-safetensors"}).json()
    assert (copy["force"], copy["step"]) == (MIXED, len(INPUTS))
    assert stepped(client, f"/sessions/{copy['id']}", **MORE) == stepped(client, session, **MORE)


@pytest.mark.parametrize("force", ["[]", "null", "{", '{"write_gate":[0]}', '{"write_gate":[2.0]}', "[" * 9000])
def test_snapshot_whose_force_was_made_up_is_refused(client, force):
    session = opened(client, force=SHUT)
    stepped(client, session)
    snapshot = Snapshot.from_bytes(client.get(f"{session}/snapshot").content)
    data = replace(snapshot, force=force).to_bytes()
    refused = client.post("/sessions", content=data, headers={"Content-Type": "application/x-safetensors"})
    assert refused.status_code == 422, refused.text


def test_key_with_another_force_is_a_conflict(client):
    headers = {"Idempotency-Key": "forced once"}
    bodies = [{"model": "dnc-copy", "force": force} for force in (SHUT, SHUT, {})]
    answers = [client.post("/sessions", json=body, headers=headers) for body in bodies]
    assert [answer.status_code for answer in answers] == [201, 201, 409]
    assert answers[0].json()["id"] == answers[1].json()["id"]


@pytest.mark.parametrize(
    ("model", "force", "place"),
    [
        ("dnc-copy", {"write_gate": [2]}, "force.write_gate[0]"),
        ("dnc-copy", {"write_gate": 0}, "force.write_gate"),
        ("dnc-copy", {"sharpening": [1]}, "force"),
        ("lstm-copy", SHUT, "force"),
        ("dnc-copy", [0], "force"),
    ],
)
def test_wrong_force_is_refused_everywhere_with_its_place(client, model, force, place):
    session = opened(client, model)
    for path, body in (("/sessions", {}), ("/infer", {"inputs": INPUTS}), (f"{session}/fork", {})):
        named = {} if "fork" in path else {"model": model}
        refused = client.post(path, json=named | body | {"force": force})
        problem = refused.json()
        assert (refused.status_code, problem["code"], problem["place"]) == (422, "invalid_request", place), problem
        assert problem["expected"]


def test_forced_session_survives_a_kill_and_waits_for_kernels(data, few):
    with running_server(data=data, checkpoints=few) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        session = opened(client, force=MIXED)
        outputs = stepped(client, session)["outputs"]
        server.stop(9)
    with running_server("--backend", "onnx", data=data, checkpoints=few) as server:
        refused = httpx.get(f"{server.url}{session}", timeout=60).json()
        assert (refused["code"], "--backend fused or torch" in refused["detail"]) == ("model_changed", True)
        opening = httpx.post(f"{server.url}/sessions", json={"model": "dnc-copy", "force": SHUT}, timeout=60)
        assert (opening.status_code, "--backend fused or torch" in opening.json()["detail"]) == (422, True)
    with running_server(data=data, checkpoints=few) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get(session).json()["force"] == MIXED
        assert [line["outputs"] for line in recorded(client, session)] == outputs
        again = opened(client, force=MIXED)
        stepped(client, again)
        assert stepped(client, session, **MORE) == stepped(client, again, **MORE)


def test_forced_session_of_fused_steps_like_one_of_torch(client, tmp_path, few):
    expected = [stepped(client, opened(client, model, force=force))["outputs"] for model, force in FORCES]
    with running_server("--backend", "torch", data=tmp_path / "torch", checkpoints=few) as server:
        torch = httpx.Client(base_url=server.url, timeout=60)
        for (model, force), outputs in zip(FORCES, expected, strict=True):
            np.testing.assert_allclose(stepped(torch, opened(torch, model, force=force))["outputs"], outputs, atol=1e-4)
        torch.close()
