"""What clients make a server hold is bounded, whatever they do: real servers, and their resident memory."""

import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.app.harness import Server, running_server
from tests.app.resident import MB, ask, ask_again, budget, resident, status, traced
from tests.waiting import until

HIGH_WATER = 65_536
"""Bytes of a connection that may wait to be written before the server writes no more."""

LIMITS = {"answer": 8 * MB, "queue": 8 * MB, "upload": 4 * MB, "memory": 12 * MB}


@pytest.fixture
def server(data: Path, few: Path) -> Iterator[Server]:
    """A server with small budgets."""
    limits = [word for name, limit in LIMITS.items() for word in (f"--max-{name}-bytes", str(limit))]
    with running_server(*limits, data=data, checkpoints=few) as server:
        yield server


def refused(server: Server, method: str, path: str, **more: Any) -> tuple[int, str, str]:
    headers = {"Content-Type": "application/json"}
    answer = httpx.request(method, f"{server.url}{path}", timeout=60, headers=headers, **more)
    return answer.status_code, answer.json().get("code", ""), answer.headers.get("retry-after", "")


def test_answers_that_nobody_reads_are_refused_beyond_the_budget(server):
    body, before = traced(server, "dnc-copy", 3 * MB), resident(server)
    with ExitStack() as open_sockets:
        clients = [open_sockets.enter_context(ask(server, "POST", "/infer", body)) for _ in range(30)]
        statuses = [status(client) for client in clients]
        assert refused(server, "POST", "/infer", content=body) == (503, "answers_full", "1")
        assert statuses.count(503) > statuses.count(200) >= 2
        assert resident(server) - before < 60 * MB
    until(lambda: budget(server, "answers") == budget(server, "queue") == 0)


@pytest.mark.parametrize("subprotocol", ["engram.json", "engram.msgpack"])
def test_large_answer_to_a_frame_comes_as_the_client_reads(server, subprotocol):
    """It comes in fragments; a client that reads none of them costs the server no more than the numbers."""
    url, binary = f"{server.socket_url}/stream?model=dnc-copy", subprotocol == "engram.msgpack"
    inputs = np.random.default_rng(1).integers(0, 2, (1500, 10)).tolist()
    frame = {"inputs": inputs, "trace": ["read_weights", "usage"]}
    with connect(url, compression=None, max_size=None, subprotocols=[Subprotocol(subprotocol)]) as socket:
        socket.recv()
        socket.send(msgpack.packb(frame) if binary else json.dumps(frame))
        parts = list(socket.recv_streaming(decode=False))
        until(lambda: budget(server, "answers") == 0)
    answer = msgpack.unpackb(b"".join(parts)) if binary else json.loads(b"".join(parts))
    asked = {"model": "dnc-copy", **frame}
    expected = httpx.post(f"{server.url}/infer", json=asked, timeout=60).json()
    assert len(parts) > 2
    for name, values in [("outputs", answer["outputs"]), *answer["trace"].items()]:
        ours = np.frombuffer(values["data"], "<f4").reshape(values["shape"]) if binary else np.array(values)
        due = expected["outputs"] if name == "outputs" else expected["trace"][name]
        np.testing.assert_allclose(ours, due, atol=1e-6)


def test_answers_at_once_that_nobody_reads_are_held(server):
    body = traced(server, "dnc-copy", 100_000)
    with ExitStack() as open_sockets:
        for _ in range(10):
            client = open_sockets.enter_context(ask(server, "POST", "/infer", body))
            for _ in range(20):
                ask_again(client, server, "/infer", body)
        until(lambda: budget(server, "answers") > 10 * HIGH_WATER)
    until(lambda: budget(server, "answers") == 0)


def test_outputs_beyond_the_budget_of_answers_are_refused(server):
    """Alone, an answer may be as large as all answers together, and no larger."""
    body = {"model": "lstm-copy", "inputs": [[[0] * 10] * 10_000] * 26}
    assert refused(server, "POST", "/infer", json=body)[:2] == (422, "invalid_request")
    body["inputs"] = body["inputs"][:2]
    assert refused(server, "POST", "/infer", json=body)[0] == 200


def test_unfinished_snapshots_are_in_files_beside_the_memory(data, few):
    flags = ["--max-state-bytes", str(32 * MB), "--max-upload-bytes", str(200 * MB)]
    with running_server(*flags, data=data, checkpoints=few) as server, ExitStack() as open_sockets:
        before, sent = resident(server), bytes(20 * MB)
        for _ in range(8):
            open_sockets.enter_context(ask(server, "POST", "/sessions", sent, len(sent) + 1, "x-safetensors"))
        until(lambda: budget(server, "uploads") > 158 * MB)
        assert resident(server) - before < 60 * MB
        open_sockets.close()
        until(lambda: budget(server, "uploads") == 0)


