"""The engine over the fake back end, whose outputs are the running sums of the inputs."""

import asyncio
import gc
import itertools
import math
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from app.backends.base import Array
from app.backends.fake import FakeBackend
from app.engine import worker
from app.engine.arenas import Arenas, Slot
from app.engine.engine import Engine
from app.engine.run import Outcome, Result, Results, Run
from app.engine.scheduler import BATCH_BYTES, ENOUGH_ROWS
from app.engine.worker import MOST_PROMPT_SECONDS, PROMPT_BYTES, Journal
from app.errors import (
    EngramError,
    NonFiniteOutput,
    OutOfMemory,
    QueueFull,
    ShuttingDown,
    StepFailed,
    StepTimedOut,
    StoreFailed,
)
from app.futures import resolve
from tests.app.asynchronous import run, until
from tests.app.budgets import queue, states


class Observed:
    """An observer that keeps the sizes of batches and counts failures."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.failures = 0

    def tick(self, batch: int, seconds: float, steps: int) -> None:
        self.batches.append(batch)

    def batch(self, wait: float, seconds: float) -> None: ...

    def answer(self, commit: float, deliver: float) -> None: ...

    def failure(self) -> None:
        self.failures += 1


@asynccontextmanager
async def engine_over(
    backend: FakeBackend,
    max_batch: int = 8,
    max_queue: int = 64,
    max_bytes: int = 2**20,
    journal: Journal | None = None,
    step_timeout: float = math.inf,
    max_queue_bytes: int = sys.maxsize,
    linger: float = 0.0,
) -> AsyncIterator[Engine]:
    arenas = Arenas(backend, states(max_bytes))
    engine = Engine(
        "fake", arenas, max_batch, max_queue, Observed(), journal, step_timeout, queue(max_queue_bytes), linger
    )
    engine.start()
    try:
        yield engine
    finally:
        await engine.close(5)


def ones(steps: int, value: float = 1.0) -> Array:
    return np.full((steps, 2), value, np.float32)


class Gate:
    """Blocks the back end's steps until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, inputs: Array) -> None:
        self.reached.set()
        assert self._open.wait(10)

    def open(self) -> None:
        self._open.set()


async def step(engine: Engine, slot: Slot, inputs: Array, trace: Sequence[str] = (), entry: object = None) -> Result:
    """Return what a run over inputs [T, 2] gives, or raise its error; entry: for the journal."""
    waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    entries = None if entry is None else [entry]
    engine.submit([Run([slot.number], slot.memory_size, inputs[None], trace, partial(resolve, waiter), entries)])
    outcome = await waiter
    assert isinstance(outcome, Results)
    return outcome.row(0)


def raise_on(value: float, error: Exception) -> Callable[[Array], None]:
    def check(inputs: Array) -> None:
        if (inputs == value).any():
            raise error

    return check


def test_run_steps_a_slot_over_a_sequence():
    async def test() -> None:
        async with engine_over(FakeBackend()) as engine:
            slot = await engine.open()
            first = await step(engine, slot, ones(3), ["seen"])
            second = await step(engine, slot, ones(1))
            assert first.outputs[:, 0].tolist() == [1, 2, 3]
            assert first.trace["seen"].shape == (3, 2)
            assert (second.outputs[:, 0].tolist(), second.trace) == ([4], {})

    run(test())


def test_infer_starts_fresh_and_gives_its_slots_back():
    async def test() -> None:
        backend = FakeBackend(capacity=2)
        async with engine_over(backend) as engine:
            for _ in range(3):
                results = await engine.infer([ones(2), ones(4)])
                assert [result.outputs[-1, 0] for result in results] == [2, 4]
            assert len(await asyncio.gather(engine.open(), engine.open())) == 2

    run(test())


def test_sequences_that_wait_together_step_together():
    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=gate)
        async with engine_over(backend) as engine:
            first = asyncio.ensure_future(engine.infer([ones(2)]))
            await asyncio.to_thread(gate.reached.wait)
            others = asyncio.ensure_future(engine.infer([ones(1), ones(3)]))
            await asyncio.sleep(0.05)
            gate.open()
            await asyncio.gather(first, others)
        assert [len(slots) for slots in backend.steps] == [1, 3, 1, 1]

    run(test())


def test_short_sequence_is_not_held_up_by_long_ones():
    """There are more long sequences than fit into a batch; the short one still steps in the second round."""

    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=gate)
        async with engine_over(backend, max_batch=2) as engine:
            long = asyncio.ensure_future(engine.infer([ones(200)] * 4))
            await asyncio.to_thread(gate.reached.wait)
            short = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.sleep(0.05)
            gate.open()
            await asyncio.gather(short, long)
        newcomer = 4
        assert next(tick for tick, slots in enumerate(backend.steps) if newcomer in slots) <= 3
        assert len(backend.steps) > 300

    run(test())


def test_batch_is_never_larger_than_its_limit():
    async def test() -> None:
        backend = FakeBackend()
        async with engine_over(backend, max_batch=3) as engine:
            await engine.infer([ones(4)] * 10)
        assert max(len(slots) for slots in backend.steps) <= 3
        assert sum(len(slots) for slots in backend.steps) == 40

    run(test())


def test_runs_are_batched_by_memory_size():
    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=gate, memory_size=8)
        async with engine_over(backend) as engine:
            first = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.to_thread(gate.reached.wait)
            sizes = (None, 20, 8, 20, 30)
            jobs = [asyncio.ensure_future(engine.infer([ones(2)], ["memory"], size)) for size in sizes]
            await asyncio.sleep(0.05)
            gate.open()
            results = [result for (result,) in await asyncio.gather(*jobs)]
            await first
        assert [result.trace["memory"].shape for result in results] == [(2, size or 8) for size in sizes]
        assert {result.outputs[-1, 0] for result in results} == {2}
        assert [len(slots) for slots in backend.steps] == [1, 2, 2, 1, 2, 2, 1]

    run(test())


