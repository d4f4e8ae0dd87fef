"""Sequences over services in this process: their order, several servers, and failures."""

import asyncio
from typing import Any

import pytest

from app.access.keys import SCOPES, Caller
from app.api.v2 import sequences as module
from app.api.v2.requests import Sequence
from app.api.v2.sequences import Sequences, Taken
from app.errors import SequenceUnknown, SessionGone, SessionMoved, SessionsFull, StepConflict, StoreFailed
from app.sessions.session import Steps
from tests.app.asynchronous import run
from tests.app.sessions.by_id import ById
from tests.app.sessions.test_handover import servers, total
from tests.app.sessions.test_sessions import Clock, FailingStore, ones, service

START, STEP, END, BOTH = (True, False), (False, False), (False, True), (True, True)


class Client:
    """Steps sequences of the fake model, which adds up its inputs."""

    def __init__(self, sessions: ById, tenant: str = "default") -> None:
        self.sessions = sessions
        self.sequences = Sequences(sessions.service)
        self.caller = Caller(tenant, frozenset(SCOPES))

    async def step(self, flags: tuple[bool, bool], sequence: int | str = 7, **more: Any) -> Taken:
        asked = Sequence(sequence, *flags)
        steps = Steps(ones(1), **more)
        return await self.sequences.step(self.caller, self.sessions.model(), asked, None, lambda *_: steps)

    async def total(self, flags: tuple[bool, bool], sequence: int | str = 7, **more: Any) -> float:
        return total((await self.step(flags, sequence, **more)).stepped)


def test_requests_sent_together_are_carried_out_in_their_order():
    async def test() -> None:
        async with service() as sessions:
            client = Client(sessions)
            order = [START, STEP, STEP, END, START, STEP, START, END, BOTH]
            assert await asyncio.gather(*map(client.total, order)) == [1, 2, 3, 4, 1, 2, 1, 2, 1]
            assert client.sequences._lines == client.sequences._known == {}
            assert await sessions.all(None, 9) == []

    run(test())


def test_sequence_of_another_tenant_is_another():
    async def test() -> None:
        async with service() as sessions:
            lab, rival = Client(sessions, "lab"), Client(sessions, "rival")
            taken = await lab.step(START)
            with pytest.raises(SequenceUnknown):
                await rival.step(STEP)
            assert await rival.total(START) == 1
            assert await lab.total(STEP) == 2
            assert [each.id for each in await sessions.all(None, 9, "lab")] == [taken.session]

    run(test())


def test_sequence_is_followed_to_another_server_also_begun_anew():
    async def test() -> None:
        async with servers() as [(a, of_a), (b, _)]:
            here, there = Client(a), Client(b)
            assert [await here.total(START), await there.total(STEP), await here.total(STEP)] == [1, 2, 3]
            assert (await there.step(START)).restarted
            assert await here.total(STEP) == 2  # not the session that it knew
            of_a.die()
            assert await there.total(END) == 3
            with pytest.raises(SequenceUnknown):
                await there.step(STEP)

    run(test())


def test_sequence_begun_at_several_servers_at_once_begins_everywhere():
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            here, there = Client(a), Client(b)
            assert await asyncio.gather(*(client.total(START) for client in (here, there))) == [1, 1]
            assert await asyncio.gather(*(client.total(BOTH) for client in (here, there))) == [1, 1]
            assert await a.all(None, 9) == []

    run(test())


@pytest.mark.parametrize("flags", [START, STEP, END], ids=["begun", "stepped", "ended"])
def test_sequence_overtaken_by_another_server_begins_again(flags, monkeypatch):
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            here, there = Client(a), Client(b)
            opening, overtaken = here.sessions.service.opening, []
            begin = opening.begin

            async def begin_slowly(*arguments: Any) -> Any:
                opened = await begin(*arguments)
                if not overtaken:
                    overtaken.append(await there.total(flags))
                return opened

            monkeypatch.setattr(opening, "begin", begin_slowly)
            taken = await here.step(START)
            assert (total(taken.stepped), taken.stepped.step, overtaken) == (1, 1, [1])
            assert await there.total(STEP) == 2

    run(test())


def test_sequence_overtaken_again_and_again_is_refused(monkeypatch):
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            here, there = Client(a), Client(b)
            opening = here.sessions.service.opening
            begin = opening.begin

            async def begin_slowly(*arguments: Any) -> Any:
                opened = await begin(*arguments)
                await there.step(STEP)
                return opened

            monkeypatch.setattr(opening, "begin", begin_slowly)
            with pytest.raises(SessionMoved, match="other servers begin or step sequence 7 of fake too"):
                await here.step(START)

    run(test())


def test_sequence_whose_session_is_deleted_meanwhile_has_ended(monkeypatch):
    async def test() -> None:
        async with servers() as [(a, _), (b, _)]:
            here, there = Client(a), Client(b)
            find = here.sessions.service.turns.find
            name = (await there.step(START)).session

            async def find_slowly(session: str) -> Any:
                found = await find(session)
                await there.sessions.delete(name)
                return found

            monkeypatch.setattr(here.sessions.service.turns, "find", find_slowly)
            with pytest.raises(SequenceUnknown):
                await here.step(STEP)

    run(test())


def test_sequence_that_expired_is_refused_until_it_begins_anew():
    async def test() -> None:
        clock = Clock()
        async with service(clock) as sessions:
            client = Client(sessions)
            await client.step(START)
            clock.now = 101
            await sessions.expire_idle()
            for _ in range(2):
                with pytest.raises(SessionGone, match="expired; begin it anew with sequence_start"):
                    await client.step(STEP)
            assert not (await client.step(START)).restarted

    run(test())


def test_sequence_whose_first_step_fails_has_not_begun():
    async def test() -> None:
        async with service() as sessions:
            client = Client(sessions)
            await client.step(START)
            with pytest.raises(StepConflict):
                await client.step(START, if_step=1)
            with pytest.raises(SequenceUnknown):
                await client.step(STEP)
            assert await sessions.all(None, 9) == []

    run(test())


def test_sequence_whose_last_step_fails_goes_on():
    async def test() -> None:
        async with service() as sessions:
            client = Client(sessions)
            await client.step(START)
            with pytest.raises(StepConflict):
                await client.step(END, if_step=5)
            assert await client.total(END, if_step=1) == 2

    run(test())


def test_sequence_that_the_store_cannot_open_is_refused():
    async def test() -> None:
        async with service(store=FailingStore()) as sessions:
            client = Client(sessions)
            sessions.writer._store.failing = frozenset(["create"])
            with pytest.raises(StoreFailed):
                await client.step(START)
            sessions.writer._store.failing = frozenset()
            assert await client.total(START) == 1

    run(test())


def test_sequences_are_bounded_as_sessions_are():
    async def test() -> None:
        async with service(opened=1) as sessions:
            client = Client(sessions)
            assert [await client.total(START), await client.total(START)] == [1, 1]
            with pytest.raises(SessionsFull):
                await client.step(START, sequence=8)
            await client.step(END)
            assert await client.total(START, sequence=8) == 1

    run(test())


def test_sequence_that_is_not_remembered_is_found_in_the_store(monkeypatch):
    async def test() -> None:
        monkeypatch.setattr(module, "KNOWN", 1)
        async with service() as sessions:
            client = Client(sessions)
            assert [await client.total(START, one) for one in (7, "7")] == [1, 1]
            assert [await client.total(STEP, one) for one in (7, "7", 7)] == [2, 2, 3]
            assert len(client.sequences._known) == 1

    run(test())
