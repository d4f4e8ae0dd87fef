"""A recurrent cell, or a stack of them, with a linear layer on top: no memory but the hidden state."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from models.cells import CellConfig, LSTMConfig, build_cell
from models.config import ConfigError
from models.contract import MemoryModel, ModelConfig, Trace


@dataclass(frozen=True)
class RNNConfig(ModelConfig):
    """readout adds a linear layer on the cell; without it, the outputs are the cell's."""

    controller: CellConfig = field(default_factory=LSTMConfig)
    readout: bool = True


class RNNState(NamedTuple):
    controller: Any


class RNN(MemoryModel[RNNState]):
    """y_t = W h_t + b; without the readout, y_t = h_t."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        self.config = config
        self.controller = build_cell(self.encoded_size, config.controller)
        if config.readout:
            self.output = nn.Linear(self.controller.output_size, config.output_size)
        elif config.output_size != self.controller.output_size:
            raise ConfigError(
                f"RNNConfig.output_size must be the cell's {self.controller.output_size} without a readout, "
                f"got {config.output_size}"
            )

    def initial_state(self, batch_size: int, memory_size: int | None = None) -> RNNState:
        if memory_size is not None:
            raise ConfigError(f"memory_size {memory_size} was asked for, but an RNN has no memory to resize")
        return RNNState(self.controller.initial_state(batch_size))

    def _step(self, inputs: Tensor, state: RNNState) -> tuple[Tensor, RNNState, Trace]:
        hidden, controller = self.controller(self.encode(inputs), state.controller)
        return self.output(hidden) if self.config.readout else hidden, RNNState(controller), {}
