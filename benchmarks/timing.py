"""Check candidates, then time them in turns, so that other load on the machine affects all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class WrongOutputs(RuntimeError):
    """A candidate that computes wrong outputs: it is not timed."""


def check_close(what: str, outputs: Array, expected: Array, tolerance: float) -> None:
    """Raise WrongOutputs if an output differs by more than `tolerance`, relative to the largest expected value.

    With a tolerance of 0 the numbers must be equal.
    """
    if outputs.shape != expected.shape:
        raise WrongOutputs(f"not timed, {what}: expected shape {list(expected.shape)}, got {list(outputs.shape)}")
    error = float(np.abs(outputs - expected).max())
    allowed = tolerance * float(np.abs(expected).max())
    if not error <= allowed:  # NaN does not match
        raise WrongOutputs(f"not timed, {what}: expected a difference of at most {allowed:.3g}, got {error:.3g}")


Clock: TypeAlias = Callable[[], float]
"""A clock in seconds: time.perf_counter; or time.process_time, which stands still while others compute."""


def medians(
    candidates: Mapping[str, Callable[[], object]], rounds: int, seconds: float, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Return the seconds of a call of each candidate: the median of rounds in which they take turns.

    A turn lasts at least `seconds`, and one call. The first call of each is not counted.
    """
    for call in candidates.values():
        call()
    turns: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            turns[name].append(seconds_per_call(call, seconds, clock))
    return {name: statistics.median(times) for name, times in turns.items()}


def seconds_per_call(call: Callable[[], object], seconds: float, clock: Clock = time.perf_counter) -> float:
    """Repeat a call for `seconds`, at least once, and return the mean seconds of a call."""
    calls, began = 0, clock()
    while True:
        call()
        calls += 1
        elapsed = clock() - began
        if elapsed >= seconds:
            return elapsed / calls
