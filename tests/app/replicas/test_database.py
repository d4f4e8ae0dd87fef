"""A database that is full, read-only, slow or refuses connections: clear errors, and service again by itself."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from app.stores.postgres import Database, PostgresStore
from benchmarks.chaos import Load, Reference, Server, only
from benchmarks.chaos.checker import check_answers, check_sessions
from benchmarks.postgres import GUARDED, SYSTEM_USER, Postgres
from tests.app.replicas.sessions import CHECKPOINT, PATIENCE, Session
from tests.postgres import started
from tests.waiting import until

pytestmark = pytest.mark.slow

CLIENTS = 16
SLOW = {"commit_delay": "100000", "commit_siblings": "0"}  # 100 ms before each commit is flushed
DISK_MIB = 32
PASSWORD = "open-sesame"


@pytest.fixture(scope="module")
def shared_postgres() -> Iterator[Postgres]:
    """Run a database for the tests that change its settings, and change them back."""
    yield from started()


@pytest.fixture(scope="module")
def shared_server(shared_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("shared")
    with Server(only(CHECKPOINT, directory), directory / "data", "--store", shared_postgres.url()) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Return a server that is ready: no test before this one has left it otherwise."""
    shared_server.wait_until_ready()
    return shared_server


@pytest.fixture(scope="module")
def shared_guarded(shared_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server that needs a password for its database, which is another one of the same PostgreSQL."""
    directory = tmp_path_factory.mktemp("guarded")
    shared_postgres.run(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
    shared_postgres.run(f"CREATE DATABASE {GUARDED} OWNER {GUARDED}")
    url = shared_postgres.url(role=f"{GUARDED}:{PASSWORD}", database=GUARDED)
    with Server(only(CHECKPOINT, directory), directory / "data", "--store", url) as server:
        yield server


@pytest.fixture
def guarded(shared_postgres: Postgres, shared_guarded: Server) -> Iterator[Server]:
    """Return the server that needs a password, for a test that may have its role refused."""
    yield shared_guarded
    shared_postgres.run(f"ALTER ROLE {GUARDED} CONNECTION LIMIT -1 PASSWORD '{PASSWORD}'")
    shared_guarded.wait_until_ready()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Return a directory of the database's user on a file system of its own, which only root can mount."""
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root, to mount a small file system")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", name], check=True)
        try:
            shutil.chown(name, SYSTEM_USER)
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def fill(path: Path) -> None:
    """Write to a file until its disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def refusal(server: Server) -> str:
    """Wait for a server that must not start; return the last line of its log."""
    server.start()
    assert server.process.wait(timeout=60) == 1
    assert "Traceback" not in server.log
    return server.log.splitlines()[-1]


@contextmanager
def settings(postgres: Postgres, **values: str) -> Iterator[None]:
    """Change settings of a running database for the time of the block."""
    for name, value in values.items():
        postgres.run(f"ALTER SYSTEM SET {name} = '{value}'")
    postgres.run("SELECT pg_reload_conf()")
    yield
    with psycopg.connect(postgres.url(), options="-c default_transaction_read_only=off", autocommit=True) as connection:
        for name in values:
            connection.execute(f"ALTER SYSTEM RESET {name}".encode())
        connection.execute("SELECT pg_reload_conf()")


def refused(server: Server, session: Session, reason: str) -> None:
    """Wait until the server refuses a step and is not ready, for a reason that it names."""
    until(lambda: session.post(server).status_code == 503)
    answer = session.post(server)
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] in ("store_failed", "lease_lost")
    until(lambda: reason in httpx.get(f"{server.url}/readyz", timeout=PATIENCE).text)
    assert httpx.get(f"{server.url}/readyz", timeout=PATIENCE).status_code == 503


def goes_on(server: Server, session: Session, reference: Reference) -> None:
    """Check that a server takes steps again, is ready, and that no step was lost."""
    session.step(server)
    server.wait_until_ready()
    session.check(server, reference)
    assert "Traceback" not in server.log


def disconnect(postgres: Postgres, role: str) -> None:
    """End all connections of a role but the one that asks."""
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()"
    postgres.run(statement, role)


def test_read_only_database_refuses_steps_and_recovers(shared_postgres, server, reference):
    session = Session(server)
    session.step(server)
    with settings(shared_postgres, default_transaction_read_only="on"):
        refused(server, session, "read-only")
    goes_on(server, session, reference)


def test_slow_commits_delay_steps_and_lose_none(shared_postgres, server, reference):
    with settings(shared_postgres, **SLOW), Load(server.url, CHECKPOINT, CLIENTS) as load:
        load.wait_for(5 * CLIENTS)
        assert httpx.get(f"{server.url}/readyz", timeout=PATIENCE).status_code == 200
        tracks = load.finish()
    check_answers(tracks, reference)
    check_sessions(server.url, load.open, reference)
    assert load.counts["again"] == 0


def test_server_that_gets_no_connection_names_the_limit_and_recovers(shared_postgres, guarded, reference):
    session = Session(guarded)
    session.step(guarded)
    shared_postgres.run(f"ALTER ROLE {GUARDED} CONNECTION LIMIT 0")
    disconnect(shared_postgres, GUARDED)
    refused(guarded, session, "too many connections")
    shared_postgres.run(f"ALTER ROLE {GUARDED} CONNECTION LIMIT -1")
    goes_on(guarded, session, reference)


def test_password_that_changed_is_refused_until_it_is_back(shared_postgres, guarded, reference):
    session = Session(guarded)
    session.step(guarded)
    shared_postgres.run(f"ALTER ROLE {GUARDED} PASSWORD 'another'")
    disconnect(shared_postgres, GUARDED)
    refused(guarded, session, "password")
    assert PASSWORD not in httpx.get(f"{guarded.url}/readyz", timeout=PATIENCE).text + guarded.log
    shared_postgres.run(f"ALTER ROLE {GUARDED} PASSWORD '{PASSWORD}'")
    goes_on(guarded, session, reference)


def test_server_with_a_wrong_password_does_not_start(shared_postgres, guarded, checkpoints, tmp_path):
    url = shared_postgres.url(role=f"{GUARDED}:mistaken")
    message = refusal(Server(checkpoints, tmp_path / "other", "--store", url))
    assert "password" in message
    assert "mistaken" not in message


def test_server_refuses_a_database_of_another_version(database_url, checkpoints, data):
    PostgresStore(database_url).close()  # which makes the tables
    with closing(Database(database_url)) as database:
        database.run("UPDATE meta SET version = version + 1000")
    assert "schema 1002 is newer than this version's, 2" in refusal(Server(checkpoints, data, "--store", database_url))


def test_full_disk_of_the_database_refuses_steps_and_recovers(own_postgres, checkpoints, data, small_disk, reference):
    own_postgres.run(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    own_postgres.run("ALTER DATABASE postgres SET default_tablespace = small")
    with Server(checkpoints, data, "--store", own_postgres.url()) as server:
        session = Session(server)
        session.step(server)
        ballast = small_disk / "ballast"
        fill(ballast)
        refused(server, session, "No space left on device")
        ballast.unlink()
        goes_on(server, session, reference)
