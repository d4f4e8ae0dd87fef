"""Run a graph before it is believed: every form beside the file itself, each row beside itself alone.

The file alone is onnxruntime's own loop over the file as it came, one row at a time. A form is run with 1, 2, 5 and 64
rows over 100 steps of random inputs and of zeros, each from its own states. Then one row is stepped again and again
among strangers that differ: its bits must not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.manifest import GraphForm
from training.graphs.alone import Array, FileAlone, Step
from training.graphs.spec import GraphSpec, Part
from training.graphs.wrap import Signature
from training.importers.variables import ImportFailed
from training.runtime import first_line, open_session

STEPS = 100
BATCHES = (1, 2, 5, 64)
TOLERANCE = 1e-4
"""The largest difference from the file alone that is rounding, relative to the largest number of the row if above 1."""

HALF_TOLERANCE = 1e-2
"""The same of graphs of float16, whose numbers have 11 binary digits."""

TIMED = 20
"""Steps of which the duration is the median."""

MOST_BYTES = 2**28
"""Bytes of states and inputs of a batch of the check; batches of more rows, but for two, are left out."""

STRANGERS = 5
"""The rows, at most, of a batch in which strangers change."""

STRANGE_STEPS = (1, STEPS // 2)
"""Steps before which rows meet strangers: also the first, before a batch that differs is given up."""

STRANGE = 1e4
"""A size of strangers' inputs and states."""


class FormFailed(Exception):
    """A form that does not run, or does not agree with the file alone; the message says why."""


class RowsSeen(FormFailed):
    """A form in which a row can be seen in another."""


@dataclass(frozen=True)
class Verdict:
    """A form that agrees with the file alone.

    rows: the numbers of rows that were verified.
    difference: the largest one, relative to the largest number of the row if above 1; 0: equal to the bit.
    overflow: the first of the random steps at which the file alone was not finite either, or 0.
    microseconds: of a step, by the number of rows.
    """

    form: GraphForm
    rows: tuple[int, ...]
    difference: float
    overflow: int
    microseconds: dict[int, float]


class WrittenGraph:
    """A graph in one of its forms, run as the server's back end runs it."""

    def __init__(self, data: bytes, form: GraphForm, signature: Signature) -> None:
        """Raises FormFailed if onnxruntime cannot load it."""
        self.form = form
        self._signature = signature
        try:
            self._session = open_session(data)
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise FormFailed(f"onnxruntime cannot load it: {first_line(error)}") from error

    @property
    def row_bytes(self) -> int:
        """The bytes of the state and the inputs of a row."""
        return 4 * self._signature.input_size + sum(leaf.nbytes for leaf in self._signature.first.values())

    def first(self, rows: int) -> dict[str, Array]:
        """Return the state before the first step, for some rows."""
        return {name: np.repeat(value[np.newaxis], rows, 0) for name, value in self._signature.first.items()}

    def step(self, inputs: Array, state: Mapping[str, Array]) -> Step:
        """Take a step. inputs: [B, I]. Raises FormFailed."""
        try:
            if self.form == "loop":
                values = [self._run(inputs[[row]], _rows(state, [row])) for row in range(len(inputs))]
                joined = [np.concatenate(tensors) for tensors in zip(*values, strict=True)]
            else:
                joined = self._run(inputs, state)
        except Exception as error:  # as above
            raise FormFailed(f"it does not take a step of {len(inputs)} rows: {first_line(error)}") from error
        if any(len(tensor) != len(inputs) for tensor in joined):
            shapes = ", ".join(str(list(tensor.shape)) for tensor in joined)
            raise FormFailed(f"it gives other numbers of rows than {len(inputs)}: tensors of the shapes {shapes}")
        outputs, *rest = joined
        leaves, traces = rest[: len(state)], rest[len(state) :]
        names = self._signature.state, self._signature.trace
        return Step(outputs, dict(zip(names[0], leaves, strict=True)), dict(zip(names[1], traces, strict=True)))

    def _run(self, inputs: Array, state: Mapping[str, Array]) -> list[Array]:
        feed = {f"state.{name}": leaf for name, leaf in state.items()}
        results: list[Array] = self._session.run(None, {"inputs": inputs, **feed})
        return results


