"""The back ends of one model, one for each memory size in use, and the slots in them."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from app.backends.base import Array, Backend, Spec
from app.errors import OutOfMemory


class Slot(NamedTuple):
    """Where a state lies: with the back end of this memory size, in the slot of this number."""

    memory_size: int | None
    number: int


class Arenas:
    """Opens slots of any memory size. The first back end stays; the others come and go with the slots in them."""

    def __init__(self, backend: Backend, max_bytes: int) -> None:
        self.first = backend
        self._backends = {backend.spec.memory_size: backend}
        self._open: Counter[int | None] = Counter()
        self._bytes = 0
        self._max_bytes = max_bytes

    def open(self, memory_size: int | None = None, state: Mapping[str, Array] | None = None) -> Slot:
        """Take a slot and put a state into it, if not given that before the first step.

        memory_size: the first back end's, if not given.

        Raises OutOfMemory where the states would take more bytes than they may, MemoryError where there are none left.
        """
        spec = self.spec(memory_size)
        self._check_room(spec.state_bytes)
        backend = self._backend(memory_size)
        slot = Slot(spec.memory_size, backend.open(state))
        self._backends[slot.memory_size] = backend
        self._open[slot.memory_size] += 1
        self._bytes += spec.state_bytes
        return slot

    def spec(self, memory_size: int | None) -> Spec:
        """Return what goes in and comes out with so many memory slots, by default the first back end's."""
        if memory_size is None or memory_size == self.first.spec.memory_size:
            return self.first.spec
        backend = self._backends.get(memory_size)
        return self.first.spec.resized(memory_size) if backend is None else backend.spec

    def backend(self, memory_size: int | None) -> Backend:
        """Return the back end with the slots of a memory size. Raises KeyError where there are none."""
        return self._backends[memory_size]

    def of(self, slot: Slot) -> Backend:
        """Return the back end that a slot is in."""
        return self._backends[slot.memory_size]

    def has_spare(self, count: int, memory_size: int | None) -> bool:
        """Return whether so many slots can be opened in no time: a prompt back end of this memory size has room."""
        backend = self.first if memory_size is None else self._backends.get(memory_size)
        prompt = None if backend is None else backend.prompt()
        return prompt is not None and count <= prompt.spare

    def open_all(self, count: int, memory_size: int | None, state: Mapping[str, Array] | None) -> list[int]:
        """Take several slots, or none, as `open` does, and return their numbers."""
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
        """Give a slot back; the back end goes with the last of its slots."""
        backend = self.of(slot)
        backend.close(slot.number)
        self._open[slot.memory_size] -= 1
        self._bytes -= backend.spec.state_bytes
        if backend is not self.first and not self._open[slot.memory_size]:
            del self._backends[slot.memory_size], self._open[slot.memory_size]

    def _backend(self, memory_size: int | None) -> Backend:
        size = self.first.spec.memory_size if memory_size is None else memory_size
        return self._backends.get(size) or self.first.resized(memory_size or 0)

    def _check_room(self, size: int) -> None:
        if self._bytes + size > self._max_bytes:
            raise OutOfMemory(
                f"the open states take {self._bytes} bytes, and one of {size} more came, but all together may take "
                f"{self._max_bytes} (setting max_memory_bytes): ask for a smaller memory_size, or try later"
            )
