"""Sessions without a log, whose snapshots are replaced while they are stepped: by hand, then at random.

The back end's state is the sum of the inputs. A server that is killed is one whose sessions do not leave the arena.
"""

import asyncio
import json
import random
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from app.backends.fake import FakeBackend
from app.errors import (
    NonFiniteOutput,
    OutOfMemory,
    SequenceConflict,
    SessionDamaged,
    SessionGone,
    StepConflict,
    StepNotKept,
    StepTimedOut,
    StoreFailed,
)
from app.sessions.session import Duplicate, Stepped, Steps
from app.stores.base import Record
from app.stores.memory import MemoryStore
from app.stores.sqlite import SqliteStore
from app.tenants import DEFAULT
from tests.app.asynchronous import run, until
from tests.app.copying import sequence
from tests.app.harness import running_server
from tests.app.sessions.by_id import ById
from tests.app.sessions.test_past import _nothing, recorded, total, values
from tests.app.sessions.test_sessions import FailingStore, Losing, ones, service, step_all
from tests.app.stores.test_stores import altered

SOON = 0.01
NEVER = 1000.0


@asynccontextmanager
async def killed(path: Path, **options: Any) -> AsyncIterator[ById]:
    """A service over a directory, killed in the end."""
    async with service(store=SqliteStore(path), **options) as sessions:
        yield sessions
        sessions.residents.evict_all = _nothing  # type: ignore[method-assign]


async def stored(sessions: ById, session: str) -> tuple[int, int | None]:
    """Return the step and the last frame that a server would go on from after a kill."""
    found = await sessions.writer.call(lambda store: store.find(session))
    assert isinstance(found, Record)
    return found.step, found.seq


async def until_saved(sessions: ById, session: str) -> None:
    """Wait until the last snapshot of a session has all of its steps."""
    while await stored(sessions, session) != ((info := await sessions.info(session)).step, info.seq):  # noqa: ASYNC110
        await asyncio.sleep(SOON)


def test_killed_session_goes_on_from_its_last_snapshot(tmp_path):
    async def test() -> None:
        async with killed(tmp_path, snapshots=SOON) as sessions:
            session = (await sessions.open("fake")).id
            for seq in range(3):
                await sessions.step_frame(session, values(seq + 1), (), seq)
            await until_saved(sessions, session)
        async with killed(tmp_path, snapshots=NEVER) as sessions:
            assert (await sessions.step_frame(session, values(9), (), 3)).step == 4
        async with service(store=SqliteStore(tmp_path), snapshots=SOON) as sessions:
            info = await sessions.info(session)
            assert (info.step, info.seq, info.oldest, await total(sessions, session)) == (3, 2, 3, 6)
            with pytest.raises(SequenceConflict, match="frame 4 came after frame 2"):
                await sessions.step_frame(session, values(1), (), 4)
            with pytest.raises(StepConflict):
                await sessions.step(session, values(1), if_step=4)
            assert await sessions.step_frame(session, values(3), (), 2) == Duplicate(3)
            again = await sessions.step_frame(session, values(9), (), 3)
            assert isinstance(again, Stepped)
            assert (again.step, again.result.outputs[0, 0]) == (4, 15)

    run(test())


def test_killed_session_without_a_snapshot_begins_anew(tmp_path):
    async def test() -> None:
        async with killed(tmp_path, snapshots=NEVER) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step_frame(session, values(1, 2), (), 0)
        async with service(store=SqliteStore(tmp_path)) as sessions:
            info = await sessions.info(session)
            assert (info.step, info.seq) == (0, None)
            assert (await sessions.step(session, values(5))).result.outputs[0, 0] == 5

    run(test())


def test_last_step_is_in_a_snapshot(tmp_path):
    """Also steps that many sessions take together, and a session that rests while others are stepped."""

    async def test() -> None:
        async with killed(tmp_path, snapshots=SOON) as sessions:
            names = [(await sessions.open("fake")).id for _ in range(3)]
            for _ in range(2):
                await step_all(sessions, [(name, Steps(values(2))) for name in names])
                for name in names:
                    await until_saved(sessions, name)
            assert all(known.saving is None and not known.unsaved for known in sessions.known.values())
        async with service(store=SqliteStore(tmp_path), snapshots=SOON) as sessions:
            assert [await total(sessions, name) for name in names] == [4, 4, 4]

    run(test())


