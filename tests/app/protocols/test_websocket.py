"""The WebSocket protocol under a real uvicorn, over raw sockets and with the websockets client."""

import asyncio
import contextlib
import gc
import itertools
import random
import socket
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from app.protocols import websocket
from app.protocols.websocket import EXTENSION, MAX_FRAMES, WebSocketProtocol
from tests.app.framing import masked as frame
from tests.waiting import until

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SECONDS = 20.0
HANDSHAKE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}

App = Callable[..., Awaitable[None]]


class Running:
    """A uvicorn server in a thread."""

    def __init__(self, app: App, **options: Any) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listening.getsockname()[1]
        settings = {"ws": WebSocketProtocol, "log_config": None, "lifespan": "off", "timeout_graceful_shutdown": 10}
        self.server = uvicorn.Server(uvicorn.Config(app, **settings | options))
        self._thread = threading.Thread(target=self.server.run, args=([self._listening],))

    def __enter__(self) -> "Running":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        assert not self.server.server_state.connections
        assert not self.server.server_state.tasks


class Client:
    """A WebSocket of raw bytes."""

    def __init__(self, server: Running, path: str = "/", **headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)
        lines = [f"{name}: {value}" for name, value in (HANDSHAKE | headers).items() if value]
        self.socket.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode())
        self._file = self.socket.makefile("rb")
        head = iter(self._file.readline, b"\r\n")
        self.status = int(next(head).split()[1])
        self.headers = [tuple(line.decode("latin-1").strip().split(": ", 1)) for line in head]

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, *sent: tuple[int, bytes]) -> None:
        self.socket.sendall(b"".join(frame(*each) for each in sent))

    def receive(self) -> tuple[int, bytes] | None:
        """Return opcode and payload of the next frame, which must be whole and not masked; None: the end."""
        head = self._file.read(2)
        if not head:
            return None
        length = head[1]
        if length > 125:
            length = int.from_bytes(self._file.read(2 if length == 126 else 8), "big")
        assert head[0] & 0xF0 == 0x80, "a whole message, no extension"
        return head[0] & 0xF, self._file.read(length)

    def receive_close(self) -> int:
        """Return the code of the close frame that must be next, and check that the connection ends."""
        opcode, payload = self.receive() or (None, b"")
        assert opcode == CLOSE
        self.socket.shutdown(socket.SHUT_WR)
        assert self.receive() is None
        return int.from_bytes(payload[:2], "big")

    def read(self, length: int = -1) -> bytes:
        """Return the next `length` bytes; -1: all bytes to the end."""
        return self._file.read(length)


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Echo each message: by ASGI at /asgi, by the extension at other paths."""
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] != "/asgi":
        await echo_at_once(scope["extensions"][EXTENSION])
        return
    while (message := await receive())["type"] == "websocket.receive":
        await send(message | {"type": "websocket.send"})


async def echo_at_once(ws: websocket.WebSocket) -> None:
    ended = asyncio.get_running_loop().create_future()

    def on_message(payload: bytes, is_text: bool) -> None:
        if not ws.send(payload, is_text):
            ws.pause()

    ws.listen(on_message, lambda code, reason: ended.set_result(code), ws.resume)
    await ended


def accepted(serve: Callable[..., Awaitable[None]]) -> App:
    """Return an application that accepts, then calls serve(scope, receive, send)."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await serve(scope, receive, send)

    return app


