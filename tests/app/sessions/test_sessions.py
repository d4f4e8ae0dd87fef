"""The life of a session, over a back end whose arithmetic anyone can follow and a clock that tests move."""

import asyncio
import gc
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.datastructures import State
from starlette.types import Message
from starlette.websockets import WebSocket

from app.access.keys import SCOPES, Caller, KeyLimits
from app.api import channel, codec
from app.api.decoders import Decoders
from app.api.stream import Stream, Streams
from app.backends.base import Array
from app.backends.fake import FakeBackend
from app.catalogue import InputFormat, MemorySizes, ModelCatalogue, ServedModel
from app.engine.arenas import Arenas
from app.engine.engine import Engine
from app.errors import (
    IdempotencyConflict,
    InternalError,
    InvalidKey,
    InvalidRequest,
    NonFiniteOutput,
    OutOfMemory,
    QueueFull,
    SequenceConflict,
    SessionDamaged,
    SessionGone,
    SessionHeld,
    SessionNotFound,
    SessionsFull,
    ShuttingDown,
    StepConflict,
    StepFailed,
    StepNotKept,
    StoreFailed,
)
from app.main import close
from app.metrics import Metrics
from app.protocols import websocket
from app.sessions.ending import EXPIRED_AT_ONCE
from app.sessions.residents import Residents
from app.sessions.service import Limits, SessionService
from app.sessions.session import Session, Stepped, Steps, Turn
from app.settings import Settings
from app.stores.base import EndReason, Record, Store
from app.stores.memory import MemoryStore
from app.stores.ownership import Ownership
from app.stores.writer import Durability, Writer
from models.manifest import Manifest
from tests.app.asynchronous import run, until
from tests.app.budgets import budgets, states
from tests.app.sessions.by_id import ById

MANIFEST = Manifest("fake", {}, {}, 2, 2, 0, {"total": [2]}, {"seen": [2]}, "")
IDLE = 100.0
MAX_STATE_BYTES = 400
MAX_TRACE_BYTES = 4000
ANYONE = Caller("default", frozenset(SCOPES))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class FailingStore(MemoryStore):
    """Fails in what is in `failing`, as a full disk does."""

    failing: frozenset[str] = frozenset()

    def __getattribute__(self, name: str) -> Any:
        if name in super().__getattribute__("failing"):
            raise StoreFailed("disk full")
        return super().__getattribute__(name)


@asynccontextmanager
async def service(
    clock: Clock | None = None,
    backend: FakeBackend | None = None,
    store: Store | None = None,
    durability: Durability = "ack",
    snapshots: float | None = None,
    resident: int = 3,
    opened: int = 3,
    step_timeout: float = math.inf,
    ownership: Ownership | None = None,
) -> AsyncIterator[ById]:
    """A service over a store that is closed with it; a second one over the same directory is a server's restart."""
    backend, metrics = backend or FakeBackend(capacity=8), Metrics()
    store = store or MemoryStore()
    counts, tenants = store.counts(), store.tenants()
    writer = Writer(store, metrics, durability, 0.01, 1)
    engine = Engine("fake", Arenas(backend, states()), 8, 64, metrics.engine("fake"), writer, step_timeout)
    engine.start()
    writer.start()
    memory = MemorySizes("fake", backend.spec, 1, MAX_STATE_BYTES)
    model = ServedModel(
        name="fake",
        manifest=MANIFEST,
        inputs=InputFormat(2),
        output_groups=1,
        spec=backend.spec,
        memory=memory,
        backend="fake",
        device="cpu",
        max_trace_bytes=MAX_TRACE_BYTES,
        engine=engine,
    )
    limits = Limits(sessions=opened, resident=resident, waiting=8, idle_timeout=IDLE)
    sessions = ById(
        SessionService(
            ModelCatalogue({"fake": model}, {}),
            writer,
            metrics,
            limits,
            clock or Clock(),
            counts,
            tenants,
            durability,
            {} if snapshots is None else {"fake": snapshots},
            ownership,
        )
    )
    try:
        yield sessions
    finally:
        await sessions.close(5)
        await engine.close(5)
        await writer.close()


def ones(steps: int) -> "np.ndarray[Any, Any]":
    return np.ones((steps, 2), np.float32)


class Losing(FakeBackend):
    """Fails midway through a batch that has a seven among its inputs: no state of the batch is known then."""

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        outcome = super().step(slots, inputs, trace)
        if (inputs == 7).any():
            raise self.slots.lost_batch(slots) from MemoryError()
        return outcome


