"""Runs, the requests to the engine to step sequences, and their results."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from app.backends.base import Array, Spec, StateCopy
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
    """row -> the error of a sequence that failed; its outputs and traces are undefined."""

    def row(self, row: int) -> Result:
        """Return the result of one sequence, or raise its error."""
        if self.errors and row in self.errors:
            raise self.errors[row]
        trace = {name: values[row] for name, values in self.trace.items()} if self.trace else {}
        return Result(self.outputs[row], trace)


class Replayed(NamedTuple):
    """The result of a sequence without a slot, and its final state."""

    result: Result
    state: dict[str, Array]


Outcome = Results | EngramError
"""The results of a run, or one error for all of its sequences."""


@dataclass(eq=False, slots=True)
class Run:
    """One request to the engine: R sequences of T steps each, and how far they are.

    slots: the number of a slot for each sequence. None: no state is kept, and the engine opens slots of this
    memory_size (number of memory locations) with the state `start`, by default the state before the first step.
    keeps_end: whether to store the final state of the only sequence in `end`. done: called on the event loop with the
    outcome, once. entries: one for each sequence, which the journal writes before `done` is called. force: the gates
    that are held at values, as in `Spec`.
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
    force: str | None = None
    # Set by the event loop
    bytes: int = 0
    """Bytes of the inputs and results."""
    released: bool = False
    """Whether `done` was called early, with an error: a step hung, or the engine gave up. The run no longer counts."""
    cancelled: bool = False
    """Whether the caller no longer needs the result."""
    # Set by the worker
    rows: int = field(init=False)
    """The number of sequences."""
    steps: int = field(init=False)
    """The number of steps of each sequence."""
    transient: bool = field(init=False)
    """Whether it keeps no state."""
    position: int = 0
    """The number of steps taken."""
    began: float = 0.0
    """When its first batch was taken, by time.perf_counter; 0: none was."""
    since: float = field(default_factory=time.perf_counter)
    """When it began to wait for its next steps, by time.perf_counter."""
    output_size: int = field(init=False)
    results: Results | None = None
    errors: dict[int, EngramError] = field(default_factory=dict)
    """row -> the error of a sequence that failed; it takes no more steps."""
    before: Sequence[StateCopy] | None = None
    """Copies of the states before the first step, to put back if a sequence fails; None if there are none."""
    end: dict[str, Array] | None = None
    """The final state, if keeps_end."""

    def __post_init__(self) -> None:
        self.transient = self.slots is None
        self.rows, self.steps = self.inputs.shape[:2]

    @property
    def held(self) -> Sequence[int]:
        """The slots, given or opened by the worker."""
        assert self.slots is not None, "the worker opens slots when it accepts a run without"
        return self.slots

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or all sequences have failed."""
        return self.position == self.steps or len(self.errors) == self.rows

    @property
    def abandoned(self) -> bool:
        """Whether the steps that are left need not be computed."""
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

    def check_and_allocate(self, spec: Spec) -> None:
        """Allocate the results of several steps now, so that recording a step cannot run out of memory.

        Raises MemoryError, and ValueError if the inputs do not have the width that the model takes.
        """
        if self.inputs.shape[2] != spec.input_size:
            raise ValueError(f"inputs must be [R, T, {spec.input_size}], got {list(self.inputs.shape)}")
        self.output_size = spec.output_size
        if self.steps > 1 or self.trace:
            self._allocate({name: spec.trace[name] for name in self.trace})

    def record(self, rows: Sequence[int], outputs: Array, traces: Mapping[str, Array]) -> None:
        """Record the outputs and traces, [rows, steps, ...], of the steps from `position` on.

        The outputs of a single step are kept as a view of the batch's; everything else is copied. Raises ValueError if
        the outputs do not have the width of the model's.
        """
        if outputs.shape[2] != self.output_size:
            raise ValueError(f"outputs must be [rows, steps, {self.output_size}], got {list(outputs.shape)}")
        if self.results is None:
            if len(rows) == self.rows:
                self.results = Results(outputs, {}, self.errors)
                return
            self._allocate({})
        results = self.outcome
        steps = slice(self.position, self.position + outputs.shape[1])
        chosen = slice(None) if len(rows) == self.rows else list(rows)
        results.outputs[chosen, steps] = outputs
        for name, values in results.trace.items():
            values[chosen, steps] = traces[name]

    @property
    def outcome(self) -> Results:
        """The results so far."""
        if self.results is None:  # no row was stepped
            self._allocate({})
        assert self.results is not None
        return self.results

    def _allocate(self, trace: Mapping[str, Sequence[int]]) -> None:
        shape = (self.rows, self.steps)
        traces = {name: np.empty((*shape, *sizes), np.float32) for name, sizes in trace.items()}
        self.results = Results(np.empty((*shape, self.output_size), np.float32), traces, self.errors)


class RunRows(NamedTuple):
    """The rows of a run that are stepped in one batch."""

    run: Run
    rows: Sequence[int]
