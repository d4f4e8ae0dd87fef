"""Figures and data frames, which need packages that Engram does not come with."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from pandas import DataFrame


def figures() -> "ModuleType":
    """Return the module of figures. Raises ModuleNotFoundError without matplotlib."""
    try:
        from engram.notebook import figures
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: a figure needs matplotlib: pip install matplotlib") from error
    return figures


def data_frame(columns: dict[str, Any], index: Any = None) -> "DataFrame":
    """Return a data frame of columns. Raises ModuleNotFoundError without pandas."""
    try:
        from pandas import DataFrame
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: a data frame needs pandas: pip install pandas") from error
    return DataFrame(columns, index=index)
