"""All implementations of a step of the models that are timed."""

from collections.abc import Sequence
from pathlib import Path

import torch

from app.backends.base import Backend
from benchmarks.kernels.sizes import SIZES, Step, kind_of, random_model, save
from benchmarks.timing import Array
from kernels.library import Library
from kernels.step import FusedStep
from models.contract import schemas
from models.manifest import ONNX_FILE
from models.registry import config_values
from models.state import flatten
from training.export import export


def checkpoint(size: str, directory: Path) -> Path:
    """Return the checkpoint of a size with its ONNX graph, made below the directory if it is not there yet."""
    path = directory / size
    if not (path / ONNX_FILE).exists():
        save(size, path)
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
