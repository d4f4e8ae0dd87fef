"""The metrics of a server, for Prometheus; docs/metrics.md describes each one."""

import itertools
import math
import platform
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.version import version

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TICK_BUCKETS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0)
REQUEST_BUCKETS = (1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

PHASES = ("wait", "run", "record", "commit", "deliver")
"""The phases of a step, in their order."""

DIRECTIONS = ("in", "out")
"""Sessions handed over to this server, and by it."""


class Tally:
    """A counter without a lock, five times as fast as one with: only one thread at a time may add to it."""

    def __init__(self) -> None:
        self.value = 0.0
        self.created = time.time()

    def inc(self, amount: float = 1) -> None:
        """Add to the value."""
        self.value += amount


class Distribution:
    """A histogram without a lock: only one thread at a time may add to it."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.created = time.time()

    def observe(self, amount: float) -> None:
        """Count an amount in its bucket."""
        self.sum += amount
        self.counts[bisect_left(self._bounds, amount)] += 1


Child = TypeVar("Child", Tally, Distribution)


class _Family(Collector, Generic[Child]):
    """A metric with a child for every combination of labels. new: makes a child."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        new: Callable[[], Child],
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._new: Callable[[], Child] = new
        self._children: dict[tuple[str, ...], Child] = {}
        registry.register(self)

    def labels(self, *values: object) -> Child:
        """Return the child with these labels."""
        key = tuple(map(str, values))
        if key not in self._children:
            self._children[key] = self._new()
        return self._children[key]


class _Tallies(_Family[Tally]):
    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        super().__init__(name, documentation, labels, registry, Tally)

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, child in self._children.copy().items():
            family.add_metric(values, child.value, created=child.created)
        return [family]


class _Distributions(_Family[Distribution]):
    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._bounds = bounds
        super().__init__(name, documentation, labels, registry, lambda: Distribution(bounds))

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        names = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]  # type: ignore[no-untyped-call]
        for values, child in self._children.copy().items():
            counts = itertools.accumulate(child.counts)
            family.add_metric(values, list(zip(names, map(float, counts), strict=True)), child.sum)
            family.add_sample(f"{self._name}_created", dict(zip(self._labels, values, strict=True)), child.created)
        return [family]


