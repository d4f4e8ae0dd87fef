"""Presets small enough to train in a second, and checkpoints made of them."""

import json
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import save_checkpoint
from training.config import Preset, preset_from_values
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]

LSTM = {"kind": "lstm", "hidden_size": 8}
FEED_FORWARD = {"kind": "feed-forward", "hidden_size": 8}
MEMORY = {"memory_size": 8, "word_size": 4, "output_activation": "sigmoid"}

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
    "rnn": {"kind": "rnn", "controller": LSTM, "output_activation": "sigmoid"},
}

TASK = {"name": "copy", "bits": 2, "max_length": 3}
TRAINING = {"updates": 30, "batch_size": 4, "learning_rate": 1e-2, "validate_every": 10, "validation_sequences": 8}

TOML = """
[task]
name = "copy"
bits = 2
max_length = 3

[model]
kind = "rnn"
controller = { kind = "lstm", hidden_size = 8 }
output_activation = "sigmoid"

[training]
updates = 30
batch_size = 4
learning_rate = 1e-2
validate_every = 10
validation_sequences = 8
"""


def values(model: str = "rnn", **training: Any) -> dict[str, Any]:
    """Return the values of a preset with this model, some of its training settings as given."""
    return {"name": "tiny", "task": dict(TASK), "model": dict(MODELS[model]), "training": TRAINING | training}


def preset(model: str = "rnn", **training: Any) -> Preset:
    return preset_from_values(values(model, **training))


def preset_with(table: str = "", name: str = "tiny", **changes: Any) -> Preset:
    """Return the preset of the small RNN with another name, or with some values of one table as given."""
    all_values = values() | {"name": name}
    if table:
        all_values[table] |= changes
    return preset_from_values(all_values)


def checkpoint(directory: Path, model: str = "rnn", updates: int = 0, **training: Any) -> Trainer:
    """Leave a checkpoint in `directory` after some updates, and return its trainer."""
    trainer = Trainer(preset(model, **training))
    for _ in range(updates):
        trainer.update()
    save_checkpoint(directory, trainer, "engram train tiny.toml --out there")
    return trainer


def random_checkpoint(directory: Path, model: str) -> Trainer:
    """Leave a checkpoint with normal weights and biases, so that every gate and every weighting is somewhere inside."""
    trainer = Trainer(preset(model))
    for parameter in trainer.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    save_checkpoint(directory, trainer, "engram train tiny.toml --out there")
    return trainer


def write_toml(path: Path, **training: Any) -> Path:
    """Write a preset file with some training settings as given, and return its path."""
    lines = [line for line in TOML.splitlines() if line.partition(" =")[0] not in training]
    path.write_text("\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in training.items())]))
    return path
