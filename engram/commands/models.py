"""engram models: list the checkpoints of a directory."""

import argparse
from pathlib import Path

from engram.options import Commands, add_json, command
from engram.output import print_json


def add(commands: Commands) -> None:
    parser = command(commands, "models", "List the checkpoints of a directory: kind, sizes, task and recorded errors.")
    parser.add_argument(
        "directory", type=Path, metavar="DIR", nargs="?", default=Path("checkpoints"), help="directory of checkpoints"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from training.listing import HEAD, describe, line

    models = list(describe(options.directory))
    if options.json:
        print_json(models)
    else:
        print(HEAD, *map(line, models), sep="\n")
    return 1 if any("error" in model for model in models) else 0
