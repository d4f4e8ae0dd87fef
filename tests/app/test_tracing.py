"""Traces of requests: real servers send them to a real collector, which may also hang or be gone."""

import gc
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from websockets.sync.client import connect

from app.engine.run import Run
from app.errors import StepFailed
from app.settings import Settings, SettingsError
from app.tracing import RequestTrace, open_tracing, session_hash
from tests.app.harness import ROOT, Server, running_server

STEP = {"inputs": [[0.5] * 10]}
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
SMALL = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
PHASES = ["receive", "queue", "tick", "commit", "send"]
ROUTE = "POST /sessions/{session}/steps"


class Collector:
    """A collector of OpenTelemetry: it receives spans over HTTP, and keeps them."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.receive(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def receive(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def servers(self, **expected: Any) -> list[Any]:
        """Return the server spans with these attributes, dots of names as double underscores."""
        wanted = {name.replace("__", "."): value for name, value in expected.items()}
        return [
            one
            for one in list(self.spans)
            if one.kind == one.SPAN_KIND_SERVER and wanted.items() <= attributes(one).items()
        ]

    def wait(self, **expected: Any) -> Any:
        """Return the only server span with these attributes, once it has come with its children."""
        end = time.monotonic() + 20
        while not self.servers(**expected) and time.monotonic() < end:
            time.sleep(0.02)
        [found] = self.servers(**expected)
        return found

    def children(self, span: Any) -> list[Any]:
        return [one for one in self.spans if one.parent_span_id == span.span_id]


def attributes(one: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in one.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("traced") / "data"
    with running_server("--otel-endpoint", collector.url, data=data, checkpoints=few, **SOON) as server:
        yield server


def open_session(server: Server) -> str:
    session: str = httpx.post(f"{server.url}/sessions", json={"model": "dnc-copy"}).json()["id"]
    return session


def step(server: Server, session: str, identity: str, **headers: str) -> httpx.Response:
    url = f"{server.url}/sessions/{session}/steps"
    return httpx.post(url, json=STEP, headers={"X-Request-ID": identity, **headers})


def check_nested(collector: Collector, span: Any, phases: list[str]) -> None:
    """Check the names of a span's children, that they follow each other, and that they are within it."""
    children = sorted(collector.children(span), key=lambda one: (one.start_time_unix_nano, phases.index(one.name)))
    assert [one.name for one in children] == phases
    assert {one.trace_id for one in children} == {span.trace_id}
    moments = [moment for one in children for moment in (one.start_time_unix_nano, one.end_time_unix_nano)]
    assert moments == sorted(moments)
    assert (moments[0], moments[-1]) == (span.start_time_unix_nano, span.end_time_unix_nano)
    assert abs(span.end_time_unix_nano / 1e9 - time.time()) < 60


def test_step_has_a_span_of_each_phase(traced, collector):
    session = open_session(traced)
    step(traced, session, "step-1")
    span = collector.wait(engram__request_id="step-1")
    assert span.name == ROUTE
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/sessions/{session}/steps",
        "http.response.status_code": 200,
        "engram.model": "dnc-copy",
        "engram.session": session_hash(session),
        "engram.tenant": "default",
        "engram.request_id": "step-1",
    }
    check_nested(collector, span, PHASES)
    assert collector.resources[0]["service.name"] == "engram"


def test_ids_of_sessions_leave_no_server(traced, collector):
    session = open_session(traced)
    step(traced, session, "step-2")
    collector.wait(engram__request_id="step-2")
    assert not [one for one in collector.spans if session in str(one)]


def test_span_continues_the_trace_of_its_client(traced, collector):
    step(traced, open_session(traced), "step-3", traceparent=f"00-{TRACE}-{PARENT}-01")
    span = collector.wait(engram__request_id="step-3")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    check_nested(collector, span, PHASES)


@pytest.mark.parametrize("given", ["", "x", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "\xff", "0" * 5000])
def test_traceparent_that_is_not_valid_begins_a_trace(traced, collector, given):
    identity = f"odd-{len(given)}-{ord((given + '.')[0])}"
    headers = {b"traceparent": given.encode("latin-1"), b"x-request-id": identity.encode()}
    assert httpx.get(f"{traced.url}/models", headers=headers).status_code == 200
    span = collector.wait(engram__request_id=identity)
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE


