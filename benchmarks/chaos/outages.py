"""The time without service of each session, around each fault.

faults   |--- 1 ---|           |--- 2 ---|
waits      |----a----|  |b|   |----c----|      the longer of a and b counts for fault 1, c for fault 2
"""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.chaos.record import Wait
from benchmarks.table import Row, Table

UNDER_WAY = 0.5
"""Seconds for which a request may be under way when the fault begins that it is counted for."""


class Fault(NamedTuple):
    """A fault that was brought about, in seconds of time.monotonic()."""

    kind: str
    began: float
    ended: float


class Outages(NamedTuple):
    """The faults of a run, in the order of time, and the waits of its clients."""

    faults: Sequence[Fault]
    waits: Sequence[Wait]

    def by_kind(self) -> dict[str, list[float]]:
        """Return the seconds without service by the kind of fault, one for each session that had to ask again."""
        begins = [fault.began for fault in self.faults]
        met: list[list[Wait]] = [[] for _ in self.faults]
        for wait in self.waits:
            if wait.again and (number := bisect(begins, wait.began + UNDER_WAY)):
                met[number - 1].append(wait)
        found: dict[str, list[float]] = {}
        for fault, waits in zip(self.faults, met, strict=True):
            found.setdefault(fault.kind, []).extend(longest(waits))
        return found


def longest(waits: Iterable[Wait]) -> list[float]:
    """Return the longest wait of each session."""
    found: dict[str, float] = {}
    for wait in waits:
        found[wait.session] = max(wait.seconds, found.get(wait.session, 0.0))
    return list(found.values())


def measure(outages: Outages) -> Iterator[Row]:
    for kind, seconds in outages.by_kind().items():
        times = sum(fault.kind == kind for fault in outages.faults)
        spread = [float(value) for value in np.percentile(seconds, [50, 95, 100])] if seconds else ["-"] * 3
        yield kind, times, len(seconds) / times, *spread


OUTAGES = Table(
    "Time without service",
    "For each session that had to send a request again after a fault: its longest wait for an answer, in seconds, from "
    "the first time that it sent the request until the answer.",
    ("fault", "times", "sessions each time", "median", "95th percentile", "longest"),
    measure,
)
