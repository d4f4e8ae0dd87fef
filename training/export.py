"""One step of a model as an ONNX graph that carries everything a server needs to know.

Inputs: `inputs` [B, I] and `state.NAME` [B, ...] for each leaf. Outputs: `outputs` [B, O], after their activation,
`next.NAME` [B, ...] for each leaf and `trace.NAME` [B, ...] for each trace. The batch is dynamic.
Metadata: `engram.manifest` (the manifest as JSON, with the hash of the weights) and `engram.initial_state` (the state
before the first step, batch 1, as base64 of deflated safetensors).
"""

import base64
import logging
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxscript import opset20 as op
from safetensors.torch import save
from torch import Tensor

from models.artefact import ServedStep, load
from models.contract import MemoryModel
from models.manifest import ONNX_FILE, Manifest
from models.state import flatten
from training.checkpoint import write_atomically

OPSET = 20

STEPS_VERIFIED = 100
BATCHES_VERIFIED = (1, 2, 5)
TOLERANCE = 5e-4
"""The largest difference from torch, in one step from the same state, of any output, state leaf or trace, relative to
its largest value where that is above 1. In float32, torch's own step is that uncertain: sharp content weightings
multiply its rounding a thousandfold.

The steps are compared one by one because whole runs cannot be: a trained DNC whose memory is full takes a difference
of rounding to one of the outputs in a few dozen steps. Nor can slots: two whose usage differs by rounding may swap
places. Where they held the same, the values of a tensor agree once they are sorted; where they did not, the step
agrees with one that torch takes from a state which differs by NEARBY.
"""

NEARBY = 1e-6
NEARBY_STATES = 64


class ExportError(RuntimeError):
    """An exported graph that does not compute what the model does."""


def export(directory: Path, after_step: Callable[[int, int], object] | None = None) -> Path:
    """Write `model.onnx` beside the weights of a checkpoint and return its path.

    The graph is run over 100 steps from a fresh state at batch 1, 2 and 5, and gets its name only if every one of its
    steps is the one that torch takes; `after_step` is called with the steps done and their total. Raises ExportError.
    """
    model, manifest = load(directory)
    graph = build_graph(model, manifest)
    data = graph.SerializeToString()
    _verify(data, model, after_step)
    path = directory / ONNX_FILE
    write_atomically(path, data)
    return path


def build_graph(model: MemoryModel[Any], manifest: Manifest) -> onnx.ModelProto:
    """Return the graph of one step, with its metadata."""
    step = ServedStep(model).eval()
    names = step.names
    example = (torch.zeros(2, model.input_size), *flatten(model.initial_state(2)).values())
    batch = torch.export.Dim("batch", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            step,
            example,
            input_names=["inputs", *(f"state.{name}" for name in names)],
            output_names=[
                "outputs",
                *(f"next.{name}" for name in names),
                *(f"trace.{name}" for name in manifest.trace),
            ],
            dynamic_shapes=({0: batch}, tuple({0: batch} for _ in names)),
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    _strip_notes(graph)
    onnx.helper.set_model_props(
        graph,
        {"engram.manifest": manifest.to_json(), "engram.initial_state": _pack(flatten(model.initial_state(1)))},
    )
    return graph


def _stable_sort(values: Any, *, stable: bool, dim: int, descending: bool = False) -> Any:  # noqa: ARG001
    """Translate a stable sort: TopK takes the lowest index first among equals."""
    size = op.Shape(values, start=dim, end=dim + 1)
    return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's exporter from warning of its own deprecations and of libraries that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip_notes(graph: onnx.ModelProto) -> None:
    """Remove the exporter's notes on where in the source each node came from: they hold paths of this machine."""
    del graph.metadata_props[:]
    for part in (*graph.functions, graph.graph):
        del part.metadata_props[:]
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]


def _pack(leaves: Mapping[str, Tensor]) -> str:
    data = save({name: leaf.contiguous() for name, leaf in leaves.items()})
    return base64.b64encode(zlib.compress(data, 9)).decode()


@torch.no_grad()
def _verify(data: bytes, model: MemoryModel[Any], after_step: Callable[[int, int], object] | None) -> None:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    step = ServedStep(model)
    generator = torch.Generator().manual_seed(0)
    total = STEPS_VERIFIED * len(BATCHES_VERIFIED)
    for count, batch in enumerate(BATCHES_VERIFIED):
        leaves = [leaf.numpy() for leaf in flatten(model.initial_state(batch)).values()]
        for number in range(STEPS_VERIFIED):
            inputs = torch.randint(0, 2, (batch, model.input_size), generator=generator).float()
            feed = dict(zip((entry.name for entry in session.get_inputs()), (inputs.numpy(), *leaves), strict=True))
            actual = session.run(None, feed)
            differences = _differences(actual, step, inputs, [torch.from_numpy(leaf) for leaf in leaves], generator)
            if not differences.max() <= TOLERANCE:
                name = session.get_outputs()[int(differences.max(1).argmax())].name
                raise ExportError(
                    f"the ONNX graph differs from torch by {differences.max():.2g} in {name} at step {number + 1} "
                    f"of batch size {batch}; at most {TOLERANCE:g} was expected"
                )
            leaves = actual[1 : 1 + len(leaves)]
            if after_step:
                after_step(count * STEPS_VERIFIED + number + 1, total)


def _differences(
    actual: list[NDArray[Any]], step: ServedStep, inputs: Tensor, state: list[Tensor], generator: torch.Generator
) -> NDArray[Any]:
    """Return how far each tensor of each row is from the step that torch takes from `state`: [tensors, B].

    A row that is too far is compared with the steps from states nearby, and with the best of them if it comes close.
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
    """Return NEARBY_STATES copies of a leaf [1, ...], each a little off."""
    noise = torch.randn((NEARBY_STATES, *leaf.shape[1:]), generator=generator)
    return leaf * (1 + NEARBY * noise)


def _compare(actual: list[NDArray[Any]], expected: Sequence[Tensor]) -> NDArray[Any]:
    """Return the largest difference of each tensor in each row, its values in order or sorted: [tensors, B]."""
    differences = []
    for came, wanted in zip(actual, expected, strict=True):
        theirs, ours = came.reshape(len(came), -1), wanted.numpy().reshape(len(wanted), -1)
        in_order = np.abs(theirs - ours).max(1)
        in_rank = np.abs(np.sort(theirs) - np.sort(ours)).max(1)
        differences.append(np.minimum(in_order, in_rank) / np.maximum(1, np.abs(ours).max(1)))
    return np.stack(differences)
