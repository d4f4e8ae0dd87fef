"""The tables on kernels, and the command that prints them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.kernels import profile, serving, training
from benchmarks.kernels.plan import KernelsPlan
from benchmarks.machine import machine, versions
from benchmarks.peers import load_peers
from benchmarks.table import print_table
from kernels.library import library

TABLES = {
    "step": serving.STEP,
    "arena": serving.ARENA,
    "threads": serving.THREADS,
    "calls": serving.CALLS,
    "training": training.TRAINING,
    "training-threads": training.THREADS,
}


def run(
    tables: Sequence[str],
    sizes: Sequence[str],
    batches: Sequence[int] | None,
    rounds: int,
    seconds: float,
    peers: Path | None,
    command: str,
    profiled: bool = False,
) -> None:
    """Print the tables, in the order of TABLES. Raises WrongOutputs if an implementation computes something else.

    peers: the directory of the public implementations, to train them too. command: the command line of this run.
    profiled: whether to print profiles too, which may raise NoPerf.
    """
    torch.set_num_threads(1)
    others = load_peers(peers) if peers else []
    print(f"`{command}` on {machine()};")
    print(f"{versions('torch', 'onnxruntime', 'numpy')}; {kernels_name()}.")
    print(f"One thread where nothing else is said. Medians of {rounds} x {seconds:g} s, in turns.")
    with tempfile.TemporaryDirectory() as directory:
        plan = KernelsPlan(sizes, batches, rounds, seconds, others, Path(directory))
        for name in filter(tables.__contains__, TABLES):
            print_table(name, TABLES[name], plan)
        if profiled:
            print_table("profile", profile.PROFILE, plan)


def kernels_name() -> str:
    """Return the name of the fastest library of kernels that this processor runs."""
    fastest = library()
    return fastest.path.stem if fastest else "no fused kernels"
