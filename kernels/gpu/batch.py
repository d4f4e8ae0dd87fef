"""A batch of sessions on a device: the arrays of its rows, and on a GPU the graph of its step."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.gpu.launch import Launch
from kernels.gpu.transfer import memory_errors, on_host

Array = NDArray[Any]

NOBODY = -1
"""The slot of a row without a session."""

MOST_STEPS = 16
"""Steps of one graph, at most."""

CAPTURE = threading.Lock()
"""Held during a capture."""


class Batch:
    """Steps at most `size` sessions at a time.

    advance: launches the kernels of a step of all rows, given the launch, the inputs and the outputs to fill in.
    leaves: of the arena; spare: its slot that nobody has. shapes: of the arrays that the kernels need, by name, without
    the batch axis. On a GPU the launches of 1, 2, 4, 8 or 16 steps are captured here when they are first needed, and
    replayed from then on: they are one launch of the host.

        sent --one copy--> received -> block of inputs -> graph -> block of outputs -> returned
                                       '------ again, for each 16 steps of a call ------'
    """

    def __init__(
        self,
        advance: Callable[[Launch, Tensor, Tensor], None],
        leaves: Mapping[str, Tensor],
        spare: int,
        size: int,
        shapes: Mapping[str, Sequence[int]],
        ends: tuple[int, int],
        device: torch.device,
    ) -> None:
        """ends: the sizes of inputs and outputs."""
        self._size = size
        self.rows = {name: torch.empty(size, *shape, device=device) for name, shape in shapes.items()}
        self.slots = torch.full((size,), spare, dtype=torch.int32, device=device)
        self._inputs, self._outputs = (torch.zeros(MOST_STEPS, size, end, device=device) for end in ends)
        launch = Launch(leaves, self.slots, spare, self.rows)
        self._of_step = [torch.zeros(size, end, device=device) for end in ends]
        self._step = partial(advance, launch, *self._of_step)
        self._calls: dict[int, Callable[[], None]] = {}
        self._steps = 0
        self._uploaded: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._step()  # compiles the kernels
        self.prepare(1)

    def prepare(self, steps: int) -> None:
        """Allocate and capture what a call of this many steps needs. Raises MemoryError."""
        for length in {*lengths(steps)} - self._calls.keys():
            call = partial(self._advance, length)
            with memory_errors():
                self._calls[length] = captured(call) if self.slots.device.type == "cuda" else call
        if steps <= self._steps:
            return
        device, numbers = self.slots.device, self._size * (1 + steps * self._inputs.shape[2])
        sent = on_host(numbers, device)
        with memory_errors():
            received = torch.empty(numbers, device=device)
            returned = self._outputs.new_empty(steps, *self._outputs.shape[1:])
        self._sent, self._received, self._returned, self._steps = sent, received, returned, steps

    def run(self, slots: Sequence[int], inputs: Array) -> Tensor:
        """Advance slots by T steps. inputs: float32 [T, B, input_size].

        Returns [T, B, output_size], on the device; the next call overwrites them. All inputs go to the device in one
        copy, with the slots; nothing waits for the steps, not even the return.
        """
        steps, count, width = inputs.shape
        self.prepare(steps)
        if self._uploaded is not None:
            self._uploaded.synchronize()  # of a call before, which nobody has read, if its end failed
        used = self._size * (1 + steps * width)
        sent, received = self._sent[:used], self._received[:used]
        numbers = sent[: self._size].view(torch.int32).numpy()
        numbers[:count], numbers[count:] = slots, NOBODY
        own = sent[self._size :].view(steps, self._size, width).numpy()
        own[:, :count], own[:, count:] = inputs, 0
        received.copy_(sent, non_blocking=True)
        if self.slots.device.type == "cuda":
            self._uploaded = torch.cuda.current_stream().record_event()
        self.slots.copy_(received[: self._size].view(torch.int32))
        values, outputs, begin = received[self._size :].view(steps, self._size, width), self._returned[:steps], 0
        for length in lengths(steps):
            part = slice(begin, begin + length)
            self._inputs[:length].copy_(values[part])
            self._calls[length]()
            outputs[part].copy_(self._outputs[:length])
            begin += length
        return outputs[:, :count]

    def _advance(self, steps: int) -> None:
        """Launch the kernels of several steps. Those of each step have the same arrays, so the compiler knows them."""
        own_inputs, own_outputs = self._of_step
        for inputs, outputs in zip(self._inputs[:steps], self._outputs[:steps], strict=True):
            own_inputs.copy_(inputs)
            self._step()
            outputs.copy_(own_outputs)


def lengths(steps: int) -> list[int]:
    """Return the lengths of the graphs that make up a call: MOST_STEPS, then falling powers of two."""
    rest = steps % MOST_STEPS
    powers = [1 << bit for bit in reversed(range(rest.bit_length())) if rest & 1 << bit]
    return [MOST_STEPS] * (steps // MOST_STEPS) + powers


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of the launches of steps, in one launch. Their kernels must have been compiled.

    The stream is of high priority, as no other here: torch gives streams out in turn, so that one of the usual priority
    may be the one by which a snapshot is copied. torch.cuda.graph has one for all threads, and leaves a thread on it
    where a capture fails.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
    with CAPTURE:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                step()
            except BaseException:
                with suppress(RuntimeError):  # of a capture that this error has ended: it hides the error
                    graph.capture_end()
                raise
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay
