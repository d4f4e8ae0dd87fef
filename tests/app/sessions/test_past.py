"""Any past step of a session: by hand; then random lives of sessions, beside lists of their inputs.

The back end's state is the sum of the inputs, so that a list of a session's inputs says all there is to know of it.
"""

import asyncio
import random
import threading
from typing import Any

import numpy as np
import pytest

from app.backends.fake import FakeBackend
from app.errors import (
    InvalidRequest,
    InvalidSnapshot,
    SequenceConflict,
    SessionDamaged,
    SessionGone,
    StepConflict,
    StepFailed,
    StepNotKept,
    StepTimedOut,
    StoreFailed,
)
from app.sessions import dtypes
from app.sessions.dtypes import Form
from app.sessions.session import LOG_STEPS, Stepped, Steps
from app.sessions.snapshot import Snapshot
from app.stores.base import NewSession, Record, Retention
from app.stores.memory import MemoryStore
from app.stores.sqlite import SqliteStore
from app.stores.writer import Durability
from tests.app.asynchronous import run, until
from tests.app.sessions.by_id import ById
from tests.app.sessions.test_sessions import FailingStore, ones, service, step_all
from tests.app.stores.test_stores import altered


def values(*numbers: float) -> "np.ndarray[Any, Any]":
    return np.array([[number, 0] for number in numbers], np.float32)


def three(*numbers: float) -> "np.ndarray[Any, Any]":
    return np.array([[number, 0, 0] for number in numbers], np.float32)


async def total(sessions: ById, session: str, step: int | None = None) -> float:
    return float((await sessions.state(session, step))[1]["total"][0])


async def recorded(sessions: ById, session: str, *span: int) -> list[tuple[int, float, float]]:
    """Return the steps of a session: the number, the input, the output."""
    pieces = await sessions.recording(session, *span)
    return [
        (piece.step + row + 1, float(piece.inputs[row, 0]), float(piece.result.outputs[row, 0]))
        async for piece in pieces
        for row in range(len(piece.inputs))
    ]


def test_every_step_can_be_looked_at():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2, 3))
            await sessions.step(session, values(10))
            assert [await total(sessions, session, step) for step in range(5)] == [0, 1, 3, 6, 16]
            assert (await sessions.info(session)).step == 4
            for step in (5, 10**9):
                with pytest.raises(StepNotKept, match=r"is at step 4.*expected 0 to 4"):
                    await sessions.state(session, step)

    run(test())


def test_rewound_session_goes_on_or_forward_again():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2, 3))
            told = await sessions.rewind(session, 1)
            assert (told.step, told.latest, await total(sessions, session)) == (1, 3, 1)
            assert (await sessions.rewind(session, 3)).step == 3
            await sessions.rewind(session, 2)
            assert (await sessions.step(session, values(10), if_step=2)).result.outputs[0, 0] == 13
            with pytest.raises(StepNotKept):
                await sessions.rewind(session, 4)
            assert await recorded(sessions, session) == [(1, 1, 1), (2, 2, 3), (3, 10, 13)]

    run(test())


def test_refused_step_leaves_a_rewind_undoable():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2))
            await sessions.rewind(session, 0)
            with pytest.raises(StepConflict):
                await sessions.step(session, values(5), if_step=2)
            with pytest.raises(InvalidRequest):
                await sessions.step(session, values(3e38, 3e38))
            assert (await sessions.rewind(session, 2)).step == 2
            assert await total(sessions, session) == 3

    run(test())


def test_reset_is_undone_with_rewind():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step_frame(session, values(1, 2), (), 7)
            told = await sessions.reset(session)
            assert (told.step, told.latest, await total(sessions, session)) == (0, 2, 0)
            assert (await sessions.rewind(session, 2)).step == 2
            assert await total(sessions, session) == 3

    run(test())


