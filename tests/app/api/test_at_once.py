"""Requests that are answered at once: as the ASGI application answers them, byte for byte."""

import asyncio
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.at_once import AnswerAtOnce
from app.errors import KeyRequired
from app.main import create_app
from app.protocols.http import answering
from app.server import serve
from app.settings import Settings
from tests.app.protocols import test_http
from tests.app.protocols.test_http import connect
from tests.app.protocols.test_http import read_response as read_bytes
from tests.app.protocols.test_websocket import SECONDS
from tests.waiting import until

STEP = [0.5] * 10
TRACES = ["read_weights", "write_weights", "usage", "allocation_weights", "allocation_gate", "write_gate", "read_modes"]
STEPS_200 = 'engram_requests_total{method="POST",route="/sessions/{session}/steps",status="200"}'

REQUEST_ID = re.compile(rb"(?<=x-request-id: )[0-9a-f]{16}|(?<=\"request_id\":\")[0-9a-f]{16}")


def read_response(file: Any) -> bytes:
    """Return the bytes of one response, with the id of its request replaced."""
    response, count = REQUEST_ID.subn(b"R" * 16, read_bytes(file))
    assert count == (2 if b"application/problem+json" in response else 1)
    return response


def post(body: bytes, *fields: bytes, **more: Any) -> bytes:
    """Return a request with a JSON body."""
    return test_http.post(body, b"Content-Type: application/json", *fields, **more)


class Twofold:
    """One application behind two servers, in a thread: by our HTTP protocol, and by uvicorn's."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        self.by_asgi = 0
        """Requests to `ours` that came to the application."""
        state = self.app.state
        at_once = AnswerAtOnce(state.admission, state.models, state.sessions, settings, state.metrics)
        self.ours, self.uvicorns = _Uvicorn(self._counted, answering(at_once)), _Uvicorn(self.app, "httptools")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "Twofold":
        self._thread.start()
        until(lambda: self.ours.server.started and self.uvicorns.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.server.should_exit = self.uvicorns.server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        async with self.app.router.lifespan_context(self.app):
            await asyncio.gather(self.ours.serve(), self.uvicorns.serve())

    async def _counted(self, scope: Any, receive: Any, send: Any) -> None:
        self.by_asgi += 1
        await self.app(scope, receive, send)

    def open(self) -> str:
        url = f"http://127.0.0.1:{self.uvicorns.port}/sessions"
        session: str = httpx.post(url, json={"model": "dnc-copy"}).json()["id"]
        return session

    def counts(self) -> dict[str, float]:
        """Return how many requests were answered, by method, route and status."""
        metrics = self.app.state.metrics.exposition().decode()
        return {
            line[0]: float(line[1])
            for line in re.findall(r"^(engram_request\S*(?:total|count)\S*) (\S+)$", metrics, re.M)
        }


class _Uvicorn:
    def __init__(self, app: Any, http: Any) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listening.getsockname()[1]
        config = uvicorn.Config(
            app, http=http, interface="asgi3", lifespan="off", log_config=None, access_log=False, date_header=False
        )
        self.server = uvicorn.Server(config)

    async def serve(self) -> None:
        await self.server.serve([self._listening])


@contextmanager
def twofold(directory: Path, few: Path, **more: Any) -> Iterator[Twofold]:
    with Twofold(
        Settings(checkpoints=few, data=directory / "data", max_body_bytes=200_000, max_trace_bytes=150_000, **more)
    ) as running:
        yield running


@pytest.fixture(scope="module", params=["none", "ack"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Twofold]:
    with twofold(tmp_path_factory.mktemp("both"), few, durability=request.param) as running:
        yield running


def infer(server: Any, body: bytes) -> bytes:
    """Return the response to a request to infer."""
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(post(body, target=b"/infer"))
        return read_response(file)


def ask(server: Any, session: str, body: bytes, *fields: bytes) -> bytes:
    """Return the response to a request to step a session, with the session's id replaced."""
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(post(body, *fields, target=b"/sessions/%b/steps" % session.encode()))
        response = read_response(file)
    return response.replace(session.encode(), b"S" * len(session))