def test_eviction_and_a_planned_stop_lose_nothing(tmp_path):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path), snapshots=NEVER, resident=1) as sessions:
            one, two = [(await sessions.open("fake")).id for _ in range(2)]
            for value in (1, 2, 3):
                for name in (one, two):
                    assert (await sessions.step(name, values(value))).step == value
            assert {await stored(sessions, name) for name in (one, two)} == {(2, None), (3, None)}
        async with service(store=SqliteStore(tmp_path)) as sessions:
            assert [await total(sessions, name) for name in (one, two)] == [6, 6]

    run(test())


CHOICES: dict[str, dict[str, Any]] = {
    "ack": {},
    "interval": {"durability": "interval"},
    "none": {"durability": "none"},
    "snapshots": {"snapshots": SOON},
    "snapshots beside none": {"snapshots": SOON, "durability": "none"},
}


@pytest.mark.parametrize("before", CHOICES)
@pytest.mark.parametrize("after", CHOICES)
def test_choice_may_change_between_two_starts_of_a_server(tmp_path, before, after):
    """Of the session, its steps under the first choice outlast the second, which is killed."""

    async def test() -> None:
        async with service(store=SqliteStore(tmp_path), **CHOICES[before]) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step_frame(session, values(1, 2), (), 0)
        async with killed(tmp_path, **CHOICES[after]) as sessions:
            assert await total(sessions, session) == 3
            await sessions.step_frame(session, values(4), (), 1)
            if after != "none":
                await until_saved(sessions, session)
        async with service(store=SqliteStore(tmp_path), **CHOICES[before]) as sessions:
            if after == "none":
                with pytest.raises(SessionGone, match="lost in a restart"):
                    await sessions.info(session)
                return
            assert (await sessions.step_frame(session, values(8), (), 2)).step == 4
            assert await total(sessions, session) == 15

    run(test())


def test_logged_past_can_be_reached_until_the_next_step(tmp_path):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path)) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2, 3))
            await sessions.rewind(session, 2)
        async with killed(tmp_path, snapshots=SOON) as sessions:
            assert (await total(sessions, session, 3), await total(sessions, session, 1)) == (6, 1)
            await sessions.step(session, values(10))
            await until_saved(sessions, session)
            with pytest.raises(StepNotKept, match="expected 0 or 3"):
                await sessions.rewind(session, 1)
        async with service(store=SqliteStore(tmp_path)) as sessions:
            assert await total(sessions, session) == 13

    run(test())


def test_session_without_a_past_is_forked_where_it_is(tmp_path):
    async def test() -> None:
        async with killed(tmp_path, snapshots=NEVER) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2))
            with pytest.raises(StepNotKept, match="expected 0 or 2"):
                await sessions.state(session, 1)
            assert (await total(sessions, session, 0), await recorded(sessions, session)) == (0, [])
            assert (await sessions.info(session)).oldest == 2
            fork = await sessions.fork(session)
            restored = await sessions.open_from(await sessions.snapshot(session))
            await sessions.step(fork.id, values(4))
        async with service(store=SqliteStore(tmp_path)) as sessions:
            assert [await total(sessions, name) for name in (session, fork.id, restored.id)] == [0, 3, 3]

    run(test())


@pytest.mark.parametrize("durability", ["ack", "none"])
def test_recording_after_a_volatile_reset_has_no_earlier_steps(tmp_path, durability):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path)) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(7, 7))
        options: dict[str, Any] = {"durability": durability, "snapshots": NEVER if durability == "ack" else None}
        async with service(store=SqliteStore(tmp_path), **options) as sessions:
            await sessions.step(session, values(1))
            await sessions.reset(session)
            await sessions.step(session, values(2))
            with pytest.raises(StepNotKept, match="the inputs of the steps from 0 to 1 are not kept"):
                await recorded(sessions, session, 0, 1)

    run(test())


def test_reset_outlasts_a_kill(tmp_path):
    async def test() -> None:
        async with killed(tmp_path, snapshots=SOON) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step_frame(session, values(1, 2), (), 7)
            await until_saved(sessions, session)
            await sessions.step_frame(session, values(3), (), 8)
            assert (await sessions.reset(session)).step == 0
            assert await stored(sessions, session) in [(0, None)]
        async with service(store=SqliteStore(tmp_path), snapshots=SOON) as sessions:
            info = await sessions.info(session)
            assert (info.step, info.seq, await total(sessions, session)) == (0, None, 0)
            assert (await sessions.step_frame(session, values(5), (), 0)).step == 1

    run(test())


