"""Exported graphs, run by hand."""

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """Return a session of one thread: more would keep the cores busy while they wait for the next short step."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def metadata(session: onnxruntime.InferenceSession) -> dict[str, str]:
    return session.get_modelmeta().custom_metadata_map


def initial_leaves(graph: onnxruntime.InferenceSession, batch: int = 1, slots: int | None = None) -> Arrays:
    """Return the state before the first step from the graph in the metadata, for rows and memory locations.

    slots: the manifest's memory size, if not given.
    """
    data = zlib.decompress(base64.b64decode(metadata(graph)["engram.initial_state"]))
    if not data:
        return {}
    trained = json.loads(metadata(graph)["engram.manifest"])["config"].get("memory_size", 1)
    first = session(data)
    names = [entry.name.removeprefix("state.") for entry in first.get_outputs()]
    leaves = first.run(None, {entry.name: np.arange(slots or trained) for entry in first.get_inputs()})
    return {name: np.repeat(leaf, batch, axis=0) for name, leaf in zip(names, leaves, strict=True)}


def run_graph(session: onnxruntime.InferenceSession, inputs: NDArray[Any], leaves: Arrays) -> Arrays:
    """Run one step and return the graph's outputs by name; leaves: arrays by the names of the state."""
    feed = {"inputs": inputs} | {f"state.{name}": leaf for name, leaf in leaves.items()}
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def next_leaves(outputs: Arrays) -> Arrays:
    return {name.removeprefix("next."): value for name, value in outputs.items() if name.startswith("next.")}
