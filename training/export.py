"""Export one step of a model as an ONNX graph with everything that a server needs.

Inputs: `inputs` [B, I] and `state.NAME` [B, ...] for each leaf. Outputs: `outputs` [B, O], after their activation,
`next.NAME` [B, ...] for each leaf and `trace.NAME` [B, ...] for each trace. The batch is dynamic, and so is the number
of memory locations.
Metadata: `engram.manifest` (the manifest as JSON, with the hash of the weights) and `engram.initial_state` (base64 of
another, deflated ONNX graph: from `slots`, the numbers 0 to N - 1 [N], to the state before the first step with N memory
locations, `state.NAME` [1, ...]; empty for a model without state).
"""

import base64
import gc
import logging
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxscript import opset20 as op
from torch import Tensor, nn

from models.artefact import ServedStep, load
from models.contract import MemoryModel, schemas
from models.manifest import ONNX_FILE, Manifest
from models.state import flatten
from training.checkpoint import write_manifest
from training.files import write_atomically
from training.graph_notes import add_notes
from training.quiet import quiet
from training.runtime import open_session

logger = logging.getLogger(__name__)

OPSET = 20

STEPS_VERIFIED = 100
RUNS_VERIFIED = ((1, 0), (2, 3), (5, 0))
"""(batch size, memory locations beyond the config's) of each run of the check."""
TOLERANCE = 5e-4
"""The largest difference from torch, in one step from the same state, of any output, state leaf or trace, relative to
its largest value if that is above 1. In float32, torch's own step is as uncertain: sharp content weightings multiply
its rounding a thousandfold.

The steps are compared one by one because whole runs cannot be: in a trained DNC whose memory is full, a difference of
rounding grows to one of the outputs in a few dozen steps. Nor can locations: two whose usage differs by rounding may
swap places. If both held the same, the values of a tensor agree once they are sorted; if not, the step agrees with one
that torch takes from a state which differs by NEARBY.
"""

TINY_DIFFERENCE = 1e-6
"""The largest difference from torch of a state before the first step."""

NEARBY = 1e-6
NEARBY_STATES = 512


class ExportError(RuntimeError):
    """A step that cannot be exported, or an exported graph whose results differ from the model's."""


def export(directory: Path, after_step: Callable[[int, int], object] | None = None) -> Path:
    """Write `model.onnx` beside the weights of a checkpoint and return its path.

    The graph has all traces of the model; the manifest, if an earlier version wrote it without some, gets them too.
    The graph is run over 100 steps from a fresh state at batch 1, 2 (with more memory locations) and 5, and gets its
    name only if each step agrees with torch's; `after_step` is called with the steps done and their total. A row that
    overflows float32 in torch as well goes on from a fresh state, and a warning is logged. Raises ExportError.
    """
    model, described = load(directory)
    manifest = replace(described, trace=schemas(model)[1])
    graph = build_graph(model, manifest)
    data = graph.SerializeToString()
    overflow = _verify(data, model, after_step)
    if overflow:
        logger.warning(
            "on random inputs of 0 and 1 it overflows float32 after %d steps, in torch as well: a server refuses "
            "such a step",
            overflow,
        )
    path = directory / ONNX_FILE
    write_atomically(path, data)
    if manifest != described:
        write_manifest(directory, manifest)
    return path


def build_graph(model: MemoryModel[Any], manifest: Manifest) -> onnx.ModelProto:
    """Return the graph of one step, with the traces of the manifest and its metadata."""
    step = ServedStep(model, manifest.trace).eval()
    leaves = flatten(model.initial_state(2, _example_size(model)))
    batch, dynamic = torch.export.Dim("batch", min=1), _dynamic_locations(model)
    graph = export_module(
        step,
        (torch.zeros(2, model.input_size), *leaves.values()),
        input_names=["inputs", *(f"state.{name}" for name in leaves)],
        output_names=[
            "outputs",
            *(f"next.{name}" for name in leaves),
            *(f"trace.{name}" for name in manifest.trace),
        ],
        dynamic_shapes=({0: batch}, *([tuple({0: batch} | dynamic[name] for name in leaves)] if leaves else [])),
    )
    first = build_initial_state_graph(model).SerializeToString() if leaves else b""
    metadata = {
        "engram.manifest": manifest.to_json(),
        "engram.initial_state": base64.b64encode(zlib.compress(first, 9)).decode(),
    }
    onnx.helper.set_model_props(graph, metadata)
    add_notes(graph, manifest)
    return graph


