"""All that a store keeps is copied into any other store, which then gives the same answers, now and later."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from app.errors import SessionDamaged, StoreFailed
from app.stores.archive import Archive, ArchivedSession, ArchivedSteps, ArchivedTape, Copied, copy
from app.stores.base import KEEP_ALL, REMEMBERED_FOR, Record, Retention, Store
from app.stores.memory import MemoryStore
from app.stores.postgres import PostgresStore
from app.stores.postgres import archive as postgres_archive
from app.stores.sqlite import SqliteStore
from tests.app.stores.conftest import TABLE
from tests.app.stores.postgres.one_process import OneProcess
from tests.app.stores.test_random_lives import OWNERS, RETENTIONS, WithFile
from tests.app.stores.test_stores import alter, found, opened, past, problems, rows, step


def copied(source: Archive, target: Archive) -> Copied:
    return copy(source, target, lambda _: None)


class Lives(WithFile):
    """Random lives on two stores, the second of which is not opened anew."""

    def reopen(self) -> None:
        """Do something else: not every store can be left as a kill leaves it."""
        self.create()

    def mark_volatile(self) -> None:
        """Do something else: a volatile session of a copy is lost when it is claimed, where servers share the store."""
        self.create()

    def release(self) -> None:
        """Release a session and claim it again: where servers share the store, only an owner may change it."""
        super().release()
        self.claim_all()

    def release_all(self) -> None:
        """Release every session, so that the two stores and a copy agree on who owns it: nobody."""
        for name in self.names:
            for owner in OWNERS:
                self.ask(lambda store, name=name, owner=owner: store.release(name, owner))
        self.stale.clear()

    def claim_all(self) -> None:
        """Claim every session that nobody owns."""
        for name in self.names:
            self.ask(lambda store, name=name: store.claim(name, "me"))

    def check_all(self) -> None:
        """Compare all answers about the past of all sessions."""
        for name in self.names:
            if isinstance(self.memory.find(name), Record):
                self.check_past(name)
        self.check()


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and write few rows at a time."""
    monkeypatch.setattr(postgres_archive, "AT_ONCE", 3)
    monkeypatch.setattr(postgres_archive, "FULL_ROWS", 5)


@pytest.mark.slow
@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_copy_gives_the_same_answers_now_and_later(seed, retention, make, tmp_path, small):
    lives = Lives(seed, retention, tmp_path)
    for _ in range(120):
        lives.act()
    lives.release_all()
    original, lives.other = lives.other, make(retention)
    assert copied(original, lives.other) == copied(lives.memory, MemoryStore())
    original.close()
    lives.check_all()
    lives.claim_all()
    for _ in range(60):
        lives.act()
        lives.check()
    assert problems(lives.other) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 6))
def test_copies_of_copies_are_the_same(seed, tmp_path, chain, small):
    lives = Lives(seed, Retention(7, 1e9), tmp_path)
    for _ in range(150):
        lives.act()
    lives.release_all()
    last: Store = lives.memory
    counts = set()
    for kind in [*TABLE, *reversed(TABLE)]:
        lives.other, store = chain(kind), last
        counts.add(copied(store, lives.other))
        lives.check_all()
        last = lives.other
    assert len(counts) == 1


@pytest.fixture
def chain(postgres, tmp_path) -> Iterator[Callable[[str], Store]]:
    """Make a store of a kind, for the retention of the chain; all are closed after the test."""
    with ExitStack() as made:
        numbers = count()

        def place(kind: str) -> Path | str:
            number = next(numbers)
            return (
                made.enter_context(postgres.schema(f"link{number}"))
                if kind == "postgres"
                else tmp_path / f"link{number}"
            )

        def make(kind: str) -> Store:
            store = TABLE[kind](lambda: place(kind), Retention(7, 1e9))
            made.callback(store.close)
            return store

        yield make


def test_new_tapes_of_a_copy_have_new_numbers(store):
    source = MemoryStore()
    for name in "abc":
        opened(source, name)
        step(source, name, 1, 2)
    source.move("b", 1, None)
    copied(source, store)
    assert store.claim("b", "me").step == 1
    step(store, "b", 7)
    opened(store, "d", base=2, parent=found(store, "b").tape)
    assert [past(store, name) for name in "abcd"] == [[1, 2], [1, 7], [1, 2], [1, 7]]


