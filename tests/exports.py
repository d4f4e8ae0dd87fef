"""Graphs that tests share: an export takes seconds."""

from pathlib import Path

from models.manifest import MANIFEST_FILE, ONNX_FILE
from training.export import export

_graphs: dict[bytes, bytes] = {}


def export_once(directory: Path) -> Path:
    """Export a checkpoint, or write the graph that this process exported from the same manifest and weights."""
    manifest = (directory / MANIFEST_FILE).read_bytes()  # with the weights' hash
    if manifest not in _graphs:
        _graphs[manifest] = export(directory).read_bytes()
    path = directory / ONNX_FILE
    path.write_bytes(_graphs[manifest])
    return path
