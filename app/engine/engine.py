"""The engine of one model: continuous batching over all of its sessions.

    event loop                                  worker (worker.py), owner of the back ends
    ----------                                  ------------------------------------------
    submit() -- Run --> arrived                 receive -> schedule -> run -> deliver
                          | one turn of the loop     ^                           |
                          '--- all of them ----------'                           |
    open(), read() ----- Call -----------------------'                           |
    done() <-------------------- one wake-up for all that is done ---------------'
      ^------ journal <------------ of what is to be logged, all of a tick ------'

Sequences join and leave at every tick, so a long one never holds up a short one. While the journal writes, what comes
to be logged gathers for the next tick. A step that hangs is given up by those who wait for it, not by the worker: once
it returns, the engine goes on.
"""

import asyncio
import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from app.backends.base import Array
from app.engine.arenas import Arenas, Slot
from app.engine.run import Outcome, Replayed, Result, Run
from app.engine.scheduler import Linger
from app.engine.worker import Answers, Call, Journal, Observer, Worker
from app.errors import EngramError, QueueFull, StepTimedOut, stopping
from app.futures import report, settle

logger = logging.getLogger(__name__)

T = TypeVar("T")

DRAIN_SECONDS = 0.01
"""How often `drain` checks whether all sequences are done."""

LAST_STEP_SECONDS = 1.0
"""How long a worker that is told to give up may take for the step that it is in."""


