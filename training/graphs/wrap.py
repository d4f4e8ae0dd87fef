"""Write an outside graph as the graph of a step that the server's back end reads.

    inputs [B, I] --slice--reshape--(B to its axis)--cast--.                  .--(B first)--reshape--cast--.-- outputs
    state.x.carry ---'(concatenated before its input)      |  the graph,      |                            |
    state.h [B, ...] ------------------(B to its axis)-----|  its names with  |--(B first)------------------ next.h
                                                           |  a prefix        |--(B first)--cast------------ trace.a
    constants -- bound before ----------------------------'                  '

In the form "scan", this stands for one row in the body of a Scan over the rows.
"""

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.manifest import GraphForm
from training.graph_notes import PRODUCER, engram_version
from training.graphs.files import DTYPES, graphs_in, tensors_of
from training.graphs.spec import BATCH, CARRY, GraphSpec, Leaf, Part, Shape

PREFIX = "graph/"
"""Before every name of the outside graph, so that none is one of ours."""

OWN = "step/"
"""Before the names of the values between that graph and the inputs and outputs of a step."""

BATCH_AXIS = "batch"

LARGEST_IR = 10
"""The version of the file format, so that older versions of onnxruntime read it too."""


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph of a step in Engram, in order.

    first: the leaves before the first step, without the batch axis, in which the carried inputs stand last. trace:
    shapes without the batch axis.
    """

    input_size: int
    output_size: int
    first: dict[str, NDArray[Any]]
    trace: dict[str, list[int]]

    @property
    def state(self) -> dict[str, list[int]]:
        """The shapes of the leaves, without the batch axis."""
        return {name: list(leaf.shape) for name, leaf in self.first.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtypes of the leaves."""
        return {name: str(leaf.dtype) for name, leaf in self.first.items()}


def carry_name(part: Part) -> str:
    """Return the name of the leaf with the numbers that an input carries from step to step."""
    return f"{part.name}{CARRY}"


def write_graph(model: onnx.ModelProto, spec: GraphSpec, signature: Signature, form: GraphForm) -> onnx.ModelProto:
    """Return the graph of a step in a form.

    model: prepared for any number of rows if the form is "batched", else for one.
    """
    inner = onnx.ModelProto()
    inner.CopyFrom(model)
    inner.graph.CopyFrom(renamed(model.graph, PREFIX))
    batch = None if form == "batched" else 1
    wrapped = _Wrapper(inner, spec, batch)
    wrapped.write()
    step = wrapped.graph(signature)
    graph = _scanned(step, signature) if form == "scan" else step
    result = helper.make_model(
        graph,
        opset_imports=inner.opset_import,
        functions=inner.functions,
        ir_version=min(max(inner.ir_version, 8), LARGEST_IR),
        producer_name=PRODUCER,
        producer_version=engram_version(),
        doc_string=_documentation(spec),
    )
    props = {"engram.initial_state": base64.b64encode(zlib.compress(_first_graph(signature), 9)).decode()}
    helper.set_model_props(result, props)
    return result


def _documentation(spec: GraphSpec) -> str:
    inputs, outputs = (", ".join(part.name for part in parts) for parts in (spec.inputs, spec.outputs))
    return (
        f"One step of an imported graph, for a batch of sequences at once: {inputs} in, {outputs} out, each a part of "
        "the vector inputs or outputs. next.* are the state.* of the step that follows."
    )


