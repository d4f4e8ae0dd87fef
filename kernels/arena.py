"""States in the slots of an arena, as the kernels read them. NumPy only."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kernels.layout import CellStates, States
from kernels.packing import Array, Blocks, length_of, padded, padded_wide, places_of

LEAVES = {name: name for name in ("memory", "read_weights", "write_weights", "read_vectors", "usage", "link")}
LEAVES |= {"precedence_weights": "precedence", "hidden": "hidden"}
"""The leaves of a state that are not the controller's, with their names in C."""

WEIGHTINGS = ("read_weights", "write_weights", "usage", "link", "precedence_weights")
"""The leaves whose last axis is the memory locations."""


class StateLayout:
    """The layout of one state in an arena.

    shapes: those of its leaves; layers: the names of the controller's layers; hidden: the blocks of its outputs.
    numbers: of one state, padded.
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
    """The states in `capacity` slots, zero at first. Raises MemoryError."""

    def __init__(self, layout: StateLayout, capacity: int, dtype: DTypeLike) -> None:
        self.layout, self.capacity = layout, capacity
        self._block = block = np.zeros(capacity * layout.numbers, dtype)  # one: the system may back it by large pages
        self.leaves: dict[str, Array] = {}
        for name, shape in layout.padded.items():
            size = capacity * math.prod(shape)
            self.leaves[name], block = block[:size].reshape(capacity, *shape), block[size:]
        self._cells = (CellStates * len(layout.layers))(
            *(CellStates(h=self._address(f"{layer}.h"), c=self._address(f"{layer}.c")) for layer in layout.layers)
        )
        fields = {in_c: self._address(name) for name, in_c in LEAVES.items()}
        self.states = States(**fields, cells=ctypes.addressof(self._cells))

    def clear(self) -> None:
        """Set all states to zero."""
        self._block[:] = 0

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name."""
        return {name: self.leaves[name][slot][corner].copy() for name, corner in self.layout.corners.items()}

    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Replace the state in a slot."""
        for name, corner in self.layout.corners.items():
            self.leaves[name][slot] = 0
            self.leaves[name][slot][corner] = state[name]

    def rows(self, name: str, slots: Any) -> Array:
        """Return a copy of one leaf of several states: [B, ...]. slots: a list, or a slice."""
        chosen: Array = self.leaves[name][slots][(slice(None), *self.layout.corners[name])]
        return chosen.copy()

    def write_rows(self, start: int, state: Mapping[str, Array]) -> None:
        """Replace leaves of the states in slot `start` and those after it: [B, ...] each."""
        for name, values in state.items():
            rows = self.leaves[name][start : start + len(values)]
            rows[:] = 0
            rows[(slice(None), *self.layout.corners[name])] = values

    def _address(self, name: str) -> int | None:
        leaf = self.leaves.get(name)
        return None if leaf is None else leaf.ctypes.data


def padded_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a leaf in an arena: the last axis is padded, and the locations of the memory."""
    *others, last = shape
    if name == "memory":
        others = [padded_wide(others[0])]
    return (*others, padded_wide(last) if name in WEIGHTINGS else padded(last))