BODIES: dict[str, tuple[bytes, bool]] = {
    "a step": (json.dumps({"inputs": [STEP]}).encode(), True),
    "steps": (json.dumps({"inputs": [STEP] * 7}).encode(), True),
    "whole numbers and truths": (
        json.dumps({"inputs": [[0, 1, True, False, 2, 3, -4, 0.5, 1e-3, 1e30]]}).encode(),
        True,
    ),
    "traces": (json.dumps({"inputs": [STEP] * 2, "trace": ["usage", "read_weights", "usage"]}).encode(), True),
    "no traces": (json.dumps({"inputs": [STEP], "trace": []}).encode(), True),
    "if_step": (json.dumps({"inputs": [STEP], "if_step": None}).encode(), True),
    "at another step": (json.dumps({"inputs": [STEP], "if_step": 1000}).encode(), True),
    "spaces": (b"  " + json.dumps({"inputs": [STEP]}, indent=3).encode() + b"\n", True),
    "many numbers": (json.dumps({"inputs": [STEP] * 240, "trace": TRACES}).encode(), False),
    "too many numbers": (json.dumps({"inputs": [STEP] * 300, "trace": TRACES}).encode(), False),
    "a large body": (json.dumps({"inputs": [STEP], "trace": []}).encode() + b" " * 70_000, False),
    "too large a body": (b" " * 200_001, False),
    "a trace of no name": (json.dumps({"inputs": [STEP], "trace": ["nothing"]}).encode(), False),
    "a key too much": (json.dumps({"inputs": [STEP], "more": 1}).encode(), False),
    "no inputs": (b"{}", False),
    "no steps": (b'{"inputs": []}', False),
    "a number too few": (json.dumps({"inputs": [STEP[1:]]}).encode(), False),
    "NaN": (json.dumps({"inputs": [[float("nan")] * 10]}).encode(), False),
    "no number": (json.dumps({"inputs": [[None] * 10]}).encode(), False),
    "a list": (b"[]", False),
    "no JSON": (b'{"inputs": ', False),
    "no UTF-8": (b'{"inputs": "\xff"}', False),
    "nothing": (b"", False),
}


@pytest.mark.parametrize("case", BODIES)
def test_request_is_answered_as_by_asgi_byte_for_byte(both, case):
    body, at_once = BODIES[case]
    one, other = both.open(), both.open()
    ask(both.uvicorns, one, b'{"inputs": [%b]}' % json.dumps(STEP).encode())  # in an arena
    ask(both.uvicorns, other, b'{"inputs": [%b]}' % json.dumps(STEP).encode())
    before = both.by_asgi
    assert ask(both.ours, one, body) == ask(both.uvicorns, other, body)
    assert both.by_asgi == before + (not at_once)
    after = json.dumps({"inputs": [STEP], "trace": ["usage"]}).encode()
    assert ask(both.ours, one, after) == ask(both.uvicorns, other, after)


def sequence(**more: Any) -> bytes:
    return json.dumps({"model": "dnc-copy", "inputs": [STEP] * 3, **more}).encode()


INFERENCES: dict[str, tuple[bytes, bool]] = {
    "a sequence": (sequence(), True),
    "traces": (sequence(trace=["usage", "read_weights", "usage"]), True),
    "another memory size": (sequence(memory_size=5), True),
    "no memory size": (sequence(memory_size=None, trace=[]), True),
    "a forced gate": (sequence(force={"write_gate": [0.5]}, trace=["write_gate"]), True),
    "a free gate": (sequence(force={"write_gate": [None]}), True),
    "inputs that overflow": (sequence(inputs=[[3e38] * 10] * 2), True),
    "spaces": (json.dumps(json.loads(sequence()), indent=3).encode(), True),
    "a batch": (sequence(inputs=[[STEP] * 2, [STEP] * 3]), False),
    "a batch with spaces": (json.dumps(json.loads(sequence(inputs=[[STEP]])), indent=3).encode(), False),
    "many numbers": (sequence(inputs=[STEP] * 240, trace=TRACES), False),
    "too many numbers": (sequence(inputs=[STEP] * 300, trace=TRACES), False),
    "a large body": (sequence() + b" " * 70_000, False),
    "another model": (sequence(model="nobody"), False),
    "a memory size of none": (sequence(memory_size=0), False),
    "too large a memory": (sequence(memory_size=10**9), False),
    "a force beyond 1": (sequence(force={"write_gate": [2]}), False),
    "a force that is no list": (sequence(force={"write_gate": 0}), False),
    "a trace of no name": (sequence(trace=["nothing"]), False),
    "a key too much": (sequence(more=1), False),
    "no steps": (sequence(inputs=[]), False),
    "no model": (b'{"inputs": [[1]]}', False),
    "no number": (sequence(inputs=[[None] * 10]), False),
    "NaN": (sequence(inputs=[[float("nan")] * 10]), False),
    "no JSON": (b'{"inputs": ', False),
    "nothing": (b"", False),
}


