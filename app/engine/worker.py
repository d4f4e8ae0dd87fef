"""The worker of one model: the owner of its back ends.

    inbox --> receive    drain the inbox: run calls, open slots for runs that have none
              schedule   batches of one memory size and force, round robin
              run        the steps that a batch has in common, in one call; a row that fails does so alone
              deliver    outcomes to the event loop; runs with entries go to the journal first, all of a tick together

It has a thread of its own. If the worker is idle and its back end is prompt, the event loop's thread steps short runs
in its place: to hand them over and back would take longer than their steps.
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

from app.backends.base import NUMBER_BYTES, Array, BatchLost, RowsFailed, StateCopy
from app.engine.arenas import Arenas, Slot
from app.engine.run import Outcome, Results, Run, RunRows
from app.engine.scheduler import BATCH_BYTES, ENOUGH_ROWS, GPU_TICK_SECONDS, TICK_SECONDS, Batch, Scheduler
from app.errors import EngramError, NonFiniteOutput, OutOfMemory, StepFailed, StoreFailed
from app.futures import report

logger = logging.getLogger(__name__)

PROMPT_SECONDS = 2e-3
"""Runs that are expected to take at most this long, by earlier measurements, are stepped on the event loop's thread."""

MOST_PROMPT_SECONDS = 2 * PROMPT_SECONDS
"""After this time, the event loop's thread leaves the rest of its runs to the worker's thread."""

MOST_COPIES = 32
"""Copies of states that are made in a tick, at most: a thousand sessions may ask for a snapshot at once."""

PROMPT_BYTES = 2**20
"""Bytes of the states that the event loop's thread opens at a time, at most."""


class EngineObserver(Protocol):
    """Receives the engine's measurements. One thread at a time calls each method, but not always the same thread.

    An error that a method raises is logged and has no other effect.
    """

    def tick(self, batch: int, seconds: float, steps: int) -> None:
        """`batch` sessions took `steps` steps in one call of the back end, which took `seconds`."""

    def batch(self, wait: float, seconds: float) -> None:
        """A batch was stepped and recorded in `seconds`, after its first run had waited for `wait` seconds."""

    def answer(self, commit: float, deliver: float) -> None:
        """Runs or calls were answered `deliver` seconds after their outcomes were known; their commit took `commit`."""

    def failure(self) -> None:
        """A step of one session failed."""


class Journal(Protocol):
    """Writes the entries of finished runs, before the runs are answered."""

    def commit(self, entries: Sequence[Any], done: Callable[[Sequence[EngramError | None]], None]) -> None:
        """Write the entries of runs, and call `done` once, from any thread, with an error or None for each entry.

        `done` may be called before this returns. If this raises, the runs fail with StoreFailed.
        """


class NoJournal:
    """A journal that writes nothing."""

    def commit(self, entries: Sequence[Any], done: Callable[[Sequence[EngramError | None]], None]) -> None:
        done([None] * len(entries))


@dataclass(eq=False)
class ArenaCall:
    """A function that the worker calls with its arenas, between two ticks.

    done: called on the event loop with the result or the error. copies: whether the function returns a StateCopy; the
    result is then the state, read after the next tick, beside which it comes from a device.
    """

    function: Callable[[Arenas], Any]
    done: Callable[[Any], None] | None
    copies: bool = False
    released: bool = False
    logged: Literal[False] = False


Answers = list[tuple[Run | ArenaCall, Any]]
"""Items with their outcomes; None for a run that was abandoned."""


class Loop(Protocol):
    """The event loop's side of the engine. All methods may be called from any thread."""

    def answer(self, answers: Answers) -> None:
        """Deliver outcomes."""

    def commits(self, commit: object) -> None:
        """Note that a commit of the journal has begun; `answer_logged` ends it."""

    def answer_logged(self, commit: object, answers: Answers) -> None:
        """Deliver the outcomes of runs whose commit is done."""

    def recovered(self) -> None:
        """Note that a step which hung has returned."""

    def broken(self, error: EngramError) -> None:
        """Answer all requests with this error: the worker has stopped."""


