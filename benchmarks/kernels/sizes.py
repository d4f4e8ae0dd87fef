"""The models whose step is timed, with random weights."""

from typing import Any

import numpy as np
import torch

from benchmarks.timing import Array
from models.cells import LSTMConfig
from models.contract import MemoryModel
from models.dnc import DNCConfig
from models.ntm import NTMConfig
from models.registry import AnyConfig, build, config_values

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


def random_model(config: AnyConfig) -> MemoryModel[Any]:
    """Return a model with random weights, the same at every call."""
    torch.manual_seed(0)
    return build(kind_of(config), config_values(config))


def kind_of(config: AnyConfig) -> str:
    return "dnc" if isinstance(config, DNCConfig) else "ntm"


def random_bits(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)
