"""Whole sequences with their gradients by the kernels: what a trainer unrolls models with, on a CPU."""

import ctypes
import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.arena import Arena, Layout
from kernels.layout import Walk
from kernels.library import Library
from kernels.packing import Array, Packed
from kernels.step import covered, numbers_of_step, parts_of, share
from kernels.support import NoKernel, not_trained
from models.contract import MemoryModel, unroll
from models.registry import config_values, kind_of
from models.state import flatten, unflatten

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=tuple[Any, ...])

MEMORY_BUDGET = 1 << 30
"""Bytes that a sequence may keep for its gradients, if nothing else is asked for."""


class FusedUnroll:
    """`unroll` of one model by the kernels, with gradients of weights, inputs and first state.

    The outputs and states are those of models.contract.unroll up to rounding; a row's bits do not depend on the others,
    nor do any on the threads. The model's weights are read at every call: it may be trained meanwhile.

    memory_budget: bytes that one sequence may keep for its gradients; kept_bytes: what the last one kept. Where its
    states at all steps would not fit, only some are kept, and the steps between them are computed again on the way
    back. threads: how many share the rows; None for as many as torch has. kernels: the library, if not the one that was
    built with the package.

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
        if kind is None:
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
        self.packed = Packed(kind, values, shapes, model.memory_size, self.library, gradients=True)
        self._weights = [dict(model.named_parameters())[name] for name in self.packed.names]
        known = {*self.packed.names, "embedding.vectors.weight"}
        self._learned_start = any(name not in known for name in shapes)
        self._first: tuple[Any, Any] | None = None
        self._layouts: dict[int | None, Layout] = {}  # by memory size
        self.idle: list[Tape] = []
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
        run = Run(self, layout, counted, torch.is_grad_enabled())
        outputs, *after = FusedSequence.apply(run, encoded, *leaves.values(), *self._weights)  # type: ignore[no-untyped-call]
        return outputs, unflatten(dict(zip(leaves, after, strict=True)), state)

    def _initial_state(self, batch: int) -> Any:
        """Return that of the model: the same tensors again where nothing of it is learned or was changed."""
        if self._learned_start:
            return self.model.initial_state(batch)
        kept = (batch, *((buffer.data_ptr(), buffer._version) for buffer in self.model.buffers()))
        if self._first is None or self._first[0] != kept:
            self._first = kept, self.model.initial_state(batch)
        return self._first[1]

    def _layout(self, leaves: Mapping[str, Tensor]) -> Layout:
        """Return that of the model's states with as many memory slots as these have."""
        slots = leaves["memory"].shape[1] if "memory" in leaves else None
        if slots not in self._layouts:
            state = flatten(self.model.initial_state(1, slots))
            shapes = {name: leaf.shape[1:] for name, leaf in state.items()}
            self._layouts[slots] = Layout(shapes, self.packed.layer_names, self.packed.hidden)
        return self._layouts[slots]

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
    """`unroll` of one model by torch, as FusedUnroll is called. reason: why not by the kernels, if they were wanted."""

    path = "torch"

    def __init__(self, model: MemoryModel[Any], reason: str | None = None) -> None:
        self.model, self.reason = model, reason

    def __call__(self, inputs: Tensor, state: S | None = None, lengths: Tensor | None = None) -> tuple[Tensor, S]:
        first: Any = self.model.initial_state(_batch_of(inputs)) if state is None else state
        outputs, after, _ = unroll(self.model, inputs, first, lengths=lengths)
        return outputs, after


def _batch_of(inputs: Tensor) -> int:
    """Return B of inputs [T, B, input_size]; 1 if they are of another shape, which is refused after."""
    return inputs.shape[1] if isinstance(inputs, Tensor) and inputs.dim() == 3 else 1


Unroll = FusedUnroll | TorchUnroll

UnrollPath = Literal["auto", "fused", "torch"]


