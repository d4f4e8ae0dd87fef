"""engram bench kernels: the fused kernels beside all else that computes the same."""

import argparse
from pathlib import Path

from engram.options import Commands, command, positive, seconds

TABLES = ("step", "arena", "threads", "calls", "training", "training-threads")
"""The keys of benchmarks.kernels.TABLES."""

SIZES = ("S", "M", "L", "NTM")
"""The keys of benchmarks.kernels.sizes.SIZES."""


def add(commands: Commands) -> None:
    parser = command(commands, "kernels", "The fused kernels beside all else that computes the same, checked first.")
    for name, choices, about in (
        ("tables", TABLES, "which tables"),
        ("sizes", SIZES, "which models step"),
    ):
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=choices, metavar="NAME", help=about)
    parser.add_argument(
        "--batches", type=positive, nargs="+", metavar="N", help="batches of every table, if not each table's own"
    )
    parser.add_argument("--rounds", type=positive, default=5, help="turns of which the median is taken")
    parser.add_argument("--seconds", type=seconds, default=0.3, help="time of a turn")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="public implementations to train beside, if any")
    parser.add_argument("--profile", action="store_true", help="also where the time goes, by Linux's perf")
    parser.add_argument("--quick", action="store_true", help="one call a turn, one turn: to see that all works")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks import kernels

    rounds, turn = (1, 0.0) if options.quick else (options.rounds, options.seconds)
    kernels.run(
        options.tables,
        options.sizes,
        options.batches,
        rounds,
        turn,
        options.peers,
        options.command_line,
        options.profile,
    )
    return 0
