"""A model made by hand that copies without training."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.contract import MemoryModel
from models.rnn import RNNConfig
from training.tasks import Copy


class DelayLineState(NamedTuple):
    waiting: Tensor
    """The inputs of the last `length` + 1 steps, oldest first: [B, length + 1, bits]"""


class DelayLine(MemoryModel[DelayLineState]):
    """Return the inputs of `length` + 1 steps ago, times `certainty`: right on copy sequences of that length."""

    def __init__(self, task: Copy, length: int, certainty: float = 10.0) -> None:
        super().__init__(RNNConfig(task.input_size, task.output_size, output_activation="sigmoid"))
        self.length = length
        self.certainty = nn.Parameter(torch.tensor(certainty))

    def initial_state(self, batch_size, memory_size=None):
        return DelayLineState(torch.zeros(batch_size, self.length + 1, self.output_size))

    def _step(self, inputs, state):
        oldest = state.waiting[:, 0]
        waiting = torch.cat([state.waiting[:, 1:], inputs[:, None, : self.output_size]], dim=1)
        return self.certainty * (2 * oldest - 1), DelayLineState(waiting), {}
