"""Sequences forwards and then backwards by the kernels, with the activations that they save in between. NumPy only."""

import ctypes
import itertools
from collections.abc import Mapping

import numpy as np

from kernels.arena import Arena, StateLayout
from kernels.layout import CALLS, KernelCall, Segment
from kernels.packing import Array, PackedModel
from kernels.plan import SegmentPlan, cuts, plan_segments, thread_count
from kernels.step import numbers_per_row
from kernels.team import Team

UNROLL, BACKWARD, WEIGHT_GRADIENTS = (CALLS.index(name) for name in ("unroll", "backward", "weight-gradients"))


class SegmentMemory:
    """Memory for the steps of a segment and for their gradients, which one segment after the other uses.

    arena: a state of each row before and after every step; workspaces: of the steps; d_state: the gradient of a state
    of each row; scratch: of each thread; rows: the lengths, `taken` and the lists of `segment` in C, [5, batch]; first:
    the state in the first rows.
    """

    def __init__(self, layout: StateLayout, batch: int, steps: int, workspace_size: int, scratch: Array) -> None:
        self.layout, self.batch, self.steps = layout, batch, steps
        self.arena, self.d_state = (Arena(layout, states * batch, scratch.dtype) for states in (steps + 1, 1))
        self.workspaces, self.scratch = np.empty(steps * workspace_size, scratch.dtype), scratch
        self.scratch_at = [own.ctypes.data for own in scratch]
        self.rows = np.empty((5, batch), np.int64)
        self.first: Mapping[str, Array] | None = None
        self.parts: dict[int, list[Segment]] = {}  # those of the threads, by the number of steps

    def fits(self, layout: StateLayout, batch: int, steps: int) -> bool:
        return self.layout is layout and self.batch == batch and self.steps >= steps

    def begin(self, state: Mapping[str, Array]) -> None:
        """Write the state before the first step, unless it is there."""
        if self.first is not state:
            self.arena.write_rows(0, state)
            self.first = state


class Sequences:
    """The sequences of one model: how they are divided, and the memory that each leaves to the next.

    memory_budget: bytes that one sequence may keep for its gradients; kept_bytes: those that the last one kept;
    threads: the most that share the rows.
    """

    def __init__(self, packed: PackedModel, memory_budget: int, threads: int) -> None:
        self.packed, self.library, self.team = packed, packed.library, Team(packed.library, threads)
        self.memory_budget, self.kept_bytes = memory_budget, 0
        self._idle: SegmentMemory | None = None
        self._sizes: dict[tuple[int, int, bool], int] = {}

    def workspace_size(self, batch: int, keep: bool) -> int:
        """Return the numbers in the workspace of a step of all rows."""
        model = self.packed.model
        key = model.memory_size, batch, keep
        if key not in self._sizes:
            self._sizes[key] = self.library.workspace_size(ctypes.byref(model), batch, keep)
        return self._sizes[key]

    def plan(self, layout: StateLayout, batch: int, steps: int) -> SegmentPlan:
        bytes_of_rows = self.library.dtype.itemsize * batch
        workspace_bytes = self.library.dtype.itemsize * self.workspace_size(batch, keep=True)
        return plan_segments(steps, bytes_of_rows * layout.numbers, workspace_bytes, self.memory_budget)

    def thread_count(self, layout: StateLayout, batch: int, steps: int) -> int:
        return thread_count(batch, self.team.threads, steps * numbers_per_row(self.packed, layout))

    def take_memory(self, layout: StateLayout, batch: int, steps: int) -> SegmentMemory:
        """Return memory for segments of at most this many steps: that of the last sequence, if it fits."""
        idle, self._idle = self._idle, None
        if idle is not None and idle.fits(layout, batch, steps):
            return idle
        size = self.library.scratch_size(ctypes.byref(self.packed.model), batch)
        scratch = np.empty((self.thread_count(layout, batch, steps), size), self.library.dtype)
        return SegmentMemory(layout, batch, steps, self.workspace_size(batch, keep=True), scratch)

    def give_back(self, memory: SegmentMemory) -> None:
        self._idle = memory