def test_uploads_beyond_the_budget_are_refused(server):
    with ExitStack() as open_sockets:
        for size in (3 * MB, MB):
            open_sockets.enter_context(ask(server, "POST", "/sessions", bytes(size), size + 1, "x-safetensors"))
        until(lambda: budget(server, "uploads") > 3.5 * MB)
        body = b'{"model": "dnc-copy", "inputs": [[%s0]]}' % (b"0," * MB)
        assert refused(server, "POST", "/infer", content=body) == (503, "uploads_full", "1")
        assert refused(server, "POST", "/infer", json={"model": "dnc-copy", "inputs": [[0] * 10]})[0] == 200
    until(lambda: budget(server, "uploads") == 0)


def test_parts_of_messages_beyond_the_budget_close_their_socket(server):
    half = b"\x81\xff" + struct.pack("!Q", 3 * MB + 1) + bytes(4) + b" " * 3 * MB
    with streaming(server) as first, streaming(server) as second:
        first.socket.sendall(half)
        until(lambda: budget(server, "uploads") > 2 * MB)
        with suppress(OSError):
            second.socket.sendall(half)
        with pytest.raises(WebSocketException):
            second.recv(timeout=30)
        assert (second.close_code, second.close_reason) == (1013, "frames_full")
    until(lambda: budget(server, "uploads") == 0)


def test_states_of_all_models_share_one_budget(server):
    """Sessions of one model make room for those of another, whose memory they give back."""
    before = resident(server)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        sizes = {"dnc-copy": 500, "ntm-copy": 12_000}
        opened = {
            model: [client.post("/sessions", json={"model": model, "memory_size": size}).json()["id"] for _ in range(9)]
            for model, size in sizes.items()
        }
        for step, model in enumerate([*sizes] * 2):
            for session in opened[model]:
                answer = client.post(f"/sessions/{session}/steps", json={"inputs": [[0] * 10]})
                assert answer.json()["step"] == 1 + step // 2
            assert budget(server, "states") <= LIMITS["memory"]
    assert resident(server) - before < 80 * MB


def test_budgets_are_empty_after_random_disconnects_and_errors(server):
    session = httpx.post(f"{server.url}/sessions", json={"model": "dnc-copy"}).json()["id"]
    large, small = traced(server, "dnc-copy", 2 * MB), traced(server, "dnc-copy", 100_000)
    many = {"sessions": [session, "none"], "inputs": [[[0] * 10] * 2000, [[0] * 10]], "trace": ["usage"]}
    acts: list[Callable[[], Any]] = [
        lambda: ask(server, "POST", "/infer", large),
        lambda: ask(server, "POST", "/infer", small),
        lambda: ask(server, "POST", "/infer", large[: len(large) // 2], len(large)),
        lambda: ask(server, "POST", "/infer", b"[" * 100_000),
        lambda: ask(server, "POST", f"/sessions/{session}/steps", large.replace(b'"model": "dnc-copy", ', b"")),
        lambda: ask(server, "POST", "/steps", json.dumps(many).encode()),
        lambda: ask(server, "GET", f"/sessions/{session}/recording?trace=usage"),
        lambda: ask(server, "GET", f"/sessions/{session}/state"),
        lambda: ask(server, "GET", f"/sessions/{session}/snapshot"),
        lambda: ask(server, "POST", "/sessions", bytes(2 * MB), 2 * MB + 1, "x-safetensors"),
        lambda: ask(server, "POST", "/sessions", bytes(2 * MB), kind="x-safetensors"),
        lambda: streaming(server, small.replace(b'"model": "dnc-copy", ', b"").decode()),
        lambda: streaming(server, " " * 2 * MB),
    ]

    def live(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            with suppress(OSError, WebSocketException), chance.choice(acts)() as client:
                time.sleep(chance.choice([0, 0.001, 0.01, 0.1]))
                if isinstance(client, socket.socket):
                    client.settimeout(0.2)
                client.recv(chance.choice([1, 1000]) if isinstance(client, socket.socket) else 0.2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(live, range(8)))
    until(lambda: all(budget(server, name) == 0 for name in ("queue", "answers", "uploads")))
    assert budget(server, "states") <= LIMITS["memory"]
    assert "Traceback" not in server.log


@contextmanager
def streaming(server: Server, *frames: str) -> Iterator[Any]:
    url = f"{server.socket_url}/stream?model=dnc-copy"
    with connect(url, compression=None, max_size=None, close_timeout=0.1) as socket:
        socket.recv()
        for frame in frames:
            socket.send(frame)
        yield socket
