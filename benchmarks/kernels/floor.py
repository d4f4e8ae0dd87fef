"""The floor of a step: the work that no kernel can avoid, at the speed of the machine for each kind of work alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from kernels.step import FusedStep
from models.cells import FeedForwardConfig
from models.contract import MemoryModel
from models.registry import config_values
from models.rnn import RNN, RNNConfig
from models.state import flatten

PASSED = ("memory", "read_weights", "write_weights", "usage", "link", "precedence_weights")
"""The leaves of a state that a step reads and writes once each: the memory, its links and its weightings."""

NUMBER_BYTES = 4

PRODUCT_SIZE = 384
"""Rows and columns of the matrices whose product is timed: they fit the cache and take far longer than a call."""

PRODUCT_ROWS, PRODUCT_LAYERS = 96, 4
"""Rows of the kernels' matrix products, which are of rows and weights."""

LEAST_COPIED = 1 << 18
"""Bytes below which the time of a copy would be mostly that of its call."""


class Work(NamedTuple):
    """The work of a step of a batch: the floating-point operations of its matrix products, the bytes read and written.

    Of a DNC with one write head the bytes are 8 N^2 + 8 N W + 8 (3 + R) N a session: links, memory, usage, precedence
    and weightings. Of an NTM they are 8 N W + 8 (R + V) N: memory and weightings. The weights are not counted.
    """

    operations: int
    bytes: int

    @property
    def working_set(self) -> int:
        """The bytes of the states that are read and written."""
        return self.bytes // 2

    def seconds(self, operations_per_second: float, bytes_per_second: float) -> float:
        return self.operations / operations_per_second + self.bytes / bytes_per_second


def work(model: MemoryModel[Any], batch: int) -> Work:
    """Return the work of a step of `batch` sessions."""
    weights = sum(weight.numel() for weight in model.parameters() if weight.dim() == 2)
    state = flatten(model.initial_state(1))
    numbers = sum(leaf.numel() for name, leaf in state.items() if name in PASSED)
    return Work(2 * weights * batch, 2 * NUMBER_BYTES * numbers * batch)


# The speed of the machine


class Yardstick(NamedTuple):
    """A call to time, and the work that it does."""

    call: Callable[[], object]
    amount: float


def matrix_product() -> Yardstick:
    """Return a matrix product in float32 by torch, and its floating-point operations."""
    left, right = torch.randn(2, PRODUCT_SIZE, PRODUCT_SIZE)
    product = torch.empty_like(left)
    return Yardstick(lambda: torch.mm(left, right, out=product), 2 * PRODUCT_SIZE**3)


def kernel_product() -> Yardstick:
    """Return the matrix products of the kernels at a size that suits them, and their floating-point operations.

    They are the linear layers of a network, which are nearly all of its step.
    """
    config = RNNConfig(
        PRODUCT_SIZE,
        PRODUCT_SIZE,
        controller=FeedForwardConfig(hidden_size=PRODUCT_SIZE, layers=PRODUCT_LAYERS - 1, activation="identity"),
    )
    weights = {name: weight.detach().numpy() for name, weight in RNN(config).state_dict().items()}
    fused = FusedStep("rnn", config_values(config), weights, {}, None)
    fused.grow(PRODUCT_ROWS)
    inputs = np.random.default_rng(0).random((PRODUCT_ROWS, PRODUCT_SIZE), np.float32)
    operations = 2 * PRODUCT_LAYERS * PRODUCT_ROWS * PRODUCT_SIZE**2
    return Yardstick(lambda: fused.step(range(PRODUCT_ROWS), inputs), operations)


def copy_within(size: int) -> Yardstick:
    """Return a copy from one half of a buffer of `size` bytes to the other, and the bytes read and written."""
    source, target = np.ones((2, max(size, LEAST_COPIED) // 2), np.int8)
    return Yardstick(lambda: np.copyto(target, source), source.nbytes + target.nbytes)
