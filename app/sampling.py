"""Samples of models: the recording of a checkpoint, a sequence of a known task, or inputs within what a card says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.backends.base import Array
from app.catalogue import LoadedModel
from app.errors import InvalidRequest
from models.episodes import base, source_of
from models.episodes.base import Sample, SizeError, Source
from models.episodes.card import Unknown, UnknownParts, UnknownTokens
from models.manifest import GRAPH_KIND, Manifest

UNKNOWN_TASK = "none"
"""The name of the task of a model that was imported without one, whose inputs may be any numbers."""


@dataclass(frozen=True)
class ModelSample:
    """A sample of a model.

    drawn_from: recording, task or card. settings: the sizes and choices of the sample, as the interface has them; fits:
    what the model's memory has to keep of it, or None.
    """

    seed: int
    drawn_from: str
    sample: Sample
    of_tokens: bool
    settings: list[dict[str, Any]] = field(default_factory=list)
    fits: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Return the sample as the interface has it."""
        sample = self.sample
        return {
            "seed": self.seed,
            "drawn_from": self.drawn_from,
            "inputs": sample.inputs.astype(np.int64) if self.of_tokens else sample.inputs,
            "targets": _by_step(sample),
            "phases": [{"name": phase.name, "from": phase.start, "to": phase.stop} for phase in sample.phases],
            "labels": sample.labels,
            "pattern": sample.pattern,
            "settings": self.settings,
            "fits": self.fits,
            **sample.facts,
        }

    def tensors(self) -> dict[str, Array]:
        """Return the inputs, and where answers are known the targets and their mask, float32 all."""
        sample = self.sample
        known = {"targets": sample.targets, "mask": sample.mask}
        return {"inputs": sample.inputs} | {
            name: np.ascontiguousarray(array, np.float32) for name, array in known.items() if array is not None
        }


def sample_of(model: LoadedModel, seed: int, asked: Mapping[str, str]) -> ModelSample:
    """Return the sample of a seed. Raises InvalidRequest for a size that it cannot have.

    asked: sizes and choices by name; others are drawn, as in training. A recording has none.
    """
    of_tokens = model.inputs.vocabulary_size is not None
    try:
        if model.sample is not None:
            base.refuse(asked, ())
            return ModelSample(seed, "recording", Sample(model.sample), of_tokens)
        task = source_of(model.manifest.task, model.manifest.input_size, model.manifest.output_size)
        source = task or _by_card(model.manifest, model.inputs.vocabulary_size)
        chosen = base.choose(source, seed, asked)
    except SizeError as error:
        raise InvalidRequest(str(error), place=error.name, expected=error.expected, got=error.got) from None
    memory_size, sample = model.spec.memory_size, base.draw(source, seed, chosen)
    needed = source.needed(chosen) if sample.kept is None else sample.kept
    return ModelSample(
        seed=seed,
        drawn_from="task" if task else "card",
        sample=sample,
        of_tokens=of_tokens,
        settings=_settings(source, chosen, memory_size),
        fits=None
        if None in (needed, memory_size)
        else {"of": source.counted, "needed": needed, "memory_size": memory_size},
    )


def _by_card(manifest: Manifest, vocabulary_size: int | None) -> Source:
    """Return a source of inputs that the model takes."""
    if vocabulary_size is not None:
        return UnknownTokens(1, vocabulary_size=vocabulary_size)
    if manifest.kind == GRAPH_KIND:
        return UnknownParts(manifest.input_size, parts=manifest.config["graph"]["inputs"])
    return Unknown(manifest.input_size, are_bits=manifest.task.get("name") != UNKNOWN_TASK)


def _by_step(sample: Sample) -> list[Array | None] | None:
    """Return the target of each step, None where nothing is due; None where no answer is known."""
    if sample.targets is None or sample.mask is None:
        return None
    return [target if due else None for target, due in zip(sample.targets, sample.mask, strict=True)]


def _settings(source: Source, chosen: Mapping[str, Any], memory_size: int | None) -> list[dict[str, Any]]:
    choices = [
        {
            "name": choice.name,
            "label": choice.label,
            "value": chosen[choice.name],
            "choices": dict(choice.values),
            "trained": choice.trained,
        }
        for choice in source.choices()
    ]
    sizes = [
        {
            "name": size.name,
            "label": size.label,
            "value": chosen[size.name],
            "least": size.least,
            "greatest": base.limit(source, size, chosen),
            "trained": size.trained,
            "fits": None if memory_size is None else base.fitting(source, size, chosen, memory_size),
        }
        for size in source.sizes(chosen)
    ]
    return choices + sizes
