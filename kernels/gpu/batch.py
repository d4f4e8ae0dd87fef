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

CAPTURE = threading.Lock()
"""Held during a capture."""


class Batch:
    """Steps at most `size` sessions at a time.

    advance: launches the kernels of a step of all rows, given the launch, the inputs and the outputs to fill in.
    leaves: of the arena; spare: its slot that nobody has. shapes: of the arrays that the kernels
    need, by name, without the batch axis. On a GPU the launches are captured here, once, and replayed for each step:
    a step is one launch of the host.
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
        self._inputs, self._outputs = (torch.zeros(size, end, device=device) for end in ends)
        launch = Launch(leaves, self.slots, spare, self.rows)
        step = partial(advance, launch, self._inputs, self._outputs)
        self._advance: Callable[[], None] = step
        self._steps = 0
        self.prepare(1)
        if device.type == "cuda":
            step()  # compiles the kernels
            self._advance = captured(step)

    def prepare(self, steps: int) -> None:
        """Allocate what a call of this many steps needs. Raises MemoryError."""
        if steps <= self._steps:
            return
        device, numbers = self.slots.device, self._size * (1 + steps * self._inputs.shape[1])
        sent = on_host(numbers, device)
        with memory_errors():
            received = torch.empty(numbers, device=device)
            outputs = self._outputs.new_empty(steps, *self._outputs.shape)
        self._sent, self._received, self._returned, self._steps = sent, received, outputs, steps

    def run(self, slots: Sequence[int], inputs: Array) -> Tensor:
        """Advance slots by T steps. inputs: float32 [T, B, input_size].

        Returns [T, B, output_size], on the device; the next call overwrites them, and the inputs that this one sends:
        read them first. All inputs go to the device in one copy, with the slots; nothing waits for the steps, not even
        the return.
        """
        steps, count, width = inputs.shape
        self.prepare(steps)
        used = self._size * (1 + steps * width)
        sent, received = self._sent[:used], self._received[:used]
        numbers = sent[: self._size].view(torch.int32).numpy()
        numbers[:count], numbers[count:] = slots, NOBODY
        own = sent[self._size :].view(steps, self._size, width).numpy()
        own[:, :count], own[:, count:] = inputs, 0
        received.copy_(sent, non_blocking=True)
        self.slots.copy_(received[: self._size].view(torch.int32))
        outputs = self._returned[:steps]
        for into, now in zip(outputs, received[self._size :].view(steps, self._size, width), strict=True):
            self._inputs.copy_(now)
            self._advance()
            into.copy_(self._outputs)
        return outputs[:, :count]


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of a step's launches, in one launch. Its kernels must have been compiled.

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
