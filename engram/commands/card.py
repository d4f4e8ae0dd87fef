"""engram card: write the README of a checkpoint."""

import argparse
from pathlib import Path

from engram.options import Commands, add_own, command, load_own


def add(commands: Commands) -> None:
    parser = command(commands, "card", "Write the README of a checkpoint, with the figures that are there.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the checkpoint")
    add_own(parser, "tasks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from training.card import write_card

    load_own(options)
    print(write_card(options.directory))
    return 0
