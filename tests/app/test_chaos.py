"""Servers under load that are killed, stopped, copied, or on a full disk: answered steps are there, once.

The clients and their checks are those of benchmarks/chaos/, with smaller numbers.
"""

import random
import re
import resource
import shutil
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.sessions.residents import REPLAYED_STEPS
from app.stores.sqlite import SqliteStore
from app.tenants import DEFAULT
from benchmarks.chaos import KEPT_STEPS, Load, Reference, Server, check, check_sessions, kill_again_and_again, only
from tests.app.harness import CHECKPOINTS

pytestmark = pytest.mark.slow

CHECKPOINT = CHECKPOINTS / "dnc-copy"
CLIENTS = 64
KILLS = 12
COPIES = 3

STOPPED = (0, -signal.SIGTERM)

RETAINED = ("--keep-steps", str(KEPT_STEPS))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    return only(CHECKPOINT, tmp_path)


def limit_files(server: Server, size: int) -> None:
    """Limit the files that the server writes to `size` bytes each."""
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def fill_disk(server: Server) -> None:
    """Limit the files so that only a few more steps fit."""
    limit_files(server, 20_000 + max(path.stat().st_size for path in server.data.iterdir()))


def empty_disk(server: Server) -> None:
    limit_files(server, resource.RLIM_INFINITY)


def open_session(server: Server, steps: int = 0) -> str:
    session: str = httpx.post(f"{server.url}/sessions", json={"model": CHECKPOINT.name}).json()["id"]
    for _ in range(steps):
        assert step(server, session).status_code == 200
    return session


def step(server: Server, session: str) -> httpx.Response:
    return httpx.post(f"{server.url}/sessions/{session}/steps", json={"inputs": [[0.5] * 10]}, timeout=30)


def step_until_refused(server: Server, session: str) -> tuple[int, dict[str, str]]:
    """Step a session until it is refused; return the number of steps and the refusal."""
    steps = 0
    while (answer := step(server, session)).status_code == 200:
        steps += 1
    return steps, answer.json()


def replayed_steps(data: Path) -> list[int]:
    """Return, for each open session of a stopped server, the steps that are replayed to restore it."""
    store = SqliteStore(data)
    kept = [(record, store.before(record.tape, record.step)) for record in store.list(DEFAULT, None, 10_000)]
    store.close()
    return [record.step - (found[0] if found else 0) for record, found in kept]


@pytest.mark.parametrize("common", [0, 1, 15, 16, 17, 40])
def test_reference_of_a_common_past_is_that_of_a_run(common):
    first, second = np.random.default_rng(1).random((2, 40, 10), np.float32)
    reference, past = Reference(CHECKPOINT), list(first)
    reference.run(past)
    inputs = [*past[:common], *second[common:]]
    reference.run(inputs[:16])
    (outputs, state), (expected, final) = reference.run(inputs), Reference(CHECKPOINT).run(inputs)
    assert np.array_equal(outputs, expected)
    assert state.keys() == final.keys()
    assert all(np.array_equal(state[name], final[name]) for name in state)


@pytest.mark.timeout(300)
def test_killed_server_loses_no_step_and_repeats_none(checkpoints, data):
    with Server(checkpoints, data, *RETAINED) as server, Load(server.url, CHECKPOINT, CLIENTS) as load:
        ready = kill_again_and_again(server, load, KILLS, 0.3, random.Random(1))
        assert check(server, load, CHECKPOINT) > KILLS * CLIENTS
    assert load.counts.keys() >= {"again", "steps", "frames", "fork", "rewind", "reset", "delete"}
    assert len(ready) > KILLS / 2


def test_copy_of_the_files_has_every_answered_step(checkpoints, data, tmp_path):
    reference, copies = Reference(CHECKPOINT), []
    with Server(checkpoints, data, *RETAINED) as server, Load(server.url, CHECKPOINT, CLIENTS) as load:
        for number in range(COPIES):
            load.wait_for(CLIENTS)
            server.process.send_signal(signal.SIGSTOP)
            tracks = load.freeze()
            copies.append((shutil.copytree(data, tmp_path / f"copy {number}"), tracks))
            server.process.send_signal(signal.SIGCONT)
    for copied, tracks in copies:
        with Server(checkpoints, copied) as server:
            check_sessions(server.url, tracks, reference)


def test_stop_under_load_leaves_a_snapshot_of_every_session(checkpoints, data):
    with Server(checkpoints, data) as server, Load(server.url, CHECKPOINT, CLIENTS, moves=False) as load:
        load.wait_for(4 * CLIENTS)
        assert server.stop(signal.SIGTERM) in STOPPED
        assert "Traceback" not in server.log
        replayed = replayed_steps(data)
        server.start()
        server.wait_until_ready()
        check(server, load, CHECKPOINT)
    assert len(replayed) == CLIENTS
    assert max(replayed) <= REPLAYED_STEPS


@pytest.mark.parametrize("durability", ["ack", "interval"])
def test_full_disk_refuses_steps_and_loses_nothing(durability, checkpoints, data):
    flags = ("--durability", durability)
    with Server(checkpoints, data, *flags) as server, Load(server.url, CHECKPOINT, CLIENTS) as load:
        session = open_session(server, steps=3)
        fill_disk(server)
        load.wait_until(lambda: load.counts["store_failed"] >= CLIENTS)
        steps, problem = step_until_refused(server, session)
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        empty_disk(server)
        load.wait_for(CLIENTS)
        assert step(server, session).json()["step"] == 3 + steps + 1
        assert httpx.delete(f"{server.url}/sessions/{session}").status_code == 204
        check(server, load, CHECKPOINT)
    assert problem["code"] == "store_failed"
    assert re.search(r"sessions\.sqlite: .*(full|I/O error)", problem["detail"])


def test_sessions_can_be_read_on_a_full_disk(checkpoints, data):
    with Server(checkpoints, data) as server, Load(server.url, CHECKPOINT, CLIENTS) as load:
        idle = open_session(server, steps=3)
        pages = [f"{server.url}/sessions/{idle}{page}" for page in ("", "/state", "/state?step=2", "/recording")]
        before = [httpx.get(page).json().get("state") for page in pages[:3]], httpx.get(pages[3]).text
        fill_disk(server)
        load.wait_until(lambda: load.counts["store_failed"] >= CLIENTS)
        assert ([httpx.get(page).json().get("state") for page in pages[:3]], httpx.get(pages[3]).text) == before


def test_kill_on_a_full_disk_loses_no_answered_step(checkpoints, data):
    with Server(checkpoints, data) as server, Load(server.url, CHECKPOINT, CLIENTS) as load:
        load.wait_for(CLIENTS)
        fill_disk(server)
        load.wait_until(lambda: load.counts["store_failed"] >= CLIENTS)
        server.stop(signal.SIGKILL)
        server.start()
        server.wait_until_ready()
        load.wait_for(CLIENTS)
        check(server, load, CHECKPOINT)
