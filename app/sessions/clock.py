"""The time, in seconds, by which sessions expire and are forgotten: it passes while a server runs, and not else."""

import time
from collections.abc import Callable


class Clock:
    """Goes on from where the last server's clock stopped, as the monotonic clock does.

    Whatever becomes of the system's clock, while a server runs or between two, ends no session. latest: the latest time
    that is recorded in the store; where there is none, 0, the clock begins at Unix time.
    """

    def __init__(
        self,
        latest: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._offset = (latest or wall()) - monotonic()

    def advance(self, latest: float) -> None:
        """Go on from a later time that another server of the same store has recorded."""
        self._offset = max(self._offset, latest - self._monotonic())

    def __call__(self) -> float:
        return self._offset + self._monotonic()