def test_frame_sent_again_after_a_rewind_is_not_carried_out():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            for seq in range(3):
                await sessions.step_frame(session, values(seq + 1), (), seq)
            await sessions.rewind(session, 1)
            again = await sessions.step_frame(session, values(3), (), 2)
            assert isinstance(again, Stepped)
            assert (again.step, again.result.outputs[0, 0]) == (3, 6)
            assert await total(sessions, session) == 1
            assert (await sessions.step_frame(session, values(10), (), 3)).step == 2
            assert await recorded(sessions, session) == [(1, 1, 1), (2, 10, 11)]

    run(test())


def test_fork_goes_its_own_way():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2, 3))
            fork = await sessions.fork(session, 2)
            assert (fork.step, fork.id != session) == (2, True)
            await sessions.step(session, values(4))
            assert (await sessions.step(fork.id, values(10))).result.outputs[0, 0] == 13
            assert (await sessions.fork(session)).step == 4
            await sessions.delete(session)
            assert [await total(sessions, fork.id, step) for step in range(4)] == [0, 1, 3, 13]

    run(test())


def test_forks_of_forks_take_few_steps_again():
    """Each wakes from a snapshot of the one that it was forked from, however many came before."""

    async def test() -> None:
        backend = FakeBackend(capacity=90, memory_size=1000)
        async with service(backend=backend, resident=80, opened=80) as sessions:
            session = (await sessions.open("fake")).id
            for depth in range(1, 60):
                before = len(backend.steps)
                assert (await sessions.step(session, values(1))).result.outputs[0, 0] == depth
                assert len(backend.steps) - before < 15
                session = (await sessions.fork(session)).id

    run(test())


def test_fork_of_a_step_that_is_not_there_is_refused():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            with pytest.raises(StepNotKept):
                await sessions.fork(session, 1)
            assert len(await sessions.all(None, 9)) == 1

    run(test())


def test_snapshot_opens_the_session_again():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2, 3))
            now, before = await sessions.snapshot(session), await sessions.snapshot(session, 1)
            for data, step, expected in ((now, 3, 6), (before, 1, 1)):
                restored = await sessions.open_from(data)
                assert (restored.step, restored.oldest, await total(sessions, restored.id)) == (step, step, expected)
                assert (await sessions.step(restored.id, values(1))).result.outputs[0, 0] == expected + 1
                with pytest.raises(StepNotKept, match=f"expected 0, or {step} to {step + 1}"):
                    await sessions.rewind(restored.id, 2 if step == 3 else 5)
                assert (await sessions.reset(restored.id)).step == 0
                await sessions.delete(restored.id)

    run(test())


def test_snapshot_of_another_model_is_refused_by_name():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            known = Snapshot.from_bytes(await sessions.snapshot(session))
            other = Snapshot("other-model", "f" * 64, None, 0, known.state).to_bytes()
            with pytest.raises(InvalidSnapshot, match="is of other-model, fingerprint ffff"):
                await sessions.open_from(other)
            wrong = Snapshot("fake", known.fingerprint, None, 0, {"total": np.zeros(3, np.float32)}).to_bytes()
            with pytest.raises(InvalidSnapshot, match=r"its state is \{'total': \[3\]\}"):
                await sessions.open_from(wrong)
            assert len(await sessions.all(None, 9)) == 1

    run(test())


def test_snapshot_of_step_0_with_another_state_is_refused():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            data = await sessions.snapshot(session)
            known = Snapshot.from_bytes(data)
            other = Snapshot("fake", known.fingerprint, None, 0, {"total": np.ones(2, np.float32)}).to_bytes()
            with pytest.raises(InvalidSnapshot, match="says step 0, but its total is not that of fake before"):
                await sessions.open_from(other)
            assert (await sessions.open_from(data)).step == 0

    run(test())


@pytest.mark.parametrize("size", [None, 4])
def test_session_with_another_memory_size_than_its_state_is_damaged(size):
    """As a server kept it that took a snapshot which did not say its memory size, once the model's own is another."""

    async def test() -> None:
        store = MemoryStore()
        async with service(backend=FakeBackend(memory_size=8), store=store) as sessions:
            known = Snapshot.from_bytes(await sessions.snapshot((await sessions.open("fake")).id))
            state = {"total": np.ones(2, np.float32), "memory": np.ones(5, np.float32)}
            data = Snapshot("fake", known.fingerprint, size, 3, state).to_bytes()
            new = NewSession("old", "fake", known.fingerprint, size, 0.0, base=3, snapshot=data)
            store.create(new, "somebody")
            for asked in (sessions.state("old"), sessions.step("old", values(1))):
                with pytest.raises(SessionDamaged, match="memory"):
                    await asked

    run(test())


def test_recording_of_some_steps():
    async def test() -> None:
        async with service() as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(*range(600)))
            assert await recorded(sessions, session, 598) == [(599, 598, 179_101), (600, 599, 179_700)]
            assert (await recorded(sessions, session, 0, 1), await recorded(sessions, session, 5, 5)) == (
                [(1, 0, 0)],
                [],
            )
            with pytest.raises(InvalidRequest, match="from: 5 is after 4"):
                await sessions.recording(session, 5, 4)
            with pytest.raises(StepNotKept):
                await sessions.recording(session, 0, 601)

    run(test())


def test_recording_begins_where_the_past_is_kept():
    async def test() -> None:
        async with service(store=MemoryStore(Retention(4, 1e9))) as sessions:
            session = (await sessions.open("fake")).id
            for value in range(70):
                await sessions.step(session, values(value))
            while (await sessions.info(session)).oldest < 32:  # noqa: ASYNC110 - snapshots are written while the session goes on
                await asyncio.sleep(0.001)
            assert await recorded(sessions, session) == [(n + 1, n, n * (n + 1) / 2) for n in range(32, 70)]
            for step in (1, 31):
                with pytest.raises(StepNotKept, match="expected 0, or 32 to 70"):
                    await sessions.state(session, step)
            with pytest.raises(StepNotKept):
                await sessions.recording(session, 0, 70)
            assert await total(sessions, session, 0) == 0

    run(test())


def test_recording_begins_later_if_its_first_steps_are_gone():
    async def test() -> None:
        async with service(store=MemoryStore(Retention(4, 1e9))) as sessions:
            session = (await sessions.open("fake")).id
            for value in range(40):
                await sessions.step(session, values(value))
            from_oldest, from_start = await sessions.recording(session), await sessions.recording(session, 0)
            for value in range(40, 70):
                await sessions.step(session, values(value))
            while not (oldest := (await sessions.info(session)).oldest):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.001)
            assert 0 < oldest < 40
            assert [piece.step async for piece in from_oldest] == [oldest]
            with pytest.raises(StepNotKept, match="step 0 is not kept"):
                await anext(from_start)

    run(test())


def test_recording_begins_later_if_a_snapshot_was_kept_unheard():
    """As where the connection to a database is lost after its commit."""

    class LostAnswers(MemoryStore):
        def snapshot(self, *arguments: Any) -> int:
            super().snapshot(*arguments)
            raise StoreFailed("the connection was lost")

    async def test() -> None:
        store = LostAnswers(Retention(4, 1e9))
        async with service(store=store) as sessions:
            session = (await sessions.open("fake")).id
            for value in range(100):
                await sessions.step(session, values(value))
            await sessions.writer.call(lambda _: None)
            assert (await sessions.info(session)).oldest == 0
            first, *_ = await recorded(sessions, session)
            assert first[0] > 30
            assert (await sessions.info(session)).oldest == first[0] - 1

    run(test())


def test_large_state_has_one_passing_snapshot_after_many_steps():
    """The log has not outgrown it: what wakes the session gives way to the next."""

    def snapshots(store: MemoryStore) -> list[tuple[int, bool]]:
        return [(at, kept.passing) for tape in store._tapes.values() for at, kept in tape.snapshots.items()]

    async def test() -> None:
        store = MemoryStore()
        async with service(backend=FakeBackend(memory_size=50_000), store=store) as sessions:
            session = (await sessions.open("fake")).id
            for at in (1001, 2002):
                await sessions.step(session, ones(1001))
                while await sessions.writer.call(lambda _: snapshots(store)) != [(at, True)]:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            assert await total(sessions, session, 5) == 5

    run(test())


