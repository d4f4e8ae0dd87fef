"""A recording of inputs beside an imported graph, to play on the page."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from models.config import ConfigError
from models.manifest import MAX_SAMPLE_BYTES, SAMPLE_FILE
from training.files import write_atomically
from training.graphs.spec import GraphSpec, load_array
from training.importers.variables import ImportFailed

Array = NDArray[Any]

MOST_STEPS = 1000
"""Steps of a recording that are kept, if they are not more than a sample may have."""

HEADER_BYTES = 1000
"""Bytes of a file beside its numbers, at most."""


def write_sample(spec: GraphSpec, directory: Path) -> None:
    """Write the beginning of the recording of a specification. Raises ImportFailed if it does not fit."""
    assert spec.sample
    size = spec.input_size
    where = f"{spec.where}: sample"
    try:
        steps = _wav(where, spec, size) if spec.sample.suffix.lower() == ".wav" else load_array(where, spec.sample)
    except ConfigError as error:
        raise ImportFailed(str(error)) from error
    if steps.ndim != 2 or steps.shape[1] != size or not len(steps):
        raise ImportFailed(f"{where}: {spec.sample} must be of shape [T, {size}], got {list(steps.shape)}")
    most = min(MOST_STEPS, (MAX_SAMPLE_BYTES - HEADER_BYTES) // (4 * size))
    kept = np.ascontiguousarray(steps[:most], "<f4")
    if not np.isfinite(kept).all():
        raise ImportFailed(f"{where}: {spec.sample} has numbers beyond float32")
    write_atomically(directory / SAMPLE_FILE, save({"inputs": kept}))


def _wav(where: str, spec: GraphSpec, size: int) -> Array:
    """Return the steps of a WAV file, float [T, size]: its channels averaged, from -1 to 1. Raises ConfigError."""
    try:
        with wave.open(str(spec.sample), "rb") as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError(f"{where}: {spec.sample} is no WAV file of whole numbers: {error}") from error
    if width != 2:
        raise ConfigError(f"{where}: {spec.sample} must have samples of 16 bits, got {8 * width}")
    if spec.step.sampling_rate not in (None, rate):
        raise ConfigError(
            f"{where}: {spec.sample} has {rate} samples per second, but [step] says {spec.step.sampling_rate}"
        )
    whole = len(data) // (width * channels) * width * channels  # a file that is cut may end within a frame
    samples: Array = np.frombuffer(data[:whole], "<i2").reshape(-1, channels).mean(1) / 2**15
    return samples[: len(samples) // size * size].reshape(-1, size)