class Used(Protocol):
    """A budget of bytes."""

    limit: int

    @property
    def used(self) -> int:
        """The bytes that are held."""


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.steps = _Tallies("engram_steps", "Session-steps computed.", ["model"], registry)
        self.failures = Counter("engram_step_failures", "Session-steps that failed.", ["model"], registry=registry)
        self.batch = _Distributions(
            "engram_batch_size", "Sessions of one memory size stepped at once.", ["model"], BATCH_BUCKETS, registry
        )
        self.tick = _Distributions(
            "engram_tick_seconds", "Time of one batched step.", ["model"], TICK_BUCKETS, registry
        )
        self.phases = _Tallies(
            "engram_phase_seconds", "Time of batches in each phase of a step.", ["model", "phase"], registry
        )
        self.sequences = Gauge("engram_sequences", "Sequences in work or waiting.", ["model"], registry=registry)
        self.sessions = Gauge("engram_sessions", "Open sessions.", ["model"], registry=registry)
        self.resident = Gauge(
            "engram_resident_sessions", "Open sessions whose state is in memory.", ["model"], registry=registry
        )
        self.ended = Counter(
            "engram_sessions_ended", "Sessions that ended, by reason.", ["model", "reason"], registry=registry
        )
        self.commits = _Distributions(
            "engram_commit_entries", "Requests whose steps were written in one commit.", [], BATCH_BUCKETS, registry
        ).labels()
        self.commit_seconds = _Distributions(
            "engram_commit_seconds", "Time of one commit of the store.", [], TICK_BUCKETS, registry
        ).labels()
        self.store_failures = Counter(
            "engram_store_failures", "Writes and reads of the store that failed.", registry=registry
        )
        self.budget = Gauge("engram_budget_bytes", "Bytes held of a budget.", ["budget"], registry=registry)
        self.budget_limit = Gauge("engram_budget_limit_bytes", "Limit of a budget.", ["budget"], registry=registry)
        self.streams = Gauge("engram_streams", "Open WebSockets.", registry=registry)
        self.requests = _Tallies("engram_requests", "HTTP requests answered.", ["method", "route", "status"], registry)
        self.request_seconds = _Distributions(
            "engram_request_seconds", "Time of HTTP requests.", ["route"], REQUEST_BUCKETS, registry
        )

        self._engine_locks: dict[str, threading.Lock] = {}
        self.refusals = _Tallies(
            "engram_refusals",
            "Requests and WebSockets refused or failed, by the code of the error.",
            ["code"],
            registry,
        )
        self.loop_lag = _Distributions(
            "engram_event_loop_lag_seconds", "How late the event loop is.", [], REQUEST_BUCKETS, registry
        ).labels()
        self._log_lag = Gauge(
            "engram_log_lag_seconds",
            "Age of the oldest step that is answered and not yet safe from a power cut.",
            registry=registry,
        )
        self._log_waiting = Gauge(
            "engram_log_waiting_entries", "Requests whose steps are not yet written.", registry=registry
        )
        self.wal_bytes = Gauge("engram_wal_bytes", "Size of the store's write-ahead logs.", registry=registry)
        self.data_bytes = Gauge("engram_data_bytes", "Size of the data directory.", registry=registry)
        self.data_free_bytes = Gauge(
            "engram_data_free_bytes", "Free space of the disk of the data directory.", registry=registry
        )
        self.lease = Gauge("engram_lease_seconds", "Time until the server's lease runs out.", registry=registry)
        self.lease.set(math.nan)
        self.takeovers = Counter(
            "engram_takeovers",
            "Servers whose lease had run out, and whose sessions were taken over.",
            registry=registry,
        )
        self.handovers = Counter(
            "engram_handovers", "Sessions handed over between servers that live.", ["direction"], registry=registry
        )
        for direction in DIRECTIONS:
            self.handovers.labels(direction)
        self.refused_epochs = Counter(
            "engram_refused_epochs", "Writes refused since another server has the session.", registry=registry
        )
        self._build = Gauge(
            "engram_build_info", "Always 1.", ["version", "python", "backends", "store"], registry=registry
        )
        ProcessCollector(registry=registry)

        self._routes: dict[tuple[str, str, int], tuple[Tally, Distribution]] = {}
        """The children of a method, a route and a status: to find them by their labels takes longer than to count."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request that took `seconds`."""
        key = (method, route, status)
        if key not in self._routes:
            self._routes[key] = (self.requests.labels(*key), self.request_seconds.labels(route))
        count, time = self._routes[key]
        count.inc()
        time.observe(seconds)

    def build(self, backends: Iterable[str], store: str) -> None:
        """Set the labels of engram_build_info; backends: of the models."""
        self._build.clear()
        self._build.labels(
            version() or "unknown", platform.python_version(), ",".join(sorted(set(backends))), store
        ).set(1)

    def watch_log(self, lag: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Call these functions at each scrape: seconds of the log's lag, entries that are not yet written."""
        self._log_lag.set_function(lag)
        self._log_waiting.set_function(waiting)

    def watch_lease(self, left: Callable[[], float]) -> None:
        """Call this function at each scrape: seconds until the server's lease runs out."""
        self.lease.set_function(left)

    def takeover(self) -> None:
        """Count a server whose lease had run out, and whose sessions are free."""
        self.takeovers.inc()

    def refused(self, entries: int) -> None:
        """Count entries that the store refused, since their epoch was over."""
        self.refused_epochs.inc(entries)

    def refusal(self, code: str) -> None:
        """Count a request or a WebSocket that ended with an error; code: of its class in app/errors.py."""
        self.refusals.labels(code).inc()

    def watch(self, name: str, budget: Used) -> None:
        """Show how many bytes of a budget are held, and its limit."""
        self.budget.labels(name).set_function(lambda: budget.used)
        self.budget_limit.labels(name).set(budget.limit)

    def commit(self, entries: int, seconds: float) -> None:
        """Count a commit of the store."""
        self.commits.observe(entries)
        self.commit_seconds.observe(seconds)

    def failure(self) -> None:
        """Count a failure of the store."""
        self.store_failures.inc()

    def engine(self, model: str) -> "EngineMetrics":
        """Return the observer of a model's engine."""
        return EngineMetrics(self, model, self._engine_locks.setdefault(model, threading.Lock()))

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class EngineMetrics:
    """The observer of one model's engine (app.engine.worker.EngineObserver)."""

    def __init__(self, metrics: Metrics, model: str, lock: threading.Lock) -> None:
        """lock: of all engines of this name, those of versions that were replaced too."""
        self._lock = lock
        self._steps = metrics.steps.labels(model)
        self._failures = metrics.failures.labels(model)
        self._batch = metrics.batch.labels(model)
        self._tick = metrics.tick.labels(model)
        phases = [metrics.phases.labels(model, phase) for phase in PHASES]
        self._wait, self._run, self._record, self._commit, self._deliver = phases
        self._computing = 0.0
        """Seconds of the calls of the back end within the current batch."""

    def tick(self, batch: int, seconds: float, steps: int) -> None:
        with self._lock:
            self._steps.inc(batch * steps)
            self._batch.observe(batch)
            self._tick.observe(seconds)
            self._run.inc(seconds)
        self._computing += seconds

    def batch(self, wait: float, seconds: float) -> None:
        with self._lock:
            self._wait.inc(wait)
            self._record.inc(max(0.0, seconds - self._computing))
        self._computing = 0.0

    def answer(self, commit: float, deliver: float) -> None:
        with self._lock:
            self._commit.inc(commit)
            self._deliver.inc(deliver)

    def failure(self) -> None:
        self._failures.inc()
