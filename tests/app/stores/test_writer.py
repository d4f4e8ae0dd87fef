"""The thread that owns the store: group commits, what interval and sync promise, and what happens when it fails."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from app.errors import EngramError, SessionMoved, ShuttingDown, StoreFailed
from app.stores.base import Entry, NewSession, Record, Store
from app.stores.memory import MemoryStore
from app.stores.ownership import Alone, Ownership
from app.stores.writer import Durability, Writer
from tests.app.asynchronous import run, until


class Watched(MemoryStore):
    """A store that notes its writes and syncs, and fails or waits as a test sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[object] = []
        self.failing: set[str] = set()
        self.folds = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def append(self, entries: Sequence[Entry]) -> set[int]:
        self.entered.set()
        assert self.gate.wait(10)
        self._fail("append")
        self.done.append(len(entries))
        return super().append(entries)

    def fold(self) -> None:
        self._fail("fold")
        self.folds += 1

    def sync(self) -> None:
        self._fail("sync")
        self.done.append("sync")

    def _fail(self, name: str) -> None:
        if name in self.failing:
            raise StoreFailed(f"{name}: disk full")


class Reports:
    def __init__(self) -> None:
        self.commits: list[int] = []
        self.failures = 0

    def commit(self, entries: int, seconds: float) -> None:
        self.commits.append(entries)

    def failure(self) -> None:
        self.failures += 1


@asynccontextmanager
async def writing(
    durability: Durability = "ack",
    commit_interval: float = 0.01,
    sync_interval: float = 100,
    timeout: float = math.inf,
    ownership: Ownership | None = None,
) -> AsyncIterator[tuple[Writer, Watched]]:
    store = Watched()
    writer = Writer(store, Reports(), durability, commit_interval, sync_interval, timeout, ownership)
    writer.start()
    try:
        yield writer, store
    finally:
        store.gate.set()
        store.failing.clear()
        await writer.close()


async def opened(writer: Writer) -> Record:
    return await writer.call(lambda store: store.create(NewSession("a", "m", "f", None, 0.0), "me"))


def entry(record: Record, step: int, epoch: int = 1) -> Entry:
    return Entry(record.tape, epoch, step, 1, b"1234")


class Outcomes:
    """The outcomes of groups, in the order in which they came, and the threads that called."""

    def __init__(self) -> None:
        self.groups: list[list[EngramError | None]] = []
        self.threads: list[str] = []

    def __call__(self, errors: Sequence[EngramError | None]) -> None:
        self.groups.append(list(errors))
        self.threads.append(threading.current_thread().name)


def test_groups_that_come_during_a_commit_are_one_commit():
    async def test() -> None:
        async with writing() as (writer, store):
            record, done = await opened(writer), Outcomes()
            store.gate.clear()
            writer.commit([entry(record, 0)], done)
            await asyncio.sleep(0.05)
            for step in (1, 2, 3):
                writer.commit([entry(record, step)], done)
            assert done.groups == [], "nobody is answered before the commit"
            store.gate.set()
            await until(lambda: len(done.groups) == 4)
            assert (store.done, done.groups) == ([1, 3], [[None]] * 4)
            assert set(done.threads) == {"store"}

    run(test())


def test_call_sees_what_was_written_before_it():
    async def test() -> None:
        for durability in ("ack", "interval"):
            async with writing(durability, commit_interval=1000) as (writer, _):  # type: ignore[arg-type]
                record = await opened(writer)
                writer.commit([entry(record, 0), entry(record, 1)], Outcomes())
                found = await writer.call(lambda store: store.find("a"))
                assert isinstance(found, Record)
                assert found.step == 2

    run(test())


def test_refused_entry_gets_an_error_and_its_mates_are_written():
    async def test() -> None:
        async with writing() as (writer, _):
            record, done = await opened(writer), Outcomes()
            writer.commit([entry(record, 0), entry(record, 0, epoch=7)], done)
            await until(lambda: done.groups)
            assert done.groups[0][0] is None
            assert isinstance(done.groups[0][1], SessionMoved)

    run(test())


