"""Steps computed by torch, on the CPU or a CUDA device; the arena lies on the same device."""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from app.backends.base import Array, Axes, HostCopy, Shapes, Slots, other_rows, spec_of
from models.artefact import ServedStep, load
from models.contract import MemoryModel, schemas
from models.state import flatten


class TorchBackend:
    """The arena is one tensor per leaf, [slots, ...]; a step gathers its slots, runs the model, and scatters."""

    kind = "torch"

    def __init__(self, directory: Path, capacity: int, device: str = "cpu", threads: int = 1) -> None:
        """Load a checkpoint; capacity: slots that the arena has at most; threads: of one step.

        Raises ManifestError if the checkpoint cannot be loaded.
        """
        model, manifest = load(directory)
        torch.set_num_threads(threads)
        self.device = device
        state, trace = axes_of(model)
        self.spec = spec_of(manifest, state, {name: trace[name] for name in manifest.trace})
        self._model = model.to(device)
        self._step = ServedStep(self._model, self.spec.trace)
        self._capacity = capacity
        self._clear()

    def resized(self, memory_size: int) -> "TorchBackend":
        other = copy.copy(self)
        other.spec = self.spec.resized(memory_size)
        other._clear()
        return other

    def forced(self, force: str | None) -> "TorchBackend":
        other = copy.copy(self)
        other.spec = self.spec.forced(force)
        gates = {name: self._numbers_like_weights(gate) for name, gate in other.spec.gates.items()}
        other._model = self._model.forced(gates)
        other._step = ServedStep(other._model)
        other._clear()
        return other

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        return self.slots.open(self._grow, lambda slot: self.write(slot, state))

    def prepare(self, count: int, steps: int) -> None:
        """Do nothing: a step allocates what it needs."""

    @torch.inference_mode()
    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        self.slots.check(slots)
        numbers = torch.tensor(slots, device=self.device)
        leaves = [values.index_select(0, numbers) for values in self._arena.values()]
        served, *rest = self._step(torch.from_numpy(inputs).to(self.device), *leaves)
        leaves, every = rest[: len(leaves)], dict(zip(self.spec.trace, rest[len(leaves) :], strict=True))
        outputs, traces = served.cpu().numpy(), {name: every[name].cpu().numpy() for name in trace}
        failed = _failed_rows(served, *leaves)
        if failed:
            others = torch.tensor(other_rows(len(slots), failed), dtype=torch.int64, device=self.device)
            numbers, leaves = numbers[others], [leaf[others] for leaf in leaves]

        def scatter() -> None:
            for values, next_values in zip(self._arena.values(), leaves, strict=True):
                values.index_copy_(0, numbers, next_values)

        return self.slots.end_step(slots, scatter, failed, outputs, traces)

    def read(self, slot: int) -> dict[str, Array]:
        self.slots.check([slot])
        return {name: values[slot].cpu().numpy().copy() for name, values in self._arena.items()}

    def copy(self, slot: int) -> HostCopy:
        return HostCopy(self.read(slot))

    @torch.inference_mode()
    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        with self.slots.replacing(slot):
            for name, values in self._arena.items():
                values[slot] = self._initial[name] if state is None else torch.tensor(state[name])

    def close(self, slot: int) -> None:
        self.slots.give_back(slot)

    def cool(self) -> None:
        if self.device == "cpu":
            self.slots.cool(values.numpy() for values in self._arena.values())

    def may_fail(self, inputs: Array) -> bool:  # noqa: ARG002 - with any inputs
        return True

    def multi_step(self) -> None:
        return None

    def prompt(self) -> None:
        return None

    def _numbers_like_weights(self, values: Array) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    @torch.inference_mode()
    def _clear(self) -> None:
        """Start with an empty arena of this memory size."""
        with _memory_errors():
            state = self._model.initial_state(1, self.spec.memory_size)
        self._initial = {name: leaf[0].clone() for name, leaf in flatten(state).items()}
        self._arena = {name: leaf.new_empty(0, *leaf.shape) for name, leaf in self._initial.items()}
        self.slots = Slots(self._capacity)

    @torch.inference_mode()
    def _grow(self, capacity: int) -> None:
        with _memory_errors():
            self._arena = {name: _longer(values, capacity) for name, values in self._arena.items()}


def _failed_rows(*tensors: torch.Tensor) -> list[int]:
    """Return the rows in which any number is not finite. tensors: [B, ...] each."""
    finite = torch.stack([values.isfinite().reshape(len(values), -1).all(dim=1) for values in tensors]).all(dim=0)
    failed: list[int] = finite.logical_not().nonzero().flatten().tolist()
    return failed


def _longer(values: torch.Tensor, rows: int) -> torch.Tensor:
    result = values.new_empty(rows, *values.shape[1:])
    result[: len(values)] = values
    return result


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise MemoryError if no memory is left: torch raises RuntimeError, or a subclass of its own on CUDA."""
    try:
        yield
    except RuntimeError as error:
        raise MemoryError(str(error)) from error


def axes_of(model: MemoryModel[Any]) -> tuple[Axes, Axes]:
    """Return the axes of the model's state and of its traces. An axis that grows with memory_size is of locations."""
    here = schemas(model)
    larger = here if model.memory_size is None else schemas(model, model.memory_size + 1)
    state, trace = (_location_axes(*pair) for pair in zip(here, larger, strict=True))
    return state, trace


def _location_axes(shapes: Shapes, larger: Shapes) -> Axes:
    return {
        name: [size if size == more else None for size, more in zip(shape, larger[name], strict=True)]
        for name, shape in shapes.items()
    }
