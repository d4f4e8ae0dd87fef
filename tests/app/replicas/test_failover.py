"""The failover of the database to a synchronous standby, under load."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.chaos.cluster import Cluster
from benchmarks.chaos.load import Load
from benchmarks.chaos.replicas import check
from benchmarks.postgres import ROLE, Postgres
from tests.app.replicas.sessions import CHECKPOINT
from tests.app.replicas.standby import Standby

pytestmark = pytest.mark.slow

CLIENTS = 32


@pytest.fixture
def standby(own_postgres: Postgres) -> Iterator[Standby]:
    directory = Path(tempfile.mkdtemp(prefix="engram-standby-"))
    standby = Standby(directory, own_postgres)
    try:
        standby.follow()
        yield standby
    finally:
        standby.stop()
        shutil.rmtree(directory)


def test_promoted_standby_has_every_acknowledged_step(
    own_postgres: Postgres, standby: Standby, run_cluster: Callable[..., Cluster]
) -> None:
    hosts = f"127.0.0.1:{{}},127.0.0.1:{standby.port}"
    url = f"postgresql://{ROLE}@{hosts}/postgres?target_session_attrs=read-write"
    cluster = run_cluster(own_postgres, url=url.format)
    with Load(cluster.url, CHECKPOINT, CLIENTS, patient=True) as load:
        load.wait_for(10 * CLIENTS)
        cluster.postgres.kill()
        standby.promote()
        cluster.postgres = standby
        load.wait_for(10 * CLIENTS)
        steps, _ = check(cluster, load, CHECKPOINT)
    assert steps > 20 * CLIENTS
    assert all(server.process.poll() is None for server in cluster.servers)