def verify(graph: WrittenGraph, alone: FileAlone, after_step: Callable[[int, int], object]) -> Verdict:
    """Run a form beside the file alone.

    Raises FormFailed, RowsSeen, or ImportFailed if the file itself is not finite on zeros.

    after_step: called with the steps done and their total.
    """
    difference, overflow = 0.0, 0
    for number, drawn in enumerate((True, False)):
        course = Course(graph, alone, drawn)
        for count in range(1, STEPS + 1):
            if course.drawn and graph.form == "batched" and count in STRANGE_STEPS:
                course.meet_strangers()
            difference = max(difference, course.take_step(count))
            if course.overflows and not course.drawn:
                raise ImportFailed(f"{alone.spec.where}: its numbers are not finite after {count} steps of zeros")
            if course.overflows and not overflow:
                overflow = count
            after_step(number * STEPS + count, 2 * STEPS)
    rows = batches_of(graph)
    costs = {batch: _microseconds(graph, alone.spec, batch) for batch in (1, max(rows))}
    return Verdict(graph.form, rows, difference, overflow, costs)


def batches_of(graph: WrittenGraph) -> tuple[int, ...]:
    """Return the numbers of rows to verify: those of BATCHES whose states fit in MOST_BYTES, and always 1 and 2."""
    return tuple(batch for batch in BATCHES if batch <= 2 or batch * graph.row_bytes <= MOST_BYTES)


class Course:
    """A form and the file alone side by side, each from its own states, over random inputs or over zeros."""

    def __init__(self, graph: WrittenGraph, alone: FileAlone, drawn: bool) -> None:
        self.drawn, self.overflows = drawn, False
        self._graph, self._alone = graph, alone
        self._tolerance = HALF_TOLERANCE if alone.is_half else TOLERANCE
        self._batches = batches_of(graph)
        self._rows = max(self._batches) if drawn else 1  # with zeros, all rows are equal
        self._generator = np.random.default_rng(0)
        self._theirs = [alone.first() for _ in range(self._rows)]
        self._ours = {batch: graph.first(batch) for batch in self._batches}

    def take_step(self, count: int) -> float:
        """Take a step of every batch and of each row alone; return their largest difference. Raises FormFailed."""
        inputs = self._inputs()
        steps = [self._alone.step(inputs[[row]], self._theirs[row]) for row in range(self._rows)]
        self._theirs = [step.state for step in steps]
        expected, difference = joined(steps), 0.0
        self.overflows = not _finite(expected)
        for batch in self._batches:
            chosen = np.arange(batch) % self._rows
            came = self._graph.step(inputs[chosen], self._ours[batch])
            self._ours[batch] = came.state
            difference = max(difference, _compare(came, expected, chosen, count, self._tolerance))
        return difference

    def meet_strangers(self) -> None:
        """Raise RowsSeen if the bits of a row depend on the rows beside it."""
        rows = max(batch for batch in self._batches if batch <= STRANGERS)
        inputs = draw_inputs(self._alone.spec, rows, self._generator)
        _check_strangers(self._graph, inputs, self._ours[rows], self._alone.free_columns())

    def _inputs(self) -> Array:
        if self.drawn:
            return draw_inputs(self._alone.spec, self._rows, self._generator)
        return np.zeros((1, self._alone.spec.input_size), np.float32)


def joined(steps: Sequence[Step]) -> Step:
    """Return the results of steps of one row each as those of a batch."""
    first = steps[0]
    return Step(
        np.concatenate([step.outputs for step in steps]),
        {name: np.concatenate([step.state[name] for step in steps]) for name in first.state},
        {name: np.concatenate([step.trace[name] for step in steps]) for name in first.trace},
    )


def draw_inputs(spec: GraphSpec, rows: int, generator: np.random.Generator) -> Array:
    """Return random inputs, float32 [rows, I]: within the range or the vocabulary of each part, else normal."""
    return np.concatenate([_draw(part, rows, generator) for part in spec.inputs], 1).astype(np.float32)


