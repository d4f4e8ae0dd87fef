"""Steps that are not in the log yet: they are read like those that are, and a store opened after a kill has them."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import SessionDamaged, StoreFailed
from app.stores.base import EndReason, Entry, Record, Retention
from app.stores.sqlite import FILE, SqliteStore, journal
from app.stores.sqlite.rows import ENTRY
from tests.app.stores.test_stores import ALL, alter, altered, found, inputs, opened, past, problems, step
from tests.app.stores.test_tapes import Lives
from tests.app.test_faults import PAGE, overwrite_page


def count(store: SqliteStore, table: str) -> int:
    """Return how many rows the journal has now, or how many entries the log has."""
    what = "count(*)" if table == "journal" else f"coalesce(sum(length(entries)), 0) / {ENTRY.size}"
    (number,) = store._database.row(f"SELECT {what} FROM {table}")
    return int(number)


def alter_now(store: SqliteStore, statement: str) -> None:
    """Change a store's tables behind its back, and leave the journal as it is."""
    with store._transaction():
        store._database.run(statement)


def killed(directory: Path, left: Path) -> Path:
    """Return a directory with the files of a store as they are while it is open: as a kill leaves them."""
    shutil.copytree(directory, left)
    return left


def test_appended_steps_are_in_the_journal_until_they_are_folded(store):
    opened(store), opened(store, "b")
    for name in "aab":
        step(store, name, 1)
    assert (count(store, "journal"), count(store, "log"), past(store)) == (3, 0, [1, 1])
    store._fold_all()
    assert (count(store, "journal"), count(store, "log"), past(store)) == (0, 3, [1, 1])


@pytest.mark.parametrize("folded", range(4))
def test_steps_are_read_across_the_end_of_the_log(store, folded):
    opened(store)
    for number in range(4):
        if number == folded:
            store._fold_all()
        step(store, "a", 2 * number, 2 * number + 1, seq=number)
    for start in range(8):
        for stop in range(start + 1, 9):
            assert past(store, "a", start, stop) == list(range(start, stop))
    frames = [store.frame(found(store).tape, seq) for seq in range(5)]
    assert [(frame.step, frame.inputs) if frame else None for frame in frames] == [
        *[(2 * seq, inputs(2 * seq, 2 * seq + 1)) for seq in range(4)],
        None,
    ]


def test_steps_of_a_killed_store_are_there_in_the_next(tmp_path):
    store = SqliteStore(tmp_path / "data")
    opened(store), opened(store, "b")
    for number in range(5):
        step(store, "a", number, seq=number)
        step(store, "b", 10 + number)
    again = SqliteStore(killed(tmp_path / "data", tmp_path / "left"))
    assert (past(again, "a"), past(again, "b"), found(again).seq) == ([*range(5)], [*range(10, 15)], 4)
    assert (count(again, "journal"), count(again, "log"), problems(again)) == (0, 10, [])
    assert past(SqliteStore(killed(tmp_path / "left", tmp_path / "left again")), "a") == [*range(5)]


def test_check_of_a_killed_store_finds_and_changes_nothing(tmp_path):
    store = SqliteStore(tmp_path / "data")
    opened(store)
    step(store, "a", 1, 2)
    left = killed(tmp_path / "data", tmp_path / "left")
    looked_at = SqliteStore(left, opens=False)
    assert problems(looked_at) == []
    looked_at.close()
    again = SqliteStore(left, opens=False)
    assert again._journal._database.in_transaction, "the journal is still there to be folded"
    again.close()


def test_closed_store_has_no_journal(tmp_path):
    store = SqliteStore(tmp_path)
    opened(store)
    step(store, "a", 1)
    store.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        counts = [database.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("journal", "log")]
    database.close()
    assert counts == [(0,), (1,)]


# A row of the journal is there until all of its entries are folded; an old entry is not taken for a new one


