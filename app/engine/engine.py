"""The engine of one model: continuous batching over all of its sessions.

    event loop                          worker thread, owner of the back ends
    ----------                          -------------------------------------
    run(), infer() --- Run ---.         loop:
    open(), read() --- Call --+-> inbox   take what has come: calls are answered at once, runs are queued
    close() -------- sentinel-'           schedule   up to max_batch runs, round robin
                                          run        one batched step of each memory size among them
    futures <---- call_soon_threadsafe -- deliver    a result or an exception to everyone who is done
         ^-------- journal --------------'           what is to be logged, of all in a tick, goes by the journal

Sequences join and leave at every tick, so a long one never holds up a short one. A step that hangs is given up by those
who wait for it, not by the worker: once it returns, the engine goes on.
"""

import asyncio
import contextlib
import functools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from app.backends.base import Array, BatchLost, RowsFailed
from app.engine.arenas import Arenas, Slot
from app.engine.run import Replayed, Result, Run
from app.engine.scheduler import Scheduler
from app.errors import (
    EngramError,
    NonFiniteOutput,
    OutOfMemory,
    QueueFull,
    StepFailed,
    StepTimedOut,
    StoreFailed,
    stopping,
)
from app.waiting import report, settle

logger = logging.getLogger(__name__)

T = TypeVar("T")

DRAIN_SECONDS = 0.01
"""How often it is looked whether all sequences are done."""

LAST_STEP_SECONDS = 1.0
"""How long a worker that is told to give up may take for the step that it is in."""

BATCH_BYTES = 32 * 2**20
"""States that are stepped at once, but for a single one of any size: of more, none is done sooner."""


class Observer(Protocol):
    """Who wants to know what the engine does; called from the worker thread."""

    def tick(self, batch: int, seconds: float) -> None:
        """A step of `batch` sessions took so long."""

    def failure(self) -> None:
        """A step of one session failed."""


class Journal(Protocol):
    """Where finished runs are written down before anyone is told of them."""

    def commit(self, entries: Sequence[Any], done: Callable[[Sequence[EngramError | None]], None]) -> None:
        """Write the entries of runs; `done` is called once, from any thread, with an error for each, or None."""


class NoJournal:
    """Writes nothing."""

    def commit(self, entries: Sequence[Any], done: Callable[[Sequence[EngramError | None]], None]) -> None:
        done([None] * len(entries))


@dataclass(eq=False)
class Call:
    """Something to do with the back ends between two ticks."""

    function: Callable[[Arenas], Any]
    waiter: "asyncio.Future[Any] | None"
    """None where nobody waits for it."""