def test_reset_that_cannot_be_written_changes_nothing(tmp_path):
    async def test() -> None:
        store = FailingStore()
        async with service(store=store, snapshots=SOON) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step_frame(session, values(1, 2), (), 0)
            store.failing = frozenset({"move"})
            with pytest.raises(StoreFailed):
                await sessions.reset(session)
            assert (await sessions.step_frame(session, values(3), (), 1)).step == 3
            await until_saved(sessions, session)
            assert await total(sessions, session) == 6

    run(test())


def test_full_disk_stops_no_step_and_snapshots_resume(caplog):
    async def test() -> None:
        store = FailingStore()
        async with service(store=store, snapshots=SOON, resident=1) as sessions:
            session, other = [(await sessions.open("fake")).id for _ in range(2)]
            await sessions.step(session, values(1))
            store.failing = frozenset({"park"})
            await until(lambda: "its last snapshot is not replaced: disk full" in caplog.text)
            for _ in range(10):
                await sessions.step(session, values(1))
                await asyncio.sleep(SOON)
            await sessions.step(other, values(5))
            assert await total(sessions, session) == 11, "it stays in its arena"
            store.failing = frozenset()
            await until_saved(sessions, session)
        assert caplog.text.count(f"session {session}: its last snapshot is not replaced") == 1

    run(test())


class Slow(MemoryStore):
    """Hangs in `park` until it may go on; `parked`: the sessions of those calls that began."""

    def __init__(self) -> None:
        super().__init__()
        self.parked: list[str] = []
        self.parking, self.go = threading.Event(), threading.Event()

    def park(self, session: str, *told: Any) -> None:
        self.parked.append(session)
        self.parking.set()
        assert self.go.wait(10)
        super().park(session, *told)


def test_slow_disk_holds_up_snapshots_and_no_step():
    async def test() -> None:
        store = Slow()
        async with service(store=store, snapshots=SOON) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1))
            await asyncio.to_thread(store.parking.wait)
            for step in range(2, 12):
                assert (await sessions.step(session, values(1))).step == step
                await asyncio.sleep(SOON)
            assert (store.parked, len(sessions.writer._waiting)) == ([session], 1)
            store.go.set()
            await until_saved(sessions, session)
            assert len(store.parked) == 2

    run(test())


@pytest.mark.parametrize("end", ["delete", "reset", "leave", "fork"])
def test_what_comes_while_a_snapshot_is_written_comes_after_it(end, caplog):
    async def test() -> None:
        store = Slow()
        async with service(store=store, snapshots=SOON) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2))
            await asyncio.to_thread(store.parking.wait)
            known = sessions.known[session]
            doing: Any = sessions.residents.try_evict(known) if end == "leave" else getattr(sessions, end)(session)
            coming = asyncio.ensure_future(doing)
            await asyncio.sleep(SOON)
            store.go.set()
            told = await coming
            if end == "delete":
                with pytest.raises(SessionGone):
                    await sessions.info(session)
            else:
                at = {"reset": 0, "leave": 2, "fork": 2}[end]
                assert await total(sessions, told.id if end == "fork" else session) == {0: 0, 2: 3}[at]
                assert known.saving is None or end == "fork" or not known.unsaved
        assert caplog.text == ""

    run(test())


def test_ended_or_evicted_session_has_no_more_snapshots_written():
    async def test() -> None:
        store = Slow()
        store.go.set()
        async with service(store=store, snapshots=0.05, resident=1) as sessions:
            gone, left, last = [(await sessions.open("fake")).id for _ in range(3)]
            await sessions.step(gone, values(1))
            await sessions.delete(gone)
            for name in (left, last):
                await sessions.step(name, values(1))
            await until_saved(sessions, last)
            await asyncio.sleep(0.1)
            assert store.parked == [left, last]

    run(test())


@pytest.mark.parametrize("end", ["delete", "evict", "fail"])
def test_saving_ends_when_the_session_leaves_its_arena(end):
    async def test() -> None:
        async with service(backend=Losing(capacity=8), snapshots=NEVER) as sessions:
            before = asyncio.all_tasks()
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1))
            [saving] = asyncio.all_tasks() - before
            if end == "delete":
                await sessions.delete(session)
            elif end == "evict":
                assert await sessions.residents.try_evict(sessions.known[session])
            else:
                with pytest.raises(OutOfMemory):
                    await sessions.step(session, values(7))
            await asyncio.wait([saving], timeout=5)
            assert saving.done()

    run(test())


