"""How work is divided: the steps of a sequence into segments, by the memory budget, and rows among threads."""

import math
from typing import NamedTuple

LEAST_PER_THREAD = 2_000_000
"""Numbers to go through below which another thread does not pay: some 50 microseconds, as it takes to wake a thread."""


class SegmentPlan(NamedTuple):
    """The segments of a sequence, by gradient checkpointing.

    One segment keeps the states and the workspaces of all its steps, and the gradients need nothing else. Of several,
    the forward pass keeps only the states between them; the backward pass computes each segment again and then its
    gradients, from the last to the first, in the memory of one.

        steps     0 1 2 3 | 4 5 6 7 | 8 9          steps=10, length=4
        kept     s         s         s    s        states between segments
        segment            s w s w s w s w s       states and workspaces, while segment 1 is gone through

    steps: of the sequence; length: steps of a segment, of which the last may have fewer; kept_bytes: at most, at once.
    """

    steps: int
    length: int
    kept_bytes: int

    @property
    def segments(self) -> list[range]:
        """The steps of each segment."""
        starts = range(0, self.steps, self.length)
        return [range(start, min(start + self.length, self.steps)) for start in starts]


def plan_segments(steps: int, state_bytes: int, workspace_bytes: int, budget: int) -> SegmentPlan:
    """Return the plan with the longest segments that fit a budget in bytes, or the smallest plan where none fits.

    state_bytes, workspace_bytes: of all rows, at one step.
    """

    def plan(length: int) -> SegmentPlan:
        between = 0 if length == steps else state_bytes * (math.ceil(steps / length) + 1)
        return SegmentPlan(steps, length, between + (length + 1) * state_bytes + length * workspace_bytes)

    lengths = range(steps, 0, -1)
    fitting = (each for each in map(plan, lengths) if each.kept_bytes <= budget)
    return next(fitting, None) or min(map(plan, lengths), key=lambda each: each.kept_bytes)


def thread_count(rows: int, threads: int, numbers: int) -> int:
    """Return the number of threads to share rows, each of which goes through `numbers` numbers."""
    return max(1, min(rows, threads, rows * numbers // LEAST_PER_THREAD))


def cuts(rows: int, parts: int) -> list[int]:
    """Return where the rows of each part begin, and where those of the last end: [parts + 1]."""
    return [rows * part // parts for part in range(parts + 1)]