def shared_row(store: SqliteStore) -> None:
    """Write two steps of `a`, each in a commit with one of `b`, which stays in the journal."""
    a, b = opened(store), opened(store, "b")
    for at in (0, 1):
        assert store.append([Entry(tape, 1, at, 1, inputs(at)) for tape in (a.tape, b.tape)]) == set()


def rewind_and_step(store: SqliteStore) -> None:
    opened(store, "fork", parent=found(store).tape, base=1)
    store.move("a", 1, None)
    step(store, "a", 9)


ACTS: dict[str, tuple[Callable[[SqliteStore], object], list[float] | None]] = {
    "claimed": (lambda store: store.claim("a", "them"), [0, 1]),
    "rewound": (lambda store: store.move("a", 1, None), [0]),
    "rewound and stepped": (rewind_and_step, [0, 9]),
    "ended": (lambda store: store.end("a", "deleted", 1001.0), None),
    "ended, not its fork": (
        lambda store: (
            opened(store, "fork", parent=found(store).tape, base=1),
            store.end("a", "deleted", 1001.0),
        ),
        None,
    ),
    "parked": (lambda store: store.park("a", 2, None, b"state", 1000.0), []),
    "cut": (lambda store: store.snapshot(found(store).tape, 2, b"state", 1000.0, passing=False), []),
}


@pytest.mark.parametrize("act", ACTS)
def test_session_that_changed_is_as_it_was_after_a_kill(act, tmp_path):
    store = SqliteStore(tmp_path / "data", Retention(0, 1e9) if act == "cut" else Retention(ALL, 1e9))
    shared_row(store)
    change, expected = ACTS[act]
    change(store)
    again = SqliteStore(killed(tmp_path / "data", tmp_path / "left"), now=1001.0)
    for name in ("a", "b", "fork"):
        assert numbered(again.find(name)) == numbered(store.find(name))
    assert count(again, "log") == count_folded(store)
    if expected is not None:
        assert past(again, "a", found(again).oldest) == expected
    if again.find("fork") is not None:
        assert (past(again, "fork"), step(again, "fork", 5).step, past(again, "fork")) == ([0], 2, [0, 5])
    assert (past(again, "b"), problems(again)) == ([0, 1], [])


def numbered(found: Record | EndReason | None) -> object:
    """Return a record without the number that the next tape is to have."""
    return replace(found, next_tape=None) if isinstance(found, Record) else found


def count_folded(store: SqliteStore) -> int:
    store._fold_all()
    return count(store, "log")


class Crashes(Lives[SqliteStore]):
    """Lives in a file, which is now and then that of a store that was killed."""

    def __init__(self, seed: int, retention: Retention, directory: Path) -> None:
        super().__init__(seed, retention, SqliteStore(directory / "0", retention))
        self.retention, self.directory, self.crashes = retention, directory, 0

    def act(self) -> None:
        super().act()
        self.store.fold()
        if self.draw.random() < 0.02:
            self.crash()

    def crash(self) -> None:
        self.crashes += 1
        left = killed(self.directory / str(self.crashes - 1), self.directory / str(self.crashes))
        self.store.close()
        self.store = SqliteStore(left, self.retention)
        if self.draw.random() < 0.5:
            assert problems(self.store) == []


@pytest.mark.parametrize("keep_steps", [0, 7, ALL])
@pytest.mark.parametrize("seed", range(4))
def test_random_lives_of_a_killed_store_match_their_inputs(seed, keep_steps, tmp_path, small):
    lives = Crashes(seed, Retention(keep_steps, 1e9), tmp_path)
    for _ in range(300):
        lives.act()
        if lives.inputs:
            lives.check(lives.draw.choice(list(lives.inputs)))
    for name in lives.inputs:
        lives.check(name)
    assert problems(lives.store) == []
    assert lives.crashes


# What is put off is bounded


