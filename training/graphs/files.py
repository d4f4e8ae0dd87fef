"""Read an ONNX file whole, or refuse it by name."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, TensorProto, helper

from models.manifest import LEAF_DTYPES
from training.importers.variables import ImportFailed
from training.runtime import first_line, open_session

OLDEST_OPSET = 13
"""Older graphs are converted, so that the nodes around them have one meaning."""

OPSET = 20
"""The opset that older graphs are converted to."""

STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""The domains of the operators that onnxruntime's package has."""

DTYPES = {int(helper.np_dtype_to_tensor_dtype(np.dtype(name))): name for name in LEAF_DTYPES}
"""The types of tensors that inputs, outputs and states may have, and their NumPy names."""


def read_graph(file: Path) -> onnx.ModelProto:
    """Return the graph in a file, with its external data. Raises ImportFailed.

    External data is read from the directory of the file, and from no other.
    """
    if file.is_dir():
        raise ImportFailed(f"{file}: expected one .onnx file, got a directory{_graphs_in(file)}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ImportFailed(f"{file}: {error.strerror}; expected an .onnx file") from error
    model = _parse(file, data)
    _check_operators(file, model)
    _load_external_data(file, model)
    _check_whole(file, model)
    return model


def _graphs_in(directory: Path) -> str:
    graphs = sorted(path.name for path in directory.glob("*.onnx"))
    if not graphs:
        return ""
    return f" with {len(graphs)} graphs, {', '.join(graphs)}: a model is one graph of one step; give one of them"


def _parse(file: Path, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own class, which differs between its implementations
        raise ImportFailed(f"{file}: no ONNX file, or one that is cut: {error}") from error
    if not model.graph.node or not model.opset_import:
        raise ImportFailed(f"{file}: no ONNX file, or one that is cut: it has no nodes or names no opset")
    return model


def _check_operators(file: Path, model: onnx.ModelProto) -> None:
    """Raise ImportFailed for a type or an operator that onnxruntime does not have."""
    opset = opset_of(model)
    newest = newest_opset()
    if opset > newest:
        raise ImportFailed(
            f"{file}: opset {opset}, but onnxruntime {onnxruntime.__version__} reads opsets up to {newest}: "
            f"export it with opset_version={OPSET}"
        )
    known = {*STANDARD, *(function.domain for function in model.functions)}
    for node in nodes_of(model.graph):
        if node.domain not in known:
            raise ImportFailed(
                f"{file}: node {node.name!r} is the custom operator {node.domain}.{node.op_type}, which onnxruntime "
                "does not have: export the graph with standard operators"
            )
    if any(graph.sparse_initializer for graph in graphs_of(model.graph)):
        raise ImportFailed(f"{file}: it holds sparse weights (sparse_initializer): export it with dense ones")
    if model.training_info:
        raise ImportFailed(f"{file}: it holds graphs of a training beside the step's: export it for inference")
    for value in (*model.graph.input, *model.graph.output):
        _check_type(file, value)


def _check_type(file: Path, value: onnx.ValueInfoProto) -> None:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ImportFailed(f"{file}: {value.name!r} must be a tensor, got {kind or 'no type'}")
    if value.type.tensor_type.elem_type not in DTYPES:
        got = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise ImportFailed(f"{file}: {value.name!r} must be of {', '.join(DTYPES.values())}, got {got}")


def _load_external_data(file: Path, model: onnx.ModelProto) -> None:
    for tensor in tensors_of(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(file.resolve().parent))
        except Exception as error:  # onnx has no class of its own for these
            raise ImportFailed(
                f"{file}: the data of {tensor.name!r} is in {location!r}, which is looked for beside the file and "
                f"nowhere else: {error}"
            ) from error


def _check_whole(file: Path, model: onnx.ModelProto) -> None:
    """Raise ImportFailed unless onnxruntime can load the graph."""
    try:
        open_session(model.SerializeToString())
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise ImportFailed(
            f"{file}: onnxruntime {onnxruntime.__version__} cannot load it: {first_line(error)}"
        ) from error


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a graph is written for."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def newest_opset() -> int:
    """Return the newest opset of standard operators that onnxruntime reads: it names it when it refuses a newer one."""
    identity = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([identity], "probe", [x], [y])
    newest = onnx.defs.onnx_opset_version()
    for opset in range(newest, OPSET, -1):
        probe = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
        try:
            open_session(probe.SerializeToString())
        except Exception:  # noqa: S112 - as above
            continue
        return opset
    return OPSET


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the graphs within its nodes."""
    for node in graph.node:
        yield node
        for inner in graphs_in(node):
            yield from nodes_of(inner)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs within its nodes."""
    yield graph
    for node in nodes_of(graph):
        yield from graphs_in(node)


def graphs_in(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that are attributes of a node: the branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors that a file holds: initializers and attributes, also in inner graphs."""
    yield from _tensors(model.graph)
    for function in model.functions:
        yield from _attributes(function.node)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _attributes(graph.node)


def _attributes(nodes: Iterator[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
        for graph in graphs_in(node):
            yield from _tensors(graph)
