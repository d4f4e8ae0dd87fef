"""Streaming sessions over a real WebSocket."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.app.copying import answer, sequence
from tests.app.harness import Server, running_server

GOOD = [0.0] * 10


@contextmanager
def stream(server: Server, path: str, protocol: str | None = None) -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
    """Connect, and give the connection and its greeting."""
    offered = [Subprotocol(protocol)] if protocol else None
    with connect(server.socket_url + path, subprotocols=offered, max_size=None) as connection:
        yield connection, receive(connection)


def receive(connection: ClientConnection) -> dict[str, Any]:
    message = connection.recv(timeout=30)
    return dict(json.loads(message) if isinstance(message, str) else msgpack.unpackb(message))


def ask(connection: ClientConnection, **frame: Any) -> dict[str, Any]:
    connection.send(json.dumps(frame))
    return receive(connection)


def refusal(connection: ClientConnection) -> tuple[dict[str, Any], int]:
    """Return the error frame that comes next, and the code that the connection then closes with."""
    reply = receive(connection)
    assert reply["type"] == "error", reply
    with pytest.raises(ConnectionClosed):
        connection.recv(timeout=30)
    assert connection.close_code is not None
    return reply, connection.close_code


def test_stream_opens_a_session_and_copies(server):
    inputs, vectors = sequence(10, seed=5)
    with stream(server, "/stream?model=dnc-copy") as (connection, greeting):
        assert (greeting["type"], greeting["model"], greeting["step"], greeting["seq"]) == (
            "session",
            "dnc-copy",
            0,
            None,
        )
        outputs = []
        for seq, step in enumerate(inputs):
            result = ask(connection, seq=seq, inputs=[step])
            assert (result["type"], result["seq"], result["step"]) == ("result", seq, seq + 1)
            outputs += result["outputs"]
    assert answer(outputs) == vectors


def test_stream_binary_equals_json(server):
    inputs, _ = sequence(4, seed=2)
    with stream(server, "/stream?model=ntm-copy") as (connection, _):
        expected = ask(connection, seq=0, inputs=inputs, trace=["read_weights"])
    with stream(server, "/stream?model=ntm-copy", "engram.msgpack") as (connection, greeting):
        assert (connection.subprotocol, greeting["type"]) == ("engram.msgpack", "session")
        raw = {"shape": [10, 10], "data": np.array(inputs, "<f4").tobytes()}
        connection.send(msgpack.packb({"seq": 0, "inputs": raw, "trace": ["read_weights"]}))
        result = receive(connection)
    outputs = np.frombuffer(result["outputs"]["data"], "<f4").reshape(result["outputs"]["shape"])
    weights = result["trace"]["read_weights"]
    assert outputs.tolist() == [pytest.approx(step, abs=1e-5) for step in expected["outputs"]]
    assert (weights["shape"], len(weights["data"])) == ([10, 1, 128], 4 * 10 * 128)


def test_stream_json_subprotocol_is_agreed_on(server):
    with stream(server, "/stream?model=dnc-copy", "engram.json") as (connection, _):
        assert connection.subprotocol == "engram.json"


def test_stream_resumes_after_a_drop(server):
    inputs, vectors = sequence(6, seed=8)
    with stream(server, "/stream?model=dnc-copy") as (connection, greeting):
        outputs = ask(connection, seq=7, inputs=inputs[:5])["outputs"]
        connection.socket.close()
    with stream(server, f"/sessions/{greeting['session']}/stream") as (connection, again):
        assert (again["session"], again["step"], again["seq"]) == (greeting["session"], 5, 7)
        outputs += ask(connection, seq=8, inputs=inputs[5:])["outputs"]
    assert answer(outputs) == vectors


def test_stream_frame_sent_again_is_carried_out_once(server):
    inputs, _ = sequence(3, seed=4)
    with stream(server, "/stream?model=dnc-copy") as (connection, _):
        reply = [ask(connection, seq=0, inputs=inputs[:2]), ask(connection, seq=1, inputs=inputs[2:])]
        assert ask(connection, seq=1, inputs=inputs[2:]) == reply[1]
        assert ask(connection, seq=0, inputs=inputs[:2]) == reply[0]


def test_stream_frame_before_a_reset_has_no_answer_any_more(server):
    with stream(server, "/stream?model=dnc-copy") as (connection, greeting):
        ask(connection, seq=4, inputs=[GOOD])
        httpx.post(f"{server.url}/sessions/{greeting['session']}/reset").raise_for_status()
        assert ask(connection, seq=8, inputs=[GOOD, GOOD])["step"] == 2
        earlier = ask(connection, seq=4, inputs=[GOOD])
    assert earlier == {"type": "result", "seq": 4, "step": 2, "duplicate": True}


def test_stream_frame_that_leaves_one_out_is_refused(server):
    with stream(server, "/stream?model=dnc-copy") as (connection, greeting):
        ask(connection, seq=0, inputs=[GOOD])
        connection.send(json.dumps({"seq": 2, "inputs": [GOOD]}))
        reply, code = refusal(connection)
    assert (reply["code"], reply["expected"], reply["step"], code) == ("sequence_conflict", "1", 1, 4409)
    assert httpx.get(f"{server.url}/sessions/{greeting['session']}").json()["step"] == 1


BAD_FRAMES = {
    "not JSON": ("{", "malformed_body", None, 4400),
    "not an object": ("[1]", "malformed_body", None, 4400),
    "binary": (b"{}", "malformed_body", None, 4400),
    "no inputs": ('{"seq": 0}', "invalid_request", "inputs", 4422),
    "unknown key": ('{"input": [[0]]}', "invalid_request", None, 4422),
    "bad seq": ('{"seq": "0", "inputs": [[0]]}', "invalid_request", "seq", 4422),
    "wrong width": ('{"inputs": [[0, 1]]}', "invalid_input", "inputs[0]", 4422),
    "NaN": (f'{{"inputs": [[NaN, {"0, " * 8} 0]]}}', "invalid_input", "inputs[0][0]", 4422),
    "strings": (f'{{"inputs": [["1", {"0, " * 8} 0]]}}', "invalid_input", "inputs[0][0]", 4422),
    "unknown trace": (json.dumps({"inputs": [GOOD], "trace": ["gate"]}), "unknown_name", "trace[0]", 4422),
    "too long": (json.dumps({"inputs": [GOOD] * 501}), "invalid_input", "inputs", 4422),
    "half a character": ('{"inputs": [[0]], "trace": ["\\ud800"]}', "malformed_body", None, 4400),
    "seq beyond 64 bits": (json.dumps({"seq": 2**70, "inputs": [GOOD]}), "invalid_request", "seq", 4422),
    "deep": ('{"seq": ' + "[" * 900 + "]" * 900 + ', "inputs": [[0]]}', "invalid_request", "seq", 4422),
    "over the limit in bytes": ("€" * 70_000, "body_too_large", None, 1009),
    "over the limit": (json.dumps({"inputs": [GOOD] * 4_500}), "body_too_large", None, 1009),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_stream_bad_frame_is_refused_and_the_session_lives_on(server, case):
    frame, problem_code, place, close_code = BAD_FRAMES[case]
    with stream(server, "/stream?model=dnc-copy") as (connection, greeting):
        connection.send(frame)
        reply, code = refusal(connection)
    assert (reply["code"], code) == (problem_code, close_code)
    if place:
        assert reply["place"] == place
    with stream(server, f"/sessions/{greeting['session']}/stream") as (connection, again):
        assert again["step"] == 0
        assert ask(connection, seq=0, inputs=[GOOD])["step"] == 1


@pytest.mark.parametrize(
    "frame",
    [
        b"\xc1",
        msgpack.packb([1]),
        msgpack.packb({"inputs": {"shape": [2, 10], "data": b"\0" * 40}}),
        msgpack.packb({"inputs": {"shape": [-1, 10], "data": b""}}),
        msgpack.packb({"inputs": {"shape": "ab", "data": b""}}),
        msgpack.packb({"inputs": {"shape": [1, 10], "data": "text"}}),
        msgpack.packb({"inputs": {"shape": [], "data": bytes(4)}}),
        msgpack.packb({"inputs": {"shape": [True, 1], "data": bytes(4)}}),
        msgpack.packb({b"inputs": [[0]]}),
    ],
)
def test_stream_bad_binary_frame_is_refused(server, frame):
    with stream(server, "/stream?model=dnc-copy", "engram.msgpack") as (connection, _):
        connection.send(frame)
        reply, code = refusal(connection)
    assert (reply["code"], code) == ("malformed_body", 4400)


def test_stream_binary_inputs_are_checked_as_json_is(server):
    with stream(server, "/stream?model=dnc-copy", "engram.msgpack") as (connection, _):
        numbers = [0.0] * 9 + [float("nan")]
        connection.send(msgpack.packb({"inputs": {"shape": [1, 10], "data": struct.pack("<10f", *numbers)}}))
        reply, _ = refusal(connection)
    assert (reply["code"], reply["place"]) == ("invalid_input", "inputs[0][9]")


@pytest.mark.parametrize(
    ("path", "problem_code", "close_code"),
    [
        ("/stream", "invalid_request", 4422),
        ("/stream?model=nobody", "model_not_found", 4404),
        ("/sessions/nobody/stream", "session_not_found", 4404),
        ("/somewhere/else", "not_found", 4404),
    ],
)
def test_stream_of_nothing_is_refused(server, path, problem_code, close_code):
    with connect(server.socket_url + path) as connection:
        reply, code = refusal(connection)
    assert (reply["code"], code) == (problem_code, close_code)


def test_stream_of_a_deleted_session_gets_an_error(server):
    with stream(server, "/stream?model=dnc-copy") as (connection, greeting):
        httpx.delete(f"{server.url}/sessions/{greeting['session']}").raise_for_status()
        reply, code = refusal(connection)
    assert (reply["code"], reply["reason"], code) == ("session_gone", "deleted", 4410)
    with connect(f"{server.socket_url}/sessions/{greeting['session']}/stream") as connection:
        assert refusal(connection)[1] == 4410


def test_two_streams_of_one_session_take_turns(server):
    with stream(server, "/stream?model=dnc-copy") as (first, greeting):
        path = f"/sessions/{greeting['session']}/stream"
        with stream(server, path) as (second, _):
            reached = [ask(connection, inputs=[GOOD] * 3)["step"] for connection in (first, second, first)]
    assert reached == [3, 6, 9]


def test_client_gone_in_mid_sequence_leaves_a_usable_session(server):
    with stream(server, "/stream?model=dnc-copy") as (connection, greeting):
        connection.send(json.dumps({"seq": 0, "inputs": [GOOD] * 400}))
        # Gone without a farewell: the connection is reset
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.close()
    with stream(server, f"/sessions/{greeting['session']}/stream") as (connection, again):
        assert (again["step"], again["seq"]) in ((400, 0), (0, None))
        following = 0 if again["seq"] is None else 1
        assert ask(connection, seq=following, inputs=[GOOD])["step"] == again["step"] + 1


def test_client_gone_in_mid_inference_frees_its_place(server):
    body = json.dumps({"model": "dnc-copy", "inputs": [[GOOD] * 400] * 8})
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        head = f"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/json\r\n\r\n"
        raw.sendall((head + body).encode())
        time.sleep(0.05)
    deadline = time.monotonic() + 20
    while 'engram_sequences{model="dnc-copy"} 0.0' not in httpx.get(f"{server.url}/metrics").text:
        assert time.monotonic() < deadline, "the sequences of a client that is gone are still in work"
        time.sleep(0.05)


def test_stream_of_an_expired_session_gets_an_error(data):
    with running_server("--idle-timeout", "0.6", data=data) as server:
        with stream(server, "/stream?model=dnc-copy") as (connection, greeting):
            reply, code = refusal(connection)
        gone = httpx.post(f"{server.url}/sessions/{greeting['session']}/steps", json={"inputs": [GOOD]})
    assert (reply["code"], reply["reason"], code) == ("session_gone", "expired", 4410)
    assert (gone.status_code, gone.json()["reason"]) == (410, "expired")


def two_bytes(steps: int, dtype: str, **more: Any) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return inputs of a dtype as they are sent, and the same as float32."""
    numbers = np.random.default_rng(0).integers(-900, 900, (steps, 10)).astype(dtype)
    sent = {"shape": [steps, 10], "dtype": numbers.dtype.name, "data": numbers.tobytes(), **more}
    return sent, numbers.astype(np.float32) * np.float32(more.get("scale", 1))