def test_sessions_of_a_lost_batch_are_restored_from_the_log():
    async def test() -> None:
        async with service(backend=Losing(capacity=8)) as sessions:
            names = [(await sessions.open("fake")).id for _ in range(3)]
            for name in names:
                await sessions.step(name, ones(2))
            jobs = [sessions.step(name, ones(1) * (7 if name is names[1] else 1)) for name in names]
            told = await asyncio.gather(*jobs, return_exceptions=True)
            for name, outcome in zip(names, told, strict=True):
                reached = 3 if isinstance(outcome, Stepped) else 2
                assert isinstance(outcome, (Stepped, OutOfMemory))
                assert (await sessions.step(name, ones(1))).result.outputs[0, 0] == reached + 1

    run(test())


def test_id_of_a_session_never_looks_like_an_option(monkeypatch):
    names = iter(["-a", "-b", "c-"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda size: next(names))

    async def test() -> None:
        async with service() as sessions:
            assert (await sessions.open("fake")).id == "c-"

    run(test())


def test_volatile_session_of_a_lost_batch_is_gone():
    async def test() -> None:
        async with service(backend=Losing(capacity=8), durability="none") as sessions:
            session = await sessions.open("fake")
            await sessions.step(session.id, ones(2))
            with pytest.raises(OutOfMemory):
                await sessions.step(session.id, ones(1) * 7)
            with pytest.raises(SessionGone, match="lost in a failure"):
                await sessions.step(session.id, ones(1))

    run(test())


async def step_all(sessions: ById, asked: Sequence[tuple[str, Steps]]) -> list[Any]:
    """Step many sessions; return the step and the last output of each, or the kind of its error."""
    found = [(sessions.turns.shared(await sessions.find(session)), steps) for session, steps in asked]
    answers: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    sessions.submit_all(found, answers.set_result)
    return [
        (answer.step, answer.result.outputs[-1, 0]) if isinstance(answer, Stepped) else type(answer)
        for answer in await answers
    ]


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("durability", ["ack", "interval", "none"])
def test_sessions_stepped_together_get_their_own_results(durability, prompt):
    async def test() -> None:
        backend = FakeBackend(capacity=8, prompt=prompt)
        async with service(backend=backend, durability=durability, resident=4, opened=6) as sessions:
            names = [(await sessions.open("fake")).id for _ in range(5)]
            one, two = Steps(ones(1)), Steps(ones(2))
            asked = [(name, one) for name in names[:4]]
            assert await step_all(sessions, asked) == [(1, 1)] * 4, "each of them is waked"
            before = len(backend.steps)
            assert await step_all(sessions, asked) == [(2, 2)] * 4
            assert [len(slots) for slots in backend.steps[before:]] == [4]
            mixed = [(names[0], two), (names[4], one), (names[1], two), (names[0], one), (names[2], one)]
            assert await step_all(sessions, mixed) == [(4, 4), (1, 1), (4, 4), (5, 5), (3, 3)]
            assert await step_all(sessions, []) == []

    run(test())


class WaitingStore(MemoryStore):
    """Finds no session before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_find = threading.Event()

    def find(self, session: str) -> Record | EndReason | None:
        assert self.may_find.wait(10)
        return super().find(session)


def test_session_evicted_during_a_look_up_is_found():
    async def test() -> None:
        store = WaitingStore()
        async with service(store=store) as sessions:
            store.may_find.set()
            names = [(await sessions.open("fake")).id for _ in range(2)]
            await sessions.step(names[0], ones(1))
            store.may_find.clear()
            looking = asyncio.ensure_future(sessions.turns.find_all([*names, names[0]]))
            await asyncio.sleep(0)
            assert await sessions.residents.try_evict(sessions.known[names[0]])
            assert not sessions.known
            store.may_find.set()
            found = await looking
            assert [type(session) for session in found] == [Session] * 3
            assert await step_all(sessions, [(name, Steps(ones(1))) for name in names]) == [(2, 2), (1, 1)]

    run(test())


def test_failures_among_many_sessions_are_their_own():
    async def test() -> None:
        async with service(resident=6, opened=6) as sessions:
            names = [(await sessions.open("fake")).id for _ in range(5)]
            await step_all(sessions, [(name, Steps(ones(1), seq=0)) for name in names])
            spoiled = np.full((2, 2), 3e38, np.float32)
            asked = [Steps(ones(2), if_step=1), Steps(ones(2), if_step=7), Steps(spoiled), Steps(ones(2), seq=4)]
            told = await step_all(sessions, [*zip(names, [*asked, Steps(ones(2), seq=0)], strict=True)])
            assert told == [(3, 3), StepConflict, NonFiniteOutput, SequenceConflict, (1, 1)]
            assert [(await sessions.info(name)).step for name in names] == [3, 1, 1, 1, 1]
            assert await step_all(sessions, [(name, Steps(ones(1))) for name in names]) == [(4, 4)] + [(2, 2)] * 4

    run(test())


def test_sessions_whose_steps_cannot_be_written_stay_at_their_step():
    async def test() -> None:
        store = FailingStore()
        async with service(store=store) as sessions:
            asked = [((await sessions.open("fake")).id, Steps(ones(1))) for _ in range(3)]
            await step_all(sessions, asked)
            store.failing = frozenset({"append"})
            assert await step_all(sessions, asked) == [StoreFailed] * 3
            store.failing = frozenset()
            assert await step_all(sessions, asked) == [(2, 2)] * 3

    run(test())


def test_turns_come_in_order_and_pass_over_cancelled_requests():
    async def test() -> None:
        turn, had = Turn(), []

        async def have(name: str) -> None:
            async with turn:
                had.append(name)
                await asyncio.sleep(0)

        turn.take()
        jobs = [asyncio.ensure_future(have(name)) for name in "abcd"]
        await asyncio.sleep(0)
        jobs[0].cancel()
        turn.leave()
        jobs[1].cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        assert (had, turn.taken) == (["c", "d"], False)

    run(test())


def test_session_counts_its_steps():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            assert (await sessions.step(session.id, ones(3))).step == 3
            result, step = await sessions.step(session.id, ones(2), if_step=3)
            assert (result.outputs[-1, 0], step, (await sessions.info(session.id)).step) == (5, 5, 5)
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
            again = await sessions.step_frame(session.id, ones(1), ("seen",), 5)
            assert isinstance(first, Stepped)
            assert isinstance(again, Stepped)
            assert (again.step, again.result.outputs.tolist()) == (1, first.result.outputs.tolist())
            assert again.result.trace["seen"].tolist() == [[1, 1]]
            with pytest.raises(SequenceConflict, match="frame 8 came after frame 6"):
                await sessions.step_frame(session.id, ones(1), (), 8)
            assert (first.step, (await sessions.info(session.id)).step) == (1, 3)

    run(test())


def test_frame_resent_during_its_step_waits_for_its_result():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            jobs = [sessions.step_frame(session.id, ones(50), (), 0) for _ in range(3)]
            results = await asyncio.gather(*jobs)
            assert (results[1] is results[0], results[2] is results[0], results[0].step) == (True, True, 50)

    run(test())


def test_large_result_of_a_frame_is_not_kept(monkeypatch):
    monkeypatch.setattr("app.sessions.session.KEPT_RESULT_BYTES", 8)

    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            large = await sessions.step_frame(session.id, ones(3), (), 1)
            again = await sessions.step_frame(session.id, ones(3), (), 1)
            assert isinstance(again, Stepped)
            assert (again is large, again.step, again.result.outputs[:, 0].tolist()) == (False, 3, [1, 2, 3])

    run(test())


def test_frame_sent_again_with_too_many_traces_is_refused():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            await sessions.step_frame(session.id, ones(MAX_TRACE_BYTES // 8 + 1), (), 0)
            with pytest.raises(InvalidRequest, match="at most 4000 are given at a time"):
                await sessions.step_frame(session.id, ones(1), ("seen",), 0)
            again = await sessions.step_frame(session.id, ones(1), (), 0)
            assert again.step == MAX_TRACE_BYTES // 8 + 1

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


def test_watched_session_has_carried_out_earlier_requests():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            stepping = asyncio.ensure_future(sessions.step_frame(session.id, ones(100), (), 3))
            await asyncio.sleep(0)
            async with sessions.watching(session.id) as settled:
                assert (settled.step, settled.seq) == (100, 3)
            await stepping

    run(test())


def test_cancelled_step_is_carried_out_and_counted():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            async with sessions.watching(session.id):
                job = asyncio.ensure_future(sessions.step(session.id, ones(100)))
                await asyncio.sleep(0)
                job.cancel()
            assert (await sessions.info_in_turn(session.id)).step == 100

    run(test())


def test_reset_forgets_steps_and_frames():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            await sessions.step_frame(session.id, ones(2), (), 0)
            assert (await sessions.reset(session.id)).step == 0
            async with sessions.watching(session.id) as watched:
                assert watched.seq is None
            assert (await sessions.step_frame(session.id, ones(1), (), 0)).step == 1

    run(test())


def test_session_in_place_of_another_is_opened_at_the_limit():
    async def test() -> None:
        async with service(opened=1) as sessions:
            opening, model = sessions.service.opening, sessions.service._models.get("fake")
            first = await opening.begin(model, None, "key", "a-")

            async def end_first() -> None:
                await sessions.delete(first.id)
                with pytest.raises(SessionsFull):
                    await sessions.open("fake")

            second = await opening.begin(model, None, "key", "b-", end_before=end_first)
            assert [info.id for info in await sessions.all(None, 10)] == [second.id]
            await sessions.delete(second.id)
            await sessions.open("fake")

    run(test())


def test_sessions_beyond_the_limit_are_refused_until_one_ends():
    async def test() -> None:
        async with service() as sessions:
            opened = [await sessions.open("fake") for _ in range(3)]
            with pytest.raises(SessionsFull, match="3 sessions of fake"):
                await sessions.open("fake")
            await sessions.delete(opened[0].id)
            assert (await sessions.open("fake")).step == 0

    run(test())


def test_sessions_are_listed_though_their_use_cannot_be_written_down():
    async def test() -> None:
        store = FailingStore()
        async with service(store=store) as sessions:
            session = await sessions.open("fake")
            await sessions.step(session.id, ones(2))
            store.failing = frozenset({"touch"})
            assert [(told.id, told.step) for told in await sessions.all(None, 10)] == [(session.id, 2)]

    run(test())


def test_session_that_cannot_be_written_down_is_not_opened():
    async def test() -> None:
        store = FailingStore()
        async with service(store=store) as sessions:
            store.failing = frozenset({"create"})
            for _ in range(5):
                with pytest.raises(StoreFailed):
                    await sessions.open("fake")
            assert await sessions.all(None, 10) == []

    run(test())


def test_step_that_cannot_be_written_down_is_not_taken():
    """The arena's copy is ahead of the log: it is dropped, and the session goes on where the log ends."""

    async def test() -> None:
        store = FailingStore()
        async with service(store=store) as sessions:
            session, other = await sessions.open("fake"), await sessions.open("fake")
            for opened in (session, other):
                await sessions.step(opened.id, ones(2))
            store.failing = frozenset({"append"})
            with pytest.raises(StoreFailed):
                await sessions.step(session.id, ones(3))
            assert (await sessions.state(session.id))[1]["total"].tolist() == [2, 2]
            assert (await sessions.state(other.id))[0] == 2
            store.failing = frozenset()
            assert (await sessions.step(session.id, ones(1), if_step=2)).result.outputs.tolist() == [[3, 3]]

    run(test())


def test_same_key_opens_one_session():
    async def test() -> None:
        async with service() as sessions:
            first, second = await asyncio.gather(*(sessions.open("fake", key="a") for _ in range(2)))
            assert first.id == second.id
            assert (await sessions.open("fake", key="b")).id != first.id
            with pytest.raises(IdempotencyConflict, match="'a' came before with another request"):
                await sessions.fork(first.id, key="a")
            assert len(await sessions.all(None, 10)) == 2
            await sessions.delete(first.id)
            with pytest.raises(SessionGone):
                await sessions.open("fake", key="a")

    run(test())


def test_same_key_returns_its_session_at_the_limit():
    async def test() -> None:
        async with service(opened=3) as sessions:
            first = await sessions.open("fake", key="open")
            data = await sessions.snapshot(first.id)

            fork = await sessions.fork(first.id, key="fork")
            restored = await sessions.open_from(data, key="restore")
            with pytest.raises(SessionsFull):
                await sessions.open("fake")
            assert (await sessions.open("fake", key="open")).id == first.id
            assert (await sessions.fork(first.id, key="fork")).id == fork.id
            assert (await sessions.open_from(data, key="restore")).id == restored.id

    run(test())


def test_same_key_returns_its_fork_though_the_past_is_gone():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, ones(4))
            fork = await sessions.fork(session, 4, key="a")
            await sessions.reset(session)
            await sessions.step(session, ones(1))
            with pytest.raises(StepNotKept):
                await sessions.fork(session, 4)
            assert (await sessions.fork(session, 4, key="a")).id == fork.id
            await sessions.delete(session)
            assert (await sessions.fork(session, 4, key="a")).id == fork.id

    run(test())


