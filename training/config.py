"""What a training run is made of: a preset is a TOML file with a task, a model and how to train it."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import ConfigError, from_values, require_at_least
from models.registry import AnyConfig, config_values, model_config
from training.tasks import Task, build_task

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class TrainingConfig:
    """How to train: Adam with a norm clip and a linear decay of the learning rate.

    updates: at most so many; the rate falls in a line from learning_rate to final_rate times that at the last one.
    clip_norm: the gradient is scaled down to this norm.
    validate_every: every so many updates, `validation_sequences` fresh sequences of the longest length in training
    are counted; `patience` counts in a row with at most target_errors wrong bits per sequence end the run.
    seed: of the weights and of the data.
    """

    updates: int
    batch_size: int = 16
    learning_rate: float = 1e-3
    final_rate: float = 0.05
    clip_norm: float = 1.0
    validate_every: int = 100
    validation_sequences: int = 256
    target_errors: float = 0.0
    patience: int = 3
    seed: int = 1

    def __post_init__(self) -> None:
        require_at_least(self, 1, "updates", "batch_size", "validate_every", "validation_sequences", "patience")
        require_at_least(self, 0, "learning_rate", "final_rate", "clip_norm", "target_errors", "seed")

    def rate(self, update: int) -> float:
        """Return the learning rate of the update with this number, counted from 0."""
        progress = update / max(1, self.updates - 1)
        return self.learning_rate * (1 - (1 - self.final_rate) * progress)


@dataclass(frozen=True)
class Preset:
    """One training run: `name` is the preset's, for the record."""

    name: str
    task: Task
    kind: str
    model: AnyConfig
    training: TrainingConfig

    def values(self) -> dict[str, Any]:
        """Return the preset as plain values: the inverse of `preset_from_values`."""
        sizes = ("input_size", "output_size")
        model = {name: value for name, value in config_values(self.model).items() if name not in sizes}
        return {
            "name": self.name,
            "task": task_values(self.task),
            "model": {"kind": self.kind, **model},
            "training": dataclasses.asdict(self.training),
        }

    def with_training(self, **changes: Any) -> "Preset":
        """Return the preset with some training settings changed; those that are None stay as they are."""
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self, training=dataclasses.replace(self.training, **given))


def task_values(task: Task) -> dict[str, Any]:
    """Return a task as plain values: its name and its options."""
    return {"name": task.name, **dataclasses.asdict(task)}  # type: ignore[call-overload]


def preset_names() -> list[str]:
    """Return the names of the presets that come with Engram."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name_or_path: str) -> Preset:
    """Return the preset with this name, or the one in this TOML file. Raises ConfigError."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in preset_names():
            raise ConfigError(
                f"no preset {name_or_path!r}: expected one of {', '.join(preset_names())}, or the path of a .toml file"
            )
        path = PRESETS / f"{name_or_path}.toml"
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"preset {path}: {error}") from error
    if "name" in values:
        raise ConfigError(f"preset {path}: unknown key 'name': a preset has the name of its file")
    return preset_from_values({"name": path.stem, **values})


def preset_from_values(values: Mapping[str, Any]) -> Preset:
    """Return the preset made of the tables `task`, `model` and `training`; the model's sizes are the task's."""
    unknown = sorted(set(values) - {"name", "task", "model", "training"})
    if unknown:
        raise ConfigError(f"preset: unknown key {unknown[0]!r}; known keys are task, model, training")
    task = build_task(_table(values, "task"))
    sizes = {"input_size": task.input_size, "output_size": task.output_size}
    model = dict(_table(values, "model"))
    for name in sizes:
        if name in model:
            raise ConfigError(f"model.{name}: the task sets it, here to {sizes[name]}; leave it out")
    kind = model.pop("kind", None)
    return Preset(
        name=values["name"],
        task=task,
        kind=kind,
        model=model_config(kind, sizes | model),
        training=from_values(TrainingConfig, _table(values, "training"), "training"),
    )


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = values.get(name)
    if not isinstance(table, Mapping):
        raise ConfigError(f"preset: table [{name}] is missing")
    return table
