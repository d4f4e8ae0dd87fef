"""Whole updates of the trainer, from the data to the metrics, beside those of public implementations.

Ours are those of `engram train`: data, unrolling, loss, errors, gradients, clipping, optimiser, progress and metrics.
Theirs are those of their authors' scripts. No weights are saved, none validated. All get sequences of the same lengths
and take turns, and nothing is timed before it is found to compute, and to learn, what it should.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.kernels import kernels_name
from benchmarks.machine import load_average, machine, versions
from benchmarks.peers import recipe
from benchmarks.table import paragraph, print_table
from benchmarks.training.parts import PARTS
from benchmarks.training.plan import TrainingPlan
from benchmarks.training.scripts import load_scripts
from benchmarks.training.updates import UPDATES, least_gain

TABLES = {"updates": UPDATES, "parts": PARTS}


def run(batches: Sequence[int], updates: int, rounds: int, seconds: float, peers: Path | None, command: str) -> None:
    """Print the tables. Raises WrongOutputs where something does not compute, or not learn, what it should.

    updates: of a turn, at least. peers: where the public implementations lie, if any; those that are not there are
    left out, with a line that says so. command: how this was started.
    """
    torch.set_num_threads(1)
    scripts, missing = load_scripts(peers) if peers else ([], [])
    print(f"`{command}` on {machine()}, {load_average()};")
    print(f"{versions('torch', 'numpy')}; {kernels_name()}.")
    print(f"One thread. Medians of {rounds} x {seconds:g} s, or {updates} updates where they take longer, in turns.")
    if peers and missing:
        print(f"Left out: {', '.join(missing)}, not found in {peers}. To get all:\n{recipe(peers)}")
    with tempfile.TemporaryDirectory() as directory:
        plan = TrainingPlan(batches, updates, rounds, seconds, scripts, Path(directory))
        rows = print_table("updates", UPDATES, plan)
        print(f"\n{paragraph(least_gain(rows))}")
        print_table("parts", PARTS, plan)
