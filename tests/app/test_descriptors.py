"""A server that cannot open more files: it logs that, keeps its connections, and recovers."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from app.descriptors import connections_within
from tests.app.harness import Server, running_server

LIMIT = 64
SHORT = "Too many open files: new connections are closed at once"
AGAIN = "files can be opened again"


@contextmanager
def open_file_limit(limit: int) -> Iterator[None]:
    """Limit the open files of processes that are started within this context."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def short_server(few, data) -> Iterator[Server]:
    with ExitStack() as stack:
        with open_file_limit(LIMIT):
            server = stack.enter_context(running_server("--access-log", data=data, checkpoints=few, fresh=True))
        yield server


def wait_for_line(server: Server, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


@contextmanager
def connections(server: Server, count: int) -> Iterator[None]:
    """Keep `count` idle connections open within this context."""
    address = urlsplit(server.url)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((address.hostname, address.port)))
        yield


@pytest.mark.parametrize(("limit", "connections"), [(64, 1000), (300, 172), (2000, 1000)])
def test_limit_of_files_bounds_the_connections(limit, connections, caplog):
    with open_file_limit(limit):
        assert connections_within(1000) == connections
    assert ("ulimit -n" in caplog.text) is (connections < 1000)


def test_exhausted_files_are_logged_once_and_connections_accepted_again(short_server):
    with connections(short_server, 2 * LIMIT):
        wait_for_line(short_server, SHORT)
        time.sleep(3)
    wait_for_line(short_server, AGAIN)
    assert httpx.get(f"{short_server.url}/healthz").status_code == 200
    assert (short_server.log.count(SHORT), short_server.log.count(AGAIN)) == (1, 1)
    assert "Traceback" not in short_server.log


def test_connected_client_continues_while_files_are_exhausted(short_server):
    with httpx.Client(base_url=short_server.url) as client:
        client.get("/healthz")
        with connections(short_server, 2 * LIMIT):
            wait_for_line(short_server, SHORT)
            opened = client.post("/sessions", json={"model": "dnc-copy"}).json()
            steps = client.post(f"/sessions/{opened['id']}/steps", json={"inputs": [[0.0] * 10] * 3})
            assert steps.json()["step"] == 3
            assert [client.get(path).status_code for path in ("/", "/docs", "/static/inspector.css", "/readyz")] == [
                200
            ] * 4
    assert "Traceback" not in short_server.log
