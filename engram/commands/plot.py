"""engram plot: draw the figures of a checkpoint or of runs."""

import argparse
from pathlib import Path

from engram.options import Commands, add_own, command, load_own


def add(commands: Commands) -> None:
    parser = command(commands, "plot", "Draw the figures of a checkpoint, a run, or the runs of several seeds.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the checkpoint, the run, or the directory of runs")
    parser.add_argument("--out", type=Path, metavar="OUT", help="where the figures go (default: DIR)")
    add_own(parser, "tasks", "models")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from training.plots import plot_all

    load_own(options)
    for path in plot_all(options.directory, options.out or options.directory):
        print(path)
    return 0