def test_journal_is_folded_a_part_at_a_time(store, small):
    for name in "abcdefgh":
        opened(store, name)
    most = 0
    for number in range(100):
        step(store, "abcdefgh"[number % 8], number)
        folded = count(store, "log")
        store.fold()
        assert count(store, "log") - folded <= 4 + 5 + 6
        most = max(most, count(store, "journal"))
    assert most < 30
    assert [value for name in "abcdefgh" for value in past(store, name)] == sorted(range(100), key=lambda n: (n % 8, n))


def test_journal_is_bounded_though_each_commit_has_many_sessions(store, small):
    names = [str(number) for number in range(60)]
    tapes = [opened(store, name).tape for name in names]
    for at in range(20):
        assert store.append([Entry(tape, 1, at, 1, inputs(at)) for tape in tapes]) == set()
        store.fold()
        assert count(store, "journal") <= 1
    assert all(past(store, name) == [*range(20)] for name in names)


def test_long_tail_is_folded_though_the_journal_is_small(store, monkeypatch):
    monkeypatch.setattr(journal, "TAIL_ENTRIES", 3)
    opened(store), opened(store, "b")
    for name in "abbb":
        step(store, name, 1)
        store.fold()
    assert (count(store, "log"), past(store, "b")) == (3, [1, 1, 1])


def test_journal_row_larger_than_a_deletion_is_deleted(store, monkeypatch, small):
    monkeypatch.setattr(journal, "DELETE_BYTES", 1)
    opened(store)
    for _ in range(10):
        step(store, "a", 1)
    before = count(store, "journal")
    store.fold()
    assert (count(store, "journal"), count(store, "log"), past(store)) == (before - 1, 10, 10 * [1])


def test_append_folds_a_journal_that_nobody_folds(store, small):
    opened(store)
    for number in range(200):
        step(store, "a", number)
    assert count(store, "journal") < 50
    assert past(store) == [*range(200)]


def test_inputs_that_are_large_are_written_once(store):
    a, b = opened(store), opened(store, "b")
    step(store, "a", 1)
    large = bytes(2 * journal.LARGE_BYTES)
    assert store.append([Entry(a.tape, 1, 1, 2, large), Entry(b.tape, 1, 0, 1, inputs(3))]) == set()
    assert (count(store, "journal"), count(store, "log"), found(store).step) == (2, 2, 3)
    assert [(piece.step, piece.steps) for piece in store.steps(a.tape, 0, 3, ALL)] == [(0, 1), (1, 2)]
    assert (step(store, "a", 4).step, past(store, "b"), problems(store)) == (4, [3], [])


def test_long_tail_folded_by_large_inputs_is_not_folded_again(store, monkeypatch):
    monkeypatch.setattr(journal, "TAIL_ENTRIES", 3)
    opened(store)
    step(store, "a", 1), step(store, "a", 2)
    step(store, "a", *[3] * journal.LARGE_BYTES)
    store.fold()
    step(store, "a", 4)
    assert (count(store, "log"), past(store)) == (3, [1, 2, *[3] * journal.LARGE_BYTES, 4])


def test_fold_that_fails_leaves_everything_as_it_was(store, small):
    opened(store), opened(store, "b")
    alter(store, "CREATE TRIGGER full BEFORE INSERT ON log BEGIN SELECT raise(ABORT, 'no more'); END")
    for number in range(12):
        step(store, "ab"[number % 2], number)
    with pytest.raises(StoreFailed, match="no more"):
        store.fold()
    with pytest.raises(StoreFailed, match="no more"):
        store.end("a", "deleted", 1001.0)
    assert (past(store, "a"), past(store, "b"), count(store, "log")) == ([*range(0, 12, 2)], [*range(1, 12, 2)], 0)
    alter_now(store, "DROP TRIGGER full")
    for _ in range(3):
        step(store, "a", 7)
        store.fold()
    assert (past(store, "a")[-4:], past(store, "b"), problems(store)) == ([10, 7, 7, 7], [*range(1, 12, 2)], [])


