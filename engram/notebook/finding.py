"""Find checkpoints by name, and load them."""

import os
from pathlib import Path
from typing import Literal

from app.loading import device_of, load_checkpoint, server_budgets
from app.settings import Settings, load_settings
from engram.nearest import suggestion
from engram.notebook.given import whole_number
from engram.notebook.model import Model
from models.manifest import MANIFEST_FILE, ManifestError

SHIPPED = Path(__file__).parents[2] / "checkpoints"
"""The checkpoints of a checkout."""


def load(
    name: str | os.PathLike[str],
    *,
    backend: Literal["auto", "fused", "onnx", "torch"] | None = None,
    memory_size: int | None = None,
) -> Model:
    """Return the model of a checkpoint, to run it in this process.

    name: a directory with a manifest.json, or the name of a checkpoint in the directory that `engram serve` would serve
    (the setting checkpoints, ./checkpoints by default), or of one that ships with Engram. backend: computes the steps;
    None takes that of the settings, by default the fastest one. memory_size: of the runs; None: that of the settings,
    or the model's own. Raises ManifestError, SettingsError, InvalidRequest for an impossible memory size.
    """
    if memory_size is not None:
        memory_size = whole_number("memory_size", memory_size)
    settings = load_settings({"backend": backend})
    return model_of(find(name, settings.checkpoints), settings, memory_size)


def model_of(directory: Path, settings: Settings, memory_size: int | None) -> Model:
    """Return the model of the checkpoint in a directory. memory_size and errors: as of `load`."""
    loaded, steps = load_checkpoint(directory, settings, device_of(settings), server_budgets(settings))
    loaded.memory.check(memory_size)
    return Model(loaded, steps, settings.max_steps, memory_size)


def find(name: str | os.PathLike[str], checkpoints: Path) -> Path:
    """Return the directory of a checkpoint: `name` itself, or of that name in `checkpoints` or among those that ship.

    Raises ManifestError, which lists those that there are.
    """
    places = [checkpoints, SHIPPED]
    for directory in (Path(name), *(place / name for place in places)):
        if (directory / MANIFEST_FILE).is_file():
            return Path(os.path.abspath(directory))  # which follows no link: the directory has the name
    known = sorted({path.parent.name for place in places for path in place.glob(f"*/{MANIFEST_FILE}")})
    nearest = suggestion(os.fspath(name), known)
    raise ManifestError(
        f"there is no checkpoint {os.fspath(name)!r}: expected a directory with a {MANIFEST_FILE}, or "
        + (f"one of {', '.join(known)}" if known else f"a name in {checkpoints}, which has none")
        + (nearest and f".{nearest}")
    )
