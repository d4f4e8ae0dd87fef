"""The time of one step by the fused kernels, beside ONNX Runtime, both as back ends with their arenas.

One thread each. Sizes: S = DNC (N 16, W 16, R 4, LSTM 64), M = (128, 32, 4, 128), L = (256, 64, 4, 256), NTM = (128 x
20, one head each, LSTM 100); 9 inputs, 9 outputs, random weights. Before anything is timed, a run of steps is compared.
Figures are medians of rounds in which the two take turns; on a busy machine only the ratio means something.

    python benchmarks/kernels.py --sizes S M L NTM --batches 1 64 256
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from app.backends.base import Array, Backend
from app.backends.fused import FusedBackend
from app.backends.onnx import OnnxBackend
from models.cells import LSTMConfig
from models.dnc import DNC, DNCConfig
from models.ntm import NTM, NTMConfig
from training.checkpoint import save_model
from training.export import export

SIZES = {
    "S": DNCConfig(9, 9, memory_size=16, word_size=16, read_heads=4, controller=LSTMConfig(hidden_size=64)),
    "M": DNCConfig(9, 9, memory_size=128, word_size=32, read_heads=4, controller=LSTMConfig(hidden_size=128)),
    "L": DNCConfig(9, 9, memory_size=256, word_size=64, read_heads=4, controller=LSTMConfig(hidden_size=256)),
    "NTM": NTMConfig(9, 9, memory_size=128, word_size=20, controller=LSTMConfig(hidden_size=100)),
}
CHECKED_STEPS = 10
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="which models")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256], help="sessions stepped together")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of which the median is taken")
    options = parser.parse_args()
    print(f"one thread; {platform.machine()}, {os.cpu_count()} cores; median of {options.rounds} rounds")
    print(f"{'size':>4} {'batch':>5} {'onnx us/step':>13} {'fused us/step':>14} {'onnx/fused':>11}")
    torch.manual_seed(0)
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            directory = make_checkpoint(size, Path(name))
            for batch in options.batches:
                report(size, batch, directory, options.rounds, options.seconds)


def make_checkpoint(size: str, directory: Path) -> Path:
    config = SIZES[size]
    model = DNC(config) if isinstance(config, DNCConfig) else NTM(config)
    save_model(directory, model, "dnc" if isinstance(config, DNCConfig) else "ntm", config, {"name": "none"}, {})
    export(directory)
    return directory


def report(size: str, batch: int, directory: Path, rounds: int, seconds: float) -> None:
    onnx, fused = OnnxBackend(directory, batch), FusedBackend(directory, batch)
    slots = [onnx.open() for _ in range(batch)]
    assert slots == [fused.open() for _ in range(batch)]
    check(onnx, fused, slots)
    times = [(measure(onnx, slots, seconds), measure(fused, slots, seconds)) for _ in range(rounds)]
    theirs, ours = (1e6 * statistics.median(column) for column in zip(*times, strict=True))
    print(f"{size:>4} {batch:>5} {theirs:>13,.1f} {ours:>14,.1f} {theirs / ours:>11.1f}", flush=True)


def check(onnx: Backend, fused: Backend, slots: list[int]) -> None:
    """Compare a run of steps from a fresh state."""
    for step in range(CHECKED_STEPS):
        inputs = random_inputs(len(slots), step)
        expected, _ = onnx.step(slots, inputs)
        np.testing.assert_allclose(fused.step(slots, inputs)[0], expected, rtol=0, atol=TOLERANCE)


def measure(backend: Backend, slots: list[int], seconds: float) -> float:
    """Return the seconds that a step of all slots takes."""
    inputs, steps, began = random_inputs(len(slots), 0), 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        backend.step(slots, inputs)
        steps += 1
    return elapsed / steps


def random_inputs(rows: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 2, (rows, 9)).astype(np.float32)


if __name__ == "__main__":
    main()
