"""Two servers in one process that share a store in memory: sessions go to the one that is asked for them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.errors import LeaseLost, ModelChanged, SessionGone, SessionHeld, SessionMoved, ShuttingDown
from app.sessions import residents
from app.sessions.handover import HANDED_OVER_AT_MOST, Pulls
from app.stores.base import EndReason, Held, Record
from app.stores.ownership import Alone, Asked, Lost
from app.tenants import ANYBODY, key_inside
from tests.app.asynchronous import run, until
from tests.app.sessions.by_id import ById
from tests.app.sessions.test_sessions import FailingStore, ones, service


class Together(Alone):
    """A server that lives or not, whose messages reach the others at once."""

    is_shared = True
    seconds = 0.05

    def __init__(self, lives: dict[str, "Together"]) -> None:
        super().__init__()
        self.lives = lives
        self.holds, self.silent, self.asks = True, False, 0
        self.answers: dict[str, asyncio.Future[bool]] = {}
        lives[self.owner] = self

    def check(self) -> None:
        if not self.holds:
            raise LeaseLost("lost")

    def start(self, asked: Asked, lost: Lost) -> None:
        self.asked, self.lost = asked, lost

    async def ask(self, session: str, owner: str) -> bool | None:
        self.asks += 1
        answer = self.answers[session] = asyncio.get_running_loop().create_future()
        if owner in self.lives and not self.lives[owner].silent:
            self.lives[owner].asked(session, self.owner)
        try:
            return await asyncio.wait_for(answer, 0.02)
        except TimeoutError:
            return None

    def answer(self, session: str, asker: str, handed_over: bool) -> None:
        answer = self.lives[asker].answers[session]
        if not answer.done():
            answer.set_result(handed_over)

    def die(self) -> None:
        """Have other servers claim the sessions of this one."""
        self.lives.pop(self.owner, None)

    def rejoin(self) -> None:
        Alone.__init__(self)
        self.lives[self.owner], self.holds = self, True

    async def close(self) -> None:
        self.die()


class SharedStore(FailingStore):
    """Claims no session of an owner that lives."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: dict[str, Together] = {}
        self.lock = threading.RLock()

    def claim(self, session: str, owner: str) -> Record | EndReason | Held | None:
        with self.lock:
            found = self._sessions.get(session)
            is_open = found is not None and found.tape is not None
            if is_open and found.owner in self.lives and found.owner != owner:
                return Held(found.owner, "another")
            return super().claim(session, owner)


@asynccontextmanager
async def servers(count: int = 2, **more: Any) -> AsyncIterator[list[tuple[ById, Together]]]:
    store = SharedStore()
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            ownership = Together(store.lives)
            sessions = await stack.enter_async_context(service(store=store, ownership=ownership, **more))
            sessions.service.handover.start()
            made.append((sessions, ownership))
        yield made


def total(stepped: Any) -> float:
    """Return the last output: the fake model adds up its inputs."""
    return float(stepped.result.outputs[-1, 0])


def test_session_follows_its_requests():
    async def test() -> None:
        async with servers(3) as made:
            name = (await made[0][0].open("fake")).id
            for step, (sessions, _) in enumerate([*made, *made[:1]]):
                assert total(await sessions.step(name, ones(1))) == step + 1
            assert [sessions.resident() for sessions, _ in made] == [1, 0, 0]
            assert [ownership.asks for _, ownership in made] == [1, 1, 1]
            metrics = [sessions.writer._observer for sessions, _ in made]
            counted = [[each.handovers.labels(way)._value.get() for way in ("in", "out")] for each in metrics]
            assert counted == [[1, 1], [1, 1], [1, 1]]

    run(test())


def test_session_without_log_is_handed_over_with_its_state():
    async def test() -> None:
        async with servers(durability="none") as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(3))
            assert total(await b.step(name, ones(1))) == 4

    run(test())


def test_requests_in_line_are_carried_out_before_the_session_leaves():
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(1))
            async with a.turns.hold(await a.find(name)):
                asked = asyncio.ensure_future(b.step(name, ones(1)))
                await asyncio.sleep(0.05)
                assert not asked.done()
            assert total(await asked) == 2

    run(test())


def test_session_that_ended_before_it_was_asked_for_is_gone():
    async def test() -> None:
        async with servers() as [(a, _), (b, of_b)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(1))
            ask = of_b.ask

            async def ask_late(session: str, owner: str) -> bool | None:
                await a.delete(name)
                return await ask(session, owner)

            of_b.ask = ask_late  # type: ignore[method-assign]
            with pytest.raises(SessionGone):
                await b.step(name, ones(1))

    run(test())


def test_session_pulled_apart_stays_for_a_while():
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            name, held = (await a.open("fake")).id, 0
            for step in range(3 * HANDED_OVER_AT_MOST):
                try:
                    await (a, b)[step % 2].step(name, ones(1))
                except SessionHeld as error:
                    held += 1
                    assert error.more["owner"] == "another"
            info = await a.info(name)
            assert (held > 0, info.step) == (True, 3 * HANDED_OVER_AT_MOST - held)

    run(test())


