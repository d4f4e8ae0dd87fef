"""A table of figures, as GitHub's markdown has it."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

from benchmarks.peers import Peer

PAGE_WIDTH = 120

Row: TypeAlias = Sequence[str | int | float]


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and for how long.

    sizes: the models that step. batches: those of all tables, or None for each table's own. peers: the public
    implementations that train too. directory: where checkpoints may be left.
    """

    sizes: Sequence[str]
    batches: Sequence[int] | None
    rounds: int
    seconds: float
    peers: Sequence[Peer]
    directory: Path

    def cases(self, models: Sequence[str], batches: Sequence[int]) -> Iterator[tuple[str, int]]:
        """Yield each of a table's models with each batch."""
        return product(models, self.batches or batches)


@dataclass(frozen=True)
class Table:
    """One table of the report. measure yields its rows, each as soon as it is known."""

    title: str
    about: str
    columns: tuple[str, ...]
    measure: Callable[[Plan], Iterator[Row]]

    def head(self) -> str:
        rule = "|".join(["---"] * len(self.columns))
        return f"\n### {self.title}\n\n{textwrap.fill(self.about, PAGE_WIDTH)}\n\n{line(self.columns)}\n|{rule}|"


def line(row: Row) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(figure, row))} |"


def figure(value: str | int | float) -> str:
    """Return a number with three digits that count, or more where they stand before the point."""
    if not isinstance(value, float):
        return str(value)
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"
