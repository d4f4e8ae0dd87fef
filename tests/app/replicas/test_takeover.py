"""Sessions that go on at another server: of one that was killed, frozen, stopped, cut from the database, or asked."""

import json
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import httpx
import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.chaos import Reference
from benchmarks.chaos.cluster import Cluster, Replica, check_log_of_tapes
from benchmarks.chaos.record import read_recording
from benchmarks.postgres import Postgres
from tests.app.replicas.sessions import PATIENCE, WIDTH, Session
from tests.waiting import until

pytestmark = pytest.mark.slow

LONG_LEASE = ("--lease", "60")
SILENT_SECONDS = 10.0
PULLS = 20
"""Steps that each of two clients takes of one session."""


def through(url: str) -> Callable[[int], str]:
    """Return what gives the URL of a database for the port of a link to it."""
    return lambda port: re.sub(r":\d+/", f":{port}/", url)


def metric(server: Replica, name: str) -> float:
    """Return the value of a metric of a server, the sum of its labels."""
    lines = httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_session_of_a_killed_server_goes_on_at_another(cluster: Cluster, reference: Reference) -> None:
    first, second, _ = cluster.servers
    session = Session(first)
    for _ in range(3):
        session.step(first)
    before = metric(second, "engram_takeovers_total")
    first.stop(signal.SIGKILL)
    session.step(second)
    session.check(second, reference)
    assert metric(second, "engram_takeovers_total") == before + 1


def test_session_with_forced_gates_keeps_them_at_another_server(cluster: Cluster) -> None:
    first, second, _ = cluster.servers
    force, inputs = {"read_modes": [[0.25, 0.25, 0.5]], "write_gate": [0.5]}, [[0.5] * 10] * 3
    body = {"model": "dnc-copy", "force": force}
    opened = [httpx.post(f"{first.url}/sessions", json=body, timeout=PATIENCE).json()["id"] for _ in range(2)]
    outputs = []
    for session, servers in zip(opened, ((first, second, first), (first, first, first)), strict=True):
        steps = [(f"{server.url}/sessions/{session}/steps", {"inputs": inputs}) for server in servers]
        outputs.append([httpx.post(url, json=steps, timeout=PATIENCE).json()["outputs"] for url, steps in steps])
    assert outputs[0] == outputs[1]
    assert httpx.get(f"{second.url}/sessions/{opened[0]}", timeout=PATIENCE).json()["force"] == force


def test_frozen_server_acknowledges_no_step_after_a_takeover(cluster: Cluster, reference: Reference) -> None:
    first, second, _ = cluster.servers
    session = Session(first)
    session.step(first)
    with ThreadPoolExecutor() as pool:
        first.process.send_signal(signal.SIGSTOP)
        late = pool.submit(session.post, first)
        session.step(second)
        first.process.send_signal(signal.SIGCONT)
        assert late.result().status_code in (409, 503)
    for server in cluster.servers:
        session.step(server)
    session.check(first, reference)
    check_log_of_tapes(cluster.postgres)


