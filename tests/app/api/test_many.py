"""POST /steps: many sessions in one request, against a real server."""

from typing import Any

import httpx
import msgpack
import numpy as np
import pytest

from app.api.many import read_many
from app.api.schemas import ManyStepsRequest
from app.sessions.dtypes import Form
from tests.app.harness import running_server

GOOD = [0.0] * 10
MSGPACK = {"Content-Type": "application/msgpack"}


def opened(client: httpx.Client, count: int, model: str = "dnc-copy") -> list[str]:
    return [client.post("/sessions", json={"model": model}).json()["id"] for _ in range(count)]


def random_inputs(sessions: int, steps: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 2, (sessions, steps, 10)).astype("<f4")


def where(client: httpx.Client, sessions: list[str]) -> list[int]:
    return [client.get(f"/sessions/{session}").json()["step"] for session in sessions]


def test_steps_of_many_sessions_are_those_of_each(client):
    sessions, inputs = opened(client, 3) + opened(client, 1, "ntm-copy"), random_inputs(4, 3).tolist()
    for first, last in ((0, 1), (1, 3)):
        asked = {"sessions": sessions, "inputs": [sequence[first:last] for sequence in inputs], "trace": ["usage"][:0]}
        reply = client.post("/steps", json=asked).json()
        assert (reply["steps"], reply["errors"], reply["trace"]) == ([last] * 4, [], {})
        for number, model in enumerate(["dnc-copy"] * 3 + ["ntm-copy"]):
            body = {"model": model, "inputs": inputs[number][:last]}
            assert reply["outputs"][number] == client.post("/infer", json=body).json()["outputs"][first:]


def test_binary_request_is_answered_in_binary(client):
    sessions, inputs = opened(client, 3), random_inputs(3, 2)
    raw = {"shape": [3, 2, 10], "data": inputs.tobytes()}
    asked = msgpack.packb({"sessions": [*sessions[:2], "nobody"], "inputs": raw, "trace": ["usage"]})
    response = client.post("/steps", content=asked, headers=MSGPACK)
    reply = msgpack.unpackb(response.content)
    assert response.headers["content-type"] == "application/msgpack"
    assert (reply["steps"], reply["trace"]["usage"]["shape"]) == ([2, 2, None], [3, 2, 32])
    outputs = np.frombuffer(reply["outputs"]["data"], "<f4").reshape(3, 2, 8)
    body = {"model": "dnc-copy", "inputs": inputs[1].tolist()}
    assert outputs[1].tolist() == np.float32(client.post("/infer", json=body).json()["outputs"]).tolist()
    assert (outputs[2] == 0).all()


def test_results_that_differ_in_shape_come_as_a_list(client):
    small = client.post("/sessions", json={"model": "dnc-copy", "memory_size": 5}).json()["id"]
    sessions = [*opened(client, 1), small, "nobody", *opened(client, 1, "dnc-repeat-copy")]
    raw = {"shape": [4, 2, 10], "data": random_inputs(4, 2).tobytes()}
    asked = msgpack.packb({"sessions": sessions, "inputs": raw, "trace": ["usage"]})
    reply = msgpack.unpackb(client.post("/steps", content=asked, headers=MSGPACK).content)
    shapes = [[found and found["shape"] for found in came] for came in (reply["outputs"], reply["trace"]["usage"])]
    assert (reply["steps"], shapes[0]) == ([2, 2, None, 2], [[2, 8], [2, 8], None, [2, 9]])
    assert shapes[1][:3] == [[2, 32], [2, 5], None]


@pytest.mark.parametrize("as_array", [True, False])
def test_inputs_and_outputs_of_many_may_take_two_bytes(client, as_array):
    sessions, numbers = opened(client, 2), random_inputs(2, 3).astype("<i2") * 7
    rows = [{"shape": row.shape, "dtype": "int16", "scale": 2**-3, "data": row.tobytes()} for row in numbers]
    rows[1] = {"shape": [3, 10], "dtype": "float16", "data": (numbers[1] / 8).astype("<f2").tobytes()}
    array = {"shape": numbers.shape, "dtype": "int16", "scale": 2**-3, "data": numbers.tobytes()}
    asked = {"sessions": sessions, "inputs": array if as_array else rows, "dtype": "float16", "trace": ["usage"]}
    reply = msgpack.unpackb(client.post("/steps", content=msgpack.packb(asked), headers=MSGPACK).content)
    body = {"model": "dnc-copy", "inputs": (numbers / 8).tolist(), "trace": ["usage"]}
    expected = client.post("/infer", json=body).json()
    for came, same in ((reply["outputs"], expected["outputs"]), (reply["trace"]["usage"], expected["trace"]["usage"])):
        arrays = [came] if as_array else came
        assert {array["dtype"] for array in arrays} == {"float16"}
        assert b"".join(array["data"] for array in arrays) == np.float32(same).astype("<f2").tobytes()


