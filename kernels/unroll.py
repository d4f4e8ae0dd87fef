"""Whole sequences with their gradients by the kernels, for trainers on a CPU."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.arena import StateLayout
from kernels.library import Library
from kernels.packing import Array, PackedModel
from kernels.sequence import Sequence, Sequences
from kernels.step import covered
from kernels.support import KINDS, NoKernel, not_trained
from kernels.torch_unroll import CapturedUnroll, TorchUnroll, batch_of
from models.contract import MemoryModel
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
        self.torch_type = torch.float64 if self.dtype.itemsize == 8 else torch.float32
        named = dict(model.named_parameters())
        shapes = {name: tuple(weight.shape) for name, weight in named.items()}
        self.packed = PackedModel(kind, values, shapes, model.memory_size, self.library, gradients=True)
        self.sequences = Sequences(self.packed, memory_budget, threads or torch.get_num_threads())
        self._weights = [named[name] for name in self.packed.names]
        known = {*self.packed.names, "embedding.vectors.weight"}
        self._learned_start = any(name not in known for name in shapes)
        self._first: tuple[Any, Any] | None = None
        self._layouts: dict[int | None, StateLayout] = {}  # by memory size
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
            state = self.initial_state(batch_of(inputs))
        self._check_model()
        self.model.check_sequence(inputs, state, lengths)
        leaves = flatten(state)
        self._check_values(inputs, leaves, lengths)
        steps, batch = inputs.shape[:2]
        counted = None if lengths is None else lengths.numpy().astype(np.int64)
        encoded = self.model.encode(inputs.flatten(0, 1)).reshape(steps, batch, -1)
        sequence = Sequence(self.sequences, self.layout(leaves), steps, batch, counted)
        saved = torch.is_grad_enabled()  # within a Function, it is always False
        outputs, *after = FusedSequence.apply(self, sequence, saved, encoded, *leaves.values(), *self._weights)  # type: ignore[no-untyped-call]
        return outputs, unflatten(dict(zip(leaves, after, strict=True)), state)

    @property
    def kept_bytes(self) -> int:
        """The bytes that the last sequence kept for its gradients."""
        return self.sequences.kept_bytes

    def initial_state(self, batch: int) -> Any:
        """Return the model's initial state: the same tensors again, unless part of it is learned or was changed."""
        if self._learned_start:
            return self.model.initial_state(batch)
        kept = (batch, *((buffer.data_ptr(), buffer._version) for buffer in self.model.buffers()))
        if self._first is None or self._first[0] != kept:
            self._first = kept, self.model.initial_state(batch)
        return self._first[1]

    def layout(self, leaves: Mapping[str, Tensor]) -> StateLayout:
        """Return the layout of states with the memory size of these leaves."""
        size = leaves["memory"].shape[1] if "memory" in leaves else None
        if size not in self._layouts:
            state = flatten(self.model.initial_state(1, size))
            shapes = {name: leaf.shape[1:] for name, leaf in state.items()}
            self._layouts[size] = StateLayout(shapes, self.packed.layer_names, self.packed.hidden)
        return self._layouts[size]

    def _check_values(self, inputs: Tensor, leaves: Mapping[str, Tensor], lengths: Tensor | None) -> None:
        for name, tensor in {"inputs": inputs, **leaves}.items():
            if tensor.device.type != "cpu" or tensor.dtype != self.torch_type:
                raise ValueError(f"{name} must be {self.dtype} on the CPU, got {tensor.dtype} on {tensor.device}")
        if lengths is not None:
            self.check_lengths(inputs, lengths)

    @staticmethod
    def check_lengths(inputs: Tensor, lengths: Tensor) -> None:
        """Raise ValueError unless every length is one of the steps of inputs, or 0."""
        if lengths.min() < 0 or lengths.max() > len(inputs):
            raise ValueError(f"lengths must be from 0 to {len(inputs)}, the steps of inputs, got {lengths.tolist()}")

    def _check_model(self) -> None:
        if self.model.training and self._not_trained:
            raise NoKernel(f"there is no fused kernel for training this model: {self._not_trained}; torch trains it")
        for name, weight in zip(self.packed.names, self._weights, strict=True):
            if weight.device.type != "cpu" or weight.dtype != self.torch_type:
                raise NoKernel(
                    f"weight {name} is {weight.dtype} on {weight.device}; the kernels take {self.dtype} on cpu"
                )


