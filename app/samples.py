"""The sample of a checkpoint: a recording of inputs to try its model with."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from models.manifest import MAX_SAMPLE_BYTES, SAMPLE_FILE, Manifest, ManifestError, check_header

TENSOR = "inputs"
"""The name of the one tensor in a file of a sample."""


def read_sample(directory: Path, manifest: Manifest) -> NDArray[np.float32] | None:
    """Return the sample of a checkpoint, float32 [T, input_size], or None if it has none.

    Raises ManifestError for a file that is damaged, too large, or not of the model's inputs.
    """
    path = directory / SAMPLE_FILE
    if not path.exists():
        return None
    tensors = _load(path)
    sample = tensors.get(TENSOR)
    expected = f"one float32 tensor {TENSOR!r} of shape [T, {manifest.input_size}] with T of at least 1"
    if len(tensors) != 1 or sample is None:
        raise ManifestError(f"{path}: expected {expected}, got tensors of the names {sorted(tensors)}")
    if sample.dtype != np.float32 or sample.ndim != 2 or not len(sample) or sample.shape[1] != manifest.input_size:
        raise ManifestError(f"{path}: expected {expected}, got {sample.dtype} of shape {list(sample.shape)}")
    if not np.isfinite(sample).all():
        step, place = np.argwhere(~np.isfinite(sample))[0]
        raise ManifestError(f"{path}: {TENSOR}[{step}][{place}] is {sample[step, place]}, expected a finite number")
    return sample


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file. Raises ManifestError."""
    remedy = "remove the file, or import the model again"
    try:
        size = path.stat().st_size
        if size > MAX_SAMPLE_BYTES:
            raise ManifestError(f"{path}: {size} bytes, but a sample has at most {MAX_SAMPLE_BYTES}: {remedy}")
        check_header(path)
        return safetensors.numpy.load(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}: {remedy}") from error
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy does not have
        raise ManifestError(f"{path}: it cannot be read as safetensors: {error}: {remedy}") from error