def test_sessions_of_a_dead_server_are_claimed():
    async def test() -> None:
        async with servers() as [(a, of_a), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(2))
            of_a.silent = True
            asyncio.get_running_loop().call_later(0.05, of_a.die)
            assert total(await b.step(name, ones(1))) == 3
            with pytest.raises(SessionMoved):
                await a.step(name, ones(1))
            assert (await b.info(name)).step == 3

    run(test())


def test_lost_lease_refuses_all_and_drops_all():
    async def test() -> None:
        async with servers() as [(a, of_a), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(2))
            of_a.die()
            of_a.holds = False
            with pytest.raises(LeaseLost):
                await a.step(name, ones(1))
            assert total(await b.step(name, ones(1))) == 3
            former = of_a.owner
            of_a.lost()
            await until(lambda: of_a.owner != former)
            assert a.resident() == 0
            assert total(await a.step(name, ones(1))) == 4

    run(test())


def test_session_that_cannot_be_dropped_delays_no_new_lease(monkeypatch, caplog):
    async def test() -> None:
        async with servers() as [(a, of_a), (b, _)]:
            names = [(await a.open("fake")).id for _ in range(2)]
            for name in names:
                await a.step(name, ones(1))
            drop = a.residents.drop
            monkeypatch.setattr(a.residents, "drop", lambda each: 1 / 0 if each.id == names[0] else drop(each))
            of_a.die()
            assert total(await b.step(names[0], ones(1))) == 2
            former = of_a.owner
            of_a.lost()
            await until(lambda: of_a.owner != former)
            assert [total(await a.step(name, ones(1))) for name in names] == [3, 2]

    run(test())
    assert "was not dropped" in caplog.text


def test_session_that_another_server_has_counts_as_no_handover():
    async def test() -> None:
        async with servers() as [(a, of_a), (b, of_b)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(1))
            of_a.die()
            await b.step(name, ones(1))
            of_a.lives[of_a.owner] = of_a
            assert await of_b.ask(name, of_a.owner)
            assert await of_a.ask(name, of_b.owner)
            metrics = [sessions.writer._observer for sessions in (a, b)]
            assert [each.handovers.labels("out")._value.get() for each in metrics] == [0, 1]

    run(test())


def test_watchers_are_called_when_the_session_leaves():
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            session = await a.turns.watch(await a.find(name))
            moved = session.moved
            await a.step(name, ones(1))
            await b.step(name, ones(1))
            assert isinstance(moved.result(), SessionMoved)
            assert (moved.result().close_code, session.moved.done()) == (1012, False)
            a.unwatch(session)

    run(test())


def test_session_that_cannot_be_parked_stays():
    async def test() -> None:
        async with servers(durability="none") as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(3))
            store = a.service._writer._store
            store.failing = frozenset({"park"})
            with pytest.raises(SessionHeld):
                await b.step(name, ones(1))
            store.failing = frozenset()
            assert total(await a.step(name, ones(1))) == 4

    run(test())


@pytest.mark.parametrize("act", ["delete", "fork", "state"])
def test_other_requests_pull_the_session_too(act):
    async def test() -> None:
        async with servers(opened=4) as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(2))
            if act == "delete":
                await b.delete(name)
                with pytest.raises(SessionGone):
                    await a.step(name, ones(1))
            elif act == "fork":
                forked = (await b.fork(name)).id
                assert total(await a.step(forked, ones(1))) == 3
            else:
                step, state = await b.service.time_travel.state(await b.find(name))
                assert (step, state["total"][0]) == (2, 2)
            assert a.resident() == (act == "fork")

    run(test())


def test_key_at_two_servers_at_once_opens_one_session():
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            name = (await a.service.opening.open("fake", key="once")).id
            store = b.service._writer._store
            answers = iter([None, None, store.created(key_inside(ANYBODY.name, "once"))])
            store.created = lambda key: next(answers)  # looked for it before the other server had written it
            assert (await b.service.opening.open("fake", key="once")).id == name

    run(test())


def test_volatile_session_of_a_dead_server_is_lost():
    async def test() -> None:
        async with servers(durability="none") as [(a, of_a), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(1))
            of_a.die()
            for _ in range(2):
                with pytest.raises(SessionGone):
                    await b.step(name, ones(1))

    run(test())


def test_stopped_server_hands_everything_over():
    async def test() -> None:
        async with servers() as [(a, _), (b, of_b)]:
            names = [(await a.open("fake")).id for _ in range(3)]
            for name in names:
                await a.step(name, ones(2))
            await a.close(5)
            for name in names:
                assert total(await b.step(name, ones(1))) == 3
            assert of_b.asks == 0

    run(test())


