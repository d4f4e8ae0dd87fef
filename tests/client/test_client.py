"""The client takes every step once, through a proxy that cuts its connections and a server that is killed."""

import asyncio
import inspect
import json
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from engram_client import (
    AnswerLost,
    AsyncClient,
    AsyncSession,
    AsyncStream,
    Client,
    Conflict,
    EngramClientError,
    InvalidRequest,
    NotFound,
    Recorded,
    ServerError,
    Session,
    SessionGone,
    Stepped,
    Stream,
    Unreachable,
)
from engram_client.errors import Lost
from engram_client.messages import read_frame
from engram_client.wires import Answer, Request, border
from tests.app.harness import CHECKPOINTS, ROOT, Server

MODEL, WIDTH = "dnc-copy", 10


def sequence(steps: int, seed: int = 0) -> np.ndarray:
    """Return inputs, float32 [steps, WIDTH], of no special bits, so that a step that differs shows."""
    return np.random.default_rng(seed).random((steps, WIDTH), np.float32)


def pieces(count: int, seed: int = 0, scale: int = 1) -> list[np.ndarray]:
    """Return a sequence in so many pieces, of 1, 2, 3, 1, 2, 3, ... times `scale` steps."""
    lengths = [scale * (1 + piece % 3) for piece in range(count)]
    return np.split(sequence(sum(lengths), seed), np.cumsum(lengths)[:-1])


