"""The traces of a step that the kernels leave besides the states. NumPy only."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import ORDERS, STRENGTHS, Model, Traces
from kernels.packing import Array, padded, padded_wide
from kernels.support import KINDS


class Weighting(NamedTuple):
    """Weightings in an array of their own: [B, *heads, width], the locations padded."""

    field: str
    heads: tuple[int, ...]
    locations: int

    def of(self, values: Array) -> Array:
        """Return a copy of them: [B, *heads, N]; of the links [B, R, V, N], which the kernels leave as [B, V, R, N]."""
        weights = values[..., : self.locations]
        return (weights.swapaxes(1, 2) if len(self.heads) == 2 else weights).copy()


class Part(NamedTuple):
    """A part of an interface: `vectors` padded vectors of `size` numbers from `start` on."""

    start: int
    vectors: int
    size: int
    field: str = "controls"

    def of(self, values: Array) -> Array:
        """Return a copy of it: [B, vectors, size]."""
        length = padded(self.size)
        blocks = values[:, self.start : self.start + self.vectors * length]
        return blocks.reshape(len(blocks), self.vectors, length)[:, :, : self.size].copy()


class Scalars(NamedTuple):
    """Numbers of an interface, of the shape `heads`, from `start` on.

    least: of those that the kernels activate only where they use them, by least + softplus(x); None for the others.
    """

    start: int
    heads: tuple[int, ...]
    least: float | None = None
    field: str = "controls"

    def of(self, values: Array) -> Array:
        """Return a copy of them, activated: [B, *heads]."""
        numbers = values[:, self.start : self.start + math.prod(self.heads)].reshape(-1, *self.heads)
        if self.least is None:
            return numbers.copy()
        activated: Array = np.logaddexp(numbers, np.zeros_like(numbers)) + numbers.dtype.type(self.least)
        return activated


Place = Weighting | Part | Scalars


def _dnc_places(m: Model) -> dict[str, Place]:
    reads, writes, word, size = m.read_heads, m.write_heads, m.word_size, m.memory_size
    least = 1.0 if STRENGTHS[m.strength] == "oneplus" else 0.0
    heads = {"allocation_weights": (writes,), "write_content_weights": (writes,), "read_content_weights": (reads,)}
    links = {"forward_weights": (writes, reads), "backward_weights": (writes, reads)}
    return {
        "read_keys": Part(m.read_keys, reads, word),
        "write_keys": Part(m.write_keys, writes, word),
        "read_masks": Part(m.read_masks, reads, word),
        "write_masks": Part(m.write_masks, writes, word),
        "erase_vectors": Part(m.erase, writes, word),
        "write_vectors": Part(m.add, writes, word),
        "read_modes": Part(m.modes, reads, 2 * writes + 1),
        "free_gates": Scalars(m.gates, (reads,)),
        "allocation_gate": Scalars(m.gates + reads, (writes,)),
        "write_gate": Scalars(m.gates + reads + writes, (writes,)),
        "read_strengths": Scalars(m.strengths, (reads,), least),
        "write_strengths": Scalars(m.strengths + reads, (writes,), least),
        "forward_sharpness": Scalars(m.sharpness, (reads, writes), 1.0),
        "backward_sharpness": Scalars(m.sharpness + reads * writes, (reads, writes), 1.0),
        **{name: Weighting(name, axes, size) for name, axes in {"retention": (), **heads, **links}.items()},
        "program_weights": Weighting("program_weights", (), m.programs),
    }


def _ntm_places(m: Model) -> dict[str, Place]:
    heads, writes, word = m.read_heads + m.write_heads, m.write_heads, m.word_size
    wrote = "controls_before" if ORDERS[m.order] == "before-controller" else "controls"
    return {
        "keys": Part(m.read_keys, heads, word),
        "erase_vectors": Part(m.erase, writes, word, wrote),
        "add_vectors": Part(m.add, writes, word, wrote),
        "shift_weights": Part(m.shifts, heads, m.shift_width),
        "key_strength": Scalars(m.strengths, (heads,)),
        "interpolation_gate": Scalars(m.strengths + padded(heads), (heads,)),
        "sharpening": Scalars(m.strengths + 2 * padded(heads), (heads,)),
        **{
            name: Weighting(name, (heads,), m.memory_size)
            for name in ("content_weights", "gated_weights", "shifted_weights")
        },
        "program_weights": Weighting("program_weights", (), m.programs),
    }


PLACES = {"dnc": _dnc_places, "ntm": _ntm_places}


class TraceLayout:
    """The places of a model's traces in what the kernels leave."""

    def __init__(self, model: Model, dtype: Any) -> None:
        kind = KINDS[model.kind]
        self.places = PLACES[kind](model) if kind in PLACES else {}
        self._interface, self._dtype = model.interface_size, dtype

    def allocate(self, batch: int, names: Iterable[str]) -> "HeadTrace":
        """Return the named traces of `batch` rows, which a step is to fill in. Raises KeyError."""
        axes = {place.field: self._axes(place) for place in map(self.places.__getitem__, names)}
        return HeadTrace(self, {field: np.empty((batch, *sizes), self._dtype) for field, sizes in axes.items()})

    def _axes(self, place: Place) -> tuple[int, ...]:
        return (*place.heads, padded_wide(place.locations)) if isinstance(place, Weighting) else (self._interface,)


class HeadTrace:
    """Traces of a step, but for those that are leaves of the state.

    arrays: by their names in the kernels' structure, [B, ...] each, padded.
    """

    def __init__(self, layout: TraceLayout, arrays: Mapping[str, Array]) -> None:
        self._layout, self.arrays = layout, arrays

    @property
    def structure(self) -> Traces | None:
        """The addresses of the arrays, or None if there are none."""
        return Traces(**{name: array.ctypes.data for name, array in self.arrays.items()}) if self.arrays else None

    def part(self, rows: slice) -> "HeadTrace":
        """Return the trace of some rows."""
        return HeadTrace(self._layout, {field: array[rows] for field, array in self.arrays.items()})

    def trace(self, name: str) -> Array:
        """Return a trace that the step was asked for: [B, ...]."""
        place = self._layout.places[name]
        assert place.field in self.arrays, f"this step kept no trace {name}"
        return place.of(self.arrays[place.field])
