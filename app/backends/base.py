"""The contract of a back end, and the bookkeeping of slots that all back ends share."""

import heapq
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.backends.pages import give_back
from models.manifest import LEAF_DTYPES, Manifest, ManifestError

Array = NDArray[Any]

MOSTLY = 0.75
"""The part of a slot's memory that must be returned for the slot not to be warm any more."""

Shapes = dict[str, list[int]]
"""Shapes by name, without the batch axis."""

Axes = dict[str, list[int | None]]
"""Shapes by name, without the batch axis, for a memory of any size: None stands for the number of its locations."""

NUMBER_BYTES = 4
"""Inputs, outputs and traces are all float32, and so are states, but for leaves of an imported graph."""


@dataclass(frozen=True)
class Spec:
    """The sizes and shapes of a model's inputs, outputs, state and traces.

    memory_size: the number of memory locations, None for a model without such a memory. dtypes: of the leaves that are
    not float32. force: the gates that are held at values, as `app.forces` writes them; None where all are free.
    """

    input_size: int
    output_size: int
    memory_size: int | None
    state_axes: Axes
    trace_axes: Axes
    dtypes: Mapping[str, str] = field(default_factory=dict)
    force: str | None = None

    @cached_property
    def state(self) -> Shapes:
        """The shapes of the leaves of a state, by name."""
        return self._shapes(self.state_axes)

    @cached_property
    def trace(self) -> Shapes:
        """The shapes of the traces of one step, by name."""
        return self._shapes(self.trace_axes)

    @cached_property
    def state_bytes(self) -> int:
        """The bytes of a state."""
        return sum(self.dtype(name).itemsize * math.prod(shape) for name, shape in self.state.items())

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a leaf of the state."""
        return np.dtype(self.dtypes.get(name, "float32"))

    def trace_bytes(self, names: Iterable[str]) -> int:
        """Return the bytes of the named traces of one step."""
        return NUMBER_BYTES * sum(math.prod(self.trace[name]) for name in names)

    def resized(self, memory_size: int) -> "Spec":
        """Return the specification of the same model with another number of memory locations."""
        return replace(self, memory_size=memory_size)

    def forced(self, force: str | None) -> "Spec":
        """Return the specification of the same model with these gates forced, and no others."""
        return replace(self, force=force)

    @property
    def gates(self) -> dict[str, Array]:
        """The values of the forced gates, float64 in the shapes of their traces; NaN where an element is free."""
        forced = json.loads(self.force) if self.force else {}
        return {name: self._filled(gate, self.trace[name]) for name, gate in forced.items()}

    @staticmethod
    def _filled(gate: Sequence[Any], shape: Sequence[int]) -> Array:
        values = np.full(shape, np.nan)
        for head, part in enumerate(gate):
            if part is not None:
                values[head] = part
        return values

    def _shapes(self, axes: Axes) -> Shapes:
        locations = self.memory_size or 0
        return {name: [locations if size is None else size for size in shape] for name, shape in axes.items()}


def spec_of(manifest: Manifest, state_axes: Axes, trace_axes: Axes) -> Spec:
    """Return the specification of a checkpoint. Raises ManifestError if its manifest contradicts the axes."""
    memory_size = manifest.config.get("memory_size")
    if memory_size is not None and (type(memory_size) is not int or memory_size < 1):
        raise ManifestError(f"config.memory_size must be a whole number of at least 1, got {memory_size!r}")
    dtypes = manifest.config.get("dtypes", {})
    known = isinstance(dtypes, dict) and all(dtype in LEAF_DTYPES for dtype in dtypes.values())
    if not known or not set(dtypes) <= set(state_axes):
        raise ManifestError(
            f"config.dtypes must have dtypes of leaves of the state, each one of {', '.join(LEAF_DTYPES)}, "
            f"got {dtypes!r}"
        )
    spec = Spec(manifest.input_size, manifest.output_size, memory_size, state_axes, trace_axes, dtypes)
    for name, declared, found in (("state", manifest.state, spec.state), ("trace", manifest.trace, spec.trace)):
        if declared != found:
            raise ManifestError(f"its manifest says {name} {declared}, but the model has {found}")
    return spec


class Backend(Protocol):
    """One model and the states of its sessions, each in a slot of its own. Used by one thread at a time."""

    spec: Spec
    kind: str
    device: str
    slots: "Slots"
    """The slots of its arena."""

    def resized(self, memory_size: int) -> "Backend":
        """Return a back end of the same model with another number of memory locations, and with no open slot.

        Both share the weights. Raises MemoryError.
        """

    def forced(self, force: str | None) -> "Backend":
        """Return a back end of the same model with these gates forced, and no others, and with no open slot.

        force: as in `Spec`. Both share the weights. Raises MemoryError, and ValueError where it cannot force gates.
        """

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        """Open a free slot with `state`, by default the state before the first step, and return its number.

        Raises MemoryError if no slot is free, or no memory is left to make the arena larger.
        """

    def prepare(self, count: int, steps: int) -> None:
        """Allocate what a call of `count` slots and `steps` steps needs. A step does so itself; this takes its time.

        Changes no state. Raises MemoryError.
        """

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        """Advance distinct slots by one step; return the outputs and the named traces.

        inputs: float32 [len(slots), input_size], which are not changed. Outputs: float32 [len(slots), output_size]; a
        trace: [len(slots), ...]. Raises RowsFailed if the outputs or states of some rows are not finite: the other rows
        are stepped. Raises BatchLost if the step fails midway. Any other error leaves all slots as they were.
        """

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name, without the batch axis. Raises StateLost."""

    def copy(self, slot: int) -> "StateCopy":
        """Copy the state in a slot, without waiting where it lies on a device. Raises StateLost and MemoryError."""

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        """Replace the state in a slot, also a lost one. None: the state before the first step."""

    def close(self, slot: int) -> None:
        """Free a slot."""

    def cool(self) -> None:
        """Return the memory of free slots to the system, as far as whole pages of it are free."""

    def may_fail(self, inputs: Array) -> bool:
        """Return whether a step with these inputs, [..., input_size], may yield numbers that are not finite.

        This is about the states that the model can reach by steps; a client may upload a state that it cannot reach.
        """

    def multi_step(self) -> "MultiStepBackend | None":
        """Return this back end if it takes several steps in one call, else None."""

    def prompt(self) -> "PromptBackend | None":
        """Return this back end if its steps are short and never wait, else None."""


