"""Budgets of a caller: steps per second, and open WebSockets. The event loop alone uses them."""

import time
from collections.abc import Callable

from app.errors import RateLimited, StreamsFull

Clock = Callable[[], float]
"""A monotonic time in seconds."""


class StepsBucket:
    """A token bucket: it holds the steps of one second, at least one, and is refilled at `per_second`.

    A request of more steps than the bucket holds waits until it is full, then goes into debt, which delays the requests
    behind it: so no request is too large for ever, and the mean rate holds. per_second: None for no limit.
    """

    __slots__ = ("_at", "_capacity", "_clock", "_left", "_per_second")

    def __init__(self, per_second: float | None, clock: Clock = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._capacity = max(1.0, per_second or 0.0)
        self._left = self._capacity
        self._at = clock()

    def take(self, steps: int) -> None:
        """Take steps out of the bucket, before they are computed. Raises RateLimited, and takes none."""
        if self._per_second is None:
            return
        missing = self._missing(steps, self._per_second)
        if missing > 0:
            raise self._refusal(steps, missing / self._per_second)
        self._left -= steps

    def reserve(self, steps: int) -> float:
        """Take steps out of the bucket, into debt if need be; return the seconds after which they may be computed."""
        if self._per_second is None:
            return 0.0
        missing = self._missing(steps, self._per_second)
        self._left -= steps
        return max(0.0, missing / self._per_second)

    def _missing(self, steps: int, per_second: float) -> float:
        """Refill the bucket; return the steps that it lacks of those that it should hold for a request."""
        now = self._clock()
        self._left = min(self._capacity, self._left + (now - self._at) * per_second)
        self._at = now
        return min(steps, self._capacity) - self._left

    def _refusal(self, steps: int, seconds: float) -> RateLimited:
        rate = f"{self._per_second:g} steps per second"
        return RateLimited(
            f"the key may take {rate} (its limit steps_per_second); try these {steps} steps again in {seconds:.3g} s",
            retry_after=seconds,
            expected=rate,
            got=f"{steps} steps",
        )


class OpenStreams:
    """The number of open WebSockets, at most `most`; None for no limit."""

    __slots__ = ("_most", "count")

    def __init__(self, most: int | None) -> None:
        self._most = most
        self.count = 0

    def enter(self) -> None:
        """Count one more. Raises StreamsFull, and counts none."""
        if self._most is not None and self.count >= self._most:
            raise StreamsFull(
                f"the key may have {self._most} open WebSockets (its limit max_streams): close one, or use /streams "
                "for many sessions",
                expected=f"at most {self._most}",
                got=f"{self.count + 1}",
            )
        self.count += 1

    def leave(self) -> None:
        """Count one less."""
        assert self.count > 0, "a stream was closed twice"
        self.count -= 1
