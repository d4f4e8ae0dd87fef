"""Steps computed by ONNX Runtime on the CPU, from `model.onnx` alone: no torch needed."""

import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from app.backends.base import Array, HostCopy, Slots, failed_rows, longer, other_rows
from app.backends.graph import StepGraph


class OnnxBackend:
    """The arena is one NumPy array per leaf, [slots, ...]; a step gathers its slots, runs the graph, and scatters."""

    kind = "onnx"
    device = "cpu"

    def __init__(self, directory: Path, capacity: int, threads: int = 1) -> None:
        """Load a checkpoint; capacity: slots that the arena has at most; threads: of one step.

        Raises ManifestError if the checkpoint cannot be loaded.
        """
        self._graph = StepGraph(directory, threads)
        self.spec = self._graph.spec
        self._next = [f"next.{name}" for name in self.spec.state]
        self._capacity = capacity
        self._clear()

    def resized(self, memory_size: int) -> "OnnxBackend":
        other = copy.copy(self)
        other.spec = self.spec.resized(memory_size)
        other._clear()
        return other

    def forced(self, force: str | None) -> "OnnxBackend":
        raise ValueError(f"an ONNX graph cannot force {force}: serve the model with --backend fused or torch")

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        return self.slots.open(self._grow, lambda slot: self.write(slot, state))

    def prepare(self, count: int, steps: int) -> None:
        """Do nothing: a step allocates what it needs."""

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        self.slots.check(slots)
        feed = {f"state.{name}": values[slots] for name, values in self._arena.items()}
        wanted = ["outputs", *self._next, *(f"trace.{name}" for name in trace)]
        outputs, *rest = self._graph.run(wanted, {"inputs": inputs, **feed})
        leaves, traces = rest[: len(self._next)], dict(zip(trace, rest[len(self._next) :], strict=True))
        failed = failed_rows(outputs, *leaves)
        stepped = other_rows(len(slots), failed) if failed else slice(None)
        numbers = np.array(slots)[stepped]

        def scatter() -> None:
            for values, next_values in zip(self._arena.values(), leaves, strict=True):
                values[numbers] = next_values[stepped]

        return self.slots.end_step(slots, scatter, failed, outputs, traces)

    def read(self, slot: int) -> dict[str, Array]:
        self.slots.check([slot])
        return {name: values[slot, ...].copy() for name, values in self._arena.items()}

    def copy(self, slot: int) -> HostCopy:
        return HostCopy(self.read(slot))

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        leaves = self._initial if state is None else state
        with self.slots.replacing(slot):
            for name, values in self._arena.items():
                values[slot] = leaves[name]

    def close(self, slot: int) -> None:
        self.slots.give_back(slot)

    def cool(self) -> None:
        self.slots.cool(self._arena.values())

    def may_fail(self, inputs: Array) -> bool:  # noqa: ARG002 - with any inputs
        return True

    def multi_step(self) -> None:
        return None

    def prompt(self) -> None:
        return None

    def _clear(self) -> None:
        """Start with an empty arena of this memory size."""
        self._initial = self._graph.first_state(self.spec)
        self._arena = {name: np.empty((0, *leaf.shape), leaf.dtype) for name, leaf in self._initial.items()}
        self.slots = Slots(self._capacity)

    def _grow(self, capacity: int) -> None:
        self._arena = {name: longer(values, capacity) for name, values in self._arena.items()}
