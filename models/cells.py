"""Recurrent cells as one-step functions with typed states; the controllers of DNC and NTM, and models of their own."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.config import ConfigError, from_values, require_at_least


class Cell(nn.Module, ABC):
    """One step of a recurrent layer: `outputs, next_state = cell(inputs, state)`."""

    output_size: int

    @abstractmethod
    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        """Return the state before the first step, every leaf [B, ...]."""

    @abstractmethod
    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """inputs: [B, input_size]. Returns outputs [B, output_size] and the next state."""


@dataclass(frozen=True)
class LSTMConfig:
    """forget_bias is added to the forget gate at every step, as TensorFlow's cells do."""

    kind: Literal["lstm"] = "lstm"
    hidden_size: int = 100
    forget_bias: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden_size")


class LSTMState(NamedTuple):
    h: Tensor
    """Hidden state, the cell's output: [B, hidden_size]."""
    c: Tensor
    """Cell state: [B, hidden_size]."""


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000)."""

    def __init__(self, input_size: int, config: LSTMConfig) -> None:
        super().__init__()
        self.output_size = config.hidden_size
        self.forget_bias = config.forget_bias
        self.gates = nn.Linear(input_size + config.hidden_size, 4 * config.hidden_size)
        bound = 1 / math.sqrt(self.gates.in_features)
        nn.init.uniform_(self.gates.weight, -bound, bound)
        nn.init.zeros_(self.gates.bias)

    def initial_state(self, batch_size: int) -> LSTMState:
        zeros = self.gates.weight.new_zeros(batch_size, self.output_size)
        return LSTMState(zeros, zeros.clone())

    def forward(self, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        # i, f, o = sigmoid(...), j = tanh(...);  c_t = f * c_{t-1} + i * j;  h_t = o * tanh(c_t)
        input_gate, candidate, forget_gate, output_gate = self.gates(torch.cat([inputs, state.h], 1)).chunk(4, 1)
        kept = torch.sigmoid(forget_gate + self.forget_bias) * state.c
        c = kept + torch.sigmoid(input_gate) * torch.tanh(candidate)
        h = torch.sigmoid(output_gate) * torch.tanh(c)
        return h, LSTMState(h, c)


@dataclass(frozen=True)
class FeedForwardConfig:
    kind: Literal["feed-forward"] = "feed-forward"
    hidden_size: int = 100

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden_size")


class FeedForwardState(NamedTuple):
    """A feed-forward layer remembers nothing."""


class FeedForward(Cell):
    """h_t = tanh(W x_t + b): all memory is left to the model around it."""

    def __init__(self, input_size: int, config: FeedForwardConfig) -> None:
        super().__init__()
        self.output_size = config.hidden_size
        self.hidden = nn.Linear(input_size, config.hidden_size)

    def initial_state(self, batch_size: int) -> FeedForwardState:  # noqa: ARG002
        return FeedForwardState()

    def forward(self, inputs: Tensor, state: FeedForwardState) -> tuple[Tensor, FeedForwardState]:
        return torch.tanh(self.hidden(inputs)), state


CellConfig = LSTMConfig | FeedForwardConfig

CELLS: dict[str, tuple[type[CellConfig], type[Cell]]] = {
    "lstm": (LSTMConfig, LSTM),
    "feed-forward": (FeedForwardConfig, FeedForward),
}


def build_cell(input_size: int, config: CellConfig) -> Cell:
    """Return the cell that `config` describes, with fresh weights."""
    _, cell = CELLS[config.kind]
    return cell(input_size, config)


def cell_config(values: Mapping[str, Any], where: str) -> CellConfig:
    """Return the config of a cell from plain values; `kind` says which cell."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in CELLS:
        raise ConfigError(f"{where}.kind: expected one of {', '.join(CELLS)}, got {kind!r}")
    return from_values(CELLS[kind][0], values, where)