def test_runs_are_batched_by_force():
    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=gate, memory_size=8)
        async with engine_over(backend) as engine:
            first = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.to_thread(gate.reached.wait)
            forces = (None, "shut", None, "shut", "open")
            jobs = [asyncio.ensure_future(engine.infer([ones(1)], force=force)) for force in forces]
            await asyncio.sleep(0.05)
            gate.open()
            await asyncio.gather(first, *jobs)
        assert [len(slots) for slots in backend.steps] == [1, 2, 2, 1]

    run(test())


def test_large_states_step_in_smaller_batches():
    """Two states fill BATCH_BYTES, so five sequences step in batches of 2, 2 and 1."""

    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=gate, memory_size=8)
        async with engine_over(backend, max_bytes=2**30) as engine:
            first = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.to_thread(gate.reached.wait)
            job = asyncio.ensure_future(engine.infer([ones(1)] * 5, memory_size=BATCH_BYTES // 4 // 2 - 2))
            await asyncio.sleep(0.05)
            gate.open()
            await asyncio.gather(first, job)
        assert [len(slots) for slots in backend.steps] == [1, 2, 2, 1]

    run(test())


@pytest.mark.parametrize(("device", "largest"), [("cpu", ENOUGH_ROWS), ("cuda", ENOUGH_ROWS + 8)])
def test_slow_rows_bound_the_batches_of_a_cpu_alone(device, largest):
    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=gate, prompt=True)
        backend.device = device
        async with engine_over(backend, max_batch=64) as engine:
            engine._worker._scheduler.pace.note(None, 1, 1, 60.0)
            first = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.to_thread(gate.reached.wait)
            job = asyncio.ensure_future(engine.infer([ones(2)] * (ENOUGH_ROWS + 8)))
            await until(lambda: engine._worker._inbox.qsize() == ENOUGH_ROWS + 8)
            gate.open()
            await asyncio.gather(first, job)
        assert len(backend.steps[1]) == largest

    run(test())


def test_time_to_prepare_a_step_is_not_its_pace(monkeypatch):
    class Clock:
        monotonic = staticmethod(time.monotonic)
        ahead = 0.0

        def perf_counter(self) -> float:
            return time.perf_counter() + self.ahead

    clock = Clock()

    class Compiled(FakeBackend):
        def prepare(self, count: int, steps: int) -> None:
            assert (count, steps) == (1, 1)
            clock.ahead += 1000

    async def test() -> None:
        async with engine_over(Compiled()) as engine:
            await engine.infer([ones(2)])
            seconds = engine._worker._scheduler.pace.seconds(None, 1)
            assert seconds is not None
            assert seconds < 500

    monkeypatch.setattr(worker, "time", clock)
    run(test())


def test_states_beyond_the_copies_of_a_tick_wait():
    async def test() -> None:
        gate = Gate()
        backend = Beside(before_step=gate)
        async with engine_over(backend) as engine:
            slot = await engine.open()
            first = asyncio.ensure_future(step(engine, slot, ones(1)))
            await asyncio.to_thread(gate.reached.wait)
            reads = [asyncio.ensure_future(engine.read(slot)) for _ in range(2 * worker.MOST_COPIES + 1)]
            await until(lambda: engine._worker._inbox.qsize() == len(reads))
            gate.open()
            await first
            assert [state["total"].tolist() for state in await asyncio.gather(*reads)] == [[1, 1]] * len(reads)
        turns = [["send"] * count + ["read"] * count for count in (worker.MOST_COPIES, worker.MOST_COPIES, 1)]
        assert backend.events == ["step", *itertools.chain(*turns)]

    run(test())


def test_batch_that_is_too_large_is_stepped_in_halves():
    def check(inputs: Array) -> None:
        if len(inputs) > 2:
            raise MemoryError

    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=lambda inputs: (gate(inputs), check(inputs))[1])
        async with engine_over(backend) as engine:
            first = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.to_thread(gate.reached.wait)
            job = asyncio.ensure_future(engine.infer([ones(1)] * 7))
            await until(lambda: engine._worker._inbox.qsize() == 7)
            gate.open()
            await asyncio.gather(first, job)
        assert [len(slots) for slots in backend.steps] == [1, 1, 2, 2, 2]

    run(test())


def test_state_beyond_the_memory_is_refused_alone():
    class Small(FakeBackend):
        def resized(self, memory_size: int) -> FakeBackend:
            raise MemoryError

    async def test() -> None:
        async with engine_over(Small(memory_size=8)) as engine:
            slot = await engine.open()
            await step(engine, slot, ones(2))
            with pytest.raises(OutOfMemory, match="smaller memory_size"):
                await engine.open(20)
            small, large = await asyncio.gather(
                step(engine, slot, ones(2)), engine.infer([ones(2)], memory_size=20), return_exceptions=True
            )
            assert isinstance(large, OutOfMemory)
            assert not isinstance(small, BaseException)
            assert small.outputs[:, 0].tolist() == [3, 4]
            assert engine.sequences == 0

    run(test())


@pytest.mark.parametrize("method", ["open", "replay"])
def test_refused_state_is_free_without_the_collector(method):
    class Small(FakeBackend):
        def resized(self, memory_size: int) -> FakeBackend:
            raise OutOfMemory("full")

    async def test() -> None:
        async with engine_over(Small(memory_size=8)) as engine:
            state = {"memory": np.zeros((20, 4), np.float32)}
            array = weakref.ref(state["memory"])
            work = engine.open(20, state) if method == "open" else engine.replay(ones(2), state, 20)
            with suppress(OutOfMemory):
                await work
            del work, state
            await step(engine, await engine.open(), ones(1))  # the worker has forgotten the request
            assert array() is None

    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


