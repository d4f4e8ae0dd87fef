"""Time and the ends of sessions, with a real server whose stored times are moved, as by a clock that was set."""

import sqlite3
import time
from pathlib import Path

import httpx
import pytest

from app.stores.base import REMEMBERED_FOR
from app.stores.sqlite import FILE
from app.stores.sqlite.rows import ClockRow, SessionRow, checksum
from tests.app.harness import running_server

pytestmark = pytest.mark.slow

YEAR = 365 * 86400.0


def move(data: Path, seconds: float, where: str = "true") -> None:
    """Move the times of sessions, and that of the clock, by some seconds, while no server runs."""
    with sqlite3.connect(data / FILE) as database:
        for values in database.execute(f"SELECT * FROM sessions WHERE {where}").fetchall():
            row = SessionRow._make(values[:-1])
            row = row._replace(used=row.used + seconds, ended=row.ended and row.ended + seconds)
            moved = (row.used, row.ended, checksum(row), row.id)
            database.execute("UPDATE sessions SET used = ?, ended = ?, checksum = ? WHERE id = ?", moved)
        if where == "true":
            (recorded,) = database.execute("SELECT time FROM clock").fetchone()
            clock = ClockRow(1, recorded + seconds)
            database.execute("UPDATE clock SET time = ?, checksum = ?", (clock.time, checksum(clock)))
    database.close()


def opened(url: str) -> str:
    return str(httpx.post(f"{url}/sessions", json={"model": "lstm-copy"}).json()["id"])


@pytest.mark.parametrize("moved", [-YEAR, YEAR])
def test_clock_that_was_set_between_two_servers_expires_nobody(few, data, moved):
    with running_server(data=data, checkpoints=few) as server:
        session = opened(server.url)
    move(data, moved)
    with running_server("--idle-timeout", "3600", data=data, checkpoints=few) as server:
        found = httpx.get(f"{server.url}/sessions/{session}").json()
    assert 3500 < found["expires_in"] <= 3600
    assert abs(found["opened"] - time.time()) < 600


def test_session_expires_by_the_time_in_which_servers_ran(few, data):
    with running_server(data=data, checkpoints=few) as server:
        session = opened(server.url)
        time.sleep(3)
    with running_server("--idle-timeout", "5", data=data, checkpoints=few) as server:
        time.sleep(4)
        assert httpx.get(f"{server.url}/sessions/{session}").status_code == 410


def test_ended_session_is_forgotten_while_the_server_runs(few, data):
    with running_server(data=data, checkpoints=few) as server:
        session = opened(server.url)
        httpx.delete(f"{server.url}/sessions/{session}")
    move(data, -REMEMBERED_FOR - 60, "ended IS NOT NULL")
    statuses = set()
    with running_server(data=data, checkpoints=few) as server:
        while 404 not in statuses:
            statuses.add(httpx.get(f"{server.url}/sessions/{session}").status_code)
            time.sleep(0.1)
    assert statuses <= {404, 410}
