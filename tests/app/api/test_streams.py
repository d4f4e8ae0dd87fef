"""Many sessions over one real WebSocket."""

import gzip
import json
import runpy
from pathlib import Path
from typing import Any, Literal, get_args

import httpx
import msgpack
import numpy as np
import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from websockets.sync.client import ClientConnection, connect

from app.api.frames import STREAM_FRAMES, STREAMS_FRAMES
from app.api.routes import streams
from tests.app.api.test_stream import receive, refusal, stream
from tests.app.harness import ROOT, running_server

GOOD = [0.0] * 10
TOKENS = "dnc-babi"


def ask(connection: ClientConnection, **frame: Any) -> dict[str, Any]:
    connection.send(json.dumps(frame))
    return receive(connection)


def random_inputs(sessions: int, steps: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 2, (sessions, steps, 10)).astype("<f4")


def inferred(server: Any, model: str, inputs: Any) -> list[list[float]]:
    answer = httpx.post(f"{server.url}/infer", json={"model": model, "inputs": inputs})
    outputs: list[list[float]] = answer.json()["outputs"]
    return outputs


def test_sessions_of_one_socket_give_what_infer_does(server):
    inputs = random_inputs(5, 6).tolist()
    with stream(server, "/streams") as (connection, greeting):
        assert (greeting["type"], "dnc-copy" in greeting["models"]) == ("streams", True)
        opened = ask(connection, model="dnc-copy", count=3)
        assert [session["step"] for session in opened["sessions"]] == [0] * 3
        assert ask(connection, model="ntm-copy", count=2)["first"] == 3
        parts = [
            ask(connection, sessions=[*range(5)], inputs=[sequence[first:last] for sequence in inputs])
            for first, last in ((0, 1), (1, 4), (4, 6))
        ]
    assert [part["steps"] for part in parts] == [[1] * 5, [4] * 5, [6] * 5]
    assert all(part["errors"] == [] for part in parts)
    for number, sequence in enumerate(inputs):
        outputs = [step for part in parts for step in part["outputs"][number]]
        assert outputs == inferred(server, "dnc-copy" if number < 3 else "ntm-copy", sequence)


def test_binary_frame_is_one_array_each_way(server):
    inputs = random_inputs(4, 3)
    with stream(server, "/streams", "engram.msgpack") as (connection, _):
        connection.send(msgpack.packb({"model": "dnc-copy", "count": 4}))
        receive(connection)
        raw = {"shape": [4, 3, 10], "data": inputs.tobytes()}
        connection.send(msgpack.packb({"sessions": [3, 1, 0, 2], "inputs": raw, "trace": ["usage"]}))
        answer = receive(connection)
    assert (answer["outputs"]["shape"], answer["trace"]["usage"]["shape"]) == ([4, 3, 8], [4, 3, 32])
    outputs = np.frombuffer(answer["outputs"]["data"], "<f4").reshape(4, 3, 8)
    for row in range(4):
        assert outputs[row].tolist() == np.float32(inferred(server, "dnc-copy", inputs[row].tolist())).tolist()


def test_binary_frame_of_two_byte_numbers_equals_one_of_four(server):
    inputs = random_inputs(2, 3)
    arrays = [{"shape": [2, 3, 10], "data": inputs.tobytes()}]
    arrays += [{"shape": [2, 3, 10], "dtype": "float16", "data": inputs.astype("<f2").tobytes()}]
    arrays += [{"shape": [2, 3, 10], "dtype": "int16", "data": inputs.astype("<i2").tobytes()}]
    answers = []
    for raw in arrays:
        with stream(server, "/streams?model=dnc-copy&count=2", "engram.msgpack") as (connection, _):
            for dtype in ("float32", "float16"):
                connection.send(msgpack.packb({"sessions": [0, 1], "inputs": raw, "dtype": dtype}))
                answers.append(receive(connection)["outputs"])
    assert answers[2:4] == answers[4:] == answers[:2]
    assert [array.get("dtype") for array in answers[:2]] == [None, "float16"]


def test_error_of_a_session_leaves_others_and_the_socket(server):
    with stream(server, "/streams") as (connection, _):
        opened = ask(connection, model="dnc-copy", count=3)["sessions"]
        httpx.delete(f"{server.url}/sessions/{opened[1]['session']}").raise_for_status()
        reply = ask(connection, sessions=[0, 1, 2], inputs=[[GOOD], [GOOD], [GOOD, GOOD]], seqs=[0, 0, None])
        assert (reply["steps"], reply["outputs"][1]) == ([1, None, 2], None)
        [error] = reply["errors"]
        assert (error["index"], error["session"], error["code"]) == (1, 1, "session_gone")
        reply = ask(connection, sessions=[2, 0, 0], inputs=[[GOOD]] * 3, seqs=[None, 2, 1])
        assert (reply["steps"], [error["code"] for error in reply["errors"]]) == ([3, None, 2], ["sequence_conflict"])


