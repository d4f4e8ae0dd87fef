"""Checkpoints on disk: `manifest.json` and `model.safetensors` to serve, `training.safetensors` to go on training.

Each file is replaced by one rename, and at every moment the manifest's weights are there: the next weights are written
beside the current ones, the manifest with their hash is renamed into place, then they are renamed too.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kernels.support import NoKernel
from kernels.unroll import UnrollPath
from models.contract import MemoryModel, schemas
from models.manifest import MANIFEST_FILE, NEXT_WEIGHTS_FILE, WEIGHTS_FILE, Manifest, read_manifest, weights_file
from models.registry import AnyConfig, config_values
from training.distributed import ALONE, Processes
from training.files import TRAINING_FILE, CheckpointError, sync_directory, write_atomically
from training.preset import preset_from_values
from training.tasks import Task, task_values
from training.trainer import Trainer


def save_checkpoint(directory: Path, trainer: Trainer, command: str) -> None:
    """Write the run in its present state; `command`: the command line that started it, for the record."""
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {
        "preset": json.dumps(trainer.preset.values()),
        "progress": json.dumps(dataclasses.asdict(trainer.progress)),
    }
    write_atomically(directory / TRAINING_FILE, save(_contiguous(trainer.tensors()), metadata))

    preset = trainer.preset
    training: dict[str, Any] = {
        "command": command,
        "preset": preset.name,
        "seed": preset.training.seed,
        "updates": trainer.progress.update,
        "sequences": trainer.progress.sequences,
        "skipped_updates": trainer.progress.skipped,
        "reached_target": trainer.reached_target,
        "finished": trainer.finished,
        "converged_after": trainer.progress.converged_after,
    }
    for name in ("initial_weights", "rescheduled"):
        if getattr(trainer.progress, name):
            training[name] = getattr(trainer.progress, name)
    save_model(directory, trainer.model, preset.kind, preset.model, task_values(preset.task), training)


def save_model(
    directory: Path,
    model: MemoryModel[Any],
    kind: str,
    config: AnyConfig,
    task: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Write the weights of a model and the manifest that describes it; `training`: its record.

    If the same weights were saved before, the recorded command and the measurements of them stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    values = config_values(config)
    weights = with_metadata(save(_contiguous(model.state_dict())), weights_metadata(kind, values, task))
    weights_sha256 = hashlib.sha256(weights).hexdigest()
    _finish_last_save(directory)
    before = _manifest_of(directory, weights_sha256)
    if before and "command" in before.training:
        training = training | {"command": before.training["command"]}
    state, trace = schemas(model)
    manifest = Manifest(
        kind=kind,
        config=values,
        task=task,
        input_size=model.input_size,
        output_size=model.output_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        state=state,
        trace=trace,
        weights_sha256=weights_sha256,
        training=training,
        evaluation=before.evaluation if before else [],
    )
    write_atomically(directory / NEXT_WEIGHTS_FILE, weights)
    write_manifest(directory, manifest)
    _finish_last_save(directory)


def weights_metadata(kind: str, config: dict[str, Any], task: dict[str, Any]) -> dict[str, str]:
    """Return the metadata of a file of weights: its library, and the kind, sizes and task of the model."""
    return {
        "format": "pt",
        "library": "engram",
        "kind": kind,
        "config": json.dumps(config, sort_keys=True),
        "task": task["name"],
    }


def with_metadata(file: bytes, metadata: dict[str, str]) -> bytes:
    """Return a safetensors file with metadata in this order. By `save`, their order differs from call to call."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps({"__metadata__": metadata} | json.loads(file[8:end]), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # numbers begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + file[end:]


def write_manifest(directory: Path, manifest: Manifest) -> None:
    write_atomically(directory / MANIFEST_FILE, manifest.to_json().encode())


def save_evaluation(directory: Path, manifest: Manifest, rows: list[dict[str, Any]]) -> None:
    """Record measured errors in the manifest; each replaces the one with the same options and memory size."""

    def what(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["options"], row["memory_size"]

    evaluation = list(manifest.evaluation)
    for row in rows:
        at = next((index for index, other in enumerate(evaluation) if what(other) == what(row)), len(evaluation))
        evaluation[at : at + 1] = [row]
    write_manifest(directory, dataclasses.replace(manifest, evaluation=evaluation))


def resume(
    directory: Path,
    device: str = "cpu",
    path: UnrollPath = "auto",
    processes: Processes = ALONE,
    task: Task | None = None,
) -> Trainer:
    """Return the trainer of the run in `directory`, exactly as it was saved. Raises CheckpointError.

    task: the task of the run, with the present location of its data.
    """
    file_path = directory / TRAINING_FILE
    try:
        with safe_open(file_path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file_path}: {error}; there is no training run to resume here") from error
    if not metadata or not {"preset", "progress"} <= set(metadata):
        raise CheckpointError(f"{file_path}: it names no training run; engram train writes it")
    try:
        values = json.loads(metadata["preset"])
        if task and task.name == values["task"]["name"]:
            values["task"] |= {name: task.options[name] for name in task.places}
        trainer = Trainer(preset_from_values(values), device, path, processes)
        trainer.restore(tensors, json.loads(metadata["progress"]))
    except NoKernel:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{file_path}: it does not hold a training run: {error}") from error
    return trainer


def _manifest_of(directory: Path, weights_sha256: str) -> Manifest | None:
    """Return the manifest of the same weights, if they were saved before."""
    if not (directory / MANIFEST_FILE).exists():
        return None
    saved = read_manifest(directory)
    return saved if saved.weights_sha256 == weights_sha256 else None


def _finish_last_save(directory: Path) -> None:
    """Rename the next weights if the manifest names them, and delete them if it does not."""
    following = directory / NEXT_WEIGHTS_FILE
    if following.exists() and (directory / MANIFEST_FILE).exists():
        os.replace(weights_file(directory, read_manifest(directory)), directory / WEIGHTS_FILE)
        following.unlink(missing_ok=True)
        sync_directory(directory)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=False).contiguous() for name, tensor in tensors.items()}
