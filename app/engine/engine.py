"""The engine of one model: continuous batching over all of its sessions.

    event loop                                  worker (worker.py), owner of the back ends
    ----------                                  ------------------------------------------
    submit() -- Run --> arrived                 receive -> schedule -> run -> deliver
                          | one iteration of the loop ^                          |
                          '--- all of them -----------'                          |
    open(), read() -- ArenaCall ----------------------'                          |
    done() <-------------------- one wake-up for all outcomes of a tick ---------'
      ^------ journal <--------- one commit for all runs of a tick with entries -'

Sequences join and leave at every tick, so a long one never delays a short one. While the journal writes, new runs with
entries gather for the next tick. When a step hangs, all waiting requests are answered with an error. No thread can stop
the worker; once the step returns, the engine goes on.
"""

import asyncio
import contextlib
import functools
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from app.backends.base import Array
from app.budget import Budget
from app.engine.arenas import Arenas, Slot
from app.engine.run import Outcome, Replayed, Result, Run
from app.engine.scheduler import Linger
from app.engine.worker import Answers, ArenaCall, EngineObserver, Journal, Worker
from app.errors import EngramError, QueueFull, StepTimedOut, stopping
from app.futures import report, resolve

logger = logging.getLogger(__name__)

Submitted = Callable[[str, Sequence[Run]], None]
"""Called with the name of an engine and the runs that were submitted to it at once; it may replace their `done`."""

DRAIN_SECONDS = 0.01
"""Seconds between two checks of `drain` whether all sequences are done."""

LAST_STEP_SECONDS = 1.0
"""Seconds that `close` waits for the worker's current step after it gave up."""


