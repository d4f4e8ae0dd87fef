"""Choose which sequences step next, and how many steps. Plain Python: it never sees an array."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from app.engine.run import Run

BATCH_BYTES = 32 * 2**20
"""Bytes of state stepped in one batch on a CPU, at most: a larger single state runs alone. Larger batches measured no
faster."""

TICK_SECONDS = 2e-3
"""About how long one call of the back end may last: a sequence that joins waits that long."""

GPU_TICK_SECONDS = 20e-3
"""The same of a GPU: thousands of runs take part in a call, and what Python does for each is then done less often."""

ENOUGH_ROWS = 32
"""On a CPU, a batch with this many sequences takes no more if it would then take fewer steps in a call: a row costs
little less in a larger batch, and each call costs every run the same."""

ACTIVE_SECONDS = 1.0
"""A session counts as active for about this time after a step; with `linger`, others wait for active sessions."""

SMOOTHING = 0.1
"""The weight of the newest measurement in a moving average."""


class Batch(NamedTuple):
    """Runs of one memory size and force, and the number of steps that they take together."""

    runs: list[Run]
    steps: int


class Pace:
    """How long a step of one sequence takes, by memory size and the size of the batch: a moving average."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int | None, int], float] = {}

    def note(self, memory_size: int | None, rows: int, steps: int, seconds: float) -> None:
        """Add a measurement: `rows` rows took `steps` steps in `seconds`."""
        key, seconds = (memory_size, rows.bit_length()), seconds / (rows * steps)
        known = self._seconds.get(key, seconds)
        self._seconds[key] = known + SMOOTHING * (seconds - known)

    def seconds(self, memory_size: int | None, rows: int) -> float | None:
        """Return the seconds of one step of one row in a batch of about `rows`, else in the next smaller one measured.

        None: no such batch and no smaller one was measured.
        """
        for size in range(rows.bit_length(), 0, -1):
            known = self._seconds.get((memory_size, size))
            if known is not None:
                return known
        return None


class Linger:
    """Decides how long steps wait to be taken together: until half of the active sessions are there.

    Active are the sessions that were stepped within about the last ACTIVE_SECONDS. Used on the event loop only.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Let a step wait for at most `seconds`; 0: no step waits."""
        self.seconds = seconds
        self._clock = clock
        self._since = clock()
        self._active: set[int] = set()
        self._active_before: set[int] = set()

    def note(self, slots: Iterable[int]) -> None:
        """Note that the sessions in these slots are to be stepped."""
        now = self._clock()
        if now - self._since > ACTIVE_SECONDS:
            recent = now - self._since < 2 * ACTIVE_SECONDS
            self._active, self._active_before, self._since = set(), self._active if recent else set(), now
        self._active.update(slots)

    def is_enough(self, rows: int) -> bool:
        """Return whether `rows` sequences need not wait for more."""
        return not self.seconds or 2 * rows >= max(len(self._active), len(self._active_before))


class Scheduler:
    """Round robin: every run is stepped once before any is stepped again, whatever their lengths.

    The runs of a batch take as many steps in one call as all of them have left, within about the time of a call.
    """

    def __init__(
        self,
        max_batch: int,
        state_bytes: Callable[[int | None], int],
        takes_several: bool,
        batch_bytes: float = BATCH_BYTES,
        enough_rows: int = ENOUGH_ROWS,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        """Make an empty queue.

        max_batch: largest number of sequences in a batch, unless one run alone has more. state_bytes: returns the bytes
        of a state of a memory size. takes_several: whether the back end can take several steps in one call.
        batch_bytes: bytes of state in a batch, at most, unless a single state has more. enough_rows: sequences from
        which on a batch takes no more if it would then take fewer steps in a call. tick_seconds: about how long a call
        may last.
        """
        self.pace = Pace()
        self._takes_several = takes_several
        self._max_batch = max_batch
        self._state_bytes = state_bytes
        self._batch_bytes, self._enough_rows, self._tick_seconds = batch_bytes, enough_rows, tick_seconds
        self._runs: deque[Run] = deque()

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, runs: Iterable[Run]) -> None:
        """Queue runs behind the waiting ones."""
        self._runs.extend(runs)

    def next_batches(self) -> tuple[list[Batch], list[Run]]:
        """Remove the next runs from the queue; return them in batches, and the abandoned ones among them.

        The batches have at most max_batch sequences together, unless the first run alone has more.
        """
        alike: dict[tuple[int | None, str | None], list[Run]] = {}
        abandoned, rows, left = [], 0, None
        while self._runs and (rows == 0 or rows + self._runs[0].rows <= self._max_batch):
            run = self._runs[0]
            if rows >= self._enough_rows and self._takes_long(run.memory_size, rows + run.rows, left):
                break
            self._runs.popleft()
            if run.abandoned:
                abandoned.append(run)
            else:
                alike.setdefault((run.memory_size, run.force), []).append(run)
                rows += run.rows
                own = run.steps - run.position
                left = own if left is None or own < left else left
        return [batch for (size, _), runs in alike.items() for batch in self._batches(size, runs)], abandoned

    def rows_at_once(self, memory_size: int | None) -> int:
        """Return the largest number of sequences of this memory size in one batch."""
        return max(1, int(min(self._max_batch, self._batch_bytes // max(1, self._state_bytes(memory_size)))))

    def _takes_long(self, memory_size: int | None, rows: int, left: int | None) -> bool:
        """Return whether `rows` sequences would take longer than a call may last, for `left` steps each."""
        if left is None or left == 1 or not self._takes_several:
            return False
        seconds = self.pace.seconds(memory_size, rows)
        return seconds is not None and seconds * rows * left > self._tick_seconds

    def _batches(self, memory_size: int | None, runs: list[Run]) -> list[Batch]:
        """Return runs of one memory size and force in batches within their bytes."""
        most = self.rows_at_once(memory_size)
        batches: list[Batch] = []
        chosen: list[Run] = []
        rows = 0
        for run in runs:
            if chosen and rows + run.rows > most:
                batches.append(self._batch(memory_size, chosen, rows))
                chosen, rows = [], 0
            chosen.append(run)
            rows += run.rows
        return [*batches, self._batch(memory_size, chosen, rows)]

    def _batch(self, memory_size: int | None, runs: list[Run], rows: int) -> Batch:
        """Return a batch with its number of steps: one if any run has a trace."""
        steps = 1
        if self._takes_several and not any(run.trace for run in runs):
            left = min([run.steps - run.position for run in runs])
            seconds = self.pace.seconds(memory_size, rows)
            if left > 1 and seconds is not None:
                steps = max(1, min(left, int(self._tick_seconds / (seconds * rows))))
        return Batch(runs, steps)
