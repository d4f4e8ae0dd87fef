"""An outside graph with its constants bound, its shapes as the specification says, and what is then known folded."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxscript import optimizer

from training.graphs.files import DTYPES, OLDEST_OPSET, OPSET, opset_of
from training.graphs.spec import BATCH, GraphSpec, Shape
from training.importers.variables import ImportFailed
from training.quiet import quiet


def inputs_of(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Return the inputs of a graph by name, without the weights that old files list among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {value.name: value for value in model.graph.input if value.name not in weights}


def outputs_of(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Return the outputs of a graph by name."""
    return {value.name: value for value in model.graph.output}


def dtype_of(value: onnx.ValueInfoProto) -> str:
    """Return the NumPy name of the type of an input or output."""
    return DTYPES[value.type.tensor_type.elem_type]


def with_opset(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Return a graph of OLDEST_OPSET or later. where: for errors. Raises ImportFailed if it cannot be converted."""
    opset = opset_of(model)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # onnx's converter has no class of its own
        raise ImportFailed(
            f"{where}: opset {opset} cannot be converted to {OPSET}: {str(error).strip()}: export the graph with "
            f"opset_version={OPSET}"
        ) from error


def constants_of(model: onnx.ModelProto, spec: GraphSpec) -> dict[str, NDArray[Any]]:
    """Return the constants in the types and shapes that the graph declares. Raises ImportFailed if they do not fit."""
    values = inputs_of(model)
    return {name: _fitting(spec.where, name, value, values[name]) for name, value in spec.constants.items()}


def _fitting(where: str, name: str, value: NDArray[Any], declared: onnx.ValueInfoProto) -> NDArray[Any]:
    sizes = sizes_of(declared)
    cast = cast_values(f"{where}: [constants] {name}", value, dtype_of(declared))
    if sizes is None:
        return cast
    if value.ndim == 0 and all(isinstance(size, int) for size in sizes):
        return np.full([size for size in sizes if isinstance(size, int)], cast)
    fits = value.ndim == len(sizes) and all(
        size == actual for size, actual in zip(sizes, value.shape, strict=True) if isinstance(size, int)
    )
    if not fits:
        raise ImportFailed(f"{where}: [constants] {name}: expected the shape {sizes}, got {list(value.shape)}")
    return cast


def cast_values(place: str, value: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return finite numbers in a type; fractions are rounded to it. Raises ImportFailed for those that it has not."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(dtype)
    if not (np.isfinite(cast).all() if cast.dtype.kind == "f" else np.array_equal(cast, value)):
        raise ImportFailed(f"{place}: expected values of {dtype}, got {value.tolist()}")
    return cast


def sizes_of(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Return the declared sizes of a tensor, names for those that are symbols; None for an undeclared rank."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else size.dim_param or None
        for size in kind.shape.dim
    ]


def prepared(model: onnx.ModelProto, spec: GraphSpec, batch: int | None) -> onnx.ModelProto:
    """Return a graph whose inputs are those of a step only, in the shapes of a complete specification.

    batch: the number of rows, None for any number. What is known then is folded: an If on a constant, or on a shape.
    """
    result = onnx.ModelProto()
    result.CopyFrom(with_opset(model, spec.where))
    graph = result.graph
    constants, values = constants_of(result, spec), inputs_of(result)
    shapes = {part.tensor: part.shape for part in spec.fed}
    del graph.input[:], graph.value_info[:]
    for name, shape in shapes.items():
        assert shape is not None
        sizes = ["batch" if size == BATCH and batch is None else batch if size == BATCH else size for size in shape]
        graph.input.append(onnx.helper.make_tensor_value_info(name, values[name].type.tensor_type.elem_type, sizes))
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    return folded(result)


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph in which all that depends on constants and known shapes alone is computed."""
    if inputs_of(model).keys() & outputs_of(model).keys():  # the optimizer gives such inputs other names
        return model
    try:
        with quiet(logging.CRITICAL, "onnxscript", "onnx_ir"):
            optimized: onnx.ModelProto = optimizer.optimize(model, num_iterations=3)
    except Exception:  # the unfolded graph is the same, only slower
        return model
    return optimized


def zeros_feed(model: onnx.ModelProto, shapes: Mapping[str, Shape], batch: int) -> dict[str, NDArray[Any]]:
    """Return zeros for the inputs of a graph, by name, in these shapes with this number of rows."""
    values = inputs_of(model)
    return {
        name: np.zeros([batch if size == BATCH else int(size) for size in shape], dtype_of(values[name]))
        for name, shape in shapes.items()
    }