def snapshots(store: MemoryStore) -> list[tuple[int, bool]]:
    """Return the step of each snapshot, and whether it is passing."""
    return [(at, kept.passing) for tape in store._tapes.values() for at, kept in tape.snapshots.items()]


def test_snapshots_of_a_small_state_are_many_steps_apart():
    """Two steps in the log are larger than the state: a snapshot for each pair would cost more than the steps."""

    async def test() -> None:
        store = MemoryStore()
        async with service(store=store) as sessions:
            session = (await sessions.open("fake")).id
            for _ in range(2 * LOG_STEPS + 1):
                await sessions.step(session, ones(1))
            while len(await sessions.writer.call(lambda _: snapshots(store))) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert await sessions.writer.call(lambda _: snapshots(store)) == [
                (LOG_STEPS, False),
                (2 * LOG_STEPS, False),
            ]

    run(test())


def test_session_that_is_often_evicted_keeps_snapshots_that_stay():
    async def test() -> None:
        store = MemoryStore()
        async with service(store=store) as sessions:
            session = (await sessions.open("fake")).id
            for step in range(1, 2 * LOG_STEPS + 2):
                await sessions.step(session, ones(1))
                if step % 12 == 0:
                    assert await sessions.residents.try_evict(await sessions.find(session))
            await asyncio.gather(*sessions.residents._writing)
            kept = await sessions.writer.call(lambda _: snapshots(store))
            assert [at for at, passing in kept if not passing] == [LOG_STEPS, 2 * LOG_STEPS]

    run(test())


def test_sessions_beyond_those_that_fit_wake_where_they_were():
    async def test() -> None:
        async with service(resident=2, opened=40, backend=FakeBackend(capacity=4)) as sessions:
            opened = [(await sessions.open("fake")).id for _ in range(20)]
            for turn in range(3):
                for number, session in enumerate(opened):
                    told = await sessions.step(session, values(*[number] * 10))
                    assert (told.step, told.result.outputs[-1, 0]) == (10 * turn + 10, (10 * turn + 10) * number)
            assert sessions.resident() <= 2

    run(test())


def test_least_recently_used_session_leaves_first():
    async def test() -> None:
        backend = FakeBackend(capacity=4)
        async with service(resident=2, opened=9, backend=backend) as sessions:
            first, second, third = [(await sessions.open("fake")).id for _ in range(3)]
            for session in (first, second, first, third, first):
                await sessions.step(session, values(1))
            slots = [slot for step in backend.steps for slot in step]
            assert slots == [0, 1, 0, 1, 0]

    run(test())


def test_sessions_in_use_stay_though_more_are_restored():
    async def test() -> None:
        async with service(resident=1, opened=9, backend=FakeBackend(capacity=8)) as sessions:
            opened = [(await sessions.open("fake")).id for _ in range(6)]
            jobs = [sessions.step(session, ones(30)) for session in opened]
            assert [told.step for told in await asyncio.gather(*jobs)] == [30] * 6
            await sessions.step((await sessions.open("fake")).id, ones(1))
            assert sessions.resident() == 1

    run(test())


def test_session_whose_step_failed_in_a_full_arena_is_unchanged():
    """What it needs is computed again from the log."""

    def raise_on_seven(inputs: "np.ndarray[Any, Any]") -> None:
        if (inputs == 7).any():
            raise OSError

    async def test() -> None:
        async with service(resident=1, opened=9, backend=FakeBackend(before_step=raise_on_seven)) as sessions:
            one, two = (await sessions.open("fake")).id, (await sessions.open("fake")).id
            for session in (one, two):
                await sessions.step(session, values(1, 2))
                with pytest.raises(StepFailed):
                    await sessions.step(session, values(3, 7))
            assert (await total(sessions, one), await total(sessions, two)) == (3, 3)

    run(test())


