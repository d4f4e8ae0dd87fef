"""An arena of states that the kernel steps in place. NumPy only."""

import ctypes
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from kernels.arena import Arena, Layout
from kernels.layout import Model
from kernels.library import Library, library, why_no_library
from kernels.packing import Array, Packed, padded, row_of
from kernels.support import NoKernel, not_fused

LEAST_PER_THREAD = 4_000_000
"""Numbers to go through below which a thread more costs more than it brings: some 100 microseconds."""


class FusedStep:
    """Steps the states of sessions, each in a slot of an arena, by the kernel.

    weights: the model's, by their names, float32. memory_size: the number of memory slots of every state. threads: how
    many share the sessions of a step, whose numbers do not depend on it. kernels: the library, if not the one that was
    built with the package. Raises NoKernel.
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
        self._packed = Packed(kind, config, shapes, memory_size, self._library)
        self._packed.fill(weights)
        self._layout = Layout(state, self._packed.layer_names, self._packed.hidden)
        self.shapes = self._layout.shapes
        self.slots = memory_size or 0
        before = config.get("order") == "before-controller"
        self.used_before = ("read_weights", "write_weights") if before else ()
        """Leaves of the state before a step by which that step reads and writes."""
        self._threads = threads
        self._own = threading.local()  # each thread's scratch
        self._pool = ThreadPoolExecutor(threads - 1, "fused step") if threads > 1 else None
        self._arena = self._empty(0)

    # The arena

    def grow(self, rooms: int) -> None:
        """Make room for so many states; what the new ones hold is undefined. Raises MemoryError."""
        arena = self._empty(rooms)
        for name, values in self._arena.leaves.items():
            arena.leaves[name][: len(values)] = values
        self._arena = arena

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name."""
        return self._arena.read(slot)

    def leaf(self, name: str, slots: Sequence[int]) -> Array:
        """Return a copy of one leaf of several states: [B, ...]."""
        return self._arena.rows(name, list(slots))

    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Replace the state in a slot."""
        self._arena.write(slot, state)

    def _empty(self, rooms: int) -> Arena:
        return Arena(self._layout, rooms, self._dtype)

    # A step

    def step(self, slots: Sequence[int], inputs: Array, trace: bool = True) -> tuple[Array, "Interface"]:
        """Advance distinct slots by one step. inputs: [B, input_size].

        Returns the activated outputs [B, output_size], and what the heads were told, if there is to be a trace. Raises
        IndexError where a slot is not in the arena or named twice, ValueError where inputs are of another shape.
        """
        rows = self._checked(slots)
        self._check_shape(inputs, (len(rows), self._config["input_size"]))
        interface = Interface.empty(self._packed.model, len(rows), self._dtype) if trace else None
        outputs = self._advance(rows, inputs[None], interface)
        return outputs[0], interface or Interface(self._packed.model, None, None)

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        """Advance distinct slots by T steps in one call. inputs: [T, B, input_size], T at least 1.

        Returns the activated outputs [T, B, output_size]. Raises as `step` does.
        """
        rows = self._checked(slots)
        self._check_shape(inputs, (max(1, len(inputs)), len(rows), self._config["input_size"]))
        return self._advance(rows, inputs, None)

    def _advance(self, rows: Array, inputs: Array, interface: "Interface | None") -> Array:
        steps, batch = inputs.shape[:2]
        values = np.ascontiguousarray(self._encode(inputs), self._dtype)
        outputs = np.empty((steps, batch, self._config["output_size"]), self._dtype)
        parts = parts_of(batch, self._threads, steps * numbers_of_step(self._packed, self._layout))
        if self._pool is None or parts == 1:
            self._run(rows, values, outputs, interface)
            return outputs
        cuts = [batch * part // parts for part in range(parts + 1)]
        slices = [slice(*cut) for cut in itertools.pairwise(cuts)]
        share(self._pool, lambda part: self._run_part(slices[part], rows, values, outputs, interface), parts)
        return outputs

    def _run_part(self, part: slice, rows: Array, values: Array, outputs: Array, interface: "Interface | None") -> None:
        own = np.empty_like(outputs[:, part])
        self._run(rows[part], np.ascontiguousarray(values[:, part]), own, interface and interface.part(part))
        outputs[:, part] = own

    def _run(self, rows: Array, values: Array, outputs: Array, interface: "Interface | None") -> None:
        """Step some rows, in the thread that calls."""
        model, batch = ctypes.byref(self._packed.model), len(rows)
        needed = self._library.work(model, batch, 0)
        scratch = getattr(self._own, "scratch", None)
        if scratch is None or len(scratch) < needed:
            scratch = self._own.scratch = np.empty(needed, self._dtype)
        told = (None, None) if interface is None else interface.pointers
        pointers = (values.ctypes.data, outputs.ctypes.data, *told, scratch.ctypes.data)
        states, numbers = ctypes.byref(self._arena.states), np.arange(batch)
        self._library.step(model, states, rows.ctypes.data, numbers.ctypes.data, batch, len(values), *pointers)

    def _checked(self, slots: Sequence[int]) -> Array:
        numbers, room = list(slots), self._arena.rooms
        if not numbers or min(numbers) < 0 or max(numbers) >= room or len({*numbers}) < len(numbers):
            raise IndexError(f"slots must be distinct numbers from 0 to {room - 1}, got {numbers}")
        return np.array(numbers, np.int64)

    @staticmethod
    def _check_shape(inputs: Array, expected: tuple[int, ...]) -> None:
        if inputs.shape != expected:
            raise ValueError(f"inputs must be of shape {list(expected)}, got {list(inputs.shape)}")

    def _encode(self, inputs: Array) -> Array:
        """Return the vectors of tokens, zeros for what is none, where the model has an embedding."""
        if self._embedding is None:
            return inputs
        vectors, tokens = self._embedding, inputs[..., 0]
        known = (tokens == np.round(tokens)) & (tokens >= 0) & (tokens < len(vectors))
        encoded: Array = vectors[np.where(known, tokens, 0).astype(np.int64)] * known[..., None]
        return encoded


def numbers_of_step(packed: Packed, layout: Layout) -> int:
    """Return about how many numbers the step of one row goes through: weights once, the state some times."""
    return packed.size + 8 * layout.numbers


def parts_of(rows: int, threads: int, numbers: int) -> int:
    """Return how many threads are to share rows, of so many numbers each."""
    return max(1, min(rows, threads, rows * numbers // LEAST_PER_THREAD))


def share(pool: ThreadPoolExecutor | None, function: Callable[[int], None], parts: int) -> None:
    """Call a function for 0, 1, ... up to `parts`, the first in the thread that calls, the others beside it."""
    others = [pool.submit(function, part) for part in range(1, parts)] if pool else []
    try:
        function(0)
    finally:
        wait(others)
    for other in others:
        other.result()


def covered(kind: str, config: Mapping[str, Any], kernels: Library | None) -> Library:
    """Return the library that computes a model: `kernels`, or the one of the package. Raises NoKernel."""
    reason = not_fused(kind, config)
    if reason:
        raise NoKernel(f"there is no fused kernel for this model: {reason}; onnx and torch compute it")
    loaded = kernels or library()
    if loaded is None:
        raise NoKernel(f"there is no library of fused kernels: {why_no_library()}")
    return loaded


class Interface:
    """What the heads were told in a step, cut out of the kernel's own layout: a trace when it is asked for.

    values: [B, the kernel's interface]; allocation: [B, V, N, padded]; none where nothing was to be kept.
    """

    def __init__(self, model: Model, values: Array | None, allocation: Array | None) -> None:
        self._model, self._values, self._allocation = model, values, allocation

    @classmethod
    def empty(cls, model: Model, batch: int, dtype: Any) -> "Interface":
        """Return room for what the heads of so many rows are told."""
        allocation = np.empty((batch, model.writes, row_of(model.slots)), dtype)
        return cls(model, np.empty((batch, model.interface.outputs), dtype), allocation)

    @property
    def pointers(self) -> tuple[int, int]:
        values, allocation = self._kept
        return values.ctypes.data, allocation.ctypes.data

    def part(self, rows: slice) -> "Interface":
        """Return what some rows are told."""
        values, allocation = self._kept
        return Interface(self._model, values[rows], allocation[rows])

    @property
    def _kept(self) -> tuple[Array, Array]:
        assert self._values is not None, "the step was told to keep no trace"
        assert self._allocation is not None
        return self._values, self._allocation

    def trace(self, name: str) -> Array:
        """Return a trace other than weightings and usage, which are leaves of the state: [B, ...]."""
        m, (values, allocation) = self._model, self._kept
        reads, writes, heads = m.reads, m.writes, m.reads + m.writes
        if name == "allocation_weights":
            return allocation[:, :, : m.slots].copy()
        if name == "read_modes":
            return self._blocks(m.modes, reads, 2 * writes + 1)
        if name == "shift_weights":
            return self._blocks(m.shifts, heads, m.shift_width)
        of_dnc = {"free_gates": (0, reads), "allocation_gate": (reads, writes), "write_gate": (reads + writes, writes)}
        if name in of_dnc:
            start, count = of_dnc[name]
            return values[:, m.gates + start : m.gates + start + count].copy()
        start = m.strengths + ("key_strength", "interpolation_gate", "sharpening").index(name) * padded(heads)
        return values[:, start : start + heads].copy()

    def _blocks(self, start: int, count: int, size: int) -> Array:
        values, _ = self._kept
        blocks = values[:, start : start + count * padded(size)]
        return blocks.reshape(len(blocks), count, padded(size))[:, :, :size].copy()
