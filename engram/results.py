"""Outputs of a sequence as a command prints them, with the digits of float32."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engram.cli import SEVERAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

Trace = Annotated[
    list[str] | None,
    typer.Option(
        "--trace",
        metavar=f"NAME{SEVERAL}",
        help="also these traces, such as read_weights, as the model's card lists them",
    ),
]
Format = Annotated[Literal["json", "csv"], typer.Option("--format", help="of the outputs; csv has no traces")]


def check_format(format_: str, trace: list[str] | None) -> None:
    """Raise ValueError for traces in CSV."""
    if format_ == "csv" and trace:
        raise ValueError("--trace: CSV has the outputs only; leave out --format csv")


def print_result(format_: str, outputs: "NDArray[Any]", **more: Any) -> None:
    """Print outputs, [T, output_size]: as CSV, a line for each step, or as an object of JSON with more members."""
    if format_ == "csv":
        for row in outputs:
            print(",".join(f"{value:.9g}" for value in row.tolist()))
    else:
        print_line({"outputs": outputs} | more)


def print_line(document: Mapping[str, Any]) -> None:
    """Print an object as JSON, on one line; its arrays may be of NumPy."""
    import orjson

    line = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=_contiguous)
    sys.stdout.write(f"{line.decode()}\n")


def _contiguous(array: Any) -> Any:
    return array.tolist()
