"""Begin a run from the weights of a checkpoint."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.artefact import load
from models.registry import config_values, model_config
from training.files import CheckpointError
from training.preset import Preset
from training.trainer import Trainer

FREE = ("model.memory_size", "model.output_activation")
"""Options of a model that may differ: no weight depends on memory_size, and a loss takes outputs before activation."""


def begin_from(trainer: Trainer, directory: Path) -> None:
    """Give a new run the weights of the checkpoint in `directory`, trained or imported.

    Raises ManifestError, and CheckpointError if its model is not that of the run, with the options that differ.
    """
    model, manifest = load(directory)
    theirs = {"kind": manifest.kind, **config_values(model_config(manifest.kind, manifest.config))}
    _require_same(directory, theirs, trainer.preset)
    weights, due = model.state_dict(), trainer.model.state_dict()
    for name, weight in weights.items():
        if weight.shape != due[name].shape:
            raise CheckpointError(
                f"{directory}: {name} has shape {list(weight.shape)}, but this run needs {list(due[name].shape)}: "
                f"--set model.memory_size={model.memory_size} makes them the same"
            )
    trainer.model.load_state_dict(weights)
    trainer.progress.initial_weights = manifest.weights_sha256


def _require_same(directory: Path, theirs: Mapping[str, Any], preset: Preset) -> None:
    """Raise CheckpointError, with the --set options that help if there are any, unless the models are the same."""
    ours = {"kind": preset.kind, **config_values(preset.model)}
    differences = [entry for entry in _differences("model", theirs, ours) if entry[0] not in FREE]
    if not differences:
        return
    shown = ", ".join(f"{name} = {their!r}, but this run has {our!r}" for name, their, our in differences)
    due = set(_names("model", preset.task.model_values))
    if due & {name for name, _, _ in differences}:
        raise CheckpointError(f"{directory} has {shown}: the task needs another model")
    changes = shlex.join(f"{name}={json.dumps(their)}" for name, their, _ in differences)
    raise CheckpointError(f"{directory} has {shown}: --set {changes} makes them the same")


def _differences(name: str, theirs: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each option that differs, by its name for --set; for a cell of another kind, the whole cell."""
    if not isinstance(theirs, Mapping) or not isinstance(ours, Mapping):
        if theirs != ours:
            yield name, theirs, ours
    elif theirs.get("kind") != ours.get("kind"):
        yield (f"{name}.kind", theirs["kind"], ours["kind"]) if name == "model" else (name, theirs, ours)
    else:
        for key in theirs:
            yield from _differences(f"{name}.{key}", theirs[key], ours[key])


def _names(name: str, values: Any) -> Iterator[str]:
    """Yield the name of every value in tables within tables."""
    if not isinstance(values, Mapping):
        yield name
        return
    for key, value in values.items():
        yield from _names(f"{name}.{key}", value)