def test_failed_commit_fails_its_entries_and_the_next_is_tried():
    async def test() -> None:
        async with writing() as (writer, store):
            record, done = await opened(writer), Outcomes()
            store.failing = {"append"}
            writer.commit([entry(record, 0), entry(record, 1)], done)
            await until(lambda: done.groups)
            assert [type(error) for error in done.groups[0]] == [StoreFailed] * 2
            assert (await writer.call(lambda store: store.counts())) == {"m": 1}
            store.failing = set()
            writer.commit([entry(record, 0)], done)
            await until(lambda: len(done.groups) == 2)
            assert done.groups[1] == [None]

    run(test())


def test_interval_answers_at_once_and_writes_within_the_interval():
    async def test() -> None:
        async with writing("interval", commit_interval=0.2) as (writer, store):
            record, done = await opened(writer), Outcomes()
            for step in range(5):
                writer.commit([entry(record, step)], done)
            assert done.groups == [[None]] * 5
            await until(lambda: store.done)
            assert store.done == [5]

    run(test())


def test_interval_that_cannot_write_keeps_steps_and_takes_no_more():
    async def test() -> None:
        async with writing("interval") as (writer, store):
            record, done = await opened(writer), Outcomes()
            store.failing = {"append"}
            writer.commit([entry(record, 0)], done)
            with pytest.raises(StoreFailed):
                await writer.call(lambda store: store.find("a"))
            writer.commit([entry(record, 1)], done)
            assert isinstance(done.groups[1][0], StoreFailed)
            store.failing = set()
            await until(lambda: store.done)
            assert store.done == [1]
            await until(lambda: writer._failure is None)
            writer.commit([entry(record, 1)], done)
            assert done.groups[2] == [None]
            assert await writer.call(lambda store: len(store.steps(record.tape, 0, 9, 99))) == 2

    run(test())


def test_commit_is_synced_before_its_answer_where_interval_is_0():
    async def test() -> None:
        async with writing(sync_interval=0) as (writer, store):
            record, done = await opened(writer), Outcomes()
            store.done.clear()
            writer.commit([entry(record, 0)], done)
            await until(lambda: done.groups)
            assert store.done == [1, "sync"]
            store.failing = {"sync"}
            writer.commit([entry(record, 1)], done)
            await until(lambda: len(done.groups) == 2)
            assert isinstance(done.groups[1][0], StoreFailed)

    run(test())


def test_commits_are_synced_within_the_interval_and_once():
    async def test() -> None:
        async with writing(sync_interval=0.1) as (writer, store):
            record, done = await opened(writer), Outcomes()
            for step in range(3):
                writer.commit([entry(record, step)], done)
            await until(lambda: "sync" in store.done)
            assert sum(done for done in store.done if isinstance(done, int)) == 3
            await asyncio.sleep(0.3)
            assert store.done.count("sync") == 1

    run(test())


def test_failed_sync_is_tried_again_though_nothing_more_is_written():
    async def test() -> None:
        async with writing(sync_interval=0.02) as (writer, store):
            store.failing = {"sync"}
            await opened(writer)
            await until(lambda: writer._observer.failures >= 2)  # type: ignore[attr-defined]
            store.failing = set()
            await until(lambda: "sync" in store.done)
            await asyncio.sleep(0.1)
            assert store.done == ["sync"], "and once it is done, no more"

    run(test())


def test_store_folds_after_all_who_wait_are_answered():
    async def test() -> None:
        async with writing() as (writer, store):
            record, folds = await opened(writer), list[int]()
            await until(lambda: store.folds)
            before = store.folds
            writer.commit([entry(record, 0)], lambda _: folds.append(store.folds))
            await until(lambda: store.folds > before)
            assert folds == [before]
            await asyncio.sleep(0.05)
            assert store.folds == before + 1, "and only after something was written"

    run(test())


def test_fold_that_fails_is_logged_once_and_refuses_nothing(caplog):
    async def test() -> None:
        async with writing() as (writer, store):
            record, done = await opened(writer), Outcomes()
            store.failing = {"fold"}
            for step in range(3):
                writer.commit([entry(record, step)], done)
                await until(lambda step=step: len(done.groups) == step + 1)
            assert done.groups == [[None]] * 3
            await writer.call(lambda store: store.counts())

    run(test())
    assert caplog.text.count("cannot be moved into the log") == 1


