"""Distinguish leaks from rounding.

Batches of other sizes may round otherwise, so a step is held to one of two rules:

- from a state that is equal to the bit, in batches of the same sizes, with the same input: equal to the bit;
- any other step: a session that takes it by itself, from the state before it, comes out within rounding.

The second rule compares step by step, for a DNC whose memory is full multiplies rounding until long runs differ. How
far rounding may go is measured, by the same step from states that differ by NEARBY: MARGIN times the least of their
differences. Rounding may also change which of two memory locations comes first. If both held the same, the numbers of a
tensor agree once they are sorted; if not, the step must be within rounding of one from a state nearby.

A state that is only read again, moved or forked is equal to the bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from app.sessions.snapshot import Snapshot
from benchmarks.isolation.course import Course, Moment, Plan, pairs, together
from benchmarks.isolation.host import Array, Host

ROUNDING = 1e-6
"""The difference up to which a step is within rounding, whatever the model; relative to the largest value above 1."""

OTHER_BACKEND = 5e-4
"""The same for a step of another back end, as in the check of an export: sharp content weightings multiply the rounding
within a step a thousandfold, and no state nearby shows that."""

NEARBY = 1e-6
MEASURED, MOST_STATES = 8, 128
"""States nearby that measure rounding, and those that are tried at most to find the step of one that agrees."""

MARGIN = 8.0
"""A step may differ by this many times the least difference of the steps from states nearby."""


class Difference(NamedTuple):
    """The largest relative difference of two moments, and the tensor that has it."""

    name: str
    size: float


@dataclass
class Finding:
    """The comparison of the courses of a situation with others.

    compared: how many steps and states were compared. held: how many of the steps by the first rule. largest: the
    largest difference of a step, 0 if all are equal to the bit. allowed: how far rounding may go at that step. leak:
    the first fault, None if there is none.
    """

    compared: int = 0
    held: int = 0
    largest: float = 0.0
    allowed: float = 0.0
    leak: str | None = None

    @property
    def is_equal(self) -> bool:
        """Return whether something was compared, and all of it is equal to the bit."""
        return self.compared > 0 and self.leak is None and self.largest == 0.0

    def note(self, size: float, allowed: float) -> None:
        """Record a difference, if it is the largest."""
        if size > self.largest:
            self.largest, self.allowed = size, allowed

    def fail(self, course: Course, moment: Moment, what: str) -> None:
        """Record a leak, if it is the first."""
        self.leak = self.leak or f"session {course.number + 1}, step {moment.step}: {what}"


class Judge:
    """Compares courses. host: where steps are taken by themselves; nothing else may use it meanwhile."""

    def __init__(self, plan: Plan, host: Callable[[], Host]) -> None:
        self._plan, self._host = plan, host

    def against_alone(self, courses: Sequence[Course], reference: Sequence[Course]) -> Finding:
        """Compare courses with those of the same sessions alone, by both rules."""
        finding = Finding()
        for course in courses:
            self._check_beginning(finding, course, reference[course.number])
        for course, before, moment in pairs(courses):
            other = reference[course.number]
            if moment.step != before.step + 1:
                self._check_same(
                    finding, course, moment, before if moment.step == before.step else other.at(moment.step)
                )
            elif not self._follows(finding, course, before, moment, other):
                self._audit(finding, course, before, moment)
        return finding

    def against_others(self, courses: Sequence[Course], reference: Sequence[Course]) -> Finding:
        """Compare courses with those beside other strangers, by the first rule."""
        finding = Finding()
        for course, other in zip(courses, reference, strict=True):
            self._check_beginning(finding, course, other)
            for _, before, moment in pairs([course]):
                self._follows(finding, course, before, moment, other)
        return finding

    def _check_beginning(self, finding: Finding, course: Course, reference: Course) -> None:
        """Compare the first state of a course with that of the reference at this step."""
        self._check_same(finding, course, course.moments[0], reference.at(course.moments[0].step))

    def _check_same(self, finding: Finding, course: Course, moment: Moment, other: Moment | None) -> None:
        assert other is not None, "the reference has every step"
        finding.compared += 1
        if not moment.is_equal(other):
            name, size = difference(moment, other)
            finding.fail(course, moment, f"its state is another without a step: {name} differs by {size:.2g}")

    def _follows(self, finding: Finding, course: Course, before: Moment, moment: Moment, reference: Course) -> bool:
        """Return whether the first rule applies to a step, and hold it to the rule."""
        earlier, later = reference.at(before.step), reference.at(moment.step)
        if earlier is None or later is None or not before.is_equal(earlier):
            return False
        equal, is_held = moment.is_equal(later), moment.batches is not None and moment.batches == later.batches
        if not (equal or is_held):
            return False
        finding.compared += 1
        finding.held += is_held
        if not equal:
            name, size = difference(moment, later)
            finding.fail(course, moment, f"{name} differs by {size:.2g} in batches of the same sizes")
        return True

    def _audit(self, finding: Finding, course: Course, before: Moment, moment: Moment) -> None:
        """Hold a step to the second rule, if the state before it is known, until a leak is found."""
        if before.snapshot is None or finding.leak:
            return
        finding.compared += 1
        inputs = self._plan.inputs[before.step, course.number]
        expected = self._step(before.snapshot, inputs)
        (name, size), allowed = difference(moment, expected), self._floor(moment)
        if size > allowed:
            size, allowed = self._nearest(before.snapshot, inputs, moment, expected, allowed)
        finding.note(size, allowed)
        if not size <= allowed:
            finding.fail(course, moment, f"{name} differs by {size:.2g}, but rounding by {allowed:.2g} at most")

    def _floor(self, moment: Moment) -> float:
        """Return how far a step may differ at least."""
        is_other = moment.batches is not None and moment.batches.backend != self._host().card.backend
        return OTHER_BACKEND if is_other else ROUNDING

    def _nearest(
        self, snapshot: bytes, inputs: Array, moment: Moment, expected: Moment, floor: float
    ) -> tuple[float, float]:
        """Return the difference of a step from that of the nearest state tried, and how far it may differ."""
        states = [self._step(nearby(snapshot, seed), inputs) for seed in range(MEASURED)]
        allowed = max(floor, MARGIN * min(difference(each, expected).size for each in states))
        sizes = [difference(moment, each).size for each in (expected, *states)]
        for seed in range(MEASURED, MOST_STATES):
            if min(sizes) <= allowed:
                break
            sizes.append(difference(moment, self._step(nearby(snapshot, seed), inputs)).size)
        return min(sizes), allowed

    def _step(self, snapshot: bytes, inputs: Array) -> Moment:
        """Return how a session is after one step by itself."""
        host = self._host()
        session = host.adopt(snapshot)
        [output] = together(host, [session], inputs[None])
        after = host.snapshot(session)
        host.delete(session)
        return Moment(0, output, after)


def difference(moment: Moment, other: Moment) -> Difference:
    """Return the largest difference of the tensors that both have, each relative to its largest value above 1."""
    common = [name for name in moment.tensors if name in other.tensors]
    return max((Difference(name, _relative(moment.tensors[name], other.tensors[name])) for name in common), key=_size)


def nearby(snapshot: bytes, seed: int) -> bytes:
    """Return a snapshot whose numbers differ by NEARBY; whole numbers stay as they are."""
    chance, original = np.random.default_rng(seed), Snapshot.from_bytes(snapshot)
    state = {}
    for name, leaf in sorted(original.state.items()):  # in the order of the names, so that a seed has the same noise
        noise = 1 + NEARBY * chance.standard_normal(leaf.shape)
        state[name] = leaf if leaf.dtype.kind in "iu" else (leaf * noise).astype(leaf.dtype)
    return replace(original, step=max(1, original.step), state=state).to_bytes()


def _relative(values: Array, expected: Array) -> float:
    """Return the largest difference of the numbers, in order or sorted, relative to the largest one above 1.

    It is infinite for other shapes, and for numbers that are not finite.
    """
    if values.shape != expected.shape:
        return np.inf
    ours, theirs = values.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    in_order, sorted_ = np.abs(ours - theirs), np.abs(np.sort(ours) - np.sort(theirs))
    scale = max(1.0, np.abs(theirs).max(initial=0.0))
    size = float(min(in_order.max(initial=0.0), sorted_.max(initial=0.0)) / scale)
    return np.inf if np.isnan(size) else size


def _size(difference: Difference) -> float:
    return difference.size