@pytest.fixture
def api(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


# What the client is for: all that the server offers


def test_infer_gives_arrays_of_float32(api):
    outputs, trace, steps = api.infer(MODEL, sequence(7), ["usage", "read_weights"], memory_size=16)
    assert (outputs.shape, outputs.dtype, steps) == ((7, 8), np.float32, 7)
    assert {name: values.shape for name, values in trace.items()} == {"usage": (7, 16), "read_weights": (7, 1, 16)}


def test_infer_many_takes_sequences_of_any_lengths(api):
    several = [sequence(length, length) for length in (5, 1, 3)]
    results = api.infer_many(MODEL, several, trace="usage")
    assert [(len(result.outputs), result.trace["usage"].shape[0], result.steps) for result in results] == [
        (length, length, length) for length in (5, 1, 3)
    ]
    assert np.allclose(results[2].outputs, api.infer(MODEL, several[2]).outputs, atol=1e-6)
    assert api.infer_many(MODEL, []) == []


def test_models_have_cards(api):
    assert MODEL in [card["name"] for card in api.models()]
    assert api.model(MODEL)["input_size"] == WIDTH
    with pytest.raises(NotFound, match="model_not_found"):
        api.model("no such?model")


def test_session_over_http_and_websocket_is_one_sequence(api):
    inputs = sequence(12)
    session = api.open(MODEL)
    parts = [session.run(inputs[:4], ["usage"])]
    with session.stream() as stream:
        parts += [stream.run(inputs[4:7], ["usage"])]
        parts += stream.map([inputs[7:9], inputs[9:10]], ["usage"])
    parts += [session.run(inputs[10:], ["usage"])]
    whole = api.infer(MODEL, inputs, ["usage"])
    assert [part.step for part in parts] == [4, 7, 9, 10, 12]
    assert np.allclose(np.concatenate([part.outputs for part in parts]), whole.outputs, atol=1e-6)
    assert np.allclose(np.concatenate([part.trace["usage"] for part in parts]), whole.trace["usage"], atol=1e-6)
    assert (session.step, api.session(session.id).step) == (12, 12)


def test_session_of_another_memory_size_shows_its_state(api):
    session = api.open(MODEL, memory_size=5)
    session.run(sequence(3))
    state = session.state(["memory", "usage"])
    assert (session.memory_size, {name: leaf.shape for name, leaf in state.items()}) == (
        5,
        {"memory": (5, 16), "usage": (5,)},
    )
    assert httpx.get(f"{api._client.url}/sessions/{session.id}/state").json()["state"]["usage"] == pytest.approx(
        state["usage"].tolist()
    )


def test_sessions_are_listed_until_they_are_deleted(api):
    session = api.open("lstm-copy")
    assert repr(session) == f"<Session {session.id} of lstm-copy at step 0>"
    assert session.id in [other.id for other in api.sessions("lstm-copy")]
    session.delete()
    assert session.id not in [other.id for other in api.sessions()]
    with pytest.raises(SessionGone) as gone:
        session.run(sequence(1))
    assert (gone.value.status, gone.value.problem["reason"]) == (410, "deleted")


def test_reset_session_begins_again(api):
    session = api.open(MODEL)
    first = session.run(sequence(4))
    session.reset()
    assert session.step == 0
    assert np.array_equal(session.run(sequence(4)).outputs, first.outputs)


def test_tokens_may_come_as_a_plain_list(api):
    assert api.infer("gru-dyck", [1, 0, 2]).outputs.shape[0] == 3
    with pytest.raises(ValueError, match=r"expected \[T, input_size\], or \[T\] of tokens, got shape \[1, 2, 10\]"):
        api.infer(MODEL, [sequence(2)])


def test_refused_inputs_name_the_place(api):
    session = api.open(MODEL)
    with pytest.raises(InvalidRequest) as refused:
        session.run(sequence(2)[:, :9])
    assert (refused.value.code, refused.value.problem["place"]) == ("invalid_input", "inputs[0]")
    assert str(refused.value) == "inputs[0]: expected 10 numbers, got 9 (invalid_input)"
    assert session.run(sequence(1)).step == 1


@pytest.mark.parametrize("number", [1e39, float("nan")])
def test_inputs_that_are_not_finite_are_not_sent(api, number):
    with pytest.raises(ValueError, match=r"inputs\[1\]\[0\]: expected a finite number within float32"):
        api.infer(MODEL, [[0.0] * WIDTH, [number] * WIDTH])


def test_refused_frame_ends_those_behind_it_and_the_stream_goes_on(api):
    good, bad = sequence(1), sequence(1)[:, :3]
    taken = []
    with api.open(MODEL).stream() as stream:
        with pytest.raises(InvalidRequest, match=r"inputs\[0\]: expected 10 numbers, got 3"):
            taken += stream.map([good, good, bad, good, good])
        reached = stream.run(good).step
    assert reached == 3


def test_stream_that_is_left_early_carries_out_what_it_took(api):
    session = api.open(MODEL)
    with session.stream() as stream:
        next(stream.map([sequence(1)] * 9, window=4))
    assert session.step == api.session(session.id).step == 4


@pytest.mark.parametrize(
    ("dtype", "scale", "data_bytes"), [("float16", 1.0, 2), (">f2", 1.0, 2), ("int16", 0.1, 2), ("float64", 1.0, 4)]
)
def test_stream_sends_inputs_of_two_bytes_as_they_are(api, monkeypatch, dtype, scale, data_bytes):
    sent: list[Any] = []
    pack = msgpack.packb
    monkeypatch.setattr(msgpack, "packb", lambda document: sent.append(document) or pack(document))
    inputs = (sequence(2) * 3).astype(dtype)
    with api.open("dnc-copy").stream(scale=scale) as stream:
        outputs = stream.run(inputs).outputs
    assert len(sent[0]["inputs"]["data"]) == data_bytes * inputs.size
    same = inputs.astype(np.float32) * np.float32(scale)
    assert outputs.tolist() == api.open("dnc-copy").run(same).outputs.tolist()


def test_stream_may_have_its_answers_sent_in_float16(api):
    inputs = sequence(2)
    full = api.open("dnc-copy").run(inputs, ["usage"])
    with api.open("dnc-copy").stream(dtype="float16") as stream:
        half = stream.run(inputs, ["usage"])
    for came, whole in ((half.outputs, full.outputs), (half.trace["usage"], full.trace["usage"])):
        assert came.dtype == np.float32
        assert came.tolist() == whole.astype(np.float16).tolist()
        assert came.tolist() != whole.tolist()


def test_steps_over_http_may_be_of_float16(api):
    inputs = sequence(2).astype(np.float16) / 3
    stepped = api.open("dnc-copy").run(inputs)
    assert stepped.outputs.tolist() == api.open("dnc-copy").run(inputs.astype(np.float32)).outputs.tolist()


def test_scale_that_is_none_is_refused_by_the_server(api):
    with api.open("dnc-copy").stream(scale=0.0) as stream, pytest.raises(InvalidRequest, match="scale of an array"):
        stream.run(sequence(2).astype(np.int16))


def test_stream_may_be_entered_again(api):
    session = api.open(MODEL)
    stream = session.stream()
    with stream:
        first = stream.run(sequence(3))
    session.reset()
    with pytest.raises(RuntimeError, match=r"with session\.stream"):
        stream.run(sequence(1))
    with stream:
        assert np.array_equal(stream.run(sequence(3)).outputs, first.outputs)


def test_stream_that_is_left_in_an_error_answers_no_more(api):
    stream = api.open(MODEL).stream()
    with suppress(ZeroDivisionError), stream:
        answers = stream.map([sequence(1)] * 3)
        next(answers)
        raise ZeroDivisionError
    with pytest.raises(EngramClientError, match="stream_left"):
        next(answers)


def test_stream_answers_calls_within_a_map_each_with_its_own(api):
    inputs = sequence(8)
    whole = api.infer(MODEL, inputs).outputs
    with api.open(MODEL).stream() as stream:
        answers = stream.map(inputs[:7, np.newaxis], window=7)
        first = next(answers)
        last = stream.run(inputs[7:])
        rest = list(answers)
    assert [stepped.step for stepped in [first, *rest, last]] == list(range(1, 9))
    assert np.allclose(np.concatenate([stepped.outputs for stepped in [first, *rest, last]]), whole, atol=1e-6)


def test_client_needs_nothing_else_of_the_project():
    command = [sys.executable, "-c", "import sys, engram_client; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    rooms = {"app", "benchmarks", "engram", "kernels", "models", "training"}
    assert rooms.union({"fastapi", "torch", "pydantic", "orjson", "safetensors"}).isdisjoint(loaded)


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def public(kind: type) -> dict[str, list[str]]:
    """Return the public methods and properties of a class, with the names of their parameters."""
    found = {name: getattr(kind, name) for name in vars(kind) if not name.startswith("_")}
    return {name: list(inspect.signature(item).parameters) if callable(item) else [] for name, item in found.items()}


@pytest.mark.parametrize(("kind", "other"), [(Client, AsyncClient), (Session, AsyncSession), (Stream, AsyncStream)])
def test_client_without_asyncio_is_the_same(kind, other):
    methods = {name: parameters for name, parameters in public(kind).items() if parameters}
    assert methods == public(other)
    assert all(getattr(kind, name).__doc__ == getattr(other, name).__doc__ for name in methods)


def test_client_page_has_every_method_and_error():
    text = (ROOT / "docs" / "client.md").read_text()
    for kind in (Client, Session, Stream):
        names = [f"{name}({', '.join(given[1:])})" if given else name for name, given in public(kind).items()]
        missing = [name for name in names if f"`{name}`" not in text and name != "close()"]
        assert missing == []
    errors = set(re.findall(r"^\| `(\w+)` \| ", text.split("## Errors")[1], re.M))
    assert errors == {error.__name__ for error in subclasses(EngramClientError)} - {"EngramClientError"}
    drawn = re.findall(r"(?:\|--|`--) (\w+)", str(EngramClientError.__doc__))
    assert sorted(drawn) == sorted(errors)


def test_conflict_with_another_client_tells_the_step(api):
    session = api.open(MODEL)
    api.session(session.id).run(sequence(3))
    with pytest.raises(Conflict) as conflict:
        session.run(sequence(3))
    assert (conflict.value.code, conflict.value.problem["step"], session.step) == ("step_conflict", 3, 0)


def test_past_of_a_session_is_looked_at_forked_and_gone_back_to(api):
    inputs = sequence(9)
    session = api.open(MODEL)
    states = [session.state()]
    for step in inputs:
        session.run(step[np.newaxis])
        states.append(session.state())
    assert np.allclose(session.state(["memory"], step=4)["memory"], states[4]["memory"], atol=1e-6)
    fork = session.fork(step=6)
    assert (fork.step, session.fork().step) == (6, 9)
    session.rewind(4)
    assert (session.step, api.session(session.id).step) == (4, 4)
    session.rewind(9)
    session.rewind(3)
    for one in (session, fork):
        one.run(inputs[one.step :])
        assert all(np.allclose(leaf, states[9][name], atol=1e-5) for name, leaf in one.state().items())


def test_recording_has_inputs_outputs_and_traces(api):
    inputs = sequence(5)
    session = api.open(MODEL)
    stepped = session.run(inputs, ["usage"])
    past = list(session.recording(trace=["usage"]))
    assert [recorded.step for recorded in past] == [1, 2, 3, 4, 5]
    assert np.array_equal([recorded.inputs for recorded in past], inputs)
    assert np.allclose([recorded.outputs for recorded in past], stepped.outputs, atol=1e-6)
    assert np.allclose([recorded.trace["usage"] for recorded in past], stepped.trace["usage"], atol=1e-6)
    assert [recorded.step for recorded in session.recording(2, 4)] == [3, 4]


def test_recording_is_read_in_pages(api, monkeypatch):
    monkeypatch.setattr("engram_client.sessions.PAGE", 4)
    session = api.open(MODEL)
    session.run(sequence(10))
    assert [recorded.step for recorded in session.recording()] == list(range(1, 11))


def test_snapshot_goes_on_where_the_session_was(api):
    session = api.open(MODEL)
    session.run(sequence(6))
    restored = api.restore(session.snapshot())
    earlier = api.restore(session.snapshot(step=2), model=MODEL)
    assert (restored.step, earlier.step) == (6, 2)
    assert np.allclose(restored.run(sequence(3)).outputs, session.run(sequence(3)).outputs, atol=1e-6)
    with pytest.raises(InvalidRequest, match="invalid_snapshot"):
        api.restore(session.snapshot()[:-4])


def test_stream_goes_on_after_a_rewind(api):
    session = api.open(MODEL)
    with session.stream() as stream:
        whole = [stream.run(step[np.newaxis]).outputs for step in sequence(5)]
        session.rewind(2)
        again = [stream.run(step[np.newaxis]) for step in sequence(5)[2:]]
    assert [stepped.step for stepped in again] == [3, 4, 5]
    assert np.allclose([stepped.outputs for stepped in again], whole[2:], atol=1e-6)


# What it does on a lost connection: a wire that is told what happens


@dataclass
class ScriptedSocket:
    """A WebSocket that says what a script has: frames, or an exception in their place."""

    script: deque[dict[str, Any] | Exception]
    sent: list[dict[str, Any]]

    async def send(self, data: bytes) -> None:
        self.sent.append(msgpack.unpackb(data))

    async def receive(self, timeout: float) -> bytes:
        event = self.script.popleft()
        if isinstance(event, Exception):
            raise event
        return bytes(msgpack.packb(event))

    async def close(self) -> None:
        pass


class Script:
    """A wire of events: each request takes the next, an answer or an exception, and each connection a list."""

    def __init__(self, *events: Any) -> None:
        self.events = deque(events)
        self.requests: list[Request] = []
        self.frames: list[dict[str, Any]] = []
        self.pauses: list[float] = []

    async def request(self, request: Request, timeout: float) -> Answer:
        self.requests.append(request)
        return self._next()

    async def connect(self, path: str, timeout: float) -> ScriptedSocket:
        return ScriptedSocket(deque(self._next()), self.frames)

    def _next(self) -> Any:
        event = self.events.popleft()
        if isinstance(event, Exception):
            raise event
        return event

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def close(self) -> None:
        pass


def ok(document: Any, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(document).encode())


def refusal(status: int, code: str, **more: Any) -> Answer:
    problem = {"status": status, "code": code, "detail": "so it is"} | more
    return Answer(status, {"Retry-After": "7"} if status == 503 else {}, json.dumps(problem).encode())


def lines(*inputs: list[float]) -> Answer:
    steps = [
        {"step": step, "inputs": values, "outputs": [step + 0.5], "trace": {"gate": [0.25]}}
        for step, values in enumerate(inputs, 1)
    ]
    return Answer(200, {}, "\n".join(map(json.dumps, steps)).encode())


OPENED = {"id": "abc", "model": "m", "memory_size": None, "step": 0}
STEPPED = {"outputs": [[1.5], [2.5]], "trace": {"gate": [[0.25], [0.25]]}, "step": 2}
GREETING = {"type": "session", "session": "abc", "model": "m", "memory_size": None, "step": 0, "seq": None}


def carried_out(seq: int) -> dict[str, Any]:
    return {"type": "result", "seq": seq, "step": seq + 1, "outputs": [[seq + 0.5]], "trace": {}}


def scripted(*events: Any, timeout: float = 60.0) -> tuple[AsyncSession, Script]:
    script = Script(*events)
    return AsyncSession(AsyncClient("http://nowhere", timeout, wire=script), OPENED), script


def test_pauses_grow_and_are_as_long_as_the_server_asks():
    busy = refusal(503, "queue_full")
    session, script = scripted(*[Lost("gone")] * 8, busy, Answer(502, {}, b"<html>"), ok(STEPPED))
    assert asyncio.run(session.run([[0], [1]])).step == 2
    lows = [0.025 * 2**n for n in range(6)]
    assert all(low <= pause <= 2 * low for pause, low in zip(script.pauses[:6], lows, strict=True))
    assert all(1 <= pause <= 2 for pause in script.pauses[6:8])
    assert (script.pauses[8], len(script.pauses)) == (7, 10)


def test_steps_whose_answer_was_lost_are_found_in_the_recording():
    conflict = refusal(409, "step_conflict", step=2)
    session, script = scripted(Lost("reset"), conflict, lines([0.1], [1.0]))
    stepped = asyncio.run(session.run([[0.1], [1]], ["gate"]))
    assert (stepped.outputs.tolist(), stepped.step, session.step) == ([[1.5], [2.5]], 2, 2)
    assert stepped.trace["gate"].tolist() == [[0.25], [0.25]]
    assert script.requests[0] == script.requests[1]
    assert script.requests[2].query == {"from": 0, "to": 2, "trace": "gate"}


def test_steps_of_somebody_else_are_a_conflict():
    conflict = refusal(409, "step_conflict", step=2)
    session, _ = scripted(Lost("reset"), conflict, lines([0.0], [0.5]))
    with pytest.raises(Conflict):
        asyncio.run(session.run([[0], [1]]))
    assert session.step == 0


def test_conflict_at_the_first_try_is_certain():
    session, script = scripted(refusal(409, "step_conflict", step=2))
    with pytest.raises(Conflict):
        asyncio.run(session.run([[0], [1]]))
    assert len(script.requests) == 1


def test_conflict_after_no_connection_is_certain():
    session, script = scripted(Lost("refused", reached=False), refusal(409, "step_conflict", step=2))
    with pytest.raises(Conflict):
        asyncio.run(session.run([[0], [1]]))
    assert len(script.requests) == 2


def test_steps_after_which_others_came_are_still_found():
    session, _ = scripted(Lost("reset"), refusal(409, "step_conflict", step=5), lines([0.0], [1.0]))
    assert asyncio.run(session.run([[0], [1]])).step == 2


def test_recording_that_is_no_longer_kept_leaves_the_conflict():
    session, _ = scripted(Lost("reset"), refusal(409, "step_conflict", step=2), refusal(404, "step_not_kept"))
    with pytest.raises(Conflict) as conflict:
        asyncio.run(session.run([[0], [1]]))
    assert isinstance(conflict.value.__cause__, NotFound)


def test_recording_that_breaks_off_is_read_again_or_refused():
    broken = {"error": {"status": 503, "code": "store_failed", "detail": "so it is"}}
    gone = {"error": {"status": 409, "code": "step_not_kept", "detail": "so it is"}}
    whole = lines([0.0], [1.0])
    first = whole.content.splitlines()[0]
    halves = [Answer(200, {}, first + b"\n" + json.dumps(end).encode()) for end in (broken, gone)]
    session, _ = scripted(halves[0], whole, halves[1])

    async def read() -> list[int]:
        return [recorded.step async for recorded in session.recording(0, 2)]

    assert asyncio.run(read()) == [1, 2]
    with pytest.raises(Conflict, match="step_not_kept"):
        asyncio.run(read())


def test_call_that_was_unreachable_may_be_made_again():
    session, script = scripted(Lost("reset"), timeout=1e-9)
    with pytest.raises(Unreachable):
        asyncio.run(session.run([[0], [1]]))
    session._client.timeout = 60
    script.events.extend([refusal(409, "step_conflict", step=2), lines([0.0], [1.0])])
    assert asyncio.run(session.run([[0], [1]])).outputs.tolist() == [[1.5], [2.5]]


def test_opening_again_is_the_same_opening():
    script = Script(Lost("reset"), ok(OPENED, 201), ok(OPENED, 201))
    client = AsyncClient("http://nowhere", wire=script)
    asyncio.run(client.open("m"))
    asyncio.run(client.open("m"))
    first, again, second = (request.headers["Idempotency-Key"] for request in script.requests)
    assert first == again != second


def test_deleting_again_finds_it_deleted():
    gone = refusal(410, "session_gone", reason="deleted")
    session, _ = scripted(Lost("reset"), gone, gone)
    asyncio.run(session.delete())
    with pytest.raises(SessionGone):
        asyncio.run(session.delete())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (308, EngramClientError),
        (400, InvalidRequest),
        (401, EngramClientError),
        (404, NotFound),
        (409, Conflict),
        (410, SessionGone),
        (413, InvalidRequest),
        (422, InvalidRequest),
        (500, ServerError),
    ],
)
def test_problem_becomes_an_error_by_its_status(status, kind):
    session, _ = scripted(refusal(status, "some_code", place="here"), Answer(status, {}, b"<html>no</html>"))
    with pytest.raises(EngramClientError) as told:
        asyncio.run(session.state())
    assert (type(told.value), told.value.status, told.value.code) == (kind, status, "some_code")
    assert (told.value.detail, told.value.problem["place"]) == ("so it is", "here")
    with pytest.raises(kind, match=f"HTTP status {status}: <html>no</html> \\(http_{status}\\)"):
        asyncio.run(session.state())


