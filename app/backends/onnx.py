"""Steps computed by ONNX Runtime on the CPU, from `model.onnx` alone: no torch needed."""

import base64
import copy
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from app.backends.base import Array, Axes, Slots, check_finite, longer, spec_of
from models.manifest import ONNX_FILE, Manifest, ManifestError, read_manifest, weights_file

SLOTS = "slots"
"""The name, in a graph, of the axes along which the slots of the memory lie."""


class OnnxBackend:
    """The arena is one NumPy array per leaf, [room, ...]; a step gathers its slots, runs, and scatters."""

    kind = "onnx"
    device = "cpu"

    def __init__(self, directory: Path, capacity: int, threads: int = 1) -> None:
        """Raises ManifestError where the graph cannot be loaded or does not belong to the weights beside it."""
        path = directory / ONNX_FILE
        self._session = _load(path, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        manifest = _check_origin(path, metadata)
        self._first_state = _load_first_state(path, metadata["engram.initial_state"])
        self.spec = spec_of(
            manifest, _axes(self._session.get_inputs(), "state."), _axes(self._session.get_outputs(), "trace.")
        )
        self._next = [f"next.{name}" for name in self.spec.state]
        self._capacity = capacity
        try:
            self._clear()
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise ManifestError(f"{path}: its engram.initial_state cannot be used: {error}") from error

    def resized(self, memory_size: int) -> "OnnxBackend":
        other = copy.copy(self)
        other.spec = self.spec.resized(memory_size)
        try:
            other._clear()
        except Exception as error:  # the graph has given this state in other sizes: what it lacks is room
            raise MemoryError(str(error)) from error
        return other

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        slot = self._slots.take(self._grow)
        self.write(slot, state)
        return slot

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        feed = {f"state.{name}": values[slots] for name, values in self._arena.items()}
        wanted = ["outputs", *self._next, *(f"trace.{name}" for name in trace)]
        outputs, *rest = self._session.run(wanted, {"inputs": inputs, **feed})
        check_finite(outputs)
        for values, next_values in zip(self._arena.values(), rest, strict=False):
            values[slots] = next_values
        return outputs, dict(zip(trace, rest[len(self._next) :], strict=True))

    def read(self, slot: int) -> dict[str, Array]:
        return {name: values[slot].copy() for name, values in self._arena.items()}

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        for name, leaf in (self._initial if state is None else state).items():
            self._arena[name][slot] = leaf

    def close(self, slot: int) -> None:
        self._slots.give_back(slot)

    def _clear(self) -> None:
        """Start with an arena of no slots, of this memory size."""
        self._initial = self._initial_state()
        self._arena = {name: np.empty((0, *leaf.shape), leaf.dtype) for name, leaf in self._initial.items()}
        self._slots = Slots(self._capacity)

    def _initial_state(self) -> dict[str, Array]:
        """Return the state before the first step, without the batch axis."""
        if self._first_state is None:
            return {}
        slots = np.arange(self.spec.memory_size or 1)
        feed = {entry.name: slots for entry in self._first_state.get_inputs()}
        leaves = self._first_state.run([f"state.{name}" for name in self.spec.state], feed)
        return {name: leaf[0] for name, leaf in zip(self.spec.state, leaves, strict=True)}

    def _grow(self, room: int) -> None:
        self._arena = {name: longer(values, room) for name, values in self._arena.items()}


def _load(path: Path, threads: int) -> onnxruntime.InferenceSession:
    try:
        return _session(path.read_bytes(), threads)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; engram export writes it") from error
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise ManifestError(f"{path}: onnxruntime cannot load it: {error}") from error


def _load_first_state(path: Path, text: str) -> onnxruntime.InferenceSession | None:
    """Return the graph of the state before the first step, which metadata holds; None for a model without state."""
    try:
        graph = zlib.decompress(base64.b64decode(text))
        return _session(graph, threads=1) if graph else None
    except Exception as error:  # as above
        raise ManifestError(
            f"{path}: its engram.initial_state is damaged, or of another version; engram export writes it anew: {error}"
        ) from error


def _session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _axes(entries: Iterable[onnxruntime.NodeArg], prefix: str) -> Axes:
    """Return the axes, but for the batch, of those inputs or outputs of a graph whose names begin so."""
    return {
        entry.name.removeprefix(prefix): [None if size == SLOTS else size for size in entry.shape[1:]]
        for entry in entries
        if entry.name.startswith(prefix)
    }


def _check_origin(path: Path, metadata: Mapping[str, str]) -> Manifest:
    """Return the manifest beside a graph that was exported from its weights and agrees with it."""
    for key in ("engram.manifest", "engram.initial_state"):
        if key not in metadata:
            raise ManifestError(f"{path}: its metadata has no {key}; engram export writes it")
    exported = Manifest.from_json(metadata["engram.manifest"], f"{path}, engram.manifest")
    beside = read_manifest(path.parent)
    weights_file(path.parent, beside)
    if exported.weights_sha256 != beside.weights_sha256:
        raise ManifestError(
            f"{path} was exported from weights with SHA-256 {exported.weights_sha256}, but the weights beside it have "
            f"{beside.weights_sha256}: run engram export {path.parent}"
        )
    for name in ("kind", "config", "input_size", "output_size", "state", "trace"):
        told, stands = getattr(exported, name), getattr(beside, name)
        if told != stands:
            raise ManifestError(f"{path} was exported with {name} {told}, but beside it stands {stands}")
    return beside