def test_journal_row_stays_until_the_oldest_tape_is_folded(tmp_path, small):
    """Also where folding that tape has failed before."""
    store = SqliteStore(tmp_path / "data")
    for name in "abcc" + 4 * "c":
        opened(store, name) if store.find(name) is None else None
        step(store, name, 1)
    alter_now(store, "CREATE TRIGGER full BEFORE INSERT ON log BEGIN SELECT raise(ABORT, 'no more'); END")
    with pytest.raises(StoreFailed, match="no more"):
        store.end("a", "deleted", 1001.0)
    alter_now(store, "DROP TRIGGER full")
    store.fold()
    assert count(store, "log") == 6
    again = SqliteStore(killed(tmp_path / "data", tmp_path / "left"))
    assert ([found(again, name).step for name in "abc"], problems(again)) == ([1, 1, 6], [])


def test_cut_of_a_parent_keeps_steps_in_the_journal(tmp_path):
    store = SqliteStore(tmp_path, Retention(0, 1e9))
    opened(store)
    step(store, "a", 1)
    for parent, name in ("ab", "bc"):
        at = found(store, parent)
        opened(store, name, parent=at.tape, base=at.step)
        step(store, name, 2)
    store.snapshot(found(store, "b").tape, 2, b"state", 1000.0, passing=False)
    assert ([found(store, name).oldest for name in "abc"], past(store, "c", 2)) == ([0, 2, 2], [2])
    assert (step(store, "c", 3).step, past(store, "c", 2), problems(store)) == (4, [2, 3], [])


def test_commit_that_fails_leaves_nothing_in_memory(store):
    tape = opened(store).tape
    step(store, "a", 1, seq=4)
    alter(store, "CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT raise(ABORT, 'no more'); END")
    large = Entry(tape, 1, 2, 1, bytes(journal.LARGE_BYTES))
    for entries in ([Entry(tape, 1, 1, 1, inputs(2), 5)], [Entry(tape, 1, 1, 1, inputs(2), 5), large]):
        other = [Entry(opened(store, f"b{len(entries)}").tape, 1, 0, 1, inputs(3))]
        with pytest.raises(StoreFailed):
            store.append([*entries, *other])
        assert (found(store).step, found(store).seq, past(store), found(store, f"b{len(entries)}").step) == (
            1,
            4,
            [1],
            0,
        )
    alter_now(store, "DROP TRIGGER full")
    assert (step(store, "a", 2).step, past(store), problems(store)) == (2, [1, 2], [])


@pytest.mark.parametrize("commits", [True, False])
def test_tape_folded_twice_in_a_transaction_keeps_its_steps(store, commits):
    """Also where the transaction fails: then what was there before it."""
    tape, table = opened(store).tape, store._journal
    step(store, "a", 1)
    width = journal.LARGE_BYTES // len(inputs(0))
    try:
        with store._transaction():
            for at in (1, 1 + width):  # which are so large that they are folded at once
                assert table.append([Entry(tape, 1, at, width, inputs(*[at] * width))]) == set()
            assert commits
    except AssertionError:
        assert not commits
    expected = [1] + [1] * width + [1 + width] * width if commits else [1]
    assert (past(store), found(store).step, problems(store)) == (expected, len(expected), [])


# Damage


def damaged(store: SqliteStore, directory: Path, statement: str) -> SqliteStore:
    """Return the store that is opened after a kill and a change in the file."""
    left = killed(directory, directory.with_name("left"))
    altered(left, statement)
    return SqliteStore(left)


def test_damaged_journal_row_harms_only_sessions_with_steps_in_it(tmp_path, caplog):
    store = SqliteStore(tmp_path / "data")
    a, b, _ = (opened(store, name) for name in "abc")
    step(store, "c", 7)
    assert store.append([Entry(tape, 1, 0, 1, inputs(1)) for tape in (a.tape, b.tape)]) == set()
    step(store, "b", 2)
    again = damaged(store, tmp_path / "data", "UPDATE journal SET heads = x'00' WHERE number = 2")
    for name in "ab":
        with pytest.raises(SessionDamaged, match=f"the log of tape {'ab'.index(name) + 1} is damaged at step"):
            past(again, name)
    assert (past(again, "c"), step(again, "c", 8).step) == ([7], 2)
    assert {line.split(":")[0] for line in problems(again)} == {str(again._database.path), "session a", "session b"}
    assert "row 2 of the journal is damaged: steps of tapes [1, 2] are lost" in caplog.text