def test_copied_sessions_are_free_and_keep_their_epoch(store):
    source = MemoryStore()
    epoch = opened(source).epoch
    source.claim("a", "them")
    copied(source, store)
    assert [found(store).epoch, store.claim("a", "me").epoch] == [epoch + 1, epoch + 2]


def test_copy_has_the_gates_that_sessions_force(store):
    source, forces = MemoryStore(), {"a": '{"write_gate":[0.0]}', "b": None, "c": '{"free_gates":[null,1.0]}'}
    for name, force in forces.items():
        opened(source, name, force=force)
    source.end("c", "deleted", 1000.0)
    copied(source, store)
    back = MemoryStore()
    copied(store, back)
    for kept in (store, back):
        items = [item for item in kept.contents() if isinstance(item, ArchivedSession)]
        assert {item.id: item.force for item in items} == forces


def test_copy_counts_what_it_copied_and_shows_its_progress(store):
    source, shown = MemoryStore(), []
    for name in "abc":
        opened(source, name)
        step(source, name, 1, 2, 3)
    source.snapshot(found(source).tape, 3, b"state", 1000.0, passing=False)
    source.end("c", "deleted", 1000.0)
    assert copy(source, store, shown.append) == Copied(sessions=3, tapes=2, steps=6, snapshots=1)
    assert shown == [1, 2, 3]


def test_store_with_sessions_is_refused_and_stays_as_it_is(store):
    source = MemoryStore()
    opened(source), opened(store, "b")
    store.end("b", "deleted", 1000.0)
    with pytest.raises(StoreFailed, match=r"there are sessions in .* already"):
        copied(source, store)
    assert (store.find("a"), store.find("b")) == (None, "deleted")


def test_copy_that_fails_midway_leaves_nothing(store):
    source = MemoryStore()
    for name in "abc":
        opened(source, name)
        step(source, name, 1, 2)

    class CutOff:
        def contents(self):
            items = list(source.contents())
            yield from items[:-1]
            raise StoreFailed("the source is gone")

    with pytest.raises(StoreFailed, match="the source is gone"):
        copied(CutOff(), store)
    assert (store.find("a"), store.counts(), rows(store, "log"), rows(store, "tapes")) == (None, {}, 0, 0)
    copied(source, store)
    assert [past(store, name) for name in "abc"] == [[1, 2]] * 3
    opened(store, "d")


@pytest.mark.parametrize("lengths", [(4,), (1, 1, 1, 1), (1, 2, 1)])
def test_copy_ends_a_shortened_tape_where_it_ends(lengths, store):
    target = MemoryStore()
    opened(store)
    for steps in lengths:
        step(store, "a", *range(steps))
    opened(store, "b", base=2, parent=found(store).tape)
    expected = past(store, "b")
    store.end("a", "deleted", 1000.0)
    assert copied(store, target).steps == 2
    assert past(target, "b") == expected


def test_last_session_of_a_copy_takes_its_past_with_it(store):
    source = MemoryStore()
    opened(source)
    step(source, "a", 1, 2)
    opened(source, "b", base=1, parent=found(source).tape)
    source.end("a", "deleted", 1000.0)
    copied(source, store)
    store.claim("b", "me")
    assert (rows(store, "tapes"), store.end("b", "deleted", 1000.0)) == (2, True)
    assert (rows(store, "tapes"), rows(store, "log")) == (0, 0)


@pytest.mark.parametrize(("lengths", "kept"), [((4,), 4), ((1, 1, 1, 1), 2), ((1, 2, 1), 3)])
def test_copy_begins_with_the_entry_that_retention_cut(lengths, kept, make):
    store, target = make(Retention(0, 1e9)), MemoryStore()
    opened(store)
    for seq, steps in enumerate(lengths):
        step(store, "a", *range(steps), seq=seq)
    store.snapshot(found(store).tape, 2, b"state", 1000.0, passing=False)
    assert copied(store, target).steps == kept
    answers = [[at.frame(found(at).tape, seq) for seq in range(4)] for at in (store, target)]
    assert answers[0] == answers[1]


def test_ended_sessions_of_a_copy_are_forgotten_in_order(store):
    target = MemoryStore()
    for name, ended in (("b", 5000.0), ("c", 7000.0), ("a", 9000.0)):
        opened(store, name)
        store.end(name, "deleted", ended)
    copied(store, target)
    target.tidy(REMEMBERED_FOR + 8000.0)
    assert [target.find(name) for name in "abc"] == ["deleted", None, None]


