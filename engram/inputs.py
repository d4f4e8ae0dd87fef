"""Inputs of a sequence, from a file or the standard input: JSON, JSON lines, CSV or .npy, by their content."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

Input = Annotated[
    Path | None,
    typer.Option("--input", metavar="FILE", help="inputs: JSON, JSON lines, CSV or .npy (default: the standard input)"),
]

NPY = b"\x93NUMPY"
"""The first bytes of a .npy file."""


def read_inputs(file: Path | None) -> "NDArray[float32]":
    """Return inputs, float32 [T, input_size], from a file, or from the standard input. Raises ValueError, OSError.

    JSON: [[...], ...], [token, ...], or an object with `inputs`. JSON lines: such a step on each, or an object with its
    `inputs`, as a recording has them. CSV: a step on each line, with or without a heading.
    """
    if file is None and sys.stdin.isatty():
        raise ValueError("no inputs: give --input FILE, or the file on the standard input, as in < FILE")
    data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    name = "the standard input" if file is None else str(file)
    if data.startswith(NPY):
        return _from_npy(data, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: expected JSON, JSON lines, CSV or .npy, got other bytes: {error}") from error
    steps = _from_json(text, name) if text.lstrip()[:1] in ("[", "{") else [*_from_csv(text, name)]
    return _matrix(steps, name)


def _from_npy(data: bytes, name: str) -> "NDArray[float32]":
    import numpy as np

    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{name}: it is no .npy file of numbers: {error}") from error
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.number) or not array.size:
        raise ValueError(f"{name}: expected numbers [T, input_size], or [T], got {array.dtype} {list(array.shape)}")
    return np.atleast_2d(array.T).T.astype(np.float32)


def _from_json(text: str, name: str) -> Any:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return [*_from_json_lines(text, name)]
    return _inputs_in(document)


def _from_json_lines(text: str, name: str) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                document = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{name}, line {number}: neither JSON nor JSON lines: {error}") from error
            yield _inputs_in(document)


def _inputs_in(document: Any) -> Any:
    """Return the inputs of an object that has some, and any other document as it is."""
    return document["inputs"] if isinstance(document, dict) and "inputs" in document else document


def _from_csv(text: str, name: str) -> Iterator[list[float]]:
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        try:
            step = [float(cell) for cell in row]
        except ValueError as error:
            if number == 1:
                continue  # a heading
            raise ValueError(f"{name}, line {number}: expected numbers: {error}") from error
        if step:
            yield step


def _matrix(steps: Any, name: str) -> "NDArray[float32]":
    """Return steps, each a list of numbers, or a number, as float32 [T, input_size]. Raises ValueError."""
    import numpy as np

    if not isinstance(steps, list) or not steps:
        raise ValueError(f"{name}: expected a step or more, each a list of numbers, got {_brief(steps)}")
    rows = [step if isinstance(step, list) else [step] for step in steps]
    for number, row in enumerate(rows):
        if not _is_row(row) or len(row) != len(rows[0]):
            raise ValueError(f"{name}: step {number + 1}: expected {len(rows[0])} numbers, got {_brief(row)}")
    with np.errstate(over="ignore"):
        return np.array(rows, np.float32)


def _is_row(row: Sequence[Any]) -> bool:
    return bool(row) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in row)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
