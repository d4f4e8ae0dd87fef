"""engram bench durability: session-steps per second with each durability."""

import argparse
from pathlib import Path

from engram.commands.bench.serving import add_served_model
from engram.options import Commands, command, positive, seconds


def add(commands: Commands) -> None:
    parser = command(commands, "durability", "Session-steps per second over WebSocket with each durability.")
    add_served_model(parser)
    parser.add_argument("--sessions", type=positive, nargs="+", default=[1, 64, 1024], help="concurrent sessions")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of which the median is taken")
    parser.add_argument("--seconds", type=seconds, default=3.0, help="time of each turn")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the servers write meanwhile (default: .)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks import durability

    durability.run(
        options.checkpoints,
        options.model,
        options.sessions,
        options.rounds,
        options.seconds,
        options.data_root,
        options.command_line,
    )
    return 0
