"""Sequences on their way through the engine, and their results."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from app.backends.base import Array, Spec
from app.errors import EngramError


class Result(NamedTuple):
    """The result of one sequence."""

    outputs: Array
    """[T, output_size]"""
    trace: dict[str, Array]
    """name -> [T, ...]"""


class Results(NamedTuple):
    """The results of R sequences of one length."""

    outputs: Array
    """[R, T, output_size]"""
    trace: dict[str, Array]
    """name -> [R, T, ...]"""
    errors: Mapping[int, EngramError]
    """row -> why this sequence failed; its outputs and traces are undefined."""

    def row(self, row: int) -> Result:
        """Return the result of one sequence. Raises the error of one that failed."""
        if self.errors and row in self.errors:
            raise self.errors[row]
        trace = {name: values[row] for name, values in self.trace.items()} if self.trace else {}
        return Result(self.outputs[row], trace)


class Replayed(NamedTuple):
    """The result of a sequence without a slot, and its final state."""

    result: Result
    state: dict[str, Array]


Outcome = Results | EngramError
"""Results, or the error of all sequences of a run."""


@dataclass(eq=False, slots=True)
class Run:
    """R sequences of T steps each that go through the engine together, and how far they are.

    slots: the arena's, one for each sequence, or None where no state is kept; the engine then takes some, with a memory
    of `memory_size` slots and the state `start`, by default the first. keeps_end: the state after the only sequence is
    kept in `end`. done: called on the event loop with the outcome, once. entries: of each sequence, for the journal to
    write before `done` is called.
    """

    slots: Sequence[int] | None
    memory_size: int | None
    inputs: Array
    """[R, T, input_size]"""
    trace: Sequence[str]
    done: Callable[[Outcome], None]
    entries: Sequence[Any] | None = None
    start: Mapping[str, Array] | None = None
    keeps_end: bool = False
    # The event loop's
    bytes: int = 0
    """Of its inputs and results."""
    released: bool = False
    """Whether `done` was called because a step hung: the run no longer counts."""
    cancelled: bool = False
    """Whether nobody needs the result any more."""
    # The worker's
    rows: int = field(init=False)
    """The number of sequences."""
    steps: int = field(init=False)
    """The number of steps of each sequence."""
    transient: bool = field(init=False)
    position: int = 0
    """The number of steps taken."""
    since: float = field(default_factory=time.perf_counter)
    """When it arrived, or had taken the steps before those that it waits for."""
    output_size: int = field(init=False)
    results: Results | None = None
    errors: dict[int, EngramError] = field(default_factory=dict)
    """row -> why this sequence failed; it takes no more steps."""
    before: Sequence[Mapping[str, Array]] | None = None
    """The states before the first step, where they may have to be put back."""
    end: dict[str, Array] | None = None

    def __post_init__(self) -> None:
        self.transient = self.slots is None
        self.rows, self.steps = self.inputs.shape[:2]

    @property
    def held(self) -> Sequence[int]:
        """The slots that are stepped, once there are some."""
        assert self.slots is not None
        return self.slots

    @property
    def finished(self) -> bool:
        return self.position == self.steps or len(self.errors) == self.rows

    @property
    def abandoned(self) -> bool:
        """Whether the rest need not be computed."""
        return self.released or (self.transient and self.cancelled)

    @property
    def active(self) -> Sequence[int]:
        """The rows that have not failed."""
        every = range(self.rows)
        return [row for row in every if row not in self.errors] if self.errors else every

    @property
    def logged(self) -> bool:
        """Whether its steps go to the journal."""
        return self.entries is not None

    def check_and_make_room(self, spec: Spec) -> None:
        """Allocate the results of several steps, so that none of them fails for want of memory. Raises MemoryError.

        Raises ValueError where the inputs are of another width than those of the model.
        """
        if self.inputs.shape[2] != spec.input_size:
            raise ValueError(f"inputs must be [R, T, {spec.input_size}], got {list(self.inputs.shape)}")
        self.output_size = spec.output_size
        if self.steps > 1 or self.trace:
            self._make_room({name: spec.trace[name] for name in self.trace})

    def record(self, rows: Sequence[int], outputs: Array, traces: Mapping[str, Array]) -> None:
        """Keep the outputs and traces, [rows, steps, ...], of the steps from `position` on.

        Outputs of a single step may be kept as they are, a part of those of the batch; all else is copied. Raises
        ValueError where they are of another shape.
        """
        if outputs.shape[2] != self.output_size:
            raise ValueError(f"outputs must be [rows, steps, {self.output_size}], got {list(outputs.shape)}")
        if self.results is None:
            if len(rows) == self.rows:
                self.results = Results(outputs, {}, self.errors)
                return
            self._make_room({})
        room = self.outcome
        steps = slice(self.position, self.position + outputs.shape[1])
        chosen = slice(None) if len(rows) == self.rows else list(rows)
        room.outputs[chosen, steps] = outputs
        for name, values in room.trace.items():
            values[chosen, steps] = traces[name]

    @property
    def outcome(self) -> Results:
        """The results so far."""
        if self.results is None:  # no row was stepped
            self._make_room({})
        assert self.results is not None
        return self.results

    def _make_room(self, trace: Mapping[str, Sequence[int]]) -> None:
        shape = (self.rows, self.steps)
        traces = {name: np.empty((*shape, *sizes), np.float32) for name, sizes in trace.items()}
        self.results = Results(np.empty((*shape, self.output_size), np.float32), traces, self.errors)


class Part(NamedTuple):
    """Some sequences of a run: those that are stepped at once."""

    run: Run
    rows: Sequence[int]
