"""HAProxy with the configuration that ships, in front of real servers.

The servers have a store each, so that a session is known at one server only: a request of it is answered 200 where it
was opened, and 404 at the other servers.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.haproxy import configuration
from tests.app.harness import CHECKPOINTS, Server
from tests.haproxy import Proxy, running_proxy

pytestmark = pytest.mark.slow

STEP = {"inputs": [[0.0] * 10]}
INFER = {"model": "dnc-copy", "inputs": [[0.0] * 10] * 5}
LONG = {"model": "dnc-copy", "memory_size": 1024, "inputs": [[0.0] * 10] * 5000}
UP = {"engram-1": "UP", "engram-2": "UP", "engram-3": "UP"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = tmp_path_factory.mktemp("few")
    (few / "dnc-copy").symlink_to(CHECKPOINTS / "dnc-copy")
    return few


@pytest.fixture(scope="module")
def shared(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Server], Proxy]]:
    """Three servers and HAProxy, for tests that stop none of them."""
    yield from replicas(checkpoints, tmp_path_factory.mktemp("shared"))


@pytest.fixture
def stoppable(shared: tuple[list[Server], Proxy]) -> Iterator[tuple[list[Server], Proxy]]:
    """The three servers and HAProxy, for a test that may stop servers; after it they are started again."""
    servers, proxy = shared
    yield servers, proxy
    for server in servers:
        if server.process.poll() is not None:
            server.restart()
    proxy.wait_for(lambda states: states == UP)


def replicas(checkpoints: Path, directory: Path, **environment: str) -> Iterator[tuple[list[Server], Proxy]]:
    with ExitStack() as stack:
        options = {"checkpoints": checkpoints, **environment}
        servers = [Server("--drain-seconds", "1", data=directory / f"data-{number}", **options) for number in range(3)]
        for server in servers:
            stack.callback(server.stop, signal.SIGKILL)
        for server in servers:
            server.wait_until_listening()
        yield servers, stack.enter_context(running_proxy(servers, directory))


@pytest.fixture
def sharing(checkpoints: Path, tmp_path: Path, database_url: str) -> Iterator[tuple[list[Server], Proxy]]:
    """Three servers that share a database, and HAProxy."""
    yield from replicas(checkpoints, tmp_path, ENGRAM_STORE=database_url)


def open_sessions(server: Server, count: int) -> list[str]:
    return [httpx.post(f"{server.url}/sessions", json={"model": "dnc-copy"}).json()["id"] for _ in range(count)]


def routed(servers: Sequence[Server], proxy: Proxy, count: int) -> dict[str, bool]:
    """Open sessions at each server; return for each whether HAProxy sends it to its server."""
    opened = [session for server in servers for session in open_sessions(server, count)]
    return {session: httpx.get(f"{proxy.url}/sessions/{session}").status_code == 200 for session in opened}


def here(server: Server, proxy: Proxy) -> str:
    """Return a session of this server that HAProxy sends to it."""
    return next(one for one in iter(lambda: open_sessions(server, 1)[0], "") if routed_to(proxy, one))


def routed_to(proxy: Proxy, session: str) -> bool:
    return httpx.get(f"{proxy.url}/sessions/{session}").status_code == 200


def asked(server: Server, route: str) -> Counter[str]:
    """Return how many requests of a route a server has answered, by status."""
    lines = [line for line in httpx.get(f"{server.url}/metrics").text.splitlines() if f'route="{route}"' in line]
    counts = [line for line in lines if line.startswith("engram_requests_total")]
    return Counter({line.split('status="')[1][:3]: int(float(line.split()[-1])) for line in counts})


class Clients:
    """Clients that send requests one after the other, over connections that they keep, until the context ends."""

    def __init__(self, url: str, count: int = 4) -> None:
        self.statuses: Counter[str] = Counter()
        self._url, self._ended, self._lock = url, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait(self, count: int) -> None:
        """Wait for this many further answers."""
        end = self.statuses.total() + count
        while self.statuses.total() < end:
            time.sleep(0.01)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._ended.is_set():
                for status in (
                    self._status(client, "/infer"),
                    self._status(client, f"/sessions/{os.urandom(8).hex()}"),
                ):
                    with self._lock:
                        self.statuses[status] += 1

    def _status(self, client: httpx.Client, path: str) -> str:
        try:
            response = client.post(path, json=INFER) if path == "/infer" else client.get(path)
        except httpx.HTTPError as error:
            return type(error).__name__
        return f"{path[:4]} {response.status_code}"


ANSWERED = {"/inf 200", "/ses 404"}


def test_requests_of_a_session_meet_one_server(shared):
    servers, proxy = shared
    sessions = routed(servers, proxy, 12)
    assert 4 <= sum(sessions.values()) <= 20
    with httpx.Client(base_url=proxy.url) as client:
        for _ in range(2):
            steps = {one: client.post(f"/sessions/{one}/steps", json=STEP).status_code for one in sessions}
            assert {one: status == 200 for one, status in steps.items()} == sessions


def test_websockets_of_a_session_meet_the_server_of_its_requests(shared):
    servers, proxy = shared
    for server in servers:
        *sessions, beside = open_sessions(server, 5)
        for session in sessions:
            is_there = routed_to(proxy, session)
            for path in (
                f"/sessions/{session}/stream",
                f"/streams?open={session}",
                f"/streams?open={session},{beside}",
            ):
                assert is_known(f"{proxy.socket_url}{path}") == is_there, path


def is_known(url: str) -> bool:
    """Return whether a server knows the sessions of a WebSocket."""
    with suppress(InvalidStatus), connect(url) as stream:
        return '"error"' not in str(stream.recv())
    return False


@pytest.mark.parametrize("route", ["/steps", "/v2/models/{name}/infer"])
def test_many_session_requests_of_a_client_meet_one_server(shared, route):
    servers, proxy = shared
    before = [asked(server, route).total() for server in servers]
    for _ in range(6):
        httpx.post(f"{proxy.url}{route.format(name='dnc-copy')}", json={"sessions": ["none"], "inputs": [[[0.0] * 10]]})
    counts = [asked(server, route).total() - start for server, start in zip(servers, before, strict=True)]
    assert sorted(counts) == [0, 0, 6]


def test_key_of_header_and_of_subprotocol_meet_one_server(shared):
    servers, proxy = shared
    for key in ("a" * 32, "b" * 32, "c" * 32, "d" * 32):
        before = [asked(server, "/steps").total() for server in servers]
        headers = {"Authorization": f"Bearer {key}"}
        httpx.post(f"{proxy.url}/steps", json={"sessions": ["none"], "inputs": [[[0.0] * 10]]}, headers=headers)
        [place] = [n for n, server in enumerate(servers) if asked(server, "/steps").total() > before[n]]
        with connect(f"{proxy.socket_url}/streams", subprotocols=[f"engram.bearer.{key}", "engram.json"]) as stream:
            stream.recv()
            open_at = [n for n, server in enumerate(servers) if "engram_streams 1.0" in metrics(server)]
        assert open_at == [place]


def metrics(server: Server) -> str:
    return httpx.get(f"{server.url}/metrics").text


def test_requests_without_a_session_are_spread(shared):
    servers, proxy = shared
    before = [asked(server, "/models").total() for server in servers]
    for _ in range(9):
        httpx.get(f"{proxy.url}/models").raise_for_status()
    assert [asked(server, "/models").total() - n for server, n in zip(servers, before, strict=True)] == [3, 3, 3]


def test_ids_hosts_and_pages_pass_the_proxy(shared):
    _, proxy = shared
    response = httpx.get(f"{proxy.url}/models", headers={"X-Request-ID": "mine"})
    assert response.headers["X-Request-ID"] == "mine"
    assert httpx.get(f"{proxy.url}/models", headers={"Host": "example.org"}).status_code == 421
    long = "/streams?open=" + ",".join("a" * 32 for _ in range(1000))
    assert httpx.get(proxy.url + long).json()["code"] == "upgrade_required"
    assert "haproxy_server_status" in httpx.get(f"{proxy.statistics}/metrics").text


def test_killed_server_costs_only_what_it_was_asked(stoppable):
    servers, proxy = stoppable
    with Clients(proxy.url) as clients:
        clients.wait(50)
        servers[0].stop(signal.SIGKILL)
        proxy.wait_for(lambda states: states["engram-1"] == "DOWN")
        clients.wait(50)
    failed = {status: count for status, count in clients.statuses.items() if status not in ANSWERED}
    # Of each client the request that was in work, and one that was sent on a connection kept to the server
    assert sum(failed.values()) <= 2 * 4, clients.statuses
    assert set(failed) <= {"/inf 502", "/ses 502", "RemoteProtocolError", "ReadError"}, failed


def test_request_of_a_killed_server_is_not_sent_to_another(stoppable):
    servers, proxy = stoppable
    session = here(servers[0], proxy)
    before = [asked(server, "/sessions/{session}/steps").total() for server in servers[1:]]
    servers[0].process.send_signal(signal.SIGSTOP)
    answers: list[httpx.Response] = []
    url = f"{proxy.url}/sessions/{session}/steps"
    step = threading.Thread(target=lambda: answers.append(httpx.post(url, json=STEP, timeout=30)))
    step.start()
    time.sleep(0.3)  # HAProxy has sent the step, to a process that does not read it
    servers[0].process.kill()
    step.join()
    assert (answers[0].status_code, answers[0].json()["code"]) == (502, "server_lost")
    servers[0].stop()
    assert [asked(server, "/sessions/{session}/steps").total() for server in servers[1:]] == before


def test_stopped_server_drains_without_a_failed_request(stoppable):
    servers, proxy = stoppable
    statuses: list[int] = []
    lasting = [
        threading.Thread(
            target=lambda: statuses.append(httpx.post(f"{proxy.url}/infer", json=LONG, timeout=60).status_code)
        )
        for _ in range(3)
    ]
    with Clients(proxy.url) as clients:
        clients.wait(20)
        for thread in lasting:
            thread.start()
        time.sleep(0.2)
        servers[0].process.send_signal(signal.SIGTERM)
        proxy.wait_for(lambda states: states["engram-1"].startswith("NOLB"))
        servers[0].process.wait(60)
        clients.wait(50)
    for thread in lasting:
        thread.join()
    assert set(clients.statuses) == ANSWERED, clients.statuses
    assert statuses == [200, 200, 200]


def test_websocket_of_a_draining_server_goes_on_until_it_stops(stoppable):
    servers, proxy = stoppable
    with connect(f"{proxy.socket_url}/sessions/{here(servers[0], proxy)}/stream") as stream:
        stream.recv()
        servers[0].process.send_signal(signal.SIGTERM)
        proxy.wait_for(lambda states: states["engram-1"].startswith("NOLB"))
        stream.send('{"seq": 0, "inputs": [[0,0,0,0,0,0,0,0,0,0]]}')
        assert '"result"' in str(stream.recv())
        with pytest.raises(ConnectionClosed):
            stream.recv()
        assert stream.close_code == 1012
    servers[0].process.wait(60)


def test_websocket_of_a_hung_server_is_closed(stoppable):
    servers, proxy = stoppable
    with connect(f"{proxy.socket_url}/sessions/{here(servers[0], proxy)}/stream") as stream:
        stream.recv()
        servers[0].process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ConnectionClosed):
                stream.recv(timeout=20)
            assert proxy.states()["engram-1"] == "DOWN"
        finally:
            servers[0].process.send_signal(signal.SIGCONT)
    proxy.wait_for(lambda states: states == UP)


def test_without_servers_the_answer_is_a_problem_document(stoppable):
    servers, proxy = stoppable
    for server in servers:
        server.stop(signal.SIGKILL)
    response = httpx.get(f"{proxy.url}/models")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"
    proxy.wait_for(lambda states: set(states.values()) == {"DOWN"})
    assert httpx.get(f"{proxy.url}/models").json()["code"] == "unavailable"


def test_reload_loses_no_request_and_no_websocket(stoppable):
    servers, proxy = stoppable
    with (
        connect(f"{proxy.socket_url}/sessions/{here(servers[0], proxy)}/stream") as stream,
        Clients(proxy.url) as clients,
    ):
        stream.recv()
        clients.wait(20)
        proxy.reload()
        clients.wait(100)
        stream.send('{"seq": 0, "inputs": [[0,0,0,0,0,0,0,0,0,0]]}')
        assert '"result"' in str(stream.recv())
    assert set(clients.statuses) == ANSWERED, clients.statuses


class Stepping:
    """Clients that step a session each, until the context ends; the first answer that is not 200 ends them."""

    def __init__(self, url: str, count: int) -> None:
        self.steps = [0] * count
        self.refusals: list[str] = []
        self._url, self._ended = url, threading.Event()
        self._threads = [threading.Thread(target=self._step, args=[number]) for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _step(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            session = client.post("/sessions", json={"model": "dnc-copy"}).json()["id"]
            while not self._ended.is_set():
                answer = client.post(f"/sessions/{session}/steps", json=STEP | {"if_step": self.steps[number]})
                if answer.status_code != 200:
                    self.refusals.append(answer.text)
                    self._ended.set()
                    return
                self.steps[number] += 1


def test_rolling_restart_refuses_no_step_of_any_session(sharing):
    servers, proxy = sharing
    with Stepping(proxy.url, 12) as clients:
        for name, server in zip(UP, servers, strict=True):
            before = min(clients.steps)
            server.process.send_signal(signal.SIGTERM)
            proxy.wait_for(lambda states, name=name: states[name] != "UP")
            server.process.wait(60)
            proxy.wait_for(lambda states, name=name: states[name] == "DOWN")
            server.restart()
            proxy.wait_for(lambda states: states == UP)
            assert clients.refusals == []
            assert min(clients.steps) > before


def test_configuration_names_each_server_in_both_back_ends():
    lines = [line.split() for line in configuration(["a:1", "b:2"]).splitlines() if line.startswith("    server ")]
    assert [line[1:3] for line in lines] == 2 * [["engram-1", "a:1"], ["engram-2", "b:2"]]
    assert [line[3:] for line in lines] == [
        ["id", "1", "check"],
        ["id", "2", "check"],
        ["track", "sessions/engram-1"],
        ["track", "sessions/engram-2"],
    ]
