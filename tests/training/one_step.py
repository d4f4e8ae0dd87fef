"""ONNX graphs of one step, as other people export them, and onnxruntime's own loop over them."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import numpy_helper

from models.manifest import ONNX_FILE
from training.graphs import ImportedGraph, import_graph
from training.runtime import open_session

Array = NDArray[Any]


def weights(*shape: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) / 3).astype(np.float32)


def graph(text: str, opset: int = 18, ir_version: int = 8, **values: Any) -> onnx.ModelProto:
    """Return the model of a graph in ONNX's text format; values: its initializers by name."""
    parsed = onnx.parser.parse_graph(text)
    parsed.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(parsed, opset_imports=opsets, ir_version=ir_version)


def cell(batch: str = "B") -> onnx.ModelProto:
    """Return a recurrent cell, x [B, 3], h [B, 4] -> y [B, 4], h_out."""
    return graph(
        f"""step (float[{batch}, 3] x, float[{batch}, 4] h) => (float[{batch}, 4] y, float[{batch}, 4] h_out) {{
            a = MatMul(x, w)
            b = MatMul(h, u)
            c = Add(a, b)
            h_out = Tanh(c)
            y = Mul(h_out, two)
        }}""",
        w=weights(3, 4),
        u=weights(4, 4, seed=1),
        two=np.float32(2),
    )


def several_dtypes() -> onnx.ModelProto:
    """Return a cell of leaves of three dtypes: x [B, 3], h [2, B, 4], count, sum -> y [B, 4], drive, the next ones."""
    return graph(
        """step (float[B, 3] x, float[2, B, 4] h, int64[B] count, double[B, 3] sum)
            => (float[B, 4] y, float[B, 4] drive, float[2, B, 4] h_out, int64[B] count_out, double[B, 3] sum_out) {
            drive = MatMul(x, w)
            near, far = Split <axis = 0, num_outputs = 2> (h)
            raw = Add(drive, near)
            new = Tanh(raw)
            h_out = Concat <axis = 0> (new, near)
            y = Squeeze(new, first)
            wide = Cast <to = 11> (x)
            sum_out = Add(sum, wide)
            count_out = Add(count, one)
        }""",
        w=weights(3, 4),
        first=np.array([0]),
        one=np.int64(1),
    )


def policy(batch: str = "1") -> onnx.ModelProto:
    """Return an LSTM of two layers: obs [1, 48], h_in, c_in [2, 1, 64] -> actions [1, 12], h_out, c_out."""
    return graph(
        f"""policy (float[{batch}, 48] obs, float[2, {batch}, 64] h_in, float[2, {batch}, 64] c_in)
            => (float[{batch}, 12] actions, float[2, {batch}, 64] h_out, float[2, {batch}, 64] c_out) {{
            h0, h1 = Split <axis = 0, num_outputs = 2> (h_in)
            c0, c1 = Split <axis = 0, num_outputs = 2> (c_in)
            s0 = Unsqueeze(obs, zero)
            y0, hn0, cn0 = LSTM <hidden_size = 64> (s0, w0, r0, b0, , h0, c0)
            s1 = Squeeze(y0, one)
            y1, hn1, cn1 = LSTM <hidden_size = 64> (s1, w1, r1, b1, , h1, c1)
            top = Squeeze(y1, ends)
            actions = MatMul(top, head)
            h_out = Concat <axis = 0> (hn0, hn1)
            c_out = Concat <axis = 0> (cn0, cn1)
        }}""",
        zero=np.array([0]),
        one=np.array([1]),
        ends=np.array([0, 1]),
        w0=weights(1, 256, 48),
        r0=weights(1, 256, 64, seed=1),
        b0=weights(1, 512, seed=2),
        w1=weights(1, 256, 64, seed=3),
        r1=weights(1, 256, 64, seed=4),
        b1=weights(1, 512, seed=5),
        head=weights(64, 12, seed=6),
    )


def detector(window: int = 24, hidden: int = 8) -> onnx.ModelProto:
    """Return a voice detector in the form of Silero's: input [?, ?] of a window of samples; state [2, ?, hidden]; sr.

    An If on the sampling rate chooses between two sets of weights; the state's batch is axis 1.
    """
    branch = f"b () => (float[b, {4 * hidden}] gates) {{{{ gates = MatMul(input, {{name}}) }}}}"
    model = graph(
        f"""detector (float[b0, t0] input, float[2, b1, {hidden}] state, int64 sr)
            => (float[b2, 1] output, float[x, y, z] stateN) {{
            h3, c3 = Split <axis = 0, num_outputs = 2> (state)
            h = Squeeze(h3, zero)
            c = Squeeze(c3, zero)
            fast = Equal(sr, rate)
            own = MatMul(h, r)
            sum = Add(own, gates)
            i, o, f, g = Split <axis = 1, num_outputs = 4> (sum)
            si = Sigmoid(i)
            so = Sigmoid(o)
            sf = Sigmoid(f)
            tg = Tanh(g)
            kept = Mul(sf, c)
            new = Mul(si, tg)
            c2 = Add(kept, new)
            tc = Tanh(c2)
            h2 = Mul(so, tc)
            logit = MatMul(h2, head)
            output = Sigmoid(logit)
            hu = Unsqueeze(h2, zero)
            cu = Unsqueeze(c2, zero)
            stateN = Concat <axis = 0> (hu, cu)
        }}""",
        zero=np.array([0]),
        rate=np.int64(16000),
        wide=weights(window, 4 * hidden),
        narrow=weights(window, 4 * hidden, seed=1),
        r=weights(hidden, 4 * hidden, seed=2),
        head=weights(hidden, 1, seed=3),
    )
    branches = {
        key: onnx.parser.parse_graph(branch.format(name=name))
        for key, name in (("then_branch", "wide"), ("else_branch", "narrow"))
    }
    choice = onnx.helper.make_node("If", ["fast"], ["gates"], name="rate", **branches)
    at = next(index for index, node in enumerate(model.graph.node) if node.output[0] == "own")
    model.graph.node.insert(at, choice)
    return model


