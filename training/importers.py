"""Weights of the original implementations as checkpoints of Engram.

A file is an npz of the original's variables by their own names, with or without `params/` before them, and `config`, a
JSON string. Every variable must be there in its shape, and none may be left over. Source: the cells of
TensorFlow's tf.nn.rnn_cell.
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.cells import (
    GRU,
    LSTM,
    BasicRNN,
    BasicRNNConfig,
    GRUConfig,
    LSTMConfig,
    Stack,
    StackConfig,
)
from models.config import ConfigError
from models.contract import MemoryModel
from models.dnc import DNC, DNCConfig
from models.registry import AnyConfig
from models.rnn import RNN, RNNConfig
from training.checkpoint import save_model


class ImportFailed(ValueError):
    """A file that does not hold what the original has; the message names the variable, what was expected, what came."""


@dataclass(frozen=True)
class Imported:
    """A model with the weights of an original."""

    kind: str
    config: AnyConfig
    model: MemoryModel[Any]


class Variables:
    """The variables of an original by their own names; each is taken once, in the shape that it must have."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], where: str) -> None:
        self._left = dict(arrays)
        self._where = where

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a variable. Raises ImportFailed where it is missing or of another shape."""
        if name not in self._left:
            rest = ", ".join(sorted(self._left)) or "nothing"
            raise ImportFailed(f"{self._where}: variable {name!r} of shape {list(shape)} is missing; left are {rest}")
        array = self._left.pop(name)
        if array.shape != shape:
            raise ImportFailed(
                f"{self._where}: variable {name!r} must have shape {list(shape)}, got {list(array.shape)}"
            )
        if not np.isfinite(array).all():
            raise ImportFailed(f"{self._where}: variable {name!r} has values that are not finite")
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    def rows(self, name: str) -> int:
        """Return the first size of a variable, from which others follow; 0 where it is missing."""
        return int(self._left[name].shape[0]) if name in self._left and self._left[name].ndim else 0

    def finish(self) -> None:
        """Raise ImportFailed where a variable was not taken."""
        if self._left:
            name, array = next(iter(sorted(self._left.items())))
            raise ImportFailed(
                f"{self._where}: variable {name!r} of shape {list(array.shape)} has no place in the model"
            )


def import_checkpoint(original: str, file: Path, out: Path, cell: str | None, command: str) -> Imported:
    """Turn the weights in `file` into a checkpoint in `out`; `cell` is the one to take where the file holds several.

    Raises ImportFailed.
    """
    imported = read_original(original, file, cell)
    training = {"command": command, "original": original}
    save_model(out, imported.model, imported.kind, imported.config, task={"name": "none"}, training=training)
    return imported


def read_original(original: str, file: Path, cell: str | None = None) -> Imported:
    """Return the model whose weights are in `file`. original: a key of FORMATS. Raises ImportFailed."""
    named = arrays = _load(file)
    if cell is not None:
        arrays = {name.removeprefix(f"{cell}/"): array for name, array in arrays.items() if name.startswith(f"{cell}/")}
    if "config" not in arrays:
        cells = sorted(name.removesuffix("/config") for name in named if name.endswith("/config"))
        remedy = f"--cell takes one of {', '.join(cells)}" if cells else "config is a JSON string beside the variables"
        raise ImportFailed(f"{file}: there is no config{f' of cell {cell!r}' if cell else ''}; {remedy}")
    try:
        config = json.loads(str(arrays["config"]))
    except ValueError as error:
        raise ImportFailed(f"{file}: config is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ImportFailed(f"{file}: config does not describe a {original}: it must be an object, got {config!r}")
    variables = {name.removeprefix("params/"): arrays[name] for name in arrays if name.startswith("params/")}
    taken = Variables(variables or {name: arrays[name] for name in arrays if name != "config"}, str(file))
    try:
        with torch.no_grad():
            imported = FORMATS[original](config, taken)
    except ConfigError as error:
        raise ImportFailed(f"{file}: config: {error}") from error
    except (KeyError, IndexError, TypeError) as error:
        raise ImportFailed(f"{file}: config does not describe a {original}: {error!r}") from error
    taken.finish()
    return imported


def _load(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ImportFailed(f"{file}: not an npz file of arrays: {error}") from error


# TensorFlow's rnn_cell


TF_SCOPES = {
    "BasicRNNCell": "basic_rnn_cell",
    "GRUCell": "gru_cell",
    "BasicLSTMCell": "basic_lstm_cell",
    "LSTMCell": "lstm_cell",
}


def _tf_rnn_cell(config: Mapping[str, Any], variables: Variables) -> Imported:
    described = config["cells"]
    scopes = [TF_SCOPES[cell["type"]] for cell in described]
    if len(scopes) > 1:
        scopes = [f"multi_rnn_cell/cell_{number}/{scope}" for number, scope in enumerate(scopes)]
    cells = [_tf_cell_config(cell) for cell in described]
    first_kernel = f"{scopes[0]}/{'gates/' if described[0]['type'] == 'GRUCell' else ''}kernel:0"
    model_config = RNNConfig(
        input_size=variables.rows(first_kernel) - _output_size(cells[0]),
        output_size=_output_size(cells[-1]),
        controller=cells[0] if len(cells) == 1 else StackConfig(tuple(cells)),
        readout=False,
    )
    model = RNN(model_config)
    layers = list(model.controller.cells) if isinstance(model.controller, Stack) else [model.controller]
    for layer, scope in zip(layers, scopes, strict=True):
        _fill_tf_cell(layer, scope, variables)
    return Imported("rnn", model_config, model)


def _tf_cell_config(described: Mapping[str, Any]) -> BasicRNNConfig | GRUConfig | LSTMConfig:
    size = described["num_units"]
    if described["type"] == "BasicRNNCell":
        return BasicRNNConfig(hidden_size=size)
    if described["type"] == "GRUCell":
        return GRUConfig(hidden_size=size)
    return LSTMConfig(
        hidden_size=size,
        forget_bias=float(described["forget_bias"]),
        peepholes=bool(described.get("use_peepholes")),
        cell_clip=float(described.get("cell_clip") or 0),
        projection_size=described.get("num_proj") or 0,
        projection_clip=float(described.get("proj_clip") or 0),
    )


def _output_size(config: BasicRNNConfig | GRUConfig | LSTMConfig) -> int:
    return (isinstance(config, LSTMConfig) and config.projection_size) or config.hidden_size


def _fill_tf_cell(cell: nn.Module, scope: str, variables: Variables) -> None:
    """Both order an LSTM's gates i, j, f, o, and a GRU's r, u."""
    if isinstance(cell, BasicRNN):
        _fill(cell.hidden, variables, f"{scope}/kernel:0", f"{scope}/bias:0")
    elif isinstance(cell, GRU):
        _fill(cell.gates, variables, f"{scope}/gates/kernel:0", f"{scope}/gates/bias:0")
        _fill(cell.candidate, variables, f"{scope}/candidate/kernel:0", f"{scope}/candidate/bias:0")
    elif isinstance(cell, LSTM):
        _fill(cell.gates, variables, f"{scope}/kernel:0", f"{scope}/bias:0")
        size = cell.config.hidden_size
        if cell.config.peepholes:
            diagonals = [variables.take(f"{scope}/w_{gate}_diag:0", size) for gate in "ifo"]
            cell.peepholes.copy_(torch.stack(diagonals))
        if cell.config.projection_size:
            kernel = variables.take(f"{scope}/projection/kernel:0", size, cell.config.projection_size)
            cell.projection.weight.copy_(kernel.T)


def _fill(layer: nn.Linear, variables: Variables, weight: str, bias: str) -> None:
    """Take a linear layer that computes x @ weight + bias."""
    layer.weight.copy_(variables.take(weight, layer.in_features, layer.out_features).T)
    layer.bias.copy_(variables.take(bias, layer.out_features))


# DeepMind's DNC


def _deepmind_dnc(config: Mapping[str, Any], variables: Variables) -> Imported:
    """Its controller is Sonnet's LSTM, which adds 1 to the forget gate; its gates are ordered i, j, f, o, as ours."""
    model_config = DNCConfig(
        input_size=config["input_size"],
        output_size=config["output_size"],
        memory_size=config["memory_size"],
        word_size=config["word_size"],
        read_heads=config["num_reads"],
        write_heads=config["num_writes"],
        controller=LSTMConfig(hidden_size=config["hidden_size"]),
        strength="softplus",
        clip=float(config.get("clip_value") or 0),
    )
    model = DNC(model_config)
    assert isinstance(model.controller, LSTM)
    _fill(model.controller.gates, variables, "dnc/lstm/w_gates:0", "dnc/lstm/b_gates:0")
    for name, weight, bias in model.interface.each():
        theirs = f"dnc/memory_access/{DEEPMIND_NAMES.get(name, name)}"
        weight.copy_(variables.take(f"{theirs}/w:0", *weight.T.shape).T)
        bias.copy_(variables.take(f"{theirs}/b:0", *bias.shape))
    _fill(model.output, variables, "dnc/output_linear/w:0", "dnc/output_linear/b:0")
    return Imported("dnc", model_config, model)


DEEPMIND_NAMES = {"free_gates": "free_gate", "read_modes": "read_mode"}


FORMATS: dict[str, Callable[[Mapping[str, Any], Variables], Imported]] = {
    "deepmind-dnc": _deepmind_dnc,
    "tf-rnn-cell": _tf_rnn_cell,
}
