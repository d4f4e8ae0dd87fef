"""A batch of sessions on a device: the arrays of its rows, and on a GPU the graph of its step."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.gpu.launch import Launch
from kernels.gpu.transfer import on_host

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
        if device.type == "cuda":
            step()  # compiles the kernels
            self._advance = captured(step)

    def run(self, slots: Sequence[int], inputs: Array) -> Tensor:
        """Advance slots by T steps. inputs: float32 [T, B, input_size]. Returns [T, B, output_size], on the device.

        All inputs go to the device in one copy, with the slots; nothing waits for the steps, not even the return.
        """
        steps, count, width = inputs.shape
        sent = on_host(self._size * (1 + steps * width), self.slots.device)
        numbers = sent[: self._size].view(torch.int32).numpy()
        numbers[:count], numbers[count:] = slots, NOBODY
        own = sent[self._size :].view(steps, self._size, width).numpy()
        own[:, :count], own[:, count:] = inputs, 0
        received = sent.to(self.slots.device, non_blocking=True)
        self.slots.copy_(received[: self._size].view(torch.int32))
        outputs = self._outputs.new_empty(steps, *self._outputs.shape)
        for into, now in zip(outputs, received[self._size :].view(steps, self._size, width), strict=True):
            self._inputs.copy_(now)
            self._advance()
            into.copy_(self._outputs)
        return outputs[:, :count]


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of a step's launches, in one launch. Its kernels must have been compiled.

    The stream is the capture's own: torch.cuda.graph has one for all threads, and leaves a thread on it where a capture
    fails.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with CAPTURE, torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            step()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay
