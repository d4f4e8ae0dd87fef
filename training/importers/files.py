"""Make a checkpoint of a file of weights."""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.config import ConfigError
from models.registry import config_values
from training.checkpoint import save_model
from training.files import creating
from training.importers.formats import FORMATS
from training.importers.variables import Imported, ImportFailed, Variables
from training.tasks import NO_TASK, Task, task_values

Arrays = Mapping[str, NDArray[Any]]

STATE_DICTS = ("state_dict", "model_state_dict", "model")
"""Keys of the state_dict in a file that a trainer saved, beside its epoch, its optimizer, ..."""

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes of tensor names by DistributedDataParallel, torch.compile, or a module around the model."""


def import_checkpoint(
    original: str,
    file: Path,
    out: Path,
    cell: str | None,
    command: str,
    task: Task | None = None,
    finish: Callable[[Path], object] = lambda _: None,
) -> Imported:
    """Make a checkpoint in `out` of the weights in `file`; `cell`: the one to import if the file holds several.

    task: the task of the model, to measure and draw it here too. finish: adds files to the checkpoint, such as its
    export, before it is in `out`; if anything raises, `out` stays empty. Raises ImportFailed, CheckpointError if there
    is a checkpoint in `out`, ConfigError if the task needs another model.
    """
    with creating(out) as fresh:
        imported = read_original(original, file, cell)
        if task is not None:
            _require_fit(task, imported)
        described = {"name": NO_TASK} if task is None else task_values(task)
        training = {"command": command, "original": original}
        save_model(fresh, imported.model, imported.kind, imported.config, task=described, training=training)
        finish(fresh)
    return imported


def _require_fit(task: Task, imported: Imported) -> None:
    """Raise ConfigError unless a model fits the task; its activation may differ, for a loss takes logits."""
    values = config_values(imported.config)
    for name, due in task.model_values.items():
        if name != "output_activation" and values.get(name) != due:
            raise ConfigError(
                f"the task {task.name} with {task.options} needs a model with {name} = {due!r}, "
                f"but that of the file has {values.get(name)!r}"
            )


def read_original(original: str, file: Path, cell: str | None = None) -> Imported:
    """Return the model whose weights are in `file`. original: a key of FORMATS. Raises ImportFailed."""
    if FORMATS[original].deduce and _is_saved_by_torch(file):
        arrays = _load_state_dict(file)
    else:
        arrays = _of_cell(_load_npz(file), cell, file)
    under = {name.removeprefix("params/"): arrays[name] for name in arrays if name.startswith("params/")}
    variables = Variables(_bare(under or {name: arrays[name] for name in arrays if name != "config"}), str(file))
    try:
        with torch.no_grad():
            imported = FORMATS[original].build(_config(original, arrays, variables, file), variables)
    except ImportFailed:
        raise
    except ConfigError as error:
        raise ImportFailed(f"{file}: config: {error}") from error
    except KeyError as error:
        raise ImportFailed(
            f"{file}: config has no {error.args[0]!r}, which a {original} needs; it is a JSON string beside the "
            "variables, or plain values beside a state_dict"
        ) from error
    except (IndexError, TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        raise ImportFailed(f"{file}: config does not describe a {original}: {error}") from error
    variables.finish()
    return imported


def _config(original: str, arrays: Arrays, variables: Variables, file: Path) -> dict[str, Any]:
    """Return the config values that follow from the variables, overridden by those of the file."""
    deduce = FORMATS[original].deduce
    if "config" not in arrays and not deduce:
        raise ImportFailed(f"{file}: there is no config; it is a JSON string beside the variables")
    try:
        given = json.loads(str(arrays.get("config", "{}")))
    except ValueError as error:
        raise ImportFailed(f"{file}: config is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise ImportFailed(f"{file}: config does not describe a {original}: it must be an object, got {given!r}")
    return (deduce(variables) if deduce else {}) | given


def _bare(arrays: Arrays) -> Arrays:
    """Return the arrays by their names in the model, without the prefixes of wrappers."""
    for wrapper in WRAPPERS:
        if arrays and all(name.startswith(wrapper) for name in arrays):
            return _bare({name.removeprefix(wrapper): array for name, array in arrays.items()})
    return arrays


def _of_cell(arrays: Arrays, cell: str | None, file: Path) -> Arrays:
    """Return the arrays of one cell, if a file holds several."""
    cells = sorted(name.removesuffix("/config") for name in arrays if name.endswith("/config"))
    if cell is None and not (cells and "config" not in arrays):
        return arrays
    if cell not in cells:
        reason = f"there is no config of cell {cell!r}" if cell else "it holds several cells"
        raise ImportFailed(f"{file}: {reason}; --cell takes one of {', '.join(cells) or 'none: there are no cells'}")
    return {name.removeprefix(f"{cell}/"): array for name, array in arrays.items() if name.startswith(f"{cell}/")}


def _load_npz(file: Path) -> Arrays:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive raises nearly every kind, up to zlib's own
        raise ImportFailed(f"{file}: not an npz file of arrays: {error}") from error


def _is_saved_by_torch(file: Path) -> bool:
    """Return whether torch.save may have written a file: one with a pickle, and not an archive of .npy files."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except Exception:  # not an archive, or a damaged one
        return file.is_file()  # the format of older versions of torch


def _load_state_dict(file: Path) -> Arrays:
    """Return the tensors of a state_dict, and the config beside it as JSON. No other object is unpickled."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message advises to load the file unsafely
        raise ImportFailed(f"{file}: neither an npz file of arrays nor a state_dict of nothing but tensors") from error
    except Exception as error:  # a file that is no pickle raises nearly every kind
        reason = str(error).partition("\n")[0]
        raise ImportFailed(f"{file}: neither an npz file of arrays nor a state_dict of tensors: {reason}") from error
    nested = [
        saved[name] for name in STATE_DICTS if isinstance(saved, Mapping) and isinstance(saved.get(name), Mapping)
    ]
    tensors = nested[0] if nested else saved
    if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ImportFailed(
            f"{file}: expected a state_dict, names to tensors, by itself or as {', '.join(map(repr, STATE_DICTS))}, "
            f"got {type(tensors).__name__}"
        )
    arrays = {str(name): _numbers(file, name, tensor) for name, tensor in tensors.items()}
    return arrays | _config_beside(saved, file) if nested else arrays


def _numbers(file: Path, name: object, tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor of a state_dict as an array of float32."""
    if tensor.is_complex():
        raise ImportFailed(f"{file}: {name!r} must hold real numbers, got {tensor.dtype}")
    try:
        values: NDArray[Any] = tensor.detach().float().numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ImportFailed(
            f"{file}: {name!r} must be a dense tensor of numbers, got one of {tensor.dtype}, {tensor.layout}, on "
            f"{tensor.device}"
        ) from error
    return values


def _config_beside(saved: Mapping[str, Any], file: Path) -> dict[str, NDArray[Any]]:
    """Return the config that was saved beside a state_dict, if there is one: JSON, or plain values."""
    config = saved.get("config")
    if config is None:
        return {}
    try:
        return {"config": np.array(config if isinstance(config, str) else json.dumps(config))}
    except (TypeError, ValueError, RecursionError) as error:
        raise ImportFailed(f"{file}: config beside the state_dict is not plain values: {error}") from error