def build_initial_state_graph(model: MemoryModel[Any]) -> onnx.ModelProto:
    """Return the graph from the numbers of the memory locations, 0 to N - 1, to the state before the first step."""
    locations = torch.arange(_example_size(model) or 1)
    return export_module(
        FirstState(model).eval(),
        (locations,),
        input_names=["slots"],
        output_names=[f"state.{name}" for name in flatten(model.initial_state(1))],
        dynamic_shapes=None if model.memory_size is None else ({0: torch.export.Dim("slots")},),
    )


class FirstState(nn.Module):
    """The state before the first step as a function of the locations' numbers [N]: its leaves, [1, ...] each."""

    def __init__(self, model: MemoryModel[Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, locations: Tensor) -> tuple[Tensor, ...]:
        size = None if self.model.memory_size is None else locations.shape[0]
        return tuple(flatten(self.model.initial_state(1, size)).values())


def _example_size(model: MemoryModel[Any]) -> int | None:
    """Return the memory size to trace a graph with: never 1, for which the exporter would fix the axis."""
    return None if model.memory_size is None else model.memory_size + 1


def _dynamic_locations(model: MemoryModel[Any]) -> dict[str, dict[int, torch.export.Dim]]:
    """Return, for each leaf of the state, its axes of memory locations."""
    here = flatten(model.initial_state(1))
    if model.memory_size is None:
        return {name: {} for name in here}
    locations, larger = torch.export.Dim("slots", min=1), flatten(model.initial_state(1, model.memory_size + 1))
    return {
        name: {axis: locations for axis, length in enumerate(leaf.shape) if larger[name].shape[axis] != length}
        for name, leaf in here.items()
    }


def export_module(module: nn.Module, arguments: tuple[Tensor, ...], **options: Any) -> onnx.ModelProto:
    """Return the graph of a module's forward; options: as of torch.onnx.export."""
    no_cache = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)  # the cache is slower here than none
    with _quiet_exporter(), _collector_off(), no_cache, _export_errors():
        program = torch.onnx.export(
            module,
            arguments,
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            dynamo=True,
            verbose=False,
            **options,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    _strip_notes(graph)
    return graph


def _stable_sort(values: Any, *, stable: bool, dim: int, descending: bool = False) -> Any:  # noqa: ARG001
    """Translate a stable sort: TopK takes the lowest index first among equals."""
    size = op.Shape(values, start=dim, end=dim + 1)
    return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


@contextmanager
def _collector_off() -> Iterator[None]:
    """Keep Python from looking for garbage: the exporter makes millions of objects, which live until it has ended."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _export_errors() -> Iterator[None]:
    """Raise ExportError for an error of torch's exporter, with the first line of its cause."""
    try:
        yield
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ExportError(f"torch cannot export a step of this model: {reason}") from error


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's exporter from warning of its own deprecations and of libraries that are not installed."""
    with quiet(logging.ERROR, "torch.onnx", "torch.export", "onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _strip_notes(graph: onnx.ModelProto) -> None:
    """Remove the exporter's notes on the source of each node: they hold paths of this machine."""
    del graph.metadata_props[:]
    for part in (*graph.functions, graph.graph):
        del part.metadata_props[:]
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have torch compute with one thread, as `open_session` does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
@torch.no_grad()
def _verify(data: bytes, model: MemoryModel[Any], after_step: Callable[[int, int], object] | None) -> int:
    """Return the number of steps after which a row first overflowed, in torch as well, or 0. Raises ExportError."""
    session = open_session(data)
    _require_any_batch(session)
    step = ServedStep(model)
    generator = torch.Generator().manual_seed(0)
    total = STEPS_VERIFIED * len(RUNS_VERIFIED)
    overflow = 0
    for count, (batch, more) in enumerate(RUNS_VERIFIED):
        leaves = first = _first_leaves(session, model, batch, more)
        for number in range(STEPS_VERIFIED):
            values = model.embedding.vocabulary_size if model.embedding else 2
            inputs = torch.randint(0, values, (batch, model.input_size), generator=generator).float()
            feed = dict(zip((entry.name for entry in session.get_inputs()), (inputs.numpy(), *leaves), strict=True))
            actual = session.run(None, feed)
            differences = step_differences(actual, step, inputs, [torch.from_numpy(leaf) for leaf in leaves], generator)
            if not differences.max() <= TOLERANCE:
                name = session.get_outputs()[int(differences.max(1).argmax())].name
                raise ExportError(
                    f"the ONNX graph differs from torch by {differences.max():.2g} in {name} at step {number + 1} "
                    f"of batch size {batch}, {more} memory locations added; at most {TOLERANCE:g} was expected"
                )
            finite = _finite_rows(actual)
            if not (number or finite.all()):
                raise ExportError("its first step is not finite, in torch as well: its weights overflow float32")
            if not (overflow or finite.all()):
                overflow = number
            leaves = [
                np.where(finite.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, fresh)
                for leaf, fresh in zip(actual[1 : 1 + len(leaves)], first, strict=True)
            ]
            if after_step:
                after_step(count * STEPS_VERIFIED + number + 1, total)
    return overflow


def _require_any_batch(session: onnxruntime.InferenceSession) -> None:
    """Raise ExportError unless the batch of each input and output is open."""
    for entry in (*session.get_inputs(), *session.get_outputs()):
        if entry.shape[0] != "batch":
            raise ExportError(
                f"{entry.name} of the ONNX graph has shape {entry.shape}, expected ['batch', ...]: a step must compute "
                "all rows at once, without a loop over them"
            )


def _finite_rows(tensors: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Return the rows of a batch in which all values of all tensors are finite: [B]."""
    values = np.concatenate([tensor.reshape(len(tensor), -1) for tensor in tensors], 1)
    finite: NDArray[np.bool_] = np.isfinite(values).all(1)
    return finite


def _first_leaves(
    session: onnxruntime.InferenceSession, model: MemoryModel[Any], batch: int, more: int
) -> list[NDArray[Any]]:
    """Return the graph's state before the first step, [B, ...]. Raises ExportError if it differs from torch's."""
    size = None if model.memory_size is None else model.memory_size + more
    locations = np.arange(size or 1)
    data = zlib.decompress(base64.b64decode(session.get_modelmeta().custom_metadata_map["engram.initial_state"]))
    if not data:
        return []
    first = open_session(data)
    leaves = first.run(None, {entry.name: locations for entry in first.get_inputs()})
    for (name, expected), leaf in zip(flatten(model.initial_state(1, size)).items(), leaves, strict=True):
        if not np.allclose(leaf, expected.numpy(), rtol=0, atol=TINY_DIFFERENCE):
            raise ExportError(
                f"the ONNX graph of the first state differs from torch in {name}, {more} memory locations added"
            )
    return [np.repeat(leaf, batch, 0) for leaf in leaves]


def step_differences(
    actual: list[NDArray[Any]], step: ServedStep, inputs: Tensor, state: list[Tensor], generator: torch.Generator
) -> NDArray[Any]:
    """Return the difference of each tensor of each row from the step that torch takes from `state`: [tensors, B].

    A row that differs too much is also compared with the steps from nearby states; the best of them counts if it
    is close.
    """
    differences = _compare(actual, step(inputs, *state))
    for row in np.flatnonzero(differences.max(0) > TOLERANCE):
        alone = slice(row, row + 1)
        nearby = [_scatter(leaf[alone], generator) for leaf in state]
        expected = step(inputs[alone].expand(NEARBY_STATES, -1), *nearby)
        tried = _compare([tensor[alone] for tensor in actual], expected)
        best = tried[:, tried.max(0).argmin()]
        if best.max() <= TOLERANCE:
            differences[:, row] = best
    return differences


def _scatter(leaf: Tensor, generator: torch.Generator) -> Tensor:
    """Return NEARBY_STATES copies of a leaf [1, ...], each changed a little."""
    noise = torch.randn((NEARBY_STATES, *leaf.shape[1:]), generator=generator)
    return leaf * (1 + NEARBY * noise)


def _compare(actual: list[NDArray[Any]], expected: Sequence[Tensor]) -> NDArray[Any]:
    """Return the largest difference of each tensor in each row, its values in order or sorted: [tensors, B].

    It is 0 if a tensor is finite in neither, NaN or infinity if it is finite in one of them only.
    """
    differences = []
    for came, wanted in zip(actual, expected, strict=True):
        theirs, ours = came.reshape(len(came), -1), wanted.numpy().reshape(len(wanted), -1)
        with np.errstate(invalid="ignore", over="ignore"):
            in_order = np.abs(theirs - ours).max(1)
            in_rank = np.abs(np.sort(theirs) - np.sort(ours)).max(1)
            relative = np.minimum(in_order, in_rank) / np.maximum(1, np.abs(ours).max(1))
        differences.append(np.where(_finite_rows([theirs]) | _finite_rows([ours]), relative, 0))
    return np.stack(differences)
