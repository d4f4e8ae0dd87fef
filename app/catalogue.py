"""The models that a server offers, and what it says of them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.engine import Engine
from app.errors import ModelNotFound, UnknownName
from models.manifest import Manifest


@dataclass(frozen=True)
class ServedModel:
    """One checkpoint and the engine that steps it."""

    name: str
    manifest: Manifest
    engine: Engine
    backend: str
    device: str

    def describe(self) -> dict[str, Any]:
        """Return the model's card: what it is, how it is served, what was measured."""
        manifest, config = self.manifest, self.manifest.config
        return {
            "name": self.name,
            "kind": manifest.kind,
            "task": manifest.task,
            "input_size": manifest.input_size,
            "output_size": manifest.output_size,
            "output_activation": config["output_activation"],
            "memory_size": config.get("memory_size"),
            "word_size": config.get("word_size"),
            "read_heads": config.get("read_heads"),
            "write_heads": config.get("write_heads"),
            "controller": config["controller"],
            "parameters": manifest.parameters,
            "backend": self.backend,
            "device": self.device,
            "state": manifest.state,
            "trace": manifest.trace,
            "evaluation": manifest.evaluation,
            "training": manifest.training,
        }

    def traces(self, names: Collection[str]) -> list[str]:
        """Return the names, each once. Raises UnknownName unless the model has a trace of every name."""
        return _known(names, self.manifest.trace, f"{self.name} has no trace", "trace")

    def leaves(self, names: Collection[str]) -> list[str]:
        """Return the names, each once. Raises UnknownName unless the model's state has a leaf of every name."""
        return _known(names, self.manifest.state, f"the state of {self.name} has no leaf", "names")


class ModelCatalogue:
    """The models by name, and why those that could not be loaded are not among them."""

    def __init__(self, models: Mapping[str, ServedModel], failures: Mapping[str, str]) -> None:
        self._models = dict(models)
        self.failures = dict(failures)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, name: str) -> ServedModel:
        """Return the model of this name. Raises ModelNotFound, with the names that there are."""
        if name in self._models:
            return self._models[name]
        known = ", ".join(self._models)
        if name in self.failures:
            raise ModelNotFound(
                f"model {name!r} could not be loaded: {self.failures[name]}", expected=f"one of {known}"
            )
        raise ModelNotFound(f"there is no model {name!r}", place="model", expected=f"one of {known}", got=name)


def _known(names: Collection[str], known: Mapping[str, Any], complaint: str, place: str) -> list[str]:
    for index, name in enumerate(names):
        if name not in known:
            expected = f"one of {', '.join(known)}" if known else "no name: this model has none"
            raise UnknownName(f"{complaint} {name!r}", place=f"{place}[{index}]", expected=expected, got=name)
    return list(dict.fromkeys(names))
