"""Metrics: the text is that of prometheus_client, and each phase of a step counts its own time."""

import re
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.backends.fake import FakeBackend
from app.engine.arenas import Arenas
from app.engine.engine import Engine
from app.engine.run import Run
from app.metrics import BATCH_BUCKETS, PHASES, REQUEST_BUCKETS, TICK_BUCKETS, Metrics
from tests.app.asynchronous import run
from tests.app.budgets import states

SECONDS = 0.02


class Ledger:
    """A journal that writes nothing, and is slow."""

    def commit(self, entries: Sequence[object], done: Callable[[Sequence[None]], None]) -> None:
        time.sleep(SECONDS)
        done([None] * len(entries))


def lines(text: bytes, beginning: str) -> list[str]:
    """Return the lines of metrics whose names begin with `beginning`, without the times of creation."""
    chosen = [line for line in text.decode().splitlines() if re.match(rf"(# \w+ )?{beginning}", line)]
    return [line if line.startswith("#") else re.sub(r"(_created\S*) .*", r"\1", line) for line in chosen]


def phases(metrics: Metrics) -> dict[str, float]:
    """Return the seconds of each phase of the model `fake`."""
    return {
        phase: float(metrics.registry.get_sample_value("engram_phase_seconds_total", {"model": "fake", "phase": phase}))
        for phase in PHASES
    }


def step(metrics: Metrics, backend: FakeBackend, count: int = 1, journal: Ledger | None = None) -> float:
    """Step sequences in batches of one; return the seconds that this took."""
    began = time.perf_counter()

    async def test() -> None:
        engine = Engine("fake", Arenas(backend, states()), 1, 64, metrics.engine("fake"), journal)
        engine.start()
        slots = [await engine.open() for _ in range(count)]
        entries = None if journal is None else [object()]
        done: list[object] = []
        one = np.ones((1, 1, 2), np.float32)
        engine.submit([Run([slot.number], None, one, (), done.append, entries) for slot in slots])
        await engine.close(5)
        assert len(done) == count

    run(test())
    return time.perf_counter() - began


def test_text_is_that_of_prometheus_client():
    ours, theirs = Metrics(), CollectorRegistry()
    count = Counter("engram_requests", "HTTP requests answered.", ["method", "route", "status"], registry=theirs)
    seconds = Histogram(
        "engram_request_seconds", "Time of HTTP requests.", ["route"], buckets=REQUEST_BUCKETS, registry=theirs
    )
    for route, taken in (("/a", 0.001), ("/a", 0.3), ('/"\\\n', 99.0), ("/a", 1e-9)):
        ours.request("GET", route, 200, taken)
        count.labels("GET", route, 200).inc()
        seconds.labels(route).observe(taken)
    assert lines(ours.exposition(), "engram_request") == lines(generate_latest(theirs), "engram_request")


def test_text_without_labels_is_that_of_prometheus_client():
    ours, theirs = Metrics(), CollectorRegistry()
    entries = Histogram(
        "engram_commit_entries",
        "Requests whose steps were written in one commit.",
        buckets=BATCH_BUCKETS,
        registry=theirs,
    )
    taken = Histogram(
        "engram_commit_seconds", "Time of one commit of the store.", buckets=TICK_BUCKETS, registry=theirs
    )
    assert lines(ours.exposition(), "engram_commit") == lines(generate_latest(theirs), "engram_commit")
    for number, seconds in ((1, 1e-4), (64, 0.5), (1000, 2.0)):
        ours.commit(number, seconds)
        entries.observe(number)
        taken.observe(seconds)
    assert lines(ours.exposition(), "engram_commit") == lines(generate_latest(theirs), "engram_commit")


def test_step_of_the_back_end_counts_as_run():
    metrics = Metrics()
    elapsed = step(metrics, FakeBackend(before_step=lambda inputs: time.sleep(SECONDS)))
    assert phases(metrics)["run"] == metrics.registry.get_sample_value("engram_tick_seconds_sum", {"model": "fake"})
    assert phases(metrics)["run"] >= SECONDS
    assert sum(phases(metrics).values()) < elapsed


def test_sequence_behind_another_counts_as_wait():
    metrics = Metrics()
    step(metrics, FakeBackend(before_step=lambda inputs: time.sleep(SECONDS)), count=2)
    assert phases(metrics)["wait"] >= SECONDS


@pytest.mark.parametrize("prompt", [False, True])
def test_journal_counts_as_commit(prompt):
    metrics = Metrics()
    elapsed = step(metrics, FakeBackend(prompt=prompt), journal=Ledger())
    assert phases(metrics)["commit"] >= SECONDS
    assert sum(phases(metrics).values()) < elapsed


def test_slow_receiver_counts_as_deliver():
    metrics = Metrics()

    async def test() -> None:
        engine = Engine("fake", Arenas(FakeBackend(), states()), 1, 64, metrics.engine("fake"))
        engine.start()
        slot = await engine.open()
        engine.submit([Run([slot.number], None, np.ones((1, 1, 2), np.float32), (), lambda _: time.sleep(SECONDS))])
        await engine.close(5)

    run(test())
    assert phases(metrics)["deliver"] >= SECONDS


def test_record_is_the_time_outside_the_back_end():
    metrics = Metrics()
    engine = metrics.engine("fake")
    engine.tick(1, 5.0, 1)
    engine.batch(0.0, 6.0)
    engine.batch(0.0, 1.0)
    assert phases(metrics)["record"] == 2


def test_lease_without_several_servers_is_no_number():
    metrics = Metrics()
    assert lines(metrics.exposition(), "engram_lease") == [
        "# HELP engram_lease_seconds Time until the server's lease runs out.",
        "# TYPE engram_lease_seconds gauge",
        "engram_lease_seconds NaN",
    ]


def test_handovers_are_counted_from_zero_in_both_directions():
    metrics = Metrics()
    metrics.handovers.labels("out").inc()
    counted = [line for line in lines(metrics.exposition(), "engram_handovers_total") if line[0] != "#"]
    assert counted == ['engram_handovers_total{direction="in"} 0.0', 'engram_handovers_total{direction="out"} 1.0']
