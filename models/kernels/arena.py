"""States side by side, each in its slot, as the kernels find them. NumPy only."""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from models.kernels.library import CellStates, States
from models.kernels.packing import Array, padded, row_of

LEAVES = {name: name for name in ("memory", "read_weights", "write_weights", "read_vectors", "usage", "link")}
LEAVES |= {"precedence_weights": "precedence"}
"""The leaves of a state that are not the controller's, and what the kernels call them."""


class Arena:
    """Room for so many states. shapes: those of the leaves of one; layers: the names of the controller's layers.

    What a new arena holds is zero. Raises MemoryError.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], layers: Sequence[str], rooms: int, dtype: DTypeLike
    ) -> None:
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.rooms = rooms
        self.leaves = {
            name: np.zeros((rooms, *padded_shape(name, shape)), dtype) for name, shape in self.shapes.items()
        }
        self._cells = (CellStates * len(layers))(
            *(CellStates(h=self._address(f"{layer}.h"), c=self._address(f"{layer}.c")) for layer in layers)
        )
        fields = {ours: self._address(name) for name, ours in LEAVES.items()}
        self.states = States(**fields, cells=ctypes.addressof(self._cells))

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name."""
        return {name: self.leaves[name][slot][corner(shape)].copy() for name, shape in self.shapes.items()}

    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Replace the state in a slot."""
        for name, shape in self.shapes.items():
            self.leaves[name][slot] = 0
            self.leaves[name][slot][corner(shape)] = state[name]

    def rows(self, name: str, slots: Any) -> Array:
        """Return a copy of one leaf of several states: [B, ...]."""
        chosen: Array = self.leaves[name][slots][(slice(None), *corner(self.shapes[name]))]
        return chosen.copy()

    def write_rows(self, start: int, state: Mapping[str, Array]) -> None:
        """Replace the states from a slot on. Leaves: [B, ...]."""
        for name, shape in self.shapes.items():
            rows = self.leaves[name][start : start + len(state[name])]
            rows[(slice(None), *corner(shape))] = state[name]

    def _address(self, name: str) -> int | None:
        leaf = self.leaves.get(name)
        return None if leaf is None else leaf.ctypes.data


WEIGHTINGS = ("read_weights", "write_weights", "usage", "link", "precedence_weights")
"""The leaves that have a number for each slot in their last axis."""


def padded_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a leaf as the kernels have it: rows of slots and of other numbers are padded."""
    *others, last = shape
    if name == "memory":
        others = [row_of(others[0])]
    return (*others, row_of(last) if name in WEIGHTINGS else padded(last))


def corner(shape: Sequence[int]) -> tuple[slice, ...]:
    """Return what cuts an array down to `shape`."""
    return tuple(slice(size) for size in shape)