@pytest.mark.parametrize("kind", [*subclasses(httpx.RequestError), ConnectionResetError, TimeoutError, EOFError])
def test_every_way_to_lose_a_connection_is_a_loss(kind):
    with pytest.raises(Lost) as lost, border():
        raise kind("so it is")
    never_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    assert lost.value.reached == (not issubclass(kind, never_sent))
    assert str(lost.value) == f"{kind.__name__}: so it is"


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"", b"[]", b"null", b"{}", b'{"step": ', b"[" * 9999])
def test_answer_of_another_server_is_an_error_of_the_client(content):
    async def recording(session: AsyncSession) -> list[Recorded]:
        return [recorded async for recorded in session.recording()]

    calls = [AsyncSession.reset, AsyncSession.state, AsyncSession.fork, lambda session: session.run([[0]]), recording]
    for call in calls:
        session, _ = scripted(Answer(200, {}, content))
        with pytest.raises(EngramClientError) as refusal:
            asyncio.run(call(session))
        assert refusal.value.code == "unreadable_answer"


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x80", b"\x93\x01", b"\x01", msgpack.packb({"type": "error"})])
def test_frame_of_another_server_is_an_error_of_the_client(frame):
    with pytest.raises(EngramClientError) as refusal:
        read_frame(frame)
    assert refusal.value.code == "unreadable_answer"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(4404, NotFound), (4410, SessionGone), (4422, InvalidRequest), (1009, InvalidRequest)]
    + [(code, Lost) for code in (1001, 1006, 1007, 1011, 1012, 1013, 3000, 4000)],
)
def test_close_code_is_an_error_or_a_loss(code, kind):
    told = Close(code, "why") if code != 1006 else None
    with pytest.raises(kind, match="why" if told else "no close frame"), border():
        raise ConnectionClosedError(told, None)