@contextmanager
def recording(**options: Any) -> Iterator[tuple[Running, list[Any]]]:
    """Yield a server, and the list of all messages that its application receives."""
    noted: list[Any] = []

    async def note(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while True:
            noted.append(await receive())
            if noted[-1]["type"] == "websocket.disconnect":
                return

    with Running(accepted(note), **options) as server:
        yield server, noted


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with Running(echo, loop=request.param) as running:
        yield running


each_way = pytest.mark.parametrize("path", ["/asgi", "/at-once"])


# Messages


@each_way
@pytest.mark.parametrize("length", [0, 1, 125, 126, 4096, 4097, 65535, 65536, 2**23])
def test_message_of_any_length_comes_back(server, path, length):
    payload = random.Random(length).randbytes(length)
    with connect(f"ws://127.0.0.1:{server.port}{path}", max_size=None, compression=None) as client:
        for message in (payload, "é" * (length // 2)):
            client.send(message)
            assert client.recv(SECONDS) == message


@each_way
def test_many_frames_in_one_segment_come_back_in_order(server, path):
    sent = [(TEXT, str(i).encode()) for i in range(5000)]
    with Client(server, path) as client:
        threading.Thread(target=client.send, args=sent).start()
        assert [client.receive() for _ in sent] == sent


@each_way
def test_frame_byte_by_byte_comes_back(server, path):
    with Client(server, path) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame(BINARY, b"x" * 130) + frame(TEXT, b"end"):
            client.socket.sendall(bytes([byte]))
            time.sleep(0.0005)
        assert [client.receive(), client.receive()] == [(BINARY, b"x" * 130), (TEXT, b"end")]


@each_way
@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\2\3\4"])
def test_payload_is_unmasked(server, path, mask):
    payload = bytes(range(125))
    masked = bytes(byte ^ key for byte, key in zip(payload, itertools.cycle(mask), strict=False))
    with Client(server, path) as client:
        client.socket.sendall(b"\x82\xfd" + mask + masked)
        assert client.receive() == (BINARY, payload)


@each_way
def test_control_frames_between_fragments_are_answered(server, path):
    with Client(server, path) as client:
        client.send((TEXT, b"a", False), (PING, b"1"), (0, b"", False), (PONG, b"unasked"), (0, b"b"))
        assert [client.receive(), client.receive()] == [(PONG, b"1"), (TEXT, b"ab")]


@each_way
@pytest.mark.parametrize("seed", range(5))
def test_messages_in_random_fragments_and_segments_come_back(server, path, seed):
    rng = random.Random(seed)
    sent = [(rng.choice([TEXT, BINARY]), rng.choice([b"", b"ab", b"x" * 3000, b"y" * 70_000])) for _ in range(60)]
    data = bytearray()
    for opcode, payload in sent:
        cut = rng.randrange(len(payload) + 1)
        data += frame(opcode, payload[:cut], False) + frame(PING) * rng.randrange(2) + frame(0, payload[cut:])
    with Client(server, path) as client:
        threading.Thread(target=send_in_segments, args=(client, bytes(data), rng)).start()
        received = (message for message in iter(client.receive, None) if message[0] != PONG)
        assert list(itertools.islice(received, len(sent))) == sent


def send_in_segments(client: Client, data: bytes, rng: random.Random) -> None:
    while data:
        size = rng.choice([1, 5, 1000, 20_000, 100_000])
        client.socket.sendall(data[:size])
        data = data[size:]


@pytest.mark.parametrize("data", [frame(TEXT, b"early"), frame(TEXT, b"ea", False) + frame(0, b"rly")])
def test_messages_sent_before_the_answer_to_the_handshake_are_received(data):
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(0.2)
        await echo(scope, lambda: asyncio.sleep(0), send)

    with Running(app) as server, socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
        raw.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        time.sleep(0.05)
        raw.sendall(data)
        received = b""
        while not received.endswith(b"\x81\x05early"):
            received += raw.recv(4096) or pytest.fail("the connection was closed")


# Limits and breaches


@each_way
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01a", 1002),
        (b"\xc1\x81\0\0\0\0a", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x09\x80\0\0\0\0", 1002),
        (b"\x89\xfe\0\x7e", 1002),
        (frame(0, b"a"), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1000).to_bytes(2, "big") + b"\xff"), 1007),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3", False) + frame(0, b"\x28"), 1007),
        (b"\x82\xff" + (2**24 + 1).to_bytes(8, "big"), 1009),
    ],
)
def test_breach_of_the_protocol_closes_with_its_code(server, path, data, code):
    with Client(server, path) as client:
        client.send((TEXT, b"before"))
        client.socket.sendall(data)
        assert client.receive() == (TEXT, b"before")
        assert client.receive_close() == code


