"""The content of `model.onnx`: the graph of a step, its specification, and the state before the first step."""

import base64
import math
import shlex
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from app.backends.base import Array, Axes, Spec, spec_of
from models.manifest import GRAPH_KIND, ONNX_FILE, Manifest, ManifestError, read_manifest, weights_file

GRAPH_BYTES = 2**20
"""The most bytes of a graph beside the numbers in it."""

NUMBER_BYTES_MOST = 8
"""The bytes of a number of the widest dtype that a leaf may have."""

WANTED_ONLY = onnxruntime.RunOptions()
"""The options of a run that computes no output but the wanted ones: a step leaves out the traces nobody asked for."""
WANTED_ONLY.only_execute_path_to_fetches = True

LOCATIONS = "slots"
"""The name, in a graph, of the axes of memory locations."""


class StepGraph:
    """The graph of a checkpoint's step, and the manifest beside it."""

    def __init__(self, directory: Path, threads: int = 1) -> None:
        """Load the graph; threads: of one step.

        Raises ManifestError if the graph cannot be loaded or does not belong to the weights beside it.
        """
        self.path = directory / ONNX_FILE
        self.session = _load(self.path, threads)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.manifest = _check_origin(self.path, metadata)
        self._row_by_row = self.manifest.kind == GRAPH_KIND and self.manifest.config["graph"]["form"] == "loop"
        self._first_state = _load_first_state(self.path, metadata["engram.initial_state"], self.manifest)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.spec = spec_of(self.manifest, _axes(inputs, "state."), _axes(outputs, "trace."))
        try:
            self._check_first_state()
            self.first_state(self.spec)
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise ManifestError(f"{self.path}: its engram.initial_state cannot be used: {error}") from error

    def run(self, wanted: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Return the named outputs of a step of all rows, [B, ...]; some imported graphs take one row at a time."""
        if not self._row_by_row:
            outputs: list[Array] = self.session.run(wanted, feed, WANTED_ONLY)
            return outputs
        count = len(feed["inputs"])
        rows = [
            self.session.run(wanted, {name: values[row : row + 1] for name, values in feed.items()}, WANTED_ONLY)
            for row in range(count)
        ]
        return [np.concatenate(tensors) for tensors in zip(*rows, strict=True)]

    def first_state(self, spec: Spec) -> dict[str, Array]:
        """Return the state before the first step with `spec.memory_size` locations, without the batch axis.

        Raises MemoryError.
        """
        if self._first_state is None:
            return {}
        locations = np.arange(spec.memory_size or 1)
        feed = {entry.name: locations for entry in self._first_state.get_inputs()}
        try:
            leaves = self._first_state.run([f"state.{name}" for name in spec.state], feed)
        except Exception as error:  # the graph has computed this state in other sizes: it lacks memory
            raise MemoryError(str(error)) from error
        return {name: leaf[0, ...] for name, leaf in zip(spec.state, leaves, strict=True)}

    def _check_first_state(self) -> None:
        """Raise ValueError if the graph of the first state says that it is of other shapes, before it is run."""
        for entry in self._first_state.get_outputs() if self._first_state else ():
            declared = self.spec.state.get(entry.name.removeprefix("state."), entry.shape[1:])
            pairs = zip(entry.shape[1:], declared, strict=True)
            if any(type(size) is int and size != expected for size, expected in pairs):
                raise ValueError(f"{entry.name} is of shape {entry.shape[1:]}, but its manifest says {declared}")


def _load(path: Path, threads: int) -> onnxruntime.InferenceSession:
    try:
        return _session(path.read_bytes(), threads)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; engram export writes it") from error
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise ManifestError(f"{path}: onnxruntime cannot load it: {error}") from error


def _load_first_state(path: Path, text: str, manifest: Manifest) -> onnxruntime.InferenceSession | None:
    """Return the graph of the state before the first step, from the metadata; None for a model without a state.

    It is not optimized: that would compute its constants, which may be large, before their shapes are compared.
    """
    try:
        graph = _inflated(base64.b64decode(text), largest_state(manifest) + GRAPH_BYTES)
        return _session(graph, threads=1, optimized=False) if graph else None
    except Exception as error:  # as above
        raise ManifestError(
            f"{path}: its engram.initial_state is damaged, or of another version; engram export writes it anew: {error}"
        ) from error


def largest_state(manifest: Manifest) -> int:
    """Return the most bytes that a state of the shapes in a manifest may have."""
    return NUMBER_BYTES_MOST * sum(map(math.prod, manifest.state.values()))


def _inflated(data: bytes, most: int) -> bytes:
    """Return decompressed data. Raises ValueError if they are longer than `most` or damaged."""
    inflater = zlib.decompressobj()
    inflated = inflater.decompress(data, most + 1)
    if len(inflated) > most:
        raise ValueError(f"it has more than {most} bytes, which a state of these shapes does not need")
    if not inflater.eof:
        raise ValueError("it ends too soon")
    return inflated


def _session(graph: bytes, threads: int, optimized: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _axes(entries: Iterable[onnxruntime.NodeArg], prefix: str) -> Axes:
    """Return the axes, without the batch axis, of the inputs or outputs of a graph whose names begin with `prefix`."""
    return {
        entry.name.removeprefix(prefix): [None if size == LOCATIONS else size for size in entry.shape[1:]]
        for entry in entries
        if entry.name.startswith(prefix)
    }


def _check_origin(path: Path, metadata: Mapping[str, str]) -> Manifest:
    """Return the manifest beside a graph. Raises ManifestError unless the two belong together.

    The manifest of an imported graph has its hash; the graph of a model has the manifest that it was exported with.
    """
    beside = read_manifest(path.parent)
    imported = beside.kind == GRAPH_KIND
    for key in ("engram.initial_state",) if imported else ("engram.manifest", "engram.initial_state"):
        if key not in metadata:
            written = "engram import" if imported else "engram export"
            raise ManifestError(f"{path}: its metadata has no {key}; {written} writes it")
    weights_file(path.parent, beside)
    if imported:
        return beside
    exported = Manifest.from_json(metadata["engram.manifest"], f"{path}, engram.manifest")
    if exported.weights_sha256 != beside.weights_sha256:
        raise ManifestError(
            f"{path} was exported from weights with SHA-256 {exported.weights_sha256}, but the weights beside it have "
            f"{beside.weights_sha256}: run {shlex.join(['engram', 'export', str(path.parent)])}"
        )
    for name in ("kind", "config", "input_size", "output_size", "state", "trace"):
        of_graph, of_manifest = getattr(exported, name), getattr(beside, name)
        if of_graph != of_manifest:
            raise ManifestError(
                f"{path} was exported with {name} {of_graph}, but the manifest beside it has {of_manifest}: "
                f"run {shlex.join(['engram', 'export', str(path.parent)])}"
            )
    return beside
