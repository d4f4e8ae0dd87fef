"""The engine of one model: continuous batching over all of its sessions.

    event loop                          worker thread, owner of the back ends
    ----------                          -------------------------------------
    run(), infer() --- Run ---.         loop:
    open(), read() --- Call --+-> inbox   take what has come: calls are answered at once, runs are queued
    close() -------- sentinel-'           schedule   up to max_batch runs, round robin
                                          run        one batched step of each memory size among them
    futures <---- call_soon_threadsafe -- deliver    a result or an exception to everyone who is done

Sequences join and leave at every tick, so a long one never holds up a short one.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from app.backends.base import Array
from app.engine.arenas import Arenas, Slot
from app.engine.run import Result, Run
from app.engine.scheduler import Scheduler
from app.errors import EngramError, OutOfMemory, QueueFull, ShuttingDown, StepFailed

logger = logging.getLogger(__name__)

T = TypeVar("T")

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


@dataclass(eq=False)
class Call:
    """Something to do with the back ends between two ticks."""

    function: Callable[[Arenas], Any]
    waiter: "asyncio.Future[Any]"


class Engine:
    """Steps the sessions of one model. Its coroutines belong to the event loop that called `start`."""

    def __init__(self, name: str, arenas: Arenas, max_batch: int, max_queue: int, observer: Observer) -> None:
        self.name = name
        self._max_queue = max_queue
        self._observer = observer
        # Shared between the loop and the worker
        self._inbox: queue.SimpleQueue[Run | Call | None] = queue.SimpleQueue()
        # The loop's own
        self._waiters: set[asyncio.Future[Any]] = set()
        self._sequences = 0
        self._refusal: EngramError | None = None
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

    async def open(self, memory_size: int | None = None) -> Slot:
        """Return a new slot with the state before the first step, of the model's own memory size or of another.

        Raises OutOfMemory or ShuttingDown.
        """
        return await self._call(lambda arenas: arenas.open(memory_size))

    async def read(self, slot: Slot) -> dict[str, Array]:
        """Return a copy of the state in a slot."""
        return await self._call(lambda arenas: arenas.of(slot).read(slot.number))

    async def reset(self, slot: Slot) -> None:
        """Put the state before the first step into a slot."""
        await self._call(lambda arenas: arenas.of(slot).write(slot.number, None))

    async def free(self, slot: Slot) -> None:
        """Give a slot back."""
        await self._call(lambda arenas: arenas.close(slot))

    async def probe(self) -> None:
        """Take one step, between two ticks, with a state that is opened for it."""
        await self._call(_probe)

    async def run(self, slot: Slot, inputs: Array, trace: Sequence[str] = ()) -> Result:
        """Step a slot over a sequence: all of it, even if nobody waits any more, or none where an exception comes.

        inputs: float32 [T, input_size]. A slot may be in one run at a time. Raises QueueFull, NonFiniteOutput,
        StepFailed or ShuttingDown.
        """
        return await self._submit([inputs], slot, trace)[0]

    async def infer(
        self, sequences: Sequence[Array], trace: Sequence[str] = (), memory_size: int | None = None
    ) -> list[Result]:
        """Run sequences, each from the state before the first step; they are all accepted, or none is.

        sequences: float32 [T, input_size] each, of any lengths; memory_size: as of `open`. What is cancelled is
        dropped. Raises as `run` and `open` do.
        """
        waiters = self._submit(sequences, None, trace, memory_size)
        try:
            return [await waiter for waiter in waiters]
        finally:
            for waiter in waiters:
                waiter.cancel()

    def _submit(
        self, sequences: Sequence[Array], slot: Slot | None, trace: Sequence[str], memory_size: int | None = None
    ) -> "list[asyncio.Future[Result]]":
        self._check_accepting()
        if self._sequences + len(sequences) > self._max_queue:
            raise QueueFull(
                f"{self._sequences} sequences of {self.name} are in work or waiting, and {len(sequences)} more came; "
                f"at most {self._max_queue} are accepted; try again later"
            )
        runs = [Run(slot, inputs, trace, self._new_waiter(), memory_size) for inputs in sequences]
        self._sequences += len(runs)
        for run in runs:
            self._inbox.put(run)
        return [run.waiter for run in runs]

    async def _call(self, function: Callable[[Arenas], T]) -> T:
        self._check_accepting()
        call = Call(function, self._new_waiter())
        self._inbox.put(call)
        result: T = await call.waiter
        return result

    def _stop_accepting(self) -> None:
        self._refuse(ShuttingDown("the server is stopping; try again later"))
        self._inbox.put(None)

    def _check_accepting(self) -> None:
        if self._refusal:
            raise self._refusal.with_traceback(None)  # the same error each time: it must not gather tracebacks

    def _new_waiter(self) -> "asyncio.Future[Any]":
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter

    def _deliver(self, outcomes: "list[tuple[Run | Call, Any]]") -> None:
        for item, outcome in outcomes:
            if isinstance(item, Run):
                self._sequences -= 1
            _settle(item.waiter, outcome)

    def _refuse(self, error: EngramError) -> None:
        self._refusal = self._refusal or error

    def _release_all(self) -> None:
        for waiter in list(self._waiters):
            _settle(waiter, self._refusal)

    # On the worker thread

    def _work(self) -> None:
        try:
            while self._receive():
                self._tick()
                self._send()
            self._send()
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
            if run.slot is None:
                run.slot = self._arenas.open(run.memory_size)
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
        """Take one step of every run, of one memory size; where that fails, of each alone: only its own can fail."""
        slots = [run.held.number for run in batch]
        inputs = np.stack([run.inputs[run.position] for run in batch])
        names = list(dict.fromkeys(name for run in batch for name in run.trace))
        began = time.perf_counter()
        try:
            outputs, traces = self._arenas.of(batch[0].held).step(slots, inputs, names)
        except Exception as error:
            if len(batch) > 1:
                for run in batch:
                    self._step([run])
            else:
                self._fail(batch[0], error)
            return
        self._observer.tick(len(batch), time.perf_counter() - began)
        for row, run in enumerate(batch):
            run.record(outputs, traces, row)
            if run.finished:
                self._finish(run, run.result)

    def _fail(self, run: Run, error: Exception) -> None:
        """End a run whose step raised, and undo the steps before it."""
        self._observer.failure()
        run.failed = True
        if run.before is not None:
            self._arenas.of(run.held).write(run.held.number, run.before)
        self._finish(run, self._explain(error, run))

    def _finish(self, run: Run, outcome: Result | Exception | None) -> None:
        if run.transient:
            self._arenas.close(run.held)
        self._outcomes.append((run, outcome))

    def _explain(self, error: Exception, run: Run | None = None) -> EngramError:
        """Return an error for the client: our own as it is, others as what they mean, with an entry in the log."""
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
        if self._outcomes:
            self._post(self._deliver, self._outcomes)
            self._outcomes = []

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _settle(waiter: "asyncio.Future[Any]", outcome: Any) -> None:
    """Give a waiter its result or its exception, unless it has one or was cancelled."""
    if waiter.done():
        return
    if isinstance(outcome, Exception):
        waiter.set_exception(outcome)
        waiter.exception()  # seen, even if nobody waits any more
    else:
        waiter.set_result(outcome)


def _probe(arenas: Arenas) -> None:
    backend = arenas.first
    slot = backend.open()
    try:
        backend.step([slot], np.zeros((1, backend.spec.input_size), np.float32))
    finally:
        backend.close(slot)
