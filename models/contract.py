"""The contract of every model, and the function that unrolls any of them over time."""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from models.config import ConfigError, require_at_least
from models.embedding import Embedding, EmbeddingConfig
from models.state import check_state, flatten, shapes_of, unflatten

S = TypeVar("S", bound=tuple[Any, ...])

Trace = dict[str, Tensor]
"""Recorded values of one step, by name; every tensor has the batch as axis 0."""

Step = Callable[[Tensor, S], tuple[Tensor, S, Trace]]
"""The step of a model: (inputs, state) -> (outputs, next state, trace)."""

Activation = Literal["identity", "sigmoid", "softmax"]
"""The activation of outputs: identity for values, sigmoid for bits, softmax for one of several classes."""

OutputAt = Literal["every-step", "last-step"]
"""The steps whose outputs are the answer: all of them, or the last one, for the whole sequence."""


@dataclass(frozen=True)
class ModelConfig:
    """The fields that the configs of all models have in common.

    output_groups: with "softmax", the number of classes that a step gives at once. The outputs are that many equal
    parts, each with a softmax of its own (the graph tasks of Graves et al. 2016: 9 digits of 10 classes).
    With an embedding, inputs are tokens, one number a step, and input_size is 1.
    """

    input_size: int
    output_size: int
    output_activation: Activation = field(default="identity", kw_only=True)
    output_groups: int = field(default=1, kw_only=True)
    output_at: OutputAt = field(default="every-step", kw_only=True)
    embedding: EmbeddingConfig | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        require_at_least(self, 1, "input_size", "output_size", "output_groups")
        groups = f"{type(self).__name__}.output_groups"
        if self.output_groups > 1 and self.output_activation != "softmax":
            raise ConfigError(
                f"{groups} must be 1 unless outputs are classes, got {self.output_groups} with output_activation "
                f"{self.output_activation!r}: take 'softmax', or leave output_groups away"
            )
        if self.output_size % self.output_groups:
            raise ConfigError(
                f"{groups} must divide output_size {self.output_size}, got {self.output_groups}: "
                "output_size is the number of groups times that of the classes in each"
            )
        if self.embedding and self.input_size != 1:
            raise ConfigError(f"{type(self).__name__}.input_size must be 1 with an embedding, got {self.input_size}")


