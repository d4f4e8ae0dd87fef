"""engram bench graphs: the cost of a served step of imported graphs."""

import argparse
from pathlib import Path

from engram.commands.bench.serving import DURABILITIES
from engram.options import Commands, command, positive, seconds


def add(commands: Commands) -> None:
    parser = command(commands, "graphs", "What a served step of imported graphs costs, beside the bare back end's.")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="directory of the models")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help="some of its graphs, if not all")
    parser.add_argument("--connections", type=positive, nargs="+", default=[1, 64], help="at a time")
    parser.add_argument(
        "--durability", nargs="+", choices=DURABILITIES, default=["ack", "none"], help="of Engram's servers"
    )
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each server of which the median is taken")
    parser.add_argument("--seconds", type=seconds, default=1.0, help="time of each turn")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the servers write meanwhile (default: .)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks.serve import graphs

    graphs.run(
        options.checkpoints,
        options.models,
        options.connections,
        options.durability,
        options.rounds,
        options.seconds,
        options.data_root,
        options.command_line,
    )
    return 0
