"""What fails under a server: its disk, its files, its power, its clock, its back end, its clients. Real processes."""

import json
import shutil
import signal
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import msgpack
import numpy as np
import pytest
from websockets.sync.client import connect

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

CHECKPOINT = CHECKPOINTS / "dnc-copy"
WIDTH = 10
CLIENTS = 64
YEAR = 366 * 86400

SYNC_SECONDS = 0.5
SYNCED_SECONDS = 3.0
"""After so long, what was written is synced, also on a busy machine."""


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
    """Return the last line of a server that must not start."""
    server.start()
    assert server.process.wait(timeout=60) == 1
    assert "Traceback" not in server.log
    return server.log.splitlines()[-1]


def random_inputs(steps: int, seed: int) -> Array:
    return np.random.default_rng(seed).random((steps, WIDTH), np.float32)


class Client:
    """One session of the test's own."""

    def __init__(self, server: Server) -> None:
        body = {"model": CHECKPOINT.name, "memory_size": 4}
        self.server = server
        self.id: str = httpx.post(f"{server.url}/sessions", json=body).json()["id"]
        self.inputs: list[Array] = []

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
    """Return whether a session's next step and its whole recording are those of an undisturbed run."""
    outputs = session.step(random_inputs(1, 1))
    expected = reference.run(session.inputs)[0]
    recorded = read_recording(session.get("/recording").text)
    return np.array_equal(outputs[0], expected[-1]) and np.array_equal(recorded.outputs, expected)


def flip(path: Path, tape: str, column: str, where: str) -> None:
    """Change one byte in the middle of some rows of a table."""
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


# The disk


@pytest.mark.parametrize(("error", "reason"), [("EIO", "disk I/O error"), ("ENOSPC", "make room on the disk")])
def test_disk_that_fails_refuses_steps_until_it_recovers_and_loses_nothing(error, reason, checkpoints, data, faults):
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


def test_data_directory_that_is_read_only_is_refused_and_left_as_it_was(checkpoints, data, faults, reference):
    server = Server(checkpoints, data, environment=faults.environment)
    with server:
        session = Client(server)
        session.step(random_inputs(3, 1))
        server.stop()
    faults.begin("read-only")
    told = refusal(server)
    faults.end("read-only")
    with server:
        assert goes_on(session, reference)
    assert told.startswith(f"engram: {data}: the data directory is read-only")


# The files


def test_second_server_is_refused_and_the_first_goes_on_until_it_dies(checkpoints, data, reference):
    second = Server(checkpoints, data)
    with Server(checkpoints, data) as first:
        session = Client(first)
        session.step(random_inputs(3, 1))
        told = refusal(second)
        session.step(random_inputs(3, 2))
    with second:
        session.server = second
        assert goes_on(session, reference)
    assert told.startswith(f"engram: {data}/sessions.sqlite: ")
    assert "is another server using this data directory?" in told


def test_damaged_log_row_fails_its_session_and_no_other(checkpoints, data, reference):
    with Server(checkpoints, data) as server:
        first, second, third = make_sessions(server, 3, requests=4, steps=1)
        server.stop(signal.SIGKILL)
        flip(data, "log", "inputs", "tape = 2 AND step = 2")
        server.start()
        server.wait_until_ready()
        refused = [second.post(random_inputs(1, 1)), second.get("/state"), second.get("/recording")]
        assert all(goes_on(session, reference) for session in (first, third))
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(500, "session_damaged")] * 3
    assert "the log of tape 2 is damaged at step 2" in refused[0].json()["detail"]


def test_damaged_log_row_before_a_snapshot_is_told_of_and_the_session_goes_on(checkpoints, data, reference):
    with Server(checkpoints, data) as server:
        first, second = make_sessions(server, 2, requests=4, steps=20)
        server.stop()
        flip(data, "log", "inputs", "tape = 2 AND step = 20")
        server.start()
        server.wait_until_ready()
        outputs = second.step(random_inputs(1, 1))
        told = second.get("/recording").text
        assert goes_on(first, reference)
    assert np.array_equal(outputs, reference.run(second.inputs)[0][-1:])
    assert "session_damaged" in told


@pytest.mark.parametrize("which", ["tape = 2 AND step = 80", "tape = 2"])
def test_damaged_snapshot_is_passed_over(which, checkpoints, data, reference):
    with Server(checkpoints, data) as server:
        sessions = make_sessions(server, 3, requests=4, steps=20)
        server.stop()
        flip(data, "snapshots", "state", which)
        server.start()
        server.wait_until_ready()
        assert all(goes_on(session, reference) for session in sessions)
        assert "the snapshot of tape 2 at step 80 is damaged" in server.log
