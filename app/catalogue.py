"""The models that a server offers, and their descriptions."""

import bisect
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.backends.base import Array, Spec
from app.engine.engine import Engine
from app.errors import InvalidRequest, ModelNotFound, UnknownName
from app.forces import force_text
from models.manifest import GRAPH_KIND, Manifest, ManifestError


@dataclass(frozen=True)
class InputFormat:
    """The inputs of a step: `width` numbers; with a vocabulary, one token, a whole number below vocabulary_size.

    whole: parts of the numbers that must be whole, as (start, stop, least, greatest), of imported graphs.
    """

    width: int
    vocabulary_size: int | None = None
    whole: tuple[tuple[int, int, float, float], ...] = ()


@dataclass(frozen=True)
class MemorySizes:
    """The memory sizes that sessions of a model may ask for.

    spec: of the model as it was trained, whose memory size is always available; least: the smallest memory size that
    the model works with; max_state_bytes: the largest state of any other memory size.
    """

    model: str
    spec: Spec
    least: int
    max_state_bytes: int

    def check(self, asked: int | None) -> None:
        """Raise InvalidRequest unless this memory size is available; None stands for the model's own."""
        trained = self.spec.memory_size
        if asked in (None, trained):
            return
        if trained is None:
            raise _refusal(asked, f"{self.model} has no memory to resize", "no memory_size")
        if asked < self.least:
            raise _refusal(
                asked, f"{self.model} keeps {self.least} links per memory location", f"at least {self.least}"
            )
        size = self.spec.resized(asked).state_bytes
        if size > self.max_state_bytes:
            reason = f"the state would take {size} bytes, more than {self.max_state_bytes} (setting max_state_bytes)"
            raise _refusal(asked, reason, f"at most {self._largest(asked)}")

    def _largest(self, beyond: int) -> int:
        """Return the largest memory size below `beyond`, which is too large, whose state fits."""

        def size(memory_size: int) -> int:
            return self.spec.resized(memory_size).state_bytes

        most = min(beyond, self.max_state_bytes + 1)  # a memory location takes a byte at least
        return bisect.bisect_right(range(most), self.max_state_bytes, lo=1, hi=most, key=size) - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel:
    """A checkpoint that was loaded, described: what it takes, and which requests for it are possible.

    output_groups: the number of equal groups of classes in the outputs, each with its own softmax; 1 for other outputs.
    spec: of sessions that ask for no memory size; memory: the sizes that sessions may ask for.
    sample: a recording of inputs to try the model with, float32 [T, input_size], if the checkpoint has one.
    """

    name: str
    manifest: Manifest
    inputs: InputFormat
    output_groups: int
    spec: Spec
    memory: MemorySizes
    backend: str
    device: str
    sample: Array | None = None

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the model's kind, config, sizes and weights, which is the same on every server: its version."""
        return fingerprint_of(self.manifest)

    def shapes(self, memory_size: int | None, force: str | None = None) -> Spec:
        """Return the specification of a session with this number of memory locations, None: the model's own.

        force: the gates that the session holds at values.
        """
        spec = self.spec if memory_size in (None, self.spec.memory_size) else self.spec.resized(memory_size)
        return spec if force is None else spec.forced(force)

    def force(self, asked: Mapping[str, Any] | None) -> str | None:
        """Return the gates that a client wants to force as one text, None for none. Raises InvalidRequest."""
        return force_text(asked, self.name, self.manifest.kind, self.backend, self.spec.trace)

    def describe(self) -> dict[str, Any]:
        """Return the model's card: its kind and sizes, how it is stepped, and its measured errors."""
        manifest, config = self.manifest, self.manifest.config
        return {
            "name": self.name,
            "kind": manifest.kind,
            "task": manifest.task,
            "input_size": manifest.input_size,
            "output_size": manifest.output_size,
            "vocabulary_size": self.inputs.vocabulary_size,
            "output_activation": config["output_activation"],
            "output_groups": self.output_groups,
            "output_at": config.get("output_at", "every-step"),
            "memory_size": self.spec.memory_size,
            "word_size": config.get("word_size"),
            "read_heads": config.get("read_heads"),
            "write_heads": config.get("write_heads"),
            "deallocation": config.get("deallocation"),
            "look_up_scaling": config.get("look_up_scaling"),
            "order": config.get("order"),
            "style": config.get("style"),
            "controller": config.get("controller"),
            "graph": config.get("graph"),
            "sample": self.sample is not None,
            "parameters": manifest.parameters,
            "backend": self.backend,
            "device": self.device,
            "state": self.spec.state,
            "trace": self.spec.trace,
            "evaluation": manifest.evaluation,
            "training": manifest.training,
        }

    def traces(self, names: Collection[str]) -> list[str]:
        """Return the names of traces, each once. Raises UnknownName unless the model has all of them."""
        return _known(names, self.spec.trace, f"{self.name} has no trace", "trace")

    def trace_bytes(self, names: Collection[str], steps: int, memory_size: int | None) -> int:
        """Return the bytes of the named traces of `steps` steps."""
        return steps * self.shapes(memory_size).trace_bytes(names)

    def leaves(self, names: Collection[str]) -> list[str]:
        """Return the names of leaves, each once. Raises UnknownName unless the model's state has all of them."""
        return _known(names, self.spec.state, f"the state of {self.name} has no leaf", "names")


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedModel(LoadedModel):
    """One version of a model: a checkpoint, and the engine that steps it. Two of them are equal if they are one."""

    max_trace_bytes: int
    engine: Engine

    def check_trace_bytes(
        self, names: Collection[str], steps: int, memory_size: int | None, most: float = math.inf
    ) -> None:
        """Raise InvalidRequest if the traces of `steps` steps take more than max_trace_bytes, or more than `most`."""
        if not names:
            return
        taken = self.trace_bytes(names, steps, memory_size)
        limit, source = min((self.max_trace_bytes, "setting max_trace_bytes"), (most, "over a WebSocket"))
        if taken > limit:
            raise InvalidRequest(
                f"trace: {steps} steps have traces of {taken} bytes, but at most {limit} are "
                f"given at a time ({source}): ask for fewer traces, or send fewer steps at a time",
                place="trace",
                expected=f"at most {limit} bytes",
                got=f"{taken} bytes",
            )


