"""The settings of the kernels' benchmark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.peers import Peer


@dataclass(frozen=True)
class KernelsPlan:
    """The models, batches and times of a measurement.

    sizes: the models that step. batches: those of all tables, or None for each table's own. peers: the public
    implementations that train too. directory: a place for checkpoints.
    """

    sizes: Sequence[str]
    batches: Sequence[int] | None
    rounds: int
    seconds: float
    peers: Sequence[Peer]
    directory: Path

    def cases(self, models: Sequence[str], batches: Sequence[int]) -> Iterator[tuple[str, int]]:
        """Yield each of a table's models with each batch."""
        return product(models, self.batches or batches)
