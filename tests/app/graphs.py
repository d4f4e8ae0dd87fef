"""Imported graphs with random weights, for the tests to serve."""

import contextlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.graphs import import_graph

HIDDEN = 8


def make_graph_checkpoint(
    directory: Path, source: Path, inputs: dict[str, int], outputs: dict[str, int], spec: str = ""
) -> Path:
    """Write the checkpoint of an imported graph of a basic RNN.

    source: its ONNX file and its specification, without their suffixes. inputs, outputs: the sizes of the parts of a
    step, by name. spec: its specification; what that leaves out is guessed.
    """
    file, written = source.with_suffix(".onnx"), source.with_suffix(".toml")
    onnx.save(_graph(inputs, outputs), file)
    written.write_text(spec)
    import_graph(file, directory, "engram import", lambda _: contextlib.nullcontext(lambda *_: None), written, True)
    return directory


def _graph(inputs: dict[str, int], outputs: dict[str, int]) -> onnx.ModelProto:
    """Return h_out = tanh([inputs, h] weights), and for each output the sigmoid of a product with h_out."""
    generator = np.random.default_rng(1)
    sizes = {"weights": (sum(inputs.values()) + HIDDEN, HIDDEN)} | {
        f"weights.{name}": (HIDDEN, size) for name, size in outputs.items()
    }
    weights = [
        numpy_helper.from_array(generator.normal(0, 0.5, shape).astype(np.float32), name)
        for name, shape in sizes.items()
    ]
    nodes = [
        helper.make_node("Concat", [*inputs, "h"], ["joined"], axis=1),
        helper.make_node("MatMul", ["joined", "weights"], ["product"]),
        helper.make_node("Tanh", ["product"], ["h_out"]),
    ]
    for name in outputs:
        nodes.append(helper.make_node("MatMul", ["h_out", f"weights.{name}"], [f"product.{name}"]))
        nodes.append(helper.make_node("Sigmoid", [f"product.{name}"], [name]))

    def values(sized: dict[str, int]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in sized.items()]

    graph = helper.make_graph(
        nodes, "rnn", values(inputs | {"h": HIDDEN}), values(outputs | {"h_out": HIDDEN}), weights
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
