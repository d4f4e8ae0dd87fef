"""A session as a record: where it is, and what may be done there."""

import asyncio
from typing import Any

import numpy as np
import pytest

from app.engine.run import Result
from app.sessions.residents import Residents
from app.sessions.session import Session, Steps, Where, gone
from tests.app.asynchronous import run
from tests.app.sessions.test_sessions import ones, service

ALLOWED = {
    Where.STORED: {"enter": Where.RESIDENT, "end": Where.ENDED},
    Where.RESIDENT: {"outrun_store": Where.VOLATILE, "leave": Where.STORED, "end": Where.ENDED},
    Where.VOLATILE: {"outrun_store": Where.VOLATILE, "leave": Where.STORED, "end": Where.ENDED},
}
"""The transitions that a session may take, and where each leads."""

REACHED = {Where.STORED: (), Where.RESIDENT: ("enter",), Where.VOLATILE: ("enter", "outrun_store")}


def act(session: Session, transition: str) -> None:
    arguments: dict[str, Any] = {"enter": ("a slot", 0), "end": (gone(session.id, "deleted"),)}
    getattr(session, transition)(*arguments.get(transition, ()))


def on_session(check: Any) -> None:
    async def test() -> None:
        async with service() as sessions:
            check(await sessions.find((await sessions.open("fake")).id))

    run(test())


@pytest.mark.parametrize("where", ALLOWED)
@pytest.mark.parametrize("transition", ["enter", "outrun_store", "leave", "end"])
def test_session_takes_the_transitions_of_its_state_alone(where, transition):
    def check(session: Session) -> None:
        for step in REACHED[where]:
            act(session, step)
        assert session.where is where
        if transition in ALLOWED[where]:
            act(session, transition)
            assert session.where is ALLOWED[where][transition]
        else:
            with pytest.raises(AssertionError):
                act(session, transition)
            assert session.where is where

    on_session(check)


def test_ended_session_leaves_its_slot_and_stays_ended():
    def check(session: Session) -> None:
        act(session, "enter")
        act(session, "end")
        assert session.leave() == "a slot"
        assert (session.where, session.slot, session.ended.result().more) == (Where.ENDED, None, {"reason": "deleted"})

    on_session(check)


def test_session_is_in_a_slot_exactly_when_it_is_resident():
    def check(session: Session) -> None:
        for transition, is_resident in (("enter", True), ("outrun_store", True), ("leave", False), ("enter", True)):
            act(session, transition)
            assert (session.slot is not None) is is_resident
            assert session.is_volatile is (session.where is Where.VOLATILE)

    on_session(check)


def test_position_without_the_store_moves_a_volatile_session_alone():
    def check(session: Session) -> None:
        act(session, "enter")
        with pytest.raises(AssertionError):
            session.move(3, None)
        act(session, "outrun_store")
        session.move(3, None)
        assert (session.step, session.latest, session.seq) == (3, 3, None)

    on_session(check)


def test_small_result_of_a_frame_is_kept_without_the_batch():
    def check(session: Session) -> None:
        batch = np.ones((4, 2, 2), np.float32)
        stepped = session.advance(Steps(ones(2), seq=0), Result(batch[1], {}))
        assert (session.step, session.seq, session.last) == (2, 0, stepped)
        assert stepped.result.outputs.base is None

    on_session(check)


@pytest.mark.parametrize(
    ("request_", "most"),
    [("step", 2), ("state", 2), ("snapshot", 2), ("recording", 4), ("rewind", 4), ("reset", 4), ("info", 1)],
)
def test_cold_session_asks_the_store_few_times(request_, most, monkeypatch):
    """Once to find it, once to claim it with what its state is computed from; then for other steps and a move."""

    monkeypatch.setattr(Residents, "snapshot_is_due", lambda *_: False)

    async def test() -> None:
        async with service() as sessions:
            name = (await sessions.open("fake")).id
            await sessions.step(name, ones(3))
            assert await sessions.residents.try_evict(sessions.known[name])
            calls, call = [], sessions.writer.call
            sessions.writer.call = lambda work: calls.append(work) or call(work)  # type: ignore[method-assign]
            if request_ == "recording":
                assert [piece.step async for piece in await sessions.recording(name)] == [0]
            else:
                arguments = {"step": (ones(1),), "rewind": (1,)}.get(request_, ())
                await getattr(sessions, request_)(name, *arguments)
            assert len(calls) <= most

    run(asyncio.wait_for(test(), 60))
