"""engram bench training: updates of the trainer beside those of public implementations."""

import argparse
from pathlib import Path

from engram.options import Commands, command, positive, seconds


def add(commands: Commands) -> None:
    parser = command(commands, "training", "Whole updates of the trainer beside those of public implementations.")
    parser.add_argument("--batches", type=positive, nargs="+", default=[16, 1], metavar="N", help="batches")
    parser.add_argument("--updates", type=positive, default=20, help="updates of a turn, at least")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of which the median is taken")
    parser.add_argument("--seconds", type=seconds, default=0.3, help="time of a turn, at least")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="public implementations to train beside, if any")
    parser.add_argument("--quick", action="store_true", help="two updates a turn, one turn: to see that all works")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks import training

    updates, rounds, turn = (2, 1, 0.0) if options.quick else (options.updates, options.rounds, options.seconds)
    training.run(options.batches, updates, rounds, turn, options.peers, options.command_line)
    return 0
