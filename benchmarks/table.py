"""Print a table of figures in GitHub's markdown."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from training.progress import progress_bar

PAGE_WIDTH = 120

Row: TypeAlias = Sequence[str | int | float]

P = TypeVar("P")


@dataclass(frozen=True)
class Table(Generic[P]):
    """One table of a report. measure yields its rows, each as soon as it is known; P is the type of its plan."""

    title: str
    about: str
    columns: tuple[str, ...]
    measure: Callable[[P], Iterator[Row]]

    def head(self) -> str:
        rule = "|".join(["---"] * len(self.columns))
        return f"\n### {self.title}\n\n{paragraph(self.about)}\n\n{line(self.columns)}\n|{rule}|"


_printed: ContextVar[list[dict[str, Any]] | None] = ContextVar("printed", default=None)
"""The tables that were printed since `written_tables` began."""


@contextmanager
def written_tables(file: Path | None, command: str) -> Iterator[None]:
    """Write the tables that are printed during the context to a JSON file, if one is given, when it ends without error.

    Raises ValueError, before anything is measured, where the file's directory is missing.
    """
    if file is None:
        yield
        return
    if not file.resolve().parent.is_dir():
        raise ValueError(f"--json {file}: there is no directory {file.parent}: make it first")
    tables: list[dict[str, Any]] = []
    token = _printed.set(tables)
    try:
        yield
    finally:
        _printed.reset(token)
    file.write_text(json.dumps({"command": command, "tables": tables}, indent=2) + "\n")


def print_table(name: str, table: Table[P], plan: P) -> list[Row]:
    """Print the rows of a table as they come, with the progress on the error output; return them."""
    rows = []
    print(table.head(), flush=True)
    with progress_bar(desc=name, unit="row", leave=False) as bar:
        for row in table.measure(plan):
            bar.write(line(row), file=sys.stdout)
            sys.stdout.flush()
            bar.update()
            rows.append(row)
    printed = _printed.get()
    if printed is not None:
        printed.append({"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in rows]})
    return rows


def paragraph(text: str) -> str:
    """Return a text in lines that fit the page."""
    return textwrap.fill(text, PAGE_WIDTH)


def line(row: Row) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(figure, row))} |"


def figure(value: str | int | float) -> str:
    """Return a number with three significant digits, or more if they stand before the point."""
    if not isinstance(value, float):
        return str(value)
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{decimals}f}"