def test_message_above_the_limit_is_refused_early():
    with Running(echo, ws_max_size=1000) as server:
        for sent in ([frame(BINARY, b"x" * 999, False), b"\0\x82"], [b"\x81\xfe\x03\xe9"]):
            with Client(server) as client:
                client.send((BINARY, b"x" * 1000))
                client.socket.sendall(b"".join(sent))
                assert client.receive() == (BINARY, b"x" * 1000)
                assert client.receive_close() == 1009


def test_client_that_sends_too_much_reads_the_reason(server):
    with Client(server) as client:
        client.socket.sendall(b"\x82\xff" + (2**30).to_bytes(8, "big"))
        for _ in range(200):
            client.socket.sendall(b"x" * 2**17)
        assert client.receive_close() == 1009


def test_application_gets_earlier_messages_before_a_breach():
    with recording() as (server, noted), Client(server) as client:
        client.send((TEXT, b"good"))
        client.socket.sendall(b"\x83\x80")
        assert client.receive_close() == 1002
        until(lambda: len(noted) == 2)
    assert noted[0] == {"type": "websocket.receive", "text": "good"}
    assert noted[1] == {"type": "websocket.disconnect", "code": 1002, "reason": "there is no opcode 3"}


# Closing


@each_way
@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0f\xa1bye"])
def test_close_frame_comes_back_as_it_was(server, path, payload):
    with Client(server, path) as client:
        client.send((CLOSE, payload), (TEXT, b"ignored"))
        assert client.receive() == (CLOSE, payload)
        assert client.receive() is None


@pytest.mark.parametrize(
    ("payload", "code", "reason"), [(b"\x0f\xa1bye", 4001, "bye"), (b"", 1005, ""), (None, 1006, "")]
)
def test_application_gets_the_close_code_of_the_client(payload, code, reason):
    with recording() as (server, noted), Client(server) as client:
        client.send((BINARY, b""), *([] if payload is None else [(CLOSE, payload)]))
        client.socket.shutdown(socket.SHUT_WR)
        until(lambda: len(noted) == 2)
    assert noted[0] == {"type": "websocket.receive", "bytes": b""}
    assert noted[1] == {"type": "websocket.disconnect", "code": code, "reason": reason}


def test_held_back_messages_come_before_the_end():
    noted = []

    async def late(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await asyncio.sleep(0.3)
        noted.extend([await receive() for _ in range(5)])

    with Running(accepted(late)) as server, Client(server) as client:
        client.send((TEXT, b"1"), (PING, b""), (TEXT, b"2"), (TEXT, b"3"), (CLOSE, b"\x0f\xa1"))
        client.socket.shutdown(socket.SHUT_WR)
        until(lambda: noted)
    assert [message.get("text") for message in noted] == ["1", "2", "3", None, None]
    assert [message.get("code") for message in noted[3:]] == [4001, 4001]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4010, "x" * 200)])
def test_application_closes_with_code_and_reason(code, reason):
    async def close(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.close", "code": code, "reason": reason})
        assert await receive() == {"type": "websocket.disconnect", "code": code, "reason": reason}
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "late"})

    with Running(accepted(close)) as server, connect(f"ws://127.0.0.1:{server.port}") as client:
        with pytest.raises(ConnectionClosed):
            client.recv(SECONDS)
        assert (client.close_code, client.close_reason) == (code, reason[:123])


