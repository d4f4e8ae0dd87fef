"""Steps computed by torch, on the CPU or a CUDA device, where the arena then lies too."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from app.backends.base import Array, Slots, check_finite, spec_of
from models.artefact import ServedStep, load
from models.state import flatten


class TorchBackend:
    """The arena is one tensor per leaf, [capacity, ...]; a step gathers its slots, runs, and scatters."""

    kind = "torch"

    def __init__(self, directory: Path, capacity: int, device: str = "cpu", threads: int = 1) -> None:
        """Raises ManifestError where the checkpoint cannot be loaded."""
        model, manifest = load(directory)
        torch.set_num_threads(threads)
        self.device = device
        self.spec = spec_of(manifest)
        self._step = ServedStep(model.to(device))
        with torch.inference_mode():
            self._initial = {name: leaf[0].clone() for name, leaf in flatten(model.initial_state(1)).items()}
            self._arena = {name: leaf.new_zeros(capacity, *leaf.shape) for name, leaf in self._initial.items()}
        self._slots = Slots(capacity)

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        slot = self._slots.take()
        self.write(slot, state)
        return slot

    @torch.inference_mode()
    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        rows = torch.tensor(slots, device=self.device)
        leaves = [values.index_select(0, rows) for values in self._arena.values()]
        served, *rest = self._step(torch.from_numpy(inputs).to(self.device), *leaves)
        outputs = served.cpu().numpy()
        check_finite(outputs)
        for values, next_values in zip(self._arena.values(), rest, strict=False):
            values.index_copy_(0, rows, next_values)
        traces = dict(zip(self.spec.trace, rest[len(self._arena) :], strict=True))
        return outputs, {name: traces[name].cpu().numpy() for name in trace}

    def read(self, slot: int) -> dict[str, Array]:
        return {name: values[slot].cpu().numpy().copy() for name, values in self._arena.items()}

    @torch.inference_mode()
    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        for name, values in self._arena.items():
            values[slot] = self._initial[name] if state is None else torch.tensor(state[name])

    def close(self, slot: int) -> None:
        self._slots.give_back(slot)