@pytest.mark.parametrize(("status", "kind"), [(401, EngramClientError), (404, NotFound), (503, Lost), (502, Lost)])
def test_handshake_that_a_proxy_refuses_is_an_error_or_a_loss(status, kind):
    with pytest.raises(kind, match=f"HTTP status {status}: no"), border():
        raise InvalidStatus(Response(status, "", Headers(), b"no"))


def streamed(session: AsyncSession, count: int) -> list[list[list[float]]]:
    """Return what so many frames gave, all of them under way at a time."""

    async def run() -> list[list[list[float]]]:
        async with session.stream() as stream:
            return [stepped.outputs.tolist() async for stepped in stream.map([[[0.0]]] * count, window=count)]

    return asyncio.run(run())


def test_frames_without_an_answer_are_sent_again_in_order():
    session, script = scripted(
        [GREETING, carried_out(0), Lost("reset")],
        [GREETING | {"step": 2, "seq": 1}, carried_out(1), Lost("reset")],
        Lost("refused"),
        [GREETING | {"step": 2, "seq": 1}, carried_out(2)],
    )
    assert streamed(session, 3) == [[[0.5]], [[1.5]], [[2.5]]]
    assert [frame["seq"] for frame in script.frames] == [0, 1, 2, 1, 2, 2]
    assert (session.step, len(script.pauses)) == (3, 3)


