"""Results as tables: of pandas, where it is installed, and as HTML in a notebook."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from pandas import DataFrame

LONGEST = 200
"""The most characters of a value in a notebook."""


def data_frame(steps: ArrayLike, arrays: Mapping[str, NDArray[Any]]) -> "DataFrame":
    """Return a row for each step and a column for each number of it: `outputs[0]`, `read_weights[0][3]`, ...

    steps: [T], the index. arrays: name -> [T, ...]. Raises ModuleNotFoundError without pandas.
    """
    try:
        from pandas import DataFrame, Index
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: a data frame needs pandas: pip install pandas") from error
    columns = {
        name + "".join(f"[{place}]" for place in places): values[:, *places]
        for name, values in arrays.items()
        for places in np.ndindex(values.shape[1:])
    }
    return DataFrame(columns, index=Index(np.asarray(steps), name="step"))


def html_table(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    """Return rows of names and values under a title as HTML without scripts, in the colours of the page around it."""
    cell = "text-align:left;vertical-align:top;padding:1px 12px 1px 0"
    lines = "".join(
        f'<tr><th style="{cell};font-weight:normal;opacity:.7">{escape(name)}</th>'
        f'<td style="{cell}">{escape(_short(str(value)))}</td></tr>'
        for name, value in rows
    )
    bold = "text-align:left;color:inherit;font-weight:bold;white-space:nowrap"
    head = f'<caption style="{bold}">{escape(_short(title))}</caption>'
    return f'<table style="color:inherit;background:none;border:0">{head}{lines}</table>'


def html_arrays(title: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the shapes and ranges of arrays as HTML."""
    rows = [(name, _described(values)) for name, values in arrays.items()]
    return html_table(title, rows)


def _described(values: NDArray[Any]) -> str:
    shape = " x ".join(map(str, values.shape))
    return f"{shape}, from {values.min():.4g} to {values.max():.4g}" if values.size else f"{shape}, empty"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
