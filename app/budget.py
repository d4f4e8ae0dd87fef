"""Budgets: how many bytes all clients together may have the server hold, and how many it holds for them.

    take(size) -> Lease ... grow(size) ... release()

| budget | the bytes of | held |
|---|---|---|
| queue | the inputs and results of sequences in work | by an engine, until the outcome is known |
| answers | results, states and files of answers, and what clients have not read | until the answer was handed over |
| uploads | bodies of requests, in memory or in a file | until the request was answered |
| states | the states in arenas | as long as the slots have memory |
"""

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from app.errors import AnswersFull, EngramError, OutOfMemory, QueueFull, UploadsFull
from app.memory import memory_limit, trim
from app.settings import Settings

USUAL_BYTES = 256 * 2**20
"""The limit of a budget other than that of the states, unless a setting says otherwise or the memory is small."""

LARGE = 2**20

TRIM_SECONDS = 2.0
"""Seconds between two looks at how much was freed."""

TRIM_BYTES = 32 * 2**20
"""Bytes of large answers and bodies that were freed, from which the system gets memory back."""


class Budget:
    """A number of bytes that may be held at a time, and how many are. All methods may be called from any thread."""

    def __init__(self, name: str, limit: int, setting: str, error: type[EngramError]) -> None:
        """name: of the bytes, in errors; setting: which sets the limit; error: raised where too little is left."""
        self.name = name
        self.limit = limit
        self.setting = setting
        self._error = error
        self._used = 0
        self.large = 0
        """Bytes so far that were held LARGE or more at a time, and are not any more."""
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """The bytes that are held."""
        return self._used

    def add(self, size: int) -> None:
        """Hold `size` bytes more, also beyond the limit."""
        with self._lock:
            self._used += size

    def subtract(self, size: int) -> None:
        """Hold `size` bytes less."""
        with self._lock:
            self._used -= size
            self.large += size if size >= LARGE else 0

    def try_add(self, size: int) -> bool:
        """Hold `size` bytes more if they fit within the limit; return whether they do."""
        with self._lock:
            fits = self._used + size <= self.limit
            if fits:
                self._used += size
        return fits

    def take(self, size: int = 0) -> "Lease":
        """Return a lease of `size` bytes. Raises the error of this budget, as Lease.grow does."""
        lease = Lease(self)
        lease.grow(size)
        return lease

    def full(self, size: int) -> EngramError:
        """Return the error for `size` bytes more than there is room for."""
        return self._error(
            f"{self._used} bytes of {self.name} are held for all clients, and {size} more came; together they may have "
            f"{self.limit} (setting {self.setting}): try again later, or ask for less at a time"
        )


class Lease:
    """Bytes of a budget that are held for one purpose, until `release`; also a context."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size = 0

    def grow(self, size: int) -> None:
        """Hold `size` bytes more. Raises the error of the budget if they do not fit, unless nobody else holds any."""
        budget = self._budget
        if budget.try_add(size):
            self.size += size
        elif budget.used == self.size:
            self.force(size)
        else:
            raise budget.full(size)

    def force(self, size: int) -> None:
        """Hold `size` bytes more, also beyond the limit."""
        self._budget.add(size)
        self.size += size

    def resize(self, size: int) -> None:
        """Hold `size` bytes in all. Raises as `grow` does."""
        if size > self.size:
            self.grow(size - self.size)
        elif size < self.size:
            self._budget.subtract(self.size - size)
            self.size = size

    def release(self) -> None:
        """Hold nothing any more."""
        size, self.size = self.size, 0
        if size:
            self._budget.subtract(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(frozen=True)
class Budgets:
    """The budgets of one server."""

    queue: Budget
    answers: Budget
    uploads: Budget
    states: Budget

    def items(self) -> Iterable[tuple[str, Budget]]:
        """Return the budgets with their names."""
        return vars(self).items()

    def describe(self) -> str:
        """Return the limits, for the log."""
        return ", ".join(f"{budget.limit / 2**20:.0f} MiB of {budget.name}" for _, budget in self.items())


def budgets_of(settings: Settings, memory: int | None = None, gpu: int | None = None) -> Budgets:
    """Return the budgets of a server.

    memory: bytes that it may use, by default those of the machine or container. gpu: free bytes of the GPU that has the
    states, None where they are in main memory. Without settings, the states have a quarter of the memory, because an
    arena that grows is copied, and each other budget an eighth, at most USUAL_BYTES. With a GPU, a quarter of the
    smaller of both memories: some models have their states in main memory all the same.
    """
    memory = memory_limit() if memory is None else memory
    usual, states = min(USUAL_BYTES, memory // 8), min(memory, memory if gpu is None else gpu) // 4
    return Budgets(
        queue=Budget("sequences in work", settings.max_queue_bytes or usual, "max_queue_bytes", QueueFull),
        answers=Budget("answers", settings.max_answer_bytes or usual, "max_answer_bytes", AnswersFull),
        uploads=Budget("uploads", settings.max_upload_bytes or usual, "max_upload_bytes", UploadsFull),
        states=Budget("states", settings.max_memory_bytes or states, "max_memory_bytes", OutOfMemory),
    )


async def keep_trimming(budgets: Budgets) -> None:
    """Return freed memory to the system when large answers and bodies are done; the allocator would keep it."""
    trimmed = 0
    while True:
        await asyncio.sleep(TRIM_SECONDS)
        freed = sum(budget.large for _, budget in budgets.items())
        if freed - trimmed >= TRIM_BYTES:
            trimmed = freed
            await asyncio.to_thread(trim)
