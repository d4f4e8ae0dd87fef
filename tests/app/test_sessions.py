"""The life of a session, over a back end whose arithmetic anyone can follow and a clock that tests move."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from app.backends.fake import FakeBackend
from app.catalogue import InputFormat, ModelCatalogue, ServedModel
from app.engine.arenas import Arenas
from app.engine.engine import Engine
from app.errors import (
    QueueFull,
    SequenceConflict,
    SessionGone,
    SessionNotFound,
    SessionsFull,
    StepConflict,
    StepFailed,
    StoreFailed,
)
from app.memory import MemorySizes
from app.metrics import Metrics
from app.sessions import Duplicate, SessionService, Stepped
from app.stores.memory import MemoryStore
from models.manifest import Manifest

MANIFEST = Manifest("fake", {}, {}, 2, 2, 0, {"total": [2]}, {"seen": [2]}, "")
IDLE = 100.0
MAX_STATE_BYTES = 400
MAX_TRACE_BYTES = 4000


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class FailingStore(MemoryStore):
    def add(self, session: str, model: str) -> None:
        raise StoreFailed("disk full")


@asynccontextmanager
async def service(
    clock: Clock | None = None, backend: FakeBackend | None = None, store: MemoryStore | None = None
) -> AsyncIterator[SessionService]:
    backend, metrics = backend or FakeBackend(capacity=4), Metrics()
    engine = Engine("fake", Arenas(backend, 2**20), 8, 64, metrics.engine("fake"))
    engine.start()
    memory = MemorySizes("fake", backend.spec, 1, MAX_STATE_BYTES)
    model = ServedModel(
        "fake", MANIFEST, InputFormat(2), 1, backend.spec, memory, MAX_TRACE_BYTES, engine, "fake", "cpu"
    )
    models = ModelCatalogue({"fake": model}, {})
    try:
        yield SessionService(models, store or MemoryStore(), metrics, 3, 8, IDLE, clock or Clock())
    finally:
        await engine.close(5)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def ones(steps: int) -> "np.ndarray[Any, Any]":
    return np.ones((steps, 2), np.float32)


def test_session_counts_its_steps():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            assert (await sessions.step(session.id, ones(3))).step == 3
            result, step = await sessions.step(session.id, ones(2), if_step=3)
            assert (result.outputs[-1, 0], step, session.step) == (5, 5, 5)
            assert (await sessions.state(session.id))[1]["total"].tolist() == [5, 5]

    run(test())


def test_if_step_is_checked_when_the_turn_comes():
    """Two clients that both saw step 0: the second is refused, although it asked before the first was done."""

    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            jobs = [sessions.step(session.id, ones(4), if_step=0) for _ in range(2)]
            first, second = await asyncio.gather(*jobs, return_exceptions=True)
            assert isinstance(first, Stepped)
            assert isinstance(second, StepConflict)
            assert second.more["step"] == 4

    run(test())


def test_frames_are_carried_out_once_and_in_order():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            first = await sessions.step_frame(session.id, ones(1), (), 5)
            second = await sessions.step_frame(session.id, ones(2), (), 6)
            assert await sessions.step_frame(session.id, ones(2), (), 6) is second
            assert await sessions.step_frame(session.id, ones(1), (), 5) == Duplicate(3)
            with pytest.raises(SequenceConflict, match="frame 8 came after frame 6"):
                await sessions.step_frame(session.id, ones(1), (), 8)
            assert (first.step, session.step) == (1, 3)

    run(test())


def test_frame_resent_while_it_is_carried_out_waits_for_its_result():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            jobs = [sessions.step_frame(session.id, ones(50), (), 0) for _ in range(3)]
            results = await asyncio.gather(*jobs)
            assert (results[1] is results[0], results[2] is results[0], session.step) == (True, True, 50)

    run(test())


def test_failed_frame_may_be_sent_again():
    failures = [OSError()]

    def fail_once(inputs: object) -> None:
        if failures:
            raise failures.pop()

    async def test() -> None:
        async with service(backend=FakeBackend(before_step=fail_once)) as sessions:
            session = await sessions.open("fake")
            with pytest.raises(StepFailed):
                await sessions.step_frame(session.id, ones(1), (), 0)
            assert (await sessions.step_frame(session.id, ones(1), (), 0)).step == 1

    run(test())


def test_settled_session_tells_what_was_asked_before():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            stepping = asyncio.ensure_future(sessions.step_frame(session.id, ones(100), (), 3))
            await asyncio.sleep(0)
            settled = await sessions.settled(session.id)
            assert (settled.step, settled.seq) == (100, 3)
            await stepping

    run(test())


def test_cancelled_step_is_carried_out_and_counted():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            job = asyncio.ensure_future(sessions.step(session.id, ones(100)))
            await asyncio.sleep(0)
            job.cancel()
            assert (await sessions.settled(session.id)).step == 100

    run(test())


def test_reset_forgets_steps_and_frames():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            await sessions.step_frame(session.id, ones(2), (), 0)
            await sessions.reset(session.id)
            assert (session.step, session.seq) == (0, None)
            assert (await sessions.step_frame(session.id, ones(1), (), 0)).step == 1

    run(test())


def test_sessions_beyond_the_limit_are_refused_until_one_ends():
    async def test() -> None:
        async with service() as sessions:
            opened = [await sessions.open("fake") for _ in range(3)]
            with pytest.raises(SessionsFull, match="3 sessions of fake"):
                await sessions.open("fake")
            await sessions.delete(opened[0].id)
            assert (await sessions.open("fake")).slot == opened[0].slot

    run(test())


def test_session_that_cannot_be_written_down_is_not_opened():
    async def test() -> None:
        async with service(store=FailingStore()) as sessions:
            for _ in range(5):
                with pytest.raises(StoreFailed):
                    await sessions.open("fake")
            assert sessions.all() == []

    run(test())


def test_idle_sessions_expire_and_used_ones_do_not():
    async def test() -> None:
        clock = Clock()
        async with service(clock) as sessions:
            idle, used = await sessions.open("fake"), await sessions.open("fake")
            clock.now = 60
            await sessions.step(used.id, ones(1))
            assert (sessions.expires_in(idle), sessions.expires_in(used)) == (40, 100)
            clock.now = 101
            await sessions.expire_idle()
            assert sessions.all() == [used]
            with pytest.raises(SessionGone) as gone:
                sessions.get(idle.id)
            assert gone.value.more["reason"] == "expired"
            assert idle.ended.done()

    run(test())


def test_expired_session_gives_its_slot_back():
    async def test() -> None:
        clock = Clock()
        async with service(clock, FakeBackend(capacity=1)) as sessions:
            for _ in range(3):
                await sessions.open("fake")
                clock.now += IDLE + 1
                await sessions.expire_idle()

    run(test())


def test_session_at_work_for_long_is_the_most_recently_used_when_it_is_done():
    """The other one is used while it works: after that it has been idle for longer."""
    clock, other_is_done = Clock(), threading.Event()

    def last_step_comes_late(inputs: "np.ndarray[Any, Any]") -> None:
        if (inputs == 7).any():
            assert other_is_done.wait(10)
            clock.now = 90

    async def test() -> None:
        async with service(clock, FakeBackend(before_step=last_step_comes_late)) as sessions:
            busy, idle = await sessions.open("fake"), await sessions.open("fake")
            working = asyncio.ensure_future(sessions.step(busy.id, np.concatenate([ones(300), 7 * ones(1)])))
            await sessions.step(idle.id, ones(1))
            other_is_done.set()
            await working
            clock.now = 115
            await sessions.expire_idle()
            assert sessions.all() == [busy]

    run(test())


def test_requests_that_wait_for_a_session_are_bounded():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            jobs = [asyncio.ensure_future(sessions.step(session.id, ones(50))) for _ in range(1)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            jobs += [asyncio.ensure_future(sessions.step(session.id, ones(1))) for _ in range(12)]
            results = await asyncio.gather(*jobs, return_exceptions=True)
            assert [type(result) for result in results] == [Stepped] * 9 + [QueueFull] * 4
            assert (session.step, sessions.waiting("fake")) == (58, 0)

    run(test())


def test_session_at_work_does_not_expire():
    async def test() -> None:
        clock = Clock()
        async with service(clock) as sessions:
            session = await sessions.open("fake")
            stepping = asyncio.ensure_future(sessions.step(session.id, ones(200)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert session.turn.locked()
            clock.now = 1000
            await sessions.expire_idle()
            assert (await stepping).step == 200
            assert sessions.all() == [session]

    run(test())


def test_delete_waits_for_its_turn_and_refuses_those_behind_it():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            jobs = [
                sessions.step(session.id, ones(20)),
                sessions.delete(session.id),
                sessions.step(session.id, ones(1)),
            ]
            before, deleted, after = await asyncio.gather(*jobs, return_exceptions=True)
            assert isinstance(before, Stepped)
            assert (before.step, deleted) == (20, None)
            assert isinstance(after, SessionGone)
            with pytest.raises(SessionNotFound):
                sessions.get("another")

    run(test())
