"""The settings of the training benchmark."""

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
"""The preset that trains each model, and the changes to it, by the name of the model."""

LENGTHS: Range = (1, 20)

NEVER = 1 << 62


@dataclass(frozen=True)
class TrainingPlan:
    """The models, batches and times of a measurement.

    updates: the least updates of a turn. scripts: the public implementations. directory: a place for metrics.
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
    """Return the preset that trains a model to copy, without validations."""
    preset_name, changes = PRESETS[name]
    changed = load_preset(preset_name, {**changes, "task.length": list(lengths)})
    return changed.with_training(batch_size=batch, validate_every=NEVER)