class Wide(FakeBackend):
    """Its trace is one number repeated 2^50 times, which no memory can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, trace_axes={"seen": [2**50]})

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        outputs, _ = super().step(slots, inputs)
        return outputs, {name: np.broadcast_to(inputs[:, :1], (len(inputs), 2**50)) for name in trace}


def test_result_beyond_the_memory_fails_alone():
    async def test() -> None:
        async with engine_over(Wide()) as engine:
            slot = await engine.open()
            jobs = (step(engine, slot, ones(3)), engine.infer([ones(3)], ["seen"]))
            good, failed = await asyncio.gather(*jobs, return_exceptions=True)
            assert isinstance(failed, OutOfMemory)
            assert not isinstance(good, BaseException)
            assert (good.outputs[:, 0].tolist(), engine.sequences) == ([1, 2, 3], 0)
            with pytest.raises(OutOfMemory):
                await step(engine, slot, ones(3), ["seen"])
            assert (await step(engine, slot, ones(1))).outputs[0, 0] == 4

    run(test())


def test_replay_with_unreadable_end_frees_its_slot():
    class Full(FakeBackend):
        def read(self, slot: int) -> dict[str, Array]:
            raise MemoryError

    async def test() -> None:
        async with engine_over(Full(capacity=1)) as engine:
            for _ in range(2):
                with pytest.raises(OutOfMemory):
                    await engine.replay(ones(2), None, None)
            assert (await engine.infer([ones(2)]))[0].outputs[-1, 0] == 2
            assert engine.sequences == 0

    run(test())


class Beside(FakeBackend):
    """A back end whose copies come from a device, and fail there where `fails` says so."""

    def __init__(self, *, before_step: Callable[[Array], None] | None = None, fails: str = "") -> None:
        super().__init__(before_step=before_step)
        self.events: list[str] = []
        self.fails = fails

    def copy(self, slot: int) -> Any:
        state, backend = self.read(slot), self

        class Copy:
            def send(self) -> None:
                backend.note("send")

            def read(self) -> dict[str, Array]:
                backend.note("read")
                return state

        return Copy()

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        self.events.append("step")
        return super().step(slots, inputs, trace)

    def note(self, event: str) -> None:
        self.events.append(event)
        if event == self.fails:
            raise MemoryError


def test_copy_of_a_state_is_awaited_after_the_tick():
    async def test() -> None:
        gate = Gate()
        backend = Beside(before_step=gate)
        async with engine_over(backend) as engine:
            slot = await engine.open()
            first = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.to_thread(gate.reached.wait)
            others = [asyncio.ensure_future(work) for work in (engine.read(slot), step(engine, slot, ones(1)))]
            await until(lambda: engine._worker._inbox.qsize() == 2)
            gate.open()
            await asyncio.gather(first, *others)
            assert backend.events == ["step", "send", "step", "read"]
            assert others[0].result()["total"].tolist() == [0, 0], "of the copy, not of the slot after the step"

    run(test())


@pytest.mark.parametrize("where", ["send", "read"])
def test_copy_that_fails_fails_its_request_alone(where):
    async def test() -> None:
        backend = Beside(fails=where)
        async with engine_over(backend) as engine:
            slot = await engine.open()
            for work in (engine.read(slot), engine.replay(ones(2), None, None)):
                with pytest.raises(OutOfMemory):
                    await work
            assert (await step(engine, slot, ones(1))).outputs[0, 0] == 1
            backend.fails = ""
            assert (await engine.read(slot))["total"].tolist() == [1, 1]

    run(test())


def test_failing_sequence_fails_alone():
    async def test() -> None:
        backend = FakeBackend(before_step=raise_on(7, ZeroDivisionError("secret")))
        async with engine_over(backend) as engine:
            slots = [await engine.open() for _ in range(3)]
            inputs = [ones(3), np.concatenate([ones(1), ones(1, 7), ones(1)]), ones(3)]
            jobs = (step(engine, slot, sequence) for slot, sequence in zip(slots, inputs, strict=True))
            good, failed, fine = await asyncio.gather(*jobs, return_exceptions=True)
            assert isinstance(failed, StepFailed)
            assert "ZeroDivisionError" in failed.detail
            assert "secret" not in failed.detail
            for result in (good, fine):
                assert not isinstance(result, BaseException)
                assert result.outputs[:, 0].tolist() == [1, 2, 3]

    run(test())


def test_failing_sequence_leaves_its_session_as_it_was():
    async def test() -> None:
        backend = FakeBackend(before_step=raise_on(7, ValueError()))
        async with engine_over(backend) as engine:
            slot = await engine.open()
            await step(engine, slot, ones(5))
            with pytest.raises(StepFailed):
                await step(engine, slot, np.concatenate([ones(3), ones(1, 7)]))
            assert (await engine.read(slot))["total"].tolist() == [5, 5]
            assert (await step(engine, slot, ones(1))).outputs[0, 0] == 6

    run(test())


def test_overflow_names_its_step_and_changes_nothing():
    async def test() -> None:
        async with engine_over(FakeBackend()) as engine:
            slot = await engine.open()
            with pytest.raises(NonFiniteOutput) as refusal:
                await step(engine, slot, np.concatenate([ones(2), ones(2, 3e38)]))
            assert refusal.value.more["step_of_sequence"] == 3
            assert (await engine.read(slot))["total"].tolist() == [0, 0]

    run(test())


def test_request_over_the_queue_limit_is_refused_whole():
    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(before_step=gate), max_queue=3) as engine:
            accepted = asyncio.ensure_future(engine.infer([ones(1)] * 2))
            await asyncio.to_thread(gate.reached.wait)
            with pytest.raises(QueueFull, match="at most 3"):
                await engine.infer([ones(1)] * 2)
            assert engine.sequences == 2
            gate.open()
            await accepted
            assert engine.sequences == 0
            assert len(await engine.infer([ones(1)] * 3)) == 3

    run(test())


def test_bytes_in_work_are_bounded_unless_one_request_is_alone():
    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(before_step=gate), max_queue_bytes=600) as engine:
            accepted = asyncio.ensure_future(engine.infer([ones(30)], ["seen"]))
            await asyncio.to_thread(gate.reached.wait)
            with pytest.raises(QueueFull, match="take 720 bytes, and 16 more came; at most 600 "):
                await engine.infer([ones(1)])
            gate.open()
            await accepted
            assert len(await asyncio.gather(*(engine.infer([ones(12)]) for _ in range(3)))) == 3
            refused = await asyncio.gather(*(engine.infer([ones(13)]) for _ in range(3)), return_exceptions=True)
            assert [type(outcome) for outcome in refused] == [list, list, QueueFull]

    run(test())


def test_cancelled_inference_is_dropped():
    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=gate)
        async with engine_over(backend) as engine:
            job = asyncio.ensure_future(engine.infer([ones(1000)]))
            await asyncio.to_thread(gate.reached.wait)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            gate.open()
            await engine.probe()
            assert engine.sequences == 0
        assert len(backend.steps) < 5

    run(test())


def test_cancelled_sequence_counts_until_its_slot_is_free():
    """The arena has a slot for each sequence in the queue, so a cancelled one counts until its slot is free."""

    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(capacity=1, before_step=gate), max_batch=1, max_queue=1) as engine:
            job = asyncio.ensure_future(engine.infer([ones(10)]))
            await asyncio.to_thread(gate.reached.wait)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            with pytest.raises(QueueFull):
                await engine.infer([ones(1)])
            gate.open()
            await engine.read(Slot(None, 0))
            await asyncio.sleep(0)
            assert len(await engine.infer([ones(1)])) == 1

    run(test())


def test_result_keeps_only_its_own_rows():
    """Otherwise a result that is kept would keep the arrays of its whole batch in memory."""

    async def test() -> None:
        async with engine_over(FakeBackend()) as engine:
            (result,) = await engine.infer([ones(3)], ["seen"])
            assert [array.base.size for array in (result.outputs, result.trace["seen"])] == [6, 6]

    run(test())


def test_cancelled_run_of_a_session_is_carried_out():
    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(before_step=gate)) as engine:
            slot = await engine.open()
            job = asyncio.ensure_future(step(engine, slot, ones(4)))
            await asyncio.to_thread(gate.reached.wait)
            job.cancel()
            gate.open()
            await engine.infer([ones(5)])
            assert (await engine.read(slot))["total"].tolist() == [4, 4]

    run(test())


def test_write_free_and_drop_act_on_their_slot():
    async def test() -> None:
        async with engine_over(FakeBackend(capacity=1)) as engine:
            slot = await engine.open(state={"total": ones(1)[0]})
            await step(engine, slot, ones(2))
            assert (await engine.read(slot))["total"].tolist() == [3, 3]
            await engine.write(slot, None)
            assert (await engine.read(slot))["total"].tolist() == [0, 0]
            with pytest.raises(OutOfMemory):
                await engine.open()
            await engine.free(slot)
            assert await engine.open() == slot
            engine.drop(slot)
            assert await engine.open() == slot

    run(test())


def test_replay_continues_from_a_state_and_frees_its_slot():
    async def test() -> None:
        async with engine_over(FakeBackend(capacity=1)) as engine:
            state = None
            for expected in (2, 4):
                result, state = await engine.replay(ones(2), state, None, ["seen"])
                assert (result.outputs[-1, 0], state["total"].tolist()) == (expected, [expected] * 2)
                assert result.trace["seen"].shape == (2, 2)
            await engine.open()

    run(test())


class Ledger:
    """A journal that keeps the entries, and calls `done` when a test does."""

    def __init__(self) -> None:
        self.groups: list[tuple[list[object], Callable[[list[EngramError | None]], None]]] = []

    def commit(self, entries: Sequence[object], done: Callable[[Sequence[EngramError | None]], None]) -> None:
        self.groups.append((list(entries), done))


def test_logged_runs_are_answered_after_the_commit():
    async def test() -> None:
        gate, ledger = Gate(), Ledger()
        async with engine_over(FakeBackend(before_step=gate), journal=ledger) as engine:
            slots = [await engine.open() for _ in range(3)]
            jobs = [asyncio.ensure_future(step(engine, slot, ones(1), entry=n)) for n, slot in enumerate(slots)]
            await asyncio.to_thread(gate.reached.wait)
            gate.open()
            await until(lambda: sum(len(entries) for entries, _ in ledger.groups) == 3)
            assert (await engine.infer([ones(1)]))[0].outputs.tolist() == [[1, 1]], (
                "a run without entries does not wait"
            )
            assert not any(job.done() for job in jobs)
            for entries, done in ledger.groups:
                done([StoreFailed("full") if entry == 1 else None for entry in entries])
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Result, StoreFailed, Result]
            assert len(ledger.groups) <= 2, "the first run may have had a tick of its own"

    run(test())


def test_failed_run_is_not_logged():
    async def test() -> None:
        ledger = Ledger()
        backend = FakeBackend(before_step=raise_on(7, OSError()))
        async with engine_over(backend, journal=ledger) as engine:
            with pytest.raises(StepFailed):
                await step(engine, await engine.open(), ones(1, 7), entry=0)
            assert ledger.groups == []

    run(test())


def test_drained_engine_refuses_sequences_but_reads_states():
    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(before_step=gate)) as engine:
            slot = await engine.open()
            running = asyncio.ensure_future(step(engine, slot, ones(3)))
            await asyncio.to_thread(gate.reached.wait)
            draining = asyncio.ensure_future(engine.drain(10))
            await asyncio.sleep(0)
            for refused in (step(engine, slot, ones(1)), engine.infer([ones(1)])):
                with pytest.raises(ShuttingDown):
                    await refused
            assert not draining.done()
            gate.open()
            await draining
            assert running.done()
            assert (await engine.read(slot))["total"].tolist() == [3, 3]

    run(test())


def test_engine_goes_on_when_a_hung_step_returns():
    async def test() -> None:
        gate, ledger = Gate(), Ledger()
        async with engine_over(FakeBackend(before_step=gate), journal=ledger, step_timeout=0.1) as engine:
            slot = await engine.open()
            waiting = [
                asyncio.ensure_future(job) for job in (step(engine, slot, ones(1), entry=0), engine.infer([ones(1)]))
            ]
            await asyncio.to_thread(gate.reached.wait)
            outcomes = await asyncio.gather(*waiting, engine.read(slot), return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [StepTimedOut] * 3
            with pytest.raises(StepTimedOut, match="takes longer than"):
                await engine.open()
            engine.drop(slot)
            gate.open()
            await until(lambda: not hangs(engine))
            assert ledger.groups == [], "the step that hung was not answered, so it is not logged"
            assert (await engine.infer([ones(2)]))[0].outputs[-1, 0] == 2

    run(test())


def test_slots_freed_or_opened_during_a_hang_are_free_afterwards():
    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(capacity=3, before_step=gate), step_timeout=0.1) as engine:
            slot = await engine.open()
            stepping = asyncio.ensure_future(step(engine, slot, ones(1)))
            await asyncio.to_thread(gate.reached.wait)
            outcomes = await asyncio.gather(stepping, engine.open(), return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [StepTimedOut] * 2
            with pytest.raises(StepTimedOut):
                await engine.free(slot)
            gate.open()
            await until(lambda: not hangs(engine))
            await engine.probe()
            assert {(await engine.open()).number for _ in range(3)} == {0, 1, 2}

    run(test())


def hangs(engine: Engine) -> bool:
    try:
        engine.check_accepting()
    except StepTimedOut:
        return True
    return False


def test_probe_fails_when_the_back_end_does():
    async def test() -> None:
        async with engine_over(FakeBackend(before_step=raise_on(0, OSError()))) as engine:
            with pytest.raises(StepFailed):
                await engine.probe()

    run(test())


def test_close_finishes_accepted_runs_and_refuses_new_ones():
    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(before_step=gate)) as engine:
            accepted = asyncio.ensure_future(engine.infer([ones(50)]))
            await asyncio.to_thread(gate.reached.wait)
            closing = asyncio.ensure_future(engine.close(5))
            await asyncio.sleep(0)
            with pytest.raises(ShuttingDown):
                await engine.infer([ones(1)])
            gate.open()
            assert (await accepted)[0].outputs[-1, 0] == 50
            await closing
            await engine.close(5)

    run(test())


def test_close_gives_up_after_its_timeout():
    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(before_step=gate)) as engine:
            slot = await engine.open()
            waiting = [
                asyncio.ensure_future(engine.infer([ones(5)])),
                asyncio.ensure_future(step(engine, slot, ones(5))),
            ]
            await asyncio.to_thread(gate.reached.wait)
            closing = asyncio.ensure_future(engine.close(0.1))
            for job in waiting:
                with pytest.raises(ShuttingDown):
                    await job
            gate.open()
            await closing

    run(test())


def test_observer_counts_ticks_and_failures():
    async def test() -> None:
        observed = Observed()
        engine = Engine("fake", Arenas(FakeBackend(before_step=raise_on(7, OSError())), states()), 8, 64, observed)
        engine.start()
        await engine.infer([ones(3)])
        with pytest.raises(StepFailed):
            await engine.infer([ones(1, 7)])
        await engine.close(5)
        assert (observed.batches, observed.failures) == ([1, 1, 1], 1)

    run(test())


def test_failing_observer_stops_nothing(caplog):
    class Broken(Observed):
        def tick(self, batch: int, seconds: float, steps: int) -> None:
            raise RuntimeError("broken")

        def batch(self, wait: float, seconds: float) -> None:
            raise RuntimeError("broken")

        def answer(self, commit: float, deliver: float) -> None:
            raise RuntimeError("broken")

        def failure(self) -> None:
            raise RuntimeError("broken")

    async def test() -> None:
        backend = FakeBackend(before_step=raise_on(7, OSError()))
        engine = Engine("fake", Arenas(backend, states()), 8, 64, Broken())
        engine.start()
        with pytest.raises(StepFailed, match="OSError"):
            await engine.infer([ones(1, 7)])
        assert (await engine.infer([ones(3)]))[0].outputs[-1, 0] == 3
        await engine.close(1)

    run(test())
    assert "an observer failed" in caplog.text


def test_failing_journal_fails_its_runs_only():
    class Broken(Ledger):
        def commit(self, entries: Sequence[object], done: Callable[..., None]) -> None:
            raise RuntimeError("broken")

    async def test() -> None:
        async with engine_over(FakeBackend(), journal=Broken()) as engine:
            slot = await engine.open()
            with pytest.raises(StoreFailed) as failure:
                await step(engine, slot, ones(1), entry=0)
            assert failure.value.in_doubt
            assert (await engine.infer([ones(3)]))[0].outputs[-1, 0] == 3

    run(test())


def test_done_of_a_journal_counts_once():
    class Twice(Ledger):
        def commit(self, entries: Sequence[object], done: Callable[..., None]) -> None:
            done([None] * len(entries))
            raise RuntimeError("broken")

    async def test() -> None:
        async with engine_over(FakeBackend(), journal=Twice()) as engine:
            slot = await engine.open()
            for expected in (1, 2):
                assert (await step(engine, slot, ones(1), entry=0)).outputs[0, 0] == expected
            await engine.read(slot)
            assert engine.sequences == 0

    run(test())


def test_read_only_inputs_are_stepped():
    """Inputs decoded from msgpack cannot be written to, and no caller expects its arrays to change."""

    async def test() -> None:
        async with engine_over(FakeBackend(prompt=True)) as engine:
            inputs = ones(3)
            inputs.flags.writeable = False
            slot = await engine.open()
            assert (await step(engine, slot, inputs)).outputs[-1, 0] == 3
            assert [result.outputs[-1, 0] for result in await engine.infer([inputs, inputs[:2]])] == [3, 2]

    run(test())


def test_engine_refuses_calls_from_another_thread():
    async def test() -> None:
        async with engine_over(FakeBackend()) as engine:
            with pytest.raises(AssertionError, match="only the event loop's thread"):
                await asyncio.to_thread(asyncio.run, engine.open())

    run(test())


def test_overflowing_row_costs_no_second_step():
    """All rows are stepped once, also those beside the failed one."""

    async def test() -> None:
        gate = Gate()
        backend = FakeBackend(before_step=gate)
        async with engine_over(backend) as engine:
            slots = [await engine.open(state={"total": ones(1, value)[0]}) for value in (1, 3e38, 2)]
            jobs = [
                asyncio.ensure_future(step(engine, slot, ones(1, 3e38 if n == 1 else 1)))
                for n, slot in enumerate(slots)
            ]
            await asyncio.to_thread(gate.reached.wait)
            gate.open()
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Result, NonFiniteOutput, Result]
            assert (await engine.read(slots[1]))["total"].tolist() == np.float32([3e38, 3e38]).tolist()
        assert sorted(slot for step in backend.steps for slot in step) == [0, 1, 2]

    run(test())


class Losing(FakeBackend):
    """A back end that steps half of a batch with a 7 among its inputs, and then fails."""

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        if (inputs == 7).any():
            super().step(slots[::2], inputs[::2], trace)
            raise self.slots.lost_batch(slots) from MemoryError()
        return super().step(slots, inputs, trace)


def test_lost_batch_is_in_doubt_and_not_stepped_again():
    async def test() -> None:
        gate = Gate()
        backend = Losing(before_step=gate)
        async with engine_over(backend) as engine:
            first = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.to_thread(gate.reached.wait)
            jobs = [asyncio.ensure_future(engine.infer([ones(1, value)])) for value in (1, 7, 1)]
            await asyncio.sleep(0.05)
            gate.open()
            outcomes = await asyncio.gather(first, *jobs, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [list] + [OutOfMemory] * 3
            assert all(error.in_doubt for error in outcomes[1:])
        assert [len(slots) for slots in backend.steps] == [1, 2]

    run(test())


def test_lost_slot_is_in_doubt_unless_restored():
    async def test() -> None:
        async with engine_over(Losing()) as engine:
            slot = await engine.open()
            with pytest.raises(OutOfMemory) as failure:
                await step(engine, slot, np.concatenate([ones(2), ones(1, 7)]))
            assert not failure.value.in_doubt
            assert (await step(engine, slot, ones(1))).outputs[0, 0] == 1
            with pytest.raises(OutOfMemory) as failure:
                await step(engine, slot, ones(1, 7))
            assert failure.value.in_doubt
            with pytest.raises(StepFailed, match="StateLost"):
                await step(engine, slot, ones(1))

    run(test())


def test_failed_undo_is_in_doubt_and_stops_nothing():
    class Unwritable(FakeBackend):
        def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
            if state is not None:
                raise OSError("broken")
            super().write(slot, state)

    async def test() -> None:
        async with engine_over(Unwritable(before_step=raise_on(7, ValueError()))) as engine:
            slot = await engine.open()
            with pytest.raises(StepFailed) as failure:
                await step(engine, slot, np.concatenate([ones(3), ones(1, 7)]))
            assert failure.value.in_doubt
            assert (await engine.infer([ones(3)]))[0].outputs[-1, 0] == 3

    run(test())


def test_outputs_of_another_shape_fail_their_run():
    class Odd(FakeBackend):
        def step(
            self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()
        ) -> tuple[Array, dict[str, Array]]:
            outputs, traces = super().step(slots, inputs, trace)
            return (outputs.repeat(2, 1) if (inputs == 7).any() else outputs), traces

    async def test() -> None:
        async with engine_over(Odd()) as engine:
            with pytest.raises(StepFailed, match="ValueError"):
                await engine.infer([ones(1, 7)])
            assert (await engine.infer([ones(3)]))[0].outputs[-1, 0] == 3

    run(test())


def test_inputs_of_another_width_fail_alone():
    async def test() -> None:
        gate = Gate()
        async with engine_over(FakeBackend(before_step=gate)) as engine:
            first = asyncio.ensure_future(engine.infer([ones(1)]))
            await asyncio.to_thread(gate.reached.wait)
            wide = np.ones((2, 3), np.float32)
            jobs = [asyncio.ensure_future(engine.infer([inputs])) for inputs in (ones(2), wide, ones(2))]
            await asyncio.sleep(0.05)
            gate.open()
            outcomes = await asyncio.gather(first, *jobs, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [list, list, StepFailed, list]

    run(test())


def test_refused_sequences_leave_nothing_waiting():
    async def test() -> None:
        async with engine_over(FakeBackend(), max_queue=2) as engine:
            for _ in range(10):
                with pytest.raises(QueueFull):
                    await engine.infer([ones(1)] * 3)
            await engine.drain(1)
            for refused in (
                engine.infer([ones(1)]),
                step(engine, Slot(None, 0), ones(1)),
                engine.replay(ones(1), None, None),
            ):
                with pytest.raises(ShuttingDown):
                    await refused
            await engine.close(1)
            engine.drop(Slot(None, 0))
            assert not engine._waiting

    run(test())


def test_hang_while_accepting_a_run_is_given_up():
    gate = Gate()

    class Slow(FakeBackend):
        def read(self, slot: int) -> dict[str, Array]:
            gate(ones(1))
            return super().read(slot)

    async def test() -> None:
        async with engine_over(Slow(), step_timeout=0.1) as engine:
            slot = await engine.open()
            with pytest.raises(StepTimedOut):
                await step(engine, slot, ones(2))
            gate.open()
            await until(lambda: not hangs(engine))
            assert (await engine.infer([ones(2)]))[0].outputs[-1, 0] == 2

    run(test())


def test_released_engine_holds_nothing_of_the_budget():
    async def test() -> None:
        budget = states()
        engine = Engine("fake", Arenas(FakeBackend(), budget), 8, 64, Observed())
        engine.start()
        engine.drop(await engine.open())
        await engine.open()
        await engine.close(1)
        assert budget.used > 0
        engine.release()
        assert (budget.used, engine.spare_bytes) == (0, 0)

    run(test())


def test_broken_engine_refuses_instead_of_hanging(monkeypatch):
    """An error in the worker itself fails waiting and new requests, and a drain returns at once."""

    async def test() -> None:
        engine = Engine("fake", Arenas(FakeBackend(), states()), 8, 64, Observed())
        monkeypatch.setattr(engine._worker, "_tick", lambda: 1 / 0)
        engine.start()
        with pytest.raises(StepFailed, match="has stopped"):
            await engine.infer([ones(3)])
        with pytest.raises(StepFailed, match="has stopped"):
            await engine.open()
        await asyncio.wait_for(engine.drain(1000), 10)
        await engine.close(1)

    run(test())


async def measured(engine: Engine) -> None:
    """Let the worker's thread measure a step, so that the event loop may take the next ones."""
    await engine.infer([ones(1)])
    await until(lambda: not engine._worker._lock.locked())


