"""Random faults of three servers, of their database and of the proxy before them, under load."""

import random

import pytest

from benchmarks.chaos.cluster import Cluster
from benchmarks.chaos.load import Load
from benchmarks.chaos.record import KEPT_STEPS
from benchmarks.chaos.replicas import bring_about, check
from tests.app.replicas.sessions import CHECKPOINT

pytestmark = pytest.mark.slow

CLIENTS = 200
SECONDS = 40.0
SEED = 1
LEAST_FAULTS = 5


@pytest.mark.timeout(600)
def test_random_faults_of_everything_lose_no_step_and_double_none(own_postgres, run_cluster, clock_library) -> None:
    cluster: Cluster = run_cluster(own_postgres, "--keep-steps", str(KEPT_STEPS), library=clock_library)
    with Load(cluster.url, CHECKPOINT, CLIENTS, SEED, patient=True) as load:
        load.wait_for(2 * CLIENTS)
        happened = bring_about(cluster, load, SECONDS, random.Random(SEED), LEAST_FAULTS)
        steps, entries = check(cluster, load, CHECKPOINT)
    assert len({fault.kind for fault in happened}) >= LEAST_FAULTS
    assert steps > 10 * CLIENTS
    assert entries > 0
    assert load.counts.keys() >= {"again", "steps", "frames", "fork", "rewind", "reset", "delete"}
