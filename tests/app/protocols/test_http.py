"""The HTTP protocol under a real uvicorn, over raw sockets, compared with uvicorn's own."""

import asyncio
import functools
import inspect
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.protocols.http import Gone, Respond, _Cycle, answering
from tests.app.protocols.test_websocket import SECONDS, Running
from tests.waiting import until

FIELDS = b"content-length: %d\r\ncontent-type: text/plain\r\n"
OPTIONS: dict[str, Any] = {"access_log": False, "date_header": False}


class Echo:
    """Echoes bodies: of POST /hot at once, of all other requests by ASGI.

    At /hot, a body that begins with "not" is declined, and one that begins with "later" is echoed a little later; so is
    one that begins with "watched", unless its client disconnects, which is counted in `dropped`.
    """

    max_body_bytes = 1000

    def __init__(self) -> None:
        self.at_once = self.by_asgi = self.gone = self.dropped = 0
        self.held: list[Any] | None = None
        """A list: answers are kept in it until `release`."""

    def find(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> Any:
        self.headers = headers
        return self._answer if target == b"/hot" else None

    def _answer(self, body: bytes, respond: Respond) -> bool | Gone:
        if body.startswith(b"not"):
            return False
        self.at_once += 1
        answer = functools.partial(respond, 200, FIELDS % len(body), body)
        self.loop = asyncio.get_running_loop()
        if self.held is not None:
            self.held.append(answer)
        elif body.startswith(b"watched"):
            timer = self.loop.call_later(0.1, answer)
            return functools.partial(self._drop, timer)
        elif body.startswith(b"later"):
            self.loop.call_later(0.02, answer)
        else:
            answer()
        return True

    def _drop(self, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self.dropped += 1

    def release(self) -> None:
        for answer in self.held or []:
            self.loop.call_soon_threadsafe(answer)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.by_asgi += 1
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body, more = body + message["body"], message["more_body"]
        if body.startswith(b"later"):
            await asyncio.sleep(0.02)
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def echoing(**options: Any) -> Iterator[tuple[Echo, Running]]:
    echo = Echo()
    with Running(echo, http=answering(echo), **OPTIONS | options) as server:
        yield echo, server


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def lasting(request: pytest.FixtureRequest) -> Iterator[tuple[Echo, Running]]:
    with echoing(loop=request.param) as echo:
        yield echo


@pytest.fixture
def echo(lasting: tuple[Echo, Running]) -> tuple[Echo, Running]:
    """A server with all counts at 0."""
    lasting[0].__init__()  # type: ignore[misc]
    return lasting


@pytest.fixture(params=["uvloop", "asyncio"])
def own(request: pytest.FixtureRequest) -> Iterator[tuple[Echo, Running]]:
    """A server that the test may stop."""
    with echoing(loop=request.param, timeout_keep_alive=60) as echo:
        yield echo


@pytest.fixture(scope="module")
def uvicorns() -> Iterator[Running]:
    """A server of the same application with uvicorn's own protocol."""
    with Running(Echo(), http="httptools", **OPTIONS) as server:
        yield server


def post(body: bytes = b"body", *fields: bytes, target: bytes = b"/hot", length: bytes | None = None) -> bytes:
    length = b"%d" % len(body) if length is None else length
    lines = [
        b"POST %b HTTP/1.1" % target,
        b"Host: localhost",
        *([b"Content-Length: " + length] if length else []),
        *fields,
    ]
    return b"\r\n".join([*lines, b"", body])


def connect(server: Running) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_response(file: Any) -> bytes:
    """Return the bytes of one response, b"" if the connection ends."""
    lines = []
    while not lines or lines[-1] not in (b"\r\n", b""):
        lines.append(file.readline())
    head = b"".join(lines)
    if b"transfer-encoding: chunked" in head:
        return head + b"".join(_chunks(file))
    length = re.search(rb"content-length: (\d+)", head)
    return head + (file.read(int(length[1])) if length else b"")


def _chunks(file: Any) -> Iterator[bytes]:
    size = b""
    while size != b"0\r\n":
        size = file.readline()
        yield size + file.read(int(size, 16) + 2)


def exchange(server: Running, sent: bytes, count: int = 1, piece: int | None = None) -> list[bytes]:
    """Send bytes, in pieces of `piece`; return `count` responses, then all bytes after a last request."""
    with connect(server) as connection, connection.makefile("rb") as file:
        for start in range(0, len(sent), piece or len(sent)):
            connection.sendall(sent[start : start + (piece or len(sent))])
            time.sleep(0.001 if piece else 0)
        responses = [read_response(file) for _ in range(count)]
        try:
            connection.sendall(post(b"last", b"Connection: close", target=b"/last"))
            return [*responses, file.read()]
        except ConnectionError:  # closed with unread bytes
            return [*responses, b""]


CASES: dict[str, tuple[bytes, int, int]] = {
    "usual": (post(), 1, 1),
    "answered later": (post(b"later"), 1, 1),
    "the longest": (post(b"x" * 1000), 1, 1),
    "many fields": (post(b"body", *[b"X-%d: %b" % (i, b"v" * 100) for i in range(200)]), 1, 1),
    "a field of no ASCII": (post(b"body", b"X: \xff\xe9"), 1, 1),
    "fields in capitals": (post().replace(b"Content-Length", b"CONTENT-LENGTH"), 1, 1),
    "zeros before the length": (post(length=b"00000004"), 1, 1),
    "a blank line before": (b"\r\n" + post(), 1, 1),
    "pipelined": (post(b"one") + post(b"two") + post(b"three"), 3, 1),
    "pipelined behind a slow one": (post(b"later one") + post(b"two") + post(b"later three"), 3, 1),
    "pipelined behind ASGI": (post(b"later one", target=b"/") + post(b"two"), 2, 0),
    "handed back": (post(b"not this one"), 1, 0),
    "handed back, between others": (post(b"one") + post(b"not later") + post(b"three"), 3, 1),
    "too long": (post(b"x" * 1001), 1, 0),
    "another path": (post(target=b"/cold"), 1, 0),
    "a query": (post(target=b"/hot?a=b"), 1, 0),
    "a whole URL": (post(target=b"http://test/hot"), 1, 0),
    "GET with a body": (post().replace(b"POST", b"GET"), 1, 0),
    "HEAD": (b"HEAD /hot HTTP/1.1\r\nHost: test\r\n\r\n", 1, 0),
    "no body": (post(b"", length=b""), 1, 0),
    "an empty body": (post(b""), 1, 1),
    "chunked": (post(b"4\r\nbody\r\n0\r\n\r\n", b"Transfer-Encoding: chunked", length=b""), 1, 0),
    "a coding": (post(b"body", b"Content-Encoding: identity"), 1, 0),
    "close": (post(b"body", b"Connection: close"), 1, 0),
    "keep-alive": (post(b"body", b"Connection: keep-alive"), 1, 1),
    "HTTP/1.0": (post().replace(b"HTTP/1.1", b"HTTP/1.0"), 1, 0),
    "HTTP/1.0 that stays": (post(b"body", b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"), 1, 0),
    "an expectation": (post(b"body", b"Expect: 100-continue"), 2, 0),
    "another expectation": (post(b"body", b"Expect: wonders"), 1, 0),
    "an upgrade to nothing": (post(b"body", b"Upgrade: h2c"), 1, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_request_is_answered_as_by_uvicorn_byte_for_byte(echo, uvicorns, case):
    sent, count, at_once = CASES[case]
    counted, server = echo
    assert exchange(server, sent, count) == exchange(uvicorns, sent, count)
    assert counted.at_once == at_once


MALFORMED = {
    "a length that is none": post(length=b"four"),
    "a length with a sign": post(length=b"+4"),
    "two lengths": post(b"body", b"Content-Length: 5"),
    "a length and chunks": post(b"4\r\nbody\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "a field without a name": post(b"body", b": x"),
    "a folded field": post(b"body", b"X: a\r\n b"),
    "no ASCII in the path": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request_is_refused_with_a_problem(echo, uvicorns, case):
    counted, server = echo
    refused, rest = exchange(server, MALFORMED[case])
    head, _, body = refused.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == exchange(uvicorns, MALFORMED[case])[0].split(b"\r\n")[0] == b"HTTP/1.1 400 Bad Request"
    assert {b"content-type: application/problem+json", b"connection: close"} < set(lines)
    assert json.loads(body)["code"] == "malformed_request"
    assert (rest, counted.at_once, counted.by_asgi) == (b"", 0, 0)


def test_malformed_request_behind_another_is_refused_after_its_answer(echo):
    counted, server = echo
    answered, refused, _ = exchange(server, post(b"later") + b"POST\r\n\r\n", 2)
    assert answered.endswith(b"later")
    assert b"malformed_request" in refused
    assert counted.at_once == 1


def test_bytes_behind_a_body_are_no_request(echo):
    _, server = echo
    answered, refused, _ = exchange(server, post(b"later and more\r\n\r\n", length=b"5"), 2)
    assert answered.endswith(b"later")
    assert b"malformed_request" in refused


@pytest.mark.parametrize("piece", [1, 7, 40])
@pytest.mark.parametrize(
    "case",
    ["usual", "a blank line before", "answered later", "pipelined", "pipelined behind a slow one", "handed back"],
)
def test_request_in_segments_has_the_same_answer(echo, uvicorns, case, piece):
    sent, count, at_once = CASES[case]
    counted, server = echo
    assert exchange(server, sent, count, piece) == exchange(uvicorns, sent, count)
    assert counted.at_once >= at_once


def test_requests_on_one_connection_make_no_task(echo):
    counted, server = echo
    with connect(server) as connection, connection.makefile("rb") as file:
        for number in range(500):
            connection.sendall(post(b"later %d" % number if number % 100 == 0 else b"%d" % number))
            assert read_response(file).endswith(b"%d" % number)
    assert (counted.at_once, counted.by_asgi) == (500, 0)


def test_answer_at_once_is_found_by_target_and_all_fields(echo):
    counted, server = echo
    exchange(server, post(b"body", b"X-Twice: 1", b"x-twice: 2"))
    names = [b"host", b"content-length", b"x-twice", b"x-twice"]
    assert [name for name, _ in counted.headers] == names
    assert [value for _, value in counted.headers][2:] == [b"1", b"2"]


def test_upgrade_makes_a_websocket(echo):
    _, server = echo
    sent = post(b"", b"Upgrade: websocket", b"Connection: Upgrade", length=b"").replace(b"POST", b"GET")
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(sent)
        assert b"Sec-WebSocket-Key" in file.read()


@pytest.mark.parametrize("sent", [post(b"bo", length=b"4"), post(b"", length=b"4")])
def test_disconnect_before_the_body_reaches_the_application(echo, sent):
    counted, server = echo
    with connect(server) as connection:
        connection.sendall(sent)
        time.sleep(0.1)
        assert counted.by_asgi == 0
    until(lambda: counted.gone)
    assert (counted.at_once, counted.by_asgi, counted.gone) == (0, 1, 1)


def test_answer_to_a_disconnected_client_is_dropped(own, caplog):
    counted, server = own
    counted.held = []
    with connect(server) as connection:
        connection.sendall(post())
        until(lambda: counted.held)
    until(lambda: not server.server.server_state.connections)
    counted.release()
    time.sleep(0.1)
    assert server.server.server_state.total_requests == 0
    assert not caplog.records


def stop_while(server: Running, meanwhile: Any) -> None:
    """Stop a server; call `meanwhile` after its connections have begun to stop."""
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    until(lambda: not server.server.servers[0].is_serving())
    time.sleep(0.1)
    meanwhile()
    stopping.join(SECONDS)
    assert not stopping.is_alive()


def test_stop_answers_a_request_in_work_and_then_closes(own, caplog):
    counted, server = own
    counted.held = []
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(post())
        until(lambda: counted.held)
        stop_while(server, counted.release)
        assert b"connection: close\r\n\r\nbody" in file.read()
    assert "timeout" not in caplog.text


@pytest.mark.parametrize(("body", "at_once"), [(b"body", 1), (b"not this one", 0)])
def test_stop_answers_a_request_whose_body_still_arrives(own, body, at_once):
    counted, server = own
    sent = post(body)
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(sent[:-2])
        time.sleep(0.1)
        stop_while(server, lambda: connection.sendall(sent[-2:]))
        assert b"connection: close\r\n\r\n" + body in file.read()
    assert counted.at_once == at_once


def test_stop_closes_a_connection_that_was_answered(own):
    _, server = own
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(post())
        read_response(file)
        server.stop()
        assert file.read() == b""


def test_idle_connection_is_closed_after_the_timeout():
    echo = Echo()
    running = Running(echo, http=answering(echo), timeout_keep_alive=1, **OPTIONS)
    with running as server, connect(server) as connection, connection.makefile("rb") as file:
        for _ in range(4):
            connection.sendall(post(b"later"))
            assert read_response(file).endswith(b"later")
            time.sleep(0.4)
        assert file.read() == b""
    assert (echo.at_once, echo.by_asgi) == (4, 0)


def test_client_that_does_not_read_is_not_sent_more():
    echo, body = Echo(), b"x" * 60_000
    echo.max_body_bytes = 2**16 - 1
    with Running(echo, http=answering(echo), **OPTIONS) as server, connect(server) as connection:
        threading.Thread(target=connection.sendall, args=(post(body) * 500,)).start()
        time.sleep(1)
        assert 0 < echo.at_once + echo.by_asgi < 400
        assert echo.by_asgi, "uvicorn's flow control handles it"
        with connection.makefile("rb") as file:
            for _ in range(500):
                assert read_response(file).endswith(body)


@pytest.mark.parametrize(
    "options",
    [{"access_log": True}, {"limit_concurrency": 1000}, {"root_path": "/below"}],
    ids=lambda value: str(value),
)
def test_settings_that_uvicorn_must_handle_leave_all_to_asgi(options, caplog):
    caplog.set_level("INFO", "uvicorn.access")
    echo = Echo()
    with Running(echo, http=answering(echo), **OPTIONS | options) as server:
        exchange(server, post())
    assert (echo.at_once, echo.by_asgi) == (0, 2)
    assert ("POST /hot HTTP/1.1" in caplog.text) is ("access_log" in options)


def test_default_fields_are_those_of_uvicorn():
    echo, options = Echo(), {"access_log": False, "headers": [("X-More", "1")]}
    with Running(echo, http=answering(echo), **options) as ours, Running(echo, **options) as uvicorns:
        responses = [exchange(server, post())[0] for server in (ours, uvicorns)]
    assert echo.at_once == 1
    dates = [
        re.search(rb"\r\ndate: [^\r]+ GMT\r\nserver: uvicorn\r\nx-more: 1\r\n", response) for response in responses
    ]
    assert all(dates)
    assert len({re.sub(rb"date: [^\r]+", b"", response) for response in responses}) == 1


def test_cycle_has_every_attribute_that_uvicorn_uses():
    source = inspect.getsource(HttpToolsProtocol)
    used = set(re.findall(r"cycle\.(\w+)", source)) - {"run_asgi"}
    assert used == set(vars(_Cycle())) | {"message_event"}, (
        "uvicorn's protocol uses other things of `cycle`: see _Cycle"
    )
    assert used <= set(re.findall(r"self\.(\w+)(?::| =)", inspect.getsource(RequestResponseCycle))), (
        "_hand_over sets them"
    )


def test_uvicorn_has_every_attribute_that_the_protocol_uses():
    source = inspect.getsource(HttpToolsProtocol)
    for name in ("parser", "flow", "headers", "url", "cycle"):
        assert re.search(rf"self\.{name}\b[^=]*= ", source), (
            f"uvicorn's protocol has no {name}: see app/protocols/http.py"
        )
    for name in (
        "on_headers_complete",
        "on_message_complete",
        "on_response_complete",
        "connection_lost",
        "data_received",
    ):
        assert callable(getattr(HttpToolsProtocol, name, None)), f"uvicorn's protocol has no {name}()"


def test_disconnect_before_the_response_is_reported_once(echo):
    counted, server = echo
    with connect(server) as connection:
        connection.sendall(post(b"watched"))
        until(lambda: counted.at_once == 1)
    until(lambda: counted.dropped == 1)


def test_disconnect_after_the_response_is_not_reported(echo):
    counted, server = echo
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(post(b"watched"))
        assert read_response(file).endswith(b"watched")
    assert exchange(server, post(b"next"))[0].endswith(b"next")
    assert counted.dropped == 0