def threads_of(backend: FakeBackend, also: Callable[[], None] = lambda: None, method: str = "step") -> list[int]:
    """Wrap a method of a back end: return the list of threads that call it from now on; `also` is called there too."""
    threads: list[int] = []
    carry_out = getattr(backend, method)

    def noted(*arguments: Any) -> Any:
        threads.append(threading.get_ident())
        also()
        return carry_out(*arguments)

    setattr(backend, method, noted)
    return threads


def test_short_runs_of_a_prompt_back_end_step_inline():
    async def test() -> None:
        backend = FakeBackend(prompt=True)
        async with engine_over(backend) as engine:
            slots = [await engine.open() for _ in range(3)]
            await measured(engine)
            threads = threads_of(backend)
            results = await asyncio.gather(*(step(engine, slot, ones(2), ["seen"]) for slot in slots))
            assert [result.outputs[:, 0].tolist() for result in results] == [[1, 2]] * 3
            assert [len(slots) for slots in backend.steps[-2:]] == [3, 3]
            assert (await engine.replay(ones(2), None, None)).state["total"].tolist() == [2, 2]
        assert set(threads) == {threading.get_ident()}

    run(test())


@pytest.mark.parametrize("reason", ["not prompt", "not measured", "long", "a state to write", "no room", "busy"])
def test_runs_are_handed_over_if_the_loop_would_wait(reason):
    async def test() -> None:
        backend = FakeBackend(prompt=reason != "not prompt")
        async with engine_over(backend) as engine:
            if reason != "not measured":
                await measured(engine)
            threads = threads_of(backend)
            if reason == "long":
                engine._worker._scheduler.pace.note(None, 1, 1, 1e6)
            if reason == "no room":
                await engine.open()
                await until(lambda: not engine._worker._lock.locked())
            if reason == "busy":
                engine._worker._lock.acquire()
                engine._loop.call_later(0.05, engine._worker._lock.release)
            start = {"total": ones(1)[0]} if reason == "a state to write" else None
            result, _ = await engine.replay(ones(2), start, None)
            assert result.outputs[-1, 0] == (3 if start else 2)
        assert threading.get_ident() not in threads

    run(test())


