"""engram serve --servers: real servers, a real PostgreSQL and a real HAProxy, in one process group that ends as one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from app.settings import Settings, SettingsError, load_settings
from benchmarks.postgres import Postgres
from engram.fleet import _ports, _server, named, serve_together
from tests.app.harness import CHECKPOINTS, ROOT
from tests.haproxy import program
from tests.waiting import until

STEP = {"inputs": [[0.0] * 10]}
SECONDS = 60


class Fleet:
    """`engram serve --servers 2` on free ports."""

    def __init__(self, url: str, directory: Path, *arguments: str) -> None:
        program()  # skips where there is none
        self.checkpoints = directory / "few"
        self.checkpoints.mkdir()
        self.add("dnc-copy")
        words = ["--servers", "2", "--port", "0", "--checkpoints", str(self.checkpoints)]
        words += ["--data", str(directory / "data")]
        command = [sys.executable, "-m", "engram", "serve", *words, "--server-name", "box", *arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENGRAM_")}
        self._log = directory / "log"
        with self._log.open("w") as log:
            environment = inherited | {"ENGRAM_STORE": url}
            self.process = subprocess.Popen(command, stderr=log, env=environment, cwd=ROOT)

    def add(self, model: str) -> None:
        """Add a model to those that the servers find."""
        (self.checkpoints / model).symlink_to(CHECKPOINTS / model)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        return self.wait_for(r"2 servers at (http://[^\s\"]+)")[1]

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log."""
        until(lambda: self.process.poll() is not None or re.search(pattern, self.log) is not None, SECONDS)
        found = re.search(pattern, self.log)
        assert found, self.log
        return found

    def server(self, number: int) -> int:
        """Return the process of a server."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        [found] = [int(child) for child in children if f"box-{number}" in Path(f"/proc/{child}/cmdline").read_text()]
        return found

    def family(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(SECONDS)


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(database_url, tmp_path)
    try:
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture(scope="module")
def lasting_fleet(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet for several tests, which do not stop it."""
    with postgres.schema("lasting_fleet") as url:
        fleet = Fleet(url, tmp_path_factory.mktemp("fleet"))
        try:
            yield fleet
        finally:
            fleet.stop()


def are_running(processes: list[int]) -> bool:
    return any(Path(f"/proc/{process}").exists() for process in processes)


@pytest.mark.slow
def test_fleet_goes_on_when_a_server_is_killed(lasting_fleet):
    fleet = lasting_fleet
    with httpx.Client(base_url=fleet.url, timeout=30) as client:
        sessions = [client.post("/sessions", json={"model": "dnc-copy"}).json()["id"] for _ in range(8)]
        for session in sessions:
            client.post(f"/sessions/{session}/steps", json=STEP).raise_for_status()
        os.kill(fleet.server(1), signal.SIGKILL)
        fleet.wait_for("box-1 ended .*; it is started again")
        until(lambda: client.get("/readyz").status_code == 200, SECONDS)
        for session in sessions:
            until(lambda session=session: client.get(f"/sessions/{session}").status_code == 200, SECONDS)
            assert client.post(f"/sessions/{session}/steps", json=STEP | {"if_step": 1}).json()["step"] == 2


@pytest.mark.slow
def test_stop_signal_stops_the_whole_fleet(fleet):
    httpx.get(f"{fleet.url}/readyz").raise_for_status()
    processes = fleet.family()
    assert len(processes) == 3
    assert fleet.stop() == 0
    assert not are_running(processes)
    assert "Traceback" not in fleet.log


@pytest.mark.slow
def test_killed_fleet_leaves_no_process(fleet):
    httpx.get(f"{fleet.url}/readyz").raise_for_status()
    processes = fleet.family()
    fleet.process.kill()
    until(lambda: not are_running(processes), SECONDS)
    assert not are_running(processes)


