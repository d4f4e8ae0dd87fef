"""Presets: a preset is a TOML file with a task, a model, and the settings of training and measuring it."""

import dataclasses
import math
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.config import ConfigError, from_values, require_at_least
from models.contract import checked_memory_size
from models.registry import AnyConfig, config_values, model_config
from training.optimizers import OptimizerConfig
from training.tasks import Task, build_task, task_values

PRESETS = Path(__file__).parent / "presets"

TABLES = ("task", "model", "training", "optimizer")
LISTS = ("curriculum", "evaluation")

MOST_SEED = 2**32 - 1
"""The greatest seed: generators accept all numbers that are derived from it, such as the seeds of several processes."""

RECENT = 50
"""The number of updates over which a run averages the losses and errors that it shows and decides by."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of training.

    updates: the most updates, each of batch_size sequences. With mixed_lengths every sequence draws its own sizes, and
    the shorter ones are masked; otherwise all sequences of a batch have the sizes that the batch drew.
    validate_every: updates between validations, each on `validation_sequences` fresh sequences of the greatest sizes in
    training. A run has converged when they have at most target_errors each, beyond the task's optimum; `patience` such
    validations in a row end it; with 0 none do.
    skips: the most updates in a row that are left out because the loss or a gradient is not finite; the next such
    update stops the run.
    seed: of the weights and of the data.
    """

    updates: int
    batch_size: int = 16
    mixed_lengths: bool = False
    validate_every: int = 100
    validation_sequences: int = 256
    target_errors: float = 0.0
    patience: int = 3
    skips: int = 5
    seed: int = 1

    def __post_init__(self) -> None:
        require_at_least(self, 1, "updates", "batch_size", "validate_every", "validation_sequences")
        require_at_least(self, 0, "target_errors", "patience", "skips", "seed")
        if self.seed > MOST_SEED:
            raise ConfigError(f"TrainingConfig.seed must be at most {MOST_SEED}, got {self.seed}")


@dataclass(frozen=True)
class Stage:
    """A lesson of a curriculum, before the task itself: the task with some options changed.

    until: the lesson ends when the mean loss of the last RECENT updates, in nats per element asked for, is below this.
    """

    options: Mapping[str, Any]
    until: float


@dataclass(frozen=True)
class Point:
    """A measurement of a trained model: the task with some options changed, and the memory size, if not as trained.

    target: the errors per sequence to stay below, beyond the optimum; published: the results of others, for the record.
    """

    options: Mapping[str, Any]
    memory_size: int | None = None
    target: float | None = None
    published: str | None = None


@dataclass(frozen=True)
class Preset:
    """One training run: `name` is the preset's, for the record.

    curriculum: lessons in order, before the task itself; evaluation: the measurements of the trained model.
    """

    name: str
    task: Task
    kind: str
    model: AnyConfig
    training: TrainingConfig
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    curriculum: tuple[Stage, ...] = ()
    evaluation: tuple[Point, ...] = ()

    def values(self) -> dict[str, Any]:
        """Return the preset as plain values: the inverse of `preset_from_values`."""
        return {
            "name": self.name,
            "task": task_values(self.task),
            "model": {"kind": self.kind, **_without(config_values(self.model), self.task.model_values)},
            "training": dataclasses.asdict(self.training),
            "optimizer": dataclasses.asdict(self.optimizer),
            "curriculum": [{"until": stage.until, **stage.options} for stage in self.curriculum],
            "evaluation": [_point_values(point) for point in self.evaluation],
        }

    def with_training(self, **changes: Any) -> "Preset":
        """Return the preset with some training settings changed; None leaves a setting as it is."""
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self, training=dataclasses.replace(self.training, **given))


def preset_names() -> list[str]:
    """Return the names of the presets that come with Engram."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name_or_path: str, changes: Mapping[str, Any] = types.MappingProxyType({})) -> Preset:
    """Return the preset with this name, or the one in this TOML file. Raises ConfigError.

    changes: values that replace the preset's, by TABLE.KEY, or TABLE.KEY.KEY for a table within a table; curriculum and
    evaluation are replaced as whole lists.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in preset_names():
            raise ConfigError(
                f"no preset {name_or_path!r}: expected one of {', '.join(preset_names())}, or the path of a .toml file"
            )
        path = PRESETS / f"{name_or_path}.toml"
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))  # some editors begin a file with a byte order mark
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"preset {path}: {error}") from error
    for key, value in changes.items():
        _change(values, key, value)
    if "name" in values:
        raise ConfigError(f"preset {path}: unknown key 'name': a preset has the name of its file")
    return preset_from_values({"name": path.stem, **values})


