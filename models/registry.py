"""The one table of models: kind -> config and model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.cells import cell_config
from models.config import ConfigError, from_values
from models.contract import MemoryModel
from models.dnc import DNC, DNCConfig
from models.embedding import EmbeddingConfig
from models.ntm import NTM, NTMConfig
from models.rnn import RNN, RNNConfig

AnyConfig = DNCConfig | NTMConfig | RNNConfig

MODELS: dict[str, tuple[type[AnyConfig], type[MemoryModel[Any]]]] = {
    "dnc": (DNCConfig, DNC),
    "ntm": (NTMConfig, NTM),
    "rnn": (RNNConfig, RNN),
}


def model_config(kind: str, values: Mapping[str, Any]) -> AnyConfig:
    """Return the config of a model of `kind` from plain values, as they stand in a preset or a manifest."""
    if not isinstance(kind, str) or kind not in MODELS:
        raise ConfigError(f"model.kind: expected one of {', '.join(MODELS)}, got {kind!r}")
    values = dict(values)
    if isinstance(values.get("controller"), Mapping):
        values["controller"] = cell_config(values["controller"], "model.controller")
    if isinstance(values.get("embedding"), Mapping):
        values["embedding"] = from_values(EmbeddingConfig, values["embedding"], "model.embedding")
    return from_values(MODELS[kind][0], values, "model")


def build(kind: str, values: Mapping[str, Any]) -> MemoryModel[Any]:
    """Return a model of `kind` with fresh weights. Raises ConfigError for values that make no config."""
    config = model_config(kind, values)
    return MODELS[kind][1](config)


def kind_of(model: MemoryModel[Any]) -> str | None:
    """Return the kind of a model, or None if its class is not in the table."""
    return next((kind for kind, (_, made) in MODELS.items() if type(model) is made), None)


def config_values(config: AnyConfig) -> dict[str, Any]:
    """Return the config as plain values: the inverse of `model_config`."""
    return dataclasses.asdict(config)
