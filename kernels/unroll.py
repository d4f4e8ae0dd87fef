"""Whole sequences with their gradients by the kernels, for trainers on a CPU."""

import ctypes
import itertools
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.arena import Arena, StateLayout
from kernels.layout import Segment
from kernels.library import Library
from kernels.packing import Array, PackedModel
from kernels.plan import SegmentPlan, cuts, parallel_for, plan_segments, thread_count
from kernels.step import covered, numbers_per_row
from kernels.support import KINDS, NoKernel, not_trained
from models.contract import MemoryModel, unroll
from models.registry import config_values, kind_of
from models.state import flatten, unflatten

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=tuple[Any, ...])

MEMORY_BUDGET = 1 << 30
"""Bytes that a sequence may keep for its gradients, by default."""


class FusedUnroll:
    """`unroll` of one model by the kernels, with gradients of weights, inputs and first state.

    The outputs and states are those of models.contract.unroll up to rounding; a row's bits depend neither on the other
    rows nor on the threads. The model's weights are read at every call: it may be trained meanwhile. Not thread-safe.

    memory_budget: bytes that one sequence may keep for its gradients; kept_bytes: those that the last one kept. Where
    its states at all steps would not fit, they are kept between segments of steps only, and each segment is computed
    again in the backward pass (gradient checkpointing). threads: the most that share the rows; None for as many as
    torch has. kernels: the library, if not the one that was built with the package.

    Raises NoKernel where the kernels cannot train the model.
    """

    path, reason = "fused", None

    def __init__(
        self,
        model: MemoryModel[Any],
        memory_budget: int = MEMORY_BUDGET,
        threads: int | None = None,
        kernels: Library | None = None,
    ) -> None:
        kind = kind_of(model)
        if kind not in KINDS:
            raise NoKernel(f"there is no fused kernel for this model: it is a {type(model).__name__}; torch trains it")
        config: Any = model.config
        values = config_values(config)
        self.library = covered(kind, values, kernels)
        self._not_trained = not_trained(values)
        self.model, self.dtype = model, self.library.dtype
        self.threads = threads or torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.threads - 1, "fused sequence") if self.threads > 1 else None
        self.memory_budget, self.kept_bytes = memory_budget, 0
        shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        self.packed = PackedModel(kind, values, shapes, model.memory_size, self.library, gradients=True)
        self._weights = [dict(model.named_parameters())[name] for name in self.packed.names]
        known = {*self.packed.names, "embedding.vectors.weight"}
        self._learned_start = any(name not in known for name in shapes)
        self._first: tuple[Any, Any] | None = None
        self._layouts: dict[int | None, StateLayout] = {}  # by memory size
        self.idle: SavedSegment | None = None  # memory of the last sequence, for the next
        self._check_model()

    def __call__(self, inputs: Tensor, state: S | None = None, lengths: Tensor | None = None) -> tuple[Tensor, S]:
        """Step the model over whole sequences.

        inputs: [T, B, input_size]; state: before the first step, the model's initial one where it is None; lengths:
        [B], how many steps of each row count: beyond them its outputs are zero and its state stays as it is. All T,
        where it is None.
        Returns outputs [T, B, output_size] before their activation, and the state after the last step.
        Raises ValueError where shapes, lengths or types are others.
        """
        if state is None:
            state = self._initial_state(_batch_of(inputs))
        self._check_model()
        self.model.check_sequence(inputs, state, lengths)
        leaves = flatten(state)
        self._check_values(inputs, leaves, lengths)
        layout = self._layout(leaves)
        steps, batch = inputs.shape[:2]
        counted = np.full(batch, steps) if lengths is None else lengths.numpy().astype(np.int64)
        encoded = self.model.encode(inputs.flatten(0, 1)).reshape(steps, batch, -1)
        sequence = SavedSequence(self, layout, counted, torch.is_grad_enabled())
        outputs, *after = FusedSequence.apply(sequence, encoded, *leaves.values(), *self._weights)  # type: ignore[no-untyped-call]
        return outputs, unflatten(dict(zip(leaves, after, strict=True)), state)

    def _initial_state(self, batch: int) -> Any:
        """Return the model's initial state: the same tensors again, unless part of it is learned or was changed."""
        if self._learned_start:
            return self.model.initial_state(batch)
        kept = (batch, *((buffer.data_ptr(), buffer._version) for buffer in self.model.buffers()))
        if self._first is None or self._first[0] != kept:
            self._first = kept, self.model.initial_state(batch)
        return self._first[1]

    def _layout(self, leaves: Mapping[str, Tensor]) -> StateLayout:
        """Return the layout of states with the memory size of these leaves."""
        size = leaves["memory"].shape[1] if "memory" in leaves else None
        if size not in self._layouts:
            state = flatten(self.model.initial_state(1, size))
            shapes = {name: leaf.shape[1:] for name, leaf in state.items()}
            self._layouts[size] = StateLayout(shapes, self.packed.layer_names, self.packed.hidden)
        return self._layouts[size]

    def _check_values(self, inputs: Tensor, leaves: Mapping[str, Tensor], lengths: Tensor | None) -> None:
        for name, tensor in {"inputs": inputs, **leaves}.items():
            if tensor.device.type != "cpu" or tensor.dtype != _torch_type(self.dtype):
                raise ValueError(f"{name} must be {self.dtype} on the CPU, got {tensor.dtype} on {tensor.device}")
        if lengths is not None and (lengths.min() < 0 or lengths.max() > len(inputs)):
            raise ValueError(f"lengths must be from 0 to {len(inputs)}, the steps of inputs, got {lengths.tolist()}")

    def _check_model(self) -> None:
        if self.model.training and self._not_trained:
            raise NoKernel(f"there is no fused kernel for training this model: {self._not_trained}; torch trains it")
        for name, weight in zip(self.packed.names, self._weights, strict=True):
            if weight.device.type != "cpu" or weight.dtype != _torch_type(self.dtype):
                raise NoKernel(
                    f"weight {name} is {weight.dtype} on {weight.device}; the kernels take {self.dtype} on cpu"
                )