@pytest.mark.parametrize("durability", ["interval", "none"])
def test_without_waiting_for_the_log_a_clean_restart_loses_nothing(tmp_path, durability: Durability):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path), durability=durability) as sessions:
            session = (await sessions.open("fake")).id
            for seq in range(3):
                await sessions.step_frame(session, values(seq + 1), (), seq)
        async with service(store=SqliteStore(tmp_path)) as sessions:
            async with sessions.watching(session) as watched:
                assert (watched.step, watched.seq, await total(sessions, session)) == (3, 2, 6)
            with pytest.raises(SequenceConflict):
                await sessions.step_frame(session, values(1), (), 4)

    run(test())


def test_without_a_log_there_is_no_past():
    async def test() -> None:
        async with service(durability="none") as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2))
            with pytest.raises(StepNotKept, match="expected 0 or 2"):
                await sessions.state(session, 1)
            assert (await total(sessions, session, 0), await recorded(sessions, session)) == (0, [])
            fork = await sessions.fork(session)
            assert (fork.step, await total(sessions, fork.id)) == (2, 3)
            assert (await sessions.reset(session)).step == 0
            assert (await sessions.step(session, values(5))).result.outputs[0, 0] == 5

    run(test())


def test_answered_steps_are_kept_until_they_can_be_written():
    """With durability interval: what was answered is not lost while the process lives, and no more is taken."""

    async def test() -> None:
        store = FailingStore()
        async with service(store=store, durability="interval") as sessions:
            session = (await sessions.open("fake")).id
            store.failing = frozenset({"append"})
            await sessions.step(session, values(1))
            with pytest.raises(StoreFailed):  # noqa: PT012 - sooner or later
                for _ in range(1000):
                    await sessions.step(session, values(0))
                    await asyncio.sleep(0.001)
            store.failing = frozenset()
            await asyncio.sleep(0.1)
            steps = (await sessions.step(session, values(10))).step
            assert (await recorded(sessions, session))[0] == (1, 1, 1)
            assert (await recorded(sessions, session))[-1] == (steps, 10, 11)

    run(test())


def test_damaged_session_is_refused_and_others_go_on(tmp_path):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path)) as sessions:
            damaged, whole = [(await sessions.open("fake")).id for _ in range(2)]
            for session in (damaged, whole):
                await sessions.step(session, values(1, 2))
        altered(tmp_path, "DELETE FROM snapshots")
        altered(tmp_path, "UPDATE log SET inputs = x'00' WHERE tape = 1")
        async with service(store=SqliteStore(tmp_path)) as sessions:
            with pytest.raises(SessionDamaged):
                await sessions.step(damaged, values(1))
            assert await total(sessions, whole) == 3
            await sessions.delete(damaged)

    run(test())


@pytest.mark.parametrize(
    ("form", "bytes_per_step"), [(None, 12), (Form("float16"), 6), (Form("int16"), 11), (Form("int16", 2**-4), 11)]
)
def test_inputs_are_kept_in_the_form_in_which_they_came(tmp_path, form, bytes_per_step):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path), backend=FakeBackend(size=3)) as sessions:
            session = (await sessions.open("fake")).id
            await step_all(sessions, [(session, Steps(three(1, 2, 3), form=form))])
            await step_all(sessions, [(session, Steps(three(5), form=form))])
            log = await sessions.writer.call(lambda store: store.steps(1, 0, 4, 10**6))
            assert [len(steps.inputs) for steps in log] == [3 * bytes_per_step, bytes_per_step]
            assert [await total(sessions, session, step) for step in range(5)] == [0, 1, 3, 6, 11]
            assert await recorded(sessions, session, 1, 4) == [(2, 2, 3), (3, 3, 6), (4, 5, 11)]

    run(test())


def test_tag_of_inputs_that_is_none_is_damage(tmp_path, monkeypatch):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path), backend=FakeBackend(size=3)) as sessions:
            session = (await sessions.open("fake")).id
            with monkeypatch.context() as written:
                written.setattr(dtypes, "INT16_TAG", 0)
                await step_all(sessions, [(session, Steps(three(1), form=Form("int16")))])
            with pytest.raises(SessionDamaged, match=r"the log of tape 1 is damaged at step 0.*the tag of a step"):
                await recorded(sessions, session)

    run(test())


