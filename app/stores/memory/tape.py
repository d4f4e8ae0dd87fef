"""A tape of the store in memory: what is on it, and on those that it begins with."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from app.stores.archive import ArchivedSnapshot, ArchivedSteps, ArchivedTape, Item, kept
from app.stores.base import LoggedSteps


class StoredSnapshot(NamedTuple):
    """A state of a tape. taken: Unix time, in seconds."""

    state: bytes
    taken: float
    passing: bool


@dataclass(eq=False)
class Tape:
    """A tape, which begins with its parent up to the step `base`; one without a parent is a root.

    first: of a root, the first step, but for 0, that can be gone back to. stop: the step after its last. session: that
    is on it; epoch: of its claim. head: the step that the session was rewound to, None where it is at the end.
    seq: of the last frame. snapshots: by their step.
    """

    number: int
    parent: "Tape | None"
    base: int
    first: int
    seq: int | None
    epoch: int
    stop: int
    head: int | None = None
    session: str | None = None
    log: list[LoggedSteps] = field(default_factory=list)
    snapshots: dict[int, StoredSnapshot] = field(default_factory=dict)
    children: "set[Tape]" = field(default_factory=set)

    def line(self) -> "Iterator[Tape]":
        """Yield the tape, its parent, the parent's parent, and so on to the root."""
        tape: Tape | None = self
        while tape is not None:
            yield tape
            tape = tape.parent

    @property
    def root(self) -> "Tape":
        *_, root = self.line()
        return root

    @property
    def oldest(self) -> int:
        """The first step, but for 0, that can be gone back to."""
        return self.root.first

    @property
    def kept(self) -> int:
        """The step of its last snapshot that is not passing, or else its base."""
        return max((step for step, snapshot in self.snapshots.items() if not snapshot.passing), default=self.base)

    def descendants(self) -> "Iterator[Tape]":
        """Yield the tape, and all that begin with it, directly or by way of others."""
        found = [self]
        while found:
            tape = found.pop()
            found += tape.children
            yield tape

    def with_step(self, step: int) -> "Tape":
        """Return the tape of the line that has a step, counted from 1; the root for one that is older."""
        return next(tape for tape in self.line() if tape.base < step or tape.parent is None)

    def upwards(self, step: int) -> "Iterator[tuple[Tape, int]]":
        """Yield the tapes that lead to a step, the last first, each with the step up to which it does.

        First comes the tape itself, where a session that was rewound to before its base has its snapshot.
        """
        if self.base > step:
            yield self, step
        for tape in self.with_step(step + 1).line():
            yield tape, step
            step = min(step, tape.base)

    def logged(self, start: int, stop: int) -> Iterator[LoggedSteps]:
        """Yield the tape's own log from the step `start` up to `stop`."""
        first = bisect_right(self.log, start, key=lambda entry: entry.step) - 1
        for index in range(max(0, first), len(self.log)):
            step, steps, inputs, seq = self.log[index]
            begin, end, width = max(step, start), min(step + steps, stop), len(inputs) // steps
            if step >= stop:
                return
            if begin < end:
                yield LoggedSteps(begin, end - begin, inputs[(begin - step) * width : (end - step) * width], seq)

    def past(self, start: int, stop: int) -> Iterator[LoggedSteps]:
        """Yield the log from the step `start` up to `stop`, also that of the tapes that this one begins with."""
        parts: list[tuple[Tape, int, int]] = []
        for tape in self.line():
            begin = start if tape.parent is None else max(start, tape.base)
            if begin < stop:
                parts.append((tape, begin, stop))
                stop = begin
        for tape, begin, end in reversed(parts):
            yield from tape.logged(begin, end)

    def items(self) -> Iterator[Item]:
        """Yield the tape, the steps that are kept of its log, and its snapshots."""
        parent = None if self.parent is None else self.parent.number
        numbers = (self.number, parent, self.base, self.first, self.stop, self.head, self.seq, self.epoch)
        tape = ArchivedTape(*numbers, is_used=self.session is not None)
        yield tape
        yield from kept(tape, (ArchivedSteps(self.number, *piece) for piece in self.log))
        yield from (ArchivedSnapshot(self.number, at, *kept) for at, kept in sorted(self.snapshots.items()))

    def keep(self, step: int, state: bytes, now: float, passing: bool) -> None:
        """Keep a snapshot; one with which the tape begins, or at the step of another, does not pass."""
        self.snapshots = {at: kept for at, kept in self.snapshots.items() if not kept.passing or at == self.first}
        self.snapshots[step] = StoredSnapshot(state, now, passing and step not in self.snapshots)