class TorchUnroll:
    """`unroll` of one model by torch, called as FusedUnroll is. reason: why the kernels do not, if asked to."""

    path = "torch"

    def __init__(self, model: MemoryModel[Any], reason: str | None = None) -> None:
        self.model, self.reason = model, reason

    def __call__(self, inputs: Tensor, state: S | None = None, lengths: Tensor | None = None) -> tuple[Tensor, S]:
        first: Any = self.model.initial_state(_batch_of(inputs)) if state is None else state
        outputs, after, _ = unroll(self.model, inputs, first, lengths=lengths)
        return outputs, after


def _batch_of(inputs: Tensor) -> int:
    """Return B of inputs [T, B, input_size]; 1 for another shape, which is refused later."""
    return inputs.shape[1] if isinstance(inputs, Tensor) and inputs.dim() == 3 else 1


Unroll = FusedUnroll | TorchUnroll

UnrollPath = Literal["auto", "fused", "torch"]


def unroll_by(path: UnrollPath, model: MemoryModel[Any]) -> Unroll:
    """Return `unroll` of a model by the kernels or by torch.

    auto: by the kernels, or by torch where they cannot train it, which is logged. Raises NoKernel, for fused.
    """
    if path == "torch":
        return TorchUnroll(model)
    if path == "fused":
        return FusedUnroll(model)
    try:
        return FusedUnroll(model)
    except NoKernel as reason:
        logger.info("sequences are unrolled by torch: %s", reason)
        return TorchUnroll(model, str(reason))


