"""An arena of states that the kernels step in place. NumPy only."""

import copy
import ctypes
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from kernels.arena import Arena, StateLayout
from kernels.layout import CALLS, KernelCall, StepCall
from kernels.library import Library, library, why_no_library
from kernels.packing import Array, PackedModel
from kernels.plan import cuts, thread_count
from kernels.support import NoKernel, not_fused
from kernels.team import Team
from kernels.traces import HeadTrace, TraceLayout

STEP = CALLS.index("step")


class FusedStep:
    """Steps the states of sessions, each in a slot of an arena, by the kernels.

    weights: the model's, by their names, float32. memory_size: the number of memory locations of every state. threads:
    the most that share the sessions of a step; results do not depend on it. kernels: the library, if not the one that
    was built with the package. Raises NoKernel.
    """

    def __init__(
        self,
        kind: str,
        config: Mapping[str, Any],
        weights: Mapping[str, Array],
        state: Mapping[str, Sequence[int]],
        memory_size: int | None,
        threads: int = 1,
        kernels: Library | None = None,
    ) -> None:
        self._library = covered(kind, config, kernels)
        self._config, self._dtype = config, self._library.dtype
        self._embedding = weights.get("embedding.vectors.weight")
        shapes = {name: weight.shape for name, weight in weights.items()}
        before = config.get("order") == "before-controller"
        self.used_before = ("read_weights", "write_weights") if before else ()
        """Leaves of the state before a step by which that step reads and writes."""
        packed = PackedModel(kind, config, shapes, memory_size, self._library)
        packed.fill(weights)
        self._begin(packed, StateLayout(state, packed.layer_names, packed.hidden), threads)

    def resized(self, state: Mapping[str, Sequence[int]], memory_size: int) -> "FusedStep":
        """Return a step of the same weights with an arena of its own, of states with another number of locations."""
        packed, other = self._packed.resized(memory_size), copy.copy(self)
        other._begin(packed, StateLayout(state, packed.layer_names, packed.hidden), self._team.threads)
        return other

    def forced(self, gates: Mapping[str, Array]) -> "FusedStep":
        """Return a step of the same weights with an arena of its own; gates: as in `PackedModel.forced`."""
        other = copy.copy(self)
        other._begin(self._packed.forced(gates), self._layout, self._team.threads)
        return other

    def _begin(self, packed: PackedModel, layout: StateLayout, threads: int) -> None:
        """Set everything that a step of the same weights has of its own."""
        self._packed, self._layout = packed, layout
        self.memory_size, self.shapes = packed.model.memory_size, layout.shapes
        self._traces = TraceLayout(packed.model, self._dtype)
        self._no_trace = HeadTrace(self._traces, {})
        self._team = Team(self._library, threads)
        self._workspaces: list[Array] = []  # of each part of a step
        self._prepared = 0  # slots that they suffice for
        self._numbers = np.arange(0)
        self._arena = self._empty(0)

    # The arena

    def grow(self, capacity: int) -> None:
        """Give the arena more slots; the states in the new ones are undefined. Raises MemoryError."""
        arena, numbers = self._empty(capacity), np.arange(capacity)
        for name, values in self._arena.leaves.items():
            arena.leaves[name][: len(values)] = values
        self._arena, self._numbers = arena, numbers

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name."""
        return self._arena.read(slot)

    def leaf(self, name: str, slots: Sequence[int]) -> Array:
        """Return a copy of one leaf of several states: [B, ...]."""
        return self._arena.rows(name, list(slots))

    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Replace the state in a slot."""
        self._arena.write(slot, state)

    @property
    def leaves(self) -> list[Array]:
        """The leaves of all states, padded: [slots, ...] each."""
        return list(self._arena.leaves.values())

    def _empty(self, capacity: int) -> Arena:
        return Arena(self._layout, capacity, self._dtype)

    # A step

    def prepare(self, count: int, steps: int = 1) -> None:  # noqa: ARG002 - any number of steps needs the same
        """Allocate the workspaces of steps of `count` slots. Changes no state. Raises MemoryError."""
        if count <= self._prepared:
            return
        shared = [-(-count // 2)] * (min(count, self._team.threads) - 1)  # the most of each of two or more parts
        self._workspaces = [self._workspace(rows) for rows in (count, *shared)]
        self._prepared = count

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        """Advance distinct slots by one step. inputs: [B, input_size]; trace: names of traces.

        Returns the activated outputs [B, output_size], and the named traces; a leaf is as it is after the step.
        Raises IndexError where a slot is not in the arena or named twice, ValueError where inputs are of another shape.
        """
        rows = self._checked(slots)
        self._check_shape(inputs, (len(rows), self._config["input_size"]))
        of_heads = [name for name in trace if name not in self.shapes]
        heads = self._traces.allocate(len(rows), of_heads) if of_heads else self._no_trace
        outputs = self._advance(rows, inputs[None], heads)[0]
        return outputs, {name: heads.trace(name) if name in of_heads else self.leaf(name, slots) for name in trace}

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        """Advance distinct slots by T steps in one call. inputs: [T, B, input_size], T at least 1.

        Returns the activated outputs [T, B, output_size]. Raises as `step` does.
        """
        rows = self._checked(slots)
        self._check_shape(inputs, (max(1, len(inputs)), len(rows), self._config["input_size"]))
        return self._advance(rows, inputs, self._no_trace)

    def _advance(self, rows: Array, inputs: Array, heads: HeadTrace) -> Array:
        steps, batch = inputs.shape[:2]
        self.prepare(batch)
        values = np.ascontiguousarray(self._encode(inputs), self._dtype)
        outputs = np.empty((steps, batch, self._config["output_size"]), self._dtype)
        parts = thread_count(batch, self._team.threads, steps * numbers_per_row(self._packed, self._layout))
        if parts == 1:
            self._run(rows, values, outputs, heads)
        else:
            self._share([slice(*ends) for ends in itertools.pairwise(cuts(batch, parts))], rows, values, outputs, heads)
        return outputs

    def _run(self, rows: Array, values: Array, outputs: Array, heads: HeadTrace) -> None:
        """Step some rows in the calling thread."""
        call = self._call(0, rows, values, outputs, heads)
        model, states = ctypes.byref(self._packed.model), ctypes.byref(self._arena.states)
        self._library.step(model, states, ctypes.byref(call))

    def _share(self, parts: list[slice], rows: Array, values: Array, outputs: Array, heads: HeadTrace) -> None:
        """Step some rows by all threads, each a part of them."""
        own = [np.empty_like(outputs[:, part]) for part in parts]
        inputs = [np.ascontiguousarray(values[:, part]) for part in parts]
        calls = [
            self._call(number, rows[part], inputs[number], own[number], heads.part(part))
            for number, part in enumerate(parts)
        ]
        model, states = ctypes.addressof(self._packed.model), ctypes.addressof(self._arena.states)
        self._team.make([KernelCall(STEP, model, states, step=ctypes.addressof(call)) for call in calls])
        for part, values_of_part in zip(parts, own, strict=True):
            outputs[:, part] = values_of_part

    def _call(self, part: int, rows: Array, values: Array, outputs: Array, heads: HeadTrace) -> StepCall:
        """Return the call that steps some rows. part: its number, no two at once with the same."""
        batch, workspace = len(rows), self._workspaces[part]
        arrays = (rows.ctypes.data, self._numbers.ctypes.data, values.ctypes.data, outputs.ctypes.data)
        traced = heads.structure
        call = StepCall(batch, len(values), *arrays, ctypes.addressof(traced) if traced else None)
        call.workspace, call.kept = workspace.ctypes.data, (traced, workspace)  # for as long as it points to them
        return call

    def _workspace(self, rows: int) -> Array:
        """Return a workspace of steps of this many rows."""
        return np.empty(self._library.workspace_size(ctypes.byref(self._packed.model), rows, 0), self._dtype)

    def _checked(self, slots: Sequence[int]) -> Array:
        numbers, capacity = list(slots), self._arena.capacity
        if not numbers or min(numbers) < 0 or max(numbers) >= capacity or len({*numbers}) < len(numbers):
            raise IndexError(f"slots must be distinct numbers from 0 to {capacity - 1}, got {numbers}")
        return np.array(numbers, np.int64)

    @staticmethod
    def _check_shape(inputs: Array, expected: tuple[int, ...]) -> None:
        if inputs.shape != expected:
            raise ValueError(f"inputs must be of shape {list(expected)}, got {list(inputs.shape)}")

    def _encode(self, inputs: Array) -> Array:
        """Return the vectors of tokens, zeros for those out of range, where the model has an embedding."""
        if self._embedding is None:
            return inputs
        vectors, tokens = self._embedding, inputs[..., 0]
        known = (tokens == np.round(tokens)) & (tokens >= 0) & (tokens < len(vectors))
        encoded: Array = vectors[np.where(known, tokens, 0).astype(np.int64)] * known[..., None]
        return encoded


def numbers_per_row(packed: PackedModel, layout: StateLayout) -> int:
    """Return about how many numbers the step of one row goes through: weights once, the state some times."""
    return packed.size + 8 * layout.numbers


def covered(kind: str, config: Mapping[str, Any], kernels: Library | None) -> Library:
    """Return the library that computes a model: `kernels`, or the one of the package. Raises NoKernel."""
    reason = not_fused(kind, config)
    if reason:
        raise NoKernel(f"there is no fused kernel for this model: {reason}; onnx and torch compute it")
    loaded = kernels or library()
    if loaded is None:
        raise NoKernel(f"there is no library of fused kernels: {why_no_library()}")
    return loaded