@pytest.mark.parametrize(
    ("sent", "same"), [two_bytes(5, "<f2"), two_bytes(5, "<i2", scale=2**-10), two_bytes(5, "<i2", scale=0.0007)]
)
def test_inputs_of_two_bytes_equal_float32_after_kill_rewind_fork(data, sent, same):
    def asked(server: Server, session: str, inputs: Any) -> list[bytes]:
        with stream(server, f"/sessions/{session}/stream", "engram.msgpack") as (connection, _):
            connection.send(msgpack.packb({"inputs": inputs, "trace": ["usage"]}))
            answer = receive(connection)
        return [answer["outputs"]["data"], answer["trace"]["usage"]["data"]]

    def opened(server: Server, path: str, **document: Any) -> str:
        return str(httpx.post(f"{server.url}/sessions{path}", json=document).raise_for_status().json()["id"])

    ways = [sent, {"shape": [5, 10], "data": same.tobytes()}]
    with running_server(data=data) as server:
        sessions = [opened(server, "", model="dnc-copy") for _ in ways]
        first = [asked(server, *each) for each in zip(sessions, ways, strict=True)]
        server.process.kill()
        server.process.wait()
    with running_server(data=data) as server:
        recordings = [httpx.get(f"{server.url}/sessions/{session}/recording").text for session in sessions]
        forks = [opened(server, f"/{session}/fork", step=2) for session in sessions]
        for session in sessions:
            httpx.post(f"{server.url}/sessions/{session}/rewind", json={"step": 3}).raise_for_status()
        again = [asked(server, *each) for each in zip(sessions, ways, strict=True)]
        forked = [asked(server, *each) for each in zip(forks, ways, strict=True)]
    assert first[0] == first[1]
    assert recordings[0] == recordings[1]
    assert np.float32([json.loads(line)["inputs"] for line in recordings[0].splitlines()]).tolist() == same.tolist()
    assert again[0] == again[1]
    assert forked[0] == forked[1]
    assert len({*map(tuple, first), *map(tuple, again), *map(tuple, forked)}) == 3