def test_stream_numbers_on_from_the_last_frame_of_the_session():
    session, script = scripted([GREETING | {"step": 30, "seq": 7}, carried_out(8)])
    streamed(session, 1)
    assert [frame["seq"] for frame in script.frames] == [8]


@pytest.mark.parametrize("seq", [None, 0, 3])
def test_greeting_that_cannot_be_is_a_conflict(seq):
    lost = [GREETING, carried_out(0), carried_out(1), Lost("reset")]
    session, script = scripted(lost, [GREETING | {"step": 1, "seq": seq}])
    with pytest.raises(Conflict, match=f"at step 1 after frame {seq}, but a frame from 1 to 2 was expected"):
        streamed(session, 3)
    assert [frame["seq"] for frame in script.frames] == [0, 1, 2]


def test_answer_that_can_no_longer_be_had_is_told():
    session, _ = scripted([GREETING, {"type": "result", "seq": 0, "step": 1, "duplicate": True}])
    with pytest.raises(AnswerLost, match="frame 0 was carried out"):
        streamed(session, 1)
    assert session.step == 1


def test_busy_server_on_a_stream_is_tried_again():
    busy = {"type": "error", "status": 503, "code": "queue_full", "detail": "try again later"}
    session, script = scripted([busy], [GREETING, busy], [GREETING, carried_out(0)])
    assert streamed(session, 1) == [[[0.5]]]
    assert [frame["seq"] for frame in script.frames] == [0, 0]


