"""What a training run is made of: a preset is a TOML file with a task, a model and how to train and measure it."""

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
"""The greatest seed: of numbers made of it, as that of what each of several processes draws, a generator takes any."""

RECENT = 50
"""Losses and errors that a run goes by, and shows, are means over so many updates."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    updates: at most so many, each of batch_size sequences. With mixed_lengths every sequence draws its own sizes, and
    the shorter ones are masked; else all of a batch have the sizes that the batch drew.
    validate_every: every so many updates, `validation_sequences` fresh sequences of the greatest sizes in training are
    measured. A run has converged when they have at most target_errors each, beyond the task's optimum; `patience` such
    measurements in a row end it; 0 for none.
    skips: so many updates in a row are left out where the loss or a gradient is not finite; the next one stops the run.
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
    """A lesson before the task itself: the task with some options changed.

    until: it is over when the mean loss of the last RECENT updates, in nats per element asked for, is below this.
    """

    options: Mapping[str, Any]
    until: float


@dataclass(frozen=True)
class Point:
    """A measurement of a trained model: the task with some options changed, and its memory slots, if not as trained.

    target: the errors per sequence to stay below, beyond the optimum; published: what others have reached, for the
    record.
    """

    options: Mapping[str, Any]
    memory_size: int | None = None
    target: float | None = None
    published: str | None = None


@dataclass(frozen=True)
class Preset:
    """One training run: `name` is the preset's, for the record.

    curriculum: lessons in order, before the task itself; evaluation: what is to be measured of the trained model.
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
        """Return the preset with some training settings changed; those that are None stay as they are."""
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self, training=dataclasses.replace(self.training, **given))


def preset_names() -> list[str]:
    """Return the names of the presets that come with Engram."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name_or_path: str, changes: Mapping[str, Any] = types.MappingProxyType({})) -> Preset:
    """Return the preset with this name, or the one in this TOML file. Raises ConfigError.

    changes: values to put in place of the preset's, by TABLE.KEY, or TABLE.KEY.KEY of a table within a table; of
    curriculum and evaluation the whole list.
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
    """Return the preset made of these tables; what of the model follows from the task is set. Raises ConfigError."""
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
    """Yield the tables of a list with what each is called in errors."""
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
        checked_memory_size(model, point.memory_size)  # raises where it cannot have so many
    return point


def _point_values(point: Point) -> dict[str, Any]:
    about = {name: getattr(point, name) for name in ("memory_size", "target", "published")}
    return {**point.options} | {name: value for name, value in about.items() if value is not None}


def check_options(task: Task, options: Mapping[str, Any], where: str) -> Task:
    """Return the task with these options. Raises ConfigError where it cannot have them, or needs another model then."""
    try:
        other = task.with_options(options)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if other.model_values != task.model_values:
        raise ConfigError(f"{where}: with {dict(options)} the task {task.name} needs another model")
    return other


def _merged(given: Mapping[str, Any], due: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what a preset gives with what the task sets, table by table. Raises ConfigError where both do."""
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
    """Return values less those that the task sets: the inverse of `_merged`."""
    rest = {name: value for name, value in values.items() if name not in due or isinstance(due[name], Mapping)}
    return {name: _without(value, due[name]) if name in due else value for name, value in rest.items()}