class MemoryModel(nn.Module, ABC, Generic[S]):
    """A network that reads one vector a step and keeps everything that it remembers in an explicit state.

    The module itself keeps nothing of a sequence: two sequences stepped in turns never mix.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_size = config.input_size
        self.output_size = config.output_size
        self.output_activation = config.output_activation
        self.output_groups = config.output_groups
        self.output_at = config.output_at
        self.embedding = Embedding(config.embedding) if config.embedding else None
        self._shapes: dict[int | None, S] = {}  # of the state, by its memory size
        self._force: Mapping[str, Tensor] = {}  # gates that are held at values

    @property
    def encoded_size(self) -> int:
        """The size of an input to the controller: that of the embedding, if inputs are tokens."""
        return self.embedding.size if self.embedding else self.input_size

    def forced(self, gates: Mapping[str, Tensor]) -> Self:
        """Return a model with the same weights, some of whose gates are held at values.

        gates: by the names of their traces, each in the shape of one row; NaN where an element is free. A class whose
        step has such gates holds them; any other takes no notice.
        """
        other = copy.copy(self)
        other._force = gates
        return other

    @property
    def memory_size(self) -> int | None:
        """The number of memory locations of a state, unless another is asked for; None for a model without a memory."""
        return None

    @abstractmethod
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> S:
        """Return the state before the first step, on the device and in the dtype of the weights.

        memory_size: the number of memory locations, if not the config's; no weight depends on it, and a step takes
        the number that the state has. Raises ConfigError for a model without a memory.
        """

    def step(self, inputs: Tensor, state: S) -> tuple[Tensor, S, Trace]:
        """Advance every row by one step.

        inputs: [B, input_size]; with an embedding, [B, 1] whole numbers of tokens.
        Returns the outputs before their activation, [B, output_size]; the next state, with the structure, shapes,
        dtype and device of `state`, which is left as it was; and the trace.
        Raises ValueError for inputs of another shape, and StateError, a ValueError, for a state of another structure
        or other shapes; neither while torch.compile or torch.export traces the step.
        """
        self._check(inputs, state, "B")
        return self._step(inputs, state)

    @abstractmethod
    def _step(self, inputs: Tensor, state: S) -> tuple[Tensor, S, Trace]:
        """Take the step of `step`, whose inputs and state are checked."""

    def check_sequence(self, inputs: Tensor, state: S, lengths: Tensor | None = None) -> None:
        """Raise ValueError unless `unroll` can take these; for the state StateError, a ValueError."""
        self._check(inputs, state, "T, B")
        if lengths is None:
            return
        known = isinstance(lengths, Tensor)
        if not known or lengths.shape != inputs.shape[1:2] or lengths.is_floating_point():
            got = f"{lengths.dtype} of shape {list(lengths.shape)}" if known else f"a {type(lengths).__name__}"
            raise ValueError(f"lengths must be {inputs.shape[1]} whole numbers, one for each row, got {got}")

    def _check(self, inputs: Tensor, state: S, axes: str) -> None:
        """Check inputs and state. axes: the names of the inputs' axes before the last one, the batch at the end."""
        if torch.compiler.is_compiling():  # sizes are symbols then
            return
        shape = list(inputs.shape) if isinstance(inputs, Tensor) else None
        if shape is None or len(shape) != len(axes.split()) + 1 or shape[-1] != self.input_size or 0 in shape:
            got = f"a {type(inputs).__name__}" if shape is None else shape
            raise ValueError(f"inputs must be of shape [{axes}, {self.input_size}], none of them 0, got {got}")
        check_state(state, self._shapes_like(state), shape[-2])

    def _shapes_like(self, state: S) -> S:
        """Return the shapes of the model's state with the memory size of this one."""
        memory = None if self.memory_size is None else getattr(state, "memory", None)
        size = memory.shape[1] if isinstance(memory, Tensor) and memory.dim() == 3 else None
        if size not in self._shapes:
            with torch.no_grad():
                self._shapes[size] = shapes_of(self.initial_state(1, size))
        return self._shapes[size]

    def activate(self, outputs: Tensor) -> Tensor:
        """Return the outputs that are served: probabilities, where the outputs of `step` are bits or classes.

        outputs: [..., output_size]. Returns the same shape.
        """
        if self.output_activation == "softmax" and self.output_groups > 1:
            return torch.softmax(outputs.reshape(*outputs.shape[:-1], self.output_groups, -1), -1).flatten(-2)
        if self.output_activation == "softmax":
            return torch.softmax(outputs, -1)
        return torch.sigmoid(outputs) if self.output_activation == "sigmoid" else outputs

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the inputs of the controller: [B, input_size] -> [B, encoded_size]."""
        encoded: Tensor = self.embedding(inputs) if self.embedding else inputs
        return encoded


def checked_memory_size(config: Any, memory_size: int | None) -> int:
    """Return `memory_size`, or the config's where it is None. Raises ConfigError for a size that the config forbids.

    While a graph is traced, it is a symbol that stands for any size, and is returned unchecked.
    """
    if memory_size is None:
        return int(config.memory_size)
    if isinstance(memory_size, int):
        replace(config, memory_size=memory_size)
    return memory_size


def unroll(
    model: MemoryModel[S],
    inputs: Tensor,
    state: S,
    trace: Collection[str] = (),
    lengths: Tensor | None = None,
    step: Step[S] | None = None,
) -> tuple[Tensor, S, Trace]:
    """Step `model` over a whole sequence.

    inputs: [T, B, input_size]; trace: the names to record; lengths: [B], the steps of each row, all T if None: beyond
    them its outputs are zero and its state does not change. step: in place of the model's own, to the same results.
    Returns outputs [T, B, output_size] before their activation, the state after the last step, and the
    named traces, each [T, B, ...].
    Raises ValueError for other shapes, as `MemoryModel.step` does.
    """
    model.check_sequence(inputs, state, lengths)
    step = step or model._step
    counted = None if lengths is None else lengths.to(inputs.device)
    outputs: list[Tensor] = []
    kept: dict[str, list[Tensor]] = {name: [] for name in trace}
    for number, step_inputs in enumerate(inputs.unbind(0)):
        step_outputs, next_state, step_trace = step(step_inputs, state)
        if counted is not None:
            counts = number < counted
            step_outputs = torch.where(counts[:, None], step_outputs, 0)
            next_state = _where(counts, next_state, state)
        state = next_state
        outputs.append(step_outputs)
        for name, values in kept.items():
            values.append(step_trace[name])
    return torch.stack(outputs), state, {name: torch.stack(values) for name, values in kept.items()}


def _where(rows: Tensor, state: S, otherwise: S) -> S:
    """Return `state` in the rows that are true, [B], and `otherwise` in the others."""
    others = flatten(otherwise)

    def chosen(leaf: Tensor, other: Tensor) -> Tensor:
        return torch.where(rows.reshape(-1, *[1] * (leaf.dim() - 1)), leaf, other)

    return unflatten({name: chosen(leaf, others[name]) for name, leaf in flatten(state).items()}, state)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and back at the end of the context."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def schemas(model: MemoryModel[S], memory_size: int | None = None) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the shapes of the model's state leaves and of its traces, by name, without the batch axis."""
    state = model.initial_state(1, memory_size)
    inputs = flatten(state)
    like = next(iter(model.parameters()))
    with evaluating(model):  # dropout must draw nothing: a run that saves would go on with other random numbers
        _, _, trace = model.step(like.new_zeros(1, model.input_size), state)
    return _shapes(inputs), _shapes(trace)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape[1:]) for name, tensor in tensors.items()}
