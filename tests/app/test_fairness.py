"""Large requests do not delay sessions of other models: they are decoded and answered beside their steps."""

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from app.api.codec import PIECE_BYTES
from app.api.recording import piece_lines
from app.engine.run import Result
from app.sessions.past import Piece
from tests.app.copying import sequence
from tests.app.harness import Server, running_server

pytestmark = pytest.mark.slow

BODY = 8 * 2**20 - 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Server]:
    """A server with the default limits."""
    with running_server(data=tmp_path_factory.mktemp("fair") / "data", checkpoints=few) as server:
        yield server


def filled(item: str) -> str:
    """Return a JSON list of as many items as fit into a request body."""
    return f"[{','.join([item] * ((BODY - 300) // (len(item) + 1)))}]"


def post(server: Server, body: str, sent: threading.Event) -> int:
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=120)) as connection:
        connection.request("POST", "/infer", body, {"Content-Type": "application/json"})
        sent.set()
        return connection.getresponse().status


def send_frame(server: Server, frame: str, sent: threading.Event) -> int:
    with connect(f"{server.socket_url}/stream?model=dnc-copy", compression=None) as socket:
        socket.recv()
        socket.send(frame)
        sent.set()
        return int(json.loads(socket.recv())["status"])


ZEROS = f"[{','.join('0' * 10)}]"
REQUESTS: dict[str, tuple[Callable[[Server, str, threading.Event], int], str]] = {
    "names that are numbers": (post, f'{{"model":"dnc-copy","inputs":[{ZEROS}],"trace":{filled("1")}}}'),
    "empty steps": (post, f'{{"model":"dnc-copy","inputs":{filled("[]")}}}'),
    "objects": (post, f'{{"model":"dnc-copy","inputs":{filled("{}")}}}'),
    "NaN": (post, f'{{"model":"dnc-copy","inputs":{filled(ZEROS)[:-3]}NaN]]}}'),
    "a frame of empty steps": (send_frame, f'{{"inputs":{filled("[]")}}}'),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_other_models_step_while_a_large_request_is_answered(server, case):
    send, body = REQUESTS[case]
    inputs, _ = sequence(20)
    statuses: list[int] = []
    sent, meanwhile = threading.Event(), 0
    attacker = threading.Thread(target=lambda: statuses.append(send(server, body, sent)))
    with connect(f"{server.socket_url}/stream?model=lstm-copy", compression=None) as socket:
        socket.recv()
        attacker.start()
        outputs, steps = [], 0
        while attacker.is_alive():
            socket.send(json.dumps({"inputs": [inputs[steps % len(inputs)]]}))
            outputs += json.loads(socket.recv())["outputs"]
            steps += 1
            meanwhile += sent.is_set()
    assert statuses in ([422], [400])
    assert meanwhile > 3  # where the event loop reads the body itself, it is one or two
    alone = {"model": "lstm-copy", "inputs": [inputs[step % len(inputs)] for step in range(min(steps, 1000))]}
    assert outputs[:1000] == httpx.post(f"{server.url}/infer", json=alone, timeout=60).json()["outputs"]


def test_large_answers_are_sent_in_pieces_and_whole(server):
    inputs, _ = sequence(20)
    request = {"model": "dnc-copy", "inputs": [inputs] * 100, "trace": ["usage", "read_weights"]}
    response = httpx.post(f"{server.url}/infer", json=request, timeout=60)
    assert "content-length" not in response.headers
    answer = response.json()
    alone = httpx.post(f"{server.url}/infer", json=request | {"inputs": inputs}, timeout=60).json()
    assert answer["steps"] == [len(inputs)] * 100
    assert all(outputs == alone["outputs"] for outputs in answer["outputs"])
    assert all(usage == alone["trace"]["usage"] for usage in answer["trace"]["usage"])


def test_large_frame_is_answered_as_the_same_sequence_over_http(server):
    inputs, _ = sequence(500)
    request = {"inputs": inputs, "trace": ["usage", "read_weights"]}
    with connect(f"{server.socket_url}/stream?model=dnc-copy", compression=None, max_size=None) as socket:
        socket.recv()
        socket.send(json.dumps(request))
        answer = socket.recv()
    assert len(answer) > 4 * PIECE_BYTES
    expected = httpx.post(f"{server.url}/infer", json=request | {"model": "dnc-copy"}, timeout=60).json()
    assert {name: json.loads(answer)[name] for name in ("outputs", "trace")} == {
        name: expected[name] for name in ("outputs", "trace")
    }


def test_frames_are_not_compressed(server):
    with connect(f"{server.socket_url}/stream?model=dnc-copy") as socket:
        assert socket.protocol.extensions == []


def test_recording_is_written_a_few_lines_at_a_time():
    steps = 3 * PIECE_BYTES // 4000
    piece = Piece(0, np.zeros((steps, 10), "f4"), Result(np.zeros((steps, 10), "f4"), {}), [None] * steps)
    large = piece._replace(result=Result(piece.result.outputs, {"usage": np.zeros((steps, 980), "f4")}))
    assert len(list(piece_lines(piece))) == 1
    assert len(list(piece_lines(large))) == 4
    lines = b"".join(piece_lines(large)).splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, steps + 1))


def test_killed_server_ends_its_decoders(data, few):
    with running_server(data=data, checkpoints=few) as server:
        assert post(server, f'{{"model":"dnc-copy","inputs":{filled("1")}}}', threading.Event()) == 422
        children = children_of(server.process.pid)
        assert children
        server.stop(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while any(is_running(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(is_running(child) for child in children)


def children_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
        return "(zombie)" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def session_at(client: httpx.Client, session: str) -> Any:
    return client.get(f"/sessions/{session}").json()["step"]


def test_frame_with_too_large_traces_is_refused(server):
    frame = {"inputs": [[0.0] * 10] * 9000, "trace": ["usage", "read_weights", "write_weights", "allocation_weights"]}
    with connect(f"{server.socket_url}/stream?model=dnc-copy", compression=None) as socket:
        session = json.loads(socket.recv())["session"]
        socket.send(json.dumps(frame))
        refusal = json.loads(socket.recv())
    assert (refusal["place"], refusal["expected"]) == ("trace", "at most 4194304 bytes")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert session_at(client, session) == 0
        assert client.post(f"/sessions/{session}/steps", json=frame).json()["step"] == 9000


def test_repeated_frame_with_too_large_traces_is_refused(server):
    first = {"inputs": [[0.0] * 10] * 9000, "seq": 0}
    again = {
        "inputs": [[0.0] * 10],
        "seq": 0,
        "trace": ["usage", "read_weights", "write_weights", "allocation_weights"],
    }
    with connect(f"{server.socket_url}/stream?model=dnc-copy", compression=None, max_size=None) as socket:
        socket.recv()
        socket.send(json.dumps(first))
        assert json.loads(socket.recv())["step"] == 9000
        socket.send(json.dumps(again))
        assert json.loads(socket.recv())["place"] == "trace"
