"""Output that several commands print: tables, JSON, and the command that comes next."""

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    """Print a value as JSON, with null for numbers that are not finite."""
    print(json.dumps(finite(value), indent=2))


def finite(value: Any) -> Any:
    """Return a value for JSON, which has no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: with lines and colours on a terminal, elsewhere as plain text whose columns are aligned.

    Columns of numbers are aligned to the right; a dash stands for a number that there is none of.
    """
    cells = [list(map(str, row)) for row in rows]
    right = [bool(cells) and all(map(_is_number, column)) for column in zip(*cells, strict=True)]
    if sys.stdout.isatty():
        _print_rich_table(headings, cells, right)
    else:
        _print_plain_table([list(headings), *cells], right)


def line_printer(as_json: bool) -> Callable[[str], object]:
    """Return the function that prints each line of a table as it is known: none, where the whole table is printed."""
    return str if as_json or sys.stdout.isatty() else print


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return cell == "-"
    return True


def _print_plain_table(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if aligned else cell.ljust(width)
            for cell, width, aligned in zip(row, widths, right or [False] * len(widths), strict=True)
        ]
        print("  ".join(cells).rstrip())


def _print_rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for heading, aligned in zip(headings, right or [False] * len(headings), strict=True):
        table.add_column(Text(heading), justify="right" if aligned else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_serve_command(checkpoint: Path) -> None:
    """Print the command that serves a checkpoint."""
    from training.listing import parent

    print(f"Next: {shlex.join(['engram', 'serve', '--checkpoints', str(parent(checkpoint))])}")


def counted(number: int, what: str) -> str:
    """Return a number and its noun, in the plural but for 1."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
