"""Small checkpoints with random weights, for the tests to serve."""

import shutil
from pathlib import Path

import torch

from training.checkpoint import save_checkpoint
from training.config import preset_from_values
from training.export import export
from training.trainer import Trainer

CONTROLLER = {"kind": "lstm", "hidden_size": 8}

KINDS = {
    "dnc": {"memory_size": 8, "word_size": 4, "read_heads": 2, "controller": CONTROLLER},
    "ntm": {"memory_size": 8, "word_size": 4, "write_heads": 2, "controller": CONTROLLER},
    "rnn": {"controller": CONTROLLER},
}


def make_checkpoint(directory: Path, kind: str = "rnn", scale: float = 1.0, seed: int = 1) -> Path:
    """Write an exported checkpoint of the copy task with two bits, its weights multiplied by `scale`."""
    values = {
        "name": "tiny",
        "task": {"name": "copy", "bits": 2},
        "model": {"kind": kind, **KINDS[kind]},
        "training": {"updates": 1, "seed": seed},
    }
    trainer = Trainer(preset_from_values(values))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter *= scale
    save_checkpoint(directory, trainer, "engram train tiny.toml")
    export(directory) if scale == 1 else None
    return directory


def copy_checkpoint(source: Path, directory: Path) -> Path:
    """Return a copy of a checkpoint, for a test to damage."""
    return Path(shutil.copytree(source, directory))
