"""The models whose step is timed, with random weights, and the comparison of their steps."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from benchmarks.timing import Array, check_close
from models.cells import LSTMConfig
from models.contract import MemoryModel
from models.dnc import DNCConfig
from models.ntm import NTMConfig
from models.registry import AnyConfig, build, config_values
from training.checkpoint import save_model

WIDTH = 9
"""The size of inputs and of outputs."""

SIZES: dict[str, AnyConfig] = {
    "S": DNCConfig(WIDTH, WIDTH, memory_size=16, word_size=16, read_heads=4, controller=LSTMConfig(hidden_size=64)),
    "M": DNCConfig(WIDTH, WIDTH, memory_size=128, word_size=32, read_heads=4, controller=LSTMConfig(hidden_size=128)),
    "L": DNCConfig(WIDTH, WIDTH, memory_size=256, word_size=64, read_heads=4, controller=LSTMConfig(hidden_size=256)),
    "NTM": NTMConfig(WIDTH, WIDTH, memory_size=128, word_size=20, controller=LSTMConfig(hidden_size=100)),
}

ABOUT_SIZES = (
    "S: DNC, 16 slots of 16 numbers, 4 read heads, LSTM 64. M: DNC, 128 x 32, 4 read heads, LSTM 128. "
    "L: DNC, 256 x 64, 4 read heads, LSTM 256. NTM: 128 x 20, one head each, LSTM 100."
)

CHECKED_STEPS = 10

Step: TypeAlias = Callable[[Array], Array]
"""A call that advances its states by one step: inputs [B, 9] -> outputs [B, 9]."""


def random_model(config: AnyConfig) -> MemoryModel[Any]:
    """Return a model with random weights, the same at every call."""
    torch.manual_seed(0)
    return build(kind_of(config), config_values(config))


def kind_of(config: AnyConfig) -> str:
    return "dnc" if isinstance(config, DNCConfig) else "ntm"


def random_bits(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)


def save(size: str, directory: Path) -> None:
    """Write the checkpoint of a size, without a graph."""
    config = SIZES[size]
    save_model(directory, random_model(config), kind_of(config), config, {"name": "none"}, {})


def check_steps(case: str, steps: Mapping[str, Step], batch: int, tolerance: float) -> None:
    """Compare runs from the state before the first step with the first run. Raises WrongOutputs."""
    reference, *others = steps
    for inputs in random_bits(CHECKED_STEPS, batch, WIDTH):
        expected = steps[reference](inputs)
        for name in others:
            check_close(
                f"{case}: outputs by {name} beside those by {reference}", steps[name](inputs), expected, tolerance
            )
