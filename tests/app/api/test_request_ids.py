"""Ids of requests, the access log, and a log without tracebacks of what clients did: on real servers."""

import asyncio
import json
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import connect

from app.access.keys import new_key
from app.api.request_ids import IdentifyRequests
from app.metrics import Metrics
from app.stores.sqlite import SqliteKeyStore
from tests.app.harness import Server, running_server
from tests.waiting import until

STEP = {"inputs": [[0.5] * 10]}
SECRET = 0.123456789


@pytest.fixture(scope="module", params=["text", "json"])
def logging_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, few: Path
) -> Iterator[Any]:
    """A server that logs every request, in both formats."""
    options = ["--access-log", "--log-format", request.param, "--log-level", "debug", "--max-body-bytes", "200000"]
    data = tmp_path_factory.mktemp("logging") / "data"
    with running_server(*options, data=data, checkpoints=few) as server:
        server.is_json = request.param == "json"  # type: ignore[attr-defined]
        yield server


def logged(server: Any, identity: str) -> Any:
    """Return the event of the access log with this id, or its line."""

    def find() -> Any:
        lines = [line for line in server.log.splitlines() if identity in line and "status" in line]
        return lines and (json.loads(lines[0]) if server.is_json else lines[0])

    return until(find)


# Ids


@pytest.mark.parametrize("given", ["a", "A-1_z.9", "x" * 128])
def test_valid_id_of_a_client_is_answered(client, given):
    for response in (
        client.get("/models", headers={"X-Request-ID": given}),
        client.get("/no", headers={"X-Request-ID": given}),
    ):
        assert response.headers.get_list("x-request-id") == [given]
    assert response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "ä", "a/b", "a\tb", "a,b", '"a"', "%0a"])
def test_invalid_id_is_replaced(client, given):
    headers = [(b"X-Request-ID", given.encode("latin-1"))]
    response = client.get("/no", headers=headers)
    assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"])
    assert response.json()["request_id"] == response.headers["x-request-id"]


REQUESTS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "a page": ("GET", "/", {}, 200),
    "a route": ("GET", "/healthz", {}, 200),
    "a head": ("HEAD", "/models", {}, 200),
    "options": ("OPTIONS", "/models", {}, 204),
    "no route": ("GET", "/none", {}, 404),
    "a wrong method": ("PUT", "/models", {}, 405),
    "a plain request for a stream": ("GET", "/stream", {}, 426),
    "no JSON": ("POST", "/infer", {"content": b"{"}, 400),
    "no inputs": ("POST", "/infer", {"json": {"model": "dnc-copy"}}, 422),
    "too much": ("POST", "/infer", {"content": b" " * 300_000}, 413),
    "a coding": ("POST", "/infer", {"content": b"x", "headers": {"Content-Encoding": "br"}}, 415),
    "a sequence": ("POST", "/infer", {"json": {"model": "dnc-copy", **STEP}}, 200),
    "no session": ("POST", "/sessions/none/steps", {"json": STEP}, 404),
    "metrics": ("GET", "/metrics", {}, 200),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_every_response_has_an_id(client, case):
    method, path, more, status = REQUESTS[case]
    response = client.request(method, path, **more)
    assert response.status_code == status
    assert len(response.headers.get_list("x-request-id")) == 1
    if status >= 400:
        assert response.json()["request_id"] == response.headers["x-request-id"]


def test_step_answered_at_once_has_an_id_of_its_own(client):
    session = client.post("/sessions", json={"model": "dnc-copy"}).json()["id"]
    found = [client.post(f"/sessions/{session}/steps", json=STEP).headers["x-request-id"] for _ in range(3)]
    assert len(set(found)) == 3
    given = client.post(f"/sessions/{session}/steps", json=STEP, headers={"X-Request-ID": "mine"})
    assert (given.headers["x-request-id"], given.json()["step"]) == ("mine", 4)


@pytest.mark.parametrize("given", [None, "mine"])
def test_handshake_of_a_websocket_has_an_id(server, given):
    headers = {} if given is None else {"X-Request-ID": given}
    with connect(f"{server.socket_url}/stream?model=none", additional_headers=headers) as stream:
        answered = stream.response.headers["x-request-id"]
        document = json.loads(stream.recv())
    assert document["request_id"] == answered
    assert answered == (given or answered)


# The access log