def test_server_error_on_a_stream_is_raised():
    failed = {"type": "error", "status": 500, "code": "step_failed", "detail": "the back end failed"}
    session, _ = scripted([GREETING, failed])
    with pytest.raises(ServerError, match="step_failed"):
        streamed(session, 1)


# What it does on a lost connection: a real one, cut


@dataclass
class Cut:
    """End a connection, by a reset, at the nth chunk that comes from one side; `keep` bytes of it still pass."""

    side: str
    """client or server."""
    nth: int
    keep: int = 0


class Proxy:
    """A TCP proxy that makes one cut after the other, each counted from the last; then all passes.

    A chunk of the server's that is cut off was sent when everything before it was done: its step was carried out.
    """

    def __init__(self, server_url: str, cuts: Sequence[Cut]) -> None:
        host, port = server_url.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self.cuts = deque(cuts)
        self._seen = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            other = {client: server, server: client}
            for end in other:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                passing = True
                while passing:
                    ready = select.select(other, [], [])[0]
                    passing = all(self._pass(source, other[source], source is client) for source in ready)
            except ConnectionError:
                pass

    def _pass(self, source: socket.socket, target: socket.socket, from_client: bool) -> bool:
        """Pass a chunk on. Return whether the connection goes on."""
        chunk = source.recv(1 << 16)
        cut = self._cut("client" if from_client else "server") if chunk else None
        target.sendall(chunk[: cut.keep] if cut else chunk)
        if cut:
            for end in (source, target):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return bool(chunk) and cut is None

    def _cut(self, side: str) -> Cut | None:
        with self._lock:
            if not self.cuts or self.cuts[0].side != side:
                return None
            self._seen += 1
            if self._seen < self.cuts[0].nth:
                return None
            self._seen = 0
            return self.cuts.popleft()


