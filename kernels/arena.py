"""States side by side, each in its slot, as the kernels find them. NumPy only."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kernels.layout import CellStates, States
from kernels.packing import Array, Blocks, length_of, padded, places_of, row_of

LEAVES = {name: name for name in ("memory", "read_weights", "write_weights", "read_vectors", "usage", "link")}
LEAVES |= {"precedence_weights": "precedence", "hidden": "hidden"}
"""The leaves of a state that are not the controller's, and what the kernels call them."""

WEIGHTINGS = ("read_weights", "write_weights", "usage", "link", "precedence_weights")
"""The leaves that have a number for each slot in their last axis."""


class Layout:
    """How one state lies in an arena.

    shapes: those of its leaves; layers: the names of the controller's layers; hidden: the blocks of what it puts out.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], layers: Sequence[str], hidden: Blocks) -> None:
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.padded = {name: padded_shape(name, shape) for name, shape in self.shapes.items()}
        self.corners: dict[str, tuple[Any, ...]] = {
            name: tuple(slice(size) for size in shape) for name, shape in self.shapes.items()
        }
        if "hidden" in self.shapes:
            self.padded["hidden"], self.corners["hidden"] = (length_of(hidden),), (places_of(hidden),)
        self.layers = tuple(layers)
        self.numbers = sum(math.prod(shape) for shape in self.padded.values())


class Arena:
    """Room for so many states. What a new arena holds is zero. Raises MemoryError."""

    def __init__(self, layout: Layout, rooms: int, dtype: DTypeLike) -> None:
        self.layout, self.rooms = layout, rooms
        block = np.zeros(rooms * layout.numbers, dtype)  # one, which the system may back by large pages
        self.leaves: dict[str, Array] = {}
        for name, shape in layout.padded.items():
            size = rooms * math.prod(shape)
            self.leaves[name], block = block[:size].reshape(rooms, *shape), block[size:]
        self._cells = (CellStates * len(layout.layers))(
            *(CellStates(h=self._address(f"{layer}.h"), c=self._address(f"{layer}.c")) for layer in layout.layers)
        )
        fields = {ours: self._address(name) for name, ours in LEAVES.items()}
        self.states = States(**fields, cells=ctypes.addressof(self._cells))

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name."""
        return {name: self.leaves[name][slot][corner].copy() for name, corner in self.layout.corners.items()}

    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Replace the state in a slot."""
        for name, corner in self.layout.corners.items():
            self.leaves[name][slot] = 0
            self.leaves[name][slot][corner] = state[name]

    def rows(self, name: str, slots: Any) -> Array:
        """Return a copy of one leaf of several states: [B, ...]. slots: their list, or a slice."""
        chosen: Array = self.leaves[name][slots][(slice(None), *self.layout.corners[name])]
        return chosen.copy()

    def write_rows(self, start: int, state: Mapping[str, Array]) -> None:
        """Replace leaves of the states from a slot on: [B, ...] each."""
        for name, values in state.items():
            rows = self.leaves[name][start : start + len(values)]
            rows[:] = 0
            rows[(slice(None), *self.layout.corners[name])] = values

    def _address(self, name: str) -> int | None:
        leaf = self.leaves.get(name)
        return None if leaf is None else leaf.ctypes.data


def padded_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a leaf as the kernels have it: rows of slots and of other numbers are padded."""
    *others, last = shape
    if name == "memory":
        others = [row_of(others[0])]
    return (*others, row_of(last) if name in WEIGHTINGS else padded(last))
