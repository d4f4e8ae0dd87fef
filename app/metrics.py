"""What Prometheus can ask of the server; docs/metrics.md describes each metric."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TICK_BUCKETS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0)
REQUEST_BUCKETS = (1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.steps = Counter("engram_steps", "Session-steps computed.", ["model"], registry=registry)
        self.failures = Counter("engram_step_failures", "Session-steps that failed.", ["model"], registry=registry)
        self.batch = Histogram(
            "engram_batch_size",
            "Sessions of one memory size stepped at once.",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.tick = Histogram(
            "engram_tick_seconds", "Time of one batched step.", ["model"], buckets=TICK_BUCKETS, registry=registry
        )
        self.sequences = Gauge("engram_sequences", "Sequences in work or waiting.", ["model"], registry=registry)
        self.sessions = Gauge("engram_sessions", "Open sessions.", ["model"], registry=registry)
        self.resident = Gauge(
            "engram_resident_sessions", "Open sessions whose state is in memory.", ["model"], registry=registry
        )
        self.ended = Counter(
            "engram_sessions_ended", "Sessions that ended, by reason.", ["model", "reason"], registry=registry
        )
        self.commits = Histogram(
            "engram_commit_entries",
            "Requests whose steps were written at once.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "engram_commit_seconds", "Time of writing them.", buckets=TICK_BUCKETS, registry=registry
        )
        self.store_failures = Counter(
            "engram_store_failures", "What the store could not write or read.", registry=registry
        )
        self.streams = Gauge("engram_streams", "Open WebSockets.", registry=registry)
        self.requests = Counter(
            "engram_requests", "HTTP requests answered.", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "engram_request_seconds", "Time of HTTP requests.", ["route"], buckets=REQUEST_BUCKETS, registry=registry
        )

        self._routes: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        """Those of a method, a route and a status: finding them by their labels takes longer than counting."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request, and its time."""
        key = (method, route, status)
        if key not in self._routes:
            self._routes[key] = (self.requests.labels(*key), self.request_seconds.labels(route))
        count, time = self._routes[key]
        count.inc()
        time.observe(seconds)

    def commit(self, entries: int, seconds: float) -> None:
        self.commits.observe(entries)
        self.commit_seconds.observe(seconds)

    def failure(self) -> None:
        self.store_failures.inc()

    def engine(self, model: str) -> "EngineMetrics":
        """Return what the engine of a model reports to."""
        return EngineMetrics(self, model)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class EngineMetrics:
    """The metrics of one model's engine."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._steps = metrics.steps.labels(model)
        self._failures = metrics.failures.labels(model)
        self._batch = metrics.batch.labels(model)
        self._tick = metrics.tick.labels(model)

    def tick(self, batch: int, seconds: float, steps: int) -> None:
        self._steps.inc(batch * steps)
        self._batch.observe(batch)
        self._tick.observe(seconds)

    def failure(self) -> None:
        self._failures.inc()
