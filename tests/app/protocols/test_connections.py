"""The limits of connections under a real uvicorn, over raw sockets, with small settings."""

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest

from app.protocols.connections import LEAST_RATE, MAX_LINGERING, Connections, Limits, is_loopback, network_of
from app.protocols.http import MAX_PIECES, HttpProtocol, answering
from app.protocols.websocket import EXTENSION, limited
from app.settings import Settings
from tests.app.protocols.test_http import OPTIONS, Echo, connect, exchange, post, read_response
from tests.app.protocols.test_websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    SECONDS,
    TEXT,
    Client,
    Running,
    echo_at_once,
)
from tests.waiting import until

SMALL = Limits(
    max_target_bytes=1000,
    max_header_bytes=2000,
    max_header_fields=20,
    header_timeout=0.3,
    body_timeout=0.4,
    write_timeout=0.4,
    max_connections=5,
    max_connections_per_address=3,
    max_control_frames=10,
)
LARGE = 2**24
"""Bytes of an answer that no buffer of the system holds."""

GET = b"GET / HTTP/1.1\r\nHost: test\r\n"
CHUNKED = b"POST /cold HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


class Limited(Echo):
    """Echoes, sends LARGE bytes at /large, answers early at /early and late at /slow, and counts refusals."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[str] = []
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            if scope["path"] == "/large":
                scope["extensions"][EXTENSION].send(bytes(LARGE), False)
            await echo_at_once(scope["extensions"][EXTENSION])
        elif scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        elif scope["path"] == "/slow":
            with suppress(TimeoutError):  # until the client disconnects
                while (await asyncio.wait_for(receive(), 1))["type"] != "http.disconnect":
                    pass
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"body"})
        elif scope["path"] == "/large":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
            await send({"type": "http.response.body", "body": bytes(LARGE)})
        else:
            await super().__call__(scope, receive, send)


@contextmanager
def serving(limits: Limits = SMALL, exempt: bool = True, **options: Any) -> Iterator[tuple[Limited, Running]]:
    app = Limited()
    connections = Connections(limits, app.refusals.append, lambda _: exempt)
    chosen = OPTIONS | {"http": answering(app, connections), "ws": limited(connections)} | options
    with Running(app, **chosen) as server:
        yield app, server
        until(lambda: not connections._watches)
    assert not connections._of_address


@pytest.fixture(params=["uvloop", "asyncio"])
def limits(request: pytest.FixtureRequest) -> Iterator[tuple[Limited, Running]]:
    with serving(loop=request.param) as served:
        yield served


def refused(connection: socket.socket) -> tuple[int, str]:
    """Return the status and the code of the answer on a connection that the server then closes."""
    with connection.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/problem+json\r\n" in head
    document = json.loads(body)
    assert document["status"] == int(head.split()[1])
    return document["status"], document["code"]


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# Heads

HEADS = {
    "a URL": (b"GET /" + b"u" * 1000 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414, "target_too_long"),
    "a URL without an end": (b"GET /" + b"u" * 4000, 414, "target_too_long"),
    "a field": (GET + b"X: " + b"v" * 2000 + b"\r\n\r\n", 431, "headers_too_large"),
    "a field without an end": (GET + b"X: " + b"v" * 4000, 431, "headers_too_large"),
    "a name without an end": (GET + b"n" * 4000, 431, "headers_too_large"),
    "many fields": (GET + b"a:b\r\n" * 20 + b"\r\n", 431, "headers_too_large"),
    "a field behind a body": (post(b"x" * 900) + GET + b"X: " + b"v" * 2000 + b"\r\n\r\n", 431, "headers_too_large"),
    "a handshake": (
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nX: " + b"v" * 2000 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    "extensions of chunks": (CHUNKED + b"1;" + b"e" * 4000, 431, "headers_too_large"),
    "trailers": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 1000, 431, "headers_too_large"),
}


@pytest.mark.parametrize("case", HEADS)
@pytest.mark.parametrize("piece", [1000, 10**6])
def test_head_over_a_limit_is_refused_and_counted(limits, case, piece):
    app, server = limits
    sent, status, code = HEADS[case]
    with connect(server) as connection:
        for start in range(0, len(sent), piece):
            connection.sendall(sent[start : start + piece])
            time.sleep(0.01)
        if case == "a field behind a body":
            assert read_response(connection.makefile("rb", 0)).endswith(b"x" * 900)
        elif case in ("extensions of chunks", "trailers") and piece > len(sent):
            connection.sendall(b"e" * 4000)
        assert refused(connection) == (status, code)
    assert app.refusals == [code]


@pytest.mark.parametrize(
    "sent", [GET + b"X: " + b"v" * 1900 + b"\r\n\r\n", b"GET /" + b"u" * 999 + b" HTTP/1.1\r\n\r\n"]
)
@pytest.mark.parametrize("piece", [None, 100])
def test_head_within_the_limits_is_answered(limits, sent, piece):
    app, server = limits
    assert exchange(server, sent, piece=piece)[0].startswith(b"HTTP/1.1 200")
    assert app.refusals == []


def test_large_bodies_do_not_count_as_heads(limits):
    app, server = limits
    responses = exchange(server, post(b"x" * 50_000, target=b"/cold") * 3, 3)
    assert all(response.endswith(b"x" * 50_000) for response in responses[:3])
    assert app.refusals == []


def test_chunks_of_one_byte_are_taken(limits):
    _, server = limits
    sent = CHUNKED + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
    assert exchange(server, sent)[0].endswith(b"x" * 5000)


def test_chunks_of_one_byte_are_parsed_in_several_turns(limits, monkeypatch):
    _, server = limits
    parsed, chunks, at = HttpProtocol._parse_requests, HttpProtocol.on_body, [0]
    monkeypatch.setattr(HttpProtocol, "_parse_requests", lambda *given: at.append(0) or parsed(*given))
    monkeypatch.setattr(HttpProtocol, "on_body", lambda *given: at.append(at.pop() + 1) or chunks(*given))
    assert exchange(server, CHUNKED + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n")[0].endswith(b"x" * 40_000)
    assert sum(at) >= 40_000
    assert max(at) < 1000


def test_trailers_are_no_header_fields(limits):
    app, server = limits
    assert exchange(server, CHUNKED + b"1\r\nx\r\n0\r\nX-Late: 1\r\n\r\n")[0].endswith(b"x")
    assert b"x-late" not in dict(app.scopes[0]["headers"])


def test_client_that_sends_on_reads_the_refusal(limits):
    app, server = limits
    with connect(server) as connection:
        connection.sendall(GET + b"X: " + b"v" * 10**7)
        assert refused(connection) == (431, "headers_too_large")
    assert app.refusals == ["headers_too_large"]


# Times

STALLED = {
    "a head": GET,
    "a body": post(length=b"9"),
    "a body for the application": post(length=b"9", target=b"/cold"),
}


@pytest.mark.parametrize("case", STALLED)
def test_request_that_stalls_is_refused_after_its_time(limits, case):
    app, server = limits
    with connect(server) as connection:
        connection.sendall(STALLED[case])
        assert refused(connection) == (408, "request_timeout")
    assert app.refusals == ["request_timeout"]
    until(lambda: app.gone == (case == "a body for the application"))
    assert app.at_once == 0


def test_expected_body_that_never_comes_is_refused(limits):
    app, server = limits
    with connect(server) as connection:
        connection.sendall(post(b"", b"Expect: 100-continue", length=b"9", target=b"/cold"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert refused(connection) == (408, "request_timeout")
    until(lambda: app.gone)


def test_head_that_trickles_is_refused(limits):
    _, server = limits
    with connect(server) as connection:
        for byte in GET:
            connection.sendall(bytes([byte]))
            time.sleep(0.03)
            if has_answer(connection):
                break
        assert refused(connection) == (408, "request_timeout")


def has_answer(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(SECONDS)


@pytest.mark.parametrize(("rate", "taken"), [(LEAST_RATE * 3, True), (LEAST_RATE // 8, False)])
def test_slow_body_is_taken_at_the_least_rate_only(limits, rate, taken):
    _, server = limits
    body = b"x" * int(rate * 1.2)
    with connect(server) as connection:
        connection.sendall(post(body, target=b"/cold")[: -len(body)])
        for start in range(0, len(body), len(body) // 24):
            connection.sendall(body[start : start + len(body) // 24])
            time.sleep(0.05)
        if taken:
            assert read_response(connection.makefile("rb")).endswith(body)
        else:
            assert refused(connection) == (408, "request_timeout")


def test_body_behind_its_answer_ends_after_its_time(limits):
    app, server = limits
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(GET.replace(b"/ ", b"/early ") + b"Content-Length: 1000000\r\n\r\n")
        assert read_response(file).startswith(b"HTTP/1.1 200")
        sent = 0
        with suppress(OSError):
            while sent < 1000:
                connection.sendall(b"x" * 500)
                sent += 1
                time.sleep(0.01)
        assert sent < 1000
        assert file.read() == b"", "no second answer"
    assert app.refusals == ["request_timeout"]


def test_connection_that_sends_nothing_is_closed_silently(limits):
    app, server = limits
    with connect(server) as connection:
        assert connection.recv(100) == b""
    assert app.refusals == []


def test_thousand_half_sent_requests_are_gone_after_their_time():
    with serving(Limits(header_timeout=0.5)) as (app, server), ExitStack() as stack:
        for _ in range(1000):
            connection = stack.enter_context(connect(server))
            connection.sendall(GET)
        until(lambda: app.refusals == ["request_timeout"] * 1000)
        until(lambda: not server.server.server_state.connections)


def test_request_that_is_worked_on_is_not_timed_out(limits):
    app, server = limits
    app.held = []
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(post() + GET)
        time.sleep(1)
        app.release()
        assert read_response(file).endswith(b"body")
    assert app.refusals == []


@pytest.mark.parametrize("target", [b"/hot", b"/slow"])
@pytest.mark.parametrize(("behind", "refusal"), [(b"", (408, "request_timeout")), (b"x", (400, "malformed_request"))])
def test_refusal_of_a_second_request_waits_for_the_first_answer(limits, target, behind, refusal):
    app, server = limits
    app.held = []
    first = post(target=target)
    second = post(b"", b"Transfer-Encoding: chunked", length=b"", target=b"/cold") + behind
    with connect(server) as connection, connection.makefile("rb", 0) as file:
        connection.sendall(first[:-1])
        time.sleep(0.05)
        connection.sendall(first[-1:] + second)
        time.sleep(0.9)
        assert app.refusals == []
        app.release()
        assert read_response(file).endswith(b"body")
        assert refused(connection) == refusal


# Numbers


def test_connections_in_all_are_bounded(limits, caplog):
    app, server = limits
    with ExitStack() as stack:
        connections = [stack.enter_context(Client(server)) for _ in range(SMALL.max_connections)]
        for _ in range(3):
            assert refused(stack.enter_context(connect(server))) == (503, "connections_full")
        connections[0].socket.shutdown(socket.SHUT_WR)
        connections[0].read()
        assert exchange(server, post())[0].endswith(b"body")
    assert app.refusals == ["connections_full"] * 3
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert lines == ["connections are refused: 5 are open in all, and max_connections is 5"]


def test_connections_of_one_address_are_bounded():
    with serving(exempt=False) as (app, server), ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(Client(server))
        assert refused(stack.enter_context(connect(server))) == (503, "connections_full")
        other = socket.create_connection(("127.0.0.1", server.port), SECONDS, ("127.0.0.2", 0))
        other.sendall(post())
        assert read_response(stack.enter_context(closing(other)).makefile("rb")).endswith(b"body")
    assert app.refusals == ["connections_full"]


def test_refused_connections_beyond_the_lingering_are_closed_at_once():
    with serving(Limits(max_connections=1)) as (app, server), ExitStack() as stack:
        stack.enter_context(Client(server))
        refusals = [stack.enter_context(connect(server)) for _ in range(MAX_LINGERING + 20)]
        assert {refused(connection) for connection in refusals} == {(503, "connections_full")}
        until(lambda: len(server.server.server_state.connections) == 1)
    assert len(app.refusals) == MAX_LINGERING + 20


@pytest.mark.parametrize(
    ("host", "network"),
    [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8::1:2", "2001:db8::/64"), ("::1", "::/64")],
)
def test_addresses_of_one_client_are_one(host, network):
    assert network_of(host) == network


def test_default_limits_are_those_of_the_settings():
    assert vars(Limits()) == {name: Settings.model_fields[name].default for name in vars(Limits())}


def test_connections_of_this_machine_are_exempt():
    assert all(is_loopback(network_of(host)) for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(network_of(host)) for host in ("10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"))


# Frames that carry nothing

EMPTY: dict[str, Callable[[int], list[Any]]] = {
    "pings": lambda count: [(PING, b"")] * count,
    "pongs": lambda count: [(PONG, b"")] * count,
    "empty fragments": lambda count: [(TEXT, b"", False), *[(0, b"", False)] * (count - 1)],
    "small fragments": lambda count: [(TEXT, b"x", False), *[(0, b"x", False)] * (count - 1)],
}


@pytest.mark.parametrize("kind", EMPTY)
def test_too_many_empty_frames_close_with_1008(limits, kind):
    app, server = limits
    with Client(server) as client:
        client.send(*EMPTY[kind](101))
        received = list(iter(client.receive, None))
    assert received[-1] == (CLOSE, b"\x03\xf0too_many_frames")
    assert app.refusals == ["too_many_frames"]


@pytest.mark.parametrize("kind", EMPTY)
def test_empty_frames_within_the_limit_are_taken(limits, kind):
    app, server = limits
    with Client(server) as client:
        client.send(*EMPTY[kind](100))
        client.send(*([(0, b"end")] if "fragments" in kind else []), (CLOSE, b"\x03\xe8"))
        assert list(iter(client.receive, None))[-1] == (CLOSE, b"\x03\xe8")
    assert app.refusals == []


def test_many_small_messages_and_large_fragments_are_taken(limits):
    app, server = limits
    fragments = [(BINARY, b"x" * 64, False), *[(0, b"x" * 64, False)] * 500, (0, b"")]
    with Client(server) as client:
        for count in range(20):
            client.send(*[(BINARY, b"small")] * 100)
            assert [client.receive() for _ in range(100)] == [(BINARY, b"small")] * 100, count
        client.send(*fragments)
        assert client.receive() == (BINARY, b"x" * 64 * 501)
        client.send((CLOSE, b""))
    assert app.refusals == []


# Answers that are not read


@pytest.mark.parametrize("case", ["http", "websocket"])
def test_answer_that_is_not_read_aborts_the_connection(limits, case):
    app, server = limits
    with Client(server, "/large") if case == "websocket" else connect(server) as client:
        if case == "http":
            client.sendall(GET.replace(b"/ ", b"/large ") + b"\r\n")
        until(lambda: app.refusals == ["write_timeout"])
        until(lambda: not server.server.server_state.connections)


def test_answer_that_is_read_slowly_is_sent_whole():
    with serving(Limits(write_timeout=0.4)) as (app, server), connect(server) as connection:
        connection.sendall(GET.replace(b"/ ", b"/large ") + b"\r\n")
        received = 0
        while received < LARGE:
            part = connection.recv(2**19)
            assert part, "the connection was closed"
            received += len(part)
            time.sleep(0.03)
    assert app.refusals == []


# Messages that are not whole


class Bytes:
    """A limit of bytes."""

    def __init__(self, limit: int) -> None:
        self.left = self.limit = limit

    def try_add(self, size: int) -> bool:
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits

    def add(self, size: int) -> None:
        self.left -= size

    def subtract(self, size: int) -> None:
        self.left += size


@pytest.mark.parametrize("end", ["read", "gone"])
def test_answer_that_is_not_read_is_held(end):
    app, answers = Limited(), Bytes(LARGE)
    connections = Connections(Limits(), app.refusals.append, answers=answers)
    http = answering(app, connections)
    with Running(app, http=http, timeout_keep_alive=60) as server, connect(server) as client:
        client.sendall(GET.replace(b"/ ", b"/large ") + b"\r\n")
        until(lambda: 0 < answers.left < LARGE - 10**6)
        if end == "read":
            client.makefile("rb").read(LARGE)
        else:
            client.close()
        until(lambda: answers.left == LARGE)


@contextmanager
def unfinished(frames: Bytes) -> Iterator[tuple[Limited, Running]]:
    app = Limited()
    connections = Connections(Limits(), app.refusals.append, frames=frames)
    with Running(app, **OPTIONS | {"http": answering(app, connections), "ws": limited(connections)}) as server:
        yield app, server
    assert frames.left == frames.limit


def test_messages_that_are_not_whole_are_bounded_together():
    part = b"x" * 150_000
    with unfinished(Bytes(400_000)) as (app, server), ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(3)]
        clients[0].send((BINARY, part, False))
        clients[1].socket.sendall(b"\x82\xff" + (200_000).to_bytes(8, "big") + bytes(4) + part)
        time.sleep(0.2)
        clients[2].send((BINARY, part, False))
        assert clients[2].receive() == (CLOSE, b"\x03\xf5frames_full")
        clients[0].send((0, b"end"))
        assert clients[0].receive() == (BINARY, part + b"end")
        clients[1].socket.sendall(bytes(50_000))
        assert clients[1].receive() == (BINARY, part + bytes(50_000))
    assert app.refusals == ["frames_full"]


def test_messages_of_closed_connections_are_not_counted():
    with unfinished(Bytes(400_000)) as (app, server):
        for _ in range(6):
            with Client(server) as client:
                client.send((BINARY, b"x" * 150_000, False))
                client.send((PING, b""))
                assert client.receive() == (PONG, b"")
            until(lambda: not server.server.server_state.connections)
    assert app.refusals == []


# Requests behind one another


def test_requests_behind_one_another_are_parsed_one_by_one(limits):
    app, server = limits
    app.held = []
    count = 2000
    with connect(server) as connection, connection.makefile("rb") as file:
        connection.sendall(post(b"first") + post(b"next", target=b"/cold") * count)
        until(lambda: app.held)
        time.sleep(0.1)
        [protocol] = server.server.server_state.connections
        assert (app.by_asgi, len(protocol.pipeline)) == (0, 1), "the others behind are not parsed yet"
        app.release()
        assert read_response(file).endswith(b"first")
        for _ in range(count):
            assert read_response(file).endswith(b"next")
    assert app.by_asgi == count


def test_bytes_behind_a_request_in_work_are_not_read(limits):
    app, server = limits
    app.held = []
    with connect(server) as connection:
        connection.sendall(post())
        until(lambda: app.held)
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.sendall(bytes(2**25))
        held = [protocol for protocol in server.server.server_state.connections if protocol._unparsed]
        assert sum(len(protocol._unparsed) for protocol in held) <= 2**18
        app.release()


def test_bytes_behind_requests_in_work_are_bounded_together():
    with unfinished(Bytes(250_000)) as (app, server), ExitStack() as stack:
        app.held = []
        for client in [stack.enter_context(connect(server)) for _ in range(3)]:
            client.sendall(post())
        until(lambda: len(app.held) == 3)
        for protocol in list(server.server.server_state.connections):
            app.loop.call_soon_threadsafe(protocol.data_received, b"x" * 100_000)
        app.release()
        until(lambda: len(app.refusals) == 3)
    assert sorted(app.refusals) == ["malformed_request"] * 2 + ["uploads_full"]


def test_body_like_ends_of_heads_comes_back(limits):
    _, server = limits
    body = b"\r\n\r\n" * 10 * MAX_PIECES
    for target in (b"/hot", b"/cold"):
        assert exchange(server, post(body[:1000] if target == b"/hot" else body, target=target))[0].endswith(
            body[:1000]
        )


def test_nothing_of_a_client_is_logged_as_an_error(limits, caplog):
    caplog.set_level(logging.WARNING)
    _, server = limits
    for sent, _, _ in HEADS.values():
        with connect(server) as connection:
            connection.sendall(sent + b"x" * 4000)
            is_closed(connection)
    assert [record.getMessage() for record in caplog.records if not re.search("refused", record.getMessage())] == []
