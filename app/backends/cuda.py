"""Steps computed in place by fused kernels on a GPU; the arena lies in its memory."""

from pathlib import Path

from app.backends.base import HostCopy, Slots, StateCopy, spec_of
from app.backends.in_place import InPlaceBackend
from app.backends.torch import axes_of
from kernels.gpu.step import GpuStep
from kernels.support import NoKernel, is_bounded
from models.artefact import load
from models.manifest import ManifestError


class CudaBackend(InPlaceBackend):
    """The arena belongs to the kernels, which change the states in place; torch holds the weights."""

    kind = "fused"

    def __init__(self, directory: Path, capacity: int, device: str = "cuda", large: str = "float32") -> None:
        """Load a checkpoint; capacity: slots that the arena has at most; large: the dtype of its largest leaves there.

        Raises ManifestError if the checkpoint cannot be loaded, or no kernel supports it.
        """
        model, manifest = load(directory)
        self.device = device
        state, trace = axes_of(model)
        self.spec = spec = spec_of(manifest, state, {name: trace[name] for name in manifest.trace})
        self._capacity, self.slots, self._bounded = capacity, Slots(capacity), is_bounded(manifest.config)
        try:
            self._steps: GpuStep = GpuStep(
                manifest.kind, manifest.config, model.to(device), spec.memory_size, spec.gates, large
            )
        except NoKernel as error:
            raise ManifestError(f"{directory}: {error}") from error

    def cool(self) -> None:
        """Do nothing: the memory of a GPU has no pages that could be returned."""

    def multi_step(self) -> "CudaBackend":
        return self

    def prompt(self) -> None:
        return None

    def _begin(self, slot: int) -> None:
        self._steps.clear(slot)

    def _copy(self, slot: int) -> StateCopy:
        try:
            return self._steps.copy(slot)
        except MemoryError:  # none is left on the device
            return HostCopy(self._steps.read(slot))
