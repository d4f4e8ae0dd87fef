"""engram import: make a checkpoint of an ONNX graph, or of weights of an original implementation."""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from app.settings import SettingsError
from engram.commands.export import exported
from engram.options import Commands, add_own, changes, command, load_own
from engram.output import print_serve_command

if TYPE_CHECKING:
    from training.graphs import GraphSpec, ImportedGraph

ORIGINALS = ("deepmind-dnc", "dnc-pytorch", "ntm-lasagne", "pytorch-ntm", "tf-rnn-cell")
"""The keys of training.importers.FORMATS, here for a command line that starts without torch."""

GRAPHS = ("onnx", "torch-step")
"""The formats of graphs, which keep their own weights."""


def add(commands: Commands) -> None:
    parser = command(
        commands,
        "import",
        "Make a checkpoint, ready to be served, of a model from elsewhere: any recurrent ONNX graph, "
        "or weights of an original implementation.",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="onnx: a graph of one step. torch-step: module:factory or file.py:factory, a function that returns (step, "
        "inputs, state): a step(inputs, state) -> outputs, state in torch, example inputs, the first state. Originals: "
        "npz of the variables by their own names and a config; of dnc-pytorch and pytorch-ntm also a state_dict",
    )
    parser.add_argument("--format", required=True, choices=(*GRAPHS, *ORIGINALS), help="the format of FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the checkpoint goes")
    graphs = parser.add_argument_group("graphs")
    graphs.add_argument(
        "--spec",
        type=Path,
        metavar="SPEC.toml",
        help="names the state, the inputs, the constants, ... of the graph, as docs/import.md shows",
    )
    graphs.add_argument(
        "--guess", action="store_true", help="guess the parts that the specification leaves out, or all, and print it"
    )
    originals = parser.add_argument_group("originals")
    originals.add_argument("--cell", metavar="NAME", help="the cell to take, where the file holds several")
    originals.add_argument(
        "--task",
        nargs="+",
        metavar="KEY=VALUE",
        help="the name and options of what the model was trained on, such as name=copy bits=8, to evaluate and plot it",
    )
    add_own(originals, "tasks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    is_graph = options.format in GRAPHS
    _refuse(options, ("cell", "task", "tasks") if is_graph else ("spec", "guess"))
    _refuse(options, ("guess",) if options.format == "torch-step" else ())
    if is_graph:
        _import_graph(options)
    else:
        _import_original(options)
    print_serve_command(options.out)
    return 0


def _refuse(options: argparse.Namespace, names: tuple[str, ...]) -> None:
    """Raise SettingsError for an option that the format does not have."""
    for name in names:
        if getattr(options, name):
            raise SettingsError(f"--{name} is not for --format {options.format}: leave it out")


def _import_graph(options: argparse.Namespace) -> None:
    from training.graphs import import_graph, import_step
    from training.progress import counting

    def shown(what: str) -> AbstractContextManager[Callable[[int, int], object]]:
        return counting(what, "step")

    if options.format == "torch-step":
        imported = import_step(str(options.file), options.out, options.command_line, shown, options.spec)
    else:
        show_spec = _print_spec if options.guess else lambda _: None
        imported = import_graph(
            options.file, options.out, options.command_line, shown, options.spec, options.guess, show_spec
        )
    _print_verdict(options.out, imported)


def _print_spec(spec: "GraphSpec") -> None:
    from training.graphs import to_toml

    print(f"# the specification: keep it as a .toml file, and give it by --spec\n{to_toml(spec)}")


def _print_verdict(out: Path, imported: "ImportedGraph") -> None:
    from training.graphs import described

    for line in described(imported):
        print(f"{out}: {line}")


def _import_original(options: argparse.Namespace) -> None:
    from models.manifest import ONNX_FILE
    from training.importers import import_checkpoint
    from training.tasks import build_task

    load_own(options)
    task = build_task(changes(options.task)) if options.task else None
    imported = import_checkpoint(
        options.format, options.file, options.out, options.cell, options.command_line, task, exported
    )
    parameters = sum(parameter.numel() for parameter in imported.model.parameters())
    print(f"{options.out}: {parameters:,} parameters imported; {ONNX_FILE} is equal to torch")