class Engine:
    """Steps the sessions of one model. Its coroutines belong to the event loop that called `start`."""

    def __init__(
        self,
        name: str,
        arenas: Arenas,
        max_batch: int,
        max_queue: int,
        observer: Observer,
        journal: Journal | None = None,
        step_timeout: float = math.inf,
    ) -> None:
        """step_timeout: seconds after which nobody waits any more for the tick that the worker is in."""
        self.name = name
        self._max_queue = max_queue
        self._observer = observer
        self._journal = journal or NoJournal()
        self._step_timeout = step_timeout
        # Shared between the loop and the worker
        self._inbox: queue.SimpleQueue[Run | Call | None] = queue.SimpleQueue()
        # The loop's own
        self._waiters: set[asyncio.Future[Any]] = set()
        self._sequences = 0
        self._refusal: EngramError | None = None
        self._hang: EngramError | None = None
        self._draining = False
        # Set by the worker, read by the loop
        self._busy_since: float | None = None
        # The worker's own
        self._arenas = arenas
        self._scheduler = Scheduler(max_batch)
        self._outcomes: list[tuple[Run | Call, Any]] = []
        self._open = True
        # Set by the loop, read by the worker
        self._given_up = False
        self._worker = threading.Thread(target=self._work, name=f"engine {name}", daemon=True)

    # On the event loop

    def start(self) -> None:
        """Start the worker thread."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()
        if self._step_timeout < math.inf:
            self._watch()

    async def drain(self, timeout: float) -> None:
        """Refuse new sequences, and wait for those that were accepted; of what is left after `timeout` seconds, go on.

        States can still be read.
        """
        self._draining = True
        end = time.monotonic() + timeout
        while self._sequences and self._refusal is None and time.monotonic() < end:  # noqa: ASYNC110 - the end comes anyway
            await asyncio.sleep(DRAIN_SECONDS)

    async def close(self, timeout: float) -> None:
        """Refuse new work, finish what was accepted, and stop; what is left after `timeout` seconds is given up."""
        self._stop_accepting()
        await asyncio.to_thread(self._worker.join, timeout)
        if self._worker.is_alive():
            logger.warning("%s: work is left after %g s and is given up", self.name, timeout)
            self.give_up()
            await asyncio.to_thread(self._worker.join, LAST_STEP_SECONDS)

    def give_up(self) -> None:
        """Refuse new work and tell everyone who still waits that nothing will come."""
        self._given_up = True
        self._stop_accepting()
        self._release_all()

    @property
    def sequences(self) -> int:
        """The number of sequences in work or waiting."""
        return self._sequences

    async def open(self, memory_size: int | None = None, state: Mapping[str, Array] | None = None) -> Slot:
        """Return a new slot of the model's own memory size or of another, with a state: if not given, the first.

        Raises OutOfMemory or ShuttingDown.
        """
        return await self._call(lambda arenas: arenas.open(memory_size, state))

    async def read(self, slot: Slot) -> dict[str, Array]:
        """Return a copy of the state in a slot."""
        return await self._call(lambda arenas: arenas.of(slot).read(slot.number))

    async def write(self, slot: Slot, state: Mapping[str, Array] | None) -> None:
        """Replace the state in a slot; None is the state before the first step."""
        await self._call(lambda arenas: arenas.of(slot).write(slot.number, state))

    async def free(self, slot: Slot) -> None:
        """Give a slot back; where this raises, it is given back once the worker comes to it."""
        try:
            self.check_accepting()
        except EngramError:
            self.drop(slot)
            raise
        await self._call(lambda arenas: arenas.close(slot))

    def drop(self, slot: Slot) -> None:
        """Give a slot back when the worker comes to it; nobody waits for that."""
        if self._refusal is None:  # else the worker takes no more, and the arena ends with it
            self._inbox.put(Call(lambda arenas: arenas.close(slot), None))

    async def probe(self) -> None:
        """Take one step, between two ticks, with a state that is opened for it."""
        await self._call(_probe)

    async def run(self, slot: Slot, inputs: Array, trace: Sequence[str] = (), entry: Any = None) -> Result:
        """Step a slot over a sequence: all of it, even if nobody waits any more, or none where an exception comes.

        inputs: float32 [T, input_size]; entry: what the journal is to write before anyone is told of the result.
        A slot may be in one run at a time. Raises QueueFull, NonFiniteOutput, OutOfMemory, StepFailed, StepTimedOut,
        ShuttingDown or an error of the journal. After an error that is `unsettled`, the state in the slot may be
        another than that before the sequence: the slot must be dropped.
        """
        self._admit(1)
        waiter = self._new_waiter()
        self._submit([Run(slot, inputs, trace, waiter, entry=entry)])
        result: Result = await waiter
        return result

    async def replay(
        self, inputs: Array, state: Mapping[str, Array] | None, memory_size: int | None, trace: Sequence[str] = ()
    ) -> Replayed:
        """Run a sequence from a state, and return also the state after it. Raises as `run` and `open` do."""
        self._admit(1)
        waiter = self._new_waiter()
        self._submit([Run(None, inputs, trace, waiter, memory_size, start=state, keeps_end=True)])
        try:
            replayed: Replayed = await waiter
        finally:
            waiter.cancel()
        return replayed

    async def infer(
        self, sequences: Sequence[Array], trace: Sequence[str] = (), memory_size: int | None = None
    ) -> list[Result]:
        """Run sequences, each from the state before the first step; they are all accepted, or none is.

        sequences: float32 [T, input_size] each, of any lengths; memory_size: as of `open`. What is cancelled is
        dropped. Raises as `run` and `open` do.
        """
        self._admit(len(sequences))
        waiters: list[asyncio.Future[Result]] = [self._new_waiter() for _ in sequences]
        pairs = zip(sequences, waiters, strict=True)
        self._submit([Run(None, inputs, trace, waiter, memory_size) for inputs, waiter in pairs])
        try:
            return [await waiter for waiter in waiters]
        finally:
            for waiter in waiters:
                waiter.cancel()

    def _admit(self, count: int) -> None:
        """Raise QueueFull or ShuttingDown, or as `check_accepting` does, unless so many sequences may come now."""
        self.check_accepting()
        if self._draining:
            raise stopping()
        if self._sequences + count > self._max_queue:
            raise QueueFull(
                f"{self._sequences} sequences of {self.name} are in work or waiting, and {count} more came; "
                f"at most {self._max_queue} are accepted; try again later"
            )

    def _submit(self, runs: Sequence[Run]) -> None:
        self._sequences += len(runs)
        for run in runs:
            self._inbox.put(run)

    async def _call(self, function: Callable[[Arenas], T]) -> T:
        self.check_accepting()
        waiter = self._new_waiter()
        self._inbox.put(Call(function, waiter))
        result: T = await waiter
        return result

    def _stop_accepting(self) -> None:
        self._refuse(stopping())
        self._inbox.put(None)

    def check_accepting(self) -> None:
        """Raise ShuttingDown, StepTimedOut while a step hangs, or StepFailed where the worker is no more."""
        refusal = self._refusal or self._hang
        if refusal:
            raise refusal.with_traceback(None)  # the same error each time: it must not gather tracebacks

    def _new_waiter(self) -> "asyncio.Future[Any]":
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter

    def _deliver(self, outcomes: "list[tuple[Run | Call, Any]]") -> None:
        for item, outcome in outcomes:
            if item.waiter is None:
                continue
            if isinstance(item, Run):
                self._sequences -= 1
            elif isinstance(outcome, Slot) and item.waiter.done():  # nobody waits any more for the slot that was opened
                self.drop(outcome)
            settle(item.waiter, outcome)

    def _refuse(self, error: EngramError) -> None:
        self._refusal = self._refusal or error

    def _release_all(self) -> None:
        for waiter in list(self._waiters):
            settle(waiter, self._refusal or self._hang)

    def _watch(self) -> None:
        """Look again and again whether the worker hangs, and if so release everyone who waits."""
        since = self._busy_since
        if self._hang is None and since is not None and time.monotonic() - since > self._step_timeout:
            logger.error("%s: a step takes longer than %g s", self.name, self._step_timeout)
            self._hang = StepTimedOut(
                f"a step of {self.name} takes longer than {self._step_timeout:g} s (setting step_timeout); what was "
                "asked may be done or not, which the session's step tells once that step has returned"
            )
            self._release_all()
            if self._busy_since != since:  # it has just returned, and the worker may not have seen that it hung
                self._recover()
        if self._worker.is_alive():
            self._loop.call_later(self._step_timeout / 4, self._watch)

    def _recover(self) -> None:
        logger.warning("%s: the step that took so long has returned", self.name)
        self._hang = None

    # On the worker thread

    def _work(self) -> None:
        try:
            while self._receive():
                self._busy_since = time.monotonic()
                self._tick()
                self._send()
                self._rest()
            self._send()
            self._rest()
        except Exception:
            logger.exception("%s: the engine has stopped", self.name)
            self._post(self._refuse, StepFailed(f"the engine of {self.name} has stopped; the server's log says why"))
            self._post(self._release_all)

    def _receive(self) -> bool:
        """Take in what has come, waiting only where there is nothing else to do; False: there is no more to do."""
        while not self._given_up and (self._open or self._scheduler):
            idle = not self._scheduler and not self._outcomes
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            self._busy_since = time.monotonic()
            if item is None:
                self._open = False
            elif isinstance(item, Call):
                self._answer(item)
            else:
                self._accept(item)
        return False

    def _answer(self, call: Call) -> None:
        try:
            outcome = call.function(self._arenas)
        except Exception as error:
            outcome = self._explain(error)
        self._outcomes.append((call, outcome))

    def _accept(self, run: Run) -> None:
        try:
            run.check_and_make_room(self._arenas.spec(run.slot.memory_size if run.slot else run.memory_size))
            if run.slot is None:
                run.slot = self._arenas.open(run.memory_size, run.start)
            elif len(run.inputs) > 1:
                run.before = self._arenas.of(run.slot).read(run.slot.number)
        except Exception as error:
            self._outcomes.append((run, self._explain(error)))
        else:
            self._scheduler.add([run])

    def _tick(self) -> None:
        """Schedule, run, deliver."""
        batch = []
        for run in self._scheduler.next_batch():
            if run.abandoned:
                self._finish(run, None)
            else:
                batch.append(run)
        for runs in self._steps(batch):
            self._step(runs)
        self._scheduler.add(run for run in batch if not run.finished and not run.failed)

    def _steps(self, batch: list[Run]) -> Iterator[list[Run]]:
        """Yield the runs that can be stepped at once: those of one memory size, within BATCH_BYTES."""
        by_size: dict[int | None, list[Run]] = {}
        for run in batch:
            by_size.setdefault(run.held.memory_size, []).append(run)
        for runs in by_size.values():
            most = max(1, BATCH_BYTES // max(1, self._arenas.of(runs[0].held).spec.state_bytes))
            yield from (runs[start : start + most] for start in range(0, len(runs), most))

    def _step(self, batch: list[Run]) -> None:
        """Take one step of every run, of one memory size; a run that fails does so alone.

        Where the step failed as a whole, each run is stepped alone if no slot has changed. If the states are lost, no
        run is stepped again.
        """
        began, failed = time.perf_counter(), None
        try:
            outputs, traces = self._compute(batch)
        except RowsFailed as error:
            outputs, traces, failed = error.outputs, error.traces, error
        except BatchLost as error:
            for run in batch:
                self._fail(run, error.__cause__ or error, lost=True)
            return
        except Exception as error:
            self._step_alone(batch, error)
            return
        report(self._observer.tick, len(batch), time.perf_counter() - began)
        self._record(batch, outputs, traces, failed)

    def _compute(self, batch: list[Run]) -> tuple[Array, dict[str, Array]]:
        slots = [run.held.number for run in batch]
        inputs = np.stack([run.inputs[run.position] for run in batch])
        names = list(dict.fromkeys(name for run in batch for name in run.trace))
        return self._arenas.of(batch[0].held).step(slots, inputs, names)

    def _step_alone(self, batch: list[Run], error: Exception) -> None:
        """Step runs one by one after their batch failed with an error, so that only those at fault fail."""
        if len(batch) == 1:
            self._fail(batch[0], error)
        else:
            for run in batch:
                self._step([run])

    def _record(self, batch: list[Run], outputs: Array, traces: Mapping[str, Array], failed: RowsFailed | None) -> None:
        """Keep what a step came to, and end the runs that are finished or failed."""
        for row, run in enumerate(batch):
            if failed and row in failed.rows:
                self._fail(run, failed, row in failed.lost)
                continue
            try:
                run.record(outputs, traces, row)
            except Exception as error:
                self._fail(run, error, lost=True)
                continue
            if run.finished:
                self._finish(run, run.result)

    def _fail(self, run: Run, error: BaseException, lost: bool = False) -> None:
        """End a run whose step failed, and undo the steps before it. lost: whether its slot's state is lost."""
        report(self._observer.failure)
        run.failed = True
        outcome = self._explain(error, run)
        if run.before is not None:
            lost = not self._put_back(run, run.before)
        if lost:
            outcome.unsettled = True
        self._finish(run, outcome)

    def _put_back(self, run: Run, state: Mapping[str, Array]) -> bool:
        """Put a state into the slot of a run; return whether it could be."""
        try:
            self._arenas.of(run.held).write(run.held.number, state)
        except Exception:
            logger.exception("%s: the state before a sequence could not be put back, and is computed anew", self.name)
            return False
        return True

    def _finish(self, run: Run, outcome: Result | Replayed | Exception | None) -> None:
        if run.keeps_end and isinstance(outcome, Result):
            try:
                outcome = Replayed(outcome, self._arenas.of(run.held).read(run.held.number))
            except Exception as error:
                outcome = self._explain(error)
        if run.transient:
            self._close(run.held)
        self._outcomes.append((run, outcome))

    def _close(self, slot: Slot) -> None:
        try:
            self._arenas.close(slot)
        except Exception:
            logger.exception("%s: slot %s could not be given back", self.name, slot)

    def _explain(self, error: BaseException, run: Run | None = None) -> EngramError:
        """Return an error for the client: our own as it is, others as what they mean, with an entry in the log."""
        if isinstance(error, RowsFailed):
            error = NonFiniteOutput(
                "the model's outputs or its state are not finite after this input, and nothing was changed; inputs of "
                "ordinary size avoid this",
                expected="finite outputs",
            )
        if isinstance(error, EngramError):
            if run is not None:
                error.more["step_of_sequence"] = run.position
            return error
        if isinstance(error, MemoryError):
            logger.warning("%s: there is not enough memory: %s", self.name, error)
            return OutOfMemory(
                f"not enough memory is left to do this with {self.name}, and nothing was changed: "
                "ask for a smaller memory_size, or try later"
            )
        logger.error("%s: the back end failed", self.name, exc_info=error)
        return StepFailed(f"the back end of {self.name} failed: {type(error).__name__}; nothing was changed")

    def _send(self) -> None:
        """Tell what came out, but of what is to be logged, only the journal: it tells the others."""
        logged, told = [], []
        for item, outcome in self._outcomes:
            if isinstance(item, Run) and item.entry is not None and isinstance(outcome, Result):
                logged.append((item, outcome))
            else:
                told.append((item, outcome))
        self._outcomes = []
        if told:
            self._post(self._deliver, told)
        awaited = [(run, result) for run, result in logged if not run.waiter.done()]
        if len(awaited) < len(logged):  # released while a step hung: for those who waited, it was not taken
            self._post(self._deliver, [(run, None) for run, _ in logged if run.waiter.done()])
        if awaited:
            done = functools.partial(self._send_logged, awaited)
            try:
                self._journal.commit([run.entry for run, _ in awaited], done)
            except Exception:
                logger.exception("%s: the journal failed", self.name)
                done([StoreFailed("what was done could not be written; the server's log says why")] * len(awaited))

    def _send_logged(self, logged: list[tuple[Run, Result]], errors: Sequence[EngramError | None]) -> None:
        """Tell what came out of runs, from whatever thread the journal is in."""
        outcomes = [(run, error or result) for (run, result), error in zip(logged, errors, strict=True)]
        self._post(self._deliver, outcomes)

    def _rest(self) -> None:
        """Say that a tick is over, after what it finished is on its way."""
        self._busy_since = None
        if self._hang is not None:
            self._post(self._recover)

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _probe(arenas: Arenas) -> None:
    backend = arenas.first
    slot = backend.open()
    try:
        backend.step([slot], np.zeros((1, backend.spec.input_size), np.float32))
    finally:
        backend.close(slot)