@contextmanager
def proxy_before(server: Server, cuts: Sequence[Cut]) -> Iterator[Proxy]:
    proxy = Proxy(server.url, cuts)
    try:
        yield proxy
    finally:
        proxy.close()


Heard = tuple[str, list[Stepped]]
"""The id of a session, and what it gave for each piece."""


def over_http(url: str, inputs: list[np.ndarray]) -> Heard:
    with Client(url) as client:
        session = client.open(MODEL)
        return session.id, [session.run(piece, ["usage"]) for piece in inputs]


def one_by_one(url: str, inputs: list[np.ndarray]) -> Heard:
    with Client(url) as client:
        session = client.open(MODEL)
        with session.stream() as stream:
            return session.id, [stream.run(piece, ["usage"]) for piece in inputs]


def several_under_way(url: str, inputs: list[np.ndarray]) -> Heard:
    with Client(url) as client:
        session = client.open(MODEL)
        with session.stream() as stream:
            return session.id, list(stream.map(inputs, ["usage"], window=6))


async def async_over_http(url: str, inputs: list[np.ndarray]) -> Heard:
    async with AsyncClient(url) as client:
        session = await client.open(MODEL)
        return session.id, [await session.run(piece, ["usage"]) for piece in inputs]


async def async_one_by_one(url: str, inputs: list[np.ndarray]) -> Heard:
    async with AsyncClient(url) as client:
        session = await client.open(MODEL)
        async with session.stream() as stream:
            return session.id, [await stream.run(piece, ["usage"]) for piece in inputs]


async def async_several_under_way(url: str, inputs: list[np.ndarray]) -> Heard:
    async with AsyncClient(url) as client:
        session = await client.open(MODEL)
        async with session.stream() as stream:
            return session.id, [stepped async for stepped in stream.map(inputs, ["usage"], window=6)]


def awaited(work: Callable[[str, list[np.ndarray]], Awaitable[Heard]]) -> Callable[[str, list[np.ndarray]], Heard]:
    async def run(url: str, inputs: list[np.ndarray]) -> Heard:
        return await work(url, inputs)

    return lambda url, inputs: asyncio.run(run(url, inputs))


WAYS = {
    "over HTTP": over_http,
    "over WebSocket": one_by_one,
    "several under way": several_under_way,
    "over HTTP, async": awaited(async_over_http),
    "over WebSocket, async": awaited(async_one_by_one),
    "several under way, async": awaited(async_several_under_way),
}