def suppressor() -> onnx.ModelProto:
    """Return a graph in the form of DTLN's first: input_2 [1, 1, 257], h and c of two LSTMs [1, 2, 128, 2]."""
    layers = [
        f"""
            s{n} = Gather <axis = 1> (input_3, at{n})
            h{n}, c{n} = Split <axis = 2, num_outputs = 2> (s{n})
            hs{n} = Squeeze(h{n}, two)
            cs{n} = Squeeze(c{n}, two)
            hu{n} = Unsqueeze(hs{n}, zero)
            cu{n} = Unsqueeze(cs{n}, zero)
            y{n}, hn{n}, cn{n} = LSTM <hidden_size = 128> (x{n}, w{n}, r{n}, b{n}, , hu{n}, cu{n})
            x{n + 1} = Squeeze(y{n}, one)
            ht{n} = Transpose <perm = [1, 0, 2]> (hn{n})
            ct{n} = Transpose <perm = [1, 0, 2]> (cn{n})
            hk{n} = Unsqueeze(ht{n}, last)
            ck{n} = Unsqueeze(ct{n}, last)
            k{n} = Concat <axis = 3> (hk{n}, ck{n})"""
        for n in range(2)
    ]
    cells = {
        f"{kind}{n}": weights(1, *shape, seed=3 * n + number) / 4
        for n, size in enumerate((257, 128))
        for number, (kind, shape) in enumerate({"w": (512, size), "r": (512, 128), "b": (1024,)}.items())
    }
    return graph(
        f"""dtln (float[1, 1, 257] input_2, float[1, 2, 128, 2] input_3)
            => (float[1, 1, 257] activation_2, float[1, 2, 128, 2] tf_op_layer_stack_2) {{
            x0 = Transpose <perm = [1, 0, 2]> (input_2)
            {"".join(layers)}
            tf_op_layer_stack_2 = Concat <axis = 1> (k0, k1)
            product = MatMul(x2, head)
            mask = Sigmoid(product)
            activation_2 = Transpose <perm = [1, 0, 2]> (mask)
        }}""",
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        last=np.array([3]),
        at0=np.int64(0),
        at1=np.int64(1),
        head=weights(128, 257, seed=6),
        **cells,
    )


def series() -> onnx.ModelProto:
    """Return a GRU as PyTorch exports it, batch first: x [B, 1, 1], h [1, B, 32] -> y [B, 1, 1], next_h."""
    return graph(
        """series (float[B, 1, 1] x, float[1, B, 32] h) => (float[B, 1, 1] y, float[1, B, 32] next_h) {
            times = Transpose <perm = [1, 0, 2]> (x)
            all, next_h = GRU <hidden_size = 32, linear_before_reset = 1> (times, w, r, b, , h)
            out = Squeeze(all, one)
            product = MatMul(out, head)
            y = Transpose <perm = [1, 0, 2]> (product)
        }""",
        one=np.array([1]),
        w=weights(1, 96, 1),
        r=weights(1, 96, 32, seed=1),
        b=weights(1, 192, seed=2),
        head=weights(32, 1, seed=3),
    )


LIKENESSES = {"silero": lambda: detector(576, 128), "dtln": suppressor, "policy": policy, "series": series}
"""Graphs of the shapes of those of examples/graphs, with random weights, by the name of their specification there."""

DETECTOR = """
inputs = {input = {shape = ["B", 24], carry = 8, range = [-1, 1]}}
constants = {sr = 16000}
state = {state = "stateN"}
outputs = {output = {name = "speech", range = [0, 1]}}
step = {sampling_rate = 16000, hop = 16, units = "samples"}
about = {license = "none"}
"""


def imported(
    directory: Path, model: onnx.ModelProto | bytes, spec: str | None = None, guess: bool | None = None
) -> ImportedGraph:
    """Import a graph into directory/model; guess: by default if there is no specification."""
    file, spec_file = directory / "step.onnx", directory / "spec.toml"
    file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if spec is not None:
        spec_file.write_text(spec)
    return import_graph(
        file,
        directory / "model",
        "engram import",
        lambda _: nullcontext(lambda done, total: None),
        None if spec is None else spec_file,
        spec is None if guess is None else guess,
    )


def operators(directory: Path) -> set[str]:
    """Return the operators of an imported graph, of all levels."""
    from training.graphs.files import nodes_of

    return {node.op_type for node in nodes_of(onnx.load(directory / "model" / ONNX_FILE).graph)}


def own_loop(
    model: onnx.ModelProto,
    feeds: Sequence[Mapping[str, Array]],
    state: Mapping[str, Array],
    following: Mapping[str, str],
) -> tuple[list[dict[str, Array]], dict[str, Array]]:
    """Return the outputs of onnxruntime's own loop over a file, and its last state.

    feeds: the inputs of each step; following: leaf -> the output that is its next value.
    """
    session = open_session(model.SerializeToString())
    names = [value.name for value in model.graph.output]
    results = []
    state = dict(state)
    for feed in feeds:
        values = dict(zip(names, session.run(None, {**feed, **state}), strict=True))
        state = {leaf: values[name] for leaf, name in following.items()}
        results.append(values)
    return results, state
