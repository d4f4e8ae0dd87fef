"""Waiting for what comes to hold by itself, where there is no event to wait for."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(holds: Callable[[], T], seconds: float = 30) -> T:
    """Wait until a condition holds, for at most `seconds`, and return what it then returned."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.01)
    return found