@pytest.mark.parametrize("case", INFERENCES)
def test_sequence_is_answered_as_by_asgi_byte_for_byte(both, case):
    body, at_once = INFERENCES[case]
    before = both.by_asgi
    assert infer(both.ours, body) == infer(both.uvicorns, body)
    assert both.by_asgi == before + (not at_once)


def test_sequences_are_counted_alike(tmp_path, few):
    counts = []
    with twofold(tmp_path, few) as running:
        for server in (running.ours, running.uvicorns):
            before = running.counts()
            for body, _ in INFERENCES.values():
                infer(server, body)
            until(lambda: sum(running.counts().values()) == sum(before.values()) + 2 * len(INFERENCES))  # noqa: B023
            counts.append({name: count - before.get(name, 0) for name, count in running.counts().items()})
    assert counts[0] == counts[1]


def test_sequence_of_gone_client_is_dropped_and_counted_as_gone(both, monkeypatch):
    gone = 'engram_requests_total{method="POST",route="/infer",status="499"}'
    before, runs = both.counts().get(gone, 0), []
    engine = both.app.state.models.get("dnc-copy").engine
    monkeypatch.setattr(engine, "submit", runs.extend)
    with connect(both.ours) as connection:
        connection.sendall(post(sequence(), target=b"/infer"))
        until(lambda: len(runs) == 1)
    until(lambda: both.counts().get(gone, 0) == before + 1)
    assert runs[0].cancelled


@pytest.mark.parametrize("server", ["ours", "uvicorns"])
def test_client_gone_from_two_pipelined_sequences_leaves_no_work(both, monkeypatch, caplog, server):
    engine, ours = both.app.state.models.get("dnc-copy").engine, getattr(both, server)
    held, submit = [], engine.submit
    monkeypatch.setattr(engine, "submit", held.extend)
    with connect(ours) as connection:
        connection.sendall(post(sequence(), target=b"/infer") * 2)
        until(lambda: held)
    monkeypatch.undo()
    both.loop.call_soon_threadsafe(submit, held)
    until(lambda: not ours.server.server_state.connections and not ours.server.server_state.tasks)
    until(lambda: engine.sequences == 0)
    assert not caplog.records
    assert infer(ours, sequence()).startswith(b"HTTP/1.1 200")


def test_sequences_on_an_open_connection_start_no_task(both):
    started = []
    with connect(both.ours) as connection, connection.makefile("rb") as file:
        for number in range(20):
            if number == 1:
                both.loop.call_soon_threadsafe(both.loop.set_task_factory, recorder_of_tasks(started))
            connection.sendall(post(sequence(), target=b"/infer"))
            assert read_response(file).startswith(b"HTTP/1.1 200")
    assert started == []
    infer(both.uvicorns, sequence())
    both.loop.call_soon_threadsafe(both.loop.set_task_factory, None)
    assert "RequestResponseCycle.run_asgi" in started


def recorder_of_tasks(started: list[str]) -> Any:
    """Return a task factory that notes what each task runs."""

    def create(loop: asyncio.AbstractEventLoop, job: Any, **more: Any) -> Any:
        started.append(job.__qualname__)
        return asyncio.Task(job, loop=loop, **more)

    return create


def test_sequence_for_which_sessions_must_make_room_is_answered(both, monkeypatch):
    session = both.open()
    ask(both.ours, session, BODIES["a step"][0])
    expected = infer(both.uvicorns, sequence())
    states = both.app.state.budgets.states
    monkeypatch.setattr(states, "limit", states.used)
    assert infer(both.ours, sequence()) == expected
    monkeypatch.undo()
    assert b'"step":2}' in ask(both.ours, session, BODIES["a step"][0])


@pytest.mark.parametrize("server", ["ours", "uvicorns"])
def test_sequence_beyond_the_queue_is_refused(both, monkeypatch, server):
    engine = both.app.state.models.get("dnc-copy").engine
    monkeypatch.setattr(engine, "_max_queue", 0)
    refused = infer(getattr(both, server), sequence())
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"0 sequences of dnc-copy are in work or waiting, and 1 more came" in refused


def test_unexpected_error_of_a_sequence_is_answered_as_by_asgi(both, monkeypatch, caplog):
    engine = both.app.state.models.get("dnc-copy").engine
    monkeypatch.setattr(engine, "submit", lambda *_: 1 / 0)
    assert infer(both.ours, sequence()) == infer(both.uvicorns, sequence())
    assert "POST /infer failed" in caplog.text


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=3), st.just([]))
INPUTS = st.one_of(
    VALUES, st.lists(st.one_of(VALUES, st.just(STEP), st.lists(st.floats(-2, 2), max_size=11)), max_size=4)
)
DOCUMENTS = st.fixed_dictionaries(
    {"inputs": st.one_of(st.just([STEP]), INPUTS)},
    optional={
        "trace": st.one_of(VALUES, st.lists(st.sampled_from(["usage", "read_modes", "nothing", 3]), max_size=3)),
        "if_step": st.one_of(VALUES, st.integers(0, 5)),
        "seq": st.just(0),
    },
)


