"""A back end for tests, whose outputs are easy to compute by hand."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from app.backends.base import Array, Axes, HostCopy, RowsFailed, Slots, Spec, failed_rows, longer, other_rows


class FakeBackend:
    """The state and the output are the sum of all inputs so far; the trace `seen` is the input itself.

    With a memory, each of its locations holds the first number of that sum, in the state and in the trace `memory`.
    capacity: slots that the arena has at most. before_step: called with the inputs of every step before any state
    changes; the step raises what it raises.
    """

    kind = "fake"
    device = "cpu"

    def __init__(
        self,
        size: int = 2,
        capacity: int = 64,
        before_step: Callable[[Array], None] | None = None,
        memory_size: int | None = None,
        prompt: bool = False,
    ) -> None:
        memory: Axes = {} if memory_size is None else {"memory": [None]}
        self.spec = Spec(size, size, memory_size, {"total": [size], **memory}, {"seen": [size], **memory})
        self.steps: list[list[int]] = []
        """The slots of every step, of all memory sizes."""
        self._before_step = before_step
        self._prompt = prompt
        self._capacity = capacity
        self._clear()

    @property
    def spare(self) -> int:
        return self.slots.spare

    def resized(self, memory_size: int) -> "FakeBackend":
        other = copy.copy(self)
        other.spec = self.spec.resized(memory_size)
        other._clear()
        return other

    def forced(self, force: str | None) -> "FakeBackend":
        other = copy.copy(self)
        other.spec = self.spec.forced(force)
        other._clear()
        return other

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        return self.slots.open(self._grow, lambda slot: self.write(slot, state))

    def prepare(self, count: int, steps: int) -> None:
        """Do nothing: a step allocates what it needs."""

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        self.slots.check(slots)
        assert len(set(slots)) == len(slots), f"a slot is in one run at a time, got {slots}"
        if self._before_step:
            self._before_step(inputs)
        with np.errstate(over="ignore"):
            outputs = self._totals[slots] + inputs
        failed = failed_rows(outputs)
        stepped = other_rows(len(slots), failed)
        self._totals[[slots[row] for row in stepped]] = outputs[stepped]
        self.steps.append(list(slots))
        every = {"seen": inputs, "memory": outputs[:, :1].repeat(self.spec.memory_size or 0, 1)}
        traces = {name: every[name] for name in trace}
        if failed:
            raise RowsFailed(failed, outputs, traces)
        return outputs, traces

    def read(self, slot: int) -> dict[str, Array]:
        self.slots.check([slot])
        total = self._totals[slot].copy()
        state = {"total": total, "memory": total[:1].repeat(self.spec.memory_size or 0)}
        return {name: state[name] for name in self.spec.state}

    def copy(self, slot: int) -> HostCopy:
        return HostCopy(self.read(slot))

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        with self.slots.replacing(slot):
            self._totals[slot] = 0 if state is None else state["total"]

    def close(self, slot: int) -> None:
        self.slots.give_back(slot)

    def cool(self) -> None:
        self.slots.cool([self._totals])

    def may_fail(self, inputs: Array) -> bool:  # noqa: ARG002 - a sum may overflow with any input
        return True

    def multi_step(self) -> "FakeBackend | None":
        return self.prompt()

    def prompt(self) -> "FakeBackend | None":
        return self if self._prompt else None

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        return self.slots.run_by_steps(self.step, slots, inputs, self.spec.output_size)

    def _clear(self) -> None:
        """Start with an empty arena."""
        self._totals = np.zeros((0, self.spec.input_size), np.float32)
        self.slots = Slots(self._capacity)

    def _grow(self, capacity: int) -> None:
        self._totals = longer(self._totals, capacity)