Unroll = FusedUnroll | TorchUnroll

UnrollPath = Literal["auto", "fused", "captured", "compiled", "torch"]


def unroll_by(path: UnrollPath, model: MemoryModel[Any], processes: int = 1) -> Unroll:
    """Return `unroll` of a model by the kernels or by torch; on a GPU, as captured graphs, compiled before or not.

    auto: by the kernels, on a GPU as captured graphs, or by torch where neither can train it, which is logged.
    processes: how many train the model. Raises NoKernel, for the path that was asked for.
    """
    if path == "torch":
        return TorchUnroll(model)
    if path == "fused":
        return FusedUnroll(model)
    reason = not_captured(model, processes)
    if path in ("captured", "compiled"):
        if reason:
            raise NoKernel(f"a sequence of this model cannot be captured: {reason}; torch trains it")
        return CapturedUnroll(model, compiled=path == "compiled")
    if device_of(model).type == "cuda" and kind_of(model) in KINDS:
        return TorchUnroll(model, reason) if reason else CapturedUnroll(model)
    try:
        return FusedUnroll(model)
    except NoKernel as reason:
        logger.info("sequences are unrolled by torch: %s", reason)
        return TorchUnroll(model, str(reason))


def not_captured(model: MemoryModel[Any], processes: int) -> str | None:
    """Return why the sequences of a model cannot be captured, or None where they can."""
    device = device_of(model)
    if device.type != "cuda":
        return f"it is on {device}, and CUDA graphs are for GPUs"
    if device.index not in (None, torch.cuda.current_device()):
        return f"it is on {device}, and the present device is {torch.cuda.current_device()}"
    return f"{processes} processes train it together" if processes > 1 else None


def device_of(model: MemoryModel[Any]) -> torch.device:
    return next(model.parameters()).device


class FusedSequence(torch.autograd.Function):
    """A sequence for autograd: (inputs, leaves of the first state, weights) -> (outputs, leaves of the last state)."""

    @staticmethod
    def forward(
        ctx: Any, fused: FusedUnroll, sequence: Sequence, saved: bool, inputs: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        names = sequence.layout.shapes
        leaves, weights = others[: len(names)], others[len(names) :]
        ctx.fused, ctx.sequence, ctx.inputs = fused, sequence, inputs.detach().contiguous()
        ctx.save_for_backward(*weights)  # so that autograd refuses weights that were changed in between
        ctx.set_materialize_grads(False)  # None, not zeros, for a result without a gradient
        fused.packed.fill(_arrays(fused.packed.names, weights))
        outputs = inputs.new_empty(*inputs.shape[:2], fused.packed.model.output_size)
        forward = sequence.forward_saved if saved and any(ctx.needs_input_grad) else sequence.forward
        forward(_arrays(names, leaves), ctx.inputs.data_ptr(), outputs.data_ptr())
        return outputs, *map(torch.from_numpy, sequence.last_state().values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_after: Tensor | None) -> tuple[Tensor | None, ...]:
        assert ctx.saved_tensors is not None  # raises where a weight was changed in between
        inputs, packed, sequence = ctx.inputs, ctx.fused.packed, ctx.sequence
        if d_outputs is None:
            d_outputs = inputs.new_zeros(*inputs.shape[:2], packed.model.output_size)
        d_outputs = d_outputs.contiguous()
        *_, inputs_too = ctx.needs_input_grad[:4]
        leaves_too = any(ctx.needs_input_grad[4 : 4 + len(d_after)])
        d_inputs = torch.zeros_like(inputs) if inputs_too else None
        given = {name: d for name, d in zip(sequence.layout.shapes, d_after, strict=True) if d is not None}
        d_inputs_at = None if d_inputs is None else d_inputs.data_ptr()
        sequence.backward(inputs.data_ptr(), d_outputs.data_ptr(), d_inputs_at, _arrays(given, given.values()))
        d_first = sequence.d_first_state().values() if leaves_too else [None] * len(d_after)
        d_leaves = (None if d is None else torch.from_numpy(d) for d in d_first)
        d_weights = packed.unpack(packed.d_values)
        return None, None, None, d_inputs, *d_leaves, *(torch.from_numpy(d_weights[name]) for name in packed.names)


def _arrays(names: Iterable[str], tensors: Iterable[Tensor]) -> dict[str, Array]:
    return {name: tensor.detach().numpy() for name, tensor in zip(names, tensors, strict=True)}