class Engine:
    """Steps the sessions of one model. All but the parts of `Loop` belong to the event loop that called `start`."""

    def __init__(
        self,
        name: str,
        arenas: Arenas,
        max_batch: int,
        max_queue: int,
        observer: Observer,
        journal: Journal | None = None,
        step_timeout: float = math.inf,
        max_queue_bytes: float = math.inf,
        linger: float = 0.0,
    ) -> None:
        """max_queue: sequences in work or waiting, at most; max_queue_bytes: of their inputs and results.

        linger: seconds that a step waits, at most, until half of the active sessions can be stepped together.
        step_timeout: seconds after which nobody waits any more for the tick that the worker is in.
        """
        self.name = name
        self._max_queue = max_queue
        self._max_queue_bytes = max_queue_bytes
        self._step_timeout = step_timeout
        self._observer = observer
        self._worker = Worker(name, arenas, max_batch, observer, journal, self)
        self._linger = Linger(linger)
        self._arrived: list[Run] = []
        self._turn: asyncio.Handle | None = None
        """The next turn, once it is planned."""
        self._lingers = False
        self._waiting: set[Run | Call] = set()
        """Those whose `done` was not called."""
        self._sequences = 0
        self._bytes = 0
        self._refusal: EngramError | None = None
        self._hang: EngramError | None = None
        self._draining = False
        # Also the worker's and the journal's; to add and to remove is one operation of a dictionary
        self._commits: dict[object, float] = {}
        """When each began, of those that are under way."""

    # Work

    async def open(self, memory_size: int | None = None, state: Mapping[str, Array] | None = None) -> Slot:
        """Return a new slot of the model's own memory size or of another, with a state: if not given, the first.

        Raises OutOfMemory or ShuttingDown.
        """
        return await self._call(lambda arenas: arenas.open(memory_size, state), self._take_slot)

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
            self._worker.put(Call(lambda arenas: arenas.close(slot), None))

    async def probe(self) -> None:
        """Take one step, between two ticks, with a state that is opened for it."""
        await self._call(_probe)

    def submit(self, runs: Sequence[Run]) -> None:
        """Accept runs, all of them or none: `done` of each is called with its outcome, once, after this has returned.

        All steps are taken even if nobody needs the outcome any more, unless no state is kept. A slot may be in one run
        at a time. Outcomes may have QueueFull, NonFiniteOutput, OutOfMemory, StepFailed, StepTimedOut, ShuttingDown or
        an error of the journal. After an error that is `unsettled`, the state in the slot may be another than that
        before the sequence: the slot must be dropped. Raises QueueFull or ShuttingDown, or as `check_accepting` does.
        """
        self.check_accepting()
        if self._draining:
            raise stopping()
        count = size = 0
        for run in runs:
            run.bytes = run.rows * run.steps * self._worker.step_bytes(run.memory_size, run.trace)
            count += run.rows
            size += run.bytes
        self._check_room(count, size)
        self._sequences += count
        self._bytes += size
        self._waiting.update(runs)
        self._arrived += runs
        if self._linger.seconds:
            self._wait_for_others(runs)
        elif self._turn is None:
            self._plan_turn()

    def _check_room(self, count: int, size: int) -> None:
        """Raise QueueFull unless so many sequences, of so many bytes, may come now."""
        if self._sequences + count > self._max_queue:
            raise QueueFull(
                f"{self._sequences} sequences of {self.name} are in work or waiting, and {count} more came; "
                f"at most {self._max_queue} are accepted; try again later"
            )
        if self._bytes and self._bytes + size > self._max_queue_bytes:
            raise QueueFull(
                f"the sequences of {self.name} that are in work or waiting take {self._bytes} bytes, and {size} more "
                f"came; at most {self._max_queue_bytes:g} are accepted (setting max_queue_bytes); try again later"
            )

    async def replay(
        self, inputs: Array, state: Mapping[str, Array] | None, memory_size: int | None, trace: Sequence[str] = ()
    ) -> Replayed:
        """Run a sequence from a state, and return also the state after it. Raises as `submit` and `open` do."""
        [run], [result] = await self._unkept([inputs], trace, memory_size, start=state, keeps_end=True)
        assert run.end is not None
        return Replayed(result, run.end)

    async def infer(
        self, sequences: Sequence[Array], trace: Sequence[str] = (), memory_size: int | None = None
    ) -> list[Result]:
        """Run sequences, each from the state before the first step; they are all accepted, or none is.

        sequences: float32 [T, input_size] each, of any lengths; memory_size: as of `open`. What is cancelled is
        dropped. Raises as `submit` and `open` do.
        """
        _, results = await self._unkept(sequences, trace, memory_size)
        return results

    async def _unkept(
        self, sequences: Sequence[Array], trace: Sequence[str], memory_size: int | None, **more: Any
    ) -> tuple[list[Run], list[Result]]:
        """Run sequences whose states are not kept."""
        waiters: list[asyncio.Future[Outcome]] = [self._loop.create_future() for _ in sequences]
        pairs = zip(sequences, waiters, strict=True)
        runs = [
            Run(None, memory_size, inputs[None], trace, functools.partial(settle, waiter), **more)
            for inputs, waiter in pairs
        ]
        self.submit(runs)
        try:
            return runs, [_only(await waiter) for waiter in waiters]
        finally:
            for run, waiter in zip(runs, waiters, strict=True):
                run.cancelled = True
                waiter.cancel()

    async def _call(self, function: Callable[[Arenas], T], done: Callable[..., None] = settle) -> T:
        """Do something with the back ends; done: called with a future and the outcome, to settle the one with it."""
        self.check_accepting()
        waiter: asyncio.Future[T] = self._loop.create_future()
        call = Call(function, functools.partial(done, waiter))
        self._waiting.add(call)
        self._worker.put(call)
        return await waiter

    def _take_slot(self, waiter: "asyncio.Future[Slot]", outcome: Slot | EngramError) -> None:
        """Settle a future with a slot that was opened; where nobody waits for it any more, give it back."""
        if isinstance(outcome, Slot) and waiter.done():
            self.drop(outcome)
        settle(waiter, outcome)

    # Turns of the loop

    def _plan_turn(self) -> None:
        """Take a turn once all that comes in this turn of the event loop has come."""
        self._turn = self._loop.call_soon(self._take_turn)

    def _wait_for_others(self, runs: Sequence[Run]) -> None:
        """Plan a turn after the time to linger, or at once where enough has arrived."""
        for run in runs:
            self._linger.note(run.slots or ())
        enough = self._linger.is_enough(sum(run.rows for run in self._arrived))
        if self._turn is None:
            self._lingers = not enough
            self._turn = self._loop.call_later(self._linger.seconds, self._take_turn) if self._lingers else None
        elif self._lingers and enough:
            self._turn.cancel()
            self._turn = None
        if self._turn is None:
            self._lingers = False
            self._plan_turn()

    def _take_turn(self) -> None:
        """Step the runs that arrived; while the journal writes, those that are logged wait until it has written some.

        They do not wait until it writes nothing: where much is under way, that may take as long as all of it.
        """
        if not self._commits:
            self._step_arrived()
            return
        runs, self._arrived = self._arrived, [run for run in self._arrived if run.logged]
        self._turn = None
        self._step([run for run in runs if not run.logged])

    def _step_arrived(self) -> None:
        self._turn = None
        runs, self._arrived = self._arrived, []
        self._step(runs)

    def _step(self, runs: Sequence[Run]) -> None:
        """Step runs, or hand them over."""
        if runs and not self._worker.step_at_once(runs):
            self._hand_over(runs)

    def _hand_over(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._worker.put(run)

    # Life

    def start(self) -> None:
        """Start the worker."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._worker.start()
        if self._step_timeout < math.inf:
            self._watch()

    async def drain(self, timeout: float) -> None:
        """Refuse new sequences, and wait for those that were accepted; return after `timeout` seconds in any case.

        States can still be read.
        """
        self._draining = True
        end = time.monotonic() + timeout
        while self._sequences and self._refusal is None and time.monotonic() < end:  # noqa: ASYNC110 - the end comes anyway
            await asyncio.sleep(DRAIN_SECONDS)

    async def close(self, timeout: float) -> None:
        """Refuse new work, finish what was accepted, and stop; what is left after `timeout` seconds is given up."""
        self._stop_accepting()
        if not await asyncio.to_thread(self._worker.join, timeout):
            logger.warning("%s: work is left after %g s and is given up", self.name, timeout)
            self.give_up()
            await asyncio.to_thread(self._worker.join, LAST_STEP_SECONDS)

    def give_up(self) -> None:
        """Refuse new work and tell everyone who still waits that nothing will come."""
        self._worker.give_up()
        self._stop_accepting()
        self._release_all()

    def rows_at_once(self, memory_size: int | None) -> int:
        """Return how many sessions with so many memory slots are stepped together, at most."""
        return self._worker.rows_at_once(memory_size)

    @property
    def sequences(self) -> int:
        """The number of sequences in work or waiting."""
        return self._sequences

    def check_accepting(self) -> None:
        """Raise ShuttingDown, StepTimedOut while a step hangs, or StepFailed where the worker is no more."""
        refusal = self._refusal or self._hang
        if refusal:
            raise refusal.with_traceback(None)  # the same error each time: it must not gather tracebacks

    def _stop_accepting(self) -> None:
        self._refuse(stopping())
        runs, self._arrived = self._arrived, []
        self._hand_over(runs)
        self._worker.stop()

    def _refuse(self, error: EngramError) -> None:
        self._refusal = self._refusal or error

    def _release_all(self) -> None:
        """Answer everyone who waits with the error that refuses others."""
        refusal = self._refusal or self._hang
        for item in list(self._waiting):
            item.released = True
            self._finish(item, refusal)

    def _watch(self) -> None:
        """Check repeatedly whether a step hangs, and if so answer everyone who waits for the worker."""
        since = self._worker.busy_since
        if self._hang is None and since is not None and time.monotonic() - since > self._step_timeout:
            logger.error("%s: a step takes longer than %g s", self.name, self._step_timeout)
            self._hang = StepTimedOut(
                f"a step of {self.name} takes longer than {self._step_timeout:g} s (setting step_timeout); the request "
                "may or may not have been applied; read the session's `step` to find out"
            )
            self._release_all()
            if self._worker.busy_since != since:  # it has just returned, and the worker may not have seen that it hung
                self._recover()
        if self._worker.is_alive:
            self._loop.call_later(self._step_timeout / 4, self._watch)

    def _recover(self) -> None:
        if self._hang is not None:
            logger.warning("%s: the step that took so long has returned", self.name)
            self._hang = None

    # The worker's and the journal's view (worker.Loop), from any thread

    def answer(self, answers: Answers) -> None:
        self._post(self._settle, answers, 0.0, time.perf_counter())

    def commits(self, commit: object) -> None:
        self._commits[commit] = time.perf_counter()

    def answer_logged(self, commit: object, answers: Answers) -> None:
        now = time.perf_counter()
        self._post(self._settle_logged, answers, now - self._commits.pop(commit, now), now)

    def recovered(self) -> None:
        if self._hang is not None:
            self._post(self._recover)

    def broken(self, error: EngramError) -> None:
        self._post(self._refuse, error)
        self._post(self._release_all)

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the event loop's thread: at once where this is it."""
        if threading.get_ident() == self._thread:
            function(*arguments)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _settle(self, answers: Answers, committed: float, since: float) -> None:
        """Answer those who wait. committed: seconds of the commit; since: when their outcomes were known."""
        for item, outcome in answers:
            if isinstance(item, Run):
                self._sequences -= item.rows
                self._bytes -= item.bytes
            self._finish(item, outcome)
        report(self._observer.answer, committed, time.perf_counter() - since)

    def _settle_logged(self, answers: Answers, committed: float, since: float) -> None:
        self._settle(answers, committed, since)
        if self._arrived and self._turn is None:
            self._turn = self._loop.call_soon(self._step_arrived)

    def _finish(self, item: Run | Call, outcome: Any) -> None:
        """Call `done`, unless it was called before; of a call it always is, for it may have opened a slot."""
        if item in self._waiting:
            self._waiting.remove(item)
        elif isinstance(item, Run):
            return
        if item.done is not None:
            report(item.done, outcome)


def _only(outcome: Outcome) -> Result:
    """Return the result of a run of one sequence."""
    assert not isinstance(outcome, EngramError), "it was raised"
    return outcome.row(0)


def _probe(arenas: Arenas) -> None:
    backend = arenas.first
    slot = backend.open()
    try:
        backend.step([slot], np.zeros((1, backend.spec.input_size), np.float32))
    finally:
        backend.close(slot)
