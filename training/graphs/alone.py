"""The file as it came, run for one row: what every form of it is compared with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from training.graphs.prepare import cast_values, constants_of, dtype_of, inputs_of, outputs_of
from training.graphs.spec import BATCH, GraphSpec, Leaf, Part, Shape
from training.graphs.wrap import Signature, carry_name
from training.importers.variables import ImportFailed
from training.runtime import first_line, open_session

Array = NDArray[Any]


class Step(NamedTuple):
    """The results of a step of some rows, [B, ...] each: the outputs [B, O], the next state and the traces by name."""

    outputs: Array
    state: dict[str, Array]
    trace: dict[str, Array]

    def tensors(self) -> dict[str, Array]:
        """Return all tensors by their names in the graph of a checkpoint."""
        leaves = {f"next.{name}": leaf for name, leaf in self.state.items()}
        return {"outputs": self.outputs, **leaves, **{f"trace.{name}": value for name, value in self.trace.items()}}


class FileAlone:
    """onnxruntime's own loop over a file, for one row at a time."""

    def __init__(self, model: onnx.ModelProto, spec: GraphSpec) -> None:
        """spec: complete, but for the shapes of outputs and traces, which `probed` adds."""
        self.spec = spec
        values = inputs_of(model)
        self._types = {name: dtype_of(value) for name, value in values.items()}
        self.is_half = "float16" in self._types.values()
        self._constants = constants_of(model, spec)
        self._outputs = list(outputs_of(model))
        self._session = open_session(model.SerializeToString())

    def first(self) -> dict[str, Array]:
        """Return the state before the first step by name, [1, ...] each."""
        leaves = {leaf.name: first_leaf(leaf, self.spec.where, self._types[leaf.tensor]) for leaf in self.spec.state}
        carried = {carry_name(part): np.zeros(part.carry, np.float32) for part in self._carrying()}
        return {name: value[np.newaxis] for name, value in (leaves | carried).items()}

    def signature(self) -> Signature:
        """Return the inputs and outputs of the graph of a step; the specification is complete."""
        return Signature(
            input_size=self.spec.input_size,
            output_size=sum(part.numbers for part in self.spec.outputs),
            first={name: leaf[0, ...] for name, leaf in self.first().items()},
            trace={part.name: part.row_shape for part in self.spec.trace},
        )

    def step(self, inputs: Array, state: Mapping[str, Array]) -> Step:
        """Take a step. inputs: [1, I]. Raises ImportFailed if the file does not, or an output's size is another."""
        try:
            raw = self.run(inputs, state)
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise ImportFailed(
                f"{self.spec.where}: the graph does not take a step of the check: {first_line(error)}: give the "
                "`range` of its inputs, or the `vocabulary` of its tokens"
            ) from error
        outputs = [self._row(part.tensor, raw, [part.numbers]).astype(np.float32) for part in self.spec.outputs]
        leaves = {leaf.name: self._row(leaf.next or "", raw, leaf.row_shape) for leaf in self.spec.state}
        carried = {carry_name(part): raw[carry_name(part)] for part in self._carrying()}
        traces = {part.name: self._row(part.tensor, raw, part.row_shape).astype(np.float32) for part in self.spec.trace}
        return Step(np.concatenate(outputs, 1), leaves | carried, traces)

    def run(self, inputs: Array, state: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of the file as they come, by tensor, and the carried numbers by name."""
        feed, carried, offset = dict(self._constants), {}, 0
        for part in self.spec.inputs:
            numbers = inputs[:, offset : offset + part.numbers]
            offset += part.numbers
            if part.carry:
                numbers = np.concatenate([state[carry_name(part)], numbers], 1)
                carried[carry_name(part)] = numbers[:, -part.carry :]
            feed[part.tensor] = self._shaped(part.tensor, part.shape, numbers)
        for leaf in self.spec.state:
            feed[leaf.tensor] = self._shaped(leaf.tensor, leaf.shape, state[leaf.name])
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True)) | carried

    def whole_range(self, part: Part) -> tuple[float, float] | None:
        """Return the least and the greatest number of an input of tokens or whole numbers; None for any other.

        Numbers come as float32, so the greatest is the largest of them that the type of the input can hold.
        """
        kind = np.dtype(self._types[part.tensor])
        if part.vocabulary:
            return 0, part.vocabulary - 1
        if kind.kind == "b":
            return 0, 1
        if kind.kind not in "iu":
            return None
        limits = np.iinfo(kind)
        greatest = np.float32(limits.max)
        while int(greatest) > limits.max:
            greatest = np.nextafter(greatest, np.float32(0))
        return int(limits.min), int(greatest)

    def free_columns(self) -> Array:
        """Return which numbers of the vector of a step may be any, bool [I]: not tokens, nor whole numbers."""
        free = [
            np.full(part.numbers, part.vocabulary is None and self._types[part.tensor].startswith("float"))
            for part in self.spec.inputs
        ]
        return np.concatenate(free)

    def _shaped(self, tensor: str, shape: Shape | None, values: Array) -> Array:
        sizes = [1 if size == BATCH else int(size) for size in shape or ()]
        return values.reshape(sizes).astype(self._types[tensor])

    def _carrying(self) -> list[Part]:
        return [part for part in self.spec.inputs if part.carry]

    def _row(self, tensor: str, raw: Mapping[str, Array], shape: list[int]) -> Array:
        """Return an output as that of one row, [1, ...]. Raises ImportFailed if it has another size."""
        try:
            return raw[tensor].reshape([1, *shape])
        except ValueError as error:
            raise ImportFailed(
                f"{self.spec.where}: output {tensor!r} has the shape {list(raw[tensor].shape)} now, but had {shape} "
                "for a row: outputs of varying length cannot be served; export one of a fixed length"
            ) from error


def first_leaf(leaf: Leaf, where: str, dtype: str) -> Array:
    """Return the value of a leaf before the first step, in the shape of one row. Raises ImportFailed."""
    place = f"{where}: [state] {leaf.tensor}.initial"
    value = leaf.initial_values
    cast = cast_values(place, value, dtype)
    if value.ndim == 0:
        return np.full(leaf.row_shape, cast)
    if list(value.shape) not in (leaf.row_shape, [1 if size == BATCH else size for size in leaf.shape or ()]):
        raise ImportFailed(
            f"{place}: expected one number, or the shape {leaf.row_shape} of a row, got {list(value.shape)}"
        )
    return cast.reshape(leaf.row_shape)


def probed(alone: FileAlone) -> GraphSpec:
    """Return the specification with the shapes of outputs and traces, as one row of zeros gives them.

    Raises ImportFailed if the file does not take the step, if its results are not finite, or differ when it is
    repeated.
    """
    spec, state = alone.spec, alone.first()
    size = spec.input_size
    zeros = np.zeros((1, size), np.float32)
    try:
        raw = alone.run(zeros, state)
        _check_repeats(alone, zeros, state, raw)
    except ImportFailed:
        raise
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise ImportFailed(f"{spec.where}: the graph does not take a step of one row: {first_line(error)}") from error
    for leaf in spec.state:
        _check_next(spec, leaf, raw[leaf.next or ""])
    used = [*(leaf.next or "" for leaf in spec.state), *(part.tensor for part in spec.seen)]
    for name in used:
        if not np.isfinite(raw[name]).all():
            raise ImportFailed(
                f"{spec.where}: {name!r} is not finite after one step of zeros from the state before the first step: "
                "give the `initial` of its leaves"
            )
    outputs = tuple(_with_found_shape(spec, "outputs", part, raw[part.tensor]) for part in spec.outputs)
    trace = tuple(_with_found_shape(spec, "trace", part, raw[part.tensor]) for part in spec.trace)
    return replace(spec, outputs=outputs, trace=trace)


def _check_repeats(alone: FileAlone, inputs: Array, state: Mapping[str, Array], raw: Mapping[str, Array]) -> None:
    """Raise ImportFailed if a step of the same inputs and state gives other results after another step."""
    alone.run(inputs + 1, state)
    for name, value in alone.run(inputs, state).items():
        if value.tobytes() != raw[name].tobytes():
            raise ImportFailed(
                f"{alone.spec.where}: {name!r} differs when the same step is taken again: the graph keeps a state "
                "inside, or draws random numbers; export it with its state as inputs and outputs, in inference mode"
            )


def _check_next(spec: GraphSpec, leaf: Leaf, value: Array) -> None:
    sizes = [1 if size == BATCH else size for size in leaf.shape or ()]
    if list(value.shape) != sizes:
        raise ImportFailed(
            f"{spec.where}: [state] {leaf.tensor} has the shape {sizes}, but its next value {leaf.next!r} has "
            f"{list(value.shape)}"
        )


def _with_found_shape(spec: GraphSpec, section: str, part: Part, value: Array) -> Part:
    """Return an output with its shape, by default with the batch at the first axis of size 1. Raises ImportFailed."""
    sizes = list(value.shape)
    if part.shape is not None:
        if [1 if size == BATCH else size for size in part.shape] != sizes:
            raise ImportFailed(
                f"{spec.where}: [{section}] {part.tensor}: shape {list(part.shape)} was given, but {sizes} came"
            )
        return part
    if 0 in sizes:
        raise ImportFailed(f"{spec.where}: [{section}] {part.tensor}: it is empty, of the shape {sizes}")
    axis = sizes.index(1) if 1 in sizes else len(sizes)
    return replace(part, shape=tuple(BATCH if number == axis else size for number, size in enumerate(sizes)))
