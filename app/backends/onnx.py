"""Steps computed by ONNX Runtime on the CPU, from `model.onnx` alone: no torch needed."""

import base64
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import safetensors
import safetensors.numpy

from app.backends.base import Array, Slots, check_finite, spec_of
from models.manifest import ONNX_FILE, Manifest, ManifestError, read_manifest, weights_file


class OnnxBackend:
    """The arena is one NumPy array per leaf, [capacity, ...]; a step gathers its slots, runs, and scatters."""

    kind = "onnx"
    device = "cpu"

    def __init__(self, directory: Path, capacity: int, threads: int = 1) -> None:
        """Raises ManifestError where the graph cannot be loaded or does not belong to the weights beside it."""
        path = directory / ONNX_FILE
        self._session = _load(path, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        manifest = _check_origin(path, metadata)
        self.spec = spec_of(manifest)
        self._initial = _unpack(path, metadata["engram.initial_state"])
        self._arena = {name: np.zeros((capacity, *leaf.shape), leaf.dtype) for name, leaf in self._initial.items()}
        self._slots = Slots(capacity)
        self._next = [f"next.{name}" for name in self._initial]

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        slot = self._slots.take()
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


def _load(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; engram export writes it") from error
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise ManifestError(f"{path}: onnxruntime cannot load it: {error}") from error


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
    if spec_of(exported) != spec_of(beside):
        raise ManifestError(f"{path} was exported with {spec_of(exported)}, but beside it stands {spec_of(beside)}")
    return beside


def _unpack(path: Path, text: str) -> dict[str, Array]:
    """Return the state before the first step, without the batch axis."""
    try:
        leaves = safetensors.numpy.load(zlib.decompress(base64.b64decode(text)))
        return {name: leaf[0] for name, leaf in leaves.items()}
    except (ValueError, IndexError, zlib.error, safetensors.SafetensorError) as error:
        raise ManifestError(f"{path}: its engram.initial_state is damaged: {error}") from error