def test_idle_sessions_expire_and_used_ones_do_not():
    async def test() -> None:
        clock = Clock()
        async with service(clock) as sessions:
            idle, used = await sessions.open("fake"), await sessions.open("fake")
            clock.now = 60
            await sessions.step(used.id, ones(1))
            async with sessions.watching(used.id) as watched:
                clock.now = 101
                await sessions.expire_idle()
                assert [session.id for session in await sessions.all("fake", 10)] == [used.id]
                assert not watched.ended.done()
            with pytest.raises(SessionGone) as gone:
                await sessions.info(idle.id)
            assert gone.value.more["reason"] == "expired"

    run(test())


def test_any_number_of_idle_sessions_expire_in_one_look():
    async def test() -> None:
        clock = Clock()
        async with service(clock, opened=1000) as sessions:
            for _ in range(2 * EXPIRED_AT_ONCE + 1):
                await sessions.open("fake")
            clock.now = IDLE + 1
            await sessions.expire_idle()
            assert await sessions.all(None, 1000) == []

    run(test())


TROUBLES = {"back end fails": StepFailed("a"), "store fails": StoreFailed("a"), "a bug": ZeroDivisionError("a")}


@pytest.mark.parametrize("trouble", ["deleted meanwhile", *TROUBLES])
def test_trouble_with_one_expired_session_does_not_keep_the_others(trouble, monkeypatch):
    async def test() -> None:
        clock, store = Clock(), FailingStore()
        async with service(clock, store=store) as sessions:
            names = [(await sessions.open("fake")).id for _ in range(3)]
            clock.now = IDLE + 1
            end = sessions.ending._end

            async def failing(session: Session, reason: EndReason) -> None:
                if session.id != names[0]:
                    await end(session, reason)
                elif trouble == "deleted meanwhile":
                    await end(session, "deleted")
                    raise session.ended.result()
                else:
                    raise TROUBLES[trouble]

            monkeypatch.setattr(sessions.ending, "_end", failing)
            await sessions.expire_idle()
            left = {session.id for session in await sessions.all(None, 10)}
            assert left == (set() if trouble == "deleted meanwhile" else {names[0]})

    run(test())


