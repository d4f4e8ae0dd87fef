"""Three servers that share a PostgreSQL, behind HAProxy."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import Reference, only
from benchmarks.chaos.clock import SOURCE, build
from benchmarks.chaos.cluster import Cluster
from benchmarks.postgres import Postgres
from tests import haproxy
from tests.app.replicas.sessions import CHECKPOINT
from tests.postgres import started


@pytest.fixture(scope="session")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("clock") / "clock.so", SOURCE)


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference(CHECKPOINT)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    return only(CHECKPOINT, tmp_path)


@pytest.fixture
def run_cluster(checkpoints: Path, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Return what starts servers on a database, with some flags; they end with the test."""
    with ExitStack() as stack:

        def run(postgres: Postgres, *flags: str, **options: Any) -> Cluster:
            haproxy.program()  # or skip
            return stack.enter_context(Cluster(postgres, checkpoints, tmp_path, *flags, **options))

        yield run


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    haproxy.program()  # or skip
    directory = tmp_path_factory.mktemp("cluster")
    for postgres in started():
        with Cluster(postgres, only(CHECKPOINT, directory), directory) as cluster:
            yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Three servers for a test that may stop them and their database; after it all of them go on."""
    yield shared_cluster
    if not shared_cluster.postgres.processes():
        shared_cluster.postgres.start()
    for server in shared_cluster.servers:
        server.link.resume()
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGCONT)
        else:
            server.start()
    shared_cluster.wait_until_ready()
