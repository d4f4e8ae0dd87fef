"""The description of a checkpoint, `manifest.json`. Standard library only, so that a server needs no torch."""

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

FORMAT = 1
GRAPH_KIND = "onnx"
"""The kind of an imported graph, whose weights are in the graph itself."""
ACTIVATIONS = ("identity", "sigmoid", "softmax")
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "model.safetensors"
NEXT_WEIGHTS_FILE = "model.safetensors.next"
ONNX_FILE = "model.onnx"
SAMPLE_FILE = "sample.safetensors"
MAX_MANIFEST_BYTES = 2**20
"""The most bytes of a manifest: some twenty times as many are needed to read it."""
MAX_HEADER_BYTES = 2**20
"""The most bytes of the header of a safetensors file, beside its numbers: one of a model has some kilobytes."""
MAX_SAMPLE_BYTES = 16 * 2**20
"""The most bytes in a file of a sample: samples stay in memory."""
GraphForm = Literal["batched", "scan", "loop"]
"""The form of an imported graph: of any number of rows, of rows one by one within it, of one row."""
GRAPH_FORMS = get_args(GraphForm)
LEAF_DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""The dtypes that a leaf of an imported graph may have, by their NumPy names."""


class ManifestError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what was expected and what came."""


@dataclass(frozen=True)
class Manifest:
    """The description of one checkpoint.

    kind, config: the arguments of `models.registry.build`.
    task: {"name": ..., its options}; state, trace: shapes by name without the batch axis.
    weights_sha256: of the file of weights, as lowercase hex; of an imported graph that is model.onnx.
    training: its record (command, seed, updates, sequences); evaluation: the measured errors, a row each.
    """

    kind: str
    config: dict[str, Any]
    task: dict[str, Any]
    input_size: int
    output_size: int
    parameters: int
    state: dict[str, list[int]]
    trace: dict[str, list[int]]
    weights_sha256: str
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "Manifest":
        """Read a manifest; `where` names its source in errors. Raises ManifestError."""
        if len(text) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{where}: {len(text)} bytes, but a manifest has at most {MAX_MANIFEST_BYTES}")
        try:
            values = json.loads(text)
            json.dumps(values, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{where}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ManifestError(f"{where}: expected an object, got {type(values).__name__}")
        if values.get("format") != FORMAT:
            raise ManifestError(f"{where}: format {values.get('format')!r}, but this version reads format {FORMAT}")
        hints = typing.get_type_hints(cls)
        for name, hint in hints.items():
            expected = typing.get_origin(hint) or hint
            if not isinstance(values.get(name), expected) or isinstance(values[name], bool):
                raise ManifestError(f"{where}: {name} must be of type {expected.__name__}, got {values.get(name)!r}")
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ManifestError(f"{where}: unknown key {unknown[0]!r}; known keys are {', '.join(hints)}")
        manifest = cls(**values)
        manifest._check(where)
        return manifest

    def _check(self, where: str) -> None:
        """Raise ManifestError for a value of the right type that is impossible."""
        for name in ("input_size", "output_size", "parameters"):
            value = getattr(self, name)
            may_be_zero = name == "parameters" and self.kind == GRAPH_KIND  # a graph may have no weights
            if not 0 <= value < 2**53 or (value == 0 and not may_be_zero):
                raise ManifestError(f"{where}: {name} must be a positive size, got {value}")
        for schema, shapes in (("state", self.state), ("trace", self.trace)):
            for name, shape in shapes.items():
                if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
                    raise ManifestError(f"{where}: {schema}.{name} must be a list of sizes, got {shape!r}")
        if self.config.get("output_activation") not in ACTIVATIONS:
            got = self.config.get("output_activation")
            raise ManifestError(
                f"{where}: config.output_activation must be one of {', '.join(ACTIVATIONS)}, got {got!r}"
            )
        if not isinstance(self.config.get("controller"), dict | None):
            raise ManifestError(f"{where}: config.controller must be an object, got {self.config['controller']!r}")
        if not all(isinstance(row, dict) for row in self.evaluation):
            raise ManifestError(f"{where}: evaluation must be a list of objects")
        if self.kind == GRAPH_KIND:
            _check_graph(self.config.get("graph"), where)


def _check_graph(graph: Any, where: str) -> None:
    """Raise ManifestError unless this describes an imported graph."""
    if not isinstance(graph, dict):
        raise ManifestError(f"{where}: config.graph must be an object, got {graph!r}")
    if graph.get("form") not in GRAPH_FORMS:
        raise ManifestError(
            f"{where}: config.graph.form must be one of {', '.join(GRAPH_FORMS)}, got {graph.get('form')!r}"
        )
    for key in ("inputs", "outputs", "trace"):
        if not isinstance(graph.get(key), list) or not all(map(_is_part, graph[key])):
            got = graph.get(key)
            raise ManifestError(f"{where}: config.graph.{key} must be a list of name, shape and range, got {got!r}")
    for key in ("step", "about"):
        if not isinstance(graph.get(key), dict):
            raise ManifestError(f"{where}: config.graph.{key} must be an object, got {graph.get(key)!r}")


def _is_part(part: Any) -> bool:
    """Return whether this describes a part of a step: its name, its sizes, and the ends of its ranges or None."""
    if not isinstance(part, dict) or not isinstance(part.get("name"), str) or not isinstance(part.get("shape"), list):
        return False
    sizes = all(type(size) is int and size > 0 for size in part["shape"])
    return sizes and all(part.get(key) is None or _is_range(part[key]) for key in ("range", "whole"))


def _is_range(ends: Any) -> bool:
    return isinstance(ends, list) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of the checkpoint in `directory`. Raises ManifestError."""
    path = directory / MANIFEST_FILE
    try:
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; a checkpoint is a directory with a {MANIFEST_FILE}") from error
    return Manifest.from_json(text, str(path))


def weights_file(directory: Path, manifest: Manifest) -> Path:
    """Return the file of weights that the manifest describes. Raises ManifestError if there is none.

    A save writes the next weights beside the current ones, then the manifest, then renames. If it is interrupted, the
    weights of the manifest are there under one of the two names.
    """
    try:
        return _find_weights(directory, manifest)
    except OSError as error:
        raise ManifestError(f"{error.filename}: {error.strerror}") from error


def _find_weights(directory: Path, manifest: Manifest) -> Path:
    names = (ONNX_FILE,) if manifest.kind == GRAPH_KIND else (WEIGHTS_FILE, NEXT_WEIGHTS_FILE)
    for path in (directory / name for name in names):
        if path.is_file() and sha256(path) == manifest.weights_sha256:
            return path
    path = directory / names[0]
    if not path.is_file():
        raise ManifestError(f"{path}: no such file, but {MANIFEST_FILE} describes it")
    raise ManifestError(
        f"{path}: its SHA-256 is {sha256(path)}, but {MANIFEST_FILE} says {manifest.weights_sha256}: "
        "the file is damaged or belongs to another manifest"
    )


def check_header(path: Path) -> None:
    """Raise ManifestError if the header of a safetensors file is too long to be one of a model; OSError."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise ManifestError(
            f"{path}: its header would have {size} bytes, but one has at most {MAX_HEADER_BYTES}: the file is damaged, "
            "or not of safetensors"
        )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as lowercase hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