class Life:
    """What sessions should be, as lists of inputs: the truth that a random life is compared with."""

    def __init__(self) -> None:
        self.inputs: dict[str, list[float]] = {}
        self.at: dict[str, int] = {}
        self.seqs: dict[str, int | None] = {}

    def add(self, name: str, inputs: list[float]) -> None:
        self.inputs[name], self.at[name], self.seqs[name] = inputs, len(inputs), None

    def step(self, name: str, inputs: list[float]) -> None:
        self.inputs[name] = self.inputs[name][: self.at[name]] + inputs
        self.at[name] = len(self.inputs[name])


async def act(draw: random.Random, sessions: ById, life: Life) -> None:
    """Do something random with a random session, and compare what it tells with what it should."""
    if not life.inputs or (draw.random() < 0.1 and len(life.inputs) < 8):
        life.add((await sessions.open("fake")).id, [])
    name = draw.choice(list(life.inputs))
    at, latest = life.at[name], len(life.inputs[name])
    match draw.choice(
        ["step", "step", "step", "frame", "frame", "rewind", "reset", "fork", "state", "delete", "record"]
    ):
        case "step":
            inputs = [float(draw.randrange(9)) for _ in range(draw.choice([1, 1, 2, 5, 300 if latest < 600 else 1]))]
            told = await sessions.step(name, values(*inputs), if_step=at)
            life.step(name, inputs)
            assert told.step == life.at[name]
            assert told.result.outputs[-1, 0] == sum(life.inputs[name])
        case "frame":
            last, value = life.seqs[name], float(draw.randrange(9))
            seq = 0 if last is None else last + 1
            life.step(name, [value])
            life.seqs[name] = seq
            for _ in range(draw.choice([1, 2])):
                stepped = await sessions.step_frame(name, values(value), (), seq)
                assert stepped.step == life.at[name]
        case "rewind":
            life.at[name] = draw.randrange(latest + 1)
            assert (await sessions.rewind(name, life.at[name])).latest == latest
        case "reset":
            life.at[name], life.seqs[name] = 0, None
            assert (await sessions.reset(name)).latest == latest
        case "fork" if len(life.inputs) < 8:
            step = draw.randrange(latest + 1)
            life.add((await sessions.fork(name, step)).id, life.inputs[name][:step])
        case "state":
            step = draw.randrange(latest + 1)
            assert await total(sessions, name, step) == sum(life.inputs[name][:step])
        case "delete" if draw.random() < 0.3:
            await sessions.delete(name)
            del life.inputs[name]
            with pytest.raises(SessionGone):
                await sessions.info(name)
        case "record":
            told_steps = [value for _, value, _ in await recorded(sessions, name)]
            assert told_steps == life.inputs[name][:at]


@pytest.mark.parametrize("seed", range(12))
def test_random_lives_are_what_their_inputs_say(tmp_path, seed):
    """Few fit into the arena, the server is restarted again and again, and sometimes its sessions do not leave it."""
    draw, life = random.Random(seed), Life()

    async def test() -> None:
        for _ in range(6):
            store = SqliteStore(tmp_path)
            async with service(
                store=store, backend=FakeBackend(capacity=80), resident=draw.choice([1, 2, 8]), opened=99
            ) as sessions:
                for _ in range(40):
                    await act(draw, sessions, life)
                for name, inputs in life.inputs.items():
                    assert await total(sessions, name) == sum(inputs[: life.at[name]])
                assert {session.id for session in await sessions.all(None, 99)} == set(life.inputs)
                if draw.random() < 0.5:
                    sessions.residents.evict_all = _nothing  # type: ignore[method-assign]
        store = SqliteStore(tmp_path)
        assert list(store.check(lambda *_: None)) == []
        for name in life.inputs:
            store.end(name, "deleted", 0.0)
        left = [store._database.row(f"SELECT count(*) FROM {table}")[0] for table in ("tapes", "log", "snapshots")]
        assert left == [0, 0, 0]
        store.close()

    run(test())


