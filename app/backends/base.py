"""The contract of a back end, and the slots that all of them hand out."""

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest, ManifestError

Array = NDArray[Any]

Shapes = dict[str, list[int]]
"""Shapes by name, without the batch axis."""

Axes = dict[str, list[int | None]]
"""Shapes by name, without the batch axis, for a memory of any size: None stands for the number of its slots."""

NUMBER_BYTES = 4
"""States, inputs, outputs and traces are all float32."""


@dataclass(frozen=True)
class Spec:
    """What goes in and comes out. memory_size is the number of memory slots, None for a model without such a memory."""

    input_size: int
    output_size: int
    memory_size: int | None
    state_axes: Axes
    trace_axes: Axes

    @cached_property
    def state(self) -> Shapes:
        return self._shapes(self.state_axes)

    @cached_property
    def trace(self) -> Shapes:
        return self._shapes(self.trace_axes)

    @cached_property
    def state_bytes(self) -> int:
        return NUMBER_BYTES * sum(map(math.prod, self.state.values()))

    def trace_bytes(self, names: Iterable[str]) -> int:
        """Return the bytes of some traces of one step."""
        return NUMBER_BYTES * sum(math.prod(self.trace[name]) for name in names)

    def resized(self, memory_size: int) -> "Spec":
        """Return what goes in and comes out with another number of memory slots."""
        return replace(self, memory_size=memory_size)

    def _shapes(self, axes: Axes) -> Shapes:
        slots = self.memory_size or 0
        return {name: [slots if size is None else size for size in shape] for name, shape in axes.items()}


def spec_of(manifest: Manifest, state_axes: Axes, trace_axes: Axes) -> Spec:
    """Return the specification of a checkpoint. Raises ManifestError where its manifest contradicts the axes."""
    memory_size = manifest.config.get("memory_size")
    if memory_size is not None and (type(memory_size) is not int or memory_size < 1):
        raise ManifestError(f"config.memory_size must be a whole number of at least 1, got {memory_size!r}")
    spec = Spec(manifest.input_size, manifest.output_size, memory_size, state_axes, trace_axes)
    for name, told, found in (("state", manifest.state, spec.state), ("trace", manifest.trace, spec.trace)):
        if told != found:
            raise ManifestError(f"its manifest says {name} {told}, but the model has {found}")
    return spec


class Backend(Protocol):
    """One model and the states of its sessions, each in a slot of its own. Used by one thread at a time."""

    spec: Spec
    kind: str
    device: str

    def resized(self, memory_size: int) -> "Backend":
        """Return a back end of the same model, with another number of memory slots, and no session yet.

        Both share the weights. Raises MemoryError.
        """

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        """Take a free slot, put `state` into it, or the state before the first step, and return its number.

        Raises MemoryError where there is no room for another.
        """

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        """Advance distinct slots by one step.

        inputs: float32 [len(slots), input_size]. Returns the outputs, float32 [len(slots), output_size], and the
        named traces. Raises RowsFailed where some rows come to numbers that are not finite: the other rows are
        stepped. Raises BatchLost where it fails midway. Any other error leaves all slots as they were.
        """

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name, without the batch axis. Raises StateLost."""

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        """Replace the state in a slot, also a lost one; None is the state before the first step."""

    def close(self, slot: int) -> None:
        """Give a slot back."""

    def may_fail(self, inputs: Array) -> bool:
        """Return whether a step with such inputs, [..., input_size], may come to numbers that are not finite.

        From a state that the model can come to; a client may have made up another.
        """

    def prompt(self) -> "PromptBackend | None":
        """Return this back end where its steps take little time and never wait, else None."""


class PromptBackend(Backend, Protocol):
    """A back end that may be used on the event loop's thread, and that takes several steps in one call."""

    @property
    def spare(self) -> int:
        """The number of slots that can be opened before room is made for more, which takes long."""

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        """Advance distinct slots by several steps. inputs: float32 [len(slots), T, input_size], T at least 1.

        Returns the outputs, float32 [len(slots), T, output_size]. Raises RowsFailed where some rows come to numbers
        that are not finite, with their step in `at`; their states are lost, or as before that step. Any other error
        leaves all slots as they were, or is a BatchLost.
        """