def test_damaged_session_held_elsewhere_does_not_keep_others_from_expiring(monkeypatch):
    async def test() -> None:
        clock = Clock()
        async with service(clock) as sessions:
            names = [(await sessions.open("fake")).id for _ in range(3)]
            clock.now = IDLE + 1
            find, claim = sessions.turns.find, sessions.residents.claim_by_id

            async def damaged(name: str) -> Session:
                if name == names[0]:
                    raise SessionDamaged("a")
                return await find(name)

            async def held(name: str) -> Any:
                if name == names[0]:
                    raise SessionHeld("a", owner="another")
                return await claim(name)

            monkeypatch.setattr(sessions.turns, "find", damaged)
            monkeypatch.setattr(sessions.residents, "claim_by_id", held)
            await sessions.expire_idle()
            assert [session.id for session in await sessions.all(None, 10)] == names[:1]

    run(test())


class SlowReader:
    """The connection of a client that reads nothing: its write buffer is always full."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: int | None = None

    def listen(self, on_message: Any, on_close: Any, on_drain: Any) -> None:
        self.take, self.leave, self.drain = on_message, on_close, on_drain

    def send(self, payload: bytes, is_text: bool) -> bool:
        self.sent.append(json.loads(payload))
        return False

    def close(self, code: int, reason: str) -> None:
        self.closed = code

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


def socket_of(reader: SlowReader, caller: Caller = ANYONE) -> WebSocket:
    async def accept(message: Message) -> None:
        assert message["type"] == "websocket.accept"

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    app = FastAPI()
    app.state.tracing = None
    scope = {"type": "websocket", "subprotocols": [], "headers": [], "query_string": b"", "app": app}
    scope |= {"caller": caller, "extensions": {websocket.EXTENSION: reader}}
    return WebSocket(scope, receive, accept)


def test_answer_that_cannot_be_encoded_ends_its_stream(monkeypatch):
    async def test() -> None:
        async with service() as sessions:
            session, reader = await sessions.open("fake"), SlowReader()
            stream = stream_over(reader, sessions, session.id)
            streaming = asyncio.ensure_future(stream.run())
            await until(lambda: reader.sent)
            await asyncio.sleep(0)
            monkeypatch.setattr(SlowReader, "send", fail_once(SlowReader.send, MemoryError()))
            reader.take(b'{"inputs": [[1, 2]]}', True)
            await asyncio.wait_for(streaming, 5)
            assert (reader.sent[-1]["code"], reader.closed) == ("internal_error", 1011)
            assert not stream._session.users

    run(test())


def fail_once(function: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """Return a function that raises an error, and then does what another one does."""
    errors = [error]

    def call(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return function(*arguments)

    return call


@pytest.mark.parametrize("together", [False, True])
def test_session_goes_on_after_memory_ran_out_before_its_step(monkeypatch, together):
    async def test() -> None:
        async with service() as sessions:
            name = (await sessions.open("fake")).id
            await sessions.step(name, ones(1))
            monkeypatch.setattr(Session, "entry", fail_once(Session.entry, MemoryError()))
            if together:
                assert await step_all(sessions, [(name, Steps(ones(1)))]) == [InternalError]
            else:
                with pytest.raises(InternalError):
                    await sessions.step(name, ones(1))
            assert (await asyncio.wait_for(sessions.step(name, ones(1)), 5)).result.outputs[0, 0] == 2

    run(test())


def test_kept_result_of_a_frame_keeps_no_batch_alive():
    async def test() -> None:
        async with service() as sessions:
            names = [(await sessions.open("fake")).id for _ in range(3)]
            for seq in range(2):
                await step_all(sessions, [(name, Steps(ones(5), ["seen"], seq=seq)) for name in names])
            for name in names:
                last = (await sessions.find(name)).last
                assert last is not None
                kept = [last.result.outputs, *last.result.trace.values()]
                assert [(values if values.base is None else values.base).nbytes for values in kept] == [40, 40]

    run(test())


def stream_over(reader: SlowReader, sessions: ById, session: str, caller: Caller = ANYONE) -> Stream:
    return Stream(socket_of(reader, caller), sessions.service, Settings(), Metrics(), Decoders(), budgets(), session)


class ReaderOfParts(SlowReader):
    """The connection of a client that reads nothing of an answer in parts."""

    parts: int = 0

    def listen(self, on_message: Any, on_close: Any, _: Any) -> None:
        self.take, self.leave = on_message, on_close

    def send_part(self, *_: Any) -> bool:
        self.parts += 1
        return False

    async def drain(self) -> None:
        await asyncio.Event().wait()


def test_stream_that_ends_within_an_answer_sends_no_frame(monkeypatch):
    for module in (channel, codec):
        monkeypatch.setattr(module, "PIECE_BYTES", 8)

    async def test() -> None:
        async with service() as sessions:
            session, reader = await sessions.open("fake"), ReaderOfParts()
            caller = Caller("default", frozenset(SCOPES))
            stream = stream_over(reader, sessions, session.id, caller)
            streaming = asyncio.ensure_future(stream.run())
            await until(lambda: reader.sent)
            await asyncio.sleep(0)
            reader.take(b'{"inputs": [[1, 2], [3, 4]]}', True)
            await until(lambda: reader.parts)
            caller.end(InvalidKey("revoked"))
            await asyncio.wait_for(streaming, 5)
            assert ([frame["type"] for frame in reader.sent], reader.closed) == (["session"], 4401)
            assert not stream._budgets.answers.used

    run(test())


def test_ended_key_of_a_stream_without_a_session_logs_nothing(caplog):
    async def test() -> None:
        async with service() as sessions:
            reader, caller = SlowReader(), Caller("default", frozenset(SCOPES))
            caller.end(InvalidKey("revoked"))
            await stream_over(reader, sessions, "none", caller).run()
            assert [frame["code"] for frame in reader.sent] == ["session_not_found"]
            gc.collect()

    run(test())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_frame_that_waits_for_its_key_holds_its_inputs():
    async def test() -> None:
        async with service() as sessions:
            session, reader = await sessions.open("fake"), SlowReader()
            caller = Caller("default", frozenset(SCOPES), KeyLimits(steps_per_second=0.1))
            stream = stream_over(reader, sessions, session.id, caller)
            streaming = asyncio.ensure_future(stream.run())
            await until(lambda: reader.sent)
            await asyncio.sleep(0)
            reader.take(b'{"inputs": [[1, 2]]}', True)
            await until(lambda: len(reader.sent) == 2)
            reader.drain()
            reader.take(b'{"inputs": [[1, 2], [3, 4]]}', True)
            assert stream._budgets.uploads.used == 16
            reader.leave(1000, "")
            await asyncio.wait_for(streaming, 5)
            assert not stream._budgets.uploads.used

    run(test())


@pytest.mark.parametrize("while_answering", [False, True])
def test_slow_client_reads_the_error_of_its_session_s_end(while_answering):
    """The error comes all the same, behind what was sent before."""

    async def test() -> None:
        async with service() as sessions:
            session, reader = await sessions.open("fake"), SlowReader()
            stream = stream_over(reader, sessions, session.id)
            streaming = asyncio.ensure_future(stream.run())
            await until(lambda: reader.sent)
            if while_answering:
                await asyncio.sleep(0)
                reader.take(b'{"inputs": [[1, 2]]}', True)
                await until(lambda: len(reader.sent) == 2)
            await sessions.delete(session.id)
            if while_answering:
                await asyncio.sleep(0)
                assert len(reader.sent) == 2
                reader.drain()
            await streaming
            assert (reader.sent[-1]["code"], reader.closed) == ("session_gone", 4410)

    run(test())


def test_streams_of_a_lost_client_hold_no_session():
    async def test() -> None:
        async with service(opened=50) as sessions:
            reader = SlowReader()
            models = sessions.service._models
            streams = Streams(socket_of(reader), models, sessions.service, Settings(), Metrics(), Decoders(), budgets())
            streaming = asyncio.ensure_future(streams.run())
            await until(lambda: reader.sent)
            await asyncio.sleep(0)
            reader.take(b'{"model": "fake", "count": 50}', True)
            await until(lambda: streams._opened)
            streams._leave()
            await streaming
            assert streams._task is not None
            await streams._task
            assert not sessions.known

    run(test())


@pytest.mark.parametrize("durability", ["ack", "interval", "none"])
def test_frames_of_a_session_in_memory_start_no_task(durability, monkeypatch):
    monkeypatch.setattr(Residents, "snapshot_is_due", lambda *_: False)

    async def test() -> None:
        async with service(backend=FakeBackend(capacity=8, prompt=True), durability=durability) as sessions:
            session, reader = await sessions.open("fake"), SlowReader()
            stream = stream_over(reader, sessions, session.id)
            streaming = asyncio.ensure_future(stream.run())
            await until(lambda: reader.sent)
            await asyncio.sleep(0)
            started = []
            loop = asyncio.get_running_loop()
            for number in range(20):
                if number == 1:  # the session was waked by the first frame
                    loop.set_task_factory(lambda loop, job, **more: started.append(job) or asyncio.Task(job, loop=loop))
                reader.take(b'{"inputs": [[1, 2]]}', True)
                await until(lambda answers=number + 1: len(reader.sent) > answers)
                reader.drain()
            loop.set_task_factory(None)
            assert (started, reader.sent[-1]["step"]) == ([], 20)
            reader.leave(1000, "")
            await streaming

    run(test())


def test_watched_session_that_expires_says_so():
    async def test() -> None:
        clock = Clock()
        async with service(clock) as sessions:
            session = await sessions.open("fake")
            async with sessions.watching(session.id) as watched:
                clock.now = IDLE + 1
                await sessions.expire_idle()
                assert watched.ended.done()

    run(test())


def test_expired_session_gives_its_slot_back():
    async def test() -> None:
        clock = Clock()
        async with service(clock, FakeBackend(capacity=1)) as sessions:
            for _ in range(3):
                session = await sessions.open("fake")
                await sessions.step(session.id, ones(1))
                clock.now += IDLE + 1
                await sessions.expire_idle()
                assert sessions.resident() == 0

    run(test())


def test_long_step_counts_as_use_when_it_ends():
    """The other one is used while it works: after that it has been idle for longer."""
    clock, began, both_are_there, other_is_done = Clock(), threading.Event(), threading.Event(), threading.Event()

    def wait_at_both_ends(inputs: "np.ndarray[Any, Any]") -> None:
        if (inputs == 5).any():
            began.set()
            assert both_are_there.wait(10)
        if (inputs == 7).any():
            assert other_is_done.wait(10)
            clock.now = 90

    async def test() -> None:
        backend = FakeBackend(before_step=wait_at_both_ends, memory_size=1000)  # too large for a snapshot now
        async with service(clock, backend) as sessions:
            busy, idle = await sessions.open("fake"), await sessions.open("fake")
            for session in (busy, idle):
                await sessions.step(session.id, ones(1))
            work = np.concatenate([5 * ones(1), ones(9), 7 * ones(1)])
            working = asyncio.ensure_future(sessions.step(busy.id, work))
            await asyncio.to_thread(began.wait)
            other = asyncio.ensure_future(sessions.step(idle.id, ones(1)))
            await until(lambda: sessions.model().engine.sequences == 2)
            both_are_there.set()
            await other
            other_is_done.set()
            await working
            clock.now = 115
            await sessions.expire_idle()
            assert [session.id for session in await sessions.all(None, 10)] == [busy.id]

    run(test())


def test_requests_that_wait_for_a_session_are_bounded():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.open("fake")
            async with sessions.watching(session.id) as watched:
                jobs = [asyncio.ensure_future(sessions.step(session.id, ones(50)))]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert watched.turn.taken
            jobs += [asyncio.ensure_future(sessions.step(session.id, ones(1))) for _ in range(12)]
            results = await asyncio.gather(*jobs, return_exceptions=True)
            assert [type(result) for result in results] == [Stepped] * 9 + [QueueFull] * 4
            assert ((await sessions.info(session.id)).step, sessions.turns.waiting("fake")) == (58, 0)

    run(test())


def test_session_at_work_does_not_expire():
    async def test() -> None:
        clock = Clock()
        async with service(clock) as sessions:
            session = await sessions.open("fake")
            async with sessions.watching(session.id) as watched:
                stepping = asyncio.ensure_future(sessions.step(session.id, ones(200)))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert watched.turn.taken
                clock.now = 1000
                await sessions.expire_idle()
            assert (await stepping).step == 200
            assert len(await sessions.all(None, 10)) == 1

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
                await sessions.info("another")

    run(test())


def test_session_that_ended_in_the_store_is_not_restored():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            async with sessions.watching(session):
                await sessions.writer.call(lambda store: store.end(session, "expired", 0.0))
                with pytest.raises(SessionGone) as gone:
                    await sessions.step(session, ones(1))
                assert (gone.value.status, gone.value.more["reason"]) == (410, "expired")

    run(test())


def test_two_deletes_of_a_session_of_another_model_count_once():
    async def test() -> None:
        store = MemoryStore()
        async with service(store=store, opened=2) as sessions:
            session, _ = await sessions.open("fake"), await sessions.open("fake")
            stored = store._sessions[session.id]
            stored.new = replace(stored.new, fingerprint="other")
            await asyncio.gather(*(sessions.delete(session.id) for _ in range(2)))
            await sessions.open("fake")
            with pytest.raises(SessionsFull, match="2 sessions of fake"):
                await sessions.open("fake")

    run(test())


def test_session_of_another_model_used_meanwhile_does_not_expire(monkeypatch):
    async def test() -> None:
        clock, store = Clock(), MemoryStore()
        async with service(clock, store=store) as sessions:
            session = (await sessions.open("fake")).id
            stored = store._sessions[session]
            stored.new = replace(stored.new, fingerprint="other")
            clock.now, idle_since = 101, store.idle_since

            def then_used(time: float, limit: int) -> list[str]:
                idle = idle_since(time, limit)
                store.touch([(session, clock.now)])
                return idle

            monkeypatch.setattr(store, "idle_since", then_used)
            await sessions.expire_idle()
            assert isinstance(store.find(session), Record)
            clock.now = 300
            monkeypatch.setattr(store, "idle_since", idle_since)
            await sessions.expire_idle()
            assert store.find(session) == "expired"

    run(test())


@pytest.mark.parametrize("durability", ["ack", "none"])
def test_arenas_are_left_in_time_though_the_engine_hangs(durability: Durability):
    release = threading.Event()

    def hang_on_zero(inputs: "np.ndarray[Any, Any]") -> None:
        if not inputs.any():
            assert release.wait(10)

    async def test() -> None:
        backend = FakeBackend(before_step=hang_on_zero)
        async with service(backend=backend, durability=durability) as sessions:
            session = await sessions.open("fake")
            await sessions.step(session.id, ones(20))
            probing = asyncio.ensure_future(sessions.model().engine.probe())
            await asyncio.sleep(0)
            await sessions.close(0.05)
            assert not probing.done(), "nobody waited for the step to return"
            release.set()
            await probing

    run(test())


class Part:
    """Part of a server, whose end takes as long as it is told to."""

    def __init__(self) -> None:
        self.closed = 0
        self.may_end = asyncio.Event()

    async def close(self, *_: float) -> None:
        self.closed += 1
        await self.may_end.wait()


def test_server_that_is_closed_twice_stops_once():
    """Who asks first may be gone before the end; the second waits for it."""

    async def test() -> None:
        sessions, engine, writer = parts = [Part(), Part(), Part()]
        models, settings = SimpleNamespace(all=[SimpleNamespace(engine=engine)]), Settings()
        state = State({"closing": None, "settings": settings, "sessions": sessions, "models": models, "writer": writer})
        first, second = (asyncio.ensure_future(close(state)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        for part in parts:
            await asyncio.sleep(0.01)
            assert not second.done()
            part.may_end.set()
        await second
        await close(state)
        assert [part.closed for part in parts] == [1, 1, 1]

    run(test())


@pytest.mark.parametrize("request_", ["delete", "rewind", "reset", "fork", "step"])
@pytest.mark.parametrize("name", ["unknown", "of a changed model"])
def test_stopping_service_refuses_before_it_looks_for_the_session(request_, name):
    """A session that cannot be found, or not be used, is neither reported as missing nor deleted."""

    async def test() -> None:
        store = MemoryStore()
        async with service(store=store) as sessions:
            session = (await sessions.open("fake")).id
            stored = store._sessions[session]
            stored.new = replace(stored.new, fingerprint="other")
            sessions.turns.close()
            arguments = {"rewind": (0,), "step": (ones(1),)}.get(request_, ())
            with pytest.raises(ShuttingDown):
                await getattr(sessions, request_)("no" if name == "unknown" else session, *arguments)
            assert isinstance(store.find(session), Record)

    run(test())
