"""The worker of one model: the only one who touches its back ends.

    inbox --> receive    take what has come: calls are answered at once, runs take their slots
              schedule   batches of one memory size, round robin
              run        the steps that a batch has in common, in one call; a row that fails does so alone
              deliver    outcomes to the event loop; what is to be logged, of all in a tick, goes by the journal

It has a thread of its own. Sequences that take little time are also stepped on the event loop's thread, where the
worker is idle and its back end says that it is prompt: to hand them over and back takes longer than their steps.
"""

import contextlib
import functools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from app.backends.base import NUMBER_BYTES, Array, BatchLost, RowsFailed
from app.engine.arenas import Arenas, Slot
from app.engine.run import Outcome, Part, Results, Run
from app.engine.scheduler import Batch, Scheduler
from app.errors import EngramError, NonFiniteOutput, OutOfMemory, StepFailed, StoreFailed
from app.futures import report

logger = logging.getLogger(__name__)

PROMPT_SECONDS = 2e-3
"""Work that takes no longer, by what was measured, may be done on the event loop's thread."""

MOST_PROMPT_SECONDS = 2 * PROMPT_SECONDS
"""Work on the event loop's thread that has lasted so long is left to the worker's: it was expected to take less."""

PROMPT_BYTES = 2**20
"""States that may be written on the event loop's thread, together."""


class Observer(Protocol):
    """What the engine reports to. Each method is called by one thread at a time, but not always by the same one."""

    def tick(self, batch: int, seconds: float, steps: int) -> None:
        """A batch of sessions took some steps in so much time."""

    def batch(self, wait: float, seconds: float) -> None:
        """A batch was stepped, in so many seconds with all that belongs to it, after its first run waited so long."""

    def answer(self, commit: float, deliver: float) -> None:
        """Some were answered: what they wait for was committed in so many seconds, and then took so long to them."""

    def failure(self) -> None:
        """A step of one session failed."""


class Journal(Protocol):
    """Where finished runs are written before anyone is told of them."""

    def commit(self, entries: Sequence[Any], done: Callable[[Sequence[EngramError | None]], None]) -> None:
        """Write the entries of runs; `done` is called once, from any thread, with an error for each, or None."""


class NoJournal:
    """Writes nothing."""

    def commit(self, entries: Sequence[Any], done: Callable[[Sequence[EngramError | None]], None]) -> None:
        done([None] * len(entries))


@dataclass(eq=False)
class Call:
    """Something to do with the back ends between two ticks. done: called on the event loop with what it returns."""

    function: Callable[[Arenas], Any]
    done: Callable[[Any], None] | None
    released: bool = False
    logged: Literal[False] = False


Answers = list[tuple[Run | Call, Any]]
"""Outcomes; None where the worker only lets go of a run."""


class Loop(Protocol):
    """The event loop's side of the engine; all of it may be called from any thread."""

    def answer(self, answers: Answers) -> None:
        """Pass outcomes on."""

    def commits(self, commit: object) -> None:
        """Note that the journal has entries to write, until `answer_logged`."""

    def answer_logged(self, commit: object, answers: Answers) -> None:
        """Pass on the outcomes of runs that the journal was given."""

    def recovered(self) -> None:
        """The tick that took so long is over."""

    def broken(self, error: EngramError) -> None:
        """The worker has stopped."""


