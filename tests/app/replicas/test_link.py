"""The proxy in between, with plain sockets at both of its ends."""

import select
import socket
from collections.abc import Iterator

import pytest

from benchmarks.chaos.silent import Link


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


@pytest.fixture
def link(listening: socket.socket) -> Iterator[Link]:
    with Link(listening.getsockname()[1]) as link:
        yield link


def connected(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=10)


def hears_nothing(end: socket.socket) -> bool:
    """Return whether nothing arrives for a while, nor the end of the connection."""
    return select.select([end], [], [], 0.2)[0] == []


def test_link_forwards_both_ways_until_either_end_closes(listening, link):
    with connected(link) as client, listening.accept()[0] as server:
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        server.sendall(b"answer")
        assert client.recv(100) == b"answer"
        server.close()
        assert client.recv(100) == b""


def test_silent_link_forwards_nothing_then_all_that_came(listening, link):
    with connected(link) as client, listening.accept()[0] as server:
        link.silence()
        client.sendall(b"question")
        server.sendall(b"answer")
        assert hears_nothing(client)
        assert hears_nothing(server)
        link.resume()
        assert (server.recv(100), client.recv(100)) == (b"question", b"answer")


def test_silent_link_connects_nobody_until_it_resumes(listening, link):
    link.silence()
    with connected(link) as client:
        client.sendall(b"question")
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.accept()
        link.resume()
        listening.settimeout(10)
        with listening.accept()[0] as server:
            assert server.recv(100) == b"question"


def test_dropped_connections_end_at_both_ends(listening, link):
    with connected(link) as client, listening.accept()[0] as server:
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        link.drop()
        assert client.recv(100) == b""
        assert server.recv(100) == b""
    with connected(link) as client, listening.accept()[0] as server:
        client.sendall(b"again")
        assert server.recv(100) == b"again"