class MultiStepBackend(Backend, Protocol):
    """A back end that takes several steps in one call."""

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        """Advance distinct slots by several steps; return the outputs, float32 [len(slots), T, output_size].

        inputs: float32 [len(slots), T, input_size], T at least 1. Raises RowsFailed if some rows are not finite, with
        the failed step of each in `at`; their states are lost, or as before that step. Any other error leaves all slots
        as they were, or is a BatchLost.
        """


class PromptBackend(MultiStepBackend, Protocol):
    """A back end that the event loop's thread may use."""

    @property
    def spare(self) -> int:
        """The number of slots that can be opened before the arena has to grow, which takes long."""


class StateCopy(Protocol):
    """A copy of the state in a slot, which later steps do not change."""

    def send(self) -> None:
        """Begin to bring it to main memory; return at once. Raises MemoryError."""

    def read(self) -> dict[str, Array]:
        """Return its leaves by name, as `Backend.read`; wait until they are in main memory."""


class HostCopy:
    """A copy that is in main memory."""

    def __init__(self, leaves: dict[str, Array]) -> None:
        self._leaves = leaves

    def send(self) -> None:
        """Do nothing."""

    def read(self) -> dict[str, Array]:
        return self._leaves


class RowsFailed(Exception):
    """The outputs or states of some rows of a step are not finite. All other rows were stepped.

    rows: the failed rows. lost: those of them whose states are lost; the states of the others are as before the step.
    outputs, traces: of the step, valid in the rows that did not fail. at: row -> the step at which it failed, from 0,
    if several steps were taken.
    """

    def __init__(
        self,
        rows: Collection[int],
        outputs: Array,
        traces: dict[str, Array],
        lost: Collection[int] = (),
        at: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(f"the outputs or states of rows {sorted(rows)} are not finite")
        self.rows, self.lost = frozenset(rows), frozenset(lost)
        self.outputs, self.traces = outputs, traces
        self.at: Mapping[int, int] = at or {}


class BatchLost(Exception):
    """A step failed midway, and the states in all of its slots are lost. The cause is the error of the step."""


class StateLost(Exception):
    """The state in a slot was lost in a failed step: it can only be replaced, or the slot be freed."""


Step = Callable[[Sequence[int], Array], tuple[Array, dict[str, Array]]]


class Slots:
    """The free, open and lost slots of an arena. Its capacity doubles when all slots are open, up to `max_slots`.

    The free slot with the lowest number is opened first, so that open slots stay close together. A slot whose state is
    lost is marked here, so that no back end steps or reads it.

    A slot is warm if it has memory: the open ones, and until `cool` those that were open before. The system gives an
    arena memory when it is first written to, so a slot that was never open has none.
    """

    def __init__(self, max_slots: int) -> None:
        self._max_slots = max_slots
        self._capacity = 0
        self._free: list[int] = []
        self._taken: set[int] = set()
        self._warm: set[int] = set()
        """Free slots that have memory."""
        self._lost: set[int] = set()

    @property
    def spare(self) -> int:
        """The number of free slots that the arena has memory for."""
        return self._capacity - len(self._taken)

    @property
    def warm(self) -> int:
        """The number of slots that have memory."""
        return len(self._taken) + len(self._warm)

    @property
    def next_is_warm(self) -> bool:
        """Whether the slot that is opened next has memory."""
        return bool(self._free) and self._free[0] in self._warm

    def cool(self, leaves: Iterable[Array]) -> None:
        """Return the memory of free slots to the system, as far as whole pages of it are free.

        leaves: of the arena, [slots, ...] each. A slot stays warm if little of its memory could be returned.
        """
        leaves = list(leaves)
        for slots in runs_of(sorted(self._warm)):
            rows = [leaf[slots.start : slots.stop] for leaf in leaves]
            if sum(map(give_back, rows)) >= MOSTLY * sum(part.nbytes for part in rows):
                self._warm.difference_update(slots)

    def take(self, grow: Callable[[int], None]) -> int:
        """Return the free slot with the lowest number; it is open now.

        grow: called with the new capacity if no slot is free. Raises MemoryError if max_slots are open, or as `grow`.
        """
        if len(self._taken) == self._max_slots:
            raise MemoryError(f"all {self._max_slots} slots of the arena are taken")
        if len(self._taken) == self._capacity:
            capacity = min(max(1, 2 * self._capacity), self._max_slots)
            grow(capacity)
            self._free = list(range(self._capacity, capacity))
            self._capacity = capacity
        slot = heapq.heappop(self._free)
        self._taken.add(slot)
        self._warm.discard(slot)
        return slot

    def give_back(self, slot: int) -> None:
        """Free a slot. Raises KeyError if it is not open."""
        self._taken.remove(slot)
        self._lost.discard(slot)
        self._warm.add(slot)
        heapq.heappush(self._free, slot)

    def open(self, grow: Callable[[int], None], fill: Callable[[int], None]) -> int:
        """Return the free slot with the lowest number, after `fill(slot)`; if that raises, the slot is free again."""
        slot = self.take(grow)
        try:
            fill(slot)
        except BaseException:
            self.give_back(slot)
            raise
        return slot

    def lose(self, slots: Iterable[int]) -> None:
        """Mark the states in these slots as lost."""
        self._lost.update(slots)

    def check(self, slots: Iterable[int]) -> None:
        """Raise StateLost if the state in one of these slots is lost."""
        if self._lost and not self._lost.isdisjoint(slots):
            raise StateLost(f"the states in slots {sorted(self._lost.intersection(slots))} are lost")

    @contextmanager
    def replacing(self, slot: int) -> Iterator[None]:
        """Write a new state to a slot within this context; an error in it loses the state."""
        self._lost.add(slot)
        yield
        self._lost.discard(slot)

    def lost_batch(self, slots: Sequence[int]) -> BatchLost:
        """Mark all slots of a batch whose step failed midway as lost, and return the error to raise."""
        self.lose(slots)
        return BatchLost(f"the states in slots {list(slots)} are lost")

    def end_step(
        self,
        slots: Sequence[int],
        scatter: Callable[[], None],
        failed: Collection[int],
        outputs: Array,
        traces: dict[str, Array],
    ) -> tuple[Array, dict[str, Array]]:
        """Write the next states of a batch with `scatter`, and return its outputs and traces.

        failed: the rows whose slots `scatter` leaves as they were. Raises RowsFailed where there are some, BatchLost
        where `scatter` raises.
        """
        try:
            scatter()
        except Exception as error:
            raise self.lost_batch(slots) from error
        if failed:
            raise RowsFailed(failed, outputs, traces)
        return outputs, traces

    def run_by_steps(self, step: Step, slots: Sequence[int], inputs: Array, output_size: int) -> Array:
        """Advance slots by several calls of `step`, as MultiStepBackend.run does; a row that fails takes no more."""
        outputs = np.empty((*inputs.shape[:2], output_size), np.float32)
        rows, lost, at = list(range(len(slots))), set[int](), dict[int, int]()
        for t in range(inputs.shape[1]):
            try:
                outputs[rows, t], _ = step([slots[row] for row in rows], inputs[rows, t])
            except RowsFailed as error:
                outputs[rows, t] = error.outputs
                at.update({rows[row]: t for row in error.rows})
                lost.update(rows[row] for row in error.lost)
                rows = [row for row in rows if row not in at]
            except Exception as error:
                if t == 0:
                    raise
                raise self.lost_batch(slots) from error
            if not rows:
                break
        if at:
            raise RowsFailed(at.keys(), outputs, {}, lost, at)
        return outputs


def runs_of(numbers: Sequence[int]) -> Iterator[range]:
    """Yield the ranges without a gap in ascending numbers."""
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            yield range(numbers[start], numbers[place - 1] + 1)
            start = place


def longer(values: Array, rows: int) -> Array:
    """Return a copy of `values` that is extended to `rows` rows; the content of the new rows is undefined."""
    result = np.empty((rows, *values.shape[1:]), values.dtype)
    result[: len(values)] = values
    return result


def check_backend(backend: Backend) -> None:
    """Take one step, and one with one memory location more. Raises ManifestError if the results contradict the spec."""
    _check_step(backend)
    memory_size = backend.spec.memory_size
    if memory_size is not None:
        try:
            _check_step(backend.resized(memory_size + 1))
        except Exception as error:
            raise ManifestError(f"with memory_size {memory_size + 1}, which no weight depends on: {error}") from error


def _check_step(backend: Backend) -> None:
    spec = backend.spec
    try:
        slot = backend.open()
        outputs, traces = backend.step([slot], np.zeros((1, spec.input_size), np.float32), list(spec.trace))
        state = backend.read(slot)
        backend.close(slot)
    except Exception as error:
        raise ManifestError(f"it cannot take a step: {type(error).__name__}: {error}") from error
    found = (
        outputs.shape[1],
        {name: (list(leaf.shape), str(leaf.dtype)) for name, leaf in state.items()},
        {name: list(values.shape[1:]) for name, values in traces.items()},
    )
    leaves = {name: (shape, str(spec.dtype(name))) for name, shape in spec.state.items()}
    expected = (spec.output_size, leaves, spec.trace)
    if found != expected:
        raise ManifestError(f"its step gives {found}, but its manifest says {expected}")


def are_ordinary(values: Array) -> bool:
    """Return whether the sum of the squares of all numbers is finite: then each is finite, and below 2e19 in float32.

    For few numbers, this takes a fifth of the time of isfinite.
    """
    return math.isfinite(np.vdot(values, values))


def failed_rows(*arrays: Array) -> list[int]:
    """Return the rows in which any number is not finite. arrays: [B, ...] each."""
    failed: set[int] = set()
    for values in arrays:
        if are_ordinary(values):
            continue
        finite = np.isfinite(values)
        if not finite.all():
            failed.update(np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1)).tolist())
    return sorted(failed)


def other_rows(count: int, rows: Collection[int]) -> list[int]:
    """Return the rows from 0 to `count` that are not in `rows`."""
    return [row for row in range(count) if row not in rows]
