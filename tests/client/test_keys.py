"""Keys of a client, at a listening socket that refuses every request."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from engram_client import (
    AsyncClient,
    AsyncSession,
    Client,
    Forbidden,
    InvalidKey,
    Session,
    TooManyRequests,
    Unreachable,
)
from engram_client.connection import with_key
from engram_client.errors import Lost, refusal
from tests.client.scripted import GREETING, OPENED, carried_out, scripted


class Refusing:
    """A server that keeps the heads of the requests, one to a connection, and refuses them with one status."""

    def __init__(self, status: int) -> None:
        self.heads: list[bytes] = []
        body = json.dumps({"status": status, "code": "so", "detail": "it is"}).encode()
        self._answer = b"HTTP/1.1 %d No\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
            *(status, len(body)),
            body,
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.heads.append(connection.recv(2**16))
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def keys(self) -> list[str]:
        """Return the Authorization of each request."""
        lines = [line for head in self.heads for line in head.decode().split("\r\n")]
        return [line.split(": ")[1] for line in lines if line.lower().startswith("authorization")]


@pytest.fixture
def refusing(monkeypatch) -> Iterator[Refusing]:
    monkeypatch.delenv("ENGRAM_KEY", raising=False)
    server = Refusing(401)
    yield server
    server.close()


def open_and_stream(client: Client) -> None:
    for call in (lambda: client.open("m"), Session(AsyncSession(client._client, OPENED)).stream().__enter__):
        with pytest.raises(InvalidKey, match="it is"):
            call()


def test_key_is_sent_with_requests_and_websockets(refusing):
    with Client(refusing.url, key="engram_ab_cd\n") as client:
        open_and_stream(client)
    assert refusing.keys == ["Bearer engram_ab_cd"] * 2
    assert [head.split()[0] for head in refusing.heads] == [b"POST", b"GET"]


def test_key_of_the_asynchronous_client_is_sent_too(refusing):
    async def call() -> None:
        async with AsyncClient(refusing.url, key="engram_ab_cd") as client:
            with pytest.raises(InvalidKey):
                await client.models()
            with pytest.raises(InvalidKey):
                await AsyncSession(client, OPENED).stream().__aenter__()

    asyncio.run(call())
    assert refusing.keys == ["Bearer engram_ab_cd"] * 2


def test_key_of_the_environment_is_sent_unless_another_is_given(refusing, monkeypatch):
    monkeypatch.setenv("ENGRAM_KEY", "of-the-environment")
    for options in ({}, {"key": "given"}, {"key": ""}, {"headers": {"authorization": "Basic x"}}):
        with Client(refusing.url, **options) as client:
            open_and_stream(client)
    expected = ["Bearer of-the-environment", "Bearer given", "Basic x"]
    assert refusing.keys == [key for key in expected for _ in range(2)]


def test_key_that_no_header_can_hold_is_refused_unseen():
    for key in ("secret key", "secret\r\nX: y", "secrét"):
        with pytest.raises(ValueError, match="printable ASCII characters without spaces") as raised:
            with_key({}, key)
        assert "secr" not in str(raised.value)
    with pytest.raises(ValueError, match="Authorization already"):
        with_key({"Authorization": "Basic x"}, "secret")


@pytest.mark.parametrize(("status", "kind"), [(401, InvalidKey), (403, Forbidden), (421, Forbidden)])
def test_refusal_of_a_key_or_host_is_final(status, kind):
    assert type(refusal({"status": status, "code": "so", "detail": "it is"})) is kind


def test_too_many_requests_are_tried_again_until_the_timeout():
    server = Refusing(429)
    with Client(server.url, timeout=0.4, key="") as client, pytest.raises(Unreachable) as raised:
        open_and_stream(client)
    server.close()
    assert isinstance(raised.value.__cause__, TooManyRequests)
    assert len(server.heads) == raised.value.problem["tries"] > 1


@pytest.mark.parametrize(("header", "member", "after"), [("3", 9, 3), ("", 9, 9), ("", None, 0), ("soon", 9, 0)])
def test_retry_after_comes_from_the_header_or_the_problem(header, member, after):
    problem = {"status": 429, "code": "rate_limited", "detail": "too fast", "retry_after": member}
    lost = refusal(problem, header)
    assert isinstance(lost, Lost)
    assert lost.after == after


def test_rate_limited_frame_is_sent_again_after_the_time_given():
    limited = {"type": "error", "status": 429, "code": "rate_limited", "detail": "too fast", "retry_after": 4}
    session, script = scripted([GREETING, limited], [GREETING, carried_out(0)])

    async def stream() -> None:
        async with session.stream() as stream:
            assert (await stream.run([[1]])).step == 1

    asyncio.run(stream())
    assert [frame["seq"] for frame in script.frames] == [0, 0]
    assert script.pauses == [4]
