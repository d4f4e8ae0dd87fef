"""The soak in short form; `python -m benchmarks.soak` is the long one."""

from dataclasses import replace

import pytest

from benchmarks.chaos import Server, only
from benchmarks.hostile.beside import check_log
from benchmarks.hostile.rude import ACTS
from benchmarks.soak import IDLE_SECONDS, KEPT_STEPS, Sample, Soak, Tolerance, ended, growths, measure
from tests.app.harness import CHECKPOINTS

SECONDS = 12.0

SHORT = {
    "memory": Tolerance(0.2, 0),
    "descriptors": Tolerance(0, 8),
    "threads": Tolerance(0, 2),
    "log": Tolerance(0, 1),
    "data": Tolerance(0.5, 2),
}
"""Tolerances while a server has not yet all that it will keep."""

CALM = Sample(memory=100, descriptors=20, threads=8, log=10, data=10)


@pytest.mark.slow
def test_server_stays_as_it_is_under_honest_and_rude_clients(tmp_path):
    limits = ["--keep-steps", str(KEPT_STEPS), "--idle-timeout", str(IDLE_SECONDS)]
    checkpoint = CHECKPOINTS / "dnc-copy"
    with Server(only(checkpoint, tmp_path), tmp_path / "data", *limits) as server:
        with Soak(server.url.removeprefix("http://"), checkpoint.name, honest=2, rude=2, pause=0.005) as soak:
            samples = measure(server, soak, SECONDS, 0.25)
        soak.check()
        check_log(server.log)
        assert ended(server) > 10
    assert soak.counts["outputs compared"] > 1000
    assert {act.__name__.replace("_", " ") for act in ACTS} <= soak.counts.keys()
    assert [growth for growth in growths(samples, SHORT) if not growth.is_flat] == []


@pytest.mark.parametrize("name", ["memory", "descriptors", "threads", "log", "data"])
def test_slow_growth_after_the_warm_up_is_reported(name):
    start = getattr(CALM, name)
    samples = [replace(CALM, **{name: start + 0.25 * start * number / 900}) for number in range(900)]
    allowed = {other: Tolerance(0.1, 0) for other in SHORT}
    assert [growth.name for growth in growths(samples, allowed) if not growth.is_flat] == [name]


def test_growth_in_the_warm_up_is_not_reported():
    samples = [replace(CALM, memory=min(100.0, number)) for number in range(300)]
    assert all(growth.is_flat for growth in growths(samples))
    assert growths(samples)[0].mean == 100


def test_noise_without_growth_is_not_reported():
    samples = [replace(CALM, descriptors=20 + number % 7, data=10 + number % 3) for number in range(300)]
    assert all(growth.is_flat for growth in growths(samples))


def test_error_of_a_client_ends_the_soak():
    with Soak("127.0.0.1:9", "dnc-copy", honest=1, rude=0, pause=0) as soak:
        pass
    with pytest.raises(OSError, match="refused"):
        soak.check()
