"""Print a table of figures in GitHub's markdown."""

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from tqdm import tqdm

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


def print_table(name: str, table: Table[P], plan: P) -> list[Row]:
    """Print the rows of a table as they come, on a terminal with their count so far; return them."""
    rows = []
    print(table.head(), flush=True)
    for row in tqdm(table.measure(plan), desc=name, unit="row", leave=False, disable=None):
        tqdm.write(line(row), file=sys.stdout)
        sys.stdout.flush()
        rows.append(row)
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
