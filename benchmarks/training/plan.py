"""What of training is to be measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.training.scripts import Script
from training.preset import Preset, load_preset
from training.tasks import Range

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "NTM": ("ntm-copy", {}),
    "DNC R=4": ("dnc-copy", {"model.read_heads": 4}),
    "DNC R=1": ("dnc-copy", {"model.read_heads": 1}),
}
"""By the name of a model: the preset that trains it, and what is changed of it."""

LENGTHS: Range = (1, 20)

NEVER = 1 << 62


@dataclass(frozen=True)
class TrainingPlan:
    """What is to be measured, and for how long.

    updates: of a turn, at least. scripts: the public implementations. directory: where metrics may be left.
    """

    batches: Sequence[int]
    updates: int
    rounds: int
    seconds: float
    scripts: Sequence[Script]
    directory: Path

    def cases(self) -> Iterator[tuple[str, int]]:
        """Yield each model with each batch."""
        return product(PRESETS, self.batches)


def preset(name: str, batch: int, lengths: Range = LENGTHS) -> Preset:
    """Return what trains a model to copy, and never validates it."""
    preset_name, changes = PRESETS[name]
    changed = load_preset(preset_name, {**changes, "task.length": list(lengths)})
    return changed.with_training(batch_size=batch, validate_every=NEVER)
