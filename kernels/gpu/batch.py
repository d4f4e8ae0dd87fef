"""A batch of sessions on a device: the arrays of its rows, and on a GPU the graph of its step."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.gpu.launch import Launch

Array = NDArray[Any]

CAPTURE = threading.Lock()
"""Held during a capture: torch has one stream for the captures of all threads."""


class Batch:
    """Steps at most `size` sessions at a time.

    advance: launches the kernels of a step of all rows, given the launch, the inputs and the outputs to fill in.
    leaves: of the arena; spare: the slot that rows without a session step. shapes: of the arrays that the kernels
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
        self._on_gpu, self._spare, self._size = device.type == "cuda", spare, size
        self.rows = {name: torch.empty(size, *shape, device=device) for name, shape in shapes.items()}
        self._slots = torch.full((size,), spare, dtype=torch.int32, device=device)
        self._inputs, self._outputs = (torch.zeros(size, end, device=device) for end in ends)
        launch = Launch(leaves, self._slots, self.rows)
        self._advance = lambda: advance(launch, self._inputs, self._outputs)
        if self._on_gpu:
            self._advance()  # type: ignore[no-untyped-call]  # compiles the kernels; steps only the spare slot
            graph = torch.cuda.CUDAGraph()
            with CAPTURE, torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._advance()  # type: ignore[no-untyped-call]
            self._advance = graph.replay

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        """Advance slots by T steps. inputs: float32 [T, B, input_size]. Returns [T, B, output_size].

        All inputs go to the device in one copy, with the slots; all outputs come back in one; nothing waits between.
        """
        steps, count, width = inputs.shape
        sent = self._on_host(self._size * (1 + steps * width))
        numbers = sent[: self._size].view(torch.int32).numpy()
        numbers[:count], numbers[count:] = slots, self._spare
        own = sent[self._size :].view(steps, self._size, width).numpy()
        own[:, :count], own[:, count:] = inputs, 0
        received = sent.to(self._slots.device, non_blocking=True)
        self._slots.copy_(received[: self._size].view(torch.int32))
        outputs = self._outputs.new_empty(steps, *self._outputs.shape)
        for into, now in zip(outputs, received[self._size :].view(steps, self._size, width), strict=True):
            self._inputs.copy_(now)
            self._advance()  # type: ignore[no-untyped-call]
            into.copy_(self._outputs)
        returned = self._on_host(outputs.numel()).view(outputs.shape)
        returned.copy_(outputs, non_blocking=True)
        if self._on_gpu:
            torch.cuda.current_stream().synchronize()
        return returned.numpy()[:, :count]

    def _on_host(self, count: int) -> Tensor:
        """Return numbers in main memory, in pages from and to which a GPU copies by itself."""
        return torch.empty(count, pin_memory=self._on_gpu)
