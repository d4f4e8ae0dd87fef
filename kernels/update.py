"""Whole updates by the kernels, for trainers on a CPU: sequences, loss, gradients, clipping and optimiser."""

import ctypes
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernels.arena import StateLayout
from kernels.layout import ANSWERS, OPTIMIZERS, LossCall, Optimizer, Weights
from kernels.packing import Array
from kernels.sequence import Sequence
from kernels.unroll import FusedUnroll
from kernels.weights import OtherWeights, TrainedArray
from models.state import flatten

Loss = Callable[[Tensor], Tensor]
"""Outputs [T, B, output_size] -> their loss."""


class Batch(NamedTuple):
    """Sequences and their answers."""

    inputs: Tensor
    """[T, B, input_size]"""
    targets: Tensor
    """[T, B, output_size]; of a loss by torch, what it takes"""
    mask: Tensor
    """[T, B]: 1 where an answer is due, else 0; of a loss by torch, what it takes"""
    lengths: Tensor | None
    """[B], the steps of each sequence; None: all T"""


class Outcome(NamedTuple):
    """The figures of an update."""

    loss: float
    """Mean cross-entropy in nats of a bit or of a class."""
    errors: float
    """Wrong bits or wrong answers in the batch; NaN if torch computed the loss."""
    norm: float
    """The norm of the gradient before clipping."""
    outputs: Tensor
    """[T, B, output_size], before their activation."""


class FirstState(NamedTuple):
    """The state before the first step, of all rows."""

    state: Any
    leaves: dict[str, Tensor]
    arrays: dict[str, Array]
    layout: StateLayout


