"""Recurrent cells as one-step functions with typed states: controllers of DNC and NTM, and the cells of RNNs."""

import collections
import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import ConfigError, from_values, require_at_least
from models.state import flatten, unflatten


class Cell(nn.Module, ABC):
    """One step of a recurrent layer: `outputs, next_state = cell(inputs, state)`."""

    output_size: int

    @abstractmethod
    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        """Return the state before the first step, every leaf [B, ...]."""

    @abstractmethod
    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """inputs: [B, input_size]. Returns outputs [B, output_size] and the next state."""


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "elu": functional.elu,
    "softsign": functional.softsign,
    "linear": lambda values: values,
    "identity": lambda values: values,
}
"""Activations, by their names in Keras and TensorFlow; linear and identity are the same one."""

ActivationName = Literal["tanh", "sigmoid", "relu", "elu", "softsign", "linear", "identity"]


def _require_activation(config: Any) -> None:
    if config.activation not in ACTIVATIONS:
        expected = f"one of {', '.join(ACTIVATIONS)}, got {config.activation!r}"
        raise ConfigError(f"{type(config).__name__}.activation must be {expected}")


@dataclass(frozen=True)
class BasicRNNConfig:
    kind: Literal["basic-rnn"] = "basic-rnn"
    hidden_size: int = 100
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden_size")
        _require_activation(self)


class HiddenState(NamedTuple):
    h: Tensor
    """Hidden state, the cell's output: [B, hidden_size]."""