def test_frame_that_comes_again_steps_no_session_twice(server):
    frame = {"sessions": [0, 1], "inputs": [[GOOD]] * 2, "seqs": [0, 0]}
    with stream(server, "/streams") as (connection, _):
        opened = ask(connection, model="dnc-copy", count=2)["sessions"]
        first = ask(connection, **frame)
        assert ask(connection, **frame) == first
    with stream(server, "/streams") as (connection, _):
        again = ask(connection, open=[session["session"] for session in opened])
        assert [(session["step"], session["seq"]) for session in again["sessions"]] == [(1, 0)] * 2
        assert ask(connection, **frame) == first


def test_sessions_may_be_opened_by_the_url(server):
    frame = {"sessions": [0, 1], "inputs": [[GOOD]] * 2}
    with stream(server, "/streams?model=dnc-copy&count=2&memory_size=8") as (connection, greeting):
        assert [(session["memory_size"], session["step"]) for session in greeting["sessions"]] == [(8, 0)] * 2
        first = ask(connection, **frame)
    names = ",".join(session["session"] for session in greeting["sessions"])
    with stream(server, f"/streams?open={names}") as (connection, greeting):
        assert [session["step"] for session in greeting["sessions"]] == [1] * 2
        assert ask(connection, **frame)["steps"] == [2] * 2
    assert first["steps"] == [1] * 2


@pytest.mark.parametrize(
    ("query", "place"), [("open=nobody", "session"), ("model=x", "model"), ("model=dnc-copy&count=0", "count")]
)
def test_sessions_that_the_url_cannot_have_are_refused(server, query, place):
    with connect(f"{server.socket_url}/streams?{query}") as connection:
        reply, _ = refusal(connection)
    assert reply["place"] == place


def test_inputs_of_different_lengths_and_widths(server):
    with stream(server, "/streams") as (connection, _):
        ask(connection, model="dnc-copy", count=2)
        ask(connection, model=TOKENS)
        reply = ask(connection, sessions=[0, 1, 2], inputs=[[GOOD], [GOOD] * 3, [3, 1, 2]])
    assert [len(outputs) for outputs in reply["outputs"]] == [1, 3, 3]


BAD = [
    ({"sessions": [0], "inputs": []}, "inputs"),
    ({"sessions": [], "inputs": []}, "sessions"),
    ({"sessions": [0, 1], "inputs": [[GOOD]]}, "inputs"),
    ({"sessions": [0], "inputs": 7}, "inputs"),
    ({"sessions": [0], "inputs": [[GOOD]], "seqs": []}, "seqs"),
    ({"sessions": [0], "inputs": [[GOOD]], "seqs": [-1]}, "seqs[0]"),
    ({"sessions": [9], "inputs": [[GOOD]]}, "sessions[0]"),
    ({"sessions": ["x"], "inputs": [[GOOD]]}, "sessions[0]"),
    ({"sessions": [0], "inputs": [[[1, 2]]]}, "inputs[0]"),
    ({"sessions": [0], "inputs": [[1, 2]]}, "inputs[0]"),
    ({"sessions": [0, 1], "inputs": [[GOOD], [[*GOOD[:9], "x"]]]}, "inputs[1][0][9]"),
    ({"sessions": [0, 1], "inputs": [[GOOD], [GOOD, GOOD[:9]]]}, "inputs[1][1]"),
    ({"sessions": [0], "inputs": [[GOOD]], "trace": ["mind"]}, "trace[0]"),
    ({"sessions": [0], "inputs": [[GOOD]], "extra": 1}, "extra"),
    ({"model": "dnc-copy", "open": ["x"]}, "open"),
    ({}, "open"),
    ({"model": "dnc-copy", "count": 10**6}, "open"),
    ({"model": "nobody"}, "model"),
    ({"sessions": [2], "inputs": [[10**6]]}, "inputs[0][0][0]"),
]


@pytest.mark.parametrize(("frame", "place"), BAD)
def test_bad_frame_is_refused_and_steps_nothing(server, frame, place):
    with stream(server, "/streams") as (connection, _):
        opened = ask(connection, model="dnc-copy", count=2)["sessions"]
        ask(connection, model=TOKENS)
        connection.send(json.dumps(frame))
        reply, _ = refusal(connection)
    assert reply["place"] == place
    steps = [httpx.get(f"{server.url}/sessions/{session['session']}").json()["step"] for session in opened]
    assert steps == [0, 0]