class FusedUpdate:
    """Updates of one model by the kernels.

    The weights that the kernels read stay packed from update to update; `publish` writes them to the model, where they
    may be changed or frozen before the next one. Other weights, those of an embedding and of a learned first state, get
    their gradients from torch. Not thread-safe.

    optimizer: its rule, and the number of steps that it has made.
    """

    def __init__(self, unroll: FusedUnroll, optimizer: Optimizer) -> None:
        self.model, self.optimizer = unroll.model, optimizer
        self._unroll, self._packed, self.library = unroll, unroll.packed, unroll.library
        kind, packed = OPTIMIZERS[optimizer.kind], unroll.packed
        named = dict(self.model.named_parameters())
        self._weights = {name: named.pop(name) for name in packed.names}
        self._main = TrainedArray(packed.values, packed.d_values, packed.trained, kind)
        self._others = OtherWeights(named, kind, packed.values.dtype)
        arrays = [self._main, *([self._others.array] if named else [])]
        self._arrays = (Weights * len(arrays))(*(array.structure for array in arrays))
        self._published = True
        self._seen: list[tuple[int, bool]] | None = None  # of the model's weights as packed; None: pack them
        self._first: FirstState | None = None

    # What a trainer saves

    def kept(self) -> dict[str, dict[str, Array]]:
        """Return a copy of the arrays that the optimiser keeps, by the name of the weight and their own."""
        parts = {kind: self._packed.unpack(array) for kind, array in self._main.kept.items()}
        own = {name: {kind: part[name] for kind, part in parts.items()} for name in self._weights}
        return {**own, **self._others.kept()}

    def restore(self, kept: Mapping[str, Mapping[str, Array]]) -> None:
        """Replace the arrays that the optimiser keeps by what `kept` returned."""
        for kind, array in self._main.kept.items():
            array[:] = self._packed.pack({name: kept[name][kind] for name in self._weights})
        self._others.restore(kept)

    def publish(self) -> None:
        """Write the weights to the model. The next update packs those that the model has then."""
        if not self._published:
            with torch.no_grad():
                for name, values in self._packed.unpack(self._packed.values).items():
                    self._weights[name].copy_(torch.from_numpy(values))
        self._published, self._seen = True, None

    def gradients(self) -> dict[str, Array]:
        """Return the gradients of the last update, with the regularisers, by the names of the weights."""
        return {**self._packed.unpack(self._packed.d_values), **self._others.gradients()}

    # An update

    def update(self, batch: Batch, answer: str | None, loss: Loss, rate: float) -> Outcome:
        """Change the weights by the gradient of a batch, unless the loss or the norm of the gradient is not finite.

        answer: the kind of the answers, of ANSWERS, whose loss the kernels compute; None if `loss` does, by torch.
        rate: of learning. Raises ValueError if a shape or a type does not fit, and RuntimeError if weights were changed
        in the model that had not been published before.
        """
        self._check(batch, answer)
        self._pack()
        self._others.begin()
        steps, rows = batch.inputs.shape[:2]
        first, inputs = self._first_state(rows), self._encoded(batch.inputs)
        lengths = None if batch.lengths is None else batch.lengths.numpy().astype(np.int64)
        sequence = Sequence(self._unroll.sequences, first.layout, steps, rows, lengths)
        outputs = batch.inputs.new_empty(steps, rows, self.model.output_size)
        sequence.forward_saved(first.arrays, inputs.data_ptr(), outputs.data_ptr())
        if answer is None:
            value, errors, d_outputs = loss_by_torch(outputs, loss)
        else:
            value, errors, d_outputs = self._loss(batch, outputs, ANSWERS.index(answer))
        self._backward(sequence, inputs, first, d_outputs)
        norm = self.gradient_norm()
        if math.isfinite(value) and math.isfinite(norm):
            self._step(rate, norm)
        return Outcome(value, errors, norm, outputs)

    def _check(self, batch: Batch, answer: str | None) -> None:
        """Raise ValueError unless the kernels can read a batch: they check nothing."""
        inputs, size, dtype = batch.inputs, self.model.input_size, self._unroll.torch_type
        shape = inputs.shape
        if len(shape) != 3 or shape[2] != size or 0 in shape or inputs.dtype != dtype:
            got = f"{inputs.dtype} {list(shape)}"
            raise ValueError(f"inputs must be {dtype} [T, B, {size}], none of them 0, got {got}")
        if batch.lengths is not None:
            self.model.check_sequence(inputs, self._unroll.initial_state(shape[1]), batch.lengths)
            self._unroll.check_lengths(inputs, batch.lengths)
        if answer is not None:
            for name, due in {"targets": [*shape[:2], self.model.output_size], "mask": [*shape[:2]]}.items():
                if (found := list(getattr(batch, name).shape)) != due:
                    raise ValueError(f"{name} must be {due}, got {found}")

    def _pack(self) -> None:
        """Pack the weights if the model's were published, changed or frozen. Raises RuntimeError."""
        present = [(weight._version, weight.requires_grad) for weight in self._weights.values()]
        if present == self._seen:
            return
        if not self._published:
            raise RuntimeError(
                "weights were changed in a model that did not have the present ones: take it from `trainer.model` "
                "after the update, and change it then"
            )
        self._packed.fill({name: weight.detach().numpy() for name, weight in self._weights.items()})
        self._packed.train({name: weight.requires_grad for name, weight in self._weights.items()})
        self._seen = present

    def _first_state(self, rows: int) -> FirstState:
        state = self._unroll.initial_state(rows)
        if self._first is None or self._first.state is not state:
            leaves = flatten(state)
            arrays = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
            self._first = FirstState(state, leaves, arrays, self._unroll.layout(leaves))
        return self._first

    def _encoded(self, inputs: Tensor) -> Tensor:
        """Return the inputs of the controller, [T, B, encoded_size], side by side in memory."""
        if self.model.embedding is None:
            return inputs.contiguous()
        return self.model.encode(inputs.flatten(0, 1)).reshape(*inputs.shape[:2], -1).contiguous()

    def _loss(self, batch: Batch, outputs: Tensor, answer: int) -> tuple[float, float, Tensor]:
        """Return the loss, the errors, and the gradient of the outputs."""
        targets, mask = (tensor.to(outputs.dtype).contiguous() for tensor in (batch.targets, batch.mask))
        d_outputs = torch.empty_like(outputs)
        call = LossCall(answer, *outputs.shape, self._packed.model.output_groups)
        call.outputs, call.targets = outputs.data_ptr(), targets.data_ptr()
        call.mask, call.d_outputs = mask.data_ptr(), d_outputs.data_ptr()
        self.library.loss(ctypes.byref(call))
        return call.loss, call.errors, d_outputs

    def _backward(self, sequence: Sequence, inputs: Tensor, first: FirstState, d_outputs: Tensor) -> None:
        """Leave the gradients of all weights where the optimiser reads them."""
        d_inputs = torch.zeros_like(inputs) if inputs.requires_grad else None
        d_inputs_at = None if d_inputs is None else d_inputs.data_ptr()
        sequence.backward(inputs.data_ptr(), d_outputs.data_ptr(), d_inputs_at, {})
        tensors, gradients = [inputs] if inputs.requires_grad else [], [] if d_inputs is None else [d_inputs]
        learned = [name for name, leaf in first.leaves.items() if leaf.requires_grad]
        if learned:
            d_first = sequence.d_first_state()
            tensors += [first.leaves[name] for name in learned]
            gradients += [torch.from_numpy(d_first[name]) for name in learned]
        if tensors:
            torch.autograd.backward(tensors, gradients)

    def gradient_norm(self) -> float:
        """Add the regularisers to the gradients and return their norm."""
        norm: float = self.library.gradient_norm(ctypes.byref(self.optimizer), self._arrays, len(self._arrays))
        return norm

    def _step(self, rate: float, norm: float) -> None:
        rule, model = ctypes.byref(self.optimizer), ctypes.byref(self._packed.model)
        self.optimizer.rate, self._published = rate, False
        self.library.step_weights(rule, model, self._arrays, len(self._arrays), norm)


def loss_by_torch(outputs: Tensor, loss: Loss) -> tuple[float, float, Tensor]:
    """Return the loss, NaN for the errors, and the gradient of the outputs."""
    logits = outputs.detach().requires_grad_()
    value = loss(logits)
    (d_outputs,) = torch.autograd.grad(value, logits)
    return value.item(), math.nan, d_outputs.contiguous()
