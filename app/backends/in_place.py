"""Back ends whose kernels change the states of an arena in place."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, Self

import numpy as np

from app.backends.base import Array, RowsFailed, Slots, Spec, StateCopy, are_ordinary, failed_rows

LARGEST_ORDINARY = 1e30
"""Inputs up to this cannot overflow in a model whose controller is bounded."""


class Steps(Protocol):
    """The kernels of a model, and the arena whose states they step in place."""

    @property
    def used_before(self) -> Collection[str]:
        """Leaves of the state before a step by which that step reads and writes."""

    def resized(self, state: Mapping[str, Sequence[int]], memory_size: int) -> Self:
        """Return a step of the same weights, forced as this one, with an arena of its own, of states of another size.

        state: the shapes of their leaves. Raises MemoryError.
        """

    def forced(self, gates: Mapping[str, Array]) -> Self:
        """Return a step of the same weights with an arena of its own and these forced gates."""

    def grow(self, capacity: int) -> None:
        """Give the arena more slots. Raises MemoryError."""

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot."""

    def leaf(self, name: str, slots: Sequence[int]) -> Array:
        """Return a copy of one leaf of several states: [B, ...]."""

    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Replace the state in a slot."""

    def prepare(self, count: int, steps: int) -> None:
        """Allocate what a call of this many slots and steps needs. Changes no state. Raises MemoryError."""

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str]) -> tuple[Array, dict[str, Array]]:
        """Advance distinct slots by one step; return the outputs, and the named traces, leaves as they are after it."""

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        """Advance distinct slots by several steps: [T, B, input_size] -> [T, B, output_size]."""


class InPlaceBackend(ABC):
    """A back end of such kernels: a step cannot be undone, but one that fails must change nothing.

    Where the controller is bounded, inputs of ordinary size cannot overflow from any state that the model can come to.
    Of all other rows the states are copied before the step. A row that fails without a copy, from a state that a client
    made up, is lost.
    """

    spec: Spec
    slots: Slots
    _steps: Steps
    _capacity: int
    """Slots that the arena has at most."""
    _bounded: bool
    """Whether the outputs of the controller are bounded for any inputs."""

    def resized(self, memory_size: int) -> Self:
        spec = self.spec.resized(memory_size)
        return self._with(spec, self._steps.resized(spec.state, memory_size))

    def forced(self, force: str | None) -> Self:
        spec = self.spec.forced(force)
        return self._with(spec, self._steps.forced(spec.gates))

    def _with(self, spec: Spec, steps: Steps) -> Self:
        """Return a back end of the same weights with these steps, and no open slot."""
        other = copy.copy(self)
        other.spec, other._steps, other.slots = spec, steps, Slots(self._capacity)
        return other

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        return self.slots.open(self._steps.grow, lambda slot: self.write(slot, state))

    def prepare(self, count: int, steps: int) -> None:
        self._steps.prepare(count, steps)

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        self.slots.check(slots)
        self._steps.prepare(len(slots), 1)  # an error of it leaves all slots as they were
        before = {row: self._copy(slots[row]) for row in self._risky_rows(inputs)}
        traces = {name: self._steps.leaf(name, slots) for name in trace if name in self._steps.used_before}
        try:
            outputs, of_step = self._steps.step(slots, inputs, [name for name in trace if name not in traces])
            traces |= of_step
            failed = self._failed_rows(slots, outputs, list(before))
            for row in failed:
                self._undo(slots[row], before.get(row))
        except Exception as error:
            raise self.slots.lost_batch(slots) from error
        if failed:
            raise RowsFailed(failed, outputs, traces, lost=failed - before.keys())
        return outputs, traces

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        if not self._bounded or self._risky_rows(inputs):
            return self.slots.run_by_steps(self.step, slots, inputs, self.spec.output_size)
        self.slots.check(slots)
        self._steps.prepare(len(slots), inputs.shape[1])
        try:
            outputs = self._steps.run(slots, inputs.swapaxes(0, 1)).swapaxes(0, 1)
            failed = failed_rows(outputs)
            self.slots.lose(slots[row] for row in failed)
        except Exception as error:
            raise self.slots.lost_batch(slots) from error
        if failed:
            at = {row: int(np.isfinite(outputs[row]).all(axis=1).argmin()) for row in failed}
            raise RowsFailed(failed, outputs, {}, failed, at)
        return outputs

    def may_fail(self, inputs: Array) -> bool:
        return not self._bounded or bool(self._risky_rows(inputs))

    def read(self, slot: int) -> dict[str, Array]:
        self.slots.check([slot])
        return self._steps.read(slot)

    def copy(self, slot: int) -> StateCopy:
        self.slots.check([slot])
        return self._copy(slot)

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        with self.slots.replacing(slot):
            if state is None:
                self._begin(slot)
            else:
                self._steps.write(slot, state)

    def close(self, slot: int) -> None:
        self.slots.give_back(slot)

    @abstractmethod
    def _begin(self, slot: int) -> None:
        """Set a slot to the state before the first step."""

    @abstractmethod
    def _copy(self, slot: int) -> StateCopy:
        """Copy the state in a slot, where it lies. Raises MemoryError."""

    def _risky_rows(self, inputs: Array) -> list[int]:
        """Return the rows whose step may overflow from a state that the model can reach."""
        if not self._bounded:
            return list(range(len(inputs)))
        if are_ordinary(inputs):
            return []
        ordinary = np.abs(inputs) <= LARGEST_ORDINARY
        return [] if ordinary.all() else np.flatnonzero(~ordinary.reshape(len(inputs), -1).all(axis=1)).tolist()

    def _failed_rows(self, slots: Sequence[int], outputs: Array, risky: Sequence[int]) -> set[int]:
        """Return the rows whose outputs are not finite, or, among `risky` rows, whose states are not."""
        failed = set(failed_rows(outputs))
        if risky:
            leaves = (self._steps.leaf(name, [slots[row] for row in risky]) for name in self.spec.state)
            failed.update(risky[row] for row in failed_rows(*leaves))
        return failed

    def _undo(self, slot: int, before: StateCopy | None) -> None:
        """Restore the state before a step in its slot; without a copy of it, mark the state as lost."""
        if before is None:
            self.slots.lose([slot])
        else:
            self._steps.write(slot, before.read())
