"""Sequences on their way through the engine, and their results."""

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
        if row in self.errors:
            raise self.errors[row]
        return Result(self.outputs[row], {name: values[row] for name, values in self.trace.items()})


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
    results: Results = field(init=False)
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
        """Allocate the results, so that no step fails for want of memory. Raises MemoryError.

        Raises ValueError where the inputs are of another width than those of the model.
        """
        shape = (self.rows, self.steps)
        if self.inputs.shape != (*shape, spec.input_size):
            raise ValueError(f"inputs must be [R, T, {spec.input_size}], got {list(self.inputs.shape)}")
        traces = {name: np.empty((*shape, *spec.trace[name]), np.float32) for name in self.trace}
        self.results = Results(np.empty((*shape, spec.output_size), np.float32), traces, self.errors)

    def record(self, rows: Sequence[int], outputs: Array, traces: Mapping[str, Array]) -> None:
        """Keep a copy of the outputs and traces, [rows, steps, ...], of the steps from `position` on."""
        steps = slice(self.position, self.position + outputs.shape[1])
        chosen = slice(None) if len(rows) == self.rows else list(rows)
        self.results.outputs[chosen, steps] = outputs
        for name, values in self.results.trace.items():
            values[chosen, steps] = traces[name]


class Part(NamedTuple):
    """Some sequences of a run: those that are stepped at once."""

    run: Run
    rows: Sequence[int]