def unroll_by(path: UnrollPath, model: MemoryModel[Any]) -> Unroll:
    """Return `unroll` of a model by the kernels or by torch.

    auto: by the kernels, or where they cannot train it by torch, with a line in the log. Raises NoKernel, for fused.
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
    """What autograd sees of a run: (inputs, leaves of the first state, weights) -> (outputs, leaves of the last)."""

    @staticmethod
    def forward(ctx: Any, run: "Run", inputs: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        leaves, weights = others[: len(run.layout.shapes)], others[len(run.layout.shapes) :]
        ctx.run = run
        ctx.save_for_backward(*weights)  # so that autograd tells of weights that were changed in between
        ctx.set_materialize_grads(False)  # a state that nothing is asked of has no gradient to begin with
        outputs, after = run.forward(inputs.detach(), leaves, weights, any(ctx.needs_input_grad))
        return outputs, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_after: Tensor | None) -> tuple[Tensor | None, ...]:
        assert ctx.saved_tensors is not None  # raises where a weight was changed in between
        _, inputs_too, *others = ctx.needs_input_grad
        leaves_too = any(others[: len(d_after)])
        d_inputs, d_leaves, d_weights = ctx.run.backward(d_outputs, d_after, inputs_too, leaves_too)
        return None, d_inputs, *d_leaves, *d_weights


class Tape:
    """What steps leave for their gradients: a state for each row before and after every step, and their work."""

    def __init__(self, arena: Arena, work: Array) -> None:
        self.arena, self.work = arena, work


class Run:
    """One sequence, forwards and then backwards.

    A stretch of steps is kept in a tape. Where all steps are one stretch, it is the tape of the forward pass; otherwise
    the forward pass keeps the states between the stretches, and each gets its tape on the way back.
    """

    def __init__(self, unroll: FusedUnroll, layout: Layout, lengths: Array, gradients: bool) -> None:
        self._gradients = gradients  # autograd's own word for it is not heard within a Function
        self.layout, self._lengths, self._batch = layout, lengths, len(lengths)
        self._unroll, self._library, self._packed = unroll, unroll.library, unroll.packed
        self._dtype = unroll.dtype
        self._slots = layout.shapes.get("memory", (0,))[0]
        self._tape: Tape | None = None
        self._between: Arena | None = None

    def forward(
        self, inputs: Tensor, leaves: tuple[Tensor, ...], weights: tuple[Tensor, ...], gradients: bool
    ) -> tuple[Tensor, list[Tensor]]:
        self._inputs = inputs = inputs.contiguous()
        self._packed.model.slots = self._slots
        names = self._packed.names
        self._packed.fill({name: weight.detach().numpy() for name, weight in zip(names, weights, strict=True)})
        state = {name: leaf.detach().numpy() for name, leaf in zip(self.layout.shapes, leaves, strict=True)}
        outputs = torch.empty(*inputs.shape[:2], self._packed.model.output_size, dtype=inputs.dtype)
        steps = len(inputs)
        if not (gradients and self._gradients):
            self._unroll.kept_bytes = 0
            arena = self._arena(self._batch)
            arena.write_rows(0, state)
            self._walk_in_place(arena, 0, 0, steps, outputs)
            return outputs, self._state(arena, 0)
        self._stretch = self._longest_stretch(steps)
        if self._stretch == steps:
            self._tape = self._empty_tape()
            self._tape.arena.write_rows(0, state)
            self._walk(self._tape, 0, steps, outputs)
            return outputs, self._state(self._tape.arena, steps * self._batch)
        starts = range(0, steps, self._stretch)
        self._between = self._arena((len(starts) + 1) * self._batch)
        self._between.write_rows(0, state)
        for number, start in enumerate(starts):
            self._walk_between(number, start, min(start + self._stretch, steps), outputs)
        return outputs, self._state(self._between, len(starts) * self._batch)

    def backward(
        self, d_outputs: Tensor | None, d_after: tuple[Tensor | None, ...], inputs_too: bool, leaves_too: bool
    ) -> tuple[Tensor | None, Sequence[Tensor | None], list[Tensor]]:
        if self._tape is None and self._between is None:
            raise RuntimeError("the fused kernels keep a sequence for one backward pass; this is its second")
        self._packed.model.slots = self._slots
        self._packed.clear_gradients()
        d_inputs = torch.zeros_like(self._inputs) if inputs_too else None
        gradients = self._arena(self._batch)
        known = zip(self.layout.shapes, d_after, strict=True)
        gradients.write_rows(0, {name: d.numpy() for name, d in known if d is not None})
        steps = len(self._inputs)
        if d_outputs is None:
            size = self._packed.model.output_size
            d_outputs = torch.zeros(steps, self._batch, size, dtype=self._inputs.dtype)
        d_outputs = d_outputs.contiguous()
        starts = range(0, steps, self._stretch)
        tape = self._tape or self._empty_tape()
        for number, start in reversed(list(enumerate(starts))):
            end = min(start + self._stretch, steps)
            if self._between is not None:
                rows = slice(number * self._batch, (number + 1) * self._batch)
                for name, leaf in tape.arena.leaves.items():
                    leaf[: self._batch] = self._between.leaves[name][rows]
                again = torch.empty(end - start, self._batch, self._packed.model.output_size, dtype=d_outputs.dtype)
                self._walk(tape, start, end, again)
            self._walk_back(tape, start, end, gradients, d_outputs, d_inputs)
        self._tape = self._between = None
        self._unroll.idle = [tape]
        d_weights = self._packed.gradients()
        d_leaves = self._state(gradients, 0) if leaves_too else [None] * len(d_after)
        return d_inputs, d_leaves, [torch.from_numpy(d_weights[name]) for name in self._packed.names]

    # Memory

    def _arena(self, rooms: int) -> Arena:
        return Arena(self.layout, rooms, self._dtype)

    def _work(self, keep: bool) -> int:
        """Return how many numbers a step of all rows puts down."""
        return int(self._library.work(ctypes.byref(self._packed.model), self._batch, keep))

    def _longest_stretch(self, steps: int) -> int:
        """Return of how many steps the tape fits the budget, beside the states between the stretches.

        Where not even the best fits, the one that needs least.
        """
        states = self._dtype.itemsize * self._batch * self.layout.numbers
        work = self._dtype.itemsize * self._work(keep=True)

        def needed(stretch: int) -> int:
            between = 0 if stretch == steps else states * (math.ceil(steps / stretch) + 1)
            return between + (stretch + 1) * states + stretch * work

        budget, stretches = self._unroll.memory_budget, range(steps, 0, -1)
        chosen = next((stretch for stretch in stretches if needed(stretch) <= budget), None)
        chosen = chosen or min(stretches, key=needed)
        self._unroll.kept_bytes = needed(chosen)
        return chosen

    def _empty_tape(self) -> Tape:
        rooms, work = (self._stretch + 1) * self._batch, self._stretch * self._work(keep=True)
        for tape in self._unroll.idle:
            if tape.arena.layout is self.layout and tape.arena.rooms >= rooms and len(tape.work) >= work:
                self._unroll.idle = []
                return tape
        return Tape(self._arena(rooms), np.empty(work, self._dtype))

    def _state(self, arena: Arena, start: int) -> list[Tensor]:
        rows = slice(start, start + self._batch)
        return [torch.from_numpy(arena.rows(name, rows)) for name in self.layout.shapes]

    # The kernels

    def _walk(self, tape: Tape, start: int, end: int, outputs: Tensor) -> None:
        """Step from the first states of the tape, keeping all. outputs: of these steps."""
        walks = self._walks(tape.work, start, end, stride=self._batch, work_stride=self._work(keep=True))
        self._forward_all(walks, tape.arena, True, self._inputs[start:end], outputs)

    def _walk_between(self, number: int, start: int, end: int, outputs: Tensor) -> None:
        """Step from the states before a stretch to those after it."""
        assert self._between is not None
        base = number * self._batch
        scratch = self._scratch_per_thread()
        walks = self._walks(scratch, start, start + 1, base=base, stride=self._batch, apart=True)
        self._forward_all(walks, self._between, False, self._inputs[start : start + 1], outputs[start : start + 1])
        if end > start + 1:
            self._walk_in_place(self._between, base + self._batch, start + 1, end, outputs[start + 1 : end])

    def _walk_in_place(self, arena: Arena, base: int, start: int, end: int, outputs: Tensor) -> None:
        walks = self._walks(self._scratch_per_thread(), start, end, base=base, apart=True)
        self._forward_all(walks, arena, False, self._inputs[start:end], outputs)

    def _walk_back(
        self, tape: Tape, start: int, end: int, gradients: Arena, d_outputs: Tensor, d_inputs: Tensor | None
    ) -> None:
        walks = self._walks(tape.work, start, end, stride=self._batch, work_stride=self._work(keep=True))
        model, states, d_states = (ctypes.byref(s) for s in (self._packed.model, tape.arena.states, gradients.states))
        d_out = d_outputs[start:end].data_ptr()
        d_in = None if d_inputs is None else d_inputs[start:end].data_ptr()
        needed = self._library.backward_scratch(model, self._batch)
        scratch = [np.empty(needed, self._dtype) for _ in walks]

        def back(number: int) -> None:
            own = scratch[number].ctypes.data
            self._library.backward(model, states, d_states, ctypes.byref(walks[number]), d_out, d_in, own)

        def weigh(number: int) -> None:
            self._library.weights(model, ctypes.byref(walks[number]), number, len(walks))

        share(self._unroll.pool, back, len(walks))
        share(self._unroll.pool, weigh, len(walks))

    def _forward_all(self, walks: list[Walk], arena: Arena, keep: bool, inputs: Tensor, outputs: Tensor) -> None:
        model, states = ctypes.byref(self._packed.model), ctypes.byref(arena.states)

        def forward(number: int) -> None:
            walk = ctypes.byref(walks[number])
            self._library.walk(model, states, walk, keep, inputs.data_ptr(), outputs.data_ptr())

        share(self._unroll.pool, forward, len(walks))

    def _parts(self) -> int:
        numbers = len(self._inputs) * numbers_of_step(self._packed, self.layout)
        return parts_of(self._batch, self._unroll.threads, numbers)

    def _scratch_per_thread(self) -> Array:
        return np.empty((self._parts(), self._work(keep=False)), self._dtype)

    def _walks(
        self,
        work: Array,
        start: int,
        end: int,
        base: int = 0,
        stride: int = 0,
        work_stride: int = 0,
        apart: bool = False,
    ) -> list[Walk]:
        """Return the walk over some steps of each thread's rows. apart: each thread's work is its own row of `work`."""
        left = np.minimum(np.maximum(self._lengths - start, 0), end - start)
        lists = np.empty((3, self._batch), np.int64)
        parts = self._parts()
        cuts = itertools.pairwise(self._batch * part // parts for part in range(parts + 1))
        common = {
            "total": self._batch,
            "steps": end - start,
            "base": base,
            "stride": stride,
            "work_stride": work_stride,
        }
        common |= {"lengths": left.ctypes.data, "lists": lists.ctypes.data}
        walks = []
        for number, (first, last) in enumerate(cuts):
            own = work[number] if apart else work
            walk = Walk(first=first, batch=last - first, work=own.ctypes.data, **common)
            walk.kept = (left, lists, work)  # for as long as there are pointers to them
            walks.append(walk)
        return walks


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.float64 if dtype.itemsize == 8 else torch.float32
