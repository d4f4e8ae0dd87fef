"""Three servers that share a PostgreSQL, behind HAProxy."""

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
def run_cluster(
    own_postgres: Postgres, checkpoints: Path, tmp_path: Path, clock_library: Path
) -> Iterator[Callable[..., Cluster]]:
    """Return what starts servers on a database of their own, with some flags; they end with the test."""
    with ExitStack() as stack:

        def started(*flags: str, **options: Any) -> Cluster:
            haproxy.program()  # or skip
            return stack.enter_context(
                Cluster(own_postgres, checkpoints, tmp_path, *flags, library=clock_library, **options)
            )

        yield started


@pytest.fixture
def cluster(run_cluster: Callable[..., Cluster]) -> Cluster:
    return run_cluster()