class RowsFailed(Exception):
    """Some rows of a step came to outputs or states that are not finite. All other rows were stepped.

    rows: the failed rows. lost: those of them whose states are lost; the states of the others are as before the step.
    outputs, traces: of the step, valid in the rows that did not fail. at: of several steps, the one at which a row
    failed, counted from 0.
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
    """A step failed midway, and the states in all of its slots are lost. Its cause says why."""


class StateLost(Exception):
    """The state in a slot is lost since a step failed: it can only be replaced, or the slot be given back."""


Step = Callable[[Sequence[int], Array], tuple[Array, dict[str, Array]]]


class Slots:
    """The numbers of free slots, and how many the arena has room for, which doubles when they do not suffice.

    The lowest is taken first, so that the ones in use stay close together. Slots whose states are lost are known here,
    so that no back end steps or reads one.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._room = 0
        self._free: list[int] = []
        self._taken: set[int] = set()
        self._lost: set[int] = set()

    @property
    def spare(self) -> int:
        """The number of free slots that the arena has room for."""
        return self._room - len(self._taken)

    def take(self, grow: Callable[[int], None]) -> int:
        """Return the lowest free slot, after `grow(room)` where the arena has no room for it; it may raise."""
        if len(self._taken) == self._capacity:
            raise MemoryError(f"all {self._capacity} slots of the arena are taken")
        if len(self._taken) == self._room:
            room = min(max(1, 2 * self._room), self._capacity)
            grow(room)
            self._free = list(range(self._room, room))
            self._room = room
        slot = heapq.heappop(self._free)
        self._taken.add(slot)
        return slot

    def give_back(self, slot: int) -> None:
        self._taken.remove(slot)
        self._lost.discard(slot)
        heapq.heappush(self._free, slot)

    def open(self, grow: Callable[[int], None], fill: Callable[[int], None]) -> int:
        """Return the lowest free slot after `fill(slot)`; where that raises, the slot is free again."""
        slot = self.take(grow)
        try:
            fill(slot)
        except BaseException:
            self.give_back(slot)
            raise
        return slot

    def lose(self, slots: Iterable[int]) -> None:
        """Note that the states in some slots are lost."""
        self._lost.update(slots)

    def check(self, slots: Iterable[int]) -> None:
        """Raise StateLost where the state in one of these slots is lost."""
        if self._lost and not self._lost.isdisjoint(slots):
            raise StateLost(f"the states in slots {sorted(self._lost.intersection(slots))} are lost")

    @contextmanager
    def replacing(self, slot: int) -> Iterator[None]:
        """Put a new state into a slot; an error midway loses it."""
        self._lost.add(slot)
        yield
        self._lost.discard(slot)

    def lost_batch(self, slots: Sequence[int]) -> BatchLost:
        """Note that a step of some slots failed midway, and return the error to raise."""
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
        """Advance slots by several steps, one by one, as PromptBackend.run; a row that fails takes no more."""
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


def longer(values: Array, rows: int) -> Array:
    """Return `values` with room for so many rows; what the new ones hold is undefined."""
    result = np.empty((rows, *values.shape[1:]), values.dtype)
    result[: len(values)] = values
    return result


def check_backend(backend: Backend) -> None:
    """Take one step, and one with a memory slot more, and compare what comes with the specifications.

    Raises ManifestError.
    """
    _check_step(backend)
    memory_size = backend.spec.memory_size
    if memory_size is not None:
        try:
            _check_step(backend.resized(memory_size + 1))
        except Exception as error:
            raise ManifestError(f"with {memory_size + 1} memory slots, which no weight depends on: {error}") from error


def _check_step(backend: Backend) -> None:
    spec = backend.spec
    try:
        slot = backend.open()
        outputs, traces = backend.step([slot], np.zeros((1, spec.input_size), np.float32), list(spec.trace))
        state = backend.read(slot)
        backend.close(slot)
    except Exception as error:
        raise ManifestError(f"it cannot take a step: {type(error).__name__}: {error}") from error
    came = (
        outputs.shape[1],
        {name: list(leaf.shape) for name, leaf in state.items()},
        {name: list(values.shape[1:]) for name, values in traces.items()},
    )
    expected = (spec.output_size, spec.state, spec.trace)
    if came != expected:
        raise ManifestError(f"its step gives {came}, but its manifest says {expected}")


def are_ordinary(values: Array) -> bool:
    """Return whether the squares of all numbers have a finite sum: then each is finite, and below 2e19 in float32.

    It takes a fifth of the time of isfinite for few numbers.
    """
    return math.isfinite(np.vdot(values, values))


def failed_rows(*arrays: Array) -> list[int]:
    """Return the rows in which some number is not finite. arrays: [B, ...] each."""
    failed: set[int] = set()
    for values in arrays:
        if are_ordinary(values):
            continue
        finite = np.isfinite(values)
        if not finite.all():
            failed.update(np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1)).tolist())
    return sorted(failed)


def other_rows(count: int, rows: Collection[int]) -> list[int]:
    """Return the rows from 0 to `count` that are not among some."""
    return [row for row in range(count) if row not in rows]