class Worker:
    """Steps runs. One thread at a time holds `_lock` and steps: its own, or the event loop's in `step_at_once`."""

    def __init__(
        self, name: str, arenas: Arenas, max_batch: int, observer: EngineObserver, journal: Journal | None, loop: Loop
    ) -> None:
        # For any thread
        self._inbox: queue.SimpleQueue[Run | ArenaCall | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._name = name
        self._loop = loop
        self._thread = threading.Thread(target=self._work, name=f"engine {name}", daemon=True)
        # Set by the event loop
        self._given_up = False
        # Set by the worker's thread
        self.busy_since: float | None = None
        """When the current tick began, by the monotonic clock; None while the worker's thread is idle."""
        # Of the thread that holds the lock; the event loop's also reads specifications without it
        self._arenas = arenas
        on_cpu = arenas.first.device == "cpu"
        self._scheduler = Scheduler(
            max_batch,
            lambda size: arenas.spec(size).state_bytes,
            takes_several=arenas.first.multi_step() is not None,
            batch_bytes=BATCH_BYTES if on_cpu else math.inf,
            enough_rows=ENOUGH_ROWS if on_cpu else max_batch,  # on a GPU a step of more rows takes hardly longer
            tick_seconds=TICK_SECONDS if on_cpu else GPU_TICK_SECONDS,
        )
        self._observer = observer
        self._journal = journal or NoJournal()
        self._outcomes: Answers = []
        self._copies: dict[int, StateCopy] = {}
        """Copies of states that belong to outcomes, by the places of these."""
        self._open = True

    # On the event loop

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: Run | ArenaCall) -> None:
        """Hand over a run or a call."""
        self._inbox.put(item)

    def stop(self) -> None:
        """Stop when all items that were handed over before are done."""
        self._inbox.put(None)

    def give_up(self) -> None:
        """Stop after the current tick, and leave all other items undone."""
        self._given_up = True

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end of the thread; return whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def rows_at_once(self, memory_size: int | None) -> int:
        """Return the largest number of sequences of this memory size that are stepped in one batch."""
        return self._scheduler.rows_at_once(memory_size)

    def release(self) -> None:
        """Return the bytes of the arenas to the budget, after the last tick."""
        self._arenas.release()

    @property
    def spare_bytes(self) -> int:
        """The bytes that are held for free slots."""
        return self._arenas.spare_bytes

    def step_bytes(self, memory_size: int | None, trace: Sequence[str]) -> int:
        """Return the bytes of the inputs, outputs and traces of one step of one sequence."""
        spec = self._arenas.spec(memory_size)
        numbers = NUMBER_BYTES * (spec.input_size + spec.output_size)
        return numbers + spec.trace_bytes(trace) if trace else numbers

    def step_at_once(self, runs: Sequence[Run]) -> bool:
        """Step runs now, on the event loop's thread, if they are short and the worker is idle; return whether it did.

        What takes longer than expected is left to the worker's thread.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._scheduler or not self._open or not self._inbox.empty() or not self._is_prompt(runs):
                return False
            self._step_for(MOST_PROMPT_SECONDS, runs)
        except Exception as error:
            self._break(error)
        finally:
            outcomes = self._take_outcomes()
            self._lock.release()
        self._deliver(outcomes)
        return True

    def _step_for(self, seconds: float, runs: Sequence[Run]) -> None:
        """Step runs for at most `seconds`; leave the rest to the worker's thread."""
        end = time.perf_counter() + seconds
        for run in runs:
            if time.perf_counter() < end:
                self._accept(run)
            else:
                self.put(run)
        while self._scheduler and time.perf_counter() < end:
            self._tick()
        if self._scheduler:
            self.put(ArenaCall(_do_nothing, None))  # to wake the thread

    def _is_prompt(self, runs: Sequence[Run]) -> bool:
        """Return whether all runs together are expected to take at most PROMPT_SECONDS."""
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
                if not is_small or not self._arenas.has_spare(opened, run.memory_size, run.force):
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
                with self._lock:
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
        """Drain the inbox, up to MOST_COPIES of states; return whether there are runs to step."""
        with contextlib.suppress(queue.Empty):
            while not self._given_up and len(self._copies) < MOST_COPIES:
                self._take(self._inbox.get_nowait())
        return bool(self._scheduler) and not self._given_up

    def _begin(self) -> None:
        self.busy_since = time.monotonic()

    def _rest(self) -> None:
        """Mark the worker as idle, for the watchdog, after the outcomes of its tick are delivered."""
        self.busy_since = None
        self._loop.recovered()

    def _break(self, error: Exception) -> None:
        logger.error("%s: the engine has stopped", self._name, exc_info=error)
        self._open = False
        self._loop.broken(StepFailed(f"the engine of {self._name} has stopped; the server's log says why"))

    # With the lock

    def _take(self, item: Run | ArenaCall | None) -> None:

        if item is None:
            self._open = False
        elif isinstance(item, ArenaCall):
            self._answer(item)
        else:
            self._accept(item)

    def _answer(self, call: ArenaCall) -> None:
        try:
            outcome = call.function(self._arenas)
            if call.copies:
                self._send(outcome)
        except Exception as error:
            outcome = self._explain(error)
        self._outcomes.append((call, outcome))

    def _accept(self, run: Run) -> None:
        """Allocate the results of a run and, if it has none, its slots; then queue it."""
        try:
            spec = self._arenas.spec(run.memory_size, run.force)
            run.check_and_allocate(spec)
            run.memory_size = spec.memory_size
            if run.slots is None:
                run.slots = self._arenas.open_all(run.rows, run.memory_size, run.start, run.force)
            elif run.steps > 1:
                backend = self._arenas.backend(run.memory_size, run.force)
                if not run.logged or backend.may_fail(run.inputs):
                    run.before = [backend.copy(slot) for slot in run.slots]
        except Exception as error:
            self._outcomes.append((run, self._explain(error)))
        else:
            self._scheduler.add([run])

    def _tick(self) -> None:
        """Schedule batches, run them, and queue the runs that are not finished."""
        batches, abandoned = self._scheduler.next_batches()
        for run in abandoned:
            self._finish(run, None)
        for batch in batches:
            self._run(batch)
        self._scheduler.add([run for batch in batches for run in batch.runs if not run.finished])

    def _run(self, batch: Batch) -> None:
        """Step a batch, and finish the runs that have no steps left."""
        began = time.perf_counter()
        self._step([RunRows(run, run.active) for run in batch.runs], batch.steps)
        for run in batch.runs:
            if not run.position:
                run.began = began
            run.position += batch.steps
            if run.finished:
                self._finish(run, run.outcome)
        ended = time.perf_counter()
        report(self._observer.batch, began - batch.runs[0].since, ended - began)
        for run in batch.runs:
            run.since = ended

    def _step(self, parts: list[RunRows], steps: int) -> None:
        """Step rows of runs of one memory size and force, and record their results; a row that fails does so alone.

        If the whole step failed and no slot has changed, step its halves. If the states are lost, fail all rows.
        """
        memory_size, failed = parts[0].run.memory_size, None
        try:
            self._prepare(parts, steps)
            began = time.perf_counter()
            outputs, traces = self._compute(parts, steps)
        except RowsFailed as error:
            outputs, traces, failed = error.outputs, error.traces, error
        except BatchLost as error:
            for run, rows in parts:
                for row in rows:
                    self._fail(run, row, error.__cause__ or error, lost=True)
            return
        except Exception as error:
            self._step_halves(parts, steps, error)
            return
        seconds = time.perf_counter() - began
        self._scheduler.pace.note(memory_size, len(outputs), steps, seconds)
        report(self._observer.tick, len(outputs), seconds, steps)
        if steps == 1:
            outputs = outputs[:, None]
            traces = {name: values[:, None] for name, values in traces.items()} if traces else traces
        self._record(parts, outputs, traces, failed)

    def _prepare(self, parts: list[RunRows], steps: int) -> None:
        """Allocate what a step needs; on a GPU this may compile, whose time is not that of a step."""
        first = parts[0].run
        self._arenas.backend(first.memory_size, first.force).prepare(sum([len(rows) for _, rows in parts]), steps)

    def _compute(self, parts: list[RunRows], steps: int) -> tuple[Array, dict[str, Array]]:
        """Call the back end; return outputs and traces, [rows, ...] of one step, [rows, steps, ...] of several."""
        slots: list[int] = []
        chosen: list[Array] = []
        names: dict[str, None] = {}
        for run, rows in parts:
            is_whole = len(rows) == run.rows
            slots += run.held if is_whole else [run.held[row] for row in rows]
            chosen.append(run.inputs if is_whole and run.steps == steps else _inputs(run, rows, steps))
            if run.trace:
                names.update(dict.fromkeys(run.trace))
        inputs = chosen[0] if len(chosen) == 1 else np.concatenate(chosen)
        backend = self._arenas.backend(parts[0].run.memory_size, parts[0].run.force)
        if steps > 1 and (multi_step := backend.multi_step()) is not None:
            return multi_step.run(slots, inputs), {}
        return backend.step(slots, inputs[:, 0], list(names))

    def _step_halves(self, parts: list[RunRows], steps: int, error: Exception) -> None:
        """Step the halves of a batch that failed, so that only the rows at fault fail, and a batch too large fits."""
        alone = [RunRows(run, [row]) for run, rows in parts for row in rows]
        if len(alone) == 1:
            self._fail(alone[0].run, alone[0].rows[0], error)
        else:
            middle = len(alone) // 2
            self._step(alone[:middle], steps)
            self._step(alone[middle:], steps)

    def _record(
        self, parts: list[RunRows], outputs: Array, traces: Mapping[str, Array], failed: RowsFailed | None
    ) -> None:
        """Record the outputs and traces of rows that were stepped, and fail the others."""
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
        """Fail those rows of a run that the back end names; `first`: the place in the batch of the run's first row."""
        for number, row in enumerate(rows, first):
            if number in failed.rows:
                self._fail(run, row, failed, number in failed.lost, failed.at.get(number, 0))

    def _fail(self, run: Run, row: int, error: BaseException, lost: bool = False, at: int = 0) -> None:
        """End a sequence whose step failed, and undo the steps before it.

        lost: whether the state in its slot is lost; at: the failed step among those taken in one call, from 0.
        """
        report(self._observer.failure)
        outcome = self._explain(error)
        outcome.more["step_of_sequence"] = run.position + at
        if run.before is not None:
            lost = not self._put_back(run, row, run.before[row])
        if lost or (run.before is None and run.position + at > 0):
            outcome.in_doubt = True
        run.errors[row] = outcome

    def _put_back(self, run: Run, row: int, before: StateCopy) -> bool:
        """Write the state before a run into the slot of a row; return whether that succeeded."""
        try:
            self._arenas.backend(run.memory_size, run.force).write(run.held[row], before.read())
        except Exception:
            logger.exception(
                "%s: the state before a sequence could not be put back; it is computed again from the log", self._name
            )
            return False
        return True

    def _finish(self, run: Run, outcome: Outcome | None) -> None:
        """End a run: read its final state if it asks for it, free the slots that were opened for it, keep the outcome.

        outcome: None of a run that was abandoned.
        """
        if run.keeps_end and outcome is not None and not run.errors:
            try:
                self._send(self._arenas.backend(run.memory_size, run.force).copy(run.held[0]))
            except Exception as error:
                outcome = self._explain(error)
        if run.transient:
            for slot in run.held:
                self._close(Slot(run.memory_size, slot, run.force))
        self._outcomes.append((run, outcome))

    def _close(self, slot: Slot) -> None:
        try:
            self._arenas.close(slot)
        except Exception:
            logger.exception("%s: slot %s could not be freed", self._name, slot)

    def _explain(self, error: BaseException) -> EngramError:
        """Return the error for the client: an EngramError as it is; for any other, one that fits, and log it."""
        if isinstance(error, RowsFailed):
            return NonFiniteOutput(
                "the model's outputs or its state are not finite after this input, and nothing was changed; inputs of "
                "ordinary size avoid this",
                expected="finite outputs",
            )
        if isinstance(error, EngramError):
            return error.with_traceback(None)  # whose frames have the request, and so the future of this error
        if isinstance(error, MemoryError):
            logger.warning("%s: there is not enough memory: %s", self._name, error)
            return OutOfMemory(
                f"not enough memory is left for this request to {self._name}, and nothing was changed: "
                "ask for a smaller memory_size, or try later"
            )
        logger.error("%s: the back end failed", self._name, exc_info=error)
        return StepFailed(f"the back end of {self._name} failed: {type(error).__name__}; nothing was changed")

    def _send(self, copy: StateCopy) -> None:
        """Begin to bring a copy of a state to main memory; it belongs to the next outcome."""
        copy.send()
        self._copies[len(self._outcomes)] = copy

    def _take_outcomes(self) -> Answers:
        """Return the outcomes, with the states that belong to them."""
        outcomes, self._outcomes = self._outcomes, []
        if self._copies:
            copies, self._copies = self._copies, {}
            for place, copy in copies.items():
                item, outcome = outcomes[place]
                outcomes[place] = item, self._with_state(item, outcome, copy)
        return outcomes

    def _with_state(self, item: Run | ArenaCall, outcome: Any, copy: StateCopy) -> Any:
        """Return the outcome of an item with its state: the final one of a run, or what a call has copied."""
        try:
            state = copy.read()
        except Exception as error:
            return self._explain(error)
        if isinstance(item, ArenaCall):
            return state
        item.end = state
        return outcome

    def _deliver(self, outcomes: Answers) -> None:
        """Deliver outcomes; runs with entries go to the journal first, and are delivered after the commit."""
        logged: list[tuple[Run, Results]] = []
        others: Answers = []
        for item, outcome in outcomes:
            if item.logged and isinstance(outcome, Results) and len(item.errors) < item.rows:
                if item.released:  # while a step hung: its client got an error, so its steps do not count
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
            assert run.entries is not None, "a logged run has entries"
            entries += [run.entries[row] for row in run.active] if run.errors else run.entries
        commit = object()
        done = functools.partial(self._deliver_logged, commit, logged)
        self._loop.commits(commit)
        try:
            self._journal.commit(entries, done)
        except Exception:
            logger.exception("%s: the journal failed", self._name)
            done([StoreFailed("the steps could not be written; the server's log says why")] * len(entries))

    def _deliver_logged(
        self, commit: object, logged: list[tuple[Run, Results]], errors: Sequence[EngramError | None]
    ) -> None:
        """Deliver the outcomes of runs whose commit is done, once; called on any thread, by the journal."""
        answers = logged.copy()
        logged.clear()
        if not answers:  # this was called before
            return
        if any(errors):
            rows = [(run, row) for run, _ in answers for row in run.active]
            for (run, row), error in zip(rows, errors, strict=True):
                if error is not None:
                    run.errors[row] = error
        self._loop.answer_logged(commit, [*answers])


def _do_nothing(_: Arenas) -> None:
    """Do nothing: the call itself wakes the worker's thread."""


def _inputs(run: Run, rows: Sequence[int], steps: int) -> Array:
    """Return the next inputs of some rows of a run, [rows, steps, input_size]."""
    inputs = run.inputs[:, run.position : run.position + steps]
    return inputs if len(rows) == run.rows else inputs[list(rows)]