def test_stop_while_a_snapshot_is_being_taken_loses_nothing(tmp_path):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path), snapshots=SOON) as sessions:
            residents, taking = sessions.residents, asyncio.Event()
            pack, slow = residents.packed, [asyncio.Event()]

            async def packed(*arguments: Any) -> bytes:
                taking.set()
                if slow:
                    await slow.pop().wait()
                return await pack(*arguments)

            residents.packed = packed  # type: ignore[method-assign]
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2))
            await taking.wait()
            await sessions.saving.stop(1.0)
            await residents.evict_all(1.0)
            assert await stored(sessions, session) == (2, None)

    run(test())


def test_step_that_is_refused_takes_no_past_away(tmp_path):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path)) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2))
        async with service(store=SqliteStore(tmp_path), snapshots=SOON, resident=1) as sessions:
            for refused in (sessions.step(session, ones(1), if_step=1), sessions.step(session, ones(2) * 3e38)):
                with pytest.raises((StepConflict, NonFiniteOutput)):
                    await refused
            await sessions.step((await sessions.open("fake")).id, values(1))
            assert (await total(sessions, session, 1), (await sessions.info(session)).oldest) == (1, 0)

    run(test())


def test_damaged_snapshot_without_a_log_is_reported(tmp_path):
    async def test() -> None:
        async with killed(tmp_path, snapshots=SOON) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1, 2))
            await until_saved(sessions, session)
        altered(tmp_path, "UPDATE snapshots SET taken = taken + 1")
        async with service(store=SqliteStore(tmp_path), snapshots=SOON) as sessions:
            with pytest.raises(SessionDamaged):
                await sessions.step(session, values(3))

    run(test())


def test_snapshot_is_no_use_of_a_session():
    async def test() -> None:
        async with service(snapshots=SOON) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1))
            sessions.service._clock.now = 5.0  # type: ignore[attr-defined]
            await until_saved(sessions, session)
            assert (await sessions.info(session)).used == 0.0

    run(test())


def test_step_that_fails_midway_names_the_step_of_its_session():
    async def test() -> None:
        async with service(backend=Losing(capacity=8), snapshots=NEVER) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step_frame(session, values(1, 2), (), 0)
            await sessions.saving._save(sessions.known[session])
            await sessions.step_frame(session, values(3), (), 1)
            async with sessions.watching(session) as watched:
                with pytest.raises(OutOfMemory, match="is back at its last snapshot, step 2") as told:
                    await sessions.step_frame(session, values(7), (), 2)
                assert (told.value.more["step"], told.value.more["seq"]) == (2, 0)
                assert (watched.step, watched.seq, (await sessions.info(session)).step) == (2, 0, 2)
            assert (await sessions.step_frame(session, values(4), (), 1)).step == 3
            assert await total(sessions, session) == 7

    run(test())


def test_sessions_of_a_failed_batch_each_learn_their_step():
    release = threading.Event()

    def hang_on_seven(inputs: Any) -> None:
        if (inputs == 7).any():
            assert release.wait(10)

    async def test() -> None:
        backend = FakeBackend(capacity=8, before_step=hang_on_seven)
        async with service(backend=backend, snapshots=NEVER, step_timeout=0.5) as sessions:
            names = [(await sessions.open("fake")).id for _ in range(3)]
            for name in names:
                await sessions.step(name, values(1))
            asked = [(await sessions.find(name), Steps(values(7))) for name in names]
            for name, outcome in zip(names, await sessions.service.stepping.step_all(asked), strict=True):
                assert str(outcome).count("is back at its last snapshot") == 1
                assert str(outcome).endswith(f"; session {name} is back at its last snapshot, step 0")
            release.set()

    run(test())


def test_step_that_hangs_puts_its_session_back():
    release = threading.Event()

    def hang_on_seven(inputs: Any) -> None:
        if (inputs == 7).any():
            assert release.wait(10)

    async def test() -> None:
        backend = FakeBackend(before_step=hang_on_seven)
        async with service(backend=backend, snapshots=NEVER, step_timeout=0.5) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1))
            with pytest.raises(StepTimedOut, match="is back at its last snapshot, step 0"):
                await sessions.step(session, values(7))
            assert (await sessions.info(session)).step == 0
            release.set()
            await until(lambda: sessions.model().engine._hang is None)
            assert (await sessions.step(session, values(2), if_step=0)).result.outputs[0, 0] == 2

    run(test())