class BasicRNN(Cell):
    """h_t = activation(W [x_t, h_{t-1}] + b) (Elman 1990)."""

    def __init__(self, input_size: int, config: BasicRNNConfig) -> None:
        super().__init__()
        self.output_size = config.hidden_size
        self.activation = ACTIVATIONS[config.activation]
        self.hidden = _linear(input_size + config.hidden_size, config.hidden_size)

    def initial_state(self, batch_size: int) -> HiddenState:
        return HiddenState(self.hidden.weight.new_zeros(batch_size, self.output_size))

    def forward(self, inputs: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        h = self.activation(self.hidden(torch.cat([inputs, state.h], 1)))
        return h, HiddenState(h)


@dataclass(frozen=True)
class GRUConfig:
    """activation is that of the candidate state; the gates always have a sigmoid."""

    kind: Literal["gru"] = "gru"
    hidden_size: int = 100
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden_size")
        _require_activation(self)


class GRU(Cell):
    """Gated recurrent unit (Cho et al. 2014), the reset gate before the candidate's product, as in TensorFlow."""

    def __init__(self, input_size: int, config: GRUConfig) -> None:
        super().__init__()
        self.output_size = config.hidden_size
        self.activation = ACTIVATIONS[config.activation]
        self.gates = _linear(input_size + config.hidden_size, 2 * config.hidden_size)
        self.candidate = _linear(input_size + config.hidden_size, config.hidden_size)

    def initial_state(self, batch_size: int) -> HiddenState:
        return HiddenState(self.gates.weight.new_zeros(batch_size, self.output_size))

    def forward(self, inputs: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        # r, u = sigmoid(...);  c = activation(W [x, r * h_{t-1}] + b);  h_t = u * h_{t-1} + (1 - u) * c
        reset, update = torch.sigmoid(self.gates(torch.cat([inputs, state.h], 1))).chunk(2, 1)
        candidate = self.activation(self.candidate(torch.cat([inputs, reset * state.h], 1)))
        h = torch.lerp(candidate, state.h, update)
        return h, HiddenState(h)


@dataclass(frozen=True)
class LSTMConfig:
    """forget_bias is added to the forget gate at every step, as TensorFlow's cells do.

    With peepholes, the gates see the cell state. cell_clip bounds the cell state to [-cell_clip, cell_clip].
    projection_size: the size of a linear map to the output, whose values projection_clip bounds. 0 turns each off.
    layer_norm normalises the gates before their biases: each-gate each by itself, and the cell state before the output
    (Ba et al. 2016); sonnet the four gates together; adnc as sonnet, and the cell state before the output.
    activation is that of the candidate state and of the cell state in the output; the gates always have a sigmoid.
    """

    kind: Literal["lstm"] = "lstm"
    hidden_size: int = 100
    forget_bias: float = 1.0
    peepholes: bool = False
    cell_clip: float = 0.0
    projection_size: int = 0
    projection_clip: float = 0.0
    layer_norm: Literal["none", "each-gate", "sonnet", "adnc"] = "none"
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden_size")
        _require_activation(self)
        require_at_least(self, 0, "cell_clip", "projection_size", "projection_clip")
        if self.projection_clip and not self.projection_size:
            raise ConfigError("LSTMConfig.projection_clip needs a projection_size, got 0")


NORM_EPSILON = {"each-gate": 1e-5, "sonnet": 1e-5, "adnc": 1e-6}
"""The value that is added to the variance, by the kind of layer_norm."""


class LSTMState(NamedTuple):
    h: Tensor
    """Hidden state, the cell's output: [B, hidden_size], or [B, projection_size]."""
    c: Tensor
    """Cell state: [B, hidden_size]."""


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    Peepholes and projection are those of Sak et al. 2014, as in TensorFlow's LSTMCell.
    """

    def __init__(self, input_size: int, config: LSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.output_size = config.projection_size or config.hidden_size
        self.activation = ACTIVATIONS[config.activation]
        self.gates = _linear(input_size + self.output_size, 4 * config.hidden_size)
        if config.peepholes:
            self.peepholes = nn.Parameter(torch.zeros(3, config.hidden_size))
        if config.projection_size:
            self.projection = nn.Linear(config.hidden_size, config.projection_size, bias=False)
        if config.layer_norm != "none":
            self.gate_scale = nn.Parameter(torch.ones(4, config.hidden_size))
        if config.layer_norm in ("each-gate", "adnc"):
            self.cell_norm = nn.LayerNorm(config.hidden_size, NORM_EPSILON[config.layer_norm])

    def initial_state(self, batch_size: int) -> LSTMState:
        zeros = self.gates.weight.new_zeros
        return LSTMState(h=zeros(batch_size, self.output_size), c=zeros(batch_size, self.config.hidden_size))

    def forward(self, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        # i, f, o = sigmoid(...), j = activation(...);  c_t = f * c_{t-1} + i * j;  h_t = o * activation(c_t)
        config = self.config
        input_gate, candidate, forget_gate, output_gate = self._gates(torch.cat([inputs, state.h], 1)).unbind(1)
        if config.peepholes:
            input_gate = input_gate + self.peepholes[0] * state.c
            forget_gate = forget_gate + self.peepholes[1] * state.c
        kept = torch.sigmoid(forget_gate + config.forget_bias) * state.c
        c = _clip(kept + torch.sigmoid(input_gate) * self.activation(candidate), config.cell_clip)
        if config.peepholes:
            output_gate = output_gate + self.peepholes[2] * c
        put_out = self.cell_norm(c) if config.layer_norm in ("each-gate", "adnc") else c
        h = torch.sigmoid(output_gate) * self.activation(put_out)
        if config.projection_size:
            h = _clip(self.projection(h), config.projection_clip)
        return h, LSTMState(h, c)

    def _gates(self, inputs: Tensor) -> Tensor:
        """Return the gates i, j, f, o before their activation: [B, 4, hidden_size]."""
        style, shape = self.config.layer_norm, (-1, 4, self.config.hidden_size)
        if style == "none":
            return torch.Tensor.view(self.gates(inputs), shape)
        products = functional.linear(inputs, self.gates.weight).view(shape)
        together = products.shape[2:] if style == "each-gate" else products.shape[1:]
        normalised = functional.layer_norm(products, together, eps=NORM_EPSILON[style])
        return normalised * self.gate_scale + self.gates.bias.view(4, -1)


@dataclass(frozen=True)
class FeedForwardConfig:
    """`layers` layers of hidden_size units each, one on top of the other."""

    kind: Literal["feed-forward"] = "feed-forward"
    hidden_size: int = 100
    layers: int = 1
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden_size", "layers")
        _require_activation(self)


class NoState(NamedTuple):
    """The state of a cell that remembers nothing."""


class FeedForward(Cell):
    """h_t = activation(W x_t + b), layer by layer; it has no state."""

    def __init__(self, input_size: int, config: FeedForwardConfig) -> None:
        super().__init__()
        self.output_size = config.hidden_size
        self.activation = ACTIVATIONS[config.activation]
        sizes = [input_size, *[config.hidden_size] * config.layers]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(sizes))

    def initial_state(self, batch_size: int) -> NoState:  # noqa: ARG002
        return NoState()

    def forward(self, inputs: Tensor, state: NoState) -> tuple[Tensor, NoState]:
        for layer in self.layers:
            inputs = self.activation(layer(inputs))
        return inputs, state


@dataclass(frozen=True)
class StackConfig:
    """Cells one on top of the other. With skip_connections, each cell sees the inputs too, and the output is the
    concatenation of all outputs, as in Sonnet's DeepRNN."""

    cells: tuple["CellConfig", ...]
    skip_connections: bool = False
    kind: Literal["stack"] = "stack"

    def __post_init__(self) -> None:
        if not self.cells:
            raise ConfigError("StackConfig.cells must have at least one cell, got none")


class Stack(Cell):
    """A stack of cells. The state has a field for each cell, from the bottom: layer0, layer1, ..."""

    def __init__(self, input_size: int, config: StackConfig) -> None:
        super().__init__()
        self.skip_connections = config.skip_connections
        self.cells = nn.ModuleList()
        size, sizes = input_size, []
        for cell_config in config.cells:
            cell = build_cell(size, cell_config)
            self.cells.append(cell)
            sizes.append(cell.output_size)
            size = cell.output_size + (input_size if config.skip_connections else 0)
        self.output_size: int = sum(sizes) if config.skip_connections else sizes[-1]
        self.state = _stack_state(len(sizes))

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        states: tuple[Any, ...] = self.state(*(cell.initial_state(batch_size) for cell in self.cells))  # type: ignore[operator]
        return states

    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        below, outputs, states = inputs, [], []
        for cell, cell_state in zip(self.cells, state, strict=True):
            output, next_state = cell(below, cell_state)
            outputs.append(output)
            states.append(next_state)
            below = torch.cat([inputs, output], 1) if self.skip_connections else output
        return torch.cat(outputs, 1) if self.skip_connections else outputs[-1], self.state(*states)


@functools.cache
def _stack_state(depth: int) -> type[Any]:
    return collections.namedtuple("StackState", [f"layer{number}" for number in range(depth)])


@dataclass(frozen=True)
class DropoutConfig:
    """The rates at which a cell's inputs, outputs and hidden state are dropped, in training only.

    The other values are scaled up. The cell state c of an LSTM is never dropped, as in TensorFlow's wrapper.
    """

    cell: "CellConfig"
    inputs: float = 0.0
    outputs: float = 0.0
    state: float = 0.0
    kind: Literal["dropout"] = "dropout"

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "state"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"DropoutConfig.{name} must be in [0, 1), got {getattr(self, name)}")


class Dropout(Cell):
    """A cell with dropout around it (Srivastava et al. 2014; for recurrent cells Zaremba et al. 2014)."""

    def __init__(self, input_size: int, config: DropoutConfig) -> None:
        super().__init__()
        self.cell = build_cell(input_size, config.cell)
        self.output_size = self.cell.output_size
        self.config = config

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        return self.cell.initial_state(batch_size)

    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, next_state = self.cell(self._drop(inputs, self.config.inputs), state)
        if self.config.state:
            leaves = flatten(next_state)
            dropped = {name: self._drop(leaf, self.config.state) for name, leaf in leaves.items() if _is_hidden(name)}
            next_state = unflatten(leaves | dropped, next_state)
        return self._drop(outputs, self.config.outputs), next_state

    def _drop(self, values: Tensor, share: float) -> Tensor:
        return functional.dropout(values, share, self.training)


def _is_hidden(name: str) -> bool:
    return name.rpartition(".")[2] == "h"


def _linear(input_size: int, output_size: int) -> nn.Linear:
    """Return a linear layer with uniform weights within 1 / sqrt(input_size) and biases of zero."""
    layer = nn.Linear(input_size, output_size)
    bound = 1 / math.sqrt(input_size)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer


def _clip(values: Tensor, bound: float) -> Tensor:
    return values.clamp(-bound, bound) if bound else values


CellConfig = BasicRNNConfig | GRUConfig | LSTMConfig | FeedForwardConfig | StackConfig | DropoutConfig

CELLS: dict[str, tuple[type[CellConfig], type[Cell]]] = {
    "basic-rnn": (BasicRNNConfig, BasicRNN),
    "gru": (GRUConfig, GRU),
    "lstm": (LSTMConfig, LSTM),
    "feed-forward": (FeedForwardConfig, FeedForward),
    "stack": (StackConfig, Stack),
    "dropout": (DropoutConfig, Dropout),
}


def build_cell(input_size: int, config: CellConfig) -> Cell:
    """Return the cell that `config` describes, with fresh weights."""
    _, cell = CELLS[config.kind]
    return cell(input_size, config)


def cell_config(values: Mapping[str, Any], where: str) -> CellConfig:
    """Return the config of a cell from plain values; their `kind` names the cell."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in CELLS:
        raise ConfigError(f"{where}.kind: expected one of {', '.join(CELLS)}, got {kind!r}")
    inner = dict(values)
    if isinstance(inner.get("cells"), Sequence):
        inner["cells"] = tuple(
            cell_config(cell, f"{where}.cells[{number}]") if isinstance(cell, Mapping) else cell
            for number, cell in enumerate(inner["cells"])
        )
    if isinstance(inner.get("cell"), Mapping):
        inner["cell"] = cell_config(inner["cell"], f"{where}.cell")
    return from_values(CELLS[kind][0], inner, where)
