"""Checkpoints with files that are small and would become large: none is served, and none costs memory."""

import base64
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import onnx
import pytest

from app.settings import SettingsError, load_settings
from models.manifest import sha256
from tests.app.checkpoints import make_checkpoint
from tests.app.harness import running_server
from tests.app.resident import MB, resident

TYPES = onnx.TensorProto


def rewrite(directory: Path, **values: object) -> None:
    """Change values of a manifest, also of the one in the graph."""
    path, graph = directory / "manifest.json", onnx.load(directory / "model.onnx")
    document = json.loads(path.read_text()) | values
    path.write_text(json.dumps(document))
    for entry in graph.metadata_props:
        entry.value = json.dumps(document) if entry.key == "engram.manifest" else entry.value
    onnx.save(graph, directory / "model.onnx")


def first_state(directory: Path, graph: bytes) -> None:
    """Replace the compressed graph of the first state."""
    model = onnx.load(directory / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == "engram.initial_state":
            entry.value = base64.b64encode(zlib.compress(graph, 9)).decode()
    onnx.save(model, directory / "model.onnx")


def header(size: int) -> bytes:
    """Return a safetensors file whose header has about `size` bytes of metadata."""
    members = b",".join(b'"%07x":""' % number for number in range(size // 13))
    text = b'{"__metadata__":{' + members + b"}}"
    return struct.pack("<Q", len(text)) + text


def lists(directory: Path) -> None:
    (directory / "manifest.json").write_bytes(b"[" + b"[]," * (4 * MB) + b"0]")


def weights(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(header(40 * MB))
    rewrite(directory, weights_sha256=sha256(directory / "model.safetensors"))


def sample(directory: Path) -> None:
    (directory / "sample.safetensors").write_bytes(header(15 * MB))


def zeros(directory: Path) -> None:
    first_state(directory, bytes(200 * MB))


def constants(directory: Path) -> None:
    """Compute a first state of 800 MB, by a graph of a hundred bytes."""
    leaf = json.loads((directory / "manifest.json").read_text())["state"]
    shape = onnx.helper.make_tensor("shape", TYPES.INT64, [2], [1, 200 * MB])
    nodes = [onnx.helper.make_node("ConstantOfShape", ["shape"], [f"state.{name}"]) for name in leaf]
    outputs = [onnx.helper.make_tensor_value_info(f"state.{name}", TYPES.FLOAT, [1, 200 * MB]) for name in leaf]
    graph = onnx.helper.make_graph(nodes, "first", [], outputs, [shape])
    opset = [onnx.helper.make_opsetid("", 18)]
    first_state(directory, onnx.helper.make_model(graph, ir_version=9, opset_imports=opset).SerializeToString())


def state(directory: Path) -> None:
    rewrite(directory, state={"memory": [200 * MB, 200]})


def trace(directory: Path) -> None:
    rewrite(directory, trace={"usage": [200 * MB, 200]})


def outside(directory: Path) -> None:
    """Have the weights of the graph in a file of zeros beside it."""
    with (directory / "zeros").open("wb") as file:
        file.truncate(800 * MB)
    model = onnx.load(directory / "model.onnx")
    extra = onnx.helper.make_tensor("extra", TYPES.FLOAT, [0], [])
    extra.dims[:] = [200 * MB]
    extra.data_location = TYPES.EXTERNAL
    for key, value in (("location", str(directory / "zeros")), ("offset", "0"), ("length", str(800 * MB))):
        extra.external_data.add(key=key, value=value)
    model.graph.initializer.append(extra)
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["extra"], ["sum"], keepdims=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("sum", TYPES.FLOAT, []))
    (directory / "model.onnx").write_bytes(model.SerializeToString())


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "lists": (lists, "a manifest has at most 1048576"),
    "weights": (weights, "its header would have"),
    "sample": (sample, "its header would have"),
    "zeros": (zeros, "which a state of these shapes does not need"),
    "constants": (constants, "but its manifest says"),
    "state": (state, "its state would take 160000000000 bytes"),
    "trace": (trace, "its inputs, outputs and traces of a step would take"),
    "outside": (outside, "onnxruntime cannot load it"),
}


@pytest.mark.slow
def test_checkpoints_that_inflate_are_refused_without_their_memory(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    make_checkpoint(checkpoints / "good", "dnc")
    with running_server(data=tmp_path / "alone", checkpoints=checkpoints) as server:
        usual = resident(server, "VmHWM")
    for name, (plant, _) in BOMBS.items():
        plant(make_checkpoint(checkpoints / name, "dnc"))
    with running_server(data=tmp_path / "data", checkpoints=checkpoints) as server:
        failures = httpx.get(f"{server.url}/readyz").json()["failed"]
        assert resident(server, "VmHWM") - usual < 120 * MB
    assert {name: complaint in failures.get(name, "") for name, (_, complaint) in BOMBS.items()} == dict.fromkeys(
        BOMBS, True
    ), failures


def test_file_of_settings_is_not_read_beyond_its_limit(tmp_path):
    (tmp_path / "engram.toml").write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(SettingsError, match="1048577 bytes, but settings need at most 1048576"):
        load_settings({"config": str(tmp_path / "engram.toml")})
