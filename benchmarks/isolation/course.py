"""The record of an observed session: its outputs and states, and the batches that it was stepped in.

moment      0 ---- 1 ---- 2 ---- 2' --- 3            2': its state read again, after a restart for instance
output             y1     y2            y3
snapshot    s0     s1     s2     s2'    s3
batches            b1     b2            b3
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from app.sessions.snapshot import Snapshot
from benchmarks.isolation.host import COUNT, Array, Card, Host, ServerFault, Sizes, Stepped

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 1e-45
"""The smallest float32 above 0."""


class Batches(NamedTuple):
    """The batches that a step was taken in: by which back end, and of which sizes."""

    backend: str
    sizes: Sizes
    """The histogram divided by the number of batches: how many calls a sequence takes depends on their time."""

    @classmethod
    def since(cls, before: Sizes, host: Host) -> "Batches":
        """Return the batches of a host since it had those before."""
        new = np.subtract(host.batches(), before)
        return cls(host.card.backend, tuple((new / max(new[COUNT], 1)).tolist()))


@dataclass(frozen=True, eq=False)
class Moment:
    """A session at a step, and the output of that step; None for what is not known.

    batches: those that the step was taken in, None if they are not known.
    """

    step: int
    output: Array | None
    snapshot: bytes | None
    batches: Batches | None = None

    @cached_property
    def tensors(self) -> dict[str, Array]:
        """The known output and leaves of the state."""
        output = {} if self.output is None else {"outputs": self.output}
        return output | ({} if self.snapshot is None else dict(Snapshot.from_bytes(self.snapshot).state))

    def is_equal(self, other: "Moment") -> bool:
        """Return whether all that is known of both is equal to the bit."""
        common = self.tensors.keys() & other.tensors.keys()
        return all(self.tensors[name].tobytes() == other.tensors[name].tobytes() for name in common)


@dataclass(eq=False)
class Course:
    """The moments of the observed session of this number, from 0."""

    number: int
    moments: list[Moment] = field(default_factory=list)

    def at(self, step: int) -> Moment | None:
        """Return the first moment at a step: after it was taken, not when the state was read again."""
        return next((moment for moment in self.moments if moment.step == step), None)


@dataclass(frozen=True, eq=False)
class Plan:
    """A run: how many observed sessions, and as many strangers; how many steps; the seed of all inputs."""

    sessions: int
    steps: int
    seed: int
    card: Card

    @cached_property
    def inputs(self) -> Array:
        """The inputs of the observed sessions, [steps, sessions, input_size]."""
        return self.random_inputs(0)

    @property
    def half(self) -> int:
        """The step at which a session is forked, moved or killed."""
        return self.steps // 2

    def random_inputs(self, stream: int) -> Array:
        """Return inputs as the model expects them, [steps, sessions, input_size]; another stream has others."""
        chance, card = np.random.default_rng([self.seed, stream]), self.card
        shape = (self.steps, self.sessions, card.input_size)
        if card.ranges is None or card.vocabulary_size is not None:
            return chance.integers(0, card.vocabulary_size or 2, shape).astype(np.float32)
        low, high = card.ranges.T
        inputs = chance.uniform(low, high, shape)
        return np.where(self._are_whole, np.floor(inputs), inputs).astype(np.float32)

    def extreme_inputs(self) -> Array:
        """Return the largest tokens, or numbers at both ends of float32, [steps, sessions, input_size].

        The first session has only the largest, the second only the least number.
        """
        shape = (self.steps, self.sessions, self.card.input_size)
        if self.card.vocabulary_size is not None:
            return np.full(shape, self.card.vocabulary_size - 1, np.float32)
        chance = np.random.default_rng([self.seed, 1])
        inputs = chance.choice([LARGEST, -LARGEST, SMALLEST, -SMALLEST, 0.0], shape).astype(np.float32)
        inputs[:, 0], inputs[:, 1:2] = LARGEST, -LARGEST
        if self.card.whole is None:
            return inputs
        least, greatest = self.card.whole.T
        return np.where(self._are_whole, np.where(inputs > 0, greatest, least), inputs).astype(np.float32)

    @property
    def _are_whole(self) -> Array:
        """Whether each number of a step must be whole, bool [input_size]."""
        whole = self.card.whole
        return np.zeros(self.card.input_size, bool) if whole is None else ~np.isnan(whole[:, 0])


class Recorder:
    """Records the courses of sessions, each at its first moment when this is made."""

    def __init__(self, host: Host, sessions: Sequence[str], numbers: Sequence[int] | None = None) -> None:
        """numbers: which observed sessions they are, by default all in order."""
        self.host, self.sessions = host, list(sessions)
        self.courses = [Course(number) for number in (range(len(sessions)) if numbers is None else numbers)]
        self.read()

    def read(self, *rows: int) -> None:
        """Read the states of sessions, by default of all, without a step."""
        for row in rows or range(len(self.sessions)):
            snapshot = self.host.snapshot(self.sessions[row])
            self.courses[row].moments.append(Moment(Snapshot.from_bytes(snapshot).step, None, snapshot))

    def was_answered(self, row: int, step: int, output: Array) -> None:
        """Add the output of a session's last step. Raises ServerFault if the session is at another step."""
        moment = self.courses[row].moments[-1]
        if moment.step != step:
            raise ServerFault(f"step {step} was answered, but the session is at step {moment.step}")
        self.courses[row].moments[-1] = replace(moment, output=output)

    def step(self, rows: Sequence[int], send: Callable[[], Iterable[Array]]) -> None:
        """Step sessions by `send`, which returns their outputs, and record how they are then."""
        before = self.host.batches()
        outputs = list(send())
        batches = Batches.since(before, self.host)
        for row, output in zip(rows, outputs, strict=True):
            moments = self.courses[row].moments
            moments.append(Moment(moments[-1].step + 1, output, self.host.snapshot(self.sessions[row]), batches))

    def step_alone(self, inputs: Array, *, again: bool = False) -> None:
        """Step each session by a request of its own, unless it has taken all steps.

        inputs: [steps, sessions, input_size], by the steps that a session has taken and its number.

        again: read the state again before, which restores a session that was evicted.
        """
        for row, course in enumerate(self.courses):
            if course.moments[-1].step == len(inputs):
                continue
            if again:
                self.read(row)
            step = inputs[course.moments[-1].step, course.number]
            self.step([row], partial(together, self.host, [self.sessions[row]], step[None]))


def together(host: Host, sessions: Sequence[str], inputs: Array) -> Array:
    """Return the outputs of one step of sessions in one request; inputs: [B, input_size]. Raises ServerFault."""
    return expected(host.step(sessions, inputs), len(sessions))


def expected(answer: Stepped, count: int) -> Array:
    """Return the outputs of the first `count` sessions. Raises ServerFault if one of them was refused."""
    refused = [code for row, code in answer.refused.items() if row < count]
    if refused:
        raise ServerFault(
            f"a step of an observed session was refused, {refused[0]}: if the model overflows on these inputs, take "
            "fewer --steps or another --seed"
        )
    return answer.outputs[:count]


def pairs(courses: Sequence[Course]) -> Iterator[tuple[Course, Moment, Moment]]:
    """Yield each course with each moment and the one before."""
    for course in courses:
        for before, moment in zip(course.moments, course.moments[1:], strict=False):
            yield course, before, moment
