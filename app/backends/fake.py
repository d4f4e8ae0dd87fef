"""A back end whose arithmetic anyone can follow: the tests' sibling of the real ones."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from app.backends.base import Array, Slots, Spec, check_finite


class FakeBackend:
    """The state is the sum of all inputs so far, and so is the output; the trace `seen` is the input itself.

    before_step is called with the inputs of every step before anything changes; what it raises, the step raises.
    """

    kind = "fake"
    device = "cpu"

    def __init__(self, size: int = 2, capacity: int = 64, before_step: Callable[[Array], None] | None = None) -> None:
        self.spec = Spec(size, size, state={"total": [size]}, trace={"seen": [size]})
        self.steps: list[list[int]] = []
        """The slots of every step taken."""
        self._before_step = before_step
        self._totals = np.zeros((capacity, size), np.float32)
        self._slots = Slots(capacity)

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        slot = self._slots.take()
        self.write(slot, state)
        return slot

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        if self._before_step:
            self._before_step(inputs)
        with np.errstate(over="ignore"):
            outputs = self._totals[slots] + inputs
        check_finite(outputs)
        self._totals[slots] = outputs
        self.steps.append(list(slots))
        return outputs, dict.fromkeys(trace, inputs)

    def read(self, slot: int) -> dict[str, Array]:
        return {"total": self._totals[slot].copy()}

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        self._totals[slot] = 0 if state is None else state["total"]

    def close(self, slot: int) -> None:
        self._slots.give_back(slot)
