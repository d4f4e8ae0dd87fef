"""The time, in seconds since the epoch, as the sessions of a server know it."""

import time
from collections.abc import Callable


class Clock:
    """Goes on as the monotonic clock does, whatever becomes of the system's, and begins no earlier than it once was.

    latest: the latest time that was written down.
    """

    def __init__(
        self,
        latest: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._offset = max(wall(), latest) - monotonic()

    def __call__(self) -> float:
        return self._offset + self._monotonic()
