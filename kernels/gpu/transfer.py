"""Numbers on their way between main memory and a device, many of them in one copy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


class DeviceCopy:
    """A copy of tensors of a device that is brought to main memory: float32, by name.

    They are copied on the device at once, behind what was launched before: what changes them later changes no copy. The
    copy there lives until `read` has returned; if nobody reads it, what comes to main memory is undefined.
    """

    def __init__(self, tensors: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> None:
        """stream: of a GPU, which brings them, beside what is launched later; None: the current one.

        Raises MemoryError.
        """
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        with memory_errors():
            numbers = [tensor.reshape(-1).float() for tensor in tensors.values()]
            self._copied = torch.cat(numbers) if numbers else torch.empty(0)
        self._stream = stream
        self._on_host: Tensor | None = None
        self._arrived: torch.cuda.Event | None = None

    def send(self) -> None:
        """Begin to bring the numbers to main memory; return at once. Raises MemoryError."""
        if self._copied.device.type != "cuda":
            self._on_host = self._copied
            return
        current = torch.cuda.current_stream()
        stream = self._stream or current
        self._on_host = on_host(self._copied.numel(), self._copied.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._on_host.copy_(self._copied, non_blocking=True)
            self._arrived = stream.record_event()

    def read(self) -> dict[str, Array]:
        """Return the numbers; wait until they are in main memory."""
        if self._on_host is None:
            self.send()
        assert self._on_host is not None
        if self._arrived is not None:
            self._arrived.synchronize()
        parts = torch.split(self._on_host, [shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape).numpy() for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


def on_host(count: int, device: torch.device) -> Tensor:
    """Return numbers in main memory, in pages from and to which a GPU copies by itself. Raises MemoryError."""
    with memory_errors():
        return torch.empty(count, pin_memory=device.type == "cuda")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError in place of torch's own errors where no memory is left."""
    try:
        yield
    except RuntimeError as error:
        texts = "allocate memory", "out of memory"  # on a CPU, and of pages that a GPU reads
        if isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts):
            raise MemoryError(str(error)) from error
        raise
