"""The contract that every model keeps, and the free function that unrolls any of them over time."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from models.state import flatten

S = TypeVar("S", bound=tuple[Any, ...])

Trace = dict[str, Tensor]
"""What one step did, by name; every tensor has the batch as axis 0."""

Activation = Literal["identity", "sigmoid"]


class ModelConfig(Protocol):
    """What the configs of all models have in common."""

    @property
    def input_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def output_activation(self) -> Activation: ...


class MemoryModel(nn.Module, ABC, Generic[S]):
    """A network that reads one vector a step and carries everything it remembers in an explicit state.

    Nothing that a sequence leaves behind is kept on the module: two sequences stepped in turns never meet.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_size = config.input_size
        self.output_size = config.output_size
        self.output_activation = config.output_activation

    @abstractmethod
    def initial_state(self, batch_size: int) -> S:
        """Return the state before the first step, on the device and in the dtype of the weights."""

    @abstractmethod
    def step(self, inputs: Tensor, state: S) -> tuple[Tensor, S, Trace]:
        """Advance every row by one step.

        inputs: [B, input_size].
        Returns the outputs before their activation, [B, output_size]; the next state, with the structure, shapes,
        dtype and device of `state`, which is left as it was; and the trace.
        """

    def activate(self, outputs: Tensor) -> Tensor:
        """Turn the outputs of `step` into what is served: probabilities where the outputs are bits."""
        return torch.sigmoid(outputs) if self.output_activation == "sigmoid" else outputs


def unroll(model: MemoryModel[S], inputs: Tensor, state: S, trace: Collection[str] = ()) -> tuple[Tensor, S, Trace]:
    """Step `model` over a whole sequence.

    inputs: [T, B, input_size]; trace: the names to keep.
    Returns outputs [T, B, output_size] before their activation, the state after the last step, and the
    named traces, each [T, B, ...].
    """
    outputs: list[Tensor] = []
    kept: dict[str, list[Tensor]] = {name: [] for name in trace}
    for step_inputs in inputs.unbind(0):
        step_outputs, state, step_trace = model.step(step_inputs, state)
        outputs.append(step_outputs)
        for name, values in kept.items():
            values.append(step_trace[name])
    return torch.stack(outputs), state, {name: torch.stack(values) for name, values in kept.items()}


@torch.no_grad()
def schemas(model: MemoryModel[S]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the shapes, without the batch axis, of the model's state leaves and of its traces, by name."""
    state = model.initial_state(1)
    inputs = flatten(state)
    like = next(iter(model.parameters()))
    _, _, trace = model.step(like.new_zeros(1, model.input_size), state)
    return _shapes(inputs), _shapes(trace)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape[1:]) for name, tensor in tensors.items()}