def test_trace_that_its_client_does_not_sample_is_not_sent(traced, collector):
    session = open_session(traced)
    step(traced, session, "unsampled", traceparent=f"00-{TRACE}-{PARENT}-00")
    step(traced, session, "sampled", traceparent=f"00-{TRACE}-{PARENT}-01")
    collector.wait(engram__request_id="sampled")
    assert collector.servers(engram__request_id="unsampled") == []


@pytest.mark.parametrize(
    ("identity", "body", "status", "phases"),
    [
        ("infer", {"model": "dnc-copy", **STEP}, 200, ["receive", "queue", "tick", "send"]),
        ("many", {"model": "dnc-copy", "inputs": [STEP["inputs"]] * 5}, 200, ["receive", "queue", "tick", "send"]),
        ("refused", {"model": "dnc-copy", "inputs": [[1]]}, 422, []),
    ],
)
def test_sequence_has_spans_of_its_phases(traced, collector, identity, body, status, phases):
    httpx.post(f"{traced.url}/infer", json=body, headers={"X-Request-ID": identity})
    span = collector.wait(engram__request_id=identity)
    assert (span.name, attributes(span)["http.response.status_code"]) == ("POST /infer", status)
    assert span.status.code == span.status.STATUS_CODE_UNSET
    if phases:
        check_nested(collector, span, phases)
    else:
        assert collector.children(span) == []


@pytest.mark.slow
def test_step_of_a_session_that_is_restored_has_its_phases(tmp_path, few, collector):
    with running_server(data=tmp_path / "data", checkpoints=few) as server:
        session = open_session(server)
        for _ in range(3):
            step(server, session, "before")
    with running_server("--otel-endpoint", collector.url, data=tmp_path / "data", checkpoints=few, **SOON) as server:
        assert step(server, session, "restored").json()["step"] == 4
        check_nested(collector, collector.wait(engram__request_id="restored"), PHASES)


def test_request_of_many_sessions_has_one_span_a_phase(traced, collector):
    sessions = [open_session(traced) for _ in range(3)]
    body = {"sessions": sessions, "inputs": [STEP["inputs"]] * 3}
    httpx.post(f"{traced.url}/steps", json=body, headers={"X-Request-ID": "three"})
    check_nested(collector, collector.wait(engram__request_id="three"), PHASES)