class FusedSequence(torch.autograd.Function):
    """A sequence for autograd: (inputs, leaves of the first state, weights) -> (outputs, leaves of the last state)."""

    @staticmethod
    def forward(ctx: Any, sequence: "SavedSequence", inputs: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        leaves, weights = others[: len(sequence.layout.shapes)], others[len(sequence.layout.shapes) :]
        ctx.sequence = sequence
        ctx.save_for_backward(*weights)  # so that autograd refuses weights that were changed in between
        ctx.set_materialize_grads(False)  # None, not zeros, for a result without a gradient
        outputs, after = sequence.forward(inputs.detach(), leaves, weights, any(ctx.needs_input_grad))
        return outputs, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_after: Tensor | None) -> tuple[Tensor | None, ...]:
        assert ctx.saved_tensors is not None  # raises where a weight was changed in between
        _, inputs_too, *others = ctx.needs_input_grad
        leaves_too = any(others[: len(d_after)])
        d_inputs, d_leaves, d_weights = ctx.sequence.backward(d_outputs, d_after, inputs_too, leaves_too)
        return None, d_inputs, *d_leaves, *d_weights


class SavedSegment:
    """The saved activations of some steps: a state of each row before and after every step, and the workspaces."""

    def __init__(self, arena: Arena, workspace: Array) -> None:
        self.arena, self.workspace = arena, workspace


