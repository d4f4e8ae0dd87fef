"""Imported graphs with random weights, for the tests to serve."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx

from tests.training.one_step import graph, weights
from training.graphs import import_graph

HIDDEN = 8


def make_graph_checkpoint(directory: Path, source: Path, model: onnx.ModelProto, spec: str = "") -> Path:
    """Write the checkpoint of an imported graph.

    source: its ONNX file and its specification, without their suffixes. spec: what it leaves out is guessed.
    """
    file, written = source.with_suffix(".onnx"), source.with_suffix(".toml")
    onnx.save(model, file)
    written.write_text(spec)
    import_graph(file, directory, "engram import", lambda _: nullcontext(lambda done, total: None), written, True)
    return directory


def rnn(inputs: dict[str, int], outputs: dict[str, int]) -> onnx.ModelProto:
    """Return a basic RNN whose outputs are from 0 to 1; inputs, outputs: the sizes of the parts of a step, by name."""
    heads = "".join(f"p_{name} = MatMul(h_out, w_{name})\n{name} = Sigmoid(p_{name})\n" for name in outputs)
    text = f"""rnn ({_declared(inputs | {"h": HIDDEN})}) => ({_declared(outputs | {"h_out": HIDDEN})}) {{
        joined = Concat <axis = 1> ({", ".join(inputs)}, h)
        product = MatMul(joined, w)
        h_out = Tanh(product)
        {heads}
    }}"""
    head_weights = {f"w_{name}": weights(HIDDEN, size) for name, size in outputs.items()}
    return graph(text, w=weights(sum(inputs.values()) + HIDDEN, HIDDEN), **head_weights)


def classifier(vocabulary_size: int) -> onnx.ModelProto:
    """Return a graph that takes a token a step, and has two outputs."""
    text = """tokens (int64[B, 1] token, float[B, 2] h) => (float[B, 2] scores, float[B, 2] h_out) {
        found = Gather(table, token)
        word = Squeeze(found, one)
        h_out = Add(h, word)
        scores = Tanh(h_out)
    }"""
    return graph(text, table=weights(vocabulary_size, 2), one=np.array([1]))


def large() -> onnx.ModelProto:
    """Return a graph with a state of 18,000 numbers."""
    text = """large (float[B, 1] x, float[B, 3, 6000] h) => (float[B, 1] y, float[B, 3, 6000] h_out) {
        y = Tanh(x)
        h_out = Tanh(h)
    }"""
    return graph(text)


def _declared(sizes: dict[str, int]) -> str:
    return ", ".join(f"float[B, {size}] {name}" for name, size in sizes.items())