def test_leaving_server_serves_what_it_still_has():
    async def test() -> None:
        async with servers() as [(a, _), (b, of_b)]:
            names = [(await a.open("fake")).id for _ in range(3)]
            for name in names:
                await a.step(name, ones(2))
            session = await a.find(names[0])
            moved = session.moved
            async with a.turns.hold(session):
                served = asyncio.ensure_future(a.step(names[0], ones(1)))
                await asyncio.sleep(0)
                leaving = asyncio.ensure_future(a.service.handover.leave())
                await until(lambda: a.resident() == 1)
                assert [total(await b.step(name, ones(1))) for name in names[1:]] == [3, 3]
            await leaving
            assert total(await served) == 3
            assert isinstance(moved.result(), SessionMoved)
            assert total(await b.step(names[0], ones(1))) == 4
            assert of_b.asks == 0

    run(test())


def test_leaving_server_claims_and_opens_nothing():
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            await a.service.handover.leave()
            for refused in (a.step(name, ones(1)), a.open("fake"), a.turns.watch(await a.find(name))):
                with pytest.raises(ShuttingDown):
                    await refused
            assert total(await b.step(name, ones(1))) == 1

    run(test())


def test_info_of_a_watched_session_is_that_of_the_store():
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            watched = await b.turns.watch(await b.find(name))
            await a.step(name, ones(2))
            assert (await b.info(name)).step == 2
            assert [info.step for info in await b.all(None, 5)] == [2]
            b.unwatch(watched)

    run(test())


def test_session_without_log_is_shown_elsewhere_at_its_last_snapshot():
    async def test() -> None:
        async with servers(durability="none") as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(2))
            await b.step(name, ones(1))
            await b.step(name, ones(4))
            shown = [(await each.info(name)).step for each in (a, b)]
            listed = [[info.step for info in await each.all(None, 5)] for each in (a, b)]
            assert (shown, listed) == ([2, 7], [[2], [7]])

    run(test())


def test_info_is_current_while_a_request_waits_for_the_owner():
    async def test() -> None:
        async with servers() as [(a, of_a), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(1))
            of_a.silent = True
            waiting = asyncio.ensure_future(b.step(name, ones(1)))
            await until(lambda: name in b.known)
            await a.step(name, ones(2))
            assert (await b.info(name)).step == 3
            assert [info.step for info in await b.all(None, 5)] == [3]
            of_a.silent = False
            assert total(await waiting) == 4

    run(test())


def test_watch_after_a_refused_request_begins_where_the_owner_is():
    async def test() -> None:
        async with servers() as [(a, of_a), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(1))
            of_a.silent = True
            refused = asyncio.ensure_future(b.step(name, ones(1)))
            await until(lambda: name in b.known)
            watching = asyncio.ensure_future(b.watch(name))
            await a.step(name, ones(2))
            store = a.service._writer._store
            store.failing, of_a.silent = frozenset({"release"}), False
            with pytest.raises(SessionHeld):
                await refused
            session = await watching
            assert session.step == 3
            b.unwatch(session)
            store.failing = frozenset()

    run(test())


def test_list_without_a_lease_is_refused():
    async def test() -> None:
        async with servers() as [(a, of_a), _]:
            await a.open("fake")
            of_a.holds = False
            with pytest.raises(LeaseLost):
                await a.all(None, 5)

    run(test())


def test_silent_server_with_a_long_lease_is_not_awaited(monkeypatch):
    for limit in ("LEASE_SECONDS", "HANDOVER_SECONDS"):
        monkeypatch.setattr(residents, limit, 0.01)

    async def test() -> None:
        async with servers() as [(a, of_a), (b, of_b)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(1))
            of_a.silent, of_b.seconds = True, 20.0
            with pytest.raises(SessionHeld, match="once its lease has run out"):
                await asyncio.wait_for(b.step(name, ones(1)), 10)

    run(test())


def test_server_that_hands_nothing_over_is_named():
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            await a.step(name, ones(1))
            a.service._writer._store.failing = frozenset({"release"})
            with pytest.raises(SessionHeld, match="server another"):
                await b.step(name, ones(1))
            a.service._writer._store.failing = frozenset()

    run(test())


@pytest.mark.parametrize("seconds", [1.9, 2.1])
def test_pulls_are_counted_within_their_seconds(seconds):
    now = 0.0
    pulls = Pulls(2, 2.0, lambda: now)
    assert [pulls.allow("a"), pulls.allow("a"), pulls.allow("a"), pulls.allow("b")] == [True, True, False, True]
    now = seconds
    assert pulls.allow("a") is (seconds > 2)
    assert len(pulls._times) == (1 if seconds > 2 else 2)


@pytest.mark.parametrize("model", ["fake", "gone"], ids=["other weights", "not served"])
def test_session_of_a_version_elsewhere_is_refused_with_the_remedy(model):
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            name = (await a.open("fake")).id
            assert total(await a.step(name, ones(1))) == 1
            await b.writer.call(lambda store: rename(store, name, model=model, fingerprint="f" * 64))
            with pytest.raises(ModelChanged, match="load the same checkpoints at all servers, POST /admin/reload"):
                await b.step(name, ones(1))
            assert total(await a.step(name, ones(1))) == 2

    run(test())


def rename(store: Any, session: str, **version: str) -> None:
    """Have a session be of another version in the store."""
    store._sessions[session].new = replace(store._sessions[session].new, **version)
