"""Which sequences step next. Plain Python: it never sees a tensor."""

from collections import deque
from collections.abc import Iterable

from app.engine.run import Run


class Scheduler:
    """Round robin: every sequence steps once before any steps again, whatever their lengths."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._runs: deque[Run] = deque()

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, runs: Iterable[Run]) -> None:
        """Queue sequences behind those that are waiting."""
        self._runs.extend(runs)

    def next_batch(self) -> list[Run]:
        """Take the sequences to step now, at most max_batch of them."""
        return [self._runs.popleft() for _ in range(min(self._max_batch, len(self._runs)))]
