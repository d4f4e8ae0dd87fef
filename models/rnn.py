"""A recurrent cell, or a stack of them, with a linear layer on top: no memory but the hidden state."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from models.cells import CellConfig, LSTMConfig, build_cell
from models.config import ConfigError, require_at_least
from models.contract import Activation, MemoryModel, Trace


@dataclass(frozen=True)
class RNNConfig:
    """readout is the linear layer on the cell; without it, the outputs are the cell's."""

    input_size: int
    output_size: int
    controller: CellConfig = field(default_factory=LSTMConfig)
    readout: bool = True
    output_activation: Activation = "identity"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "input_size", "output_size")


class RNNState(NamedTuple):
    controller: Any


class RNN(MemoryModel[RNNState]):
    """y_t = W h_t + b, or h_t itself."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        self.config = config
        self.controller = build_cell(config.input_size, config.controller)
        if config.readout:
            self.output = nn.Linear(self.controller.output_size, config.output_size)
        elif config.output_size != self.controller.output_size:
            raise ConfigError(
                f"RNNConfig.output_size must be the cell's {self.controller.output_size} without a readout, "
                f"got {config.output_size}"
            )

    def initial_state(self, batch_size: int) -> RNNState:
        return RNNState(self.controller.initial_state(batch_size))

    def step(self, inputs: Tensor, state: RNNState) -> tuple[Tensor, RNNState, Trace]:
        hidden, controller = self.controller(inputs, state.controller)
        return self.output(hidden) if self.config.readout else hidden, RNNState(controller), {}
