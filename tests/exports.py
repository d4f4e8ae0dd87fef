"""Graphs that tests share: an export takes seconds."""

import functools
import hashlib
import os
import shutil
from pathlib import Path

from models.manifest import MANIFEST_FILE, ONNX_FILE
from training.export import export


@functools.cache
def parse_operators_once() -> None:
    """Have torch's exporter keep its operators, which it parses anew at every export, a tenth of its time."""
    from torch.onnx._internal.exporter import _registration

    apis = _registration.onnxscript_apis
    apis.get_torchlib_ops = functools.cache(apis.get_torchlib_ops)


def export_once(directory: Path) -> Path:
    """Export a checkpoint, or write the graph that this run of the tests exported of the same manifest and weights."""
    manifest = (directory / MANIFEST_FILE).read_bytes()  # with the weights' hash
    known = Path(os.environ["TESTS_SHARED"], f"{hashlib.sha256(manifest).hexdigest()}.onnx")
    if not known.exists():
        parse_operators_once()
        unfinished = known.with_suffix(f".{os.getpid()}")
        shutil.copyfile(export(directory), unfinished)
        unfinished.rename(known)
    return Path(shutil.copyfile(known, directory / ONNX_FILE))
