"""engram bench fairness: the time that the worst requests keep another session waiting."""

import argparse
from pathlib import Path

from engram.commands.bench.serving import add_served_model
from engram.options import Commands, command, positive


def add(commands: Commands) -> None:
    parser = command(commands, "fairness", "How long the worst requests keep a session of another model waiting.")
    add_served_model(parser)
    parser.add_argument("--neighbour", default="lstm-copy", help="the model of the session that waits")
    parser.add_argument("--requests", nargs="+", metavar="NAME", help="which requests, if not all")
    parser.add_argument("--rounds", type=positive, default=5, help="tries of which the median is taken")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the server writes meanwhile (default: .)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks import fairness

    fairness.run(
        options.checkpoints,
        options.model,
        options.neighbour,
        fairness.chosen(options.requests),
        options.rounds,
        options.data_root,
        options.command_line,
    )
    return 0