@dataclass
class _Wrapper:
    """The nodes and weights around an outside graph."""

    inner: onnx.ModelProto
    spec: GraphSpec
    batch: int | None
    before: list[onnx.NodeProto] = field(default_factory=list)
    after: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def write(self) -> None:
        types = {value.name: value.type.tensor_type.elem_type for value in self.inner.graph.input}
        self.nodes = self.before
        offset = 0
        for part in self.spec.inputs:
            self._input(part, offset, types[PREFIX + part.tensor])
            offset += part.numbers
        for leaf in self.spec.state:
            self._leaf_in(leaf)
        self.nodes = self.after
        for leaf in self.spec.state:
            self._leaf_out(leaf)
        vectors = [self._vector(part) for part in self.spec.outputs]
        self._add("Concat", vectors, "outputs", axis=1)
        for part in self.spec.trace:
            first = self._batch_first(PREFIX + part.tensor, part.shape or ())
            self._cast(first, f"trace.{part.name}", TensorProto.FLOAT)

    def graph(self, signature: Signature) -> onnx.GraphProto:
        """Return the whole graph, whose first axes are the batch."""
        rows: int | str = BATCH_AXIS if self.batch is None else self.batch
        return helper.make_graph(
            [*self.before, *self.inner.graph.node, *self.after],
            "step",
            _inputs(signature, [rows]),
            _outputs(signature, [rows]),
            [*self.inner.graph.initializer, *self.weights],
        )

    def _input(self, part: Part, offset: int, elem_type: int) -> None:
        """Cut the numbers of an input out of the vector of a step."""
        name = PREFIX + part.tensor
        values = self._sliced("inputs", offset, offset + part.numbers, self._own("new"))
        if part.carry:
            carried = carry_name(part)
            values = self._add("Concat", [f"state.{carried}", values], self._own("joined"), axis=1)
            self._sliced(values, part.numbers, part.numbers + part.carry, f"next.{carried}")
        shape = part.shape or ()
        rows_first = self._reshaped(values, [-1, *part.row_shape] if BATCH in shape else [*shape], self._own("shaped"))
        self._cast(self._batch_placed(rows_first, shape), name, elem_type)

    def _leaf_in(self, leaf: Leaf) -> None:
        name, shape = PREFIX + leaf.tensor, leaf.shape or ()
        own = f"state.{leaf.name}"
        if BATCH in shape:
            self._identity(self._batch_placed(own, shape), name)
        else:
            self._reshaped(own, [*shape], name)

    def _leaf_out(self, leaf: Leaf) -> None:
        first = self._batch_first(f"{PREFIX}{leaf.next}", leaf.shape or ())
        self._reshaped(first, [-1 if self.batch is None else self.batch, *leaf.row_shape], f"next.{leaf.name}")

    def _vector(self, part: Part) -> str:
        """Return an output of the graph as float32 [B, numbers]."""
        first = self._batch_first(PREFIX + part.tensor, part.shape or ())
        flat = self._reshaped(first, [-1 if self.batch is None else self.batch, part.numbers], self._own("flat"))
        return self._cast(flat, self._own("vector"), TensorProto.FLOAT)

    def _batch_placed(self, rows_first: str, shape: Shape) -> str:
        """Move the batch from axis 0 to its own."""
        axis = shape.index(BATCH) if BATCH in shape else 0
        if axis == 0:
            return rows_first
        order = [*range(1, axis + 1), 0, *range(axis + 1, len(shape))]
        return self._add("Transpose", [rows_first], self._own("placed"), perm=order)

    def _batch_first(self, tensor: str, shape: Shape) -> str:
        """Move the batch to axis 0; a tensor of a single row gets one."""
        if BATCH not in shape:
            return self._reshaped(tensor, [1, *[size for size in shape if isinstance(size, int)]], self._own("first"))
        axis = shape.index(BATCH)
        if axis == 0:
            return tensor
        order = [axis, *(other for other in range(len(shape)) if other != axis)]
        return self._add("Transpose", [tensor], self._own("first"), perm=order)

    def _own(self, what: str) -> str:
        """Return a new name."""
        return f"{OWN}{len(self.before) + len(self.after)}/{what}"

    def _sliced(self, tensor: str, start: int, end: int, name: str) -> str:
        bounds = [self._weight([value]) for value in (start, end, 1)]  # the last one: the axis
        return self._add("Slice", [tensor, *bounds], name)

    def _reshaped(self, tensor: str, shape: Sequence[int | str], name: str) -> str:
        return self._add("Reshape", [tensor, self._weight([int(size) for size in shape])], name)

    def _cast(self, tensor: str, name: str, elem_type: int) -> str:
        return self._add("Cast", [tensor], name, to=elem_type)

    def _identity(self, tensor: str, name: str) -> str:
        return self._add("Identity", [tensor], name)

    def _weight(self, values: list[int]) -> str:
        name = f"{OWN}weight/{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output


