"""engram bench sessions: the cost of many open sessions."""

import argparse
from pathlib import Path

from engram.commands.bench.serving import add_served_model
from engram.options import Commands, command, positive


def add(commands: Commands) -> None:
    parser = command(commands, "sessions", "What many open sessions take, and what it costs to wake one.")
    add_served_model(parser)
    parser.add_argument("--sessions", type=positive, default=100_000, help="how many are opened")
    parser.add_argument("--max-resident", type=positive, default=4096, help="how many may be in memory")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the server writes meanwhile (default: .)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks import sessions

    sessions.run(
        options.checkpoints,
        options.model,
        options.sessions,
        options.max_resident,
        options.data_root,
        options.command_line,
    )
    return 0