async def _nothing(until: float) -> None:
    """What a server does for its sessions that is killed."""


def test_volatile_session_is_lost_with_a_step_that_hangs():
    """It may have taken the step or not: it does not start over in silence."""
    hanging, release = threading.Event(), threading.Event()

    def hang_on_seven(inputs: "np.ndarray[Any, Any]") -> None:
        if (inputs == 7).any():
            hanging.set()
            assert release.wait(10)

    async def test() -> None:
        backend = FakeBackend(before_step=hang_on_seven)
        async with service(durability="none", backend=backend, step_timeout=0.1) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1))
            with pytest.raises(StepTimedOut):
                await sessions.step(session, values(7))
            with pytest.raises(SessionGone) as gone:
                await sessions.info(session)
            assert (gone.value.more["reason"], hanging.is_set()) == ("lost in a failure", True)
            release.set()

    run(test())


def test_logged_session_goes_on_after_a_step_that_hung():
    release = threading.Event()

    def hang_on_seven(inputs: "np.ndarray[Any, Any]") -> None:
        if (inputs == 7).any():
            assert release.wait(10)

    async def test() -> None:
        async with service(backend=FakeBackend(before_step=hang_on_seven), step_timeout=0.1) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1))
            with pytest.raises(StepTimedOut):
                await sessions.step(session, values(7))
            with pytest.raises(StepTimedOut):
                await sessions.state(session)
            release.set()
            await until(lambda: sessions.model().engine._hang is None)
            assert (await sessions.step(session, values(2), if_step=1)).result.outputs[0, 0] == 3

    run(test())


def test_volatile_session_is_lost_though_its_end_was_not_written():
    """What was answered since it left its arena is nowhere: it does not go on from there in silence."""
    release = threading.Event()

    def hang_on_seven(inputs: "np.ndarray[Any, Any]") -> None:
        if (inputs == 7).any():
            assert release.wait(10)

    async def test() -> None:
        store, backend = FailingStore(), FakeBackend(before_step=hang_on_seven)
        async with service(store=store, durability="none", backend=backend, resident=1, step_timeout=0.1) as sessions:
            session, other = [(await sessions.open("fake")).id for _ in range(2)]
            for each in (session, other, session):
                await sessions.step(each, values(1))
            store.failing = frozenset({"end"})
            with pytest.raises(StepTimedOut):
                await sessions.step(session, values(7))
            release.set()
            await until(lambda: sessions.model().engine._hang is None)
            with pytest.raises(SessionGone) as gone:
                await sessions.state(session)
            assert (gone.value.status, gone.value.more["reason"]) == (410, "lost in a failure")

    run(test())


def test_volatile_session_is_evicted_though_the_newcomer_is_gone():
    """What it does after that is noted, so that it is not taken for what left."""

    class Slow(MemoryStore):
        parking, go = threading.Event(), threading.Event()

        def park(self, *told: Any) -> None:
            self.parking.set()
            assert self.go.wait(10)
            super().park(*told)

    async def test() -> None:
        store = Slow()
        async with service(store=store, durability="none", backend=FakeBackend(capacity=1)) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2))
            asking = asyncio.ensure_future(sessions.infer(sessions.model(), [values(5)], (), None))
            await asyncio.to_thread(store.parking.wait)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            store.go.set()
            assert (await sessions.step(session, values(3))).result.outputs[0, 0] == 6
            found = await sessions.writer.call(lambda _: store.find(session))
            assert isinstance(found, Record)
            assert (found.step, found.volatile) == (2, True)

    run(test())


def test_volatile_session_is_forked_while_watched_and_evicted():
    async def test() -> None:
        async with service(durability="none", resident=1) as sessions:
            session, other = [(await sessions.open("fake")).id for _ in range(2)]
            async with sessions.watching(session):
                await sessions.step(session, values(1, 2))
                await sessions.step(other, values(1))
                fork = await sessions.fork(session)
            assert (fork.step, await total(sessions, fork.id)) == (2, 3)
            assert (await sessions.step(session, values(4))).result.outputs[0, 0] == 7

    run(test())