def test_socket_of_a_session_taken_over_is_closed_with_1012(cluster: Cluster) -> None:
    first, second, _ = cluster.servers
    session = Session(first)
    session.step(first)
    url = f"{first.url.replace('http', 'ws', 1)}/sessions/{session.track.id}/stream"
    with connect(url, subprotocols=["engram.msgpack"], compression=None) as socket:  # type: ignore[list-item]
        assert msgpack.unpackb(socket.recv())["step"] == 1
        first.process.send_signal(signal.SIGSTOP)
        session.step(second)
        first.process.send_signal(signal.SIGCONT)
        with pytest.raises(ConnectionClosed) as closed:
            list(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def test_socket_of_many_sessions_is_closed_without_a_lease(cluster: Cluster) -> None:
    first, second, _ = cluster.servers
    session = Session(first)
    session.step(first)
    with connect(f"{first.url.replace('http', 'ws', 1)}/streams?open={session.track.id}", compression=None) as socket:
        assert json.loads(socket.recv())["sessions"][0]["step"] == 1
        first.process.send_signal(signal.SIGSTOP)
        session.step(second)
        socket.send(json.dumps({"sessions": [0], "inputs": [[[0.5] * WIDTH]]}))
        first.process.send_signal(signal.SIGCONT)
        answer = json.loads(socket.recv())
        assert [error["code"] for error in answer["errors"]] == ["lease_lost"]
        assert json.loads(socket.recv(PATIENCE))["code"] == "lease_lost"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def test_stopped_server_hands_over_before_its_lease_ends(
    postgres: Postgres, database_url: str, run_cluster: Callable[..., Cluster], reference: Reference
) -> None:
    first, second = run_cluster(postgres, *LONG_LEASE, servers=2, url=through(database_url)).servers
    session = Session(first)
    session.step(first)
    assert first.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert session.post(second).status_code == 200
    assert metric(second, "engram_takeovers_total") == 0
    session.check(second, reference)


def test_servers_go_on_when_the_database_was_killed(cluster: Cluster, reference: Reference) -> None:
    session = Session(cluster.servers[0])
    session.step(cluster.servers[0])
    cluster.postgres.kill()
    refused = session.post(cluster.servers[0])
    assert (refused.status_code, refused.json()["code"]) in [(503, "store_failed"), (503, "lease_lost")]
    cluster.postgres.start()
    for server in cluster.servers:
        session.step(server)
        assert server.process.poll() is None
    session.check(cluster.servers[0], reference)
    cluster.check_logs()


def test_server_cut_from_the_database_refuses_and_recovers(cluster: Cluster, reference: Reference) -> None:
    first, second, _ = cluster.servers
    session = Session(first)
    session.step(first)
    first.link.silence()
    silent_until = time.monotonic() + SILENT_SECONDS
    codes = set()
    while time.monotonic() < silent_until:
        answer = session.post(first)
        assert answer.status_code == 503, answer.text
        codes.add(answer.json()["code"])
        session.step(second)
    assert codes <= {"lease_lost", "store_failed"}
    first.link.resume()
    session.step(first)
    session.check(first, reference)
    check_log_of_tapes(cluster.postgres)


def test_write_that_arrives_after_a_takeover_is_refused(cluster: Cluster, reference: Reference) -> None:
    first, second, _ = cluster.servers
    session = Session(first)
    session.step(first)
    first.link.silence()
    assert session.post(first).status_code == 503  # the link holds the step back
    until(lambda: httpx.get(f"{second.url}/sessions/{session.track.id}/state", timeout=PATIENCE).status_code == 200)
    first.link.resume()
    first.wait_until_ready()
    session.step(second)
    session.check(second, reference)
    check_log_of_tapes(cluster.postgres)


def test_any_server_steps_any_session_without_routing(cluster: Cluster, reference: Reference) -> None:
    sessions = [Session(server) for server in cluster.servers]
    before = [metric(server, "engram_takeovers_total") for server in cluster.servers]
    for number in range(9):
        for session in sessions:
            session.step(cluster.servers[number % len(cluster.servers)])
    for session in sessions:
        session.check(cluster.servers[0], reference)
    assert [metric(server, "engram_takeovers_total") for server in cluster.servers] == before


def test_two_clients_that_pull_one_session_both_finish(cluster: Cluster) -> None:
    session = Session(cluster.servers[0]).track.id

    def pull(server: Replica) -> list[httpx.Response]:
        answers: list[httpx.Response] = []
        while sum(answer.status_code == 200 for answer in answers) < PULLS:
            body = {"inputs": [[0.5] * 10]}
            answers.append(httpx.post(f"{server.url}/sessions/{session}/steps", json=body, timeout=PATIENCE))
            time.sleep(0.05 if answers[-1].status_code == 200 else 0.5)
        return answers

    with ThreadPoolExecutor() as pool:
        answers = list(chain.from_iterable(pool.map(pull, cluster.servers[:2])))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "session_held")}
    assert all(answer.headers["Retry-After"] for answer in refused)
    steps = sorted(answer.json()["step"] for answer in answers if answer.status_code == 200)
    assert steps == list(range(1, 2 * PULLS + 1))
    recording = httpx.get(f"{cluster.servers[2].url}/sessions/{session}/recording", timeout=PATIENCE)
    assert len(read_recording(recording.text).outputs) == 2 * PULLS
