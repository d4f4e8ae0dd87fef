"""Memories that differ by the numbers of their slots, compared."""

import numpy as np

from app.backends.base import Array

SLOT_AXES = {"memory": [0], "usage": [0], "read_weights": [1], "write_weights": [1], "precedence_weights": [1]}
SLOT_AXES |= {"link": [1, 2]}
"""Along which axes of a leaf of one row the slots lie."""


def matching_slots(ours: dict[str, Array], theirs: dict[str, Array]) -> Array:
    """Return, for each of their slots, the one of ours that holds the same; each of ours is taken once."""
    distances = np.abs(_by_slot(theirs)[:, None] - _by_slot(ours)[None]).max(2)
    order = np.zeros(len(distances), int)
    for _ in distances:
        slot, match = np.unravel_index(np.argmin(distances), distances.shape)
        order[slot] = match
        distances[slot], distances[:, match] = np.inf, np.inf
    return order


def reordered(leaf: Array, name: str, order: Array) -> Array:
    """Return a leaf of one row with its slots in this order."""
    for axis in SLOT_AXES.get(name, []):
        leaf = np.take(leaf, order, axis)
    return leaf


def _by_slot(leaves: dict[str, Array]) -> Array:
    """Return all that belongs to each slot, in proportion to the largest of its kind: [N, ...]."""
    columns = []
    for name in ("memory", "usage", "read_weights", "write_weights", "precedence_weights"):
        values = leaves[name] if name == "memory" else np.atleast_2d(leaves[name]).T
        columns.append(values / max(1.0, float(np.abs(values).max())))
    return np.concatenate(columns, 1)
