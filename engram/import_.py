"""engram import: turn weights of an original implementation into a checkpoint."""

import argparse
from pathlib import Path

from engram.export import exported
from engram.options import Commands, add_tasks, changes, command, load_tasks
from engram.output import print_serve_command

ORIGINALS = ("deepmind-dnc", "dnc-pytorch", "ntm-lasagne", "pytorch-ntm", "tf-rnn-cell")
"""The keys of training.importers.FORMATS, here for a command line that starts without torch."""


def add(commands: Commands) -> None:
    parser = command(commands, "import", "Turn weights of an original implementation into a checkpoint, exported.")
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="npz of the variables by their own names and a config; of dnc-pytorch and pytorch-ntm also a state_dict",
    )
    parser.add_argument("--format", required=True, choices=ORIGINALS, help="which original")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the checkpoint goes")
    parser.add_argument("--cell", metavar="NAME", help="the cell to take, where the file holds several")
    parser.add_argument(
        "--task",
        nargs="+",
        metavar="KEY=VALUE",
        help="the name and options of what the model was trained on, such as name=copy bits=8, to evaluate and plot it",
    )
    add_tasks(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from models.manifest import ONNX_FILE
    from training.importers import import_checkpoint
    from training.tasks import build_task

    load_tasks(options)
    task = build_task(changes(options.task)) if options.task else None
    imported = import_checkpoint(
        options.format, options.file, options.out, options.cell, options.command_line, task, exported
    )
    parameters = sum(parameter.numel() for parameter in imported.model.parameters())
    print(f"{options.out}: {parameters:,} parameters imported; {ONNX_FILE} is equal to torch")
    print_serve_command(options.out)
    return 0