def _draw(part: Part, rows: int, generator: np.random.Generator) -> Array:
    shape = rows, part.numbers
    if part.vocabulary:
        return generator.integers(0, part.vocabulary, shape)
    if part.range:
        return generator.uniform(*part.range, shape)
    return generator.standard_normal(shape)


def _finite(step: Step) -> bool:
    return all(bool(np.isfinite(value).all()) for value in step.tensors().values())


def _rows(state: Mapping[str, Array], rows: Sequence[int]) -> dict[str, Array]:
    return {name: leaf[rows] for name, leaf in state.items()}


def _compare(came: Step, expected: Step, rows: Array, count: int, tolerance: float) -> float:
    """Return the largest relative difference of a step from that of the file alone. Raises FormFailed."""
    worst = 0.0
    for (name, ours), theirs in zip(came.tensors().items(), expected.tensors().values(), strict=True):
        due = theirs[rows]
        if ours.shape != due.shape:
            raise FormFailed(
                f"{name} has the shape {list(ours.shape)} with {len(rows)} rows, expected {list(due.shape)}"
            )
        if ours.tobytes() == due.tobytes():
            continue
        difference = _difference(ours, due)
        if not difference <= tolerance:
            raise FormFailed(
                f"{name} differs by {difference:.2g} from the row alone, at step {count} of {len(rows)} rows; at most "
                f"{tolerance:g} was expected"
            )
        worst = max(worst, difference)
    return worst


def _difference(ours: Array, theirs: Array) -> float:
    """Return the largest difference, relative to the row's largest number if above 1; 0 where both are not finite."""
    ours, theirs = (value.reshape(len(value), -1).astype(np.float64) for value in (ours, theirs))
    both = ~np.isfinite(ours) & ~np.isfinite(theirs)
    ours, theirs = (np.where(both, 0, value) for value in (ours, theirs))
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.maximum(1, np.abs(theirs).max(1, keepdims=True, initial=0))
        difference = np.abs(ours - theirs) / scale
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0))


def _check_strangers(graph: WrittenGraph, inputs: Array, state: Mapping[str, Array], free: Array) -> None:
    """Raise RowsSeen if the bits of a row depend on the rows beside it. free: the columns of the inputs that may be
    any number."""
    plain = graph.step(inputs, state)
    for kind, strange_inputs, strange_state in _strangers(inputs, state, free):
        for row in range(0, len(inputs), 2):
            others = [other for other in range(len(inputs)) if other != row]
            mixed_inputs, mixed_state = inputs.copy(), {name: leaf.copy() for name, leaf in state.items()}
            mixed_inputs[others] = strange_inputs[others]
            for name, leaf in mixed_state.items():
                leaf[others] = strange_state[name][others]
            came = graph.step(mixed_inputs, mixed_state)
            for (name, one), other in zip(plain.tensors().items(), came.tensors().values(), strict=True):
                if one[row].tobytes() != other[row].tobytes():
                    raise RowsSeen(
                        f"{name} of a row changes by {_difference(other[[row]], one[[row]]):.2g} when those beside it "
                        f"{kind}"
                    )


def _strangers(inputs: Array, state: Mapping[str, Array], free: Array) -> Iterator[tuple[str, Array, dict[str, Array]]]:
    """Yield inputs and states for strangers, and what is strange of them, in words."""
    order = [*range(1, len(inputs)), 0]
    yield "have others' inputs and states", inputs[order], {name: leaf[order] for name, leaf in state.items()}
    for kind, value in ((f"are {STRANGE:g}", STRANGE), ("are NaN", np.nan)):
        leaves = {name: np.full_like(leaf, value) if leaf.dtype.kind == "f" else leaf for name, leaf in state.items()}
        yield kind, np.where(free, np.float32(value), inputs), leaves


def _microseconds(graph: WrittenGraph, spec: GraphSpec, batch: int) -> float:
    """Return the median duration of a step in microseconds."""
    inputs, state = draw_inputs(spec, batch, np.random.default_rng(0)), graph.first(batch)
    durations = []
    for _ in range(TIMED):
        before = time.perf_counter()
        state = graph.step(inputs, state).state
        durations.append(time.perf_counter() - before)
    return 1e6 * float(np.median(durations))
