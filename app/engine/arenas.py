"""The back ends of one model, one for each memory size and forced gates in use, and the slots in them."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from app.backends.base import Array, Backend, Spec
from app.budget import Budget
from app.errors import OutOfMemory


class Slot(NamedTuple):
    """The place of a state: the back end of this memory size and these forced gates, and a slot of its arena."""

    memory_size: int | None
    number: int
    force: str | None = None


Variant: TypeAlias = tuple[int | None, str | None]
"""A memory size and forced gates: what distinguishes the back ends of a model."""


class Arenas:
    """Opens slots of any memory size and forced gates.

    The first back end stays; each other one lives as long as it has open slots, so there are never more than these. The
    states in warm slots are held of the server's budget: a free slot keeps its memory until `cool`.
    """

    def __init__(self, backend: Backend, budget: Budget) -> None:
        """Begin with the back end of the model's own memory size; budget: of the states of all models together."""
        self.first = backend
        self._backends = {_variant(backend.spec): backend}
        self._open: Counter[Variant] = Counter()
        self._held: Counter[Variant] = Counter()
        """Slots of each variant whose bytes are held of the budget."""
        self._budget = budget
        self.spare_bytes = 0
        """Bytes that are held for free slots; any thread may read it."""
        backend.cool()  # its first step, a check, has left a warm slot

    def open(
        self, memory_size: int | None = None, state: Mapping[str, Array] | None = None, force: str | None = None
    ) -> Slot:
        """Open a slot with a state, by default the state before the first step.

        memory_size: by default the first back end's; force: as in `Spec`. Raises OutOfMemory if the states would take
        more than the budget, MemoryError if the back end has no free slot or no memory for one.
        """
        spec = self.spec(memory_size, force)
        variant = _variant(spec)
        self._hold_next(spec)
        try:
            backend = self._backends.get(variant) or self._new_backend(spec)
            slot = Slot(spec.memory_size, backend.open(state), force)
        except BaseException:
            known = self._backends.get(variant)
            self._let_go_spare(spec, 0 if known is None else known.slots.warm)
            raise
        self._backends[variant] = backend
        self._open[variant] += 1
        self.spare_bytes -= spec.state_bytes
        return slot

    def spec(self, memory_size: int | None, force: str | None = None) -> Spec:
        """Return the specification of a memory size, by default the first back end's, and of forced gates."""
        first = self.first.spec
        size = first.memory_size if memory_size is None else memory_size
        backend = self._backends.get((size, force))
        if backend is not None:
            return backend.spec
        return (first if size == first.memory_size else first.resized(size or 0)).forced(force)

    def backend(self, memory_size: int | None, force: str | None = None) -> Backend:
        """Return the back end of a memory size and forced gates. Raises KeyError if no slot of it is open."""
        return self._backends[memory_size, force]

    def of(self, slot: Slot) -> Backend:
        """Return the back end that a slot is in."""
        return self._backends[slot.memory_size, slot.force]

    def has_spare(self, count: int, memory_size: int | None, force: str | None = None) -> bool:
        """Return whether a prompt back end of this variant has `count` slots to spare: to open them is quick."""
        size = self.first.spec.memory_size if memory_size is None else memory_size
        backend = self._backends.get((size, force))
        prompt = None if backend is None else backend.prompt()
        return prompt is not None and count <= prompt.spare

    def open_all(
        self, count: int, memory_size: int | None, state: Mapping[str, Array] | None, force: str | None = None
    ) -> list[int]:
        """Open `count` slots or none, as `open` does, and return their numbers."""
        slots: list[Slot] = []
        try:
            for _ in range(count):
                slots.append(self.open(memory_size, state, force))
        except BaseException:
            for slot in slots:
                self.close(slot)
            raise
        return [slot.number for slot in slots]

    def close(self, slot: Slot) -> None:
        """Free a slot. A back end other than the first ends with the last of its slots."""
        backend, variant = self.of(slot), (slot.memory_size, slot.force)
        backend.close(slot.number)
        self._open[variant] -= 1
        self.spare_bytes += backend.spec.state_bytes
        if backend is not self.first and not self._open[variant]:
            self._let_go_spare(backend.spec, 0)
            del self._backends[variant], self._open[variant], self._held[variant]

    def cool(self) -> None:
        """Return the memory of free slots to the system, and their bytes to the budget."""
        for backend in self._backends.values():
            backend.cool()
            self._let_go_spare(backend.spec, backend.slots.warm)

    def release(self) -> None:
        """Return the bytes of all slots to the budget: the arenas end."""
        for (size, _), count in self._held.items():
            self._budget.subtract(count * self.spec(size).state_bytes)
        self._held.clear()

    def _new_backend(self, spec: Spec) -> Backend:
        """Return a back end of its own for a specification, which shares the weights of one with this memory size."""
        size = spec.memory_size
        alike = next((each for each in self._backends.values() if each.spec.memory_size == size), None)
        if alike is None:
            alike = self.first.resized(size or 0)
        return alike if _variant(alike.spec) == _variant(spec) else alike.forced(spec.force)

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
        backend = self._backends.get(_variant(spec))
        warm = 1 if backend is None else backend.slots.warm + (not backend.slots.next_is_warm)
        return warm - self._held[_variant(spec)]

    def _try_hold(self, spec: Spec, count: int) -> bool:
        fits = self._budget.try_add(count * spec.state_bytes)
        if fits:
            self._held[_variant(spec)] += count
            self.spare_bytes += count * spec.state_bytes
        return fits

    def _let_go_spare(self, spec: Spec, warm: int) -> None:
        """Return the bytes of slots beyond those that are warm to the budget."""
        count = max(0, self._held[_variant(spec)] - warm)
        self._held[_variant(spec)] -= count
        self.spare_bytes -= count * spec.state_bytes
        self._budget.subtract(count * spec.state_bytes)


def _variant(spec: Spec) -> Variant:
    return spec.memory_size, spec.force