@pytest.mark.slow
def test_hangup_reaches_every_server(lasting_fleet):
    url = lasting_fleet.url
    lasting_fleet.add("lstm-copy")
    lasting_fleet.process.send_signal(signal.SIGHUP)
    until(lambda: all(len(httpx.get(f"{url}/models").json()) == 2 for _ in range(4)), SECONDS)
    assert [len(httpx.get(f"{url}/models").json()) for _ in range(4)] == [2, 2, 2, 2]


@pytest.mark.slow
def test_fleet_whose_servers_cannot_start_ends(database_url, tmp_path):
    fleet = Fleet(database_url, tmp_path, "--memory-size", "none=3")
    assert fleet.process.wait(SECONDS) == 1
    assert re.search(r"box-\d: engram: setting memory_size: there is no model 'none'", fleet.log)
    assert re.search(r"box-\d did not start \(exit status 1\)", fleet.log)


def test_servers_without_a_shared_store_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"--servers 2 needs a database that the servers share.*got 'sqlite'"):
        serve_together({}, Settings(data=tmp_path), 2)


def test_servers_without_haproxy_are_refused_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("app.haproxy.PROGRAMS", ())
    with pytest.raises(SettingsError, match="no `haproxy` in PATH: apt-get install haproxy"):
        serve_together({}, Settings(data=tmp_path, store="postgresql://engram@127.0.0.1/engram"), 2)


def test_servers_without_keys_need_an_address_of_this_machine(tmp_path, database_url):
    program()
    settings = Settings(data=tmp_path, store=database_url, host="0.0.0.0")
    with pytest.raises(SettingsError, match="there are no keys"):
        serve_together({}, settings, 2)


def test_server_has_the_flags_of_all_and_its_own():
    given = {"access_log": True, "hosts": ["a.org"], "snapshots": ["x=1", "y=2"], "host": "10.0.0.7", "max_batch": "8"}
    settings = load_settings(given | {"store": "postgresql://engram:secret@db/engram", "server_name": "box"})
    server = _server(given, settings, 2, 8002, 4)
    words = server.command[server.command.index("serve") + 1 :]
    assert {"--access-log", "--snapshots=x=1", "--snapshots=y=2", "--max-batch=8"} < set(words)
    assert {"--host=127.0.0.1", "--port=8002", "--server-name=box-2", "--hosts=a.org", "--hosts=10.0.0.7"} < set(words)
    assert not [word for word in words if "secret" in word]
    assert server.environment["ENGRAM_STORE"] == "postgresql://engram:secret@db/engram"


def test_servers_share_the_memory_unless_a_setting_says_how_much():
    settings = load_settings({"max_queue_bytes": 1000, "store": "postgresql://engram@db/engram"})
    one, four = (_server({"max_queue_bytes": 1000}, settings, 1, 8001, count).command for count in (1, 4))
    bytes_of = [
        {word.split("=")[0]: int(word.split("=")[1]) for word in words if "-bytes=" in word} for words in (one, four)
    ]
    assert bytes_of[0].pop("--max-queue-bytes") == bytes_of[1].pop("--max-queue-bytes") == 1000
    assert bytes_of[1] == {name: value // 4 for name, value in bytes_of[0].items()}
    assert len(bytes_of[1]) == 3


def first_of_two_ports() -> int:
    """Return a port that is free, as is the next one."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, suppress(OSError):
            port: int = first.getsockname()[1]
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


def test_ports_follow_one_another_unless_one_is_taken():
    port = first_of_two_ports()
    expected = pytest.raises(SettingsError, match=f"need the 4 ports from {port} on, of which one is not free")
    with socket.create_server(("127.0.0.1", port)), expected:
        _ports(port, 2)
    assert _ports(port, 0) == [port, port + 1]
    assert len(set(_ports(0, 3))) == 5


def test_lines_of_logs_have_the_name_of_their_process():
    assert named("box-1", "engram: hello\n", False) == "box-1: engram: hello\n"
    assert json.loads(named("box-1", '{"message": "hello"}\n', True)) == {"server": "box-1", "message": "hello"}
    assert json.loads(named("haproxy", 'it "ends"\n', True)) == {"server": "haproxy", "message": 'it "ends"'}