class Sequence:
    """One sequence, forwards and then backwards, by the weights that are packed at that time.

    If the plan has one segment, the forward pass saves it. Otherwise it saves the states between the segments, and the
    backward pass computes each segment again. Inputs, outputs and their gradients, [T, B, ...], are given by address.

    lengths: [B], how many steps of each row count; None for all.
    """

    def __init__(self, of: Sequences, layout: StateLayout, steps: int, batch: int, lengths: Array | None) -> None:
        self._of, self.layout, self._steps, self._batch, self._lengths = of, layout, steps, batch, lengths
        self._packed, self._library, self._dtype = of.packed, of.library, of.library.dtype
        self._memory_size = layout.shapes.get("memory", (0,))[0]
        self._plan = SegmentPlan(0, 0, 0)
        self._memory: SegmentMemory | None = None  # with the activations, if there is one segment
        self._between: Arena | None = None  # the states between several

    def forward(self, state: Mapping[str, Array], inputs: int, outputs: int) -> None:
        """Step from a state without saving anything for gradients; `last_state` is the state after it."""
        self._packed.resize(self._memory_size)
        self._of.kept_bytes = 0
        self._last = Arena(self.layout, self._batch, self._dtype), 0
        self._last[0].write_rows(0, state)
        self._step_in_place(self._last[0], 0, range(self._steps), inputs, outputs)

    def forward_saved(self, state: Mapping[str, Array], inputs: int, outputs: int) -> None:
        """Step from a state, and save what `backward` needs."""
        self._packed.resize(self._memory_size)
        self._plan = self._of.plan(self.layout, self._batch, self._steps)
        self._of.kept_bytes = self._plan.kept_bytes
        if len(self._plan.segments) == 1:
            self._memory = self._of.take_memory(self.layout, self._batch, self._steps)
            self._memory.begin(state)
            self._step_saved(self._memory, range(self._steps), inputs, outputs)
            self._last = self._memory.arena, self._steps * self._batch
            return
        segments = self._plan.segments
        self._between = Arena(self.layout, (len(segments) + 1) * self._batch, self._dtype)
        self._between.write_rows(0, state)
        for number, steps in enumerate(segments):
            self._step_between(self._between, number, steps, inputs, outputs)
        self._last = self._between, len(segments) * self._batch

    def last_state(self) -> dict[str, Array]:
        """Return a copy of the leaves of the state after the last step."""
        return self._state(*self._last)

    def backward(self, inputs: int, d_outputs: int, d_inputs: int | None, d_after: Mapping[str, Array]) -> None:
        """Leave the gradients of the weights in the packed model, and add those of the inputs to d_inputs, if given.

        d_after: of leaves of the last state. Raises RuntimeError in a second backward pass.
        """
        if self._memory is None and self._between is None:
            raise RuntimeError("the fused kernels keep a sequence for one backward pass; this is its second")
        self._packed.resize(self._memory_size)
        self._packed.clear_gradients()
        memory = self._memory or self._of.take_memory(self.layout, self._batch, self._plan.length)
        memory.d_state.clear()
        memory.d_state.write_rows(0, d_after)
        for number, steps in reversed(list(enumerate(self._plan.segments))):
            if self._between is not None:
                self._recompute(memory, self._between, number, steps, inputs)
            self._segment_backward(memory, steps, d_outputs, d_inputs)
        self._memory, self._between, self._last = None, None, (memory.d_state, 0)
        self._of.give_back(memory)

    def d_first_state(self) -> dict[str, Array]:
        """Return a copy of the gradients of the leaves of the state before the first step, after `backward`."""
        return self._state(*self._last)

    def _state(self, arena: Arena, start: int) -> dict[str, Array]:
        rows = slice(start, start + self._batch)
        return {name: arena.rows(name, rows) for name in self.layout.shapes}

    # The ways forward

    def _step_saved(self, memory: SegmentMemory, steps: range, inputs: int, outputs: int) -> None:
        """Step from the first states of a segment, and save all. outputs: of these steps."""
        self._step(self._saved_parts(memory, steps), memory.arena, True, steps, inputs, outputs)

    def _step_between(self, between: Arena, number: int, steps: range, inputs: int, outputs: int) -> None:
        """Step from the states before a segment to those after it."""
        base, first, rest = number * self._batch, steps[:1], steps[1:]
        parts = self._new_parts(first, base=base, stride=self._batch)
        self._step(parts, between, False, first, inputs, outputs + self._offset(first, "output_size"))
        if rest:
            self._step_in_place(between, base + self._batch, rest, inputs, outputs)

    def _step_in_place(self, arena: Arena, base: int, steps: range, inputs: int, outputs: int) -> None:
        parts = self._new_parts(steps, base=base)
        self._step(parts, arena, False, steps, inputs, outputs + self._offset(steps, "output_size"))

    def _recompute(self, memory: SegmentMemory, between: Arena, number: int, steps: range, inputs: int) -> None:
        """Compute a segment again from the states before it."""
        rows = slice(number * self._batch, (number + 1) * self._batch)
        memory.first = None
        for name, leaf in memory.arena.leaves.items():
            leaf[: self._batch] = between.leaves[name][rows]
        size = len(steps) * self._batch * self._packed.model.output_size
        outputs = np.empty(size, self._dtype)
        self._step_saved(memory, steps, inputs, outputs.ctypes.data)

    # The kernels

    def _step(self, parts: list[Segment], arena: Arena, keep: bool, steps: range, inputs: int, outputs: int) -> None:
        """Step a segment. inputs: of all steps; outputs: of these."""
        states, own_inputs = ctypes.addressof(arena.states), inputs + self._offset(steps, "input_size")
        call = {"s": states, "keep": keep, "inputs": own_inputs, "outputs": outputs}
        self._of.team.make([self._call(UNROLL, part, **call) for part in parts])

    def _segment_backward(self, memory: SegmentMemory, steps: range, d_outputs: int, d_inputs: int | None) -> None:
        """Go back through a segment; then add its gradients of the weights. d_outputs, d_inputs: of all steps."""
        parts = self._saved_parts(memory, steps)
        states, d_states = ctypes.addressof(memory.arena.states), ctypes.addressof(memory.d_state.states)
        d_out = d_outputs + self._offset(steps, "output_size")
        d_in = None if d_inputs is None else d_inputs + self._offset(steps, "input_size")
        call = {"s": states, "g": d_states, "d_outputs": d_out, "d_inputs": d_in}
        with_scratch = zip(parts, memory.scratch_at, strict=False)
        self._of.team.make([self._call(BACKWARD, part, scratch=scratch, **call) for part, scratch in with_scratch])
        each = enumerate(parts)
        self._of.team.make([self._call(WEIGHT_GRADIENTS, over, part=part, parts=len(parts)) for part, over in each])

    def _call(self, kernel: int, over: Segment, **arguments: int | None) -> KernelCall:
        return KernelCall(kernel, ctypes.addressof(self._packed.model), over=ctypes.addressof(over), **arguments)

    def _offset(self, steps: range, size: str) -> int:
        """Return the bytes of [T, B, size] before some steps. size: a field of the model."""
        numbers: int = steps.start * self._batch * getattr(self._packed.model, size)
        return numbers * self._dtype.itemsize

    def _saved_parts(self, memory: SegmentMemory, steps: range) -> list[Segment]:
        """Return each thread's part of a segment that is saved. All share its workspaces, each by its own rows."""
        if len(steps) not in memory.parts:
            size = self._of.workspace_size(self._batch, keep=True)
            workspaces = [memory.workspaces] * self._threads(steps)
            strides = {"stride": self._batch, "workspace_stride": size}
            memory.parts[len(steps)] = self._parts(workspaces, memory.rows, len(steps), **strides)
        self._count_lengths(memory.rows, steps, memory.parts[len(steps)])
        return memory.parts[len(steps)]

    def _new_parts(self, steps: range, base: int, stride: int = 0) -> list[Segment]:
        """Return each thread's part of steps that are not saved, with a workspace that every step uses again."""
        size = self._of.workspace_size(self._batch, keep=False)
        workspaces = list(np.empty((self._threads(steps), size), self._dtype))
        rows = np.empty((5, self._batch), np.int64)
        parts = self._parts(workspaces, rows, len(steps), base=base, stride=stride)
        self._count_lengths(rows, steps, parts)
        return parts

    def _threads(self, steps: range) -> int:
        return self._of.thread_count(self.layout, self._batch, len(steps))

    def _count_lengths(self, rows: Array, steps: range, parts: list[Segment]) -> None:
        """Write how many of some steps each row takes, and in each part the same, the longest first."""
        lengths, taken = rows[0], rows[1]
        if self._lengths is None:
            rows[:2] = len(steps)
            return
        np.clip(self._lengths - steps.start, 0, len(steps), out=lengths)
        for part in parts:
            own = slice(part.first, part.first + part.batch)
            taken[own] = np.sort(lengths[own])[::-1]

    def _parts(
        self,
        workspaces: list[Array],
        rows: Array,
        steps: int,
        base: int = 0,
        stride: int = 0,
        workspace_stride: int = 0,
    ) -> list[Segment]:
        parts = []
        ends = itertools.pairwise(cuts(self._batch, len(workspaces)))
        for workspace, (first, last) in zip(workspaces, ends, strict=True):
            part = Segment(self._batch, first, last - first, steps, base, stride, workspace_stride)
            part.lengths, part.taken, part.lists = (rows[first:].ctypes.data for first in range(3))
            part.workspace = workspace.ctypes.data
            part.kept = (rows, workspace)  # for as long as there are pointers to them
            parts.append(part)
        return parts