def test_form_of_the_inputs_of_each_session_is_kept():
    rows = np.ones((2, 1, 10), "<i2")
    int16 = {"shape": [1, 10], "dtype": "int16", "scale": 0.5, "data": rows[0].tobytes()}
    for inputs, forms in (
        ([int16, [GOOD]], [Form("int16", 0.5), None]),
        (int16 | {"shape": [2, 1, 10], "data": rows.tobytes()}, [Form("int16", 0.5)] * 2),
        ({"shape": [2, 1, 10], "data": rows.astype("<f4").tobytes()}, [None] * 2),
    ):
        body = msgpack.packb({"sessions": ["a", "b"], "inputs": inputs})
        wanted = read_many(body, "engram.msgpack", ManyStepsRequest, 10, 10)
        assert (wanted.forms, {type(each) for each in wanted.inputs}) == (forms, {np.ndarray})


def test_answer_in_float16_is_refused_in_json(client):
    refused = client.post("/steps", json={"sessions": opened(client, 1), "inputs": [[GOOD]], "dtype": "float16"})
    assert (refused.status_code, refused.json()["place"]) == (422, "dtype")


def test_errors_of_sessions_are_their_own(client):
    sessions = opened(client, 4)
    client.delete(f"/sessions/{sessions[0]}").raise_for_status()
    asked = {"sessions": [*sessions, "nobody"], "inputs": [[GOOD]] * 5, "if_steps": [None, 0, 7, None, None]}
    reply = client.post("/steps", json=asked).json()
    assert [(error["index"], error["session"], error["code"]) for error in reply["errors"]] == [
        (0, sessions[0], "session_gone"),
        (2, sessions[2], "step_conflict"),
        (4, "nobody", "session_not_found"),
    ]
    assert (reply["steps"], reply["outputs"][0]) == ([None, 1, None, 1, None], None)
    assert where(client, sessions[1:]) == [1, 0, 1]


def test_session_that_is_named_twice_takes_its_steps_in_order(client):
    [session] = opened(client, 1)
    inputs = random_inputs(1, 4)[0].tolist()
    reply = client.post("/steps", json={"sessions": [session] * 3, "inputs": [inputs[:1], inputs[1:3], inputs[3:]]})
    outputs = [step for part in reply.json()["outputs"] for step in part]
    assert outputs == client.post("/infer", json={"model": "dnc-copy", "inputs": inputs}).json()["outputs"]
    assert reply.json()["steps"] == [1, 3, 4]


BAD = [
    ({"inputs": []}, "sessions"),
    ({"inputs": [[GOOD]] * 9, "sessions": ["x"] * 9}, "sessions"),
    ({"inputs": [[GOOD]] * 2, "if_steps": [0]}, "if_steps"),
    ({"inputs": [[GOOD]] * 2, "if_steps": [0, -1]}, "if_steps[1]"),
    ({"inputs": [[GOOD]] * 2, "seqs": [0, 0]}, "seqs"),
    ({"inputs": [[GOOD], [GOOD[:3]]]}, "inputs[1]"),
    ({"inputs": [[GOOD], []]}, "inputs[1]"),
    ({"inputs": [[GOOD], None]}, "inputs[1]"),
    ({"inputs": [[GOOD], [[None] * 10]]}, "inputs[1][0][0]"),
    ({"inputs": [[GOOD], [GOOD] * 501]}, "inputs[1]"),
    ({"inputs": [[GOOD]] * 2, "trace": ["mind"]}, "trace[0]"),
]


@pytest.mark.parametrize(("changes", "place"), BAD)
def test_bad_request_is_refused_and_steps_nothing(client, changes, place):
    sessions = opened(client, 2)
    asked = {"sessions": [] if changes == {"inputs": []} else sessions} | changes
    refused = client.post("/steps", json=asked)
    assert (refused.status_code, refused.json()["place"]) == (422, place)
    assert where(client, sessions) == [0, 0]


@pytest.mark.slow
def test_traces_of_all_sessions_together_are_bounded(few, data):
    with (
        running_server("--max-trace-bytes", "10000", data=data, checkpoints=few) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        sessions = opened(client, 3)
        asked = {"sessions": sessions, "inputs": [[GOOD]] * 3, "trace": ["usage"]}
        refused = client.post("/steps", json=asked | {"inputs": [[GOOD] * 27] * 3})
        assert (refused.status_code, refused.json()["place"]) == (422, "trace")
        assert where(client, sessions) == [0] * 3
        reply = client.post("/steps", json=asked | {"inputs": [[GOOD] * 26] * 3}).json()
    assert np.shape(reply["trace"]["usage"]) == (3, 26, 32)


@pytest.mark.slow
def test_more_sessions_than_fit_in_memory_are_stepped(few, data):
    with (
        running_server("--max-resident", "3", data=data, checkpoints=few) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        sessions = opened(client, 8)
        for step in (1, 2):
            reply = client.post("/steps", json={"sessions": sessions, "inputs": [[GOOD]] * 8}).json()
            assert (reply["steps"], reply["errors"]) == ([step] * 8, [])