def test_failing_step_and_store_name_no_step():
    async def test() -> None:
        store = FailingStore()
        async with service(store=store, backend=Losing(capacity=8), snapshots=NEVER) as sessions:
            session = (await sessions.open("fake")).id
            await sessions.step(session, values(1))
            store.failing = frozenset({"claim"})
            with pytest.raises(OutOfMemory) as told:
                await sessions.step(session, values(7))
            assert "snapshot" not in str(told.value)
            store.failing = frozenset()
            assert ((await sessions.info(session)).step, await total(sessions, session)) == (0, 0)

    run(test())


class Life:
    """What a session was given since its last reset, and the number of the last frame after each step."""

    def __init__(self) -> None:
        self.inputs: list[float] = []
        self.seqs: list[int | None] = [None]

    def cut(self, step: int, seq: int | None) -> None:
        """Go back to a step that the session has been at."""
        assert seq == self.seqs[step]
        del self.inputs[step:], self.seqs[step + 1 :]


async def act(draw: random.Random, sessions: ById, lives: dict[str, Life]) -> None:
    """Do something random with a random session, and compare what it tells with what it should."""
    if not lives or (draw.random() < 0.1 and len(lives) < 6):
        lives[(await sessions.open("fake")).id] = Life()
    name = draw.choice(list(lives))
    life = lives[name]
    match draw.choice(["frame"] * 5 + ["state", "reset", "fork", "fail", "wait", "delete"]):
        case "frame":
            given = [float(draw.randrange(7)) for _ in range(draw.choice([1, 1, 3]))]
            last = life.seqs[-1]
            seq = 0 if last is None else last + 1
            stepped = await sessions.step_frame(name, values(*given), (), seq)
            life.inputs += given
            life.seqs += [last] * (len(given) - 1) + [seq]
            assert isinstance(stepped, Stepped)
            assert (stepped.step, stepped.result.outputs[-1, 0]) == (len(life.inputs), sum(life.inputs))
        case "state":
            assert await total(sessions, name) == sum(life.inputs)
        case "reset":
            await sessions.reset(name)
            lives[name] = Life()
        case "fork" if len(lives) < 6:
            lives[(await sessions.fork(name)).id] = fork = Life()
            fork.inputs, fork.seqs = list(life.inputs), [None] * (len(life.inputs) + 1)
        case "fail":
            with pytest.raises(OutOfMemory):
                await sessions.step(name, values(7))
            info = await sessions.info(name)
            life.cut(info.step, info.seq)
        case "wait":
            await asyncio.sleep(0.005)
        case "delete" if draw.random() < 0.3:
            await sessions.delete(name)
            del lives[name]


@pytest.mark.parametrize("seed", range(12))
def test_random_lives_go_on_from_an_earlier_step(tmp_path, seed):
    """Few fit into the arena, the server is restarted again and again, and sometimes it is killed."""
    draw = random.Random(seed)
    lives: dict[str, Life] = {}

    async def test() -> None:
        for _ in range(6):
            options: dict[str, Any] = {"resident": draw.choice([1, 2, 8]), "snapshots": draw.choice([0.001, 0.005])}
            backend, is_killed = Losing(capacity=80), draw.random() < 0.5
            serve = killed(tmp_path, backend=backend, opened=99, **options)
            if not is_killed:
                serve = service(store=SqliteStore(tmp_path), backend=backend, opened=99, **options)
            async with serve as sessions:
                for name, life in lives.items():
                    info = await sessions.info(name)
                    life.cut(info.step, info.seq)
                    assert await total(sessions, name) == sum(life.inputs)
                for _ in range(40):
                    await act(draw, sessions, lives)
            lengths = {name: len(life.inputs) for name, life in lives.items()}
            store = SqliteStore(tmp_path)
            assert list(store.check(lambda *_: None)) == []
            found = {record.id: record.step for record in store.list(DEFAULT, None, 99)}
            assert found.keys() == lengths.keys()
            assert is_killed or found == lengths
            store.close()

    run(test())


SNAPSHOTS = ("--snapshots", "dnc-copy=0.05")


def send(stream: ClientConnection, inputs: list[list[float]], start: int) -> list[list[float]]:
    """Send frames of a step, numbered as in a list of all inputs from `start` on, and return their outputs."""
    outputs = []
    for seq, row in enumerate(inputs[start:], start):
        stream.send(json.dumps({"seq": seq, "inputs": [row]}))
        told = json.loads(stream.recv())
        assert (told["type"], told["seq"], told["step"]) == ("result", seq, seq + 1)
        outputs += told["outputs"]
    return outputs


