"""The command line of Engram.

The packages beside this one have names that other projects have too. Once `engram` is imported, they are Engram's in
this process, whatever comes first on `sys.path`: the caller's directory, as with `python -m engram`, or a directory of
PYTHONPATH. All other names are found as before. Processes that multiprocessing starts import the main module again, and
so `engram`; `python -m engram.room` runs a module of these packages in a process of its own.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

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