class SavedSequence:
    """One sequence, forwards and then backwards, with the activations that it saves in between.

    Where the plan has one segment, the forward pass saves it. Otherwise it saves the states between the segments, and
    the backward pass computes each segment again.
    """

    def __init__(self, unroll: FusedUnroll, layout: StateLayout, lengths: Array, gradients: bool) -> None:
        self._gradients = gradients  # within a Function, torch.is_grad_enabled() is always False
        self.layout, self._lengths, self._batch = layout, lengths, len(lengths)
        self._unroll, self._library, self._packed = unroll, unroll.library, unroll.packed
        self._dtype = unroll.dtype
        self._memory_size = layout.shapes.get("memory", (0,))[0]
        self._plan = SegmentPlan(0, 0, 0)
        self._whole: SavedSegment | None = None  # of one segment
        self._between: Arena | None = None  # the states between several

    def forward(
        self, inputs: Tensor, leaves: tuple[Tensor, ...], weights: tuple[Tensor, ...], gradients: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs [T, B, output_size], and the leaves of the last state."""
        self._inputs = inputs = inputs.contiguous()
        self._packed.model.memory_size = self._memory_size
        names = self._packed.names
        self._packed.fill({name: weight.detach().numpy() for name, weight in zip(names, weights, strict=True)})
        state = {name: leaf.detach().numpy() for name, leaf in zip(self.layout.shapes, leaves, strict=True)}
        outputs = self._empty_outputs(len(inputs))
        if not (gradients and self._gradients):
            return outputs, self._unroll_without_gradients(state, outputs)
        self._plan = self._planned(len(inputs))
        self._unroll.kept_bytes = self._plan.kept_bytes
        if len(self._plan.segments) == 1:
            return outputs, self._unroll_whole(state, outputs)
        return outputs, self._unroll_segments(state, outputs)

    def backward(
        self, d_outputs: Tensor | None, d_after: tuple[Tensor | None, ...], inputs_too: bool, leaves_too: bool
    ) -> tuple[Tensor | None, Sequence[Tensor | None], list[Tensor]]:
        """Return the gradients of the inputs, of the leaves of the first state, and of the weights.

        d_outputs, d_after: of the outputs and of the last state, None for zeros. Those of the inputs and of the leaves
        are None where they are not asked for. Raises RuntimeError in a second backward pass.
        """
        if self._whole is None and self._between is None:
            raise RuntimeError("the fused kernels keep a sequence for one backward pass; this is its second")
        self._packed.model.memory_size = self._memory_size
        self._packed.clear_gradients()
        d_inputs = torch.zeros_like(self._inputs) if inputs_too else None
        d_state = self._arena(self._batch)
        known = zip(self.layout.shapes, d_after, strict=True)
        d_state.write_rows(0, {name: d.numpy() for name, d in known if d is not None})
        if d_outputs is None:
            d_outputs = self._empty_outputs(len(self._inputs)).zero_()
        d_outputs = d_outputs.contiguous()
        saved = self._whole or self._empty_segment()
        for number, steps in reversed(list(enumerate(self._plan.segments))):
            if self._between is not None:
                self._recompute(saved, number, steps)
            self._segment_backward(saved, steps, d_state, d_outputs, d_inputs)
        self._whole = self._between = None
        self._unroll.idle = saved
        d_weights = self._packed.gradients()
        d_leaves = self._state(d_state, 0) if leaves_too else [None] * len(d_after)
        return d_inputs, d_leaves, [torch.from_numpy(d_weights[name]) for name in self._packed.names]

    # The ways forward

    def _unroll_without_gradients(self, state: Mapping[str, Array], outputs: Tensor) -> list[Tensor]:
        self._unroll.kept_bytes = 0
        arena = self._arena(self._batch)
        arena.write_rows(0, state)
        self._unroll_in_place(arena, 0, range(len(outputs)), outputs)
        return self._state(arena, 0)

    def _unroll_whole(self, state: Mapping[str, Array], outputs: Tensor) -> list[Tensor]:
        self._whole = self._empty_segment()
        self._whole.arena.write_rows(0, state)
        self._unroll_saved(self._whole, range(len(outputs)), outputs)
        return self._state(self._whole.arena, len(outputs) * self._batch)

    def _unroll_segments(self, state: Mapping[str, Array], outputs: Tensor) -> list[Tensor]:
        segments = self._plan.segments
        self._between = self._arena((len(segments) + 1) * self._batch)
        self._between.write_rows(0, state)
        for number, steps in enumerate(segments):
            self._unroll_between(self._between, number, steps, outputs)
        return self._state(self._between, len(segments) * self._batch)

    def _recompute(self, saved: SavedSegment, number: int, steps: range) -> None:
        """Compute a segment again from the states before it."""
        assert self._between is not None
        rows = slice(number * self._batch, (number + 1) * self._batch)
        for name, leaf in saved.arena.leaves.items():
            leaf[: self._batch] = self._between.leaves[name][rows]
        self._unroll_saved(saved, steps, self._empty_outputs(len(steps)))

    # Memory

    def _arena(self, capacity: int) -> Arena:
        return Arena(self.layout, capacity, self._dtype)

    def _empty_outputs(self, steps: int) -> Tensor:
        return torch.empty(steps, self._batch, self._packed.model.output_size, dtype=self._inputs.dtype)

    def _workspace_size(self, keep: bool) -> int:
        """Return the numbers in the workspace of a step of all rows."""
        return int(self._library.workspace_size(ctypes.byref(self._packed.model), self._batch, keep))

    def _planned(self, steps: int) -> SegmentPlan:
        state_bytes = self._dtype.itemsize * self._batch * self.layout.numbers
        workspace_bytes = self._dtype.itemsize * self._workspace_size(keep=True)
        return plan_segments(steps, state_bytes, workspace_bytes, self._unroll.memory_budget)

    def _empty_segment(self) -> SavedSegment:
        """Return memory for the longest segment: that of the last sequence, where it fits."""
        capacity, size = (self._plan.length + 1) * self._batch, self._plan.length * self._workspace_size(keep=True)
        idle = self._unroll.idle
        if (
            idle
            and idle.arena.layout is self.layout
            and idle.arena.capacity >= capacity
            and len(idle.workspace) >= size
        ):
            self._unroll.idle = None
            return idle
        return SavedSegment(self._arena(capacity), np.empty(size, self._dtype))

    def _state(self, arena: Arena, start: int) -> list[Tensor]:
        rows = slice(start, start + self._batch)
        return [torch.from_numpy(arena.rows(name, rows)) for name in self.layout.shapes]

    # The kernels

    def _unroll_saved(self, saved: SavedSegment, steps: range, outputs: Tensor) -> None:
        """Step from the first states of a segment, and save all. outputs: of these steps."""
        self._forward(self._saved_segments(saved, steps), saved.arena, True, steps, outputs)

    def _unroll_between(self, between: Arena, number: int, steps: range, outputs: Tensor) -> None:
        """Step from the states before a segment to those after it. outputs: of all steps."""
        base, first, rest = number * self._batch, steps[:1], steps[1:]
        segments = self._segments(self._workspace_per_thread(), first, base=base, stride=self._batch)
        self._forward(segments, between, False, first, outputs[first.start : first.stop])
        if rest:
            self._unroll_in_place(between, base + self._batch, rest, outputs[rest.start : rest.stop])

    def _unroll_in_place(self, arena: Arena, base: int, steps: range, outputs: Tensor) -> None:
        segments = self._segments(self._workspace_per_thread(), steps, base=base)
        self._forward(segments, arena, False, steps, outputs)

    def _forward(self, segments: list[Segment], arena: Arena, keep: bool, steps: range, outputs: Tensor) -> None:
        model, states = ctypes.byref(self._packed.model), ctypes.byref(arena.states)
        inputs = self._inputs[steps.start : steps.stop]

        def forward(number: int) -> None:
            segment = ctypes.byref(segments[number])
            self._library.unroll(model, states, segment, keep, inputs.data_ptr(), outputs.data_ptr())

        parallel_for(self._unroll.pool, forward, len(segments))

    def _segment_backward(
        self, saved: SavedSegment, steps: range, d_state: Arena, d_outputs: Tensor, d_inputs: Tensor | None
    ) -> None:
        """Go back through a segment; then add its gradients of the weights. d_outputs, d_inputs: of all steps."""
        segments = self._saved_segments(saved, steps)
        model, states, d_states = (ctypes.byref(s) for s in (self._packed.model, saved.arena.states, d_state.states))
        d_out = d_outputs[steps.start : steps.stop].data_ptr()
        d_in = None if d_inputs is None else d_inputs[steps.start : steps.stop].data_ptr()
        size = self._library.scratch_size(model, self._batch)
        scratch = [np.empty(size, self._dtype) for _ in segments]

        def backward(number: int) -> None:
            own = scratch[number].ctypes.data
            self._library.backward(model, states, d_states, ctypes.byref(segments[number]), d_out, d_in, own)

        def weight_gradients(number: int) -> None:
            self._library.weight_gradients(model, ctypes.byref(segments[number]), number, len(segments))

        parallel_for(self._unroll.pool, backward, len(segments))
        parallel_for(self._unroll.pool, weight_gradients, len(segments))

    def _threads(self) -> int:
        numbers = len(self._inputs) * numbers_per_row(self._packed, self.layout)
        return thread_count(self._batch, self._unroll.threads, numbers)

    def _workspace_per_thread(self) -> list[Array]:
        """Return a workspace for each thread, which every step uses again."""
        return list(np.empty((self._threads(), self._workspace_size(keep=False)), self._dtype))

    def _saved_segments(self, saved: SavedSegment, steps: range) -> list[Segment]:
        """Return each thread's part of a segment that is saved. All share its workspaces, each by its own rows."""
        shared, size = [saved.workspace] * self._threads(), self._workspace_size(keep=True)
        return self._segments(shared, steps, stride=self._batch, workspace_stride=size)

    def _segments(
        self, workspaces: list[Array], steps: range, base: int = 0, stride: int = 0, workspace_stride: int = 0
    ) -> list[Segment]:
        """Return each thread's part of some steps: its rows, and its workspace."""
        left = np.minimum(np.maximum(self._lengths - steps.start, 0), len(steps))
        lists = np.empty((3, self._batch), np.int64)
        segments = []
        for workspace, (first, last) in zip(
            workspaces, itertools.pairwise(cuts(self._batch, len(workspaces))), strict=True
        ):
            segment = Segment(self._batch, first, last - first, len(steps), base, stride, workspace_stride)
            segment.lengths, segment.lists = left.ctypes.data, lists.ctypes.data
            segment.workspace = workspace.ctypes.data
            segment.kept = (left, lists, workspace)  # for as long as there are pointers to them
            segments.append(segment)
        return segments


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.float64 if dtype.itemsize == 8 else torch.float32