def test_runs_with_many_bytes_to_open_are_handed_over():
    async def test() -> None:
        backend = FakeBackend(prompt=True)
        async with engine_over(backend, max_bytes=2**22) as engine:
            await engine.infer([ones(1)] * 4)
            await measured(engine)
            backend.spec.__dict__["state_bytes"] = PROMPT_BYTES // 3
            threads = threads_of(backend)
            await engine.infer([ones(1)] * 3)
            assert set(threads) == {threading.get_ident()}
            await engine.infer([ones(1)] * 4)
        assert threads[-1] != threading.get_ident()

    run(test())


def test_run_slower_than_expected_leaves_the_event_loop():
    async def test() -> None:
        backend = FakeBackend(prompt=True)
        async with engine_over(backend) as engine:
            await measured(engine)
            threads = threads_of(backend, lambda: time.sleep(2 * MOST_PROMPT_SECONDS))
            [result] = await engine.infer([ones(3)], ["seen"])
            assert result.outputs[:, 0].tolist() == [1, 2, 3]
            assert len(await engine.infer([ones(1)])) == 1
        assert [thread == threading.get_ident() for thread in threads[:3]] == [True, False, False]

    run(test())


def test_runs_slow_to_accept_leave_the_event_loop():
    async def test() -> None:
        backend = FakeBackend(prompt=True)
        async with engine_over(backend) as engine:
            await engine.infer([ones(1)] * 4)
            await measured(engine)
            opened = threads_of(backend, lambda: time.sleep(2 * MOST_PROMPT_SECONDS), "open")
            assert [result.outputs[0, 0] for result in await engine.infer([ones(1)] * 3)] == [1, 1, 1]
        assert [thread == threading.get_ident() for thread in opened] == [True, False, False]

    run(test())


