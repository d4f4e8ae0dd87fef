"""engram bench peers: steps of sessions by Engram and by other servers."""

import argparse
from pathlib import Path

from engram.commands.bench.serving import add_serving, serving_options
from engram.options import Commands, command


def add(commands: Commands) -> None:
    parser = command(
        commands, "peers", "Steps of sessions served by Engram and by other servers, to the same requests."
    )
    parser.add_argument(
        "--packages", type=Path, metavar="DIR", help="where LitServe and Ray Serve are (default: beside Engram)"
    )
    add_serving(parser, connections=[1, 32, 256])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks.serve import run_peers

    run_peers(serving_options(options, packages=options.packages))
    return 0