def test_frame_may_ask_for_its_answer_in_float16(server):
    inputs, _ = sequence(2)
    frames = [{"inputs": inputs, "trace": ["usage"], **more} for more in ({}, {"dtype": "float16"})]
    answers = []
    for frame in frames:
        with stream(server, "/stream?model=dnc-copy", "engram.msgpack") as (connection, _):
            connection.send(msgpack.packb(frame))
            answers.append(receive(connection))
    full, half = answers
    for wide, narrow in ((full["outputs"], half["outputs"]), (full["trace"]["usage"], half["trace"]["usage"])):
        numbers = np.frombuffer(wide["data"], "<f4").astype("<f2")
        assert narrow == {"shape": wide["shape"], "dtype": "float16", "data": numbers.tobytes()}


def test_repeated_frame_is_answered_in_its_own_dtype(server):
    sent, _ = two_bytes(2, "<f2")
    with stream(server, "/stream?model=dnc-copy", "engram.msgpack") as (connection, _):
        came = []
        for more in ({}, {"dtype": "float16"}, {"dtype": "float32"}):
            connection.send(msgpack.packb({"seq": 0, "inputs": sent, **more}))
            came.append(receive(connection)["outputs"])
    assert [array.get("dtype") for array in came] == [None, "float16", None]
    assert came[2] == came[0]


def test_answers_in_float16_are_refused_to_frames_of_json(server):
    with stream(server, "/stream?model=dnc-copy") as (connection, _):
        connection.send(json.dumps({"inputs": [GOOD], "dtype": "float16"}))
        reply, close_code = refusal(connection)
    assert (reply["code"], reply["place"], close_code) == ("invalid_request", "dtype", 4422)