class Engine:
    """Step the sessions of one model.

    The methods of `worker.Loop` may be called from any thread, all others only on the event loop that called `start`.
    """

    def __init__(
        self,
        name: str,
        arenas: Arenas,
        max_batch: int,
        max_queue: int,
        observer: EngineObserver,
        journal: Journal | None = None,
        step_timeout: float = math.inf,
        queue: Budget | None = None,
        linger: float = 0.0,
    ) -> None:
        """Make an engine that runs after `start`.

        max_queue: largest number of sequences in work or waiting. queue: the budget of the bytes of the inputs and
        results of the sequences of all models; None: no limit. linger: seconds that a step waits, at most, until half
        of the active sessions can be stepped together. step_timeout: seconds after which requests no longer wait for
        the worker's current tick.
        """
        self.name = name
        self._max_queue = max_queue
        self._queue = queue or Budget("sequences in work", sys.maxsize, "max_queue_bytes", QueueFull)
        self._step_timeout = step_timeout
        self._observer = observer
        self._worker = Worker(name, arenas, max_batch, observer, journal, self)
        self._linger = Linger(linger)
        self._arrived: list[Run] = []
        self._planned: asyncio.Handle | None = None
        """The call that steps `_arrived`, once it is scheduled in the event loop."""
        self._lingers = False
        self._waiting: set[Run | ArenaCall] = set()
        """The items whose `done` was not called."""
        self._submitted: Submitted | None = None
        self._sequences = 0
        self._bytes = 0
        self._refusal: EngramError | None = None
        self._hang: EngramError | None = None
        self._watching: asyncio.Handle | None = None
        self._draining = False
        self._released = False
        # Any thread's: to add and to remove an entry is one operation of a dictionary
        self._commits: dict[object, float] = {}
        """The commits of the journal that are not done: when each began, by time.perf_counter."""

    # Work

    async def open(
        self, memory_size: int | None = None, state: Mapping[str, Array] | None = None, force: str | None = None
    ) -> Slot:
        """Return a new slot that holds `state`, by default the state before the first step.

        memory_size: the number of memory locations, by default the model's own; force: the gates that are held at
        values, as in `Spec`. Raises OutOfMemory or ShuttingDown.
        """
        slot: Slot = await self._call(lambda arenas: arenas.open(memory_size, state, force), self._take_slot)
        return slot

    async def read(self, slot: Slot) -> dict[str, Array]:
        """Return a copy of the state in a slot."""
        state: dict[str, Array] = await self._call(lambda arenas: arenas.of(slot).copy(slot.number), copies=True)
        return state

    async def write(self, slot: Slot, state: Mapping[str, Array] | None) -> None:
        """Replace the state in a slot; None is the state before the first step."""
        await self._call(lambda arenas: arenas.of(slot).write(slot.number, state))

    async def free(self, slot: Slot) -> None:
        """Free a slot. If this raises, the worker frees the slot later, as after `drop`."""
        try:
            self.check_accepting()
        except EngramError:
            self.drop(slot)
            raise
        await self._call(lambda arenas: arenas.close(slot))

    @property
    def spare_bytes(self) -> int:
        """The bytes of memory that `cool` may return; none after `release`."""
        return 0 if self._released else self._worker.spare_bytes

    async def cool(self) -> None:
        """Return the memory of free slots to the system."""
        await self._call(lambda arenas: arenas.cool())

    def drop(self, slot: Slot) -> None:
        """Free a slot when the worker reaches this request; do not wait for it."""
        if self._refusal is None:  # else the worker takes no more requests, and its arenas end with it
            self._worker.put(ArenaCall(lambda arenas: arenas.close(slot), None))

    async def probe(self) -> None:
        """Step a new slot once, between two ticks, and free it. Raises as `open` does, or the error of the step."""
        await self._call(_probe)

    def submit(self, runs: Sequence[Run]) -> None:
        """Accept all runs or none, and call `done` of each with its outcome, once, after this method has returned.

        A run of slots is carried out even if its caller no longer needs the outcome; a run without slots stops when it
        is cancelled. A slot may be in one run at a time. The caller must not change the inputs afterwards: they are not
        copied. An outcome may hold NonFiniteOutput, OutOfMemory, StepFailed, StepTimedOut, ShuttingDown or an error of
        the journal. After an error that is `in_doubt`, the state in the slot may differ from the one before the run:
        the caller must drop the slot. Raises QueueFull or ShuttingDown, or as `check_accepting` does.
        """
        self.check_accepting()
        if self._draining:
            raise stopping()
        count = size = 0
        for run in runs:
            run.bytes = run.rows * run.steps * self._worker.step_bytes(run.memory_size, run.trace)
            count += run.rows
            size += run.bytes
        self._check_queue(count, size)
        self._sequences += count
        self._bytes += size
        self._queue.add(size)
        self._waiting.update(runs)
        self._arrived += runs
        if self._submitted is not None:
            self._submitted(self.name, runs)
        if self._linger.seconds:
            self._wait_for_others(runs)
        elif self._planned is None:
            self._plan_step()

    def _check_queue(self, count: int, size: int) -> None:
        """Raise QueueFull unless `count` more sequences, with `size` bytes of inputs and results, may be accepted."""
        if self._sequences + count > self._max_queue:
            raise QueueFull(
                f"{self._sequences} sequences of {self.name} are in work or waiting, and {count} more came; "
                f"at most {self._max_queue} are accepted; try again later"
            )
        if self._queue.used and self._queue.used + size > self._queue.limit:
            raise QueueFull(
                f"the sequences that are in work or waiting take {self._queue.used} bytes, and {size} more came; "
                f"at most {self._queue.limit} are accepted (setting max_queue_bytes); try again later"
            )

    async def replay(
        self,
        inputs: Array,
        state: Mapping[str, Array] | None,
        memory_size: int | None,
        trace: Sequence[str] = (),
        force: str | None = None,
    ) -> Replayed:
        """Run a sequence, float32 [T, input_size], from a state without a slot; return its result and final state.

        Raises as `submit` and `open` do.
        """
        [run], [result] = await self._unkept([inputs], trace, memory_size, start=state, keeps_end=True, force=force)
        assert run.end is not None
        return Replayed(result, run.end)

    async def infer(
        self,
        sequences: Sequence[Array],
        trace: Sequence[str] = (),
        memory_size: int | None = None,
        force: str | None = None,
    ) -> list[Result]:
        """Run sequences, each from the state before the first step. All are accepted or none.

        sequences: float32 [T, input_size] each, of any lengths; memory_size, force: as of `open`. If the caller is
        cancelled, the steps that are left are not computed. Raises as `submit` and `open` do.
        """
        _, results = await self._unkept(sequences, trace, memory_size, force=force)
        return results

    async def _unkept(
        self, sequences: Sequence[Array], trace: Sequence[str], memory_size: int | None, **more: Any
    ) -> tuple[list[Run], list[Result]]:
        """Run sequences without slots; return the runs and their results."""
        waiters: list[asyncio.Future[Outcome]] = [self._loop.create_future() for _ in sequences]
        pairs = zip(sequences, waiters, strict=True)
        runs = [
            Run(None, memory_size, inputs[None], trace, functools.partial(resolve, waiter), **more)
            for inputs, waiter in pairs
        ]
        self.submit(runs)
        try:
            return runs, [_only(await waiter) for waiter in waiters]
        except EngramError as error:
            raise error.with_traceback(None) from None
        finally:
            _abandon(runs, waiters)
            del runs, waiters, pairs  # an error has this frame: a cycle would keep the states of the runs in memory

    async def _call(
        self, function: Callable[[Arenas], Any], done: Callable[..., None] = resolve, copies: bool = False
    ) -> Any:
        """Call a function with the arenas, on the worker's thread; return its result or raise its error.

        done(future, outcome): called on the event loop to resolve the future with the outcome. copies: as of ArenaCall.
        """
        assert threading.get_ident() == self._thread, "only the event loop's thread calls the engine"
        self.check_accepting()
        waiter: asyncio.Future[Any] = self._loop.create_future()
        call = ArenaCall(function, functools.partial(done, waiter), copies)
        self._waiting.add(call)
        self._worker.put(call)
        try:
            return await waiter
        finally:
            del waiter, call, function  # an error has this frame: a cycle would keep a state in memory

    def _take_slot(self, waiter: "asyncio.Future[Slot]", outcome: Slot | EngramError) -> None:
        """Resolve a future with a slot that was opened; free the slot if the future is done already."""
        if isinstance(outcome, Slot) and waiter.done():
            self.drop(outcome)
        resolve(waiter, outcome)

    # From the event loop to the worker

    def _plan_step(self) -> None:
        """Step the arrived runs in the next iteration of the event loop, when all runs of this one have arrived."""
        self._planned = self._loop.call_soon(self._step_unless_writing)

    def _wait_for_others(self, runs: Sequence[Run]) -> None:
        """Plan a step after the time to linger, or at once if enough runs have arrived."""
        for run in runs:
            self._linger.note(run.slots or ())
        enough = self._linger.is_enough(sum(run.rows for run in self._arrived))
        if self._planned is None:
            self._lingers = not enough
            if self._lingers:
                self._planned = self._loop.call_later(self._linger.seconds, self._step_unless_writing)
        elif self._lingers and enough:
            self._planned.cancel()
            self._planned = None
        if self._planned is None:
            self._lingers = False
            self._plan_step()

    def _step_unless_writing(self) -> None:
        """Step the arrived runs; while the journal writes, those with entries wait until one commit is done.

        They do not wait for all commits: on a busy server, there is nearly always one under way.
        """
        if not self._commits:
            self._step_arrived()
            return
        runs, self._arrived = self._arrived, [run for run in self._arrived if run.logged]
        self._planned = None
        self._step([run for run in runs if not run.logged])

    def _step_arrived(self) -> None:
        self._planned = None
        runs, self._arrived = self._arrived, []
        self._step(runs)

    def _step(self, runs: Sequence[Run]) -> None:
        """Step runs on this thread if they are short, else hand them over to the worker's."""
        if runs and not self._worker.step_at_once(runs):
            self._hand_over(runs)

    def _hand_over(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._worker.put(run)

    # Life

    def watch(self, submitted: Submitted | None) -> None:
        """Call a function with the runs of each request from now on; None: call nothing."""
        self._submitted = submitted

    def start(self) -> None:
        """Start the worker."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._worker.start()
        if self._step_timeout < math.inf:
            self._watch()

    async def drain(self, timeout: float) -> None:
        """Refuse new sequences, and wait for the accepted ones; return after `timeout` seconds even if some are left.

        States can still be read afterwards.
        """
        self._draining = True
        end = time.monotonic() + timeout
        while self._sequences and self._refusal is None and time.monotonic() < end:  # noqa: ASYNC110 - no event per sequence
            await asyncio.sleep(DRAIN_SECONDS)

    async def close(self, timeout: float) -> None:
        """Refuse new requests, finish the accepted ones, and stop; give up those that are left after `timeout` s."""
        self._stop_accepting()
        if not await asyncio.to_thread(self._worker.join, timeout):
            logger.warning("%s: requests are left after %g s and are given up", self.name, timeout)
            self.give_up()
            await asyncio.to_thread(self._worker.join, LAST_STEP_SECONDS)

    def release(self) -> None:
        """Let go of the worker and its arenas, after `close`, where no request is left: their memory is free then.

        Their bytes of the budgets are free too.

        The two know each other, and Python finds no cycle of objects that were frozen when the server started.
        """
        if self._watching is not None:
            self._watching.cancel()
        self._free_bytes(self._bytes)  # of a step that hangs
        self._worker.release()
        self._released = True
        del self._worker

    def give_up(self) -> None:
        """Refuse new requests, and answer all waiting ones with ShuttingDown."""
        self._worker.give_up()
        self._stop_accepting()
        self._release_all()

    def rows_at_once(self, memory_size: int | None) -> int:
        """Return the largest number of sessions of this memory size that are stepped together."""
        return self._worker.rows_at_once(memory_size)

    @property
    def sequences(self) -> int:
        """The number of sequences in work or waiting."""
        return self._sequences

    def check_accepting(self) -> None:
        """Raise ShuttingDown after a stop, StepFailed after the worker broke, StepTimedOut while a step hangs."""
        refusal = self._refusal or self._hang
        if refusal:
            raise refusal.with_traceback(None)  # the same object is raised each time: it must not gather tracebacks

    def _stop_accepting(self) -> None:
        self._refuse(stopping())
        runs, self._arrived = self._arrived, []
        self._hand_over(runs)
        self._worker.stop()

    def _refuse(self, error: EngramError) -> None:
        self._refusal = self._refusal or error

    def _release_all(self) -> None:
        """Answer all waiting requests with the error that refuses new ones."""
        refusal = self._refusal or self._hang
        for item in list(self._waiting):
            item.released = True
            self._finish(item, refusal)

    def _watch(self) -> None:
        """Check repeatedly whether a step hangs; if one does, answer all waiting requests with StepTimedOut."""
        since = self._worker.busy_since
        if self._hang is None and since is not None and time.monotonic() - since > self._step_timeout:
            logger.error("%s: a step takes longer than %g s", self.name, self._step_timeout)
            self._hang = StepTimedOut(
                f"a step of {self.name} takes longer than {self._step_timeout:g} s (setting step_timeout); the request "
                "may or may not have been applied; read the session's `step` to find out"
            )
            self._release_all()
            if self._worker.busy_since != since:  # the step has just returned; the worker may not have seen `_hang`
                self._recover()
        if self._worker.is_alive:
            self._watching = self._loop.call_later(self._step_timeout / 4, self._watch)

    def _recover(self) -> None:
        if self._hang is not None:
            logger.warning("%s: the step that hung has returned", self.name)
            self._hang = None

    # worker.Loop: called by the worker and the journal, from any thread

    def answer(self, answers: Answers) -> None:
        self._post(self._resolve, answers, 0.0, time.perf_counter())

    def commits(self, commit: object) -> None:
        self._commits[commit] = time.perf_counter()

    def answer_logged(self, commit: object, answers: Answers) -> None:
        now = time.perf_counter()
        self._post(self._resolve_logged, answers, now - self._commits.pop(commit), now)

    def recovered(self) -> None:
        if self._hang is not None:
            self._post(self._recover)

    def broken(self, error: EngramError) -> None:
        self._post(self._refuse, error)
        self._post(lambda: self._free_bytes(self._bytes))  # outcomes that are left are not delivered, or count nothing
        self._post(self._release_all)

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the event loop's thread, at once if the caller is on it."""
        if threading.get_ident() == self._thread:
            function(*arguments)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: no request waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _resolve(self, answers: Answers, committed: float, since: float) -> None:
        """Call `done` of each item. committed: seconds of the commit; since: the time when the outcomes were known."""
        for item, outcome in answers:
            if isinstance(item, Run):
                self._sequences -= item.rows
                self._free_bytes(item.bytes)
            self._finish(item, outcome)
        report(self._observer.answer, committed, time.perf_counter() - since)

    def _resolve_logged(self, answers: Answers, committed: float, since: float) -> None:
        self._resolve(answers, committed, since)
        if self._arrived and self._planned is None:
            self._planned = self._loop.call_soon(self._step_arrived)

    def _free_bytes(self, size: int) -> None:
        """Return the bytes of a run to the budget, once: after the worker broke, all have been returned."""
        size = min(size, self._bytes)
        self._bytes -= size
        self._queue.subtract(size)

    def _finish(self, item: Run | ArenaCall, outcome: Any) -> None:
        """Call `done` of a run once; of an ArenaCall also a second time, for it may have opened a slot meanwhile."""
        if item in self._waiting:
            self._waiting.remove(item)
        elif isinstance(item, Run):
            return
        if item.done is not None:
            report(item.done, outcome)


def _abandon(runs: Sequence[Run], waiters: Sequence["asyncio.Future[Outcome]"]) -> None:
    """Compute no further steps of runs whose outcomes nobody waits for."""
    for run, waiter in zip(runs, waiters, strict=True):
        run.cancelled = True
        waiter.cancel()


def _only(outcome: Outcome) -> Result:
    """Return the result of a run of one sequence."""
    assert not isinstance(outcome, EngramError), "the future raises an error"
    return outcome.row(0)


def _probe(arenas: Arenas) -> None:
    """Step a new slot of the first back end once, and free it."""
    backend = arenas.first
    slot = backend.open()
    try:
        backend.step([slot], np.zeros((1, backend.spec.input_size), np.float32))
    finally:
        backend.close(slot)