def test_connection_ends_after_the_client_answers_a_close_frame(monkeypatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 3600.0)

    async def close(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.close", "code": 4000})

    with Running(accepted(close)) as server, Client(server) as client:
        assert client.receive() == (CLOSE, b"\x0f\xa0")
        client.send((TEXT, b"ignored"), (CLOSE, b"\x0f\xa0"))
        assert client.receive() is None


def test_client_that_ignores_a_close_frame_is_disconnected(monkeypatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.2)

    async def close(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    with Running(accepted(close)) as server, Client(server) as client:
        assert client.receive() == (CLOSE, b"\x03\xe8")
        client.send((TEXT, b"ignored"))
        with contextlib.suppress(ConnectionResetError):
            assert client.receive() is None
        until(lambda: not server.server.server_state.connections)


def test_client_that_still_reads_stays_connected(monkeypatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.2)

    async def close(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "bytes": b"x" * 2**24})
        await send({"type": "websocket.close"})

    async def late(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["extensions"][EXTENSION].send(b"x" * 2**24, False)
        scope["extensions"][EXTENSION].close(1000)

    for app in (close, late):
        with Running(accepted(app)) as server, Client(server) as client:
            read = 0
            while read < 2**24:
                read += len(client.read(2**20))
                time.sleep(0.04)


@pytest.mark.parametrize("path", ["/asgi", "/at-once"])
def test_connection_that_ended_is_freed_without_the_collector(path):
    ended = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        ended.append(weakref.ref(scope["extensions"][EXTENSION]))
        await echo(scope, receive, send)

    gc.collect()
    gc.disable()
    try:
        with Running(app) as server:
            for sent in ([(TEXT, b"a"), (CLOSE, b"")], [(0, b"a")]):
                with Client(server, path) as client:
                    client.send(*sent)
                    assert client.receive()
            until(lambda: len(ended) == 2 and all(each() is None for each in ended))
    finally:
        gc.enable()


@pytest.mark.parametrize(("error", "code"), [(None, 1000), (ValueError("broken"), 1011)])
def test_application_that_returns_closes_the_connection(error, code, caplog):
    async def end(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if error is not None:
            raise error

    with Running(accepted(end)) as server, Client(server) as client:
        assert client.receive_close() == code
    assert ("broken" in caplog.text) == (error is not None)


# A stop of the server


@each_way
def test_stop_closes_with_1012(path):
    with Running(echo) as server, Client(server, path) as client:
        client.send((TEXT, b"a"))
        assert client.receive() == (TEXT, b"a")
        threading.Thread(target=server.stop).start()
        assert client.receive_close() == 1012


def test_stop_reaches_the_application():
    with recording() as (server, noted), Client(server) as client:
        threading.Thread(target=server.stop).start()
        assert client.receive_close() == 1012
    assert noted == [{"type": "websocket.disconnect", "code": 1012, "reason": ""}]


@pytest.mark.parametrize("sent", [b"", b"x" * 2**25])
def test_stop_does_not_wait_for_a_silent_client(sent, monkeypatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 3600.0)

    async def write(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "bytes": sent})
        assert (await receive())["code"] == 1012

    with Running(accepted(write), timeout_graceful_shutdown=None) as server, Client(server) as client:
        assert client.read(1)
        server.stop()


def test_stop_before_the_handshake_is_answered_refuses_it():
    async def wait(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["code"] == 1006
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.accept"})

    server = Running(wait)
    with server:
        threading.Timer(0.3, server.stop).start()
        with Client(server) as client:
            assert client.status == 500


# Pings


@pytest.mark.parametrize("sent", [(PING, b""), (PONG, b""), (BINARY, b"1"), (0, b"", False)])
def test_many_frames_at_once_let_other_tasks_run(sent):
    """Small frames take longer to handle than to send."""
    turns: list[int] = []

    async def serve(scope: dict[str, Any], *_: object) -> None:
        ws, ended = scope["extensions"][EXTENSION], asyncio.get_running_loop().create_future()
        taken = 0

        def on_message(payload: bytes, _: bool) -> None:
            if payload != b"1":
                turns.append(taken)

        ws.listen(on_message, lambda *_: ended.set_result(None), lambda: None)
        while not ended.done():
            taken += 1
            await asyncio.sleep(0)

    frames = 100 * MAX_FRAMES
    with Running(accepted(serve)) as server, Client(server) as client:
        last = (0, b"b") if sent[0] == 0 else (BINARY, b"b")
        begun = [(BINARY, b"", False)] if sent[0] == 0 else []
        client.send((BINARY, b"a"), *begun, *[sent] * frames, last)
        while sent[0] == PING and frames:
            assert client.receive() == (PONG, b"")
            frames -= 1
        client.send((CLOSE, b""))
        client.receive_close()
    assert turns[1] - turns[0] > 50


def test_client_that_answers_pings_stays_connected():
    with Running(echo, ws_ping_interval=0.05, ws_ping_timeout=5) as server, Client(server) as client:
        for _ in range(4):
            opcode, payload = client.receive()
            assert (opcode, len(payload)) == (PING, 4)
            client.send((PONG, payload))
        client.send((CLOSE, b""))


def test_missing_pong_closes_with_1011(monkeypatch):
    with recording(ws_ping_interval=0.05, ws_ping_timeout=0.1) as (server, noted), Client(server) as client:
        assert client.receive()[0] == PING
        client.send((PONG, b"other"), (TEXT, b"a"))
        assert client.receive_close() == 1011
    assert noted[1] == {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}


def test_pong_behind_held_back_messages_is_waited_for():
    async def sleep(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(0.6)
        await send(await receive() | {"type": "websocket.send"})
        await receive()

    options = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.1}
    with Running(accepted(sleep), **options) as server, Client(server) as client:
        client.send((TEXT, b"a"), (TEXT, b"b"))
        received = []
        while not received or received[-1][0] == PING:
            received.append(client.receive())
            if received[-1][0] == PING:
                client.send((PONG, received[-1][1]))
        assert received[-1] == (TEXT, b"b")
        client.send((CLOSE, b""))


def test_pong_behind_an_incomplete_message_is_waited_for():
    with Running(echo, ws_ping_interval=0.1, ws_ping_timeout=0.1) as server, Client(server) as client:
        for byte in frame(BINARY, b"x" * 20):
            client.socket.sendall(bytes([byte]))
            time.sleep(0.03)
        received = [client.receive()]
        while received[-1][0] == PING:
            received.append(client.receive())
        assert received[-1] == (BINARY, b"x" * 20)
        assert client.receive_close() == 1011


def test_pings_without_reading_do_not_fill_the_memory():
    buffered = []

    async def serve(ws: websocket.WebSocket) -> None:
        ended = asyncio.get_running_loop().create_future()
        ws.listen(
            lambda payload, is_text: buffered.append(len(payload)), lambda *_: ended.set_result(None), lambda: None
        )
        await ended
        buffered.append(ws._transport.get_write_buffer_size())

    with listening(serve) as client:
        pings = frame(PING, b"x" * 125) * 1000
        for _ in range(200):
            client.socket.sendall(pings)
        client.send((PING, b"last"), (CLOSE, b""))
        received = list(iter(client.receive, None))
    assert received[-2:] in ([(PONG, b"last"), (CLOSE, b"")], [(PONG, b"x" * 125), (CLOSE, b"")])
    assert len(received) < 150_000


def test_no_pings_are_sent_if_the_settings_disable_them():
    with Running(echo, ws_ping_interval=None) as server, Client(server) as client:
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.receive()


def test_ping_is_answered_while_the_application_is_busy():
    go_on = threading.Event()

    async def busy(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await asyncio.to_thread(go_on.wait, SECONDS)

    with Running(accepted(busy)) as server, Client(server) as client:
        client.send((TEXT, b"work"), (PING, b"there?"))
        assert client.receive() == (PONG, b"there?")
        go_on.set()
        assert client.receive_close() == 1000


# Slow clients and slow applications


def test_application_waits_for_a_client_that_reads_slowly():
    sent = 0

    async def write(scope: dict[str, Any], receive: Any, send: Any) -> None:
        nonlocal sent
        while sent < 64:
            await send({"type": "websocket.send", "bytes": b"x" * 2**20})
            sent += 1

    with Running(accepted(write)) as server, Client(server) as client:
        time.sleep(0.5)
        assert sent < 40
        for _ in range(64):
            assert client.receive() == (BINARY, b"x" * 2**20)
        assert client.receive_close() == 1000


def test_application_waiting_for_a_slow_client_sees_its_disconnect():
    ended = threading.Event()

    async def write(scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 2**20})
        finally:
            ended.set()

    with Running(accepted(write)) as server:
        with Client(server) as client:
            assert client.receive()
        assert ended.wait(SECONDS)


def test_failed_write_reaches_the_application_at_once():
    """If send returned, an application that sends in a loop would never let the event loop call connection_lost."""
    errors = []

    async def write(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["extensions"][EXTENSION]._transport.abort()  # as uvloop does within a write that fails
        try:
            await send({"type": "websocket.send", "bytes": b"x"})
        except OSError as error:
            errors.append(error)

    with Running(accepted(write)) as server, Client(server) as client:
        assert client.receive() is None
    assert len(errors) == 1


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("path", ["/asgi", "/at-once"])
def test_client_waits_for_a_slow_application(path, loop):
    go_on, taken = threading.Event(), 0

    async def wait(scope: dict[str, Any], receive: Any, send: Any) -> None:
        nonlocal taken
        ws = scope["extensions"][EXTENSION]
        if path == "/asgi":
            await asyncio.to_thread(go_on.wait, SECONDS)
            while (await receive())["type"] == "websocket.receive":
                taken += 1
        else:
            taken = await take_with_a_pause(ws, go_on)

    with Running(accepted(wait), loop=loop) as server, Client(server, path) as client:
        sent, message = 0, frame(BINARY, b"x" * 2**16)
        client.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while sent < 1000:
                client.socket.sendall(message)
                sent += 1
        assert sent < 500, "32 MB are more than what the kernel holds"
        go_on.set()
        client.socket.shutdown(socket.SHUT_WR)  # within a message
        until(lambda: taken == sent)


async def take_with_a_pause(ws: websocket.WebSocket, go_on: threading.Event) -> int:
    """Pause after the first message until `go_on` is set; return the number of messages."""
    came, ended = 0, asyncio.get_running_loop().create_future()

    def on_message(payload: bytes, is_text: bool) -> None:
        nonlocal came
        came += 1
        if not go_on.is_set():
            assert came == 1, "messages are held back"
            ws.pause()

    ws.listen(on_message, lambda code, reason: ended.set_result(code), lambda: None)
    await asyncio.to_thread(go_on.wait, SECONDS)
    ws.resume()
    await ended
    return came


# The handshake


async def send_scope(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send the scope to the client, and close."""
    assert await receive() == {"type": "websocket.connect"}
    headers = [(b"X-Added", b"caf\xe9"), (b"x-added", b"2")]
    await send({"type": "websocket.accept", "subprotocol": "b", "headers": headers})
    shown = {name: value for name, value in scope.items() if name not in ("client", "server", "extensions")}
    await send({"type": "websocket.send", "text": repr((sorted(shown.items()), sorted(scope["extensions"])[-1:]))})
    await send({"type": "websocket.close"})


@contextmanager
def ours_and_uvicorns(app: App, **options: Any) -> Iterator[list[Running]]:
    """Yield two servers of an application: one with Engram's protocol, one with uvicorn's."""
    with Running(app, **options) as ours, Running(app, ws="websockets-sansio", **options) as uvicorns:
        yield [ours, uvicorns]


def test_scope_and_answer_to_the_handshake_are_those_of_uvicorn():
    asked = {"Sec-WebSocket-Protocol": "a, b", "X-Name": "caf\u00e9"}
    got = []
    with ours_and_uvicorns(send_scope, root_path="/below", date_header=False) as servers:
        for server in servers:
            with Client(server, "/a%20b/c?x=%C3%A9&y", **asked) as client:
                got.append((client.status, client.headers, client.receive(), client.receive()))
    assert got[0] == got[1]
    assert ("sec-websocket-protocol", "b") in [(name.lower(), value) for name, value in got[0][1]]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "AAAA"},
        {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Version": ""},
        {"X-Good": "yes"},
    ],
)
def test_handshake_is_refused_as_uvicorn_does(headers):
    got = []
    with ours_and_uvicorns(send_scope, date_header=False) as servers:
        for server in servers:
            with Client(server, **headers) as client:
                got.append((client.status, [each for each in client.headers if each[0] != "Date"]))
    assert got[0] == got[1]
    assert got[0][0] == (101 if "X-Good" in headers else 400)


@pytest.mark.parametrize("headers", [{f"X-{i}": "y" for i in range(200)}, {"X-Long": "y" * 20_000}])
def test_handshake_with_headers_without_end_is_refused(server, headers):
    with Client(server, **headers) as client:
        assert client.status == 431
        assert b"Failed to open a WebSocket connection" in client.read()


DENIALS: dict[str, list[dict[str, Any]]] = {
    "closed": [{"type": "websocket.close"}],
    "answered": [
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"x")]},
        {"type": "websocket.http.response.body", "body": b"no ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"entry"},
    ],
    "status unknown": [
        {"type": "websocket.http.response.start", "status": 499},
        {"type": "websocket.http.response.body", "body": b""},
    ],
    "no status": [{"type": "websocket.http.response.start", "status": 99}],
    "no answer": [],
    "wrong message": [{"type": "websocket.send", "text": "a"}],
}


@pytest.mark.parametrize("sent", DENIALS.values(), ids=DENIALS)
def test_application_that_does_not_accept_is_handled_as_uvicorn_does(sent):
    received = []

    async def deny(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        for message in sent:
            await send(message)
        if sent:
            received.append(await receive())

    got = []
    with ours_and_uvicorns(deny, date_header=False) as servers:
        for server in servers:
            with Client(server) as client:
                headers = [each for each in client.headers if each[0] != "Date"]
                got.append((client.status, headers, client.read()))
    assert got[0] == got[1]
    assert all(message["type"] == "websocket.disconnect" and message["code"] == 1006 for message in received)


@pytest.mark.parametrize("outcome", ["[accepted]", "403"])
def test_handshake_is_logged_as_by_uvicorn(outcome, caplog):
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept" if outcome == "[accepted]" else "websocket.close"})

    caplog.set_level("INFO", "uvicorn.error")
    with ours_and_uvicorns(app) as servers:
        for server in servers:
            with Client(server, "/a%20b?c=d"):
                pass
    lines = [record.message.split(" - ")[1] for record in caplog.records if "WebSocket /" in record.message]
    assert lines == [f'"WebSocket /a%20b?c=d" {outcome}'] * 2


# The extension


@contextmanager
def listening(serve: Callable[[websocket.WebSocket], Awaitable[None]], **options: Any) -> Iterator[Client]:
    """Yield a client, whose server's application gets the extension after it has accepted."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await serve(scope["extensions"][EXTENSION])

    with Running(accepted(app), **options) as server, Client(server) as client:
        yield client


def test_waiting_message_is_delivered_first(monkeypatch):
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        ws, receiving = scope["extensions"][EXTENSION], asyncio.create_task(receive())
        monkeypatch.setattr(ws, "_on_message", lambda *message: (ws._park(*message), receiving.cancel()))
        await asyncio.sleep(0)
        ws.send(b"waiting", True)
        with pytest.raises(asyncio.CancelledError):
            await receiving
        await echo_at_once(ws)

    with Running(accepted(app)) as server, Client(server) as client:
        assert client.receive() == (TEXT, b"waiting")
        client.send((TEXT, b"1"), (TEXT, b"2"))
        assert [client.receive(), client.receive()] == [(TEXT, b"1"), (TEXT, b"2")]


def test_messages_are_delivered_in_order_unless_paused():
    came, inside = [], 0

    async def serve(ws: websocket.WebSocket) -> None:
        def on_message(payload: bytes, is_text: bool) -> None:
            nonlocal inside
            assert not inside
            inside += 1
            came.append(payload)
            ws.resume()
            ws.pause()
            asyncio.get_running_loop().call_later(0.01, ws.resume)
            ws.resume()
            ws.pause()
            inside -= 1

        ended = asyncio.get_running_loop().create_future()
        ws.listen(on_message, lambda *ending: ended.set_result(ending), lambda: None)
        assert await ended == (4000, "")

    with listening(serve) as client:
        client.send(*((BINARY, bytes([i])) for i in range(20)), (PING, b""), (CLOSE, b"\x0f\xa0"))
        assert [client.receive(), client.receive()] == [(PONG, b""), (CLOSE, b"\x0f\xa0")]
    assert came == [bytes([i]) for i in range(20)]


def test_error_in_on_message_closes_with_1011(caplog):
    endings = []

    async def serve(ws: websocket.WebSocket) -> None:
        def on_message(payload: bytes, is_text: bool) -> None:
            raise ValueError("broken")

        ws.listen(on_message, lambda *ending: endings.append(ending), lambda: None)
        await asyncio.sleep(0.2)
        assert endings

    with listening(serve) as client:
        client.send((TEXT, b"a"), (TEXT, b"b"))
        assert client.receive_close() == 1011
    assert endings == [(1011, "")]
    assert caplog.text.count("ValueError: broken") == 1


@pytest.mark.parametrize("ending", ["close frame", "drop", "breach", "close", "stop", "listens late"])
def test_on_close_is_called_once_and_ends_sending(ending):
    endings: list[int] = []
    expected = {"close frame": 1001, "drop": 1006, "breach": 1002, "close": 4004, "stop": 1012, "listens late": 1001}

    async def serve(ws: websocket.WebSocket) -> None:
        over = asyncio.get_running_loop().create_future()
        if ending == "listens late":
            assert await ws.receive() is None
        ws.listen(pytest.fail, lambda *ending: over.set_result(ending), pytest.fail)
        if ending == "close":
            ws.close(4004, "enough")
            assert not over.done(), "on_close is not called from within"
        endings.append((await over)[0])
        assert ws.send(b"late", False) is False
        ws.close(1000)
        ws.pause()
        ws.resume()
        await asyncio.sleep(0.1)

    sent = {"close frame": (CLOSE, b"\x03\xe9"), "listens late": (CLOSE, b"\x03\xe9"), "breach": (0, b"")}

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await serve(scope["extensions"][EXTENSION])

    with Running(accepted(app)) as server, Client(server) as client:
        client.send(*[sent[ending]] if ending in sent else [])
        if ending == "drop":
            client.socket.shutdown(socket.SHUT_RDWR)
        elif ending == "stop":
            threading.Thread(target=server.stop).start()
        assert (client.receive() is None) == (ending == "drop")
        until(lambda: endings)
    assert endings == [expected[ending]]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_send_returns_false_until_on_drain(loop):
    sent, drained = 0, 0

    async def serve(ws: websocket.WebSocket) -> None:
        ended = asyncio.get_running_loop().create_future()

        def fill() -> None:
            nonlocal sent
            room = True
            while room and sent < 100:
                room = ws.send(b"x" * 2**18, False)
                sent += 1

        def on_drain() -> None:
            nonlocal drained
            drained += 1
            fill()

        ws.listen(lambda payload, is_text: fill(), lambda code, reason: ended.set_result(code), on_drain)
        await ended

    with listening(serve, loop=loop) as client:
        client.send((TEXT, b"begin"))
        time.sleep(0.3)
        assert 0 < sent < 100
        assert not drained
        for _ in range(100):
            assert client.receive() == (BINARY, b"x" * 2**18)
        assert drained
        client.send((CLOSE, b""))


def test_bytes_are_sent_without_a_task_for_each():
    tasks = []

    async def serve(ws: websocket.WebSocket) -> None:
        asyncio.get_running_loop().set_task_factory(
            lambda loop, coro, **named: tasks.append(coro) or asyncio.Task(coro, loop=loop, **named)
        )
        await echo_at_once(ws)

    with listening(serve) as client:
        for i in range(100):
            client.send((TEXT, str(i).encode()))
            assert client.receive() == (TEXT, str(i).encode())
        assert not tasks