def _change(values: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: {table} is no table of the preset")
    if not tables and key not in LISTS:
        raise ConfigError(
            f"{key}: expected TABLE.KEY, with a table of {', '.join(TABLES)}, or a whole list, {' or '.join(LISTS)}"
        )
    values[last] = value


def preset_from_values(values: Mapping[str, Any]) -> Preset:
    """Return the preset of these tables, completed by the values that follow from the task. Raises ConfigError."""
    unknown = sorted(set(values) - {"name", *TABLES, *LISTS})
    if unknown:
        raise ConfigError(f"preset: unknown key {unknown[0]!r}; known keys are {', '.join(TABLES + LISTS)}")
    task = build_task(_table(values, "task"))
    model = dict(_table(values, "model"))
    kind = model.pop("kind", None)
    config = model_config(kind, _merged(model, task.model_values, "model"))
    return Preset(
        name=values["name"],
        task=task,
        kind=kind,
        model=config,
        training=from_values(TrainingConfig, _table(values, "training"), "training"),
        optimizer=from_values(OptimizerConfig, _table(values, "optimizer", {}), "optimizer"),
        curriculum=tuple(_stage(task, *row) for row in _tables(values, "curriculum")),
        evaluation=tuple(_point(task, config, *row) for row in _tables(values, "evaluation")),
    )


def _table(values: Mapping[str, Any], name: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    table = values.get(name, default)
    if not isinstance(table, Mapping):
        raise ConfigError(f"preset: table [{name}] is missing")
    return table


def _tables(values: Mapping[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables of a list, each with its name in error messages."""
    tables = values.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"preset: {name} must be a list of tables, [[{name}]], got {tables!r}")
    for index, table in enumerate(tables):
        yield f"{name}[{index}]", dict(table)


def _stage(task: Task, where: str, options: dict[str, Any]) -> Stage:
    until = options.pop("until", None)
    if not isinstance(until, float | int) or isinstance(until, bool) or not 0 < until < math.inf:
        raise ConfigError(f"{where}.until: expected a finite loss above 0, got {until!r}")
    check_options(task, options, where)
    return Stage(options, float(until))


def _point(task: Task, model: AnyConfig, where: str, options: dict[str, Any]) -> Point:
    about = {name: options.pop(name) for name in ("memory_size", "target", "published") if name in options}
    check_options(task, options, where)
    point = from_values(Point, about | {"options": options}, where)
    if point.memory_size is not None:
        if "memory_size" not in config_values(model):
            raise ConfigError(f"{where}.memory_size: {point.memory_size}, but this model has no memory; leave it out")
        checked_memory_size(model, point.memory_size)  # raises for a size that the model cannot have
    return point


def _point_values(point: Point) -> dict[str, Any]:
    about = {name: getattr(point, name) for name in ("memory_size", "target", "published")}
    return {**point.options} | {name: value for name, value in about.items() if value is not None}


def check_options(task: Task, options: Mapping[str, Any], where: str) -> Task:
    """Return the task with these options. Raises ConfigError if they are invalid or need another model."""
    try:
        other = task.with_options(options)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if other.model_values != task.model_values:
        raise ConfigError(f"{where}: with {dict(options)} the task {task.name} needs another model")
    return other


def _merged(given: Mapping[str, Any], due: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values of a preset merged with those that the task sets. Raises ConfigError for a value in both."""
    merged = dict(given)
    for name, value in due.items():
        if isinstance(value, Mapping) and isinstance(given.get(name), Mapping):
            merged[name] = _merged(given[name], value, f"{where}.{name}")
        elif name in given:
            raise ConfigError(f"{where}.{name}: the task sets it, here to {value!r}; leave it out")
        else:
            merged[name] = value
    return merged


def _without(values: Mapping[str, Any], due: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without those that the task sets: the inverse of `_merged`."""
    rest = {name: value for name, value in values.items() if name not in due or isinstance(due[name], Mapping)}
    return {name: _without(value, due[name]) if name in due else value for name, value in rest.items()}
