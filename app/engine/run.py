"""A sequence on its way through the engine, and its result."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from app.backends.base import Array, Spec
from app.engine.arenas import Slot


class Result(NamedTuple):
    """What a sequence gave."""

    outputs: Array
    """[T, output_size]"""
    trace: dict[str, Array]
    """name -> [T, ...]"""


class Replayed(NamedTuple):
    """What a sequence gave whose state is not kept in a slot, and that state."""

    result: Result
    state: dict[str, Array]


@dataclass(eq=False)
class Run:
    """A sequence in work: its inputs [T, input_size], how far it is, and who waits for it.

    slot: the session's slot, or None for a sequence whose state is not kept; the engine then takes a slot for it,
    with a memory of `memory_size` slots and the state `start`, if not given the first. keeps_end: the state after
    the sequence is part of the outcome. entry: what the journal writes once it has run.
    """

    slot: Slot | None
    inputs: Array
    trace: Sequence[str]
    waiter: "asyncio.Future[Any]"
    memory_size: int | None = None
    start: Mapping[str, Array] | None = None
    keeps_end: bool = False
    entry: Any = None
    transient: bool = field(init=False)
    result: Result = field(init=False)
    before: Mapping[str, Array] | None = None
    """The state before the first step, kept where the run may have to be undone."""
    position: int = 0
    """The number of steps taken."""
    failed: bool = False

    def __post_init__(self) -> None:
        self.transient = self.slot is None

    @property
    def held(self) -> Slot:
        """The slot that is stepped, once there is one."""
        assert self.slot is not None
        return self.slot

    @property
    def finished(self) -> bool:
        return self.position == len(self.inputs)

    @property
    def abandoned(self) -> bool:
        """Nobody waits any more: for a result that nothing else keeps, or as it was given up, and its slot with it."""
        return self.waiter.done() and (self.transient or not self.waiter.cancelled())

    def check_and_make_room(self, spec: Spec) -> None:
        """Allocate the result, so that no step fails for want of memory. Raises MemoryError.

        Raises ValueError where the inputs are of another width than those of the model.
        """
        steps = len(self.inputs)
        if self.inputs.shape != (steps, spec.input_size):
            raise ValueError(f"inputs must be [T, {spec.input_size}], got {list(self.inputs.shape)}")
        room = {name: np.empty((steps, *spec.trace[name]), np.float32) for name in self.trace}
        self.result = Result(np.empty((steps, spec.output_size), np.float32), room)

    def record(self, outputs: Array, traces: Mapping[str, Array], row: int) -> None:
        """Keep what one batched step gave this run: a copy of its row, so that the batch can be let go."""
        self.result.outputs[self.position] = outputs[row]
        for name, values in self.result.trace.items():
            values[self.position] = traces[name][row]
        self.position += 1