def check_heard(server: Server, heard: Heard, inputs: list[np.ndarray]) -> None:
    """See that a session has taken its inputs, each step once, and gave what one without disturbance gives."""
    with Client(server.url) as client:
        session_id, parts = heard
        sequence = np.concatenate(inputs)
        whole = client.infer(MODEL, sequence, ["usage"])
        past = list(client.session(session_id).recording(trace=["usage"]))
    assert [part.step for part in parts] == np.cumsum([len(piece) for piece in inputs]).tolist()
    assert [recorded.step for recorded in past] == list(range(1, len(sequence) + 1))
    assert np.array_equal([recorded.inputs for recorded in past], sequence)
    for outputs in ([part.outputs for part in parts], [[recorded.outputs for recorded in past]]):
        assert np.allclose(np.concatenate(outputs), whole.outputs, atol=1e-5)
    assert np.allclose(np.concatenate([part.trace["usage"] for part in parts]), whole.trace["usage"], atol=1e-5)


CUTS = {
    "before a request arrives": [Cut("client", nth) for nth in (1, 5, 2, 7)],
    "within a request": [Cut("client", nth, keep=30) for nth in (3, 4, 6, 1)],
    "before an answer comes": [Cut("server", nth) for nth in (1, 4, 2, 5)],
    "within an answer": [Cut("server", nth, keep=30) for nth in (3, 4, 2, 1)],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", CUTS)
def test_connection_cut_loses_no_step_and_doubles_none(server, way, where):
    inputs = pieces(30)
    with proxy_before(server, CUTS[where]) as proxy:
        heard = WAYS[way](proxy.url, inputs)
    assert not proxy.cuts
    check_heard(server, heard, inputs)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_connection_cut_anywhere_loses_no_step_and_doubles_none(server, way, seed):
    draw = random.Random(seed)
    cuts = [Cut(draw.choice(["client", "server"]), draw.randint(1, 8), draw.choice([0, 2, 50])) for _ in range(10)]
    inputs = pieces(60, seed)
    with proxy_before(server, cuts) as proxy:
        heard = WAYS[way](proxy.url, inputs)
    assert len(proxy.cuts) < 5
    check_heard(server, heard, inputs)


def test_session_is_opened_once_though_its_answer_is_lost(server):
    with proxy_before(server, [Cut("server", 1), Cut("server", 1)]) as proxy, Client(proxy.url) as client:
        before = {session.id for session in client.sessions("ntm-copy", limit=10_000)}
        session = client.open("ntm-copy")
        after = {session.id for session in client.sessions("ntm-copy", limit=10_000)}
    assert after - before == {session.id}


def test_nothing_at_the_other_end_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Client(url, timeout=0.3) as client, pytest.raises(Unreachable) as told:
        client.models()
    assert str(told.value).startswith(f"{url} gave no answer within 0.3 s (")
    assert (told.value.problem["url"], told.value.problem["seconds"]) == (url, 0.3)
    assert told.value.problem["tries"] > 1
    assert isinstance(told.value.__cause__, httpx.ConnectError)


def test_silence_at_the_other_end_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.3) as client, pytest.raises(Unreachable, match="ReadTimeout"):
            client.models()


@pytest.mark.parametrize(("url", "timeout"), [("127.0.0.1:8000", 1), ("ws://127.0.0.1:8000", 1), ("http://x", 0)])
def test_client_that_cannot_be_is_refused(url, timeout):
    with pytest.raises(ValueError, match="url: expected http://HOST:PORT" if timeout else "timeout: expected seconds"):
        Client(url, timeout)


# What it does when the server is killed


class Mortal:
    """A server of one model that is killed and started again, on the same port and data."""

    def __init__(self, data: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._data = data
        self._checkpoints = data.with_name("checkpoints")
        self._checkpoints.mkdir()
        (self._checkpoints / MODEL).symlink_to(CHECKPOINTS / MODEL)
        self.server = self._start().wait_until_listening()

    def _start(self) -> Server:
        return Server("--port", str(self._port), data=self._data, checkpoints=self._checkpoints)

    def die_and_rise(self) -> None:
        """Kill the server, and start it again without waiting for it."""
        self.server.stop(signal.SIGKILL)
        self.server = self._start()


@pytest.fixture
def mortal(data: Path) -> Iterator[Mortal]:
    mortal = Mortal(data)
    try:
        yield mortal
    finally:
        mortal.server.stop()


def dying(inputs: list[np.ndarray], mortal: Mortal) -> Iterator[np.ndarray]:
    """Yield the inputs, and kill the server when half of them are taken."""
    yield from inputs[: len(inputs) // 2]
    mortal.die_and_rise()
    yield from inputs[len(inputs) // 2 :]


@pytest.mark.parametrize("way", WAYS)
def test_server_killed_and_started_again_loses_no_step_and_doubles_none(mortal, way):
    inputs = pieces(36, scale=20)
    heard = WAYS[way](mortal.server.url, dying(inputs, mortal))
    check_heard(mortal.server.wait_until_listening(), heard, inputs)
