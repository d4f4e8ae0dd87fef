"""Counts of the requests to infer of each model since the start, and the times of their parts in nanoseconds."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from app.metrics import Metrics

KINDS = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)
"""Parts of a request, as Triton names them. There is no cache, so that its two stay 0."""


class Stopwatch:
    """The times of the parts of one request, from now on; each part goes from the end of the one before."""

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self.parts: dict[str, int] = {}

    def end_part(self, kind: str) -> None:
        """Note the end of a part."""
        now = self._clock()
        self.parts[kind], self._last = now - self._last, now

    @property
    def total(self) -> int:
        """The nanoseconds until now."""
        return self._clock() - self._began


class Statistics:
    """The requests of all models."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._models: defaultdict[str, dict[str, list[int]]] = defaultdict(lambda: {kind: [0, 0] for kind in KINDS})
        self._last: dict[str, int] = {}

    def succeeded(self, model: str, watch: Stopwatch) -> None:
        """Count a request that was answered."""
        for kind, spent in {"success": watch.total, **watch.parts}.items():
            self._add(model, kind, spent)
        self._last[model] = time.time_ns() // 1_000_000

    def failed(self, model: str, watch: Stopwatch) -> None:
        """Count a request that ended with an error."""
        self._add(model, "fail", watch.total)

    def document(self, model: str, version: str) -> dict[str, Any]:
        """Return the statistics of a model. Its steps and batches count those that came in other ways too."""
        counts = self._models[model]
        return {
            "name": model,
            "version": version,
            "last_inference": self._last.get(model, 0),
            "inference_count": int(self._metrics.steps.labels(model).value),
            "execution_count": sum(self._metrics.batch.labels(model).counts),
            "inference_stats": {kind: {"count": count, "ns": spent} for kind, (count, spent) in counts.items()},
            "batch_stats": [],
        }

    def _add(self, model: str, kind: str, spent: int) -> None:
        total = self._models[model][kind]
        total[0] += 1
        total[1] += spent
