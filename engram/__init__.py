"""The command line of Engram, and a notebook's way in: `engram.load("dnc-copy")`, see `engram.notebook`.

The packages beside this one have names that other projects have too. Once `engram` is imported, they are Engram's in
this process, whatever comes first on `sys.path`: the caller's directory, as with `python -m engram`, or a directory of
PYTHONPATH. All other names are found as before. Processes that multiprocessing starts import the main module again, and
so `engram`; `python -m engram.room` runs a module of these packages in a process of its own.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.notebook import Comparison, Model, Run, Session, compare, load

__all__ = ["Comparison", "Model", "Run", "Session", "compare", "load"]

ROOMS = ("app", "benchmarks", "kernels", "models", "training")
"""Engram's top-level packages, beside `engram` in a checkout and where it is installed."""

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The directory that holds them. It must not lead `sys.path`: an installed Engram shares it with all other packages."""


class RoomFinder:
    """Finds ROOMS in HOME. It stands before the finders of Python, which search `sys.path` in its order."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of a room, and None for any other name."""
        return PathFinder.find_spec(name, [HOME], target) if path is None and name in ROOMS else None


sys.meta_path.insert(0, RoomFinder)


def __getattr__(name: str) -> Any:
    """Return a name of `engram.notebook`, which is imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("engram.notebook"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
