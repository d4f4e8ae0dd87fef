"""A model's weights packed for the kernel, and an arena of states that it steps in place. NumPy only."""

import ctypes
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels.library import Layer, Linear, Model, library

Array = NDArray[Any]

LEAST_PER_THREAD = 8
"""Sessions below which a thread more costs more than it brings."""

LANES = 8
PANEL = 16

ACTIVATIONS = ("tanh", "sigmoid", "relu", "identity", "softmax")
CELLS = ("basic-rnn", "gru", "lstm", "feed-forward")
KINDS = ("rnn", "dnc", "ntm")
STRENGTHS = ("oneplus", "softplus")

PLAIN: dict[str, dict[str, Any]] = {
    "ntm": {"order": "together", "style": "paper", "signed_heads": False},
    "rnn": {},
    "lstm": {"layer_norm": "none"},
    "stack": {"skip_connections": False},
}
"""The options of models and cells for which there is a kernel: other values are computed by torch or ONNX Runtime."""


def not_fused(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return why the kernel cannot compute a model, or None where it can."""
    if kind not in KINDS:
        return f"it is of kind {kind!r}"
    if config.get("links") == "sparse":
        return "its links is 'sparse'"
    try:
        return _not_plain(kind, config) or _cell_not_fused(config["controller"])
    except (KeyError, TypeError, AttributeError) as error:
        return f"its config does not describe a model: {error!r}"


def _not_plain(kind: str, config: Mapping[str, Any]) -> str | None:
    for name, value in PLAIN.get(kind, {}).items():
        if config.get(name, value) != value:
            return f"its {name} is {config[name]!r}"
    return None


def is_bounded(config: Mapping[str, Any]) -> bool:
    """Return whether what the controller puts out is bounded, whatever it sees: then so is all that follows."""
    return _is_bounded(config["controller"])


def _is_bounded(cell: Mapping[str, Any]) -> bool:
    if cell["kind"] == "stack":
        return all(_is_bounded(layer) for layer in cell["cells"])
    if cell["kind"] == "dropout":
        return _is_bounded(cell["cell"])
    return cell.get("activation", "tanh") in ("tanh", "sigmoid")


def _cell_not_fused(cell: Mapping[str, Any]) -> str | None:
    kind = cell.get("kind")
    if kind == "stack":
        return _not_plain("stack", cell) or next(filter(None, map(_cell_not_fused, cell["cells"])), None)
    if kind == "dropout":  # in training only: a step drops nothing
        return _cell_not_fused(cell["cell"])
    if kind not in CELLS:
        return f"its controller is of kind {kind!r}"
    return _not_plain(kind, cell)


def padded(size: int, to: int = LANES) -> int:
    """Return `size` rounded up to a multiple of `to`."""
    return -(-size // to) * to


class NoKernel(ValueError):
    """A model that the kernel cannot compute, or a machine without its library; the message says which."""


class FusedStep:
    """Steps the states of sessions, each in a slot of an arena, by the kernel.

    weights: the model's, by their names, float32. memory_size: the number of memory slots of every state. threads: how
    many share the sessions of a step, whose numbers do not depend on it. Raises NoKernel.
    """

    def __init__(
        self,
        kind: str,
        config: Mapping[str, Any],
        weights: Mapping[str, Array],
        state: Mapping[str, Sequence[int]],
        memory_size: int | None,
        threads: int = 1,
    ) -> None:
        reason = not_fused(kind, config)
        if reason:
            raise NoKernel(f"there is no fused kernel for this model: {reason}; onnx and torch compute it")
        loaded = library()
        if loaded is None:
            raise NoKernel("there is no library of fused kernels; python -m models.kernels.build makes it")
        self._library = loaded
        self._kind, self._config, self._weights = kind, config, weights
        self._kept: list[Any] = []  # what the structures point to
        self.shapes = {name: tuple(shape) for name, shape in state.items()}
        self.slots = memory_size or 0
        self._model = self._describe()
        self._arena: dict[str, Array] = {}
        self._threads = threads
        self._own = threading.local()  # each thread's scratch
        self._pool = ThreadPoolExecutor(threads, "fused step") if threads > 1 else None
        self.grow(0)

    # The arena

    def grow(self, rooms: int) -> None:
        """Make room for so many states; what the new ones hold is undefined. Raises MemoryError."""
        arena = {name: np.zeros((rooms, *self._padded_shape(name)), np.float32) for name in self.shapes}
        for name, values in self._arena.items():
            arena[name][: len(values)] = values
        self._arena, self._rooms = arena, rooms
        self._point_to_arena()

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name."""
        return {name: self._arena[name][slot][_corner(shape)].copy() for name, shape in self.shapes.items()}

    def leaf(self, name: str, slots: Sequence[int]) -> Array:
        """Return a copy of one leaf of several states: [B, ...]."""
        return self._arena[name][list(slots)][(slice(None), *_corner(self.shapes[name]))].copy()

    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Replace the state in a slot."""
        for name, shape in self.shapes.items():
            self._arena[name][slot] = 0
            self._arena[name][slot][_corner(shape)] = state[name]

    def _padded_shape(self, name: str) -> tuple[int, ...]:
        *others, last = self.shapes[name]
        return (*others, padded(last))

    def _point_to_arena(self) -> None:
        leaves = {"memory", "read_weights", "write_weights", "read_vectors", "usage", "link"}
        for name in leaves & self._arena.keys():
            setattr(self._model, name, self._arena[name].ctypes.data)
        if "precedence_weights" in self._arena:
            self._model.precedence = self._arena["precedence_weights"].ctypes.data
        for layer, prefix in zip(self._layers, self._layer_names, strict=True):
            for leaf in ("h", "c"):
                values = self._arena.get(f"{prefix}.{leaf}")
                setattr(layer, leaf, None if values is None else values.ctypes.data)

    # A step

    def step(self, slots: Sequence[int], inputs: Array) -> tuple[Array, "Interface"]:
        """Advance distinct slots by one step. inputs: [B, input_size].

        Returns the activated outputs [B, output_size], and what the heads were told, for traces. Raises IndexError
        where a slot is not in the arena or named twice, ValueError where inputs are of another shape.
        """
        rows = np.array(slots, np.int64)
        self._check(rows, inputs)
        values = np.ascontiguousarray(self._encode(inputs), np.float32)
        batch = len(rows)
        outputs = np.empty((batch, self._model.output.outputs), np.float32)
        interface = np.empty((batch, max(1, self._model.interface.outputs)), np.float32)
        allocation = np.empty((batch, self._model.writes, padded(self.slots)), np.float32)
        parts = min(self._threads, max(1, batch // LEAST_PER_THREAD))
        cuts = [batch * part // parts for part in range(parts + 1)]
        pieces = [
            [array[start:end] for array in (rows, values, outputs, interface, allocation)]
            for start, end in itertools.pairwise(cuts)
        ]
        if self._pool is None:
            self._run(*pieces[0])
        else:
            list(self._pool.map(lambda piece: self._run(*piece), pieces))
        return outputs[:, : self._model.output_size], Interface(self._kind, self._model, interface, allocation)

    def _run(self, rows: Array, *arrays: Array) -> None:
        """Step some rows, in the thread that calls."""
        model, batch = ctypes.byref(self._model), len(rows)
        needed = self._library.engram_scratch(model, batch)
        scratch = getattr(self._own, "scratch", None)
        if scratch is None or len(scratch) < needed:
            scratch = self._own.scratch = np.empty(needed, np.float32)
        pointers = [array.ctypes.data for array in (*arrays, scratch)]
        self._library.engram_step(model, rows.ctypes.data, batch, *pointers)

    def _check(self, rows: Array, inputs: Array) -> None:
        room = self._rooms
        if (
            rows.ndim != 1
            or len(rows) == 0
            or rows.min() < 0
            or rows.max() >= room
            or len(set(rows.tolist())) < len(rows)
        ):
            raise IndexError(f"slots must be distinct numbers from 0 to {room - 1}, got {rows.tolist()}")
        expected = (len(rows), self._config["input_size"])
        if inputs.shape != expected:
            raise ValueError(f"inputs must be of shape {list(expected)}, got {list(inputs.shape)}")

    def _encode(self, inputs: Array) -> Array:
        """Return the vectors of tokens, zeros for what is none, where the model has an embedding."""
        if not self._config.get("embedding"):
            return inputs
        vectors, tokens = self._weights["embedding.vectors.weight"], inputs[:, 0]
        known = (tokens == np.round(tokens)) & (tokens >= 0) & (tokens < len(vectors))
        encoded: Array = vectors[np.where(known, tokens, 0).astype(np.int64)] * known[:, None]
        return encoded

    # Packing

    def _describe(self) -> Model:
        config = self._config
        reads, writes, word = (config.get(name, 0) for name in ("read_heads", "write_heads", "word_size"))
        input_size = config["embedding"]["size"] if config.get("embedding") else config["input_size"]
        described = Model(
            kind=KINDS.index(self._kind),
            strength=STRENGTHS.index(config.get("strength", "oneplus")),
            input_size=input_size,
            output_size=config["output_size"],
            slots=self.slots,
            word=word,
            reads=reads,
            writes=writes,
            shift_width=config.get("shift_width", 0),
            output_activation=ACTIVATIONS.index(config["output_activation"]),
            linked=config.get("links", "dense") == "dense",
            masking=config.get("masking", False),
            deallocation=config.get("deallocation", False),
            link_sharpening=config.get("link_sharpening", False),
            clip=config.get("clip", 0.0) if self._kind == "dnc" else 0.0,
        )
        seen = [(input_size, 1), (word, reads)]  # blocks of columns: (size, how many of them)
        self._layers, self._layer_names, hidden = [], [], 0
        for cell, name, prefix in _layers(config["controller"]):
            layer, hidden = self._layer(cell, name, seen)
            self._layers.append(layer)
            self._layer_names.append(prefix)
            seen = [(hidden, 1)]
        described.layers = len(self._layers)
        controller = (Layer * len(self._layers))(*self._layers)
        self._layers = list(controller)
        self._kept.append(controller)
        described.controller = ctypes.addressof(controller)
        if self._kind != "rnn":
            described.interface = self._interface(described, hidden)
        described.output = self._output(hidden, [(hidden, 1), (word, reads)])
        return described

    def _layer(self, cell: Mapping[str, Any], name: str, seen: list[tuple[int, int]]) -> tuple[Layer, int]:
        kind, cells = cell["kind"], cell["hidden_size"]
        size = cell.get("projection_size") or cells
        layer = Layer(kind=CELLS.index(kind), size=padded(size), cells=padded(cells))
        layer.activation = ACTIVATIONS.index(cell.get("activation", "tanh"))
        for option in ("forget_bias", "cell_clip", "projection_clip"):
            setattr(layer, option, cell.get(option, 0.0))
        columns = seen if kind == "feed-forward" else [*seen, (size, 1)]
        matrix = {"basic-rnn": ".hidden", "gru": ".gates", "lstm": ".gates", "feed-forward": ""}[kind]
        layer.gates = self._linear(name + matrix, [(cells, {"gru": 2, "lstm": 4}.get(kind, 1))], columns)
        if kind == "gru":
            layer.second = self._linear(f"{name}.candidate", [(cells, 1)], columns)
        if size != cells or cell.get("projection_size"):
            weight = self._weights[f"{name}.projection.weight"]
            layer.second = self._pack(*_spread(weight, np.zeros(size), [(size, 1)], [(cells, 1)]))
        if cell.get("peepholes"):
            peepholes = np.zeros((3, padded(cells)), np.float32)
            peepholes[:, :cells] = self._weights[f"{name}.peepholes"]
            self._kept.append(peepholes)
            layer.peepholes = peepholes.ctypes.data
        return layer, size

    def _interface(self, described: Model, hidden: int) -> Linear:
        """Lay out the parts of the interface, each head's padded, in the order in which the kernel expects them."""
        reads, writes, word = described.reads, described.writes, described.word
        heads = reads + writes
        if self._kind == "dnc":
            parts = {"read_keys": (word, reads), "read_strengths": (reads, 1), "write_keys": (word, writes)}
            parts |= {"write_strengths": (writes, 1), "erase": (word, writes), "add": (word, writes)}
            parts |= {"free_gates": (reads, 1), "allocation_gate": (writes, 1), "write_gate": (writes, 1)}
            laid = [["read_keys"], ["write_keys"], ["erase"], ["add"], ["read_strengths", "write_strengths"]]
            laid += [["free_gates", "allocation_gate", "write_gate"]]
            names = ["read_keys", "write_keys", "erase", "add", "strengths", "gates"]
            if described.linked:
                parts |= {"modes": (2 * writes + 1, reads)}
                laid, names = [*laid, ["modes"]], [*names, "modes"]
            if described.masking:
                parts |= {"read_masks": (word, reads), "write_masks": (word, writes)}
                laid, names = [*laid, ["read_masks"], ["write_masks"]], [*names, "read_masks", "write_masks"]
            if described.link_sharpening:
                parts |= {"forward_sharpness": (reads * writes, 1), "backward_sharpness": (reads * writes, 1)}
                laid, names = [*laid, ["forward_sharpness", "backward_sharpness"]], [*names, "sharpness"]
        else:
            parts = {"keys": (word, heads), "key_strength": (heads, 1), "interpolation_gate": (heads, 1)}
            parts |= {"shift_weights": (described.shift_width, heads), "sharpening": (heads, 1)}
            parts |= {"erase": (word, writes), "add": (word, writes)}
            laid = [["keys"], ["erase"], ["add"], ["key_strength"], ["interpolation_gate"], ["sharpening"]]
            laid += [["shift_weights"]]
            names = ["read_keys", "erase", "add", "strengths", "", "", "shifts"]
        ends = list(itertools.accumulate(size * count for size, count in parts.values()))
        found = {name: range(start, end) for name, start, end in zip(parts, [0, *ends], ends, strict=False)}
        order: list[int] = []
        blocks: list[tuple[int, int]] = []
        for name, group in zip(names, laid, strict=True):
            if name:
                setattr(described, name, _length(blocks))
            order += itertools.chain.from_iterable(found[part] for part in group)
            blocks.append(parts[group[0]] if len(group) == 1 else (sum(parts[part][0] for part in group), 1))
        weight, bias = self._weights["interface.weight"], self._weights["interface.bias"]
        return self._pack(*_spread(weight[order], bias[order], blocks, [(hidden, 1)]))

    def _output(self, hidden: int, columns: list[tuple[int, int]]) -> Linear:
        if self._kind == "rnn" and not self._config.get("readout", True):
            return self._pack(*_spread(np.eye(hidden, dtype=np.float32), np.zeros(hidden), [(hidden, 1)], columns))
        return self._linear("output", [(self._config["output_size"], 1)], columns)

    def _linear(self, name: str, rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> Linear:
        return self._pack(*_spread(self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], rows, columns))

    def _pack(self, dense: Array, bias: Array) -> Linear:
        outputs, inputs = dense.shape
        panels = np.ascontiguousarray(dense.reshape(outputs // PANEL, PANEL, inputs).transpose(0, 2, 1), np.float32)
        bias = np.ascontiguousarray(bias, np.float32)
        self._kept += [panels, bias]
        return Linear(inputs=inputs, outputs=outputs, weights=panels.ctypes.data, bias=bias.ctypes.data)


class Interface:
    """What the heads were told in a step, cut out of the kernel's own layout: a trace when it is asked for."""

    def __init__(self, kind: str, model: Model, values: Array, allocation: Array) -> None:
        self._kind, self._model, self._values, self._allocation = kind, model, values, allocation

    def trace(self, name: str) -> Array:
        """Return a trace other than weightings and usage, which are leaves of the state: [B, ...]."""
        m = self._model
        reads, writes, heads = m.reads, m.writes, m.reads + m.writes
        if name == "allocation_weights":
            return self._allocation[:, :, : m.slots].copy()
        if self._kind == "dnc":
            if name == "read_modes":
                return self._blocks(m.modes, reads, 2 * writes + 1)
            places = {
                "free_gates": (0, reads),
                "allocation_gate": (reads, writes),
                "write_gate": (reads + writes, writes),
            }
            start, count = places[name]
            return self._values[:, m.gates + start : m.gates + start + count].copy()
        if name == "shift_weights":
            return self._blocks(m.shifts, heads, m.shift_width)
        start = m.strengths + ("key_strength", "interpolation_gate", "sharpening").index(name) * padded(heads)
        return self._values[:, start : start + heads].copy()

    def _blocks(self, start: int, count: int, size: int) -> Array:
        blocks = self._values[:, start : start + count * padded(size)]
        return blocks.reshape(len(blocks), count, padded(size))[:, :, :size].copy()


def _layers(
    cell: Mapping[str, Any], name: str = "controller", prefix: str = "controller"
) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Yield the layers of a controller, from the bottom: each cell, the name of its weights, that of its state."""
    if cell["kind"] == "stack":
        for number, inner in enumerate(cell["cells"]):
            yield from _layers(inner, f"{name}.cells.{number}", f"{prefix}.layer{number}")
    elif cell["kind"] == "dropout":
        yield from _layers(cell["cell"], f"{name}.cell", prefix)
    elif cell["kind"] == "feed-forward":
        yield from ((cell, f"{name}.layers.{number}", prefix) for number in range(cell.get("layers", 1)))
    else:
        yield cell, name, prefix


def _spread(
    weight: Array, bias: Array, rows: list[tuple[int, int]], columns: list[tuple[int, int]]
) -> tuple[Array, Array]:
    """Return a matrix and its bias with every block of rows and of columns padded with zeros.

    rows, columns: (size, how many of them).
    """
    row_places, column_places = _places(rows), _places(columns)
    dense = np.zeros((padded(_length(rows), PANEL), _length(columns)), np.float32)
    dense[np.ix_(row_places, column_places)] = weight
    biases = np.zeros(len(dense), np.float32)
    biases[row_places] = bias
    return dense, biases


def _length(blocks: list[tuple[int, int]]) -> int:
    """Return how much place blocks take, each padded."""
    return sum(padded(size) * count for size, count in blocks)


def _places(blocks: list[tuple[int, int]]) -> list[int]:
    """Return where the entries of blocks come to lie once each block is padded."""
    places: list[int] = []
    start = 0
    for size, count in blocks:
        for _ in range(count):
            places += range(start, start + size)
            start += padded(size)
    return places


def _corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(size) for size in shape)