def _scanned(step: onnx.GraphProto, signature: Signature) -> onnx.GraphProto:
    """Return the graph that takes the rows one by one, each by the graph of one row."""
    body = renamed(step, "row/")
    names_in, names_out = [value.name for value in body.input], [value.name for value in body.output]
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in body.input}
    shapes |= {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in body.output}
    adding = [_reshape(f"{name}/alone", name, shapes[name]) for name in names_in]
    dropping = [_reshape(name, f"{name}/alone", shapes[name][1:]) for name in names_out]
    nodes = [*(node for node, _ in adding), *body.node, *(node for node, _ in dropping)]
    weights = [*body.initializer, *(weight for _, weight in (*adding, *dropping))]
    inputs, outputs = _inputs(signature, []), _outputs(signature, [])
    for value in (*inputs, *outputs):
        value.name = f"row/{value.name}/alone"
    alone = helper.make_graph(nodes, "row", inputs, outputs)
    rows = [BATCH_AXIS]
    inputs, outputs = _inputs(signature, rows), _outputs(signature, rows)
    names = [value.name for value in inputs], [value.name for value in outputs]
    scan = helper.make_node("Scan", *names, body=alone, num_scan_inputs=len(inputs))
    return helper.make_graph([scan], "step", inputs, outputs, weights)


def renamed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """Return a graph with a prefix before every name of a value, also in the graphs within its nodes."""
    result = onnx.GraphProto()
    result.CopyFrom(graph)
    _rename(result, prefix)
    return result


def _rename(graph: onnx.GraphProto, prefix: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{prefix}{name}" if name else name for name in names]  # "": an optional one, left out
        for inner in graphs_in(node):
            _rename(inner, prefix)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = f"{prefix}{value.name}"
    del graph.value_info[:], graph.quantization_annotation[:]


def _reshape(tensor: str, name: str, shape: list[int]) -> tuple[onnx.NodeProto, TensorProto]:
    sizes = numpy_helper.from_array(np.array(shape, np.int64), f"{name}/row-shape")
    return helper.make_node("Reshape", [tensor, sizes.name], [name]), sizes


def _inputs(signature: Signature, rows: Sequence[int | str]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [*rows, signature.input_size]),
        *_leaves("state", signature, rows),
    ]


def _outputs(signature: Signature, rows: Sequence[int | str]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("outputs", TensorProto.FLOAT, [*rows, signature.output_size]),
        *_leaves("next", signature, rows),
        *(
            helper.make_tensor_value_info(f"trace.{name}", TensorProto.FLOAT, [*rows, *shape])
            for name, shape in signature.trace.items()
        ),
    ]


def _leaves(prefix: str, signature: Signature, rows: Sequence[int | str]) -> list[onnx.ValueInfoProto]:
    types = {dtype: elem_type for elem_type, dtype in DTYPES.items()}
    return [
        helper.make_tensor_value_info(f"{prefix}.{name}", types[signature.dtypes[name]], [*rows, *shape])
        for name, shape in signature.state.items()
    ]


def _first_graph(signature: Signature) -> bytes:
    """Return the graph of the state before the first step, [1, ...] each; empty without a state."""
    if not signature.state:
        return b""
    weights = [numpy_helper.from_array(value[np.newaxis], f"first.{name}") for name, value in signature.first.items()]
    nodes = [helper.make_node("Identity", [f"first.{name}"], [f"state.{name}"]) for name in signature.first]
    graph = helper.make_graph(nodes, "first", [], _leaves("state", signature, [1]), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=LARGEST_IR)
    data: bytes = model.SerializeToString()
    return data


def parameters_of(model: onnx.ModelProto) -> int:
    """Return the number of weights of a graph: those of its initializers of floating point, and of its Constants."""
    floating = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return sum(math.prod(tensor.dims) for tensor in tensors_of(model) if tensor.data_type in floating)
