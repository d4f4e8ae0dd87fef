"""The models whose step is timed, and all implementations of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from app.backends.base import Backend
from benchmarks.timing import Array
from kernels.library import Library
from kernels.step import FusedStep
from models.cells import LSTMConfig
from models.contract import MemoryModel, schemas
from models.dnc import DNCConfig
from models.manifest import ONNX_FILE
from models.ntm import NTMConfig
from models.registry import AnyConfig, build, config_values
from models.state import flatten
from training.checkpoint import save_model
from training.export import export

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


def checkpoint(size: str, directory: Path) -> Path:
    """Return the checkpoint of a size with its ONNX graph, made below the directory if it is not there yet."""
    path = directory / size
    if not (path / ONNX_FILE).exists():
        config = SIZES[size]
        save_model(path, random_model(config), kind_of(config), config, {"name": "none"}, {})
        export(path)
    return path


def fused_step(size: str, rooms: int, threads: int = 1, kernels: Library | None = None) -> FusedStep:
    """Return the kernel with a number of states before the first step."""
    config = SIZES[size]
    model = random_model(config)
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    state, _ = schemas(model)
    fused = FusedStep(kind_of(config), config_values(config), weights, state, model.memory_size, threads, kernels)
    fused.grow(rooms)
    first = {name: leaf[0].numpy() for name, leaf in flatten(model.initial_state(1)).items()}
    for slot in range(rooms):
        fused.write(slot, first)
    return fused


# The steps


def by_torch(size: str, batch: int) -> Step:
    """Return the step of the model itself, its state in tensors."""
    model = random_model(SIZES[size]).eval()
    state = model.initial_state(batch)

    @torch.no_grad()
    def step(inputs: Array) -> Array:
        nonlocal state
        outputs, state, _ = model.step(torch.from_numpy(inputs), state)
        return outputs.numpy()

    return step


def by_backend(backend: Backend, batch: int) -> Step:
    """Return the step of a back end, its states in its arena."""
    slots = [backend.open() for _ in range(batch)]
    return lambda inputs: backend.step(slots, inputs)[0]


def by_kernel(fused: FusedStep, slots: Sequence[int]) -> Step:
    """Return the step of the kernel, in place in its arena."""
    return lambda inputs: fused.step(slots, inputs)[0]