@settings(max_examples=150, deadline=None)
@given(document=DOCUMENTS)
def test_any_request_is_answered_as_by_asgi(both, document):
    body = json.dumps(document).encode()
    if "pair" not in vars(both):
        both.pair = both.open(), both.open()
    one, other = both.pair
    assert ask(both.ours, one, body) == ask(both.uvicorns, other, body)


@pytest.mark.parametrize("fields", [(b"X-Request: a",), (b"Accept: text/html", b"Cookie: a=b")])
def test_fields_that_asgi_does_not_look_at_make_no_difference(both, fields):
    one, other = both.open(), both.open()
    body = BODIES["a step"][0]
    for _ in range(2):
        assert ask(both.ours, one, body, *fields) == ask(both.uvicorns, other, body, *fields)


def test_repeated_media_type_is_refused_as_by_asgi(both):
    one, other = both.open(), both.open()
    body = BODIES["a step"][0]
    for fields in ((), (b"Content-Type: application/json",)):
        answers = ask(both.ours, one, body, *fields), ask(both.uvicorns, other, body, *fields)
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 415 ")


def test_length_with_thousands_of_zeros_is_read(both):
    session = both.open()
    ask(both.ours, session, BODIES["a step"][0])
    target = f"/sessions/{session}/steps".encode()
    with connect(both.ours) as connection, connection.makefile("rb") as file:
        connection.sendall(post(b"[]", target=target, length=b"0" * 5000 + b"2"))
        assert read_response(file).startswith(b"HTTP/1.1 400")
        connection.sendall(post(b"", target=target, length=b"0" * 5000 + b"200001"))
        assert read_response(file).startswith(b"HTTP/1.1 413")


def test_compressed_body_is_answered_by_asgi(both):
    session, body = both.open(), gzip.compress(BODIES["a step"][0])
    assert ask(both.ours, session, body, b"Content-Encoding: gzip").startswith(b"HTTP/1.1 200")


def test_stored_session_is_answered_by_asgi_then_at_once(both):
    session = both.open()
    before = both.by_asgi
    for step in range(1, 4):
        assert b'"step":%d}' % step in ask(both.ours, session, BODIES["a step"][0])
        assert both.by_asgi == before + 1


@pytest.mark.parametrize(("session", "status"), [("nobody", 404), ("DELETED", 410), ("a%20b", 404), ("", 404)])
def test_session_that_is_none_is_answered_by_asgi(both, session, status):
    if session == "DELETED":
        session = both.open()
        ask(both.ours, session, BODIES["a step"][0])
        httpx.delete(f"http://127.0.0.1:{both.ours.port}/sessions/{session}")
    body = BODIES["a step"][0]
    answers = [
        ask(server, session, body) if session else ask(server, "", body) for server in (both.ours, both.uvicorns)
    ]
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 %d" % status)


def counted(running: Twofold, server: Any) -> dict[str, float]:
    """Return what is counted more after a request of each body, by method, route and status."""
    before, session = running.counts(), running.open()
    for body, _ in BODIES.values():
        ask(server, session, body)
    until(lambda: sum(running.counts().values()) == sum(before.values()) + 2 * (1 + len(BODIES)))
    return {name: count - before.get(name, 0) for name, count in running.counts().items()}


def test_requests_are_counted_alike(tmp_path, few):
    with twofold(tmp_path, few) as running:
        ours, uvicorns = counted(running, running.ours), counted(running, running.uvicorns)
    assert ours == uvicorns
    assert ours[STEPS_200] == 9


def test_concurrent_requests_to_one_session_are_carried_out_in_turn(both):
    session, body = both.open(), json.dumps({"inputs": [STEP] * 50}).encode()
    sent = post(body, target=f"/sessions/{session}/steps".encode())
    connections = [connect(both.ours) for _ in range(20)]
    for connection in connections:
        connection.sendall(sent)
    steps = [
        json.loads(read_response(connection.makefile("rb")).split(b"\r\n\r\n")[1])["step"] for connection in connections
    ]
    for connection in connections:
        connection.close()
    assert sorted(steps) == list(range(50, 1001, 50))


