"""engram infer: run a sequence through a model, of a checkpoint or of a server."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram.inputs import Input, read_inputs
from engram.options import Checkpoints, checkpoint_names, positive
from engram.remote import ServerKey, Timeout, connected
from engram.results import Format, Trace, check_format, print_result

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="directory of a checkpoint, or a name in --checkpoints or of one that ships; with --url a model of it",
            autocompletion=checkpoint_names,
        ),
    ],
    file: Input = None,
    trace: Trace = None,
    memory_size: Annotated[
        int | None,
        typer.Option("--memory-size", parser=positive, metavar="N", help="memory locations (default: as trained)"),
    ] = None,
    format_: Format = "json",
    checkpoints: Checkpoints = Path("checkpoints"),
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="server that has the model, in place of a checkpoint")
    ] = None,
    key: ServerKey = None,
    timeout: Timeout = 10.0,
) -> int:
    """Print the outputs of all steps, from a fresh state."""
    check_format(format_, trace)
    if url is None:
        outputs, traces = _computed(model, checkpoints, read_inputs(file), trace or [], memory_size)
    else:
        inputs = read_inputs(file)
        with connected(url, key, timeout) as client:
            outputs, traces, _ = client.infer(model, inputs, trace or [], memory_size)
    print_result(format_, outputs, trace=traces, steps=len(outputs))
    return 0


def _computed(
    name: str, checkpoints: Path, inputs: "NDArray[float32]", trace: Sequence[str], memory_size: int | None
) -> "tuple[NDArray[float32], dict[str, NDArray[float32]]]":
    """Return outputs and traces of a checkpoint.

    Raises ManifestError where there is none, EngramError for inputs that the model does not take.
    """
    from app.errors import UnknownName
    from app.settings import load_settings
    from engram.notebook.finding import find, model_of

    model = model_of(find(name, checkpoints), load_settings({"max_steps": len(inputs)}), memory_size)
    try:
        run = model.run(inputs, trace)
    except UnknownName as error:
        raise ValueError(
            f"--trace {error.more['got']}: the model has the traces {', '.join(model.card['trace'])}"
        ) from error
    return run.outputs, run.trace
