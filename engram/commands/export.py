"""engram export: write the ONNX graph of a checkpoint."""

import argparse
from pathlib import Path

from engram.options import Commands, add_own, command, load_own
from engram.output import print_serve_command


def add(commands: Commands) -> None:
    parser = command(commands, "export", "Write the ONNX graph of one step, checked against torch over 100 steps.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the checkpoint")
    add_own(parser, "models")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    load_own(options)
    path = exported(options.directory)
    print(f"{path}: {path.stat().st_size:,} bytes, equal to torch over 100 steps at batch 1, 2 and 5")
    print_serve_command(options.directory)
    return 0


def exported(directory: Path) -> Path:
    """Export a checkpoint, show the progress of the check, and return the path of the graph."""
    from training.export import export
    from training.progress import counting

    with counting("checking against torch", "step") as after_step:
        return export(directory, after_step)
