"""Checkpoints on disk: `manifest.json` and `model.safetensors` to serve, `training.safetensors` to go on training.

Each file is replaced in one move, and at every moment the manifest's weights are there: the next weights are written
beside the current ones, the manifest that names them by their hash is moved into place, then they take the name.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from models.contract import MemoryModel, schemas
from models.manifest import MANIFEST_FILE, NEXT_WEIGHTS_FILE, WEIGHTS_FILE, Manifest, read_manifest, weights_file
from models.registry import build, config_values
from training.config import preset_from_values, task_values
from training.tasks import Task, build_task
from training.trainer import Trainer

TRAINING_FILE = "training.safetensors"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what was expected and what came."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, finds the old one or the new one, never a part."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    _sync_directory(path.parent)


def save_checkpoint(directory: Path, trainer: Trainer, command: str) -> None:
    """Write the run as it stands; `command` is how it was started, for the record."""
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {
        "preset": json.dumps(trainer.preset.values()),
        "progress": json.dumps(dataclasses.asdict(trainer.progress)),
    }
    write_atomically(directory / TRAINING_FILE, save(_contiguous(trainer.tensors()), metadata))

    weights = save(_contiguous(trainer.model.state_dict()))
    progress, training = trainer.progress, trainer.preset.training
    manifest = _describe(trainer, hashlib.sha256(weights).hexdigest()) | {
        "training": {
            "command": command,
            "preset": trainer.preset.name,
            "seed": training.seed,
            "updates": progress.update,
            "sequences": progress.sequences,
            "skipped_updates": progress.skipped,
            "reached_target": trainer.reached_target,
        },
    }
    write_atomically(directory / NEXT_WEIGHTS_FILE, weights)
    write_atomically(directory / MANIFEST_FILE, Manifest(**manifest).to_json().encode())
    os.replace(directory / NEXT_WEIGHTS_FILE, directory / WEIGHTS_FILE)
    _sync_directory(directory)


def resume(directory: Path, device: str = "cpu") -> Trainer:
    """Return the trainer of the run in `directory`, exactly as it was saved. Raises CheckpointError."""
    path = directory / TRAINING_FILE
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {error}; there is no training run to resume here") from error
    trainer = Trainer(preset_from_values(json.loads(metadata["preset"])), device)
    trainer.restore(tensors, json.loads(metadata["progress"]))
    return trainer


def load_model(
    directory: Path, device: str = "cpu", memory_size: int | None = None
) -> tuple[MemoryModel[Any], Task, Manifest]:
    """Return the model of a checkpoint, its task and its manifest.

    memory_size: another number of memory slots than it was trained with. Raises ManifestError, ConfigError or
    CheckpointError where the files do not make a model.
    """
    manifest = read_manifest(directory)
    config = dict(manifest.config)
    if memory_size is not None:
        if "memory_size" not in config:
            raise CheckpointError(f"{directory}: a model of kind {manifest.kind!r} has no memory to resize")
        config["memory_size"] = memory_size
    model = build(manifest.kind, config)
    path = weights_file(directory, manifest)
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model.to(device).eval(), build_task(manifest.task), manifest


def _describe(trainer: Trainer, weights_sha256: str) -> dict[str, Any]:
    model, preset = trainer.model, trainer.preset
    state, trace = schemas(model)
    return {
        "kind": preset.kind,
        "config": config_values(preset.model),
        "task": task_values(preset.task),
        "input_size": model.input_size,
        "output_size": model.output_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "state": state,
        "trace": trace,
        "weights_sha256": weights_sha256,
    }


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=False).contiguous() for name, tensor in tensors.items()}


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