def fingerprint_of(manifest: Manifest) -> str:
    """Return the fingerprint of a checkpoint's model."""
    hashed = [manifest.kind, manifest.config, manifest.input_size, manifest.output_size, manifest.weights_sha256]
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def input_format(manifest: Manifest) -> InputFormat:
    """Return the input format of a checkpoint's model. Raises ManifestError."""
    embedding = manifest.config.get("embedding")
    if embedding is None:
        return InputFormat(manifest.input_size, whole=_whole_parts(manifest))
    vocabulary_size = embedding.get("vocabulary_size") if isinstance(embedding, dict) else None
    if type(vocabulary_size) is not int or vocabulary_size < 1 or manifest.input_size != 1:
        raise ManifestError(
            "config.embedding must have a vocabulary_size of at least 1, and input_size must then be 1, "
            f"got {embedding!r} and {manifest.input_size}"
        )
    return InputFormat(1, vocabulary_size)


def _whole_parts(manifest: Manifest) -> tuple[tuple[int, int, float, float], ...]:
    """Return the parts of an imported graph's inputs that must be whole numbers. Raises ManifestError."""
    if manifest.kind != GRAPH_KIND:
        return ()
    whole, start = [], 0
    for part in manifest.config["graph"]["inputs"]:
        stop = start + math.prod(part["shape"])
        if part.get("whole"):
            whole.append((start, stop, *map(float, part["whole"])))
        start = stop
    if start != manifest.input_size:
        raise ManifestError(f"config.graph.inputs have {start} numbers, but input_size is {manifest.input_size}")
    return tuple(whole)


def output_groups(manifest: Manifest) -> int:
    """Return the number of groups of classes in the outputs of a checkpoint's model. Raises ManifestError."""
    groups, size = manifest.config.get("output_groups", 1), manifest.output_size
    if type(groups) is not int or groups < 1 or size % groups:
        raise ManifestError(f"config.output_groups must be a divisor of output_size, which is {size}, got {groups!r}")
    return groups


def least_memory(manifest: Manifest) -> int:
    """Return the smallest memory size that a model works with. Raises ManifestError."""
    if manifest.config.get("links") != "sparse":
        return 1
    least = manifest.config.get("links_per_slot")
    if type(least) is not int or least < 1:
        raise ManifestError(f"config.links_per_slot must be a whole number of at least 1, got {least!r}")
    return least


@dataclass(frozen=True)
class Reloaded:
    """The names of models that were added, changed or removed as the checkpoints were loaded again.

    failed: checkpoints that could not be loaded, and why; of those in `models`, which are on offer, the version of
    before runs on.
    """

    added: list[str]
    changed: list[str]
    removed: list[str]
    failed: dict[str, str]
    models: list[str]

    def summary(self) -> str:
        """Return the names in one line."""
        parts = {"added": self.added, "changed": self.changed, "removed": self.removed, "failed": self.failed}
        found = [f"{word} {', '.join(names)}" for word, names in parts.items() if names]
        return "; ".join(found) or "nothing has changed"


class ModelCatalogue:
    """The models on offer by name, versions of before whose sessions are open, and why others could not be loaded."""

    def __init__(self, models: Mapping[str, ServedModel], failures: Mapping[str, str]) -> None:
        self._models: dict[str, ServedModel] = {}
        self._retired: tuple[ServedModel, ...] = ()
        self.replace(models, failures)

    def __iter__(self) -> Iterator[ServedModel]:
        """Iterate over the models on offer."""
        return iter(self._models.values())

    @property
    def retired(self) -> tuple[ServedModel, ...]:
        """The versions that are no longer on offer, and serve the sessions that began with them."""
        return self._retired

    @property
    def all(self) -> tuple[ServedModel, ...]:
        """The models on offer, and the retired ones."""
        return (*self._models.values(), *self._retired)

    def replace(self, models: Mapping[str, ServedModel], failures: Mapping[str, str]) -> None:
        """Put other models on offer; those that were and are not among them are retired, until `release`."""
        offered = set(models.values())
        self._retired = tuple(model for model in self.all if model not in offered)
        self._models = dict(models)
        self.failures = dict(failures)
        self.inputs = {name: model.inputs for name, model in models.items()}
        """name -> the input format of the model."""

    def release(self, model: ServedModel) -> None:
        """Forget a retired version."""
        self._retired = tuple(other for other in self._retired if other is not model)

    def version(self, name: str, fingerprint: str) -> ServedModel | None:
        """Return the version of a model that has this fingerprint, on offer or retired."""
        model = self._models.get(name)
        if model is not None and model.fingerprint == fingerprint:
            return model
        return next((model for model in self._retired if (model.name, model.fingerprint) == (name, fingerprint)), None)

    def get(self, name: str) -> ServedModel:
        """Return the model of this name. Raises ModelNotFound, which lists the names of all models."""
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


def _refusal(asked: int | None, reason: str, expected: str) -> InvalidRequest:
    return InvalidRequest(
        f"memory_size {asked} is not available: {reason}; expected {expected}",
        place="memory_size",
        expected=expected,
        got=str(asked),
    )
