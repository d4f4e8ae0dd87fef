"""Faults of a server's disk, files, power, clock, back end and clients, with real processes."""

import copy
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import httpx
import numpy as np
import pytest

from app.stores.sqlite import SqliteStore
from benchmarks.chaos import (
    Array,
    Load,
    Reference,
    Server,
    check,
    check_earlier_sessions,
    check_sessions,
    only,
    read_recording,
)
from tests.app.faults import CURSED, Faults, build_faults, cut_power
from tests.app.harness import CHECKPOINTS

pytestmark = pytest.mark.slow

CHECKPOINT = CHECKPOINTS / "dnc-copy"
WIDTH = 10
CLIENTS, FEW = 64, 16
YEAR = 366 * 86400
IDLE_SECONDS = 2
FILE = "sessions.sqlite"
PAGE = 4096
"""Bytes of a page of SQLite."""

SYNC_SECONDS = 0.5
SYNCED_SECONDS = 3.0
"""Seconds after which all that was written is synced, also on a busy machine."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_faults(tmp_path_factory.mktemp("faults") / "faults.so")


@pytest.fixture
def faults(library: Path, tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults", library)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    return only(CHECKPOINT, tmp_path)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(CHECKPOINT)


def refusal(server: Server) -> str:
    """Wait for a server that must not start; return the last line of its log."""
    server.start()
    assert server.process.wait(timeout=60) == 1
    assert "Traceback" not in server.log
    return server.log.splitlines()[-1]


def random_inputs(steps: int, seed: int) -> Array:
    return np.random.default_rng(seed).random((steps, WIDTH), np.float32)


class Client:
    """A session of the test, and the inputs that it has taken."""

    def __init__(self, server: Server) -> None:
        body = {"model": CHECKPOINT.name, "memory_size": 4}
        self.server = server
        self.id: str = httpx.post(f"{server.url}/sessions", json=body).json()["id"]
        self.inputs: list[Array] = []

    def fork(self, step: int) -> "Client":
        other = copy.copy(self)
        other.id = httpx.post(f"{self.server.url}/sessions/{self.id}/fork", json={"step": step}).json()["id"]
        other.inputs = self.inputs[:step]
        return other

    def post(self, inputs: Array) -> httpx.Response:
        body = {"inputs": inputs.tolist()}
        return httpx.post(f"{self.server.url}/sessions/{self.id}/steps", json=body, timeout=30)

    def get(self, page: str = "") -> httpx.Response:
        return httpx.get(f"{self.server.url}/sessions/{self.id}{page}", timeout=30)

    def step(self, inputs: Array) -> Array:
        answer = self.post(inputs)
        assert answer.status_code == 200, answer.text
        self.inputs += list(inputs)
        return np.array(answer.json()["outputs"], np.float32)


def make_sessions(server: Server, count: int, requests: int, steps: int) -> list[Client]:
    sessions = [Client(server) for _ in range(count)]
    for number, session in enumerate(sessions):
        for request in range(requests):
            session.step(random_inputs(steps, 1000 * number + request))
    return sessions


def goes_on(session: Client, reference: Reference) -> bool:
    """Return whether the next step of a session and its whole recording equal those of an undisturbed run."""
    outputs = session.step(random_inputs(1, 1))
    expected = reference.run(session.inputs)[0]
    recorded = read_recording(session.get(f"/recording?from={session.get().json()['oldest']}").text)
    kept = expected[-len(recorded.outputs) :]
    return np.array_equal(outputs[0], expected[-1]) and np.array_equal(recorded.outputs, kept)


def flip(path: Path, tape: str, column: str, where: str) -> None:
    """Change one byte in the middle of rows of a table, in files that no server has open."""
    SqliteStore(path).close()  # after a kill, steps may be in the journal
    database = sqlite3.connect(path / "sessions.sqlite")
    rows = database.execute(f"SELECT tape, step, {column} FROM {tape} WHERE {where}").fetchall()
    for number, step, value in rows:
        changed = bytearray(value)
        changed[len(changed) // 2] ^= 1
        values = (bytes(changed), number, step)
        database.execute(f"UPDATE {tape} SET {column} = ? WHERE tape = ? AND step = ?", values)
    database.commit()
    database.close()
    assert rows


def overwrite_page(path: Path, content: bytes) -> None:
    """Overwrite the page of a database that contains these bytes with junk."""
    data = bytearray(path.read_bytes())
    start = data.index(content) // PAGE * PAGE
    data[start : start + PAGE] = b"\xff" * PAGE
    path.write_bytes(data)


def http_request(session: Client, inputs: Array) -> bytes:
    """Return the bytes of an HTTP request to step."""
    body = json.dumps({"inputs": inputs.tolist()})
    fields = ["Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([f"POST /sessions/{session.id}/steps HTTP/1.1", *fields, "", body]).encode()


def frame(inputs: Array) -> bytes:
    """Return the bytes of a frame to step, masked with zeros."""
    body = json.dumps({"seq": 0, "inputs": inputs.tolist()}).encode()
    return struct.pack("!BBQI", 0x81, 0xFF, len(body), 0) + body


def upgrade(session: Client) -> bytes:
    head = [
        f"GET /sessions/{session.id}/stream HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
    ]
    return "\r\n".join([*head, "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'A' * 22}==", "", ""]).encode()


def break_off(session: Client, messages: Sequence[bytes], part: float) -> None:
    """Send messages, but only a part of the last one, and reset the connection."""
    *whole, last = messages
    address = session.server.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as connection:
        for message in whole:
            connection.sendall(message)
            while b"session" not in (received := connection.recv(65_536)):  # the greeting
                assert received, "the server has refused the handshake"
        connection.sendall(last[: math.ceil(part * len(last))])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset


def take_in(session: Client, inputs: Array) -> bool:
    """Check that a session has taken all of these inputs or none; return whether it has."""
    step = session.get("/state").json()["step"]
    assert step in (len(session.inputs), len(session.inputs) + len(inputs))
    taken = step > len(session.inputs)
    session.inputs += list(inputs) if taken else []
    return taken


# The disk


@pytest.mark.parametrize(("error", "reason"), [("EIO", "disk I/O error"), ("ENOSPC", "make room on the disk")])
def test_failing_disk_refuses_steps_and_loses_nothing(error, reason, checkpoints, data, faults):
    with (
        Server(checkpoints, data, environment=faults.environment) as server,
        Load(server.url, CHECKPOINT, CLIENTS) as load,
    ):
        session = Client(server)
        faults.begin("fail", error)
        load.wait_until(lambda: load.counts["store_failed"] >= CLIENTS)
        refused = session.post(random_inputs(1, 1))
        assert session.get("/state").json()["step"] == 0
        faults.end("fail")
        load.wait_for(CLIENTS)
        assert httpx.delete(f"{server.url}/sessions/{session.id}").status_code == 204
        check(server, load, CHECKPOINT)
    assert (refused.status_code, refused.json()["code"]) == (503, "store_failed")
    assert f"{data}/sessions.sqlite: " in refused.json()["detail"]
    assert reason in refused.json()["detail"]


def test_data_directory_that_is_a_file_is_refused(checkpoints, data):
    data.write_text("")
    assert str(data) in refusal(Server(checkpoints, data))


def test_read_only_data_directory_is_refused_unchanged(checkpoints, data, faults, reference):
    server = Server(checkpoints, data, environment=faults.environment)
    with server:
        session = Client(server)
        session.step(random_inputs(3, 1))
        server.stop()
    faults.begin("read-only")
    line = refusal(server)
    faults.end("read-only")
    with server:
        assert goes_on(session, reference)
    assert line.startswith(f"engram: {data}: the data directory is read-only")


# The files


def test_second_server_is_refused_until_the_first_ends(checkpoints, data, reference):
    second = Server(checkpoints, data)
    with Server(checkpoints, data) as first:
        session = Client(first)
        session.step(random_inputs(3, 1))
        line = refusal(second)
        session.step(random_inputs(3, 2))
    with second:
        session.server = second
        assert goes_on(session, reference)
    assert line.startswith(f"engram: {data}/sessions.sqlite: ")
    assert "is another server using this data directory?" in line


def copy_over(backup: Path, data: Path) -> None:
    for path in backup.iterdir():
        shutil.copyfile(path, data / path.name)  # as `cp` does: into the existing file


def copy_in_place_of(backup: Path, data: Path) -> None:
    data.rename(data.with_name("moved"))
    shutil.copytree(backup, data)


REMOVED, REPLACED, OVERWRITTEN = "removed or moved away", "another file lies", "another program has written into"

LOSSES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "the directory is removed": (lambda backup, data: shutil.rmtree(data), REMOVED),
    "the database is removed": (lambda backup, data: (data / FILE).unlink(), REMOVED),
    "the log is removed": (lambda backup, data: (data / f"{FILE}-wal").unlink(), REMOVED),
    "the directory is moved": (lambda backup, data: data.rename(data.with_name("moved")), REMOVED),
    "a backup is moved there": (copy_in_place_of, REPLACED),
    "a backup is copied over it": (copy_over, OVERWRITTEN),
    "the database is emptied": (lambda backup, data: os.truncate(data / FILE, 0), OVERWRITTEN),
    "the log is emptied": (lambda backup, data: os.truncate(data / f"{FILE}-wal", 0), OVERWRITTEN),
}


@pytest.fixture
def backed_up(checkpoints: Path, data: Path, tmp_path: Path) -> Iterator[tuple[Server, Client, Path]]:
    """Return a server with a session at step 5, and a backup of its data from step 3."""
    with Server(checkpoints, data) as server:
        session = Client(server)
        session.step(random_inputs(3, 1))
        shutil.copytree(data, tmp_path / "backup")
        session.step(random_inputs(2, 2))
        yield server, session, tmp_path / "backup"


@pytest.mark.parametrize("loss", LOSSES)
def test_vanished_store_fails_steps_before_they_are_answered(loss, backed_up):
    server, session, backup = backed_up
    lose, damage = LOSSES[loss]
    lose(backup, server.data)
    refused = session.post(random_inputs(1, 3))
    ready = httpx.get(f"{server.url}/readyz", timeout=30)
    assert (refused.status_code, refused.json()["code"], ready.status_code) == (503, "store_failed", 503)
    assert damage in refused.json()["detail"]
    assert damage in server.log
    state = session.get("/state")
    assert state.status_code == (503 if damage == OVERWRITTEN else 200)
    assert state.json().get("step") in (None, 5)


def test_idle_server_without_its_store_is_not_ready(backed_up):
    server, _, _ = backed_up
    shutil.rmtree(server.data)
    assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 503
    assert "was removed or moved away, and nothing more is written: move it back, or stop the server" in server.log


def test_directory_that_is_moved_back_is_written_to_again(backed_up, reference):
    server, session, _ = backed_up
    moved = server.data.rename(server.data.with_name("moved"))
    assert session.post(random_inputs(1, 3)).status_code == 503
    moved.rename(server.data)
    assert (goes_on(session, reference), httpx.get(f"{server.url}/readyz").status_code) == (True, 200)
    server.stop(signal.SIGKILL)
    server.start()
    server.wait_until_ready()
    assert goes_on(session, reference)


def test_server_without_its_log_file_loses_no_answered_step(backed_up, reference):
    server, session, _ = backed_up
    (server.data / f"{FILE}-wal").unlink()
    assert session.post(random_inputs(1, 3)).status_code == 503
    server.stop()
    server.start()
    server.wait_until_ready()
    assert goes_on(session, reference)


@pytest.mark.parametrize("put", [copy_over, copy_in_place_of])
def test_restored_backup_is_unchanged_when_the_server_stops(put, backed_up, reference):
    server, session, backup = backed_up
    put(backup, server.data)
    assert session.post(random_inputs(1, 3)).status_code == 503
    server.stop()
    for path in backup.iterdir():
        assert (server.data / path.name).read_bytes() == path.read_bytes()
    server.start()
    server.wait_until_ready()
    session.inputs = session.inputs[:3]
    assert goes_on(session, reference)


def test_damaged_log_row_fails_only_its_session(checkpoints, data, reference):
    with Server(checkpoints, data) as server:
        first, second, third = make_sessions(server, 3, requests=4, steps=1)
        server.stop(signal.SIGKILL)
        flip(data, "log", "inputs", "tape = 2")
        server.start()
        server.wait_until_ready()
        refused = [second.post(random_inputs(1, 1)), second.get("/state"), second.get("/recording")]
        assert all(goes_on(session, reference) for session in (first, third))
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(500, "session_damaged")] * 3
    assert "the log of tape 2 is damaged at step 0" in refused[0].json()["detail"]


def test_damaged_row_before_a_snapshot_does_not_stop_the_session(checkpoints, data, reference):
    with Server(checkpoints, data) as server:
        first, second = make_sessions(server, 2, requests=4, steps=20)
        server.stop()
        flip(data, "log", "inputs", "tape = 2")
        server.start()
        server.wait_until_ready()
        outputs = second.step(random_inputs(1, 1))
        recording = second.get("/recording").text
        assert goes_on(first, reference)
    assert np.array_equal(outputs, reference.run(second.inputs)[0][-1:])
    assert "session_damaged" in recording


@pytest.mark.parametrize("which", ["tape = 2 AND step = 80", "tape = 2"])
def test_damaged_snapshot_is_skipped(which, checkpoints, data, reference):
    with Server(checkpoints, data) as server:
        sessions = make_sessions(server, 3, requests=4, steps=20)
        server.stop()
        flip(data, "snapshots", "state", which)
        server.start()
        server.wait_until_ready()
        assert all(goes_on(session, reference) for session in sessions)
        assert "the snapshot of tape 2 at step 80 is damaged" in server.log


def test_truncated_database_is_refused_by_name(checkpoints, data):
    with Server(checkpoints, data) as server:
        make_sessions(server, 3, requests=4, steps=20)
        server.stop()
        path = data / "sessions.sqlite"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        line = refusal(server)
    assert line == f"engram: {path}: database disk image is malformed; engram check says what is damaged"


def test_overwritten_page_fails_only_the_sessions_on_it(checkpoints, data, reference):
    with Server(checkpoints, data) as server:
        first, second, third = make_sessions(server, 3, requests=10, steps=20)
        server.stop()
        overwrite_page(data / "sessions.sqlite", np.array(second.inputs[100:105]).tobytes())
        server.start()
        server.wait_until_ready()
        outputs = second.step(random_inputs(1, 1))
        recording = second.get("/recording").text
        assert all(goes_on(session, reference) for session in (first, third))
    assert np.array_equal(outputs, reference.run(second.inputs)[0][-1:])
    assert "database disk image is malformed; engram check says what is damaged" in recording


def test_fork_of_a_fork_keeps_its_past(checkpoints, data, reference):
    with Server(checkpoints, data, "--keep-steps", "50") as server:
        first = Client(server)
        for seed in range(10):
            first.step(random_inputs(20, seed))
        second = first.fork(190)
        second.step(random_inputs(1, 1))
        third = second.fork(150)
        for seed in range(10):
            first.step(random_inputs(20, 10 + seed))
        assert first.get().json()["oldest"] > 0
        assert all(goes_on(session, reference) for session in (second, third))


# The power


def test_power_cut_loses_no_synced_answer(checkpoints, data, faults, reference, tmp_path):
    faults.keep_synced()
    flags = ("--sync-interval", "0")
    with (
        Server(checkpoints, data, *flags, environment=faults.environment) as server,
        Load(server.url, CHECKPOINT, CLIENTS) as load,
    ):
        load.wait_for(4 * CLIENTS)
        server.stop(signal.SIGKILL)
        tracks = load.freeze()
    for number, chance in enumerate((None, Random(1))):
        left = cut_power(data, faults.synced, tmp_path / f"left {number}", chance)
        with Server(checkpoints, left) as server:
            check_sessions(server.url, tracks, reference)


def test_power_cut_leaves_sessions_at_an_earlier_step(checkpoints, data, faults, reference, tmp_path):
    faults.keep_synced()
    flags = ("--sync-interval", str(SYNC_SECONDS))
    with (
        Server(checkpoints, data, *flags, environment=faults.environment) as server,
        Load(server.url, CHECKPOINT, FEW, moves=False) as load,
    ):
        load.wait_for(4 * FEW)
        time.sleep(SYNCED_SECONDS)
        server.stop(signal.SIGKILL)
        moment, tracks = time.monotonic() - SYNCED_SECONDS, load.freeze()
    for number, chance in enumerate((None, Random(1))):
        left = cut_power(data, faults.synced, tmp_path / f"left {number}", chance)
        with Server(checkpoints, left) as server:
            check_earlier_sessions(server.url, tracks, reference, moment)


def test_power_cut_returns_snapshot_only_sessions_to_a_snapshot(checkpoints, data, faults, reference, tmp_path):
    faults.keep_synced()
    flags = ("--sync-interval", str(SYNC_SECONDS), "--snapshots", f"{CHECKPOINT.name}=0.05")
    with Server(checkpoints, data, *flags, environment=faults.environment) as server:
        sessions = make_sessions(server, FEW, 3, 2)
        time.sleep(SYNCED_SECONDS)
        for session in sessions:
            session.step(random_inputs(2, 1))
        server.stop(signal.SIGKILL)
    for number, chance in enumerate((None, Random(1))):
        left = cut_power(data, faults.synced, tmp_path / f"left {number}", chance)
        with Server(checkpoints, left) as server:
            for session in map(copy.copy, sessions):
                session.server = server
                session.inputs = session.inputs[: session.get().json()["step"]]
                assert len(session.inputs) in (6, 8)
                assert goes_on(session, reference)


# The clock


@pytest.mark.parametrize("years", [1, -1])
def test_clock_that_jumps_ends_no_session(years, checkpoints, data, faults):
    flags = ("--idle-timeout", str(IDLE_SECONDS))
    with Server(checkpoints, data, *flags, environment=faults.environment) as server:
        began = time.monotonic()
        session = Client(server)
        session.step(random_inputs(1, 1))
        faults.begin("offset", str(years * YEAR))
        while (info := session.get()).status_code == 200:
            assert 0 <= info.json()["idle_seconds"] < time.monotonic() - began
            time.sleep(0.1)
    assert info.json()["reason"] == "expired"
    assert time.monotonic() - began > IDLE_SECONDS


def test_clock_set_back_between_restarts_ends_no_session(checkpoints, data, faults, reference):
    with Server(checkpoints, data, environment=faults.environment) as server:
        earlier = Client(server)
        earlier.step(random_inputs(3, 1))
        server.stop()
        faults.begin("offset", str(-YEAR))
        server.start()
        server.wait_until_ready()
        later = Client(server)
        infos = [session.get().json() for session in (earlier, later)]
        assert goes_on(earlier, reference)
    assert all(session["idle_seconds"] >= 0 and session["expires_in"] > 0 for session in infos)
    assert infos[1]["opened"] < infos[0]["opened"] - YEAR / 2  # as the system's clock says


# The back end


def test_back_end_that_raises_fails_only_that_step(checkpoints, data, faults):
    with (
        Server(checkpoints, data, module="tests.app.faults", environment=faults.environment) as server,
        Load(server.url, CHECKPOINT, CLIENTS) as load,
    ):
        session, cursed = Client(server), random_inputs(3, 1)
        session.step(random_inputs(2, 1))
        before, cursed[2, 0] = session.get("/state").json(), CURSED
        answers = [session.post(cursed) for _ in range(10)]
        assert session.get("/state").json() == before
        assert httpx.delete(f"{server.url}/sessions/{session.id}").status_code == 204
        check(server, load, CHECKPOINT)
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(500, "step_failed")] * 10
    assert load.counts["step_failed"] == 0


def test_hanging_back_end_is_given_up_and_recovers(checkpoints, data, faults):
    flags = ("--step-timeout", "0.5")
    with (
        Server(checkpoints, data, *flags, module="tests.app.faults", environment=faults.environment) as server,
        Load(server.url, CHECKPOINT, CLIENTS) as load,
    ):
        for _ in range(3):
            load.wait_for(CLIENTS)
            before = load.counts["step_timed_out"]
            faults.begin("hang")
            load.wait_until(lambda before=before: load.counts["step_timed_out"] >= before + CLIENTS)
            faults.end("hang")
        load.wait_for(CLIENTS)
        check(server, load, CHECKPOINT)
    assert "Traceback" not in server.log


def test_step_that_was_given_up_does_not_count(checkpoints, data, faults, reference):
    flags = ("--step-timeout", "0.5")
    with Server(checkpoints, data, *flags, module="tests.app.faults", environment=faults.environment) as server:
        session = Client(server)
        session.step(random_inputs(3, 1))
        faults.begin("hang")
        refused = [session.post(random_inputs(1, 2)) for _ in range(3)]
        faults.end("hang")
        server.wait_until_ready()
        assert goes_on(session, reference)
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(503, "step_timed_out")] * 3


def test_abandoned_sequence_changes_no_later_session(checkpoints, data, faults, reference):
    flags = ("--step-timeout", "0.5")
    with Server(checkpoints, data, *flags, module="tests.app.faults", environment=faults.environment) as server:
        long, answers = Client(server), []
        asking = threading.Thread(target=lambda: answers.append(long.post(random_inputs(10_000, 1))))
        asking.start()
        while 'engram_sequences{model="dnc-copy"} 1.0' not in httpx.get(f"{server.url}/metrics").text:
            time.sleep(0.01)
        faults.begin("hang")
        asking.join()
        faults.end("hang")
        server.wait_until_ready()
        sessions = [Client(server) for _ in range(4)]
        for seed in range(10):
            for session in sessions:
                session.step(random_inputs(2, seed))
        assert all(goes_on(session, reference) for session in [*sessions, long])
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "step_timed_out")


def test_hanging_store_is_given_up_and_loses_nothing(checkpoints, data, faults):
    flags = ("--step-timeout", "0.5")
    with (
        Server(checkpoints, data, *flags, environment=faults.environment) as server,
        Load(server.url, CHECKPOINT, CLIENTS) as load,
    ):
        for _ in range(3):
            load.wait_for(CLIENTS)
            before = load.counts["store_failed"]
            faults.begin("stall")
            load.wait_until(lambda before=before: load.counts["store_failed"] >= before + CLIENTS)
            faults.end("stall")
        load.wait_for(CLIENTS)
        check(server, load, CHECKPOINT)
    assert "Traceback" not in server.log


def test_server_with_a_hanging_store_stops_and_loses_nothing(checkpoints, data, faults, reference):
    flags = ("--shutdown-timeout", "0.2")
    server = Server(checkpoints, data, *flags, environment=faults.environment)
    with server:
        session = Client(server)
        session.step(random_inputs(3, 1))
        faults.begin("stall")
        answers = []
        asking = threading.Thread(target=lambda: answers.append(session.post(random_inputs(1, 2))))
        asking.start()
        while 'engram_sequences{model="dnc-copy"} 1.0' not in httpx.get(f"{server.url}/metrics").text:
            time.sleep(0.01)
        server.process.terminate()
        server.process.wait(timeout=60)
        asking.join()
        faults.end("stall")
        assert answers[0].status_code == 503
        assert "the store hangs, and is left as it is" in server.log
    with Server(checkpoints, data) as session.server:
        assert goes_on(session, reference)


# The clients


@pytest.mark.parametrize("part", [0.02, 0.7, 1.0])
def test_incomplete_request_is_carried_out_whole_or_not_at_all(part, checkpoints, data, reference):
    taken = []
    with Server(checkpoints, data) as server:
        session, inputs = Client(server), random_inputs(200, 1)
        session.step(random_inputs(2, 1))
        for messages in ([http_request(session, inputs)], [upgrade(session), frame(inputs)]):
            break_off(session, messages, part)
            taken.append(take_in(session, inputs))
            assert goes_on(session, reference)
    assert not any(taken) or part == 1
    assert "Traceback" not in server.log
