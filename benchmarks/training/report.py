"""The tables on updates, and the command that prints them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.kernels.report import kernels_name
from benchmarks.machine import load_average, machine, versions
from benchmarks.peers import recipe
from benchmarks.table import paragraph, print_table
from benchmarks.training.parts import PARTS
from benchmarks.training.plan import TrainingPlan
from benchmarks.training.scripts import load_scripts
from benchmarks.training.threads import TWO_THREADS
from benchmarks.training.updates import UPDATES, least_gain

TABLES = {"updates": UPDATES, "parts": PARTS, "threads": TWO_THREADS}


def run(batches: Sequence[int], updates: int, rounds: int, seconds: float, peers: Path | None, command: str) -> None:
    """Print the tables. Raises WrongOutputs if an implementation has a wrong loss, or does not learn.

    updates: the least updates of a turn. peers: the directory of the public implementations, if any; missing ones are
    left out, with a line for them. command: the command line of this run.
    """
    torch.set_num_threads(1)
    scripts, missing = load_scripts(peers) if peers else ([], [])
    print(f"`{command}` on {machine()}, {load_average()};")
    print(f"{versions('torch', 'numpy')}; {kernels_name()}.")
    turns = f"{rounds} x {seconds:g} s, or {updates} updates where they take longer, in turns"
    print(f"One thread where nothing else is said. Medians of {turns}.")
    if peers and missing:
        print(f"Left out: {', '.join(missing)}, not found in {peers}. To get all:\n{recipe(peers)}")
    with tempfile.TemporaryDirectory() as directory:
        plan = TrainingPlan(batches, updates, rounds, seconds, scripts, Path(directory))
        rows = print_table("updates", UPDATES, plan)
        print(f"\n{paragraph(least_gain(rows))}")
        print_table("parts", PARTS, plan)
        print_table("threads", TWO_THREADS, plan)