def test_call_that_raises_fails_its_caller_and_no_other():
    async def test() -> None:
        def broken(_: Store) -> None:
            raise KeyError("a bug")

        async with writing() as (writer, _):
            with pytest.raises(StoreFailed, match="KeyError"):
                await writer.call(broken)
            assert (await opened(writer)).step == 0

    run(test())


def test_store_that_breaks_in_an_unexpected_way_leaves_nobody_waiting():
    async def test() -> None:
        async with writing() as (writer, store):
            record, done = await opened(writer), Outcomes()
            store.done = None  # type: ignore[assignment] - so that noting what was written raises
            writer.commit([entry(record, 0)], done)
            await until(lambda: done.groups)
            assert isinstance(done.groups[0][0], StoreFailed)
            store.done = []
            writer.commit([entry(record, 0)], done)
            await until(lambda: len(done.groups) == 2)
            assert done.groups[1] == [None]

    run(test())


def test_close_writes_what_is_left_and_refuses_what_comes_then():
    async def test() -> None:
        async with writing("interval", commit_interval=1000) as (writer, store):
            record = await opened(writer)
            writer.commit([entry(record, 0)], Outcomes())
            await writer.close()
            assert store.done == [1]
            with pytest.raises(ShuttingDown):
                await writer.call(lambda store: store.counts())
            await writer.close()

    run(test())


def test_hanging_store_fails_all_who_wait_and_who_come():
    async def test() -> None:
        async with writing(timeout=0.1) as (writer, store):
            record = await opened(writer)
            store.gate.clear()
            first, second = Outcomes(), Outcomes()
            writer.commit([entry(record, 0), entry(record, 1)], first)
            waiting = asyncio.ensure_future(writer.call(lambda store: store.find("a")))
            with pytest.raises(StoreFailed, match=r"does not answer within 0\.1 s"):
                await waiting
            with pytest.raises(StoreFailed, match="does not answer"):
                await writer.call(lambda store: store.find("a"))
            writer.commit([entry(record, 2)], second)
            assert [type(error) for done in (first, second) for error in done.groups[0]] == [StoreFailed] * 3

    run(test())


class Expiring(Alone):
    """A lease that the test lets run out."""

    is_shared, seconds = True, 0.1


def test_call_that_outlasts_the_lease_fails_all_who_wait():
    async def test() -> None:
        lease = Expiring()
        async with writing(timeout=100, ownership=lease) as (writer, store):
            record, done = await opened(writer), Outcomes()
            store.gate.clear()
            writer.commit([entry(record, 0)], done)
            await asyncio.sleep(4 * lease.seconds)
            assert not done.groups, "as long as the lease is held, a slow store is waited for"
            lease.holds = False
            with pytest.raises(StoreFailed, match="the lease has run out"):
                await writer.call(lambda store: store.find("a"))
            assert [type(error) for error in done.groups[0]] == [StoreFailed]

    run(test())


def test_store_that_answers_again_has_only_what_it_had_begun():
    async def test() -> None:
        async with writing(timeout=0.1) as (writer, store):
            record, others = await opened(writer), [Outcomes(), Outcomes()]
            store.gate.clear()
            writer.commit([entry(record, 0)], others[0])
            await asyncio.to_thread(store.entered.wait)
            writer.commit([entry(record, 1)], others[1])
            await until(lambda: all(done.groups for done in others))
            store.gate.set()
            await until(lambda: writer._hang is None)
            found = await writer.call(lambda store: store.find("a"))
            assert isinstance(found, Record)
            assert found.step == 1
            assert [len(done.groups) for done in others] == [1, 1], "nobody is answered twice"

    run(test())


