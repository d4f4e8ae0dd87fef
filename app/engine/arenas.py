"""The back ends of one model, one for each memory size in use, and the slots in them."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from app.backends.base import Array, Backend, Spec
from app.errors import OutOfMemory


class Slot(NamedTuple):
    """The place of a state: the back end of this memory size, and the number of a slot in its arena."""

    memory_size: int | None
    number: int


class Arenas:
    """Opens slots of any memory size. The first back end stays; each other one lives as long as it has open slots."""

    def __init__(self, backend: Backend, max_bytes: int) -> None:
        """Begin with the back end of the model's own memory size; max_bytes: of all open states together."""
        self.first = backend
        self._backends = {backend.spec.memory_size: backend}
        self._open: Counter[int | None] = Counter()
        self._bytes = 0
        self._max_bytes = max_bytes

    def open(self, memory_size: int | None = None, state: Mapping[str, Array] | None = None) -> Slot:
        """Open a slot with a state, by default the state before the first step.

        memory_size: by default the first back end's. Raises OutOfMemory if the open states would take more than
        max_bytes, MemoryError if the back end has no free slot or no memory for one.
        """
        spec = self.spec(memory_size)
        self._check_bytes(spec.state_bytes)
        backend = self._backend(memory_size)
        slot = Slot(spec.memory_size, backend.open(state))
        self._backends[slot.memory_size] = backend
        self._open[slot.memory_size] += 1
        self._bytes += spec.state_bytes
        return slot

    def spec(self, memory_size: int | None) -> Spec:
        """Return the specification of a memory size, by default the first back end's."""
        if memory_size is None or memory_size == self.first.spec.memory_size:
            return self.first.spec
        backend = self._backends.get(memory_size)
        return self.first.spec.resized(memory_size) if backend is None else backend.spec

    def backend(self, memory_size: int | None) -> Backend:
        """Return the back end of a memory size. Raises KeyError if no slot of this size is open."""
        return self._backends[memory_size]

    def of(self, slot: Slot) -> Backend:
        """Return the back end that a slot is in."""
        return self._backends[slot.memory_size]

    def has_spare(self, count: int, memory_size: int | None) -> bool:
        """Return whether a prompt back end of this memory size has `count` slots to spare: to open them is quick."""
        backend = self.first if memory_size is None else self._backends.get(memory_size)
        prompt = None if backend is None else backend.prompt()
        return prompt is not None and count <= prompt.spare

    def open_all(self, count: int, memory_size: int | None, state: Mapping[str, Array] | None) -> list[int]:
        """Open `count` slots or none, as `open` does, and return their numbers."""
        slots: list[Slot] = []
        try:
            for _ in range(count):
                slots.append(self.open(memory_size, state))
        except BaseException:
            for slot in slots:
                self.close(slot)
            raise
        return [slot.number for slot in slots]

    def close(self, slot: Slot) -> None:
        """Free a slot. A back end other than the first ends with the last of its slots."""
        backend = self.of(slot)
        backend.close(slot.number)
        self._open[slot.memory_size] -= 1
        self._bytes -= backend.spec.state_bytes
        if backend is not self.first and not self._open[slot.memory_size]:
            del self._backends[slot.memory_size], self._open[slot.memory_size]

    def _backend(self, memory_size: int | None) -> Backend:
        size = self.first.spec.memory_size if memory_size is None else memory_size
        return self._backends.get(size) or self.first.resized(memory_size or 0)

    def _check_bytes(self, size: int) -> None:
        if self._bytes + size > self._max_bytes:
            raise OutOfMemory(
                f"the open states take {self._bytes} bytes, and one of {size} more came; all together may take "
                f"{self._max_bytes} (setting max_memory_bytes): ask for a smaller memory_size, or try later"
            )
