"""The back ends and the trainer on a GPU: compared with the CPU, then timed beside the limits of the card.

Nothing is timed that does not compute what the CPU computes. What a machine lacks for a check is said in its row.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu import checks, rates, served, training
from benchmarks.gpu.card import limits_of, name_of
from benchmarks.gpu.plan import GpuPlan
from benchmarks.machine import machine, versions
from benchmarks.table import print_table
from kernels.gpu.support import why_no_triton

TABLES = {"checks": checks.CHECKS, "rates": rates.RATES, "training": training.TRAINING, "served": served.SERVED}


def run(
    tables: Sequence[str],
    sizes: Sequence[str],
    batches: Sequence[int],
    training_batch: int,
    rounds: int,
    seconds: float,
    limit: float,
    is_compiled: bool,
    device: str,
    command: str,
) -> None:
    """Print the tables, in the order of TABLES. Raises WrongOutputs if a step on the device computes something else.

    batches: sessions of a step; training_batch: sequences of an update.
    limit: seconds after which nothing more is begun. is_compiled: whether to time torch.compile too, which takes about
    half a minute a model. device: "cuda", or "cpu" to try the command without a card. Raises ValueError where there is
    no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device cuda was asked for, but torch sees no CUDA device here; --device cpu tries the command"
        )
    reason = why_no_triton()
    if reason is not None:
        raise ValueError(f"there is nothing to measure: {reason}; elsewhere, on Linux: pip install triton")
    print(f"`{command}` on {machine()};")
    print(f"{name_of(device)}; {versions('torch', 'numpy')}.")
    limits = limits_of(device)
    print(f"A copy on it: {limits.bytes_per_second / 1e9:,.0f} GB/s, read and written. ", end="")
    print(f"Products of large matrices in float32: {limits.operations_per_second / 1e12:,.2f} TF/s.")
    print(f"Medians of {rounds} x {seconds:g} s, in turns.", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        end = time.monotonic() + limit
        plan = GpuPlan(
            device, sizes, batches, training_batch, rounds, seconds, end, is_compiled, limits, Path(directory)
        )
        for name in filter(tables.__contains__, TABLES):
            print_table(name, TABLES[name], plan)