def test_items_come_after_those_that_they_need(store):
    opened(store)
    for number in range(12):
        step(store, f"a{number}" if number else "a", number)
        opened(store, f"a{number + 1}", base=1, parent=found(store, f"a{number}" if number else "a").tape)
    seen = set()
    for item in store.contents():
        if isinstance(item, ArchivedTape):
            assert item.parent in {None, *seen}
            seen.add(item.number)
        elif isinstance(item, ArchivedSession | ArchivedSteps):
            assert item.tape in seen


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE tapes SET stop = 7 WHERE number = 1", "the row of tape 1 is damaged"),
        ("UPDATE log SET inputs = x'00' WHERE tape = 1", "the log of tape 1 is damaged at step 0"),
        ("DELETE FROM log WHERE tape = 1", "the log of tape 1 ends at step 0, but it was at 2"),
        ("UPDATE snapshots SET state = x'00'", "the snapshot of tape 1 at step 2 is damaged"),
        ("UPDATE sessions SET model = 'x' WHERE id = 'a'", "the row of session a is damaged"),
        ("UPDATE sessions SET model = 'x' WHERE id = 'b'", "the row of session b is damaged"),
        ("DELETE FROM tapes WHERE number = 1", "of 1 open sessions 1 are on no tape"),
    ],
)
def test_damage_is_not_copied(statement, complaint, embedded):
    opened(embedded), opened(embedded, "b")
    step(embedded, "a", 1, 2)
    embedded.snapshot(found(embedded).tape, 2, b"state", 1000.0, passing=False)
    embedded.end("b", "deleted", 1000.0)
    alter(embedded, statement)
    target = MemoryStore()
    with pytest.raises(SessionDamaged, match=f"{complaint}: engram check lists all damage"):
        copied(embedded, target)
    assert target.find("a") is None


def test_stopped_store_is_copied_and_stays_as_it_is(tmp_path):
    source = SqliteStore(tmp_path)
    opened(source)
    step(source, "a", 1, 2)
    source.mark_volatile("a")
    source.close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    source, target = SqliteStore(tmp_path, opens=False), MemoryStore(KEEP_ALL)
    copied(source, target)
    source.close()
    assert (past(target), found(target).volatile) == ([1, 2], True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Of a database that several servers share


@pytest.fixture
def shared(database_url) -> Iterator[PostgresStore]:
    store = PostgresStore(database_url, owners=lambda: ("me",))
    yield store
    store.close()


def register(store: PostgresStore, server: str, lasts: str) -> None:
    """Have a server use a database, with a lease that lasts some time."""
    store._database.run("INSERT INTO servers (id, name, place, lasts) VALUES ($1, $1, '', $2::interval)", server, lasts)


def test_database_that_servers_use_is_neither_read_nor_filled(shared):
    register(shared, "one", "1 hour")
    register(shared, "dead", "-1 hour")
    for source, target in ((shared, MemoryStore()), (MemoryStore(), shared)):
        with pytest.raises(StoreFailed, match="servers use it: one; stop them first"):
            copied(source, target)


def test_volatile_session_of_a_copy_is_lost_when_claimed(shared):
    source = MemoryStore()
    for name in "ab":
        opened(source, name)
        step(source, name, 1, 2)
    source.mark_volatile("a")
    copied(source, shared)
    assert (found(shared).volatile, found(shared, "b").volatile) == (True, False)
    register(shared, "me", "1 hour")
    assert (shared.claim("a", "me"), shared.claim("b", "me").step) == ("lost in a restart", 2)


def test_steps_of_former_tapes_are_not_mixed_with_copied_ones(database_url):
    store, source = OneProcess(database_url), MemoryStore()
    for at in (store, source):
        opened(at)
        step(at, "a", 1, 2, 3)
    store.end("a", "deleted", 1000.0)
    while store.tidy(1001.0 + REMEMBERED_FOR):
        pass
    assert store._database.row("SELECT count(*) FROM log") == (1,)
    copied(source, store)
    assert (past(store), store.counts(), problems(store)) == ([1, 2, 3], {"dnc-copy": 1}, [])
    store.close()


def test_gap_in_the_log_of_a_database_is_not_copied(database_url):
    store = OneProcess(database_url)
    opened(store)
    for value in range(3):
        step(store, "a", value)
    store._database.run("DELETE FROM log WHERE step = 1")
    with pytest.raises(SessionDamaged, match=r"the log of tape \d+ goes on at step 2 after step 1: engram check"):
        copied(store, MemoryStore())
    store.close()
