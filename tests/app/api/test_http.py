"""The HTTP interface of a real server."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import safetensors.numpy

from tests.app.copying import answer, sequence
from tests.app.harness import CHECKPOINTS

SHIPPED = sorted(path.parent.name for path in CHECKPOINTS.glob("*/manifest.json"))
PROBLEM = "application/problem+json"


def open_session(client: httpx.Client, model: str = "dnc-copy") -> str:
    response = client.post("/sessions", json={"model": model})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    document = response.json()
    assert (document["status"], document["code"]) == (status, code)
    return dict(document)


# Models


def test_models_are_listed_with_their_cards(client):
    models = client.get("/models").json()
    assert [model["name"] for model in models] == SHIPPED
    assert models[SHIPPED.index("dnc-copy")] == client.get("/models/dnc-copy").json()


def test_model_card_has_sizes_schema_and_measured_errors(client):
    card = client.get("/models/dnc-copy").json()
    assert (card["kind"], card["input_size"], card["output_size"]) == ("dnc", 10, 8)
    assert (card["memory_size"], card["word_size"], card["read_heads"]) == (32, 16, 1)
    assert (card["backend"], card["device"], card["controller"]["kind"]) == ("fused", "cpu", "lstm")
    assert card["state"]["memory"] == [32, 16]
    assert card["trace"]["read_weights"] == [1, 32]
    assert {row["options"]["length"] for row in card["evaluation"]} == {20, 50, 120}


def test_unknown_model_is_refused_with_those_there_are(client):
    reply = problem(client.get("/models/dcn-copy"), 404, "model_not_found")
    assert (reply["got"], reply["expected"]) == ("dcn-copy", f"one of {', '.join(SHIPPED)}")
    problem(client.post("/infer", json={"model": "dcn-copy", "inputs": [[0] * 10]}), 404, "model_not_found")
    problem(client.post("/sessions", json={"model": "dcn-copy"}), 404, "model_not_found")


# Inference


@pytest.mark.parametrize("model", ["dnc-copy", "ntm-copy"])
def test_infer_copies_a_sequence(client, model):
    inputs, vectors = sequence(12, seed=3)
    result = client.post("/infer", json={"model": model, "inputs": inputs}).json()
    assert answer(result["outputs"]) == vectors
    assert (result["steps"], result["trace"]) == (26, {})


def test_infer_batch_of_different_lengths_equals_single_sequences(client):
    sequences = [sequence(length, seed=length)[0] for length in (1, 7, 20)]
    batch = client.post("/infer", json={"model": "dnc-copy", "inputs": sequences, "trace": ["usage"]}).json()
    assert batch["steps"] == [4, 16, 42]
    for inputs, outputs, usage in zip(sequences, batch["outputs"], batch["trace"]["usage"], strict=True):
        alone = client.post("/infer", json={"model": "dnc-copy", "inputs": inputs, "trace": ["usage"]}).json()
        assert outputs == [pytest.approx(step, abs=1e-4) for step in alone["outputs"]]
        assert [sorted(step) for step in usage] == [
            pytest.approx(sorted(step), abs=1e-4) for step in alone["trace"]["usage"]
        ]


def test_infer_returns_the_traces_asked_for(client):
    inputs, _ = sequence(3)
    request = {"model": "ntm-copy", "inputs": inputs, "trace": ["read_weights", "shift_weights"]}
    trace = client.post("/infer", json=request).json()["trace"]
    assert list(trace) == ["read_weights", "shift_weights"]
    assert (len(trace["read_weights"]), len(trace["read_weights"][0][0])) == (8, 128)
    assert sum(trace["read_weights"][5][0]) == pytest.approx(1, abs=1e-4)
    assert sum(trace["shift_weights"][5][1]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("model", ["dnc-copy", "dnc-graph-traversal", "ntm-copy"])
def test_infer_returns_every_trace_in_the_shape_of_the_card(client, model):
    card = client.get(f"/models/{model}").json()
    request = {"model": model, "inputs": [[0] * card["input_size"]] * 3, "trace": list(card["trace"])}
    trace = client.post("/infer", json=request).json()["trace"]
    assert {name: list(np.shape(values)) for name, values in trace.items()} == {
        name: [3, *shape] for name, shape in card["trace"].items()
    }


def test_infer_booleans_pass_for_bits(client):
    inputs, _ = sequence(2)
    numbers = client.post("/infer", json={"model": "lstm-copy", "inputs": inputs}).json()
    booleans = [[bool(value) for value in step] for step in inputs]
    assert client.post("/infer", json={"model": "lstm-copy", "inputs": booleans}).json() == numbers


# Bad input

WIDTH = 10
GOOD = [0.0] * WIDTH

BAD_INPUTS = {
    "not a list": (5, "inputs"),
    "a string": ("abc", "inputs"),
    "nothing": (None, "inputs"),
    "empty": ([], "inputs"),
    "an empty step": ([[]], "inputs[0]"),
    "a number for a step": ([GOOD, 1.0], "inputs[1]"),
    "ragged": ([GOOD, GOOD[:9]], "inputs[1]"),
    "too wide": ([[*GOOD, 0.0]], "inputs[0]"),
    "numbers as strings": ([GOOD, [*GOOD[:4], "1.0", *GOOD[5:]]], "inputs[1][4]"),
    "all strings": ([["1"] * WIDTH], "inputs[0][0]"),
    "null": ([[*GOOD[:9], None]], "inputs[0][9]"),
    "an object": ([[*GOOD[:9], {}]], "inputs[0][9]"),
    "too large for float32": ([[1e39, *GOOD[1:]]], "inputs[0][0]"),
    "an integer beyond any float": ([[10**400, *GOOD[1:]]], "inputs[0][0]"),
    "too long": ([GOOD] * 501, "inputs"),
    "a batch with an empty sequence": ([[GOOD], []], "inputs[1]"),
    "a batch with a bad step": ([[GOOD], [GOOD, GOOD[1:]]], "inputs[1][1]"),
    "a batch that is too large": ([[GOOD]] * 9, "inputs"),
    "four levels": ([[[GOOD]]], "inputs[0][0]"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_infer_bad_inputs_are_refused_with_their_place(client, case):
    inputs, place = BAD_INPUTS[case]
    body = json.dumps({"model": "dnc-copy", "inputs": inputs})
    reply = problem(client.post("/infer", content=body), 422, "invalid_input")
    assert reply["place"] == place
    assert reply["expected"]
    assert reply["got"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_infer_refuses_numbers_that_are_not_finite_with_their_place(client, number):
    body = f'{{"model": "dnc-copy", "inputs": [{GOOD}, [{number}, 0,0,0,0,0,0,0,0,0]]}}'
    reply = problem(client.post("/infer", content=body), 422, "invalid_input")
    assert reply["place"] == "inputs[1][0]"


def test_infer_accepts_the_largest_float32_as_numpy_prints_it(client):
    body = f'{{"model": "lstm-copy", "inputs": [[{np.finfo(np.float32).max!s}, 0,0,0,0,0,0,0,0,0]]}}'
    assert client.post("/infer", content=body).json()["steps"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": "dnc-copy", ',
        b"\xff\xfe",
        b"[1, 2]",
        b"7",
        b"[" * 100_000,
        b'{"model": "\\ud800", "inputs": [[0]]}',
        b'{"model": "dnc-copy", "inputs": [[NaN]], "trace": ["\\ud800"]}',
    ],
)
def test_infer_malformed_body_is_refused(client, body):
    problem(client.post("/infer", content=body), 400, "malformed_body")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"inputs": [GOOD]}, "model"),
        ({"model": "dnc-copy"}, "inputs"),
        ({"model": 5, "inputs": [GOOD]}, "model"),
        ({"model": "dnc-copy", "inputs": [GOOD], "tarce": []}, "tarce"),
        ({"model": "dnc-copy", "inputs": [GOOD], "trace": "usage"}, "trace"),
        ({"model": "dnc-copy", "inputs": [GOOD], "trace": [3]}, "trace[0]"),
    ],
)
def test_infer_refuses_a_bad_key_by_its_name(client, body, place):
    assert problem(client.post("/infer", json=body), 422, "invalid_request")["place"] == place


def test_deep_values_are_refused_like_others(client):
    deep = b"[" * 900 + b"]" * 900
    for body in (b'{"model": %s, "inputs": [[0]]}', b'{"model": "dnc-copy", "inputs": [[%s]]}', b'{"if": %s}'):
        assert client.post("/infer", content=body % deep).status_code == 422


def test_trace_named_twice_is_returned_once(client):
    request = {"model": "ntm-copy", "inputs": [GOOD], "trace": ["sharpening"] * 2}
    assert list(client.post("/infer", json=request).json()["trace"]) == ["sharpening"]


def test_unknown_trace_is_refused_with_those_there_are(client):
    request = {"model": "ntm-copy", "inputs": [GOOD], "trace": ["read_weights", "usage"]}
    reply = problem(client.post("/infer", json=request), 422, "unknown_name")
    assert (reply["place"], reply["got"]) == ("trace[1]", "usage")
    assert "shift_weights" in str(reply["expected"])


def test_body_over_the_limit_is_refused_whether_announced_or_not(client):
    body = json.dumps({"model": "dnc-copy", "inputs": [GOOD] * 10_000}).encode()
    problem(client.post("/infer", content=body), 413, "body_too_large")
    problem(client.post("/infer", content=iter([body[:150_000], body[150_000:]])), 413, "body_too_large")


def test_unknown_route_and_method_are_problems(client):
    problem(client.get("/modles"), 404, "not_found")
    problem(client.get("/infer"), 405, "method_not_allowed")


# Sessions


def test_session_steps_equal_infer(client):
    inputs, vectors = sequence(9, seed=1)
    session = open_session(client)
    outputs, reached = [], []
    for start in range(0, len(inputs), 4):
        result = client.post(f"/sessions/{session}/steps", json={"inputs": inputs[start : start + 4]}).json()
        outputs += result["outputs"]
        reached.append(result["step"])
    assert answer(outputs) == vectors
    assert reached == [4, 8, 12, 16, 20]
    assert client.get(f"/sessions/{session}").json()["step"] == 20


def test_sessions_of_one_model_do_not_meet(client):
    sessions = {open_session(client): sequence(6, seed=seed) for seed in range(4)}
    outputs: dict[str, list[list[float]]] = {session: [] for session in sessions}
    for t in range(14):
        for session, (inputs, _) in sessions.items():
            outputs[session] += client.post(f"/sessions/{session}/steps", json={"inputs": [inputs[t]]}).json()[
                "outputs"
            ]
    for session, (_, vectors) in sessions.items():
        assert answer(outputs[session]) == vectors


def test_session_is_described_and_listed(client):
    session = open_session(client, "ntm-copy")
    described = client.get(f"/sessions/{session}").json()
    assert (described["id"], described["model"], described["step"]) == (session, "ntm-copy", 0)
    assert 0 < described["expires_in"] <= 7 * 86400
    assert (described["latest"], described["oldest"]) == (0, 0)
    listed = client.get("/sessions", params={"model": "ntm-copy"}).json()
    assert listed[0]["id"] == session
    assert all(entry["model"] == "ntm-copy" for entry in listed)


def test_session_state_is_read_by_name(client):
    session = open_session(client)
    stepped = client.post(f"/sessions/{session}/steps", json={"inputs": sequence(5)[0][:6], "trace": ["usage"]}).json()
    state = client.get(f"/sessions/{session}/state", params={"names": "usage,memory"}).json()
    assert (state["id"], state["step"], list(state["state"])) == (session, 6, ["usage", "memory"])
    assert state["state"]["usage"] == stepped["trace"]["usage"][-1]
    assert (len(state["state"]["memory"]), len(state["state"]["memory"][0])) == (32, 16)


def test_session_state_as_safetensors_equals_json(client):
    session = open_session(client, "ntm-copy")
    client.post(f"/sessions/{session}/steps", json={"inputs": [GOOD]})
    reply = client.get(f"/sessions/{session}/state").json()["state"]
    response = client.get(f"/sessions/{session}/state", headers={"Accept": "application/x-safetensors"})
    assert response.headers["content-type"] == "application/x-safetensors"
    leaves = safetensors.numpy.load(response.content)
    assert {name: leaf.astype("f8").tolist() for name, leaf in leaves.items()}.keys() == reply.keys()
    assert leaves["memory"].tolist() == [pytest.approx(row, rel=1e-6) for row in reply["memory"]]


def test_session_state_refuses_unknown_leaves_and_other_steps(client):
    session = open_session(client)
    url = f"/sessions/{session}/state"
    assert problem(client.get(url, params={"names": "memory,gates"}), 422, "unknown_name")["place"] == "names[1]"
    assert problem(client.get(url, params={"step": 3}), 409, "step_not_kept")["step"] == 0
    assert client.get(url, params={"step": 0, "names": "usage"}).status_code == 200
    assert problem(client.get(url, params={"step": "x"}), 422, "invalid_request")["place"] == "step"


def test_session_reset_starts_over(client):
    session = open_session(client)
    first = client.post(f"/sessions/{session}/steps", json={"inputs": sequence(4)[0]}).json()
    assert client.post(f"/sessions/{session}/reset").json()["step"] == 0
    assert client.post(f"/sessions/{session}/steps", json={"inputs": sequence(4)[0]}).json() == first


def test_if_step_at_another_step_is_refused_and_changes_nothing(client):
    session = open_session(client)
    steps = f"/sessions/{session}/steps"
    assert client.post(steps, json={"inputs": [GOOD], "if_step": 0}).json()["step"] == 1
    reply = problem(client.post(steps, json={"inputs": [GOOD], "if_step": 0}), 409, "step_conflict")
    assert reply["step"] == 1
    assert client.get(f"/sessions/{session}").json()["step"] == 1


def test_unknown_session_is_not_found_a_deleted_one_gone(client):
    session = open_session(client)
    assert client.delete(f"/sessions/{session}").status_code == 204
    for call in (
        client.get(f"/sessions/{session}"),
        client.delete(f"/sessions/{session}"),
        client.get(f"/sessions/{session}/state"),
        client.post(f"/sessions/{session}/reset"),
        client.post(f"/sessions/{session}/steps", json={"inputs": [GOOD]}),
    ):
        assert problem(call, 410, "session_gone")["reason"] == "deleted"
    assert client.get(f"/sessions/{session}?ended=true").json() == {"id": session, "ended": "deleted"}
    problem(client.get("/sessions/nobody?ended=true"), 404, "session_not_found")
    problem(client.get("/sessions/nobody"), 404, "session_not_found")
    problem(client.post("/sessions/nobody/steps", json={"inputs": [GOOD]}), 404, "session_not_found")


def test_refused_steps_leave_the_session_as_it_was(client):
    session = open_session(client)
    steps = f"/sessions/{session}/steps"
    client.post(steps, json={"inputs": [GOOD]})
    before = client.get(f"/sessions/{session}/state").json()
    for inputs in ([GOOD, GOOD[1:]], [], [[None] * WIDTH], [[GOOD]]):
        problem(client.post(steps, json={"inputs": inputs}), 422, "invalid_input")
    assert client.get(f"/sessions/{session}/state").json() == before


def test_concurrent_steps_of_one_session_are_never_interleaved(client):
    """Every request is a whole copy sequence: were two of them interleaved, neither would be copied."""
    session = open_session(client, "ntm-copy")
    requests = [sequence(2, seed=seed) for seed in range(12)]
    lone = open_session(client, "ntm-copy")

    def send(inputs: list[list[float]]) -> dict[str, object]:
        return dict(client.post(f"/sessions/{session}/steps", json={"inputs": inputs}, timeout=60).json())

    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(send, [inputs for inputs, _ in requests]))
    assert sorted(result["step"] for result in results) == [6 * (number + 1) for number in range(12)]
    for result, (inputs, _) in sorted(zip(results, requests, strict=True), key=lambda pair: pair[0]["step"]):
        expected = client.post(f"/sessions/{lone}/steps", json={"inputs": inputs}).json()["outputs"]
        assert result["outputs"] == [pytest.approx(step, abs=1e-3) for step in expected]


# Operation


def test_health_and_readiness_answer(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert (ready["status"], ready["models"]) == ("ready", SHIPPED)


def test_metrics_count_steps_and_requests(client):
    def value(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    steps, refused = (
        'engram_steps_total{model="dnc-copy"}',
        'engram_requests_total{method="POST",route="/infer",status="404"}',
    )
    before = value(steps), value(refused)
    client.post("/infer", json={"model": "dnc-copy", "inputs": [GOOD] * 5})
    client.post("/infer", json={"model": "nobody", "inputs": [GOOD] * 5})
    assert (value(steps), value(refused)) == (before[0] + 5, before[1] + 1)


def test_documentation_covers_every_route(client):
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    assert document["components"]["schemas"]["InferRequest"]["required"] == ["model", "inputs"]
    assert {"/sessions/{session}/steps", "/sessions/{session}/state", "/models/{name}", "/readyz"} <= set(paths)