class Worker:
    """Steps runs. Only one thread at a time is in it: its own, or the event loop's in `step_at_once`."""

    def __init__(
        self, name: str, arenas: Arenas, max_batch: int, observer: Observer, journal: Journal | None, loop: Loop
    ) -> None:
        # For any thread
        self._inbox: queue.SimpleQueue[Run | Call | None] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._name = name
        self._loop = loop
        self._thread = threading.Thread(target=self._work, name=f"engine {name}", daemon=True)
        # Set by the event loop
        self._given_up = False
        # Set by the worker's thread
        self.busy_since: float | None = None
        """When the worker's thread began what it is at, by the monotonic clock."""
        # Whose turn it is
        self._arenas = arenas
        self._scheduler = Scheduler(
            max_batch, lambda size: arenas.spec(size).state_bytes, arenas.first.prompt() is not None
        )
        self._observer = observer
        self._journal = journal or NoJournal()
        self._outcomes: Answers = []
        self._open = True

    # On the event loop

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: Run | Call) -> None:
        """Hand over something to do."""
        self._inbox.put(item)

    def stop(self) -> None:
        """Stop when all is done that was handed over before."""
        self._inbox.put(None)

    def give_up(self) -> None:
        """Leave what is not done."""
        self._given_up = True

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; return whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def rows_at_once(self, memory_size: int | None) -> int:
        """Return how many sequences with states of this size are stepped at once, at most."""
        return self._scheduler.rows_at_once(memory_size)

    def step_bytes(self, memory_size: int | None, trace: Sequence[str]) -> int:
        """Return the bytes of the inputs, outputs and traces of a step."""
        spec = self._arenas.spec(memory_size)
        numbers = NUMBER_BYTES * (spec.input_size + spec.output_size)
        return numbers + spec.trace_bytes(trace) if trace else numbers

    def step_at_once(self, runs: Sequence[Run]) -> bool:
        """Take the steps of some runs now, if that takes little time and the worker is idle; return whether it did."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if self._scheduler or not self._open or not self._inbox.empty() or not self._is_prompt(runs):
                return False
            self._step_for(MOST_PROMPT_SECONDS, runs)
        except Exception as error:
            self._break(error)
        finally:
            outcomes = self._take_outcomes()
            self._turn.release()
        self._deliver(outcomes)
        return True

    def _step_for(self, seconds: float, runs: Sequence[Run]) -> None:
        """Take steps of some runs until the time is over; the worker's thread goes on with what is left."""
        end = time.perf_counter() + seconds
        for run in runs:
            if time.perf_counter() < end:
                self._accept(run)
            else:
                self.put(run)
        while self._scheduler and time.perf_counter() < end:
            self._tick()
        if self._scheduler:
            self.put(Call(_do_nothing, None))  # which wakes the thread

    def _is_prompt(self, runs: Sequence[Run]) -> bool:
        """Return whether the steps of some runs take little time."""
        first = self._arenas.first
        if first.prompt() is None:
            return False
        seconds, opened, pace = 0.0, 0, self._scheduler.pace
        rows = min(sum([run.rows for run in runs]), self._scheduler.rows_at_once(None))
        for run in runs:
            spec = first.spec if run.memory_size is None else self._arenas.spec(run.memory_size)
            if run.transient:
                opened += run.rows
                is_small = run.start is None and spec.state_bytes * opened <= PROMPT_BYTES
                if not is_small or not self._arenas.has_spare(opened, run.memory_size):
                    return False
            step = pace.seconds(spec.memory_size, rows)
            seconds += math.inf if step is None else step * run.rows * run.steps
            if seconds > PROMPT_SECONDS:
                return False
        return True

    # On the worker's thread

    def _work(self) -> None:
        try:
            while self._open and not self._given_up:
                item = self._inbox.get()
                with self._turn:
                    self._begin()
                    self._take(item)
                    while self._receive():
                        self._tick()
                        self._deliver(self._take_outcomes())
                        self._rest()
                        self._begin()
                    self._deliver(self._take_outcomes())
                self._rest()
        except Exception as error:
            self._break(error)

    def _receive(self) -> bool:
        """Take all that has come; return whether there are steps to take."""
        with contextlib.suppress(queue.Empty):
            while not self._given_up:
                self._take(self._inbox.get_nowait())
        return bool(self._scheduler) and not self._given_up

    def _begin(self) -> None:
        self.busy_since = time.monotonic()

    def _rest(self) -> None:
        """Note that the worker is idle, after what it finished is on its way."""
        self.busy_since = None
        self._loop.recovered()

    def _break(self, error: Exception) -> None:
        logger.error("%s: the engine has stopped", self._name, exc_info=error)
        self._open = False
        self._loop.broken(StepFailed(f"the engine of {self._name} has stopped; the server's log says why"))

    # In the turn

    def _take(self, item: Run | Call | None) -> None:
        if item is None:
            self._open = False
        elif isinstance(item, Call):
            self._answer(item)
        else:
            self._accept(item)

    def _answer(self, call: Call) -> None:
        try:
            outcome = call.function(self._arenas)
        except Exception as error:
            outcome = self._explain(error)
        self._outcomes.append((call, outcome))

    def _accept(self, run: Run) -> None:
        """Make room for a run, and queue it."""
        try:
            spec = self._arenas.spec(run.memory_size)
            run.check_and_make_room(spec)
            run.memory_size = spec.memory_size
            if run.slots is None:
                run.slots = self._arenas.open_all(run.rows, run.memory_size, run.start)
            elif run.steps > 1:
                backend = self._arenas.backend(run.memory_size)
                if not run.logged or backend.may_fail(run.inputs):
                    run.before = [backend.read(slot) for slot in run.slots]
        except Exception as error:
            self._outcomes.append((run, self._explain(error)))
        else:
            self._scheduler.add([run])

    def _tick(self) -> None:
        """Schedule, and run."""
        batches, abandoned = self._scheduler.next_batches()
        for run in abandoned:
            self._finish(run, None)
        for batch in batches:
            self._run(batch)
        self._scheduler.add([run for batch in batches for run in batch.runs if not run.finished])

    def _run(self, batch: Batch) -> None:
        """Take the steps of a batch, and end the runs that are finished."""
        began = time.perf_counter()
        self._step([Part(run, run.active) for run in batch.runs], batch.steps)
        for run in batch.runs:
            run.position += batch.steps
            if run.finished:
                self._finish(run, run.outcome)
        ended = time.perf_counter()
        report(self._observer.batch, began - batch.runs[0].since, ended - began)
        for run in batch.runs:
            run.since = ended

    def _step(self, parts: list[Part], steps: int) -> None:
        """Step the rows of runs of one memory size; a row that fails does so alone.

        Where the step failed as a whole, each row is stepped alone if no slot has changed. If the states are lost, no
        row is stepped again.
        """
        memory_size, failed = parts[0].run.memory_size, None
        began = time.perf_counter()
        try:
            outputs, traces = self._compute(parts, steps)
        except RowsFailed as error:
            outputs, traces, failed = error.outputs, error.traces, error
        except BatchLost as error:
            for run, rows in parts:
                for row in rows:
                    self._fail(run, row, error.__cause__ or error, lost=True)
            return
        except Exception as error:
            self._step_alone(parts, steps, error)
            return
        seconds = time.perf_counter() - began
        self._scheduler.pace.note(memory_size, len(outputs), steps, seconds)
        report(self._observer.tick, len(outputs), seconds, steps)
        if steps == 1:
            outputs = outputs[:, None]
            traces = {name: values[:, None] for name, values in traces.items()} if traces else traces
        self._record(parts, outputs, traces, failed)

    def _compute(self, parts: list[Part], steps: int) -> tuple[Array, dict[str, Array]]:
        """Return outputs and traces, [rows, ...] of one step, [rows, steps, ...] of several."""
        slots: list[int] = []
        taken: list[Array] = []
        names: dict[str, None] = {}
        for run, rows in parts:
            is_whole = len(rows) == run.rows
            slots += run.held if is_whole else [run.held[row] for row in rows]
            taken.append(run.inputs if is_whole and run.steps == steps else _inputs(run, rows, steps))
            if run.trace:
                names.update(dict.fromkeys(run.trace))
        inputs = taken[0] if len(taken) == 1 else np.concatenate(taken)
        backend = self._arenas.backend(parts[0].run.memory_size)
        if steps > 1 and (prompt := backend.prompt()) is not None:
            return prompt.run(slots, inputs), {}
        return backend.step(slots, inputs[:, 0], list(names))

    def _step_alone(self, parts: list[Part], steps: int, error: Exception) -> None:
        """Step rows one by one after their batch failed with an error, so that only those at fault fail."""
        alone = [Part(run, [row]) for run, rows in parts for row in rows]
        if len(alone) == 1:
            self._fail(alone[0].run, alone[0].rows[0], error)
        else:
            for part in alone:
                self._step([part], steps)

    def _record(
        self, parts: list[Part], outputs: Array, traces: Mapping[str, Array], failed: RowsFailed | None
    ) -> None:
        """Keep the outputs and traces of rows that were stepped, and fail the others."""
        first = 0
        for run, rows in parts:
            end = first + len(rows)
            own = {name: values[first:end] for name, values in traces.items()} if traces else traces
            try:
                run.record(rows, outputs[first:end], own)
            except Exception as error:
                for row in rows:
                    self._fail(run, row, error, lost=True)
            else:
                if failed is not None:
                    self._fail_rows(run, rows, first, failed)
            first = end

    def _fail_rows(self, run: Run, rows: Sequence[int], first: int, failed: RowsFailed) -> None:
        """Fail the rows of a run, which are those from `first` on of its batch, that the back end names."""
        for number, row in enumerate(rows, first):
            if number in failed.rows:
                self._fail(run, row, failed, number in failed.lost, failed.at.get(number, 0))

    def _fail(self, run: Run, row: int, error: BaseException, lost: bool = False, at: int = 0) -> None:
        """End a sequence whose step failed, and undo the steps before it.

        lost: whether its slot's state is lost; at: the failed step, of those that were taken together.
        """
        report(self._observer.failure)
        outcome = self._explain(error)
        outcome.more["step_of_sequence"] = run.position + at
        if run.before is not None:
            lost = not self._put_back(run, row, run.before[row])
        if lost or (run.before is None and run.position + at > 0):
            outcome.unsettled = True
        run.errors[row] = outcome

    def _put_back(self, run: Run, row: int, state: Mapping[str, Array]) -> bool:
        """Put a state into the slot of a sequence; return whether it could be."""
        try:
            self._arenas.backend(run.memory_size).write(run.held[row], state)
        except Exception:
            logger.exception("%s: the state before a sequence could not be put back, and is computed anew", self._name)
            return False
        return True

    def _finish(self, run: Run, outcome: Outcome | None) -> None:
        if run.keeps_end and outcome is not None and not run.errors:
            try:
                run.end = self._arenas.backend(run.memory_size).read(run.held[0])
            except Exception as error:
                outcome = self._explain(error)
        if run.transient:
            for slot in run.held:
                self._close(Slot(run.memory_size, slot))
        self._outcomes.append((run, outcome))

    def _close(self, slot: Slot) -> None:
        try:
            self._arenas.close(slot)
        except Exception:
            logger.exception("%s: slot %s could not be given back", self._name, slot)

    def _explain(self, error: BaseException) -> EngramError:
        """Return an error for the client: our own as it is, others as what they mean, with an entry in the log."""
        if isinstance(error, RowsFailed):
            return NonFiniteOutput(
                "the model's outputs or its state are not finite after this input, and nothing was changed; inputs of "
                "ordinary size avoid this",
                expected="finite outputs",
            )
        if isinstance(error, EngramError):
            return error
        if isinstance(error, MemoryError):
            logger.warning("%s: there is not enough memory: %s", self._name, error)
            return OutOfMemory(
                f"not enough memory is left to do this with {self._name}, and nothing was changed: "
                "ask for a smaller memory_size, or try later"
            )
        logger.error("%s: the back end failed", self._name, exc_info=error)
        return StepFailed(f"the back end of {self._name} failed: {type(error).__name__}; nothing was changed")

    def _take_outcomes(self) -> Answers:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _deliver(self, outcomes: Answers) -> None:
        """Pass outcomes on; those with entries go to the journal first, which passes them on when it has written."""
        logged: list[tuple[Run, Results]] = []
        others: Answers = []
        for item, outcome in outcomes:
            if item.logged and isinstance(outcome, Results) and len(item.errors) < item.rows:
                if item.released:  # while a step hung: for whoever waited, its steps were not taken
                    others.append((item, None))
                else:
                    logged.append((item, outcome))
            else:
                others.append((item, outcome))
        if others:
            self._loop.answer(others)
        if logged:
            self._log(logged)

    def _log(self, logged: list[tuple[Run, Results]]) -> None:
        entries: list[Any] = []
        for run, _ in logged:
            assert run.entries is not None, "what is logged has entries"
            entries += [run.entries[row] for row in run.active] if run.errors else run.entries
        commit = object()
        done = functools.partial(self._deliver_logged, commit, logged)
        self._loop.commits(commit)
        try:
            self._journal.commit(entries, done)
        except Exception:
            logger.exception("%s: the journal failed", self._name)
            done([StoreFailed("what was done could not be written; the server's log says why")] * len(entries))

    def _deliver_logged(
        self, commit: object, logged: list[tuple[Run, Results]], errors: Sequence[EngramError | None]
    ) -> None:
        """Pass on the outcomes of runs that were logged, from whatever thread the journal is in."""
        if any(errors):
            rows = [(run, row) for run, _ in logged for row in run.active]
            for (run, row), error in zip(rows, errors, strict=True):
                if error is not None:
                    run.errors[row] = error
        self._loop.answer_logged(commit, [*logged])


def _do_nothing(_: Arenas) -> None:
    """Be something to do."""


def _inputs(run: Run, rows: Sequence[int], steps: int) -> Array:
    """Return the next inputs of some rows of a run, [rows, steps, input_size]."""
    inputs = run.inputs[:, run.position : run.position + steps]
    return inputs if len(rows) == run.rows else inputs[list(rows)]