def test_each_frame_of_a_stream_has_a_span(traced, collector):
    headers = {"X-Request-ID": "stream-1", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    with connect(f"{traced.socket_url}/stream?model=dnc-copy", additional_headers=headers) as stream:
        session = json.loads(stream.recv())["session"]
        for _ in range(3):
            stream.send(json.dumps(STEP))
            stream.recv()
        stream.send("{")
        assert json.loads(stream.recv())["code"] == "malformed_body"
    collector.wait(engram__request_id="stream-1", error__type="malformed_body")
    frames = [one for one in collector.servers(engram__request_id="stream-1") if "error.type" not in attributes(one)]
    assert [one.name for one in frames] == ["WEBSOCKET /stream"] * 3
    for one in frames:
        assert (one.trace_id.hex(), one.parent_span_id.hex()) == (TRACE, PARENT)
        assert attributes(one)["engram.session"] == session_hash(session)
        check_nested(collector, one, PHASES)


def test_each_frame_of_many_sessions_has_a_span(traced, collector):
    sessions = ",".join(open_session(traced) for _ in range(2))
    headers = {"X-Request-ID": "streams-1"}
    url = f"{traced.socket_url}/streams?open={sessions}"
    with connect(url, subprotocols=["engram.msgpack"], additional_headers=headers) as stream:  # type: ignore[list-item]
        stream.recv()
        stream.send(msgpack.packb({"sessions": [0, 1], "inputs": [STEP["inputs"]] * 2}))
        stream.recv()
        check_nested(collector, collector.wait(engram__request_id="streams-1"), PHASES)


def test_routes_and_methods_of_clients_are_not_names_of_spans(traced, collector):
    httpx.request("PURGE", f"{traced.url}/made-up", headers={"X-Request-ID": "odd"})
    span = collector.wait(engram__request_id="odd")
    assert (span.name, "made-up" in str(span), "PURGE" in str(span)) == ("other other", False, False)


# The times of a request


def a_run(trace: RequestTrace, logged: bool = False) -> Run:
    """Return a run that was submitted and waits."""
    run = Run([0], None, np.ones((1, 1, 2), np.float32), (), lambda _: None, [object()] if logged else None)
    trace.note_submitted("m", [run])
    return run


def finish(run: Run, hangs: bool = False) -> None:
    run.began = time.perf_counter()
    run.since = run.since if hangs else time.perf_counter()
    run.done(StepFailed("x"))


CASES: dict[str, tuple[Any, list[str]]] = {
    "no run": (lambda trace: None, []),
    "a run that is not answered": (lambda trace: a_run(trace), ["receive", "queue", "send"]),
    "a run without a batch": (lambda trace: a_run(trace).done(StepFailed("x")), ["receive", "queue", "send"]),
    "a run": (lambda trace: finish(a_run(trace)), ["receive", "queue", "tick", "send"]),
    "a logged run": (lambda trace: finish(a_run(trace, logged=True)), PHASES),
    "a run that hangs": (lambda trace: finish(a_run(trace), hangs=True), ["receive", "queue", "tick", "send"]),
    "two runs": (
        lambda trace: [finish(run) for run in (a_run(trace), a_run(trace))],
        ["receive", "queue", "tick", "send"],
    ),
    "one of two": (lambda trace: (a_run(trace), finish(a_run(trace))), ["receive", "queue", "tick", "send"]),
}


@pytest.mark.parametrize("case", CASES)
def test_phases_follow_each_other_from_beginning_to_end(case):
    work, names = CASES[case]
    trace = RequestTrace(None)
    work(trace)
    ended = time.perf_counter()
    phases = list(trace.phases(ended))
    assert [name for name, _, _ in phases] == names
    moments = [moment for _, first, last in phases for moment in (first, last)]
    assert moments == sorted(moments)
    if phases:
        assert (moments[0], moments[-1]) == (trace.began, ended)
        assert moments[1:-1:2] == moments[2::2], "each begins where the last one ends"


def test_answered_run_and_its_trace_are_no_cycle():
    gc.disable()
    try:
        trace = RequestTrace(None)
        run = a_run(trace)
        run.done(StepFailed("x"))
        gone = weakref.ref(trace)
        del trace, run
        assert gone() is None
    finally:
        gc.enable()


# Collectors that hang or are gone


@contextmanager
def hanging() -> Iterator[str]:
    """Give the URL of a collector that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def gone() -> Iterator[str]:
    """Give a URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
@pytest.mark.parametrize("collecting", [hanging, gone])
def test_collector_that_does_not_answer_holds_neither_steps_nor_stop(data, few, collecting):
    with collecting() as url:
        server = Server("--otel-endpoint", url, data=data, checkpoints=few, **SMALL, **SOON)
        server.wait_until_listening()
        session = open_session(server)
        with httpx.Client(base_url=server.url) as client:
            for _ in range(300):
                assert client.post(f"/sessions/{session}/steps", json=STEP).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=8) == -signal.SIGTERM
    assert "Traceback" not in server.log
    assert len(server.log.splitlines()) < 40


# Off


@pytest.mark.slow
def test_server_without_an_endpoint_imports_no_sdk(tmp_path):
    code = (
        "import sys; from app.main import create_app; from app.settings import Settings; import app.server\n"
        f"create_app(Settings(checkpoints={str(ROOT / 'checkpoints')!r}, data={str(tmp_path)!r}, store='memory'))\n"
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment).returncode == 0


@pytest.mark.slow
def test_variable_of_opentelemetry_names_a_collector_too(collector, few, data):
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "mine", **SOON}
    with running_server(data=data, checkpoints=few, **environment) as server:
        step(server, open_session(server), "by-variable")
        collector.wait(engram__request_id="by-variable")
    assert "mine" in [one["service.name"] for one in collector.resources]


def test_missing_package_is_named_with_its_command(monkeypatch):
    for name in ("opentelemetry", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=r"otel_endpoint: .*pip install -c constraints.txt -e '.\[otel\]'"):
        open_tracing(Settings(otel_endpoint="http://127.0.0.1:4318"))


@pytest.mark.parametrize("given", ["", "127.0.0.1:4318", "grpc://x", "http://", "http:// x"])
def test_endpoint_that_is_no_url_is_refused(given):
    with pytest.raises(ValueError, match="otel_endpoint"):
        Settings(otel_endpoint=given)