def test_common_steps_of_a_batch_are_one_call():
    async def test() -> None:
        backend = FakeBackend(prompt=True)
        calls: list[tuple[int, ...]] = []
        take = backend.run
        backend.run = lambda slots, inputs: calls.append(inputs.shape) or take(slots, inputs)  # type: ignore[method-assign, func-returns-value]
        async with engine_over(backend) as engine:
            await measured(engine)
            results = await engine.infer([ones(6), ones(4), ones(1)])
            assert [result.outputs[:, 0].tolist() for result in results] == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4], [1]]
        assert calls == [(2, 3, 2), (1, 2, 2)]

    run(test())


@pytest.mark.parametrize("inline", [False, True])
def test_row_failing_within_a_call_names_its_step(inline):
    async def test() -> None:
        backend = FakeBackend(prompt=True)
        async with engine_over(backend) as engine:
            slots = [await engine.open(), await engine.open()]
            await measured(engine)
            if not inline:
                engine._worker._scheduler.pace.note(None, 1, 1, 0.1)
            spoiled = np.concatenate([ones(3), ones(2, 3e38), ones(3)])
            good, failed = await asyncio.gather(
                step(engine, slots[0], ones(8)), step(engine, slots[1], spoiled), return_exceptions=True
            )
            assert isinstance(failed, NonFiniteOutput)
            assert (failed.more["step_of_sequence"], failed.in_doubt) == (4, False)
            assert isinstance(good, Result)
            assert good.outputs[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
            assert (await engine.read(slots[1]))["total"].tolist() == [0, 0]

    run(test())


def test_rows_of_one_run_succeed_and_fail_alone():
    async def test() -> None:
        ledger = Ledger()
        async with engine_over(FakeBackend(prompt=True), journal=ledger) as engine:
            slots = [(await engine.open()).number for _ in range(3)]
            outcome: asyncio.Future[Results] = engine._loop.create_future()
            inputs = np.stack([ones(3), np.concatenate([ones(1), ones(2, 3e38)]), ones(3)])
            engine.submit([Run(slots, None, inputs, ["seen"], outcome.set_result, entries=["a", "b", "c"])])
            await until(lambda: ledger.groups)
            [(entries, done)] = ledger.groups
            assert (entries, outcome.done()) == (["a", "c"], False)
            done([None, StoreFailed("full")])
            results = await outcome
            assert {row: type(error) for row, error in results.errors.items()} == {1: NonFiniteOutput, 2: StoreFailed}
            assert results.row(0).outputs[:, 0].tolist() == [1, 2, 3]
            assert results.trace["seen"].shape == (3, 3, 2)
            assert engine.sequences == 0

    run(test())


@pytest.mark.parametrize("steps", [1, 3])
def test_rows_of_a_failed_batch_step_with_own_inputs(steps):
    async def test() -> None:
        backend = FakeBackend(prompt=True, before_step=raise_on(7, RuntimeError()))
        async with engine_over(backend) as engine:
            await measured(engine)
            slots = [(await engine.open()).number for _ in range(3)]
            outcome: asyncio.Future[Results] = engine._loop.create_future()
            inputs = np.stack([ones(steps), ones(steps, 7), ones(steps, 2)])
            engine.submit([Run(slots, None, inputs, (), outcome.set_result)])
            results = await outcome
            assert {row: type(error) for row, error in results.errors.items()} == {1: StepFailed}
            assert [results.row(row).outputs[-1].tolist() for row in (0, 2)] == [[steps] * 2, [2 * steps] * 2]
            totals = [(await engine.read(Slot(None, slot)))["total"].tolist() for slot in slots]
            assert totals == [[steps] * 2, [0, 0], [2 * steps] * 2]

    run(test())


def test_runs_during_a_commit_step_together_after_it():
    async def test() -> None:
        ledger, backend = Ledger(), FakeBackend(prompt=True)
        async with engine_over(backend, journal=ledger) as engine:
            slots = [await engine.open() for _ in range(4)]
            await measured(engine)
            jobs = [asyncio.ensure_future(step(engine, slots[0], ones(1), entry=0))]
            await until(lambda: ledger.groups)
            for slot in slots[1:]:
                jobs.append(asyncio.ensure_future(step(engine, slot, ones(1), entry=1)))
                await asyncio.sleep(0.001)
            assert (await engine.infer([ones(1)]))[0].outputs[0, 0] == 1, "a run without entries does not wait"
            ledger.groups.pop()[1]([None])
            await until(lambda: ledger.groups)
            ledger.groups.pop()[1]([None] * 3)
            await asyncio.gather(*jobs)
        assert [len(slots) for slots in backend.steps] == [1, 1, 1, 3]

    run(test())


def test_run_waits_for_one_commit_only():
    """Sequences that end one after the other may keep the journal busy without a break."""

    async def test() -> None:
        ledger = Ledger()
        async with engine_over(FakeBackend(), journal=ledger) as engine:
            slots = [await engine.open() for _ in range(3)]
            jobs = [asyncio.ensure_future(step(engine, slot, ones(1 + n), entry=n)) for n, slot in enumerate(slots[:2])]
            await until(lambda: len(ledger.groups) == 2)
            late = asyncio.ensure_future(step(engine, slots[2], ones(1), entry=2))
            await asyncio.sleep(0.01)
            assert len(ledger.groups) == 2
            ledger.groups[0][1]([None])
            await until(lambda: len(ledger.groups) == 3)
            for _, done in ledger.groups[1:]:
                done([None])
            await asyncio.gather(*jobs, late)

    run(test())


def test_lingering_steps_wait_for_half_of_the_sessions():
    async def test() -> None:
        backend = FakeBackend()
        async with engine_over(backend, linger=1.0) as engine:
            slots = [await engine.open() for _ in range(4)]
            await asyncio.gather(*(step(engine, slot, ones(1)) for slot in slots))
            before = len(backend.steps)
            first = asyncio.ensure_future(step(engine, slots[0], ones(1)))
            await asyncio.sleep(0.02)
            assert len(backend.steps) == before
            await asyncio.gather(first, step(engine, slots[1], ones(1)))
            assert [len(slots) for slots in backend.steps[before:]] == [2]

    run(test())


def test_lingering_step_is_taken_after_its_time():
    async def test() -> None:
        async with engine_over(FakeBackend(), linger=0.02) as engine:
            slots = [await engine.open() for _ in range(4)]
            await asyncio.gather(*(step(engine, slot, ones(1)) for slot in slots))
            assert (await step(engine, slots[0], ones(1))).outputs[0, 0] == 2
            lingering = asyncio.ensure_future(step(engine, slots[0], ones(1)))
            await asyncio.sleep(0)
        assert (await lingering).outputs[0, 0] == 3, "closing the engine ends the lingering"

    run(test())


def test_failing_receiver_of_an_outcome_stops_nothing(caplog):
    async def test() -> None:
        async with engine_over(FakeBackend()) as engine:
            engine.submit([Run(None, None, np.ones((1, 1, 2), np.float32), (), lambda _: 1 / 0)])
            assert (await engine.infer([ones(3)]))[0].outputs[-1, 0] == 3
            assert engine.sequences == 0

    run(test())
    assert "division by zero" in caplog.text