def test_request_is_logged_with_route_status_seconds_and_bytes(logging_server):
    response = httpx.get(f"{logging_server.url}/models/dnc-copy", headers={"X-Request-ID": "logged-1"})
    found = logged(logging_server, "logged-1")
    if not logging_server.is_json:
        assert "method=GET route=/models/{name} status=200 seconds=0." in found
        return
    assert (found["method"], found["route"], found["status"]) == ("GET", "/models/{name}", 200)
    assert (found["bytes"], found["request_id"]) == (len(response.content), "logged-1")
    assert 0 < found["seconds"] < 60


def test_step_is_logged_with_its_session_and_without_its_inputs(logging_server):
    url = logging_server.url
    session = httpx.post(f"{url}/sessions", json={"model": "dnc-copy"}).json()["id"]
    for number, inputs in enumerate(([[SECRET] * 10], [[SECRET] * 9], [["0.123456789"]])):
        name = f"step-{number}"
        httpx.post(f"{url}/sessions/{session}/steps", json={"inputs": inputs}, headers={"X-Request-ID": name})
        found = logged(logging_server, name)
        assert session in (found["session"] if logging_server.is_json else found)
    assert "12345678" not in logging_server.log


def test_usual_step_is_logged_and_not_answered_at_once(logging_server):
    url = logging_server.url
    session = httpx.post(f"{url}/sessions", json={"model": "dnc-copy"}).json()["id"]
    answered = [httpx.post(f"{url}/sessions/{session}/steps", json=STEP).headers["x-request-id"] for _ in range(2)]
    assert all(logged(logging_server, identity) for identity in answered)


def test_websocket_is_logged_with_its_close_code(logging_server):
    headers = {"X-Request-ID": "socket-1"}
    with connect(f"{logging_server.socket_url}/stream?model=dnc-copy", additional_headers=headers) as stream:
        session = json.loads(stream.recv())["session"]
        stream.close(4001)
    found = logged(logging_server, "socket-1")
    if logging_server.is_json:
        assert (found["method"], found["route"], found["status"]) == ("WEBSOCKET", "/stream", 101)
        assert (found["close_code"], found["session"]) == (4001, session)
    else:
        assert "close_code=4001" in found


def test_stream_of_a_tenant_is_logged_with_its_clients_id(tmp_path, few):
    key, token = new_key("lab")
    SqliteKeyStore(tmp_path).add(key)
    headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "lab-1"}
    with running_server("--access-log", "--log-format", "json", data=tmp_path, checkpoints=few) as server:
        with connect(f"{server.socket_url}/stream?model=dnc-copy", additional_headers=headers) as stream:
            session = json.loads(stream.recv())["session"]
        server.is_json = True  # type: ignore[attr-defined]
        assert logged(server, "lab-1")["session"] == session


def test_header_fields_and_queries_are_in_no_line(logging_server):
    headers = {"Authorization": "Bearer hidden-key", "X-Request-ID": "hidden-1"}
    httpx.get(f"{logging_server.url}/models", headers=headers)
    url = f"{logging_server.socket_url}/stream?model=dnc-copy&token=hidden-key"
    with connect(url, additional_headers=headers) as stream:
        stream.recv()
    logged(logging_server, "hidden-1")
    assert "hidden-key" not in logging_server.log


@pytest.mark.parametrize(
    "forged", ["%0a2026-01-01 forged", "%1b%5b31mforged", "%c2%85forged", "%e2%80%a8forged", "%ff%00forged"]
)
def test_path_of_a_client_begins_no_line(logging_server, forged):
    httpx.get(f"{logging_server.url}/none/{forged}", headers={"X-Request-ID": "forged"})
    until(lambda: forged[-6:] in logging_server.log)
    text = logging_server.log
    assert not set(text) & set("\x00\x1b\x85\u2028")
    assert [line for line in text.splitlines() if re.match(r"[^{\w]|\d+-01-01|forged", line)] == []


# Rude clients