def test_interval_takes_no_more_from_a_hang_until_it_ends():
    async def test() -> None:
        async with writing("interval", commit_interval=0.01, timeout=0.1) as (writer, store):
            record, taken, refused = await opened(writer), Outcomes(), Outcomes()
            store.gate.clear()
            writer.commit([entry(record, 0)], taken)
            await until(lambda: writer._hang)
            writer.commit([entry(record, 1)], refused)
            assert (taken.groups, type(refused.groups[0][0])) == ([[None]], StoreFailed)
            store.gate.set()
            await until(lambda: writer._hang is None and store.done == [1])

    run(test())


def test_close_leaves_a_store_that_hangs():
    async def test() -> None:
        async with writing() as (writer, store):
            record, done = await opened(writer), Outcomes()
            store.gate.clear()
            writer.commit([entry(record, 0)], done)
            await asyncio.wait_for(writer.close(0.1), 10)
            assert [type(error) for error in done.groups[0]] == [ShuttingDown]

    run(test())


def test_error_of_a_done_callback_stops_nothing(caplog):
    def broken(_: Sequence[EngramError | None]) -> None:
        raise RuntimeError("broken")

    async def test() -> None:
        async with writing() as (writer, _):
            record = await opened(writer)
            writer.commit([entry(record, 0)], broken)
            found = await writer.call(lambda store: store.find("a"))
            assert isinstance(found, Record)
            assert found.step == 1

    run(test())
    assert "an observer failed" in caplog.text


def test_interval_takes_no_more_while_the_store_is_late(monkeypatch):
    """Each step that is taken meanwhile would be lost if the process were killed."""
    monkeypatch.setattr("app.stores.writer.LATE_SECONDS", 0.05)

    async def test() -> None:
        async with writing("interval", commit_interval=0.01) as (writer, store):
            record, taken, refused = await opened(writer), Outcomes(), Outcomes()
            store.gate.clear()
            writer.commit([entry(record, 0)], taken)
            await asyncio.to_thread(store.entered.wait)
            await asyncio.sleep(0.1)
            writer.commit([entry(record, 1)], refused)
            assert (taken.groups, type(refused.groups[0][0])) == ([[None]], StoreFailed)
            store.gate.set()
            await until(lambda: store.done == [1])
            await writer.call(lambda store: None)
            writer.commit([entry(record, 1)], taken)
            assert taken.groups == [[None]] * 2

    run(test())


def test_lag_is_that_of_the_oldest_unsynced_step():
    async def test() -> None:
        async with writing(sync_interval=0.2) as (writer, store):
            record, done = await opened(writer), Outcomes()
            await until(lambda: store.done == ["sync"])
            await until(lambda: writer.lag == 0)
            writer.commit([entry(record, 0)], done)
            await until(lambda: bool(done.groups))
            first = writer.lag
            writer.commit([entry(record, 1)], done)
            await until(lambda: len(done.groups) == 2)
            assert 0 < first < writer.lag
            await until(lambda: store.done[-1] == "sync")
            await until(lambda: writer.lag == 0)

    run(test())


def test_lag_grows_while_answered_steps_cannot_be_written():
    async def test() -> None:
        async with writing("interval") as (writer, store):
            record = await opened(writer)
            store.failing = {"append"}
            writer.commit([entry(record, 0)], Outcomes())
            await until(lambda: writer.lag > 0.1)
            assert writer.waiting == 1
            store.failing = {"sync"}
            await until(lambda: writer.waiting == 0)
            assert writer.lag > 0.1, "written, and not yet synced"

    run(test())


def test_entries_that_wait_for_a_commit_are_counted():
    async def test() -> None:
        async with writing() as (writer, store):
            record, done = await opened(writer), Outcomes()
            assert writer.waiting == 0
            store.gate.clear()
            for steps in ((0,), (1, 2)):
                writer.commit([entry(record, step) for step in steps], done)
            assert writer.waiting == 3
            store.gate.set()
            await until(lambda: writer.waiting == 0)

    run(test())


def test_lag_is_0_where_every_commit_is_synced():
    async def test() -> None:
        async with writing(sync_interval=0) as (writer, _):
            record, done = await opened(writer), Outcomes()
            writer.commit([entry(record, 0)], done)
            await until(lambda: bool(done.groups))
            assert writer.lag == 0

    run(test())
