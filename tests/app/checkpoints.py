"""Small checkpoints with random weights, for the tests to serve."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.manifest import read_manifest
from models.registry import build, model_config
from tests.exports import export_once
from training.checkpoint import save_checkpoint, save_model, write_manifest
from training.preset import preset_from_values
from training.tasks import Task, task_values
from training.trainer import Trainer

CONTROLLER = {"kind": "lstm", "hidden_size": 8}

KINDS: dict[str, dict[str, Any]] = {
    "dnc": {"kind": "dnc", "memory_size": 8, "word_size": 4, "read_heads": 2, "controller": CONTROLLER},
    "sparse": {"kind": "dnc", "memory_size": 8, "word_size": 4, "links": "sparse", "links_per_slot": 3},
    "ntm": {"kind": "ntm", "memory_size": 8, "word_size": 4, "write_heads": 2, "controller": CONTROLLER},
    "before": {
        "kind": "ntm",
        "memory_size": 8,
        "word_size": 4,
        "read_heads": 2,
        "order": "before-controller",
        "style": "ntm-lasagne",
        "controller": {
            "kind": "stack",
            "cells": [CONTROLLER, {"kind": "gru", "hidden_size": 5}],
            "skip_connections": True,
        },
    },
    "rnn": {"kind": "rnn", "controller": CONTROLLER},
}

WITH_MEMORY = [kind for kind, config in KINDS.items() if "memory_size" in config]


def make_checkpoint(directory: Path, kind: str = "rnn", scale: float = 1.0, seed: int = 1) -> Path:
    """Write an exported checkpoint of the copy task with two bits, its weights multiplied by `scale`."""
    values = {
        "name": "tiny",
        "task": {"name": "copy", "bits": 2},
        "model": KINDS[kind],
        "training": {"updates": 1, "seed": seed},
    }
    trainer = Trainer(preset_from_values(values))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter *= scale
    save_checkpoint(directory, trainer, "engram train tiny.toml")
    export_once(directory) if scale == 1 else None
    return directory


def make_token_checkpoint(directory: Path, vocabulary_size: int = 7, exported: bool = True, **config: Any) -> Path:
    """Write a checkpoint of an RNN with random weights, which takes tokens and has three output classes."""
    embedding = {"vocabulary_size": vocabulary_size, "size": 5}
    values = {"input_size": 1, "output_size": 3, "output_activation": "softmax", "controller": CONTROLLER}
    values |= {"embedding": embedding, **config}
    torch.manual_seed(1)
    save_model(directory, build("rnn", values), "rnn", model_config("rnn", values), {"name": "words"}, {})
    export_once(directory) if exported else None
    return directory


def make_task_checkpoint(directory: Path, task: Task, config: dict[str, Any], evaluation: Any = ()) -> Path:
    """Write a checkpoint, not exported, of a model with random weights for `task`; config: of its model, with its kind.

    evaluation: the rows of the manifest's measured errors.
    """
    values = {**task.model_values, "controller": CONTROLLER, **config}
    if "embedding" in values:
        values["embedding"] = {**values["embedding"], "size": 5}
    kind = values.pop("kind")
    torch.manual_seed(1)
    save_model(directory, build(kind, values), kind, model_config(kind, values), task_values(task), {})
    write_manifest(directory, replace(read_manifest(directory), evaluation=list(evaluation)))
    return directory


def copy_checkpoint(source: Path, directory: Path) -> Path:
    """Return a copy of a checkpoint, for a test to damage."""
    return Path(shutil.copytree(source, directory))