def upgrade(
    target: bytes = b"/stream?model=dnc-copy", *fields: bytes, key: bytes = b"dGhlIHNhbXBsZSBub25jZQ=="
) -> bytes:
    lines = [b"GET %b HTTP/1.1" % target, b"Host: x", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + key, *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(body: bytes, target: bytes = b"/infer", *fields: bytes) -> bytes:
    head = [b"POST %b HTTP/1.1" % target, b"Host: x", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def masked(opcode: int, payload: bytes) -> bytes:
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


RUDE: dict[str, bytes] = {
    "nothing": b"",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "half a head": b"GET /models HTTP/1.1\r\nHost: x\r\nX: ",
    "half a body": post(b'{"model": "dnc-copy", "inp')[:-9] + b"x",
    "a body that is announced and does not come": post(b"x" * 100)[:-100],
    "bytes above ASCII in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "percent-encoded bytes of no UTF-8": b"GET /sessions/%ff%fe/state HTTP/1.1\r\nHost: x\r\n\r\n",
    "a NUL in the path": b"GET /sessions/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a surrogate in the path": b"GET /sessions/%ed%a0%80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no UTF-8 in the query": b"GET /sessions?limit=%ff&after=%ed%a0%80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes above ASCII in the query": b"GET /sessions?limit=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a percent": b"GET /sessions/%/state?step=%f HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target": b"GET http://a:b@c:99999/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target that is broken": b"GET http://[::1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "a broken host": b"GET /none HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "a broken host and an error": post(b"{", b"/infer").replace(b"Host: x", b"Host: [[["),
    "no host": b"GET /models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "bytes above ASCII in fields": b"GET /models HTTP/1.1\r\nHost: \xff\r\nX-Request-ID: \xff\r\n\r\n",
    "an Accept without sense": b"GET /sessions/x/state HTTP/1.1\r\nHost: x\r\nAccept: ;;q=,/\r\n\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of no name": b"HELLO / HTTP/1.1\r\nHost: x\r\n\r\n",
    "another upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "two lengths": b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a negative length": b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a huge length": b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "length and chunks": post(b"0\r\n\r\n", b"/infer", b"Transfer-Encoding: chunked"),
    "broken chunks": b"POST /infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "half a chunk": b"POST /infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx",
    "no gzip": post(b"x", b"/infer", b"Content-Encoding: gzip"),
    "a coding of no ASCII": post(b"x", b"/infer", b"Content-Encoding: \xff"),
    "no UTF-8": post(b'{"model": "\xff\xfe"}'),
    "a lone surrogate": post(b'{"model": "\\ud800", "inputs": [[1]]}'),
    "a NUL": post(b'{"model": "\\u0000", "inputs": [[1]]}'),
    "deep lists": post(b'{"model": "dnc-copy", "inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep msgpack": post(b"\x91" * 60_000, b"/steps", b"Content-Type: application/msgpack"),
    "no msgpack": post(b"\xc1\xff", b"/steps", b"Content-Type: application/msgpack"),
    "a large number": post(b'{"model": "dnc-copy", "inputs": [[' + b"9" * 5000 + b"]]}"),
    "no snapshot": post(b"\xff" * 100, b"/sessions", b"Content-Type: application/x-safetensors"),
    "a session of a surrogate": post(b'{"sessions": ["\\u0000"], "inputs": [[[1]]]}', b"/steps"),
    "a stream of nothing": upgrade(b"/none"),
    "a stream at a path above ASCII": upgrade(b"/\xff"),
    "a stream at a path of no UTF-8": upgrade(b"/%ff%00/stream"),
    "a stream with a query above ASCII": upgrade(b"/stream?model=\xff"),
    "a stream with a broken host": upgrade().replace(b"Host: x", b"Host: [::1"),
    "a stream with a field above ASCII": upgrade(b"/stream?model=dnc-copy", b"X: \xff"),
    "a stream with a protocol above ASCII": upgrade(b"/stream?model=dnc-copy", b"Sec-WebSocket-Protocol: \xff"),
    "a stream with two protocols": upgrade(b"/stream", b"Sec-WebSocket-Protocol: ,,", b"Sec-WebSocket-Protocol: a"),
    "a stream with extensions without sense": upgrade(b"/stream", b"Sec-WebSocket-Extensions: ;=;\xff"),
    "a stream with an origin above ASCII": upgrade(b"/stream", b"Origin: \xff"),
    "a stream with two origins": upgrade(b"/stream", b"Origin: a", b"Origin: b"),
    "a stream without a key": upgrade(key=b""),
    "a stream with a key above ASCII": upgrade(key=b"\xff" * 24),
    "a stream by POST": upgrade().replace(b"GET", b"POST"),
    "a stream of HTTP/1.0": upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a stream of another version": upgrade().replace(b": 13", b": 99"),
    "frames before the greeting": upgrade() + masked(1, b"{}") * 3,
    "a frame without a mask": upgrade() + b"\x81\x02{}",
    "a frame of no opcode": upgrade() + masked(7, b"x"),
    "a frame of no UTF-8": upgrade() + masked(1, b"\xff\xfe"),
    "a frame of no JSON": upgrade() + masked(1, b"{"),
    "a binary frame": upgrade() + masked(2, b"x"),
    "half a frame": upgrade() + b"\x81\xfe\xff",
    "a close of a wrong code": upgrade() + masked(8, struct.pack("!H", 1)),
    "a close of no UTF-8": upgrade() + masked(8, b"\x03\xe8\xff\xfe"),
    "a close of one byte": upgrade() + masked(8, b"x"),
    "a fragmented ping": upgrade() + b"\x09\x80\0\0\0\0",
}


@pytest.fixture(scope="module")
def rude_server(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("rude") / "data"
    with running_server("--log-level", "debug", "--max-body-bytes", "400000", data=data, checkpoints=few) as server:
        yield server


def send(server: Server, data: bytes, waits: bool, resets: bool) -> None:
    """Send bytes on a connection of its own; wait for a part of the answer; close, or reset the connection."""
    place = urlsplit(server.url)
    with closing(socket.create_connection((place.hostname, place.port), timeout=5)) as connection:
        if resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(data)
        connection.settimeout(0.3)
        try:
            while waits and connection.recv(65536):
                pass
        except (TimeoutError, ConnectionError):
            pass


@pytest.mark.parametrize("resets", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("waits", [True, False], ids=["waits", "leaves"])
@pytest.mark.parametrize("case", RUDE)
def test_rude_client_leaves_no_traceback(rude_server, case, waits, resets):
    before = len(rude_server.log)
    send(rude_server, RUDE[case], waits, resets)
    assert httpx.get(f"{rude_server.url}/readyz", timeout=30).status_code == 200
    new = rude_server.log[before:]
    assert "Traceback" not in new
    assert [line for line in new.splitlines() if re.search(" (ERROR|CRITICAL) ", line)] == []


def test_disconnect_within_a_large_answer_leaves_no_traceback(rude_server):
    body = json.dumps({"model": "dnc-copy", "inputs": [[0.5] * 10] * 400, "trace": ["link"]}).encode()
    for waits in (False, True):
        send(rude_server, post(body), waits, True)
    assert httpx.get(f"{rude_server.url}/readyz", timeout=30).status_code == 200
    assert "Traceback" not in rude_server.log


# Odd cases of ASGI


def through_middleware(
    kind: str, error: BaseException, *first: dict[str, Any], access_log: bool = False, **put: Any
) -> list[dict[str, Any]]:
    """Return what is sent for a request whose application puts items into the scope, sends `first`, then raises."""
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope.update(put)
        for message in first:
            await send(message)
        raise error

    async def send_on(message: Any) -> None:
        sent.append(message)

    state = SimpleNamespace(state=SimpleNamespace(metrics=Metrics()))
    scope = {"type": kind, "path": "/x", "headers": [], "app": state, "extensions": {"websocket.http.response": {}}}
    asyncio.run(IdentifyRequests(application, access_log)(scope, None, send_on))  # type: ignore[arg-type]
    return sent


ACCEPT = {"type": "websocket.accept"}
START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize("gone", [ClientDisconnect(), WebSocketDisconnect(1006)], ids=repr)
@pytest.mark.parametrize(("kind", "first"), [("http", [START]), ("http", []), ("websocket", [ACCEPT])])
def test_client_that_disconnects_is_not_logged(caplog, kind, first, gone):
    assert len(through_middleware(kind, gone, *first)) == len(first)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("kind", "first", "answer"),
    [
        ("http", [], "http.response.start"),
        ("http", [START], "http.response.start"),
        ("websocket", [], "websocket.http.response.start"),
        ("websocket", [ACCEPT], "websocket.accept"),
    ],
)
def test_unexpected_error_is_logged_once_and_answered_with_an_id(caplog, kind, first, answer):
    sent = through_middleware(kind, ZeroDivisionError("x"), *first)
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]
    assert sent[0]["type"] == answer
    assert dict(sent[0]["headers"])[b"x-request-id"]
    if not first:
        assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (500, "internal_error")
    elif kind == "websocket":
        assert (sent[1]["type"], sent[1]["code"]) == ("websocket.close", 1011)


@pytest.mark.parametrize(("kind", "status"), [("http", 499), ("websocket", 499)])
def test_caller_and_gone_client_are_in_the_access_log(caplog, kind, status):
    caplog.set_level("INFO")
    caller = SimpleNamespace(tenant="acme", key_id="k1", secret="hidden")
    through_middleware(kind, ClientDisconnect(), access_log=True, caller=caller)
    [record] = caplog.records
    fields = record.fields
    assert (fields["tenant"], fields["key_id"], fields["status"], fields["path"]) == ("acme", "k1", status, "/x")
    assert "hidden" not in record.getMessage()
