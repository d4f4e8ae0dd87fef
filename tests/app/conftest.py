from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from benchmarks import chaos
from tests import forks
from tests.app.browsing import running_browser
from tests.app.harness import CHECKPOINTS, Server, running_server


@pytest.fixture(scope="session", autouse=True)
def _forked() -> Iterator[None]:
    """Have the servers of benchmarks/chaos/ be forks, but not where a module or a library comes first."""
    fresh = chaos.Server.start

    def start(server: chaos.Server) -> None:
        _, _, module, *words = server._command
        if module != "engram" or "LD_PRELOAD" in server._environment:
            fresh(server)
        else:
            server._log.write_text("")
            server.process = forks.engram(words, server._log, server._environment, Path.cwd())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chaos.Server, "start", start)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the shipped checkpoints, with limits that are easy to reach."""
    limits = ["--max-steps", "500", "--max-body-bytes", "200000", "--max-sequences", "8"]
    with running_server(*limits, data=tmp_path_factory.mktemp("server") / "data", fresh=True) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, headers={"Content-Type": "application/json"}) as client:
        yield client


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the shipped models of the copy task only: a server of few models starts sooner."""
    directory = tmp_path_factory.mktemp("few")
    for name in ("dnc-copy", "ntm-copy", "lstm-copy"):
        (directory / name).symlink_to(CHECKPOINTS / name)
    return directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory for a server of the test."""
    return tmp_path / "data"


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the store write each entry as a row of its log."""
    monkeypatch.setattr("app.stores.sqlite.tail.ROW_BYTES", 0)
