"""The one table of models: kind -> config and model; classes of a user's own are registered in it."""

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from models.cells import cell_config
from models.config import ConfigError, from_values
from models.contract import MemoryModel, ModelConfig
from models.dnc import DNC, DNCConfig
from models.embedding import EmbeddingConfig
from models.laws import check_laws
from models.manifest import GRAPH_KIND
from models.ntm import NTM, NTMConfig
from models.rnn import RNN, RNNConfig

AnyConfig = ModelConfig
"""The config of a model of any kind."""

MODELS: dict[str, tuple[type[AnyConfig], type[MemoryModel[Any]]]] = {
    "dnc": (DNCConfig, DNC),
    "ntm": (NTMConfig, NTM),
    "rnn": (RNNConfig, RNN),
}

SHIPPED = frozenset(MODELS)
"""The kinds that come with Engram, whose laws are held by tests; those of others are checked when they are built."""

RESERVED = {GRAPH_KIND: "it is the kind of imported graphs"}
"""Names that no class can have, and why."""

M = TypeVar("M", bound=type[MemoryModel[Any]])


def register_model(kind: str, config: type[ModelConfig]) -> Callable[[M], M]:
    """Return the decorator that registers a model class, so that presets and checkpoints can name its kind.

    config: the frozen dataclass whose fields are the options of the model; the class takes one of it. The same class,
    registered again, replaces itself. Raises ConfigError if the kind is taken, or the classes cannot be a model.
    """

    def register(model: M) -> M:
        _check_model(kind, model)
        _check_config(kind, config)
        _, known = MODELS.get(kind, (config, model))
        if (known.__module__, known.__qualname__) != (model.__module__, model.__qualname__):
            raise ConfigError(
                f"model {kind!r}: that is the kind of {known.__qualname__} already; give {model.__name__} another"
            )
        MODELS[kind] = config, model
        return model

    return register


def _check_model(kind: Any, model: Any) -> None:
    """Raise ConfigError unless the class can be a model of this kind."""
    name = getattr(model, "__name__", repr(model))
    if not isinstance(kind, str) or not kind:
        raise ConfigError(f"{name}: expected the kind of a model, such as 'leaky', got {kind!r}")
    if kind in RESERVED:
        raise ConfigError(f"model {kind!r}: {RESERVED[kind]}; give {name} another")
    if not inspect.isclass(model) or not issubclass(model, MemoryModel):
        raise ConfigError(f"model {kind!r}: {name} is no model: derive it from MemoryModel, of models.contract")
    if inspect.isabstract(model):
        missing = ", ".join(sorted(model.__abstractmethods__))
        raise ConfigError(f"model {kind!r}: {name} must define {missing}")


def _check_config(kind: str, config: Any) -> None:
    """Raise ConfigError unless the class can be the config of a model."""
    name = getattr(config, "__name__", repr(config))
    if not inspect.isclass(config) or not issubclass(config, ModelConfig):
        raise ConfigError(f"model {kind!r}: its config {name} must be derived from ModelConfig, of models.contract")
    if "__dataclass_fields__" not in vars(config):
        raise ConfigError(f"model {kind!r}: its config {name} is no dataclass: put @dataclass(frozen=True) above it")
    if "kind" in config.__dataclass_fields__:
        raise ConfigError(f"model {kind!r}: its config {name} has an option 'kind', which names the model: rename it")


def model_config(kind: str, values: Mapping[str, Any]) -> AnyConfig:
    """Return the config of a model of `kind` from plain values, as they stand in a preset or a manifest."""
    if not isinstance(kind, str) or kind not in MODELS:
        raise ConfigError(
            f"model.kind: expected one of {', '.join(MODELS)}, got {kind!r}; --models FILE names the Python file of "
            "others"
        )
    values = dict(values)
    if isinstance(values.get("controller"), Mapping):
        values["controller"] = cell_config(values["controller"], "model.controller")
    if isinstance(values.get("embedding"), Mapping):
        values["embedding"] = from_values(EmbeddingConfig, values["embedding"], "model.embedding")
    return from_values(MODELS[kind][0], values, "model")


def build(kind: str, values: Mapping[str, Any]) -> MemoryModel[Any]:
    """Return a model of `kind` with fresh weights.

    Raises ConfigError for values that make no config; of a user's own class, also for a config that a manifest cannot
    hold, and LawError, a ConfigError, for a model that breaks the contract.
    """
    config = model_config(kind, values)
    model = MODELS[kind][1](config)
    if kind not in SHIPPED:
        _check_values(kind, config, model)
        check_laws(model)
    return model


def _check_values(kind: str, config: AnyConfig, model: MemoryModel[Any]) -> None:
    """Raise ConfigError unless a manifest can hold the config, and it says what the model says of its memory."""
    name = type(config).__name__
    try:
        values = json.loads(json.dumps(config_values(config)))
        again = model_config(kind, values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} cannot be written to a manifest and read again: {error}") from error
    if again != config:
        raise ConfigError(f"{name} is another once it was written to a manifest and read: {again}, not {config}")
    if not isinstance(values.get("controller"), dict | None):
        raise ConfigError(f"{name}.controller must be a cell of models.cells, got {values['controller']!r}: rename it")
    if values.get("memory_size") != model.memory_size:
        raise ConfigError(
            f"{name}.memory_size is {values.get('memory_size')}, but that of {type(model).__name__} is "
            f"{model.memory_size}: both are the number of memory locations, or there are none"
        )


def kind_of(model: MemoryModel[Any]) -> str | None:
    """Return the kind of a model, or None if its class is not in the table."""
    return next((kind for kind, (_, made) in MODELS.items() if type(model) is made), None)


def config_values(config: AnyConfig) -> dict[str, Any]:
    """Return the config as plain values: the inverse of `model_config`."""
    return dataclasses.asdict(config)
