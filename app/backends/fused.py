"""Steps computed in place by the fused kernels, on the CPU: no torch needed."""

from pathlib import Path
from typing import Self

from safetensors import SafetensorError
from safetensors.numpy import load_file

from app.backends.base import HostCopy, Slots
from app.backends.graph import StepGraph
from app.backends.in_place import InPlaceBackend
from kernels.step import FusedStep
from kernels.support import NoKernel, is_bounded
from models.manifest import ManifestError, check_header, weights_file


class FusedBackend(InPlaceBackend):
    """The arena belongs to the kernels, which change the states in place.

    The ONNX graph describes the model and computes the state before the first step, but no other step.
    """

    kind = "fused"
    device = "cpu"

    def __init__(self, directory: Path, capacity: int, threads: int = 1) -> None:
        """Load a checkpoint; capacity: slots that the arena has at most; threads: of one step.

        Raises ManifestError if the checkpoint cannot be loaded, or no kernel supports it.
        """
        self._graph = StepGraph(directory)
        self.spec, manifest = self._graph.spec, self._graph.manifest
        path = weights_file(directory, manifest)
        try:
            check_header(path)
            self._steps: FusedStep = FusedStep(
                manifest.kind, manifest.config, load_file(path), self.spec.state, self.spec.memory_size, threads
            )
        except (SafetensorError, NoKernel) as error:
            raise ManifestError(f"{path}: {error}") from error
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise ManifestError(f"{path}: these weights are not those of the config: {error!r}") from error
        self._initial = self._graph.first_state(self.spec)
        self._capacity, self.slots = capacity, Slots(capacity)
        self._bounded = is_bounded(manifest.config)

    def resized(self, memory_size: int) -> Self:
        other = super().resized(memory_size)
        other._initial = self._graph.first_state(other.spec)
        return other

    @property
    def spare(self) -> int:
        return self.slots.spare

    def cool(self) -> None:
        self.slots.cool(self._steps.leaves)

    def multi_step(self) -> "FusedBackend":
        return self

    def prompt(self) -> "FusedBackend":
        return self

    def _begin(self, slot: int) -> None:
        self._steps.write(slot, self._initial)

    def _copy(self, slot: int) -> HostCopy:
        return HostCopy(self._steps.read(slot))
