"""Sessions in arenas: who may be evicted, and what an eviction may rely on."""

from contextlib import AsyncExitStack

import pytest

from app.sessions.residents import REPLAYED_STEPS, SNAPSHOT_STEPS
from tests.app.asynchronous import run
from tests.app.sessions.test_sessions import FailingStore, ones, service


def test_session_in_use_is_not_evicted():
    async def test() -> None:
        async with service(resident=1) as sessions:
            first = await sessions.open("fake")
            await sessions.step(first.id, ones(1))
            session = await sessions.find(first.id)
            async with sessions.turns.hold(session):
                assert not await sessions.residents.try_evict(session)
            assert await sessions.residents.try_evict(session)

    run(test())


def test_sessions_in_use_may_exceed_max_resident():
    async def test() -> None:
        async with service(resident=1, opened=9) as sessions, AsyncExitStack() as turns:
            for number in range(1, 5):
                session = sessions.turns.shared(await sessions.find((await sessions.open("fake")).id))
                await turns.enter_async_context(sessions.turns.hold(session))
                await sessions.residents.restore(session)
                assert sessions.resident() == number

    run(test())


def test_failed_snapshot_leaves_the_log_to_replay(caplog):
    """The session counts the snapshot as kept before it is written; the store then has an earlier one, or none."""

    async def test() -> None:
        store = FailingStore()
        async with service(store=store) as sessions:
            name = (await sessions.open("fake")).id
            store.failing = frozenset({"snapshot"})
            await sessions.step(name, ones(SNAPSHOT_STEPS))
            session = await sessions.find(name)
            assert session.unsnapshotted <= REPLAYED_STEPS
            assert await sessions.residents.try_evict(session)
            assert (await sessions.state(name))[1]["total"].tolist() == [SNAPSHOT_STEPS] * 2

    run(test())
    assert "no snapshot of it was kept" in caplog.text


def test_session_is_restored_in_its_turn_only():
    async def test() -> None:
        async with service() as sessions:
            session = await sessions.find((await sessions.open("fake")).id)
            with pytest.raises(AssertionError, match="holds the turn"):
                await sessions.residents.restore(session)

    run(test())


def test_eviction_that_fails_is_not_the_error_of_another_session(monkeypatch, caplog):
    async def test() -> None:
        async with service(resident=1) as sessions:
            names = [(await sessions.open("fake")).id for _ in range(2)]
            await sessions.step(names[0], ones(1))
            monkeypatch.setattr(sessions.residents, "evict", lambda session: 1 / 0)
            assert (await sessions.step(names[1], ones(2))).step == 2

    run(test())
    assert "its eviction failed" in caplog.text