def test_step_of_gone_client_is_carried_out_and_counted(both):
    session = both.open()
    before = both.counts().get(STEPS_200, 0)
    assert b'"step":1}' in ask(both.ours, session, BODIES["a step"][0])
    with connect(both.ours) as connection:
        connection.sendall(post(BODIES["steps"][0], target=f"/sessions/{session}/steps".encode()))
    until(lambda: both.counts().get(STEPS_200) == before + 2)
    assert b'"step":9}' in ask(both.ours, session, BODIES["a step"][0])


def test_client_gone_before_its_body_is_counted_as_gone(both):
    gone, session = STEPS_200.replace("200", "499"), both.open()
    ask(both.ours, session, BODIES["a step"][0])
    before = both.counts().get(gone, 0)
    with connect(both.ours) as connection:
        connection.sendall(post(b"{", target=f"/sessions/{session}/steps".encode(), length=b"100"))
        time.sleep(0.1)
    until(lambda: both.counts().get(gone, 0) == before + 1)


@pytest.mark.parametrize("target", [b"/infer", b"/sessions/SESSION/steps"])
def test_request_whose_key_is_revoked_before_its_body_is_refused(tmp_path, few, target):
    body = b'{"model":"dnc-copy","inputs":[[0,0,0,0,0,0,0,0,0,0]]}' if target == b"/infer" else BODIES["a step"][0]
    with twofold(tmp_path, few) as running:
        session = running.open()
        ask(running.ours, session, BODIES["a step"][0])
        head = post(b"", target=target.replace(b"SESSION", session.encode()), length=b"%d" % len(body))
        with connect(running.ours) as connection, connection.makefile("rb") as file:
            connection.sendall(head + body[:5])
            time.sleep(0.1)
            running.loop.call_soon_threadsafe(running.app.state.keyring.anonymous.end, KeyRequired("revoked"))
            connection.sendall(body[5:])
            assert read_response(file).startswith(b"HTTP/1.1 401 ")


def test_unexpected_error_is_logged_and_answered_as_by_asgi(both, monkeypatch, caplog):
    session, body = both.open(), BODIES["a step"][0]
    ask(both.ours, session, body)
    monkeypatch.setattr(both.app.state.sessions.stepping, "submit", lambda *_: 1 / 0)
    before = both.by_asgi
    assert ask(both.ours, session, body) == ask(both.uvicorns, session, body)
    assert both.by_asgi == before
    assert caplog.text.count("ZeroDivisionError") >= 2
    monkeypatch.undo()
    assert b'"step":2}' in ask(both.ours, session, body)


def test_answer_that_cannot_be_encoded_is_an_error(both, monkeypatch, caplog):
    session, body = both.open(), BODIES["a step"][0]
    ask(both.ours, session, body)
    monkeypatch.setattr("app.api.at_once.steps_document", lambda stepped: {"outputs": object()})
    response = ask(both.ours, session, body)
    assert response.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"content-type: application/problem+json" in response
    assert "POST /sessions/{session}/steps failed" in caplog.text
    monkeypatch.undo()
    assert b'"step":3}' in ask(both.ours, session, body)


def test_session_ended_while_its_steps_wait_is_answered_as_gone(both):
    session = both.open()
    target = f"/sessions/{session}/steps".encode()
    ask(both.ours, session, BODIES["a step"][0])
    connections = [connect(both.ours) for _ in range(8)]
    for connection in connections:
        connection.sendall(post(json.dumps({"inputs": [STEP] * 500}).encode(), target=target))
    httpx.delete(f"http://127.0.0.1:{both.ours.port}/sessions/{session}")
    statuses = [read_response(connection.makefile("rb"))[9:12] for connection in connections]
    for connection in connections:
        connection.close()
    assert set(statuses) <= {b"200", b"410", b"404"}
    assert ask(both.ours, session, BODIES["a step"][0]).startswith(b"HTTP/1.1 410")


def test_stop_refuses_steps_as_by_asgi(both, monkeypatch):
    session, body = both.open(), BODIES["a step"][0]
    ask(both.ours, session, body)
    before = both.by_asgi
    monkeypatch.setattr(both.app.state.sessions.turns, "_closing", True)
    refused = ask(both.ours, session, body)
    assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert refused == ask(both.uvicorns, session, body)
    assert both.by_asgi == before


def test_engram_serve_answers_at_once(tmp_path, few, monkeypatch):
    configs = []
    monkeypatch.setattr("app.server._Server.run", lambda server: configs.append(server.config))
    assert serve(Settings(checkpoints=few, data=tmp_path / "data", store="memory")) == 0
    assert isinstance(configs[0].http.at_once, AnswerAtOnce)
