"""Whole sequences with their gradients by torch, step by step."""

from typing import Any, TypeVar

from torch import Tensor

from models.contract import MemoryModel, unroll

S = TypeVar("S", bound=tuple[Any, ...])


class TorchUnroll:
    """`unroll` of one model by torch, called as FusedUnroll is. reason: why the kernels do not, if asked to."""

    path = "torch"

    def __init__(self, model: MemoryModel[Any], reason: str | None = None) -> None:
        self.model, self.reason = model, reason

    def __call__(self, inputs: Tensor, state: S | None = None, lengths: Tensor | None = None) -> tuple[Tensor, S]:
        first: Any = self.model.initial_state(batch_of(inputs)) if state is None else state
        outputs, after, _ = unroll(self.model, inputs, first, lengths=lengths)
        return outputs, after


def batch_of(inputs: Tensor) -> int:
    """Return B of inputs [T, B, input_size]; 1 for another shape, which is refused later."""
    return inputs.shape[1] if isinstance(inputs, Tensor) and inputs.dim() == 3 else 1
