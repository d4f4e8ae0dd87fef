"""How long a request is sent again, and the pauses between."""

import random
import time

from engram_client.errors import Lost, Unreachable

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds before the second try, and at most before any other."""

LONGEST_WAIT = 86_400.0
"""Seconds that a socket or a lock waits at most: they take no infinite timeout."""


class Tries:
    """The tries of one call: how many, how long, and the pauses between them.

    A pause is twice as long as the one before, less up to half of it by chance, so that the clients of a server that
    went away do not all come back at once.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._count = 0
        self.reached = False
        """Whether the server may have carried out one of the tries."""

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return min(max(0.0, self._deadline - time.monotonic()), LONGEST_WAIT)

    def pause(self, lost: Lost) -> float:
        """Return the seconds until the next try. Raises Unreachable if the timeout comes first."""
        self.reached |= lost.reached
        longest = min(FIRST_PAUSE * 2 ** min(self._count, 16), LONGEST_PAUSE)
        self._count += 1
        pause = max(random.uniform(longest / 2, longest), lost.after)
        if pause < self.left:
            return pause
        known = {"url": self._url, "seconds": self._timeout, "tries": self._count}
        detail = f"{self._url} gave no answer within {self._timeout:g} s ({self._count} tries); at last: {lost}"
        raise Unreachable({"code": "unreachable", "detail": detail} | known) from lost.__cause__ or lost
