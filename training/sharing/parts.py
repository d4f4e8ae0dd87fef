"""The files of a checkpoint that travel. Needs no torch."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from models.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    ONNX_FILE,
    SAMPLE_FILE,
    WEIGHTS_FILE,
    read_manifest,
    weights_file,
)
from training.files import CheckpointError

CARD_FILES = ("README.md", "learning.json")

PARTS = (MANIFEST_FILE, WEIGHTS_FILE, ONNX_FILE, SAMPLE_FILE, *CARD_FILES)
"""The files of a checkpoint that serving and its card need, beside figures. What resuming needs stays where it is."""

FIGURE = ".png"

MAX_FILES = 64
"""Files of a shared checkpoint, at most: one has some fifteen."""

MAX_BYTES = 16 * 2**30
"""Bytes of a shared checkpoint, at most."""

MAX_SMALL_BYTES = 64 * 2**20
"""Bytes of a part other than the weights and the graph, at most."""


def parts_of(directory: Path) -> dict[str, Path]:
    """Return the parts of a checkpoint, name -> file, in the order of their names. Raises ManifestError.

    Its weights are found, and their hash compared, as `weights_file` does.
    """
    manifest = read_manifest(directory)
    weights = weights_file(directory, manifest)
    found = {path.name: path for path in directory.iterdir() if is_part(path.name) and path.is_file()}
    found[ONNX_FILE if weights.name == ONNX_FILE else WEIGHTS_FILE] = weights
    return dict(sorted(found.items()))


def is_part(name: str) -> bool:
    """Return whether a file of this name may be part of a checkpoint; a name with a directory may not."""
    return (
        "/" not in name and name.isprintable() and not name.startswith(".") and (name in PARTS or name.endswith(FIGURE))
    )


def check_size(name: str, size: int, where: str) -> None:
    """Raise CheckpointError for a part that is larger than any of its kind."""
    limit = MAX_MANIFEST_BYTES if name == MANIFEST_FILE else MAX_SMALL_BYTES
    if name not in (WEIGHTS_FILE, ONNX_FILE) and size > limit:
        raise CheckpointError(f"{where}: {name} has {size:,} bytes, but at most {limit:,} were expected")


def check(directory: Path) -> None:
    """Raise ManifestError or CheckpointError unless a directory holds a whole checkpoint, and nothing besides."""
    for path in directory.iterdir():
        if not is_part(path.name) or path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{directory}: {path.name} is no part of a checkpoint, which are {', '.join(PARTS)}")
        check_size(path.name, path.stat().st_size, str(directory))
    parts_of(directory)


def copy(parts: Mapping[str, Path], into: Path) -> None:
    """Copy the parts of a checkpoint, as `parts_of` returns them, into a directory that exists. Raises OSError."""
    for name, path in parts.items():
        shutil.copyfile(path, into / name)
