"""Clients with keys, at a real server whose keys the command line changes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engram_client import Client, Forbidden, InvalidKey, NotFound, Stream, TooManyRequests, Unreachable
from tests.app.conftest import few
from tests.app.harness import ROOT, Server, running_server
from tests.client.inputs import MODEL, sequence

__all__ = ["few"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "data"


@pytest.fixture(scope="module")
def keys(data: Path) -> Callable[..., str]:
    """Run `engram keys` for the data directory of the server."""

    def run(*words: object) -> str:
        command = [sys.executable, "-m", "engram", "keys", *map(str, words), "--data", str(data)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return run


@pytest.fixture(scope="module")
def key(keys: Callable[..., str]) -> str:
    """Return a key without limits, made before the server starts."""
    return keys("create")


@pytest.fixture(scope="module")
def server(key: str, data: Path, few: Path) -> Iterator[Server]:
    with running_server(data=data, checkpoints=few) as server:
        yield server


@pytest.fixture
def connect(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Client]:
    monkeypatch.delenv("ENGRAM_KEY", raising=False)
    return lambda key=None, timeout=60.0: Client(server.url, timeout, key=key)


def accepted(client: Client) -> Client:
    """Return a client once the server knows its key."""
    while True:
        try:
            client.models()
        except InvalidKey:
            continue
        return client


def step_for_ever(stream: Stream) -> None:
    while True:
        stream.run(sequence(1))


def test_key_opens_everything_over_http_and_websocket(connect, key):
    with connect(key) as client:
        session = client.open(MODEL)
        whole = session.run(sequence(6)).outputs
        session.reset()
        with session.stream() as stream:
            assert np.allclose(stream.run(sequence(6)).outputs, whole, atol=1e-6)
        assert client.infer(MODEL, sequence(6)).steps == 6
        assert client.restore(session.snapshot()).step == 6


@pytest.mark.parametrize("wrong", [None, "", "nonsense", "engram_0123456789ab_00"])
def test_client_without_a_valid_key_is_refused(wrong, connect, key):
    with connect(key) as client:
        session = client.open(MODEL)
    with connect(wrong) as client:
        for call in (client.models, lambda: client.open(MODEL), lambda: client.session(session.id)):
            with pytest.raises(InvalidKey):
                call()


def test_key_of_another_tenant_finds_nothing(connect, key, keys):
    with connect(key) as client, accepted(connect(keys("create", "--tenant", "team-b"))) as other:
        session = client.open(MODEL)
        with pytest.raises(NotFound):
            other.session(session.id)
        assert session.id not in [found.id for found in other.sessions()]


def test_key_without_the_scope_is_refused(connect, keys):
    with accepted(connect(keys("create", "--scopes", "infer"))) as client:
        assert client.infer(MODEL, sequence(2)).steps == 2
        with pytest.raises(Forbidden, match="scope_missing"):
            client.open(MODEL)


def test_revoked_key_ends_an_open_stream(connect, keys):
    key = keys("create")
    with accepted(connect(key)) as client:
        session = client.open(MODEL)
        stream = session.stream().__enter__()
        assert stream.run(sequence(1)).step == 1
        keys("revoke", key)
        with pytest.raises(InvalidKey):
            step_for_ever(stream)
        with pytest.raises(InvalidKey):
            client.models()


def test_rate_limited_calls_succeed_later(connect, keys):
    with accepted(connect(keys("create", "--steps-per-second", 40))) as client:
        session = client.open(MODEL)
        assert [session.run(sequence(30)).step for _ in range(3)] == [30, 60, 90]
        with session.stream() as stream:
            assert stream.run(sequence(30)).step == 120
    with accepted(connect(keys("create", "--steps-per-second", 0.01), timeout=2)) as client:
        assert client.infer(MODEL, sequence(3)).steps == 3
        with pytest.raises(Unreachable, match=r"0\.01 steps per second") as raised:
            client.infer(MODEL, sequence(1))
    assert isinstance(raised.value.__cause__, TooManyRequests)


def test_streams_of_a_key_are_limited(connect, keys):
    with accepted(connect(keys("create", "--max-streams", 1), timeout=2)) as client:
        sessions = [client.open(MODEL) for _ in range(2)]
        with sessions[0].stream() as stream:
            assert stream.run(sequence(1)).step == 1
            with pytest.raises(Unreachable, match="1 open WebSockets"):
                sessions[1].stream().__enter__()
            assert stream.run(sequence(1)).step == 2
        with sessions[1].stream() as stream:
            assert stream.run(sequence(1)).step == 1


def test_sessions_of_a_tenant_are_limited(connect, keys):
    with accepted(connect(keys("create", "--tenant", "team-c", "--max-sessions", 1), timeout=2)) as client:
        session = client.open(MODEL)
        with pytest.raises(Unreachable):
            client.open(MODEL)
        session.delete()
        assert client.open(MODEL).step == 0
