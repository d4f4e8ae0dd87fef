"""A sequence on its way through the engine, and its result."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from app.backends.base import Array


class Result(NamedTuple):
    """What a sequence gave."""

    outputs: Array
    """[T, output_size]"""
    trace: dict[str, Array]
    """name -> [T, ...]"""


@dataclass(eq=False)
class Run:
    """A sequence in work: its inputs [T, input_size], how far it is, and who waits for it.

    slot: the session's slot, or None for a sequence whose state is not kept; the engine then takes a slot for it.
    """

    slot: int | None
    inputs: Array
    trace: Sequence[str]
    waiter: "asyncio.Future[Result]"
    transient: bool = field(init=False)
    before: Mapping[str, Array] | None = None
    """The state before the first step, kept where the run may have to be undone."""
    failed: bool = False
    outputs: list[Array] = field(default_factory=list)
    traces: list[dict[str, Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transient = self.slot is None

    @property
    def position(self) -> int:
        """The number of steps taken."""
        return len(self.outputs)

    @property
    def finished(self) -> bool:
        return self.position == len(self.inputs)

    @property
    def abandoned(self) -> bool:
        """Nobody waits any more for a result that nothing else keeps."""
        return self.transient and self.waiter.cancelled()

    def result(self) -> Result:
        traces = {name: np.stack([step[name] for step in self.traces]) for name in self.trace}
        return Result(np.stack(self.outputs), traces)
