"""engram import: make a checkpoint of an ONNX graph, or of weights of an original implementation."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from engram.cli import SEVERAL
from engram.commands.export import exported
from engram.options import changes, load_own, recorded
from engram.output import print_serve_command

if TYPE_CHECKING:
    from training.graphs import GraphSpec, ImportedGraph

Original = Literal["deepmind-dnc", "dnc-pytorch", "ntm-lasagne", "pytorch-ntm", "tf-rnn-cell"]
Graph = Literal["onnx", "torch-step"]

ORIGINALS = get_args(Original)
"""The keys of training.importers.FORMATS, here for a command line that starts without torch."""

GRAPHS = get_args(Graph)
"""The formats of graphs, which keep their own weights."""

OF_GRAPHS, OF_ORIGINALS = "Graphs", "Originals"


def run(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="onnx: a graph of one step. torch-step: module:factory or file.py:factory, a function that returns "
            "(step, inputs, state): a step(inputs, state) -> outputs, state in torch, example inputs, the first state. "
            "Originals: npz of the variables by their own names and a config; of dnc-pytorch and pytorch-ntm also a "
            "state_dict",
        ),
    ],
    format_: Annotated[Literal[Graph, Original], typer.Option("--format", help="the format of FILE")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the checkpoint goes")],
    spec: Annotated[
        Path | None,
        typer.Option(
            "--spec",
            metavar="SPEC.toml",
            help="names the state, the inputs, the constants, ... of the graph, as docs/import.md shows",
            rich_help_panel=OF_GRAPHS,
        ),
    ] = None,
    guess: Annotated[
        bool,
        typer.Option(
            "--guess",
            help="guess the parts that the specification leaves out, or all, and print it",
            rich_help_panel=OF_GRAPHS,
        ),
    ] = False,
    cell: Annotated[
        str | None,
        typer.Option(
            "--cell",
            metavar="NAME",
            help="the cell to take, where the file holds several",
            rich_help_panel=OF_ORIGINALS,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar=f"KEY=VALUE{SEVERAL}",
            help="the name and options of what the model was trained on, such as name=copy bits=8, to evaluate and "
            "plot it",
            rich_help_panel=OF_ORIGINALS,
        ),
    ] = None,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(
            "--tasks",
            metavar="FILE",
            help="a Python file that registers tasks of one's own; may be given several times",
            rich_help_panel=OF_ORIGINALS,
        ),
    ] = None,
) -> int:
    """Import it, and print what was found and the command that serves it."""
    if format_ in GRAPHS:
        _refuse(format_, {"cell": cell, "task": task, "tasks": tasks})
        _import_graph(file, format_, out, recorded(context), spec, guess)
    else:
        _refuse(format_, {"spec": spec, "guess": guess})
        load_own(tasks)
        _import_original(file, format_, out, recorded(context), cell, task)
    print_serve_command(out)
    return 0


def _refuse(format_: str, options: Mapping[str, Any]) -> None:
    """Raise SettingsError for an option that the format does not have."""
    from app.settings import SettingsError

    for name, value in options.items():
        if value:
            raise SettingsError(f"--{name} is not for --format {format_}: leave it out")


def _import_graph(file: Path, format_: str, out: Path, command: str, spec: Path | None, guess: bool) -> None:
    from training.graphs import import_graph, import_step
    from training.progress import counting

    def shown(what: str) -> AbstractContextManager[Callable[[int, int], object]]:
        return counting(what, "step")

    if format_ == "torch-step":
        _refuse(format_, {"guess": guess})
        imported = import_step(str(file), out, command, shown, spec)
    else:
        show_spec = _print_spec if guess else lambda _: None
        imported = import_graph(file, out, command, shown, spec, guess, show_spec)
    _print_verdict(out, imported)


def _print_spec(spec: "GraphSpec") -> None:
    from training.graphs import to_toml

    print(f"# the specification: keep it as a .toml file, and give it by --spec\n{to_toml(spec)}")


def _print_verdict(out: Path, imported: "ImportedGraph") -> None:
    from training.graphs import described

    for line in described(imported):
        print(f"{out}: {line}")


def _import_original(
    file: Path, format_: str, out: Path, command: str, cell: str | None, words: Sequence[str] | None
) -> None:
    from models.manifest import ONNX_FILE
    from training.importers import import_checkpoint
    from training.tasks import build_task

    task = build_task(changes(words)) if words else None
    imported = import_checkpoint(format_, file, out, cell, command, task, exported)
    parameters = sum(parameter.numel() for parameter in imported.model.parameters())
    print(f"{out}: {parameters:,} parameters imported; {ONNX_FILE} is equal to torch")