def test_damaged_inputs_are_those_of_one_session(tmp_path):
    store = SqliteStore(tmp_path / "data")
    a, b = (opened(store, name) for name in "ab")
    assert store.append([Entry(tape, 1, 0, 1, inputs(1)) for tape in (a.tape, b.tape)]) == set()
    again = damaged(store, tmp_path / "data", f"UPDATE journal SET inputs = x'{inputs(2, 1).hex()}'")
    with pytest.raises(SessionDamaged, match="the log of tape 1 is damaged at step 0"):
        past(again, "a")
    assert past(again, "b") == [1]


def test_missing_journal_row_is_found_by_check(tmp_path):
    store = SqliteStore(tmp_path / "data")
    opened(store)
    for value in range(3):
        step(store, "a", value)
    again = damaged(store, tmp_path / "data", "DELETE FROM journal WHERE number = 2")
    with pytest.raises(SessionDamaged, match="the log of tape 1 is damaged"):
        past(again)
    assert problems(again)[0] == f"{again._database.path}: the journal has no row 2, but row 3"


def test_session_that_lost_steps_can_go_on_before_them(tmp_path):
    store = SqliteStore(tmp_path / "data")
    opened(store)
    for value in (1, 2, 3):
        step(store, "a", value)
    again = damaged(store, tmp_path / "data", "UPDATE journal SET checksum = 0 WHERE number = 3")
    assert again.move("a", 2, None).step == 2
    assert (step(again, "a", 9).step, past(again)) == (3, [1, 2, 9])


@pytest.mark.parametrize(("damaged", "can_fold"), [("b", True), ("c", False)])
def test_damaged_log_page_harms_only_sessions_with_steps_on_it(damaged, can_fold, tmp_path, caplog, unpacked):
    """Nothing can be added to the last page, so the journal stays."""
    store = SqliteStore(tmp_path / "data")
    for name in "abc":
        opened(store, name)
        for value in range(100):
            step(store, name, *[value + ord(name) / 128] * 20)
    store._fold_all()
    for name in "abc":
        step(store, name, 7)
    left = killed(tmp_path / "data", tmp_path / "left")
    altered(left, "PRAGMA wal_checkpoint")
    overwrite_page(left / FILE, inputs(*[99 + ord(damaged) / 128] * 20))
    again = SqliteStore(left)
    others = [name for name in "abc" if name != damaged]
    assert [past(again, name, 2000) for name in others] == [[7], [7]]
    assert (step(again, "a", 8).step, past(again, "a", 1999)) == (2002, [99 + ord("a") / 128, 7, 8])
    with pytest.raises((SessionDamaged, StoreFailed)):
        past(again, damaged, 1999)
    assert ("the journal cannot be folded: database disk image is malformed" in caplog.text) != can_fold
    assert any(f"tape {'abc'.index(damaged) + 1}" in line for line in again.check(lambda *_: None))


def test_unreadable_journal_is_refused_and_found_by_check(tmp_path):
    store = SqliteStore(tmp_path / "data")
    opened(store)
    step(store, "a", *range(900))
    left = killed(tmp_path / "data", tmp_path / "left")
    altered(left, "PRAGMA wal_checkpoint")
    data = bytearray((left / FILE).read_bytes())
    start = data.index(inputs(*range(1, 99))) // PAGE * PAGE
    data[start : start + PAGE] = b"\xff" * PAGE
    (left / FILE).write_bytes(data)
    with pytest.raises(StoreFailed, match="malformed; engram check says what is damaged"):
        SqliteStore(left)
    assert any("the journal cannot be read" in line for line in SqliteStore(left, opens=False).check(lambda *_: None))
