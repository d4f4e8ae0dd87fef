"""An arena of states on a device, which the kernels step in place."""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kernels.gpu.batch import Batch
from kernels.gpu.controller import Controller
from kernels.gpu.heads import heads_of
from kernels.gpu.launch import Launch
from kernels.gpu.linear import product
from kernels.gpu.support import LARGE, not_on_gpu
from kernels.gpu.transfer import DeviceCopy, memory_errors, on_host
from kernels.support import NoKernel
from models.cells import Cell
from models.contract import MemoryModel
from models.state import flatten

Array = NDArray[Any]

MOST_LOCATIONS = 4096
"""Memory locations, at most: a program holds a number for each, and the compiler takes long for more."""

OUTPUTS = "outputs"
"""The name of the outputs among the traces."""


class GpuStep:
    """Steps the states of sessions, each in a slot of an arena, on the device that the model is on.

    kind, config: of the model, as in the registry, as plain values. memory_size: the number of memory locations of
    every state. gates: forced ones, as in `Heads`. large: the dtype of the LARGE leaves in the arena, float32 or
    bfloat16. Raises NoKernel, and MemoryError.

    On a GPU a step of a batch is one graph, captured when a batch of this size is first met. Sizes are powers of two:
    the rows that a batch lacks do nothing.
    """

    used_before: Collection[str] = ()
    """Leaves of the state before a step by which that step reads and writes."""

    def __init__(
        self,
        kind: str,
        config: Mapping[str, Any],
        model: MemoryModel[Any],
        memory_size: int | None,
        gates: Mapping[str, Array] | None = None,
        large: str = "float32",
    ) -> None:
        reason = not_on_gpu(kind, config)
        if reason:
            raise NoKernel(f"there is no GPU kernel for this model: {reason}; torch computes it")
        self._model, self._clip = model, config.get("clip", 0.0)
        self._device = next(model.parameters()).device
        cell, output = model.controller, model.output if config.get("readout", True) else None
        assert isinstance(cell, Cell)
        assert output is None or isinstance(output, nn.Linear)
        self._controller, self._output = Controller(cell, self._clip), output
        self._large: torch.dtype = getattr(torch, large)
        self._beside = torch.cuda.Stream() if self._device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._begin(memory_size, gates or {})

    def resized(self, state: Mapping[str, Sequence[int]], memory_size: int) -> "GpuStep":  # noqa: ARG002
        """Return a step of the same weights with an arena of its own, of states with another number of locations.

        The model has the shapes of the states. Raises MemoryError.
        """
        other = copy.copy(self)
        other._begin(memory_size, self._gates)
        return other

    def forced(self, gates: Mapping[str, Array]) -> "GpuStep":
        """Return a step of the same weights with an arena of its own and these forced gates."""
        other = copy.copy(self)
        other._begin(self._size, gates)
        return other

    def _begin(self, memory_size: int | None, gates: Mapping[str, Array]) -> None:
        """Set everything that a step of the same weights has of its own."""
        if memory_size is not None and memory_size > MOST_LOCATIONS:
            raise MemoryError(f"a memory of {memory_size} locations: on a GPU one has at most {MOST_LOCATIONS}")
        self._size, self._gates = memory_size, gates
        with torch.no_grad(), memory_errors():
            first = flatten(self._model.initial_state(1, memory_size))
        self._first = {name: leaf[0] for name, leaf in first.items()}
        self._heads = heads_of(self._model, memory_size, gates)
        self._capacity, self._arena = 0, self._empty(0)
        self._batches: dict[int, Batch] = {}

    # The arena

    def grow(self, capacity: int) -> None:
        """Give the arena more slots; the states in the new ones are undefined. Raises MemoryError."""
        arena = self._empty(capacity)
        self._batches.clear()  # their graphs have the addresses of the leaves before
        for name, values in self._arena.items():
            arena[name][: self._capacity] = values[: self._capacity]
        self._arena, self._capacity = arena, capacity

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name. None is made on the device."""
        return {name: values[slot].cpu().float().numpy().copy() for name, values in self._arena.items()}

    @torch.inference_mode()
    def copy(self, slot: int) -> DeviceCopy:
        """Copy the state in a slot, on the device; its leaves by name. Raises MemoryError."""
        return DeviceCopy({name: values[slot] for name, values in self._arena.items()}, self._beside)

    def leaf(self, name: str, slots: Sequence[int]) -> Array:
        """Return a copy of one leaf of several states: [B, ...]."""
        rows = self._arena[name][torch.tensor(slots, device=self._device)]
        return DeviceCopy({name: rows}).read()[name]

    @torch.inference_mode()
    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Replace the state in a slot. Raises MemoryError."""
        leaves = {name: values[slot] for name, values in self._arena.items()}
        sizes = [leaf.numel() for leaf in leaves.values()]
        sent = on_host(sum(sizes), self._device)
        for (name, leaf), part in zip(leaves.items(), torch.split(sent, sizes), strict=True):
            part.view(leaf.shape).numpy()[...] = state[name]
        with memory_errors():
            received = torch.split(sent.to(self._device, non_blocking=True), sizes)
        for leaf, part in zip(leaves.values(), received, strict=True):
            leaf.copy_(part.view(leaf.shape))

    @torch.inference_mode()
    def clear(self, slot: int) -> None:
        """Set a slot to the state before the first step."""
        for name, values in self._arena.items():
            values[slot] = self._first[name]

    def _empty(self, capacity: int) -> dict[str, Tensor]:
        """Return the leaves of an arena, and one slot more than asked for, the last one, which nobody has."""
        with memory_errors():
            return {
                name: leaf.new_zeros(capacity + 1, *leaf.shape, dtype=self._large if name in LARGE else None)
                for name, leaf in self._first.items()
            }

    # A step

    @torch.inference_mode()
    def prepare(self, count: int, steps: int) -> None:
        """Allocate what `steps` steps of `count` slots need, on a GPU with a graph. Changes no state.

        Raises MemoryError.
        """
        try:
            self._batch(count).prepare(steps)
        except MemoryError:
            if self._device.type != "cuda":
                raise
            torch.cuda.empty_cache()  # a capture cannot use what torch has kept
            self._batch(count).prepare(steps)

    @torch.inference_mode()
    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        """Advance distinct slots by one step. inputs: [B, input_size]; trace: names of traces.

        Returns the activated outputs [B, output_size], and the named traces. All come in one copy.
        """
        batch = self._batch(len(slots))
        outputs = batch.run(slots, inputs[None])[0]
        traces = {name: self._trace(name, batch, len(slots)) for name in trace}
        came = DeviceCopy({OUTPUTS: outputs, **traces}).read()
        return came.pop(OUTPUTS), came

    @torch.inference_mode()
    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        """Advance distinct slots by T steps. inputs: [T, B, input_size]. Returns [T, B, output_size]."""
        return DeviceCopy({OUTPUTS: self._batch(len(slots)).run(slots, inputs)}).read()[OUTPUTS]

    def _batch(self, count: int) -> Batch:
        """Return the batch of the next power of two of sessions, prepared for a step. Raises MemoryError."""
        size = 1 << (count - 1).bit_length()
        if size not in self._batches:
            shapes = self._controller.shapes() | (self._heads.shapes() if self._heads else {})
            ends = self._model.input_size, self._model.output_size
            with memory_errors():
                self._batches[size] = Batch(
                    self._advance, self._arena, self._capacity, size, shapes, ends, self._device
                )
        return self._batches[size]

    def _advance(self, launch: Launch, inputs: Tensor, outputs: Tensor) -> None:
        """Launch the kernels of a step of all rows of a batch, and fill in the activated outputs."""
        hidden = self._controller.launch(launch, self._model.encode(inputs))
        seen: list[Tensor] = []
        if self._heads is not None:
            self._heads.launch(launch, hidden)
            seen.append(launch.leaves["read_vectors"])
        if self._output is None:
            outputs.copy_(hidden)
        else:
            product(self._output, launch.slots, outputs, hidden, *seen, clip=self._clip)
        outputs.copy_(self._model.activate(outputs))

    def _trace(self, name: str, batch: Batch, count: int) -> Tensor:
        """Return a trace of the last step of a batch: [B, ...]. It is a leaf of the state, or the kernels leave it."""
        if name in self._arena:
            return self._arena[name].index_select(0, batch.slots[:count])
        assert self._heads is not None, "a model without a memory has no traces"
        values = self._heads.control(name, batch.rows)
        return (batch.rows[name] if values is None else values)[:count]
