"""The settings of the benchmark of a GPU."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.backends.base import Backend
from app.backends.torch import TorchBackend
from benchmarks.gpu.card import Limits
from benchmarks.kernels.sizes import save
from models.manifest import MANIFEST_FILE


def fused(checkpoint: Path, capacity: int, device: str) -> Backend:
    from app.backends.cuda import CudaBackend  # which needs Triton

    return CudaBackend(checkpoint, capacity, device)


BACKENDS: dict[str, Callable[[Path, int, str], Backend]] = {"fused": fused, "torch": TorchBackend}
"""Back ends by name, of a checkpoint, a capacity and a device."""


@dataclass(frozen=True)
class GpuPlan:
    """The device, the models, the batches, and the times of a measurement.

    end: the time of time.monotonic() after which nothing more is begun. directory: a place for checkpoints.
    """

    device: str
    sizes: Sequence[str]
    batches: Sequence[int]
    training_batch: int
    rounds: int
    seconds: float
    end: float
    is_compiled: bool
    limits: Limits
    directory: Path

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.end

    def checkpoint(self, size: str) -> Path:
        """Return the checkpoint of a size, without a graph, made if it is not there yet."""
        path = self.directory / size
        if not (path / MANIFEST_FILE).exists():
            save(size, path)
        return path