def test_killed_server_answers_repeated_frames_with_the_same_bits(data, few):
    inputs = sequence(30)[0]
    with (
        running_server(*SNAPSHOTS, data=data, checkpoints=few) as server,
        connect(f"{server.socket_url}/stream?model=dnc-copy") as stream,
    ):
        session = json.loads(stream.recv())["session"]
        outputs = send(stream, inputs[:20], 0)
        time.sleep(1)
        outputs += send(stream, inputs[:40], 20)
        server.stop(signal.SIGKILL)
    with running_server(*SNAPSHOTS, data=data, checkpoints=few) as server, httpx.Client(base_url=server.url) as client:
        told = client.get(f"/sessions/{session}").json()
        with connect(f"{server.socket_url}/sessions/{session}/stream") as stream:
            greeting = json.loads(stream.recv())
            assert (greeting["step"], greeting["seq"]) == (told["step"], told["seq"])
            again = send(stream, inputs, greeting["seq"] + 1)
        whole = client.post("/infer", json={"model": "dnc-copy", "inputs": inputs}).json()["outputs"]
        undisturbed = client.post("/sessions", json={"model": "dnc-copy"}).json()["id"]
        client.post(f"/sessions/{undisturbed}/steps", json={"inputs": inputs}).raise_for_status()
        states = [client.get(f"/sessions/{name}/state").json()["state"] for name in (session, undisturbed)]
    assert 20 <= greeting["step"] == greeting["seq"] + 1 <= 40
    assert outputs == whole[:40]
    assert again == whole[greeting["step"] :]
    assert states[0] == states[1]


def test_frame_after_lost_ones_is_refused_unless_without_a_number(data, few):
    inputs = sequence(4)[0]
    flags = ("--snapshots", "dnc-copy=1000")
    with (
        running_server(*flags, data=data, checkpoints=few) as server,
        connect(f"{server.socket_url}/stream?model=dnc-copy") as stream,
    ):
        session = json.loads(stream.recv())["session"]
        send(stream, inputs[:2], 0)
        httpx.post(f"{server.url}/sessions/{session}/reset").raise_for_status()
        send(stream, inputs[:2], 0)
        assert server.stop() in (0, -signal.SIGTERM)
    with (
        running_server(*flags, data=data, checkpoints=few) as server,
        connect(f"{server.socket_url}/sessions/{session}/stream") as stream,
    ):
        assert json.loads(stream.recv())["step"] == 2
        send(stream, inputs[:6], 2)
        server.stop(signal.SIGKILL)
    with running_server(*flags, data=data, checkpoints=few) as server, httpx.Client(base_url=server.url) as client:
        with connect(f"{server.socket_url}/sessions/{session}/stream") as stream:
            assert (json.loads(stream.recv())["seq"]) == 1
            stream.send(json.dumps({"seq": 6, "inputs": inputs[6:7]}))
            assert json.loads(stream.recv())["code"] == "sequence_conflict"
        with connect(f"{server.socket_url}/sessions/{session}/stream") as stream:
            stream.recv()
            stream.send(json.dumps({"inputs": inputs[6:7]}))
            told = json.loads(stream.recv())
        counted = [*inputs[:2], inputs[6]]
        whole = client.post("/infer", json={"model": "dnc-copy", "inputs": counted}).json()["outputs"]
    assert (told["step"], told["outputs"]) == (3, whole[2:])


def test_models_of_one_server_choose_for_themselves(few, data):
    """After a kill, one model's sessions have lost no step, and the other's are at their last snapshot."""
    inputs = sequence(2)[0]
    with running_server("--snapshots", "lstm-copy=1000", data=data, checkpoints=few) as server:
        names = {}
        for model in ("dnc-copy", "lstm-copy"):
            names[model] = httpx.post(f"{server.url}/sessions", json={"model": model}).json()["id"]
            steps = httpx.post(f"{server.url}/sessions/{names[model]}/steps", json={"inputs": inputs})
            assert steps.json()["step"] == len(inputs)
        server.stop(signal.SIGKILL)
    with running_server(data=data, checkpoints=few) as server:
        told = [httpx.get(f"{server.url}/sessions/{name}").json()["step"] for name in names.values()]
    assert told == [len(inputs), 0]
