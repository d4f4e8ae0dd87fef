"""Presets small enough to train in a second, and checkpoints made of them."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from training.checkpoint import save_checkpoint
from training.optimizers import OptimizerConfig
from training.preset import Preset, preset_from_values
from training.trainer import Trainer
from training.updates import KernelUpdates

ROOT = Path(__file__).parents[2]

LSTM = {"kind": "lstm", "hidden_size": 8}
FEED_FORWARD = {"kind": "feed-forward", "hidden_size": 8}
MEMORY = {"memory_size": 8, "word_size": 4}

MODELS: dict[str, dict[str, Any]] = {
    "dnc": {"kind": "dnc", "controller": LSTM, **MEMORY},
    "dnc-2-read-3-write-heads": {"kind": "dnc", "controller": LSTM, **MEMORY, "read_heads": 2, "write_heads": 3},
    "ntm": {"kind": "ntm", "controller": LSTM, **MEMORY},
    "ntm-feed-forward-shift-5": {
        "kind": "ntm",
        "controller": FEED_FORWARD,
        **MEMORY,
        "shift_width": 5,
        "read_heads": 2,
    },
    "rnn": {"kind": "rnn", "controller": LSTM},
}

TASK = {"name": "copy", "bits": 2, "length": [1, 3]}
TRAINING = {"updates": 30, "batch_size": 4, "validate_every": 10, "validation_sequences": 8}
OPTIMIZER = {"learning_rate": 1e-2}

COMMAND = "engram train tiny.toml --out there"


def values(model: str = "rnn", **changes: Any) -> dict[str, Any]:
    """Return the values of a preset with this model and some settings as given.

    changes: settings of training or of the optimiser, whichever has one of the name; or `task`, options to change;
    or `curriculum` or `evaluation`, lists.
    """
    lists = {name: changes.pop(name) for name in ("curriculum", "evaluation") if name in changes}
    task = TASK | changes.pop("task", {})
    known = {field.name for field in dataclasses.fields(OptimizerConfig)}
    optimizer = {name: value for name, value in changes.items() if name in known}
    training = {name: value for name, value in changes.items() if name not in known}
    return {
        "name": "tiny",
        "task": task,
        "model": dict(MODELS[model]),
        "training": TRAINING | training,
        "optimizer": OPTIMIZER | optimizer,
        **lists,
    }


def preset(model: str = "rnn", **changes: Any) -> Preset:
    return preset_from_values(values(model, **changes))


def preset_with(table: str = "", name: str = "tiny", **changes: Any) -> Preset:
    """Return the preset of the small RNN with another name, or with some values of one table as given."""
    all_values = values() | {"name": name}
    if table:
        all_values[table] |= changes
    return preset_from_values(all_values)


def checkpoint(directory: Path, model: str = "rnn", updates: int = 0, **changes: Any) -> Trainer:
    """Write a checkpoint to `directory` after some updates, and return its trainer."""
    trainer = Trainer(preset(model, **changes))
    for _ in range(updates):
        trainer.update()
    save_checkpoint(directory, trainer, COMMAND)
    return trainer


def random_checkpoint(directory: Path, model: str) -> Trainer:
    """Write a checkpoint with normal weights and biases, so that every gate and weighting is inside its range."""
    trainer = Trainer(preset(model))
    for parameter in trainer.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    save_checkpoint(directory, trainer, COMMAND)
    return trainer


def write_toml(path: Path, model: str = "rnn", **changes: Any) -> Path:
    """Write a preset file with some settings as given, and return its path."""
    tables = values(model, **changes)
    del tables["name"]
    lines = []
    for name, value in tables.items():
        for table in value if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            lines += [f"{key} = {_toml(item)}" for key, item in table.items()]
    path.write_text("\n".join(lines))
    return path


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


@contextlib.contextmanager
def spoiled_gradient(trainer: Trainer, factor: float) -> Iterator[None]:
    """Multiply the gradient of output.bias by a factor in the updates during the context."""
    if not isinstance(trainer.updates, KernelUpdates):
        hook = trainer.model.output.bias.register_hook(lambda gradient: gradient * factor)
        yield
        hook.remove()
        return
    fused = trainer.updates.fused
    backward, packed = fused._backward, fused._packed

    def spoiled(*given: Any) -> None:
        backward(*given)
        gradients = packed.unpack(packed.d_values)
        packed.d_values[:] = packed.pack({**gradients, "output.bias": factor * gradients["output.bias"]})

    with mock.patch.object(fused, "_backward", spoiled):
        yield
