"""Values as tables: columns of arrays, and HTML in a notebook."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 200
"""The most characters of a value in a notebook."""

CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0"


def columns_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return a column for each number of a step: `outputs[0]`, `read_weights[0][3]`. arrays: name -> [T, ...]."""
    return {
        name + "".join(f"[{place}]" for place in places): values[:, *places]
        for name, values in arrays.items()
        for places in np.ndindex(values.shape[1:])
    }


def html_table(title: str, rows: Iterable[Sequence[Any]], heads: Sequence[str] = ()) -> str:
    """Return rows under a title as HTML without scripts, in the colours of the page around it."""
    head = "".join(f'<th style="{CELL};opacity:.7">{escape(name)}</th>' for name in heads)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    caption = "text-align:left;color:inherit;font-weight:bold;white-space:nowrap"
    return (
        f'<table style="color:inherit;background:none;border:0"><caption style="{caption}">{escape(_short(title))}'
        f"</caption><tr>{head}</tr>{lines}</table>"
    )


def _cell(value: Any) -> str:
    return f'<td style="{CELL}">{escape(_short(str(value)))}</td>'


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
