"""The back ends of one model, one for each memory size in use, and the slots in them."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from app.backends.base import Array, Backend, Spec
from app.budget import Budget
from app.errors import OutOfMemory


class Slot(NamedTuple):
    """The place of a state: the back end of this memory size, and the number of a slot in its arena."""

    memory_size: int | None
    number: int


class Arenas:
    """Opens slots of any memory size. The first back end stays; each other one lives as long as it has open slots.

    The states in warm slots are held of the server's budget: a free slot keeps its memory until `cool`.
    """

    def __init__(self, backend: Backend, budget: Budget) -> None:
        """Begin with the back end of the model's own memory size; budget: of the states of all models together."""
        self.first = backend
        self._backends = {backend.spec.memory_size: backend}
        self._open: Counter[int | None] = Counter()
        self._held: Counter[int | None] = Counter()
        """Slots of each memory size whose bytes are held of the budget."""
        self._budget = budget
        self.spare_bytes = 0
        """Bytes that are held for free slots; any thread may read it."""
        backend.cool()  # its first step, a check, has left a warm slot

    def open(self, memory_size: int | None = None, state: Mapping[str, Array] | None = None) -> Slot:
        """Open a slot with a state, by default the state before the first step.

        memory_size: by default the first back end's. Raises OutOfMemory if the states would take more than the budget,
        MemoryError if the back end has no free slot or no memory for one.
        """
        spec = self.spec(memory_size)
        size = spec.memory_size
        self._hold_next(spec)
        try:
            backend = self._backend(memory_size)
            slot = Slot(size, backend.open(state))
        except BaseException:
            known = self._backends.get(size)
            self._let_go_spare(spec, 0 if known is None else known.slots.warm)
            raise
        self._backends[size] = backend
        self._open[size] += 1
        self.spare_bytes -= spec.state_bytes
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
        self.spare_bytes += backend.spec.state_bytes
        if backend is not self.first and not self._open[slot.memory_size]:
            self._let_go_spare(backend.spec, 0)
            del self._backends[slot.memory_size], self._open[slot.memory_size], self._held[slot.memory_size]

    def cool(self) -> None:
        """Return the memory of free slots to the system, and their bytes to the budget."""
        for backend in self._backends.values():
            backend.cool()
            self._let_go_spare(backend.spec, backend.slots.warm)

    def release(self) -> None:
        """Return the bytes of all slots to the budget: the arenas end."""
        for size, count in self._held.items():
            self._budget.subtract(count * self.spec(size).state_bytes)
        self._held.clear()

    def _backend(self, memory_size: int | None) -> Backend:
        size = self.first.spec.memory_size if memory_size is None else memory_size
        return self._backends.get(size) or self.first.resized(memory_size or 0)

    def _hold_next(self, spec: Spec) -> None:
        """Hold the bytes of the slot that is opened next, unless it is warm. Raises OutOfMemory."""
        missing = self._missing(spec)
        if missing > 0 and not self._try_hold(spec, missing):
            self.cool()
            if not self._try_hold(spec, self._missing(spec)):
                raise OutOfMemory(
                    f"the open states take {self._budget.used} bytes, and one of {spec.state_bytes} more came; all "
                    f"together may take {self._budget.limit} (setting max_memory_bytes): ask for a smaller "
                    "memory_size, or try later"
                )

    def _missing(self, spec: Spec) -> int:
        """Return the number of slots that will be warm, once the next is open, beyond those that are held."""
        backend = self._backends.get(spec.memory_size)
        warm = 1 if backend is None else backend.slots.warm + (not backend.slots.next_is_warm)
        return warm - self._held[spec.memory_size]

    def _try_hold(self, spec: Spec, count: int) -> bool:
        fits = self._budget.try_add(count * spec.state_bytes)
        if fits:
            self._held[spec.memory_size] += count
            self.spare_bytes += count * spec.state_bytes
        return fits

    def _let_go_spare(self, spec: Spec, warm: int) -> None:
        """Return the bytes of slots beyond those that are warm to the budget."""
        count = max(0, self._held[spec.memory_size] - warm)
        self._held[spec.memory_size] -= count
        self.spare_bytes -= count * spec.state_bytes
        self._budget.subtract(count * spec.state_bytes)
