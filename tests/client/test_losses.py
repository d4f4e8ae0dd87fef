"""Every step is taken once, through a proxy that cuts connections and a server that is killed."""

import asyncio
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engram_client import (
    AsyncClient,
    Client,
    Stepped,
)
from tests.app.harness import CHECKPOINTS, Server
from tests.client.cutting import Cut, proxy_before
from tests.client.inputs import MODEL, pieces

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


def test_connection_cut_doubles_no_step_of_many_sessions(server):
    inputs = [pieces(24, seed) for seed in range(3)]
    cuts = [cut for kind in CUTS.values() for cut in kind]
    with proxy_before(server, cuts) as proxy, Client(proxy.url) as client:
        sessions = [client.open(MODEL) for _ in inputs]
        parts = [client.step_many(dict(zip(sessions, row, strict=True)), "usage") for row in zip(*inputs, strict=True)]
    assert len(proxy.cuts) < len(cuts) / 2
    for session, sequence in zip(sessions, inputs, strict=True):
        check_heard(server, (session.id, [part[session] for part in parts]), sequence)


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
def test_killed_server_loses_no_step_and_doubles_none(mortal, way):
    inputs = pieces(36, scale=20)
    heard = WAYS[way](mortal.server.url, dying(inputs, mortal))
    check_heard(mortal.server.wait_until_listening(), heard, inputs)
