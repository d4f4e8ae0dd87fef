"""A model as the kernels read it: its structures, and its packed weights. NumPy only."""

import copy
import ctypes
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.layout import (
    ACTIVATIONS,
    LANES,
    ORDERS,
    PANEL,
    STRENGTHS,
    STYLES,
    WIDE,
    Layer,
    Linear,
    Model,
    Sources,
)
from kernels.library import Library
from kernels.support import CELLS, INPUTS, KINDS, layers

Array = NDArray[Any]

ZERO, ONE = 0, 1
"""The two numbers before all weights where they lie side by side: of the padding, and of an identity matrix."""

FREE = -1.0
"""In place of the value of a gate that is not forced."""

Blocks = Sequence[tuple[int, int]]
"""The layout of rows or columns: (size, number of blocks), each block padded."""


def padded(size: int, to: int = LANES) -> int:
    """Return `size` rounded up to a multiple of `to`."""
    return -(-size // to) * to


def padded_wide(size: int) -> int:
    """Return the length of an axis of `size` memory locations: padded for a wide vector."""
    return padded(size, WIDE)


class PackedModel:
    """The structures of a model, which point to its weights in one array.

    shapes: those of the weights, by their names. memory_size: the number of memory locations. kernels: the library,
    whose dtype the weights get. gradients: whether to allocate the transposed matrices and the gradients too.
    Raises KeyError, ValueError or IndexError where the weights are not those of the config.
    """

    def __init__(
        self,
        kind: str,
        config: Mapping[str, Any],
        shapes: Mapping[str, Sequence[int]],
        memory_size: int | None,
        kernels: Library,
        gradients: bool = False,
    ) -> None:
        self.kind, self.config = kind, config
        self.library, dtype = kernels, kernels.dtype
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._starts: dict[str, int] = {}
        self._end = ONE + 1
        self._places: list[Array] = []  # for every number of the packed array, the number of its weight
        self._turned: list[Array] = []  # the same for the transposed matrices
        self._pointers: list[tuple[Any, str, int]] = []  # (structure, field, place in the packed array)
        self._turned_pointers: list[tuple[Any, int]] = []
        self.layer_names: list[str] = []
        self.hidden: Blocks = ()  # the outputs of the controller
        self.model = self._described()
        self.resize(memory_size or 0)

        self._append(np.full(-sum(map(len, self._places)) % WIDE, ZERO))
        places = np.concatenate(self._places)
        self._order, own = places.astype(np.int32), np.flatnonzero(places > ONE)
        self._inverse = np.zeros(self._end, np.int32)  # for every weight, its place in the packed array
        self._inverse[places[own]] = own
        self.values = np.zeros(len(places), dtype)
        """The packed weights."""
        self.d_values = np.zeros(len(places) if gradients else 0, dtype)
        """Their gradients."""
        self.trained = np.zeros(len(places) if gradients else 0, dtype)
        """1 for a weight, 0 for a frozen one, for padding and for the numbers of an identity matrix."""
        self._turned_order = np.concatenate(self._turned if gradients else [np.zeros(0)]).astype(np.int32)
        self._turned_values = np.zeros(len(self._turned_order), dtype)
        self._forced = np.zeros(0, dtype)
        self._point(gradients)
        if gradients:
            self.train(dict.fromkeys(self._shapes, True))

    @property
    def names(self) -> list[str]:
        """The names of the weights that the kernels read, in the order of their first use."""
        return list(self._starts)

    @property
    def size(self) -> int:
        """The number of numbers in the packed weights."""
        return len(self.values)

    def fill(self, weights: Mapping[str, Array]) -> None:
        """Pack the weights, given by name, where the structures point."""
        side_by_side = self._side_by_side(weights)
        self._gather(self._order, side_by_side, self.values)
        self._gather(self._turned_order, side_by_side, self._turned_values)

    def train(self, wanted: Mapping[str, bool]) -> None:
        """Set the weights that an optimiser changes, by their names."""
        self.trained[:] = self.pack({name: np.full(self._shapes[name], wanted[name]) for name in self._starts})

    def pack(self, numbers: Mapping[str, Array]) -> Array:
        """Return numbers that belong to the weights, given by name, in the order of the packed ones; 0 elsewhere."""
        side_by_side, packed = self._side_by_side(numbers), np.empty_like(self.values)
        side_by_side[ONE] = 0
        self._gather(self._order, side_by_side, packed)
        return packed

    def unpack(self, packed: Array) -> dict[str, Array]:
        """Return numbers that lie as the packed weights do by the names and in the shapes of the weights."""
        side_by_side = np.empty(self._end, self.values.dtype)
        self._gather(self._inverse, packed, side_by_side)
        return {name: side_by_side[places].reshape(self._shapes[name]) for name, places in self._ranges()}

    def resize(self, memory_size: int) -> None:
        """Set the number of memory locations of the next states, and the factor of key strengths among them."""
        scaled = self.config.get("look_up_scaling")
        scale = math.log1p(memory_size) / math.log1p(self.config["memory_size"]) if scaled else 1.0
        self.model.memory_size, self.model.look_up_scale = memory_size, scale

    def resized(self, memory_size: int) -> "PackedModel":
        """Return this model with another number of memory locations; both share the weights."""
        other = self._sharing()
        other.resize(memory_size)
        return other

    def forced(self, gates: Mapping[str, Array]) -> "PackedModel":
        """Return this model with these gates held at values, and no others; both share the weights.

        gates: by the names of their traces, in the shapes of one row; NaN where an element is free.
        """
        other = self._sharing()
        values = np.full(self.model.interface_size, FREE, self.values.dtype)
        for name, gate in gates.items():
            values[gate_places(self.model, name)] = np.where(np.isnan(gate), FREE, gate)
        other._forced = values  # kept: the model points to it
        other.model.forced = values.ctypes.data if gates else None
        return other

    def _sharing(self) -> "PackedModel":
        """Return this model with a structure of its own that points to the same weights."""
        other = copy.copy(self)
        other.model = Model.from_buffer_copy(self.model)
        return other

    def clear_gradients(self) -> None:
        """Set the gradients to zero, before they are added up."""
        self.d_values[:] = 0

    def _side_by_side(self, numbers: Mapping[str, Array]) -> Array:
        side_by_side = np.empty(self._end, self.values.dtype)
        side_by_side[[ZERO, ONE]] = 0, 1
        for name, places in self._ranges():
            side_by_side[places] = numbers[name].ravel()
        return side_by_side

    def _ranges(self) -> Iterator[tuple[str, slice]]:
        """Return the names of the weights, each with its range where all lie side by side."""
        ends = itertools.pairwise([*self._starts.values(), self._end])
        return zip(self._starts, itertools.starmap(slice, ends), strict=True)

    def _gather(self, places: Array, values: Array, to: Array) -> None:
        self.library.gather(places.ctypes.data, values.ctypes.data, to.ctypes.data, len(places))

    def _point(self, gradients: bool) -> None:
        size, start = self.values.itemsize, self.values.ctypes.data
        for structure, field, place in self._pointers:
            setattr(structure, field, start + place * size)
            if gradients:
                setattr(structure, f"d_{field}", self.d_values.ctypes.data + place * size)
        for structure, place in self._turned_pointers:
            if gradients:
                structure.transposed = self._turned_values.ctypes.data + place * size
        # Structures within structures are copies: assign them again, now that they point somewhere.
        for owner, field, structure in self._owned:
            setattr(owner, field, structure)
        controller = (Layer * len(self._layers))(*self._layers)
        self._controller = controller  # kept: the model points to it
        self.model.controller = ctypes.addressof(controller)

    # The structures

    def _described(self) -> Model:
        config = self.config
        word, reads, writes = (config.get(name, 0) for name in ("word_size", "read_heads", "write_heads"))
        input_size = config["embedding"]["size"] if config.get("embedding") else config["input_size"]
        described = Model(
            kind=KINDS.index(self.kind),
            input_size=input_size,
            output_size=config["output_size"],
            output_activation=ACTIVATIONS.index(config["output_activation"]),
            output_groups=config.get("output_groups", 1),
            word_size=word,
            read_heads=reads,
            write_heads=writes,
            strength=STRENGTHS.index(config.get("strength", "oneplus")),
            linked=self.kind == "dnc" and config.get("links", "dense") == "dense",
            masking=config.get("masking", False),
            deallocation=config.get("deallocation", False),
            link_sharpening=config.get("link_sharpening", False),
            style=STYLES.index(config.get("style", "paper")),
            order=ORDERS.index(config.get("order", "together")),
            signed_heads=config.get("signed_heads", False),
            shift_width=config.get("shift_width", 0),
            programs=config.get("programs", 1),
            program_key_size=config.get("program_key_size", 0),
            clip=config.get("clip", 0.0) if self.kind == "dnc" else 0.0,
        )
        self._owned: list[tuple[Any, str, Linear]] = []
        self._layers: list[Layer] = []
        self._parts: list[Array] = []
        found, outputs = layers(config["controller"])
        read = [] if self.config.get("order") == "before-controller" else [(word, reads)]
        blocks: dict[int, list[tuple[int, int]]] = {INPUTS: [(input_size, 1), (word, reads)]}
        for number, (cell, name, prefix, below) in enumerate(found):
            blocks[number] = [(cell.get("projection_size") or cell["hidden_size"], 1)]
            self._layers.append(self._layer(cell, name, _side_by_side(below, blocks)))
            self._layers[-1].below = self._sources(below, blocks)
            self.layer_names.append(prefix)
        self.hidden = _side_by_side(outputs, blocks)
        described.layers, described.hidden = len(self._layers), self._sources(outputs, blocks)
        if self.kind != "rnn":
            self._own_linear(described, "interface", self._interface(described))
            if described.programs > 1:
                self._selector(described)
        self._own_linear(described, "output", self._output([*self.hidden, *read]))
        return described

    def _sources(self, numbers: Sequence[int], blocks: Mapping[int, Blocks]) -> Sources:
        parts = np.array(numbers, np.int64)
        self._parts.append(parts)  # kept: the structure points to it
        return Sources(count=len(parts), size=length_of(_side_by_side(numbers, blocks)), parts=parts.ctypes.data)

    def _own_linear(self, owner: Any, field: str, linear: Linear) -> None:
        self._owned.append((owner, field, linear))

    def _layer(self, cell: Mapping[str, Any], name: str, inputs: Blocks) -> Layer:
        kind, cells = cell["kind"], cell["hidden_size"]
        size = cell.get("projection_size") or cells
        layer = Layer(kind=CELLS.index(kind), size=padded(size), cells=padded(cells))
        layer.activation = ACTIVATIONS.index(cell.get("activation", "tanh"))
        for option in ("forget_bias", "cell_clip", "projection_clip"):
            setattr(layer, option, cell.get(option, 0.0))
        columns = inputs if kind == "feed-forward" else [*inputs, (size, 1)]
        matrix = {"basic-rnn": ".hidden", "gru": ".gates", "lstm": ".gates", "feed-forward": ""}[kind]
        rows = [(cells, {"gru": 2, "lstm": 4}.get(kind, 1))]
        self._own_linear(layer, "gates", self._linear(name + matrix, rows, columns))
        if kind == "gru":
            self._own_linear(layer, "second", self._linear(f"{name}.candidate", [(cells, 1)], columns))
        if cell.get("projection_size"):
            no_bias = np.full(size, ZERO)
            weight = self._indices(f"{name}.projection.weight")
            self._own_linear(layer, "second", self._matrix(weight, no_bias, [(size, 1)], [(cells, 1)]))
        if cell.get("peepholes"):
            places = np.full((3, padded(cells)), ZERO)
            places[:, :cells] = self._indices(f"{name}.peepholes")
            self._pointers.append((layer, "peepholes", self._append(places)))
        return layer

    def _interface(self, described: Model) -> Linear:
        """Pack the parts of the interface, each head's padded, in the order of the kernels.

        The parts come in the model's order; a field of the kernels begins one part, or several side by side.
        """
        parts, packed = (self._dnc_interface if self.kind == "dnc" else self._ntm_interface)(described)
        ends = list(itertools.accumulate(size * count for size, count in parts.values()))
        found = {name: range(start, end) for name, start, end in zip(parts, [0, *ends], ends, strict=False)}
        order: list[int] = []
        blocks: list[tuple[int, int]] = []
        for field, group in packed:
            if field:
                setattr(described, field, length_of(blocks))
            order += itertools.chain.from_iterable(found[part] for part in group)
            blocks.append(parts[group[0]] if len(group) == 1 else (sum(parts[part][0] for part in group), 1))
        return self._programs(described, order, blocks)

    def _programs(self, described: Model, order: Sequence[int], blocks: Blocks) -> Linear:
        """Pack the interface of every program, one below the other.

        order: the numbers of its rows in the order of the kernels; blocks: their layout.
        """
        programs, size = np.arange(described.programs), padded(length_of(blocks), PANEL)
        described.interface_size = size
        rows = np.add.outer(programs * len(order), order).ravel()
        places = np.add.outer(programs * size, places_of(blocks)).ravel()
        weight, bias = self._indices("interface.weight"), self._indices("interface.bias")
        return self._matrix_at(places, weight[rows], bias[rows], size * len(programs), self.hidden)

    def _selector(self, described: Model) -> None:
        """Pack the look-up among the keys of stored programs."""
        programs, size = described.programs, described.program_key_size
        query = self._linear("interface.selector.query", [(size, 1), (1, 1)], self.hidden)
        self._own_linear(described, "query", query)
        places = np.full((padded_wide(programs), padded(size)), ZERO)
        places[:programs, :size] = self._indices("interface.selector.keys")
        self._pointers.append((described, "program_keys", self._append(places)))

    @staticmethod
    def _dnc_interface(described: Model) -> tuple[dict[str, tuple[int, int]], list[tuple[str, list[str]]]]:
        reads, writes, word = described.read_heads, described.write_heads, described.word_size
        parts = {"read_keys": (word, reads), "read_strengths": (reads, 1), "write_keys": (word, writes)}
        parts |= {"write_strengths": (writes, 1), "erase": (word, writes), "add": (word, writes)}
        parts |= {"free_gates": (reads, 1), "allocation_gate": (writes, 1), "write_gate": (writes, 1)}
        packed = [(name, [name]) for name in ("read_keys", "write_keys", "erase", "add")]
        packed += [("strengths", ["read_strengths", "write_strengths"])]
        packed += [("gates", ["free_gates", "allocation_gate", "write_gate"])]
        if described.linked:
            parts |= {"modes": (2 * writes + 1, reads)}
            packed += [("modes", ["modes"])]
        if described.masking:
            parts |= {"read_masks": (word, reads), "write_masks": (word, writes)}
            packed += [("read_masks", ["read_masks"]), ("write_masks", ["write_masks"])]
        if described.link_sharpening:
            parts |= {"forward_sharpness": (reads * writes, 1), "backward_sharpness": (reads * writes, 1)}
            packed += [("sharpness", ["forward_sharpness", "backward_sharpness"])]
        return parts, packed

    @staticmethod
    def _ntm_interface(described: Model) -> tuple[dict[str, tuple[int, int]], list[tuple[str, list[str]]]]:
        heads = described.read_heads + described.write_heads
        writes, word = described.write_heads, described.word_size
        parts = {"keys": (word, heads), "key_strength": (heads, 1), "interpolation_gate": (heads, 1)}
        parts |= {"shift_weights": (described.shift_width, heads), "sharpening": (heads, 1)}
        parts |= {"erase": (word, writes), "add": (word, writes)}
        packed = [("read_keys", ["keys"]), ("erase", ["erase"]), ("add", ["add"]), ("strengths", ["key_strength"])]
        packed += [("", ["interpolation_gate"]), ("", ["sharpening"]), ("shifts", ["shift_weights"])]
        if described.signed_heads:
            parts |= {"key_signs": (word, heads), "add_signs": (word, writes)}
            packed += [("key_signs", ["key_signs"]), ("add_signs", ["add_signs"])]
        return parts, packed

    def _output(self, columns: Blocks) -> Linear:
        if self.kind == "rnn" and not self.config.get("readout", True):
            hidden = self.config["output_size"]
            same = np.where(np.eye(hidden, dtype=bool), ONE, ZERO)
            return self._matrix(same, np.full(hidden, ZERO), [(hidden, 1)], columns)
        return self._linear("output", [(self.config["output_size"], 1)], columns)

    # The places of the weights

    def _linear(self, name: str, rows: Blocks, columns: Blocks) -> Linear:
        return self._matrix(self._indices(f"{name}.weight"), self._indices(f"{name}.bias"), rows, columns)

    def _indices(self, name: str) -> Array:
        """Return the numbers of a weight's entries among those of all weights, in its shape."""
        shape = self._shapes[name]
        if name not in self._starts:
            self._starts[name] = self._end
            self._end += math.prod(shape)
        start = self._starts[name]
        return np.arange(start, start + math.prod(shape)).reshape(shape)

    def _matrix(self, weight: Array, bias: Array, rows: Blocks, columns: Blocks) -> Linear:
        """Pack a matrix and its bias, every block of rows and of columns padded with zeros."""
        return self._matrix_at(np.array(places_of(rows)), weight, bias, padded(length_of(rows), PANEL), columns)

    def _matrix_at(self, row_places: Array, weight: Array, bias: Array, rows: int, columns: Blocks) -> Linear:
        """Pack a matrix of `rows` rows and its bias, each row at its place, every block of columns padded."""
        dense = np.full((rows, length_of(columns)), ZERO)
        dense[np.ix_(row_places, np.array(places_of(columns)))] = weight
        biases = np.full(len(dense), ZERO)
        biases[row_places] = bias
        outputs, inputs = dense.shape
        linear = Linear(inputs=inputs, outputs=outputs)
        self._pointers += [(linear, "weights", self._append(_panels(dense))), (linear, "bias", self._append(biases))]
        turned = np.full((padded(inputs, PANEL), outputs), ZERO)
        turned[:inputs] = dense.T
        self._turned_pointers.append((linear, sum(map(len, self._turned))))
        self._turned.append(_panels(turned))
        return linear

    def _append(self, places: Array) -> int:
        """Append numbers to the packed array and return where they begin."""
        start = sum(map(len, self._places))
        self._places.append(places.ravel())
        return start


def gate_places(model: Model, name: str) -> Array:
    """Return the places of a gate's numbers in the interface, in the shape of its trace. Raises KeyError."""
    reads, writes, heads = model.read_heads, model.write_heads, model.read_heads + model.write_heads
    start, count, size = {
        "free_gates": (model.gates, reads, 0),
        "allocation_gate": (model.gates + reads, writes, 0),
        "write_gate": (model.gates + reads + writes, writes, 0),
        "read_modes": (model.modes, reads, 2 * writes + 1),
        "interpolation_gate": (model.strengths + padded(heads), heads, 0),
        "shift_weights": (model.shifts, heads, model.shift_width),
    }[name]
    places: Array = start + np.arange(count) * max(1, padded(size))
    return places[:, None] + np.arange(size) if size else places


def _panels(dense: Array) -> Array:
    """Return a matrix in panels of 16 rows, [rows / 16][columns][16], flat."""
    outputs, inputs = dense.shape
    return dense.reshape(outputs // PANEL, PANEL, inputs).transpose(0, 2, 1).ravel()


def _side_by_side(numbers: Iterable[int], blocks: Mapping[int, Blocks]) -> Blocks:
    """Return the blocks of vectors that lie side by side, each with blocks of its own."""
    return [block for number in numbers for block in blocks[number]]


def length_of(blocks: Blocks) -> int:
    """Return the total length of blocks, each padded."""
    return sum(padded(size) * count for size, count in blocks)


def places_of(blocks: Blocks) -> list[int]:
    """Return the place of each entry of blocks once each block is padded."""
    places: list[int] = []
    start = 0
    for size, count in blocks:
        for _ in range(count):
            places += range(start, start + size)
            start += padded(size)
    return places