@pytest.mark.parametrize("shape", [[2, 10], [2, 0, 10], [1, 1, 10], [2, 1, 9], [2, 20_000, 1]])
def test_bad_array_is_refused(server, shape):
    with stream(server, "/streams", "engram.msgpack") as (connection, _):
        connection.send(msgpack.packb({"model": "dnc-copy", "count": 2}))
        receive(connection)
        raw = {"shape": shape, "data": bytes(4 * int(np.prod(shape)))}
        connection.send(msgpack.packb({"sessions": [0, 1], "inputs": raw}))
        reply, close_code = refusal(connection)
    assert (reply["place"][:6], close_code) == ("inputs", 4422)


def test_array_with_a_nan_names_its_place(server):
    inputs = random_inputs(2, 2)
    inputs[1, 0, 3] = np.nan
    with stream(server, "/streams", "engram.msgpack") as (connection, _):
        connection.send(msgpack.packb({"model": "dnc-copy", "count": 2}))
        receive(connection)
        connection.send(msgpack.packb({"sessions": [0, 1], "inputs": {"shape": [2, 2, 10], "data": inputs.tobytes()}}))
        reply, _ = refusal(connection)
    assert (reply["place"], reply["got"]) == ("inputs[1][0][3]", "nan")


def test_sessions_are_where_they_were_after_a_kill(data):
    frame = {"sessions": [0, 1, 2], "inputs": random_inputs(3, 2).tolist()}
    with running_server(data=data) as server:
        with stream(server, "/streams") as (connection, _):
            opened = ask(connection, model="dnc-copy", count=3)["sessions"]
            first = ask(connection, **frame)
        server.process.kill()
        server.process.wait()
    with running_server(data=data) as server, stream(server, "/streams") as (connection, _):
        again = ask(connection, open=[session["session"] for session in opened])
        assert [session["step"] for session in again["sessions"]] == [2] * 3
        second = ask(connection, **frame)
        expected = [inferred(server, "dnc-copy", 2 * inputs) for inputs in frame["inputs"]]
    assert [first["outputs"][row] + second["outputs"][row] for row in range(3)] == expected


def test_frames_are_those_of_the_schemas(server):
    with stream(server, "/streams?model=dnc-copy&count=1") as (connection, greeting):
        opened = ask(connection, model="dnc-copy", count=2, force={"write_gate": [0.0]})
        results = [ask(connection, sessions=[0, 1], inputs=[[GOOD]] * 2, trace=["usage"], seqs=[0, 0])]
        httpx.delete(f"{server.url}/sessions/{opened['sessions'][1]['session']}")
        httpx.post(f"{server.url}/sessions/{greeting['sessions'][0]['session']}/reset")
        results.append(ask(connection, sessions=[2, 1], inputs=[[GOOD]] * 2))
        error = ask(connection, sessions=[9], inputs=[[GOOD]])
    with stream(server, f"/sessions/{opened['sessions'][0]['session']}/stream") as (connection, hello):
        result = ask(connection, seq=1, inputs=[GOOD], trace=["usage"])
    assert results[1]["errors"][0]["session"] == 2
    frames = {"streams": greeting, "sessions": opened, "error": error, "session": hello, "result": result}
    schemas = {frame.model_fields["type"].annotation: frame for frame in reversed((*STREAM_FRAMES, *STREAMS_FRAMES))}
    found = [*frames.items(), *(("results", frame) for frame in results)]
    for kind, frame in found:
        parsed = schemas[Literal[kind]].model_validate(frame)
        assert parsed.model_dump(exclude_unset=True) == frame
    assert {kind for kind, _ in found} == {get_args(annotation)[0] for annotation in schemas}


def test_types_for_pages_are_those_of_the_schemas():
    script = runpy.run_path(str(ROOT / "scripts/typescript"))
    assert script["FILE"].read_text() == script["document"]()


def test_asyncapi_document_is_that_of_the_schemas_and_valid():
    """`asyncapi-3.0.0.json.gz` is the schema of AsyncAPI 3.0.0, by the AsyncAPI Initiative, Apache License 2.0."""
    script = runpy.run_path(str(ROOT / "scripts/asyncapi"))
    assert script["FILE"].read_text() == script["text"]()
    document = script["document"]()
    schema = json.loads(gzip.decompress((Path(__file__).parent / "asyncapi-3.0.0.json.gz").read_bytes()))
    Draft7Validator(schema).validate(document)
    for message in document["components"]["messages"].values():
        of = {"$ref": message["payload"]["$ref"], "components": document["components"]}
        for example in message.get("examples", ()):
            Draft202012Validator(of).validate(example["payload"])
    paths = {route.path for route in streams.router.routes}  # those of plain requests to a WebSocket
    assert {channel["address"] for channel in document["channels"].values()} == paths
