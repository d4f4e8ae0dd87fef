"""Laws over a table of all stores; then what the embedded one adds."""

import pkgutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import app.stores
from app.errors import SessionDamaged, StepNotKept, StoreFailed
from app.stores.base import FORGOTTEN_AT_ONCE, REMEMBERED_FOR, Entry, NewSession, Record, Retention, Store
from app.stores.memory import MemoryStore
from app.stores.postgres import PostgresStore
from app.stores.sqlite import FILE, SqliteStore
from app.tenants import DEFAULT
from tests.app.stores.conftest import TABLE

ALL = 2**40


def new(name: str, **more: object) -> NewSession:
    return NewSession(name, "dnc-copy", "print", 32, 1000.0, **more)  # type: ignore[arg-type]


def opened(store: Store, name: str = "a", **more: object) -> Record:
    return store.create(new(name, **more), "me")


def found(store: Store, name: str = "a") -> Record:
    record = store.find(name)
    assert isinstance(record, Record)
    return record


def inputs(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def step(store: Store, name: str, *values: float, seq: int | None = None) -> Record:
    """Append a step for each value, all in one entry, where the session is."""
    at = found(store, name)
    tape, previous = (at.tape, None) if at.next_tape is None else (at.next_tape, at.tape)
    assert store.append([Entry(tape, at.epoch, at.step, len(values), inputs(*values), seq, previous)]) == set()
    return found(store, name)


def past(store: Store, name: str = "a", start: int = 0, stop: int | None = None) -> list[float]:
    """Return the inputs of a session's steps."""
    at = found(store, name)
    pieces = store.steps(at.tape, start, at.step if stop is None else stop, ALL)
    return [float(value) for piece in pieces for value in np.frombuffer(piece.inputs, "<f4")]


def rows(store: Store, table: str) -> int:
    """Return how many tapes, snapshots, rows of the log, or sessions a store has."""
    if isinstance(store, MemoryStore):
        tapes = store._tapes.values()
        counts = {"tapes": len(tapes), "sessions": len(store._sessions), "log": sum(len(tape.log) for tape in tapes)}
        return (counts | {"snapshots": sum(len(tape.snapshots) for tape in tapes)})[table]
    if isinstance(store, PostgresStore):
        table = REACHABLE_LOG if table == "log" else table
    if isinstance(store, SqliteStore):
        store._fold_all()
    assert isinstance(store, (SqliteStore, PostgresStore))
    count: int = store._database.row(f"SELECT count(*) FROM {table}")[0]
    return count


REACHABLE_LOG = """
    log JOIN tapes AS t ON t.number = log.tape
    WHERE log.step + log.steps > t.first AND (t.owner IS NOT NULL OR log.step < t.stop)
    """
"""The rows of the log in PostgreSQL that can be read; the others are there until their partition is dropped."""


def alter(store: SqliteStore, statement: str, *values: object) -> None:
    """Change a store's rows behind its back, after all steps are in the log."""
    store._fold_all()
    with store._transaction():
        store._database.run(statement, *values)


def test_table_has_every_store():
    modules = {module.name for module in pkgutil.iter_modules(app.stores.__path__)}
    assert modules - {"archive", "base", "keys", "ownership", "writer"} == set(TABLE)


def test_new_session_is_before_its_first_step(store):
    record = opened(store)
    assert (record.id, record.model, record.fingerprint, record.memory_size) == ("a", "dnc-copy", "print", 32)
    assert (record.step, record.latest, record.oldest, record.seq, record.next_tape) == (0, 0, 0, None, None)
    assert (found(store), store.find("b")) == (record, None)


def test_session_keeps_the_gates_that_it_forces(store):
    shut = '{"write_gate":[0.0]}'
    forced, free = opened(store, "a", force=shut), opened(store, "b")
    step(store, "a", 1)
    fork = opened(store, "c", force=shut, base=1, parent=forced.tape)
    assert (forced.force, free.force, fork.force) == (shut, None, shut)
    assert [found(store, name).force for name in "abc"] == [shut, None, shut]
    assert {record.id: record.force for record in store.list(DEFAULT, None, 9)} == {"a": shut, "b": None, "c": shut}
    assert store.claim("a", "them").force == shut
    assert store.move("a", 0, None).force == shut


def test_appended_steps_are_there_in_order(store):
    opened(store), opened(store, "b")
    step(store, "a", 1, 2, seq=4)
    step(store, "b", 9)
    record = step(store, "a", 3)
    assert (record.step, record.latest, record.seq) == (3, 3, 4)
    assert (past(store), past(store, "a", 1, 2), past(store, "b")) == ([1, 2, 3], [2], [9])


def test_steps_are_read_in_parts(store):
    opened(store)
    for value in range(6):
        step(store, "a", value, value + 0.5)
    tape = found(store).tape
    part = store.steps(tape, 3, 12, 20)
    assert [(piece.step, piece.steps) for piece in part] == [(3, 1), (4, 2), (6, 2)]
    assert store.steps(tape, 8, 9, ALL)[0].inputs == inputs(4)
    assert store.steps(tape, 12, 20, ALL) == []


def test_entry_at_a_wrong_step_is_refused_others_are_written(store):
    tapes = [opened(store, name).tape for name in "abc"]
    wrong = [(0, 1), (5, 1), (0, 2)]  # the next step; one beyond it; an epoch that is not there
    entries = [Entry(tape, epoch, at, 1, inputs(7)) for tape, (at, epoch) in zip(tapes, wrong, strict=True)]
    assert store.append(entries) == {1, 2}
    assert [found(store, name).step for name in "abc"] == [1, 0, 0]
    assert store.append(entries[:1]) == {0}
    assert past(store, "a") == [7]


def test_entries_beside_a_refused_one_are_written_together_or_not(embedded):
    tapes = [opened(embedded, name).tape for name in "abc"]
    alter(embedded, "CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT raise(ABORT, 'no more'); END")
    entries = [Entry(tape, 1, at, 1, inputs(7)) for tape, at in zip(tapes, (0, 5, 0), strict=True)]
    with pytest.raises(StoreFailed, match="no more"):
        embedded.append(entries)
    assert ([found(embedded, name).step for name in "abc"], rows(embedded, "log")) == ([0, 0, 0], 0)
    alter(embedded, "DROP TRIGGER full")
    assert embedded.append(entries) == {1}
    assert ([found(embedded, name).step for name in "abc"], past(embedded)) == ([1, 0, 1], [7])


def test_claim_ends_the_epoch_of_the_former_owner(store):
    mine = opened(store)
    theirs = store.claim("a", "them")
    assert isinstance(theirs, Record)
    assert theirs.epoch == mine.epoch + 1
    assert store.append([Entry(mine.tape, mine.epoch, 0, 1, inputs(1))]) == {0}
    assert store.append([Entry(mine.tape, theirs.epoch, 0, 1, inputs(2))]) == set()
    again = store.claim("a", "them")
    assert isinstance(again, Record)
    assert (again.epoch, past(store)) == (theirs.epoch, [2])


def test_release_ends_the_epoch_of_its_owner_alone(store):
    mine = opened(store)
    assert (store.release("a", "them"), found(store).epoch) == (False, mine.epoch)
    used = found(store).used
    assert (store.release("a", "me"), found(store).used) == (True, used)
    assert not store.release("a", "me", used + 1)
    assert found(store).used == used
    assert store.append([Entry(mine.tape, mine.epoch, 0, 1, inputs(1))]) == {0}
    again = store.claim("a", "me")
    assert isinstance(again, Record)
    assert again.epoch > mine.epoch
    assert store.append([Entry(mine.tape, again.epoch, 0, 1, inputs(2))]) == set()
    store.end("a", "deleted", 1001.0)
    assert (store.release("a", "me"), store.find("a")) == (False, "deleted")


def test_release_records_when_the_session_was_last_used(store):
    used = opened(store).used + 50
    assert not store.release("a", "them", used)
    assert found(store).used < used
    assert (store.release("a", "me", used), found(store).used) == (True, used)


def test_fork_shares_the_past_and_not_the_future(store):
    opened(store)
    step(store, "a", 1, 2, 3)
    log = rows(store, "log")
    opened(store, "b", parent=found(store).tape, base=2)
    assert rows(store, "log") == log
    step(store, "a", 4)
    record = step(store, "b", 5)
    assert (record.step, record.oldest, record.seq) == (3, 0, None)
    assert (past(store, "a"), past(store, "b")) == ([1, 2, 3, 4], [1, 2, 5])
    store.end("a", "deleted", 1001.0)
    assert past(store, "b") == [1, 2, 5]
    store.end("b", "deleted", 1001.0)
    assert (rows(store, "log"), rows(store, "tapes")) == (0, 0)


def test_ended_session_takes_no_step_though_its_tape_stays(store):
    mine = opened(store)
    step(store, "a", 1, 2)
    opened(store, "b", parent=mine.tape, base=2)
    assert store.end("a", "deleted", 1001.0)
    assert store.append([Entry(mine.tape, mine.epoch, 2, 1, inputs(3))]) == {0}
    assert (store.end("a", "expired", 1002.0), store.find("a"), past(store, "b")) == (False, "deleted", [1, 2])
    assert step(store, "b", 9).step == 3


def test_fork_of_a_fork_of_the_middle_of_an_entry(store):
    opened(store)
    step(store, "a", 1, 2, 3, 4)
    opened(store, "b", parent=found(store).tape, base=3)
    opened(store, "c", parent=found(store, "b").tape, base=1)
    step(store, "c", 8)
    assert (past(store, "b"), past(store, "c"), past(store, "c", 1)) == ([1, 2, 3], [1, 8], [8])


def test_rewind_can_be_undone_until_the_next_step(store):
    opened(store)
    step(store, "a", 1, 2, 3, seq=0)
    record = store.move("a", 1, 0)
    assert (record.step, record.latest, record.seq, record.next_tape is not None) == (1, 3, 0, True)
    assert (past(store), past(store, stop=3)) == ([1], [1, 2, 3])
    assert store.move("a", 3, 0).step == 3
    store.move("a", 1, 0)
    record = step(store, "a", 9)
    assert (record.step, record.latest, record.next_tape, past(store)) == (2, 2, None, [1, 9])


def test_past_that_nobody_can_reach_is_deleted(store):
    opened(store)
    step(store, "a", 1)
    step(store, "a", 2)
    store.snapshot(found(store).tape, 2, b"state", 1000.0, passing=False)
    store.move("a", 1, None)
    step(store, "a", 9)
    assert (rows(store, "log"), rows(store, "snapshots")) == (2, 0)
    store.move("a", 0, None)
    step(store, "a", 7)
    assert (rows(store, "log"), rows(store, "tapes"), past(store)) == (1, 1, [7])


def test_many_rewinds_to_a_step_leave_few_tapes(store):
    """What is left of the past that was given up is no past of what comes then."""
    opened(store)
    step(store, "a", *range(9))
    for value in range(20):
        store.move("a", 5, None)
        step(store, "a", value)
    assert (rows(store, "tapes"), rows(store, "log")) == (2, 2)
    assert past(store) == [0, 1, 2, 3, 4, 19]
    store.end("a", "deleted", 1001.0)
    assert rows(store, "tapes") == 0


def test_rewind_leaves_alone_what_a_fork_shares(store):
    opened(store)
    step(store, "a", 1)
    step(store, "a", 2)
    opened(store, "b", parent=found(store).tape, base=2)
    store.move("a", 0, None)
    step(store, "a", 9)
    assert (past(store, "a"), past(store, "b")) == ([9], [1, 2])


def test_next_tape_under_an_epoch_that_is_over_is_refused(store):
    opened(store)
    step(store, "a", 1, 2)
    mine = store.move("a", 1, None)
    store.claim("a", "them")
    entry = Entry(int(mine.next_tape or 0), mine.epoch, 1, 1, inputs(5), None, mine.tape)
    assert store.append([entry]) == {0}
    assert (found(store).step, found(store).tape, rows(store, "tapes")) == (1, mine.tape, 1)


def test_snapshot_before_a_step_is_found_along_the_past(store):
    opened(store)
    step(store, "a", 1, 2)
    tape = found(store).tape
    store.snapshot(tape, 2, b"two", 1000.0, passing=False)
    step(store, "a", 3, 4)
    store.snapshot(tape, 4, b"four", 1000.0, passing=False)
    opened(store, "b", parent=tape, base=3)
    step(store, "b", 5)
    fork = found(store, "b").tape
    assert [store.before(tape, at) for at in (1, 2, 3, 9)] == [None, (2, b"two"), (2, b"two"), (4, b"four")]
    assert store.before(fork, 4) == (2, b"two")
    store.snapshot(fork, 4, b"other", 1000.0, passing=False)
    assert store.before(fork, 4) == (4, b"other")


def test_passing_snapshot_gives_way_to_the_next(store):
    tape = opened(store).tape
    step(store, "a", *range(9))
    for at, passing in ((2, False), (4, True), (6, True), (8, False)):
        store.snapshot(tape, at, b"state", 1000.0, passing=passing)
        assert store.before(tape, 9) == (at, b"state")
        assert found(store).kept == (8 if at == 8 else 2)
    assert [store.before(tape, at) for at in (7, 1)] == [(2, b"state"), None]


def test_passing_snapshot_never_takes_the_place_of_a_lasting_one(store):
    tape = opened(store).tape
    step(store, "a", *range(9))
    store.snapshot(tape, 4, b"lasting", 1000.0, passing=False)
    for at in (4, 6):
        store.snapshot(tape, at, b"passing", 1000.0, passing=True)
    assert ([store.before(tape, at) is None for at in (3, 5)], found(store).kept) == ([True, False], 4)
    assert store.before(tape, 9) == (6, b"passing")


def test_snapshot_of_a_session_that_has_ended_is_not_kept(store):
    tape = opened(store).tape
    store.end("a", "deleted", 1001.0)
    store.snapshot(tape, 0, b"state", 1002.0, passing=False)
    assert rows(store, "snapshots") == 0


def test_restored_session_begins_with_its_snapshot(store):
    record = opened(store, base=100, snapshot=b"state")
    assert (record.step, record.latest, record.oldest) == (100, 100, 100)
    step(store, "a", 1)
    assert (store.before(record.tape, 101), past(store, start=100)) == ((100, b"state"), [1])
    assert store.move("a", 0, None).step == 0
    assert (step(store, "a", 5).step, past(store)) == (1, [5])
    assert rows(store, "snapshots") == 0


def test_restored_session_whose_snapshot_is_damaged_is_refused(embedded):
    """A session of which the whole log is there begins anew instead."""
    restored, logged = opened(embedded, base=2, snapshot=b"state").tape, opened(embedded, "b").tape
    step(embedded, "b", 1, 2)
    embedded.snapshot(logged, 2, b"state", 1000.0, passing=False)
    alter(embedded, "UPDATE snapshots SET state = x'00'")
    with pytest.raises(SessionDamaged, match=f"no snapshot of tape {restored} up to step 2 is whole"):
        embedded.before(restored, 2)
    assert embedded.before(logged, 2) is None


def test_parked_session_is_its_snapshot(store):
    opened(store)
    step(store, "a", 1, 2)
    opened(store, "fork", parent=found(store).tape, base=1)
    store.mark_volatile("a")
    store.park("a", 7, 3, b"state", 1000.0)
    record = found(store)
    assert (record.step, record.latest, record.oldest, record.seq) == (7, 7, 7, 3)
    assert store.before(record.tape, 7) == (7, b"state")
    assert (step(store, "a", 9).step, past(store, "a", 7), past(store, "fork")) == (8, [9], [1])


@pytest.mark.parametrize(("kept", "oldest"), [(0, 8), (3, 4), (4, 4), (7, 0), (100, 0)])
def test_retention_by_count_keeps_steps_from_a_snapshot_on(kept, oldest, make, unpacked):
    store = make(Retention(kept, 1e9))
    opened(store)
    for at in range(0, 8, 4):
        step(store, "a", *range(at, at + 4))
        store.snapshot(found(store).tape, at + 4, b"state", 1000.0, passing=False)
    assert (found(store).oldest, past(store, start=oldest)) == (oldest, list(range(oldest, 8)))
    assert rows(store, "log") == (8 - oldest) // 4


def test_retention_by_age_keeps_steps_from_an_old_snapshot_on(make):
    store = make(Retention(ALL, 60.0))
    opened(store)
    for at, now in ((1, 0.0), (2, 50.0), (3, 100.0), (4, 112.0)):
        step(store, "a", at)
        store.snapshot(found(store).tape, at, b"state", now, passing=False)
    assert (found(store).oldest, past(store, start=2)) == (2, [3, 4])


def test_retention_leaves_what_a_fork_began_with(make):
    store = make(Retention(0, 1e9))
    opened(store)
    step(store, "a", 1, 2)
    tape = found(store).tape
    opened(store, "b", parent=tape, base=1)
    store.snapshot(tape, 2, b"two", 1000.0, passing=False)
    assert past(store, "b") == [1]
    step(store, "b", 5)
    store.snapshot(found(store, "b").tape, 2, b"b", 1000.0, passing=False)
    assert found(store, "b").oldest == 2
    step(store, "a", 3)
    store.snapshot(tape, 3, b"three", 1000.0, passing=False)
    assert (found(store).oldest, rows(store, "log")) == (3, 0)


def test_retention_leaves_what_a_fork_that_was_rewound_is_at(make):
    store = make(Retention(0, 1e9))
    tape = opened(store).tape
    for at in (1, 2, 3):
        step(store, "a", at)
    opened(store, "b", parent=tape, base=3)
    store.move("b", 1, None)
    for at in (2, 3):
        store.snapshot(tape, at, b"state", 1000.0, passing=False)
    assert (found(store, "b").oldest, past(store, "b"), past(store, "b", stop=3)) == (0, [1], [1, 2, 3])
    step(store, "b", 9)
    store.snapshot(tape, 3, b"state", 1000.0, passing=False)
    assert (found(store, "a").oldest, past(store, "b")) == (0, [1, 9])


def test_fork_of_a_step_that_was_just_cut_is_refused(make):
    """The caller does not know yet that it is gone."""
    store = make(Retention(0, 1e9))
    tape = opened(store).tape
    step(store, "a", 1, 2)
    store.snapshot(tape, 2, b"two", 1000.0, passing=False)
    with pytest.raises(StepNotKept, match="step 1 is not kept any more") as refusal:
        opened(store, "b", parent=tape, base=1)
    assert (refusal.value.status, store.find("b"), rows(store, "tapes")) == (409, None, 1)
    assert opened(store, "b", parent=tape, base=2).oldest == 2
    assert opened(store, "c", parent=tape, base=0).oldest == 0


def test_frame_is_found_by_its_number(store):
    opened(store)
    step(store, "a", 1, 2, seq=5)
    step(store, "a", 3)
    step(store, "a", 4, seq=6)
    tape = found(store).tape
    frame = store.frame(tape, 5)
    assert frame is not None
    assert (frame.step, frame.steps, frame.inputs) == (0, 2, inputs(1, 2))
    assert store.frame(tape, 4) is None


def test_frame_from_before_the_oldest_step_is_not_found(make):
    """Its entry may be in a row with steps that are kept."""
    store = make(Retention(0, 1e9))
    tape = opened(store).tape
    for seq in range(4):
        step(store, "a", seq, seq=seq)
    rows(store, "log")  # which folds them
    store.snapshot(tape, 2, b"two", 1000.0, passing=False)
    assert [(at.step if (at := store.frame(tape, seq)) else None) for seq in range(4)] == [None, None, 2, 3]


def test_frame_that_was_cut_in_the_middle_is_not_found(make):
    store = make(Retention(0, 1e9))
    tape = opened(store).tape
    step(store, "a", 1, 2, 3, seq=0)
    store.move("a", 2, 0)
    store.snapshot(tape, 2, b"two", 1000.0, passing=False)
    assert (found(store).oldest, past(store, "a", 2, 3), store.frame(tape, 0)) == (2, [3], None)


def test_ended_session_is_remembered_with_its_reason(store):
    opened(store), opened(store, "b")
    store.end("a", "deleted", 1001.0)
    store.end("b", "expired", 1001.0)
    assert (store.find("a"), store.claim("b", "me"), store.counts()) == ("deleted", "expired", {})


def test_ended_session_is_forgotten_with_its_key_after_its_time(store):
    opened(store, key="k", digest=b"d"), opened(store, "b"), opened(store, "open")
    store.end("a", "deleted", 1001.0)
    store.end("b", "deleted", 1003.0)
    assert not store.tidy(1002.0 + REMEMBERED_FOR)
    assert (store.find("a"), store.created("k"), store.find("b"), found(store, "open").step) == (
        None,
        None,
        "deleted",
        0,
    )


def test_tidy_forgets_a_few_sessions_at_a_time(store):
    for number in range(FORGOTTEN_AT_ONCE + 1):
        opened(store, str(number))
        store.end(str(number), "deleted", 1001.0)
    assert [store.tidy(1002.0 + REMEMBERED_FOR), rows(store, "sessions")] == [True, 1]
    assert [store.tidy(1002.0 + REMEMBERED_FOR), rows(store, "sessions")] == [False, 0]


def test_open_sessions_of_a_version_are_found(store):
    opened(store), store.create(NewSession("b", "dnc-copy", "newer", None, 1000.0), "me")
    assert (store.has_sessions("dnc-copy", "print"), store.has_sessions("ntm-copy", "print")) == (True, False)
    store.end("a", "deleted", 1001.0)
    assert (store.has_sessions("dnc-copy", "print"), store.has_sessions("dnc-copy", "newer")) == (False, True)


def test_time_is_recorded_by_tidy(store):
    opened(store)
    store.tidy(7000.0)
    assert (store.latest_time(), found(store).used) == (7000.0, 1000.0)


def test_time_of_opening_is_not_one_of_use(store):
    record = opened(store, opened=9000.0)
    assert (record.opened, record.used, store.latest_time()) == (9000.0, 1000.0, 1000.0)


def test_session_is_found_by_the_key_that_opened_it(store):
    opened(store, key="k", digest=b"d")
    assert (store.created("k"), store.created("l")) == (("a", b"d"), None)


def test_key_is_taken_from_an_ended_session_alone(store):
    opened(store, key="k", digest=b"d"), opened(store, "b")
    for name in ("c", "b"):
        with pytest.raises(StoreFailed):
            opened(store, name, key="k", takes_key=True)
    store.end("a", "deleted", 1001.0)
    for name, takes in (("c", False), ("b", True)):
        with pytest.raises(StoreFailed):
            opened(store, name, key="k", takes_key=takes)
    assert store.created("k") == ("a", b"d")
    opened(store, "c", key="k", takes_key=True)
    assert (store.created("k"), store.find("a")) == (("c", b""), "deleted")
    assert not store.tidy(1002.0 + REMEMBERED_FOR)
    assert (store.created("k"), store.find("a")) == (("c", b""), None)


def test_sessions_are_listed_and_counted_by_tenant(store):
    for name in ("a", "lab/a", "lab/b", "lab2/a"):
        opened(store, name)
    store.touch([("lab/a", 5000.0)])
    listed = {tenant: [record.id for record in store.list(tenant, None, 9)] for tenant in ("lab", "default", "la")}
    assert listed == {"lab": ["lab/a", "lab/b"], "default": ["a"], "la": []}
    assert [record.id for record in store.list("lab", "dnc-copy", 1)] == ["lab/a"]
    assert store.list("lab", "ntm-copy", 9) == []
    store.end("lab/b", "deleted", 1001.0)
    assert store.tenants() == {"default": 1, "lab": 1, "lab2": 1}


def test_open_sessions_are_listed_the_last_used_first(store):
    for name in "abcd":
        opened(store, name)
    store.touch([("a", 5000.0), ("c", 6000.0)])
    store.end("d", "deleted", 1001.0)
    assert [record.id for record in store.list(DEFAULT, "dnc-copy", 2)] == ["c", "a"]
    assert (store.list(DEFAULT, "ntm-copy", 9), store.counts()) == ([], {"dnc-copy": 3})
    assert (store.idle_since(1000.0, 9), store.latest_time()) == (["b"], 6000.0)


def test_failed_call_changes_nothing(store):
    opened(store)
    with pytest.raises(StoreFailed, match=r"UNIQUE|is taken"):
        opened(store)
    assert (rows(store, "tapes"), rows(store, "sessions")) == (1, 1)


# The embedded store


def altered(directory: Path, statement: str) -> None:
    """Change a store's file while nobody uses it."""
    with sqlite3.connect(directory / FILE) as database:
        database.execute(statement)
    database.close()


def problems(store: Store) -> list[str]:
    seen: list[tuple[int, int]] = []
    if isinstance(store, SqliteStore) and store._database.opens:
        store._fold_all()
    lines = list(store.check(lambda *progress: seen.append(progress)))
    assert seen[-1] == (len(seen) - 1, len(seen) - 1)
    return lines


def test_sessions_are_there_after_a_restart(tmp_path):
    store = SqliteStore(tmp_path)
    opened(store)
    step(store, "a", 1, 2, seq=3)
    before = store.move("a", 1, 3)
    store.close()
    again = SqliteStore(tmp_path)
    after = found(again)
    assert (after.step, after.latest, after.seq, past(again)) == (1, 2, 3, [1])
    assert after.next_tape not in (None, before.tape)
    again.close()


def test_volatile_sessions_end_at_a_restart_unless_parked(tmp_path):
    store = SqliteStore(tmp_path)
    for name in ("stepped", "parked", "logged"):
        opened(store, name)
    for name in ("stepped", "parked"):
        store.mark_volatile(name)
    store.park("parked", 5, None, b"state", 1000.0)
    store.close()
    again = SqliteStore(tmp_path)
    assert (again.find("stepped"), found(again, "parked").step, found(again, "logged").step) == (
        "lost in a restart",
        5,
        0,
    )
    again.close()


def test_volatile_session_is_lost_when_the_last_server_stopped(tmp_path):
    store = SqliteStore(tmp_path)
    opened(store)
    store.mark_volatile("a")
    store.tidy(5000.0)
    store.close()
    again = SqliteStore(tmp_path)
    assert (again.find("a"), again.latest_time()) == ("lost in a restart", 5000.0)
    again.close()


def test_long_ended_sessions_are_forgotten(tmp_path):
    store = SqliteStore(tmp_path)
    opened(store)
    store.end("a", "deleted", 1000.0)
    store.close()
    for days, reason in ((29, "deleted"), (31, None)):
        again = SqliteStore(tmp_path)
        again.tidy(1000.0 + days * 86400)
        assert again.find("a") == reason
        again.close()


def test_file_of_the_first_version_is_migrated(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as database:
        database.executescript(
            "CREATE TABLE sessions (id TEXT PRIMARY KEY, model TEXT NOT NULL, opened REAL NOT NULL, ended REAL,"
            " reason TEXT) WITHOUT ROWID; PRAGMA user_version = 1;"
            "INSERT INTO sessions VALUES ('open', 'ntm', 5.0, NULL, NULL), ('ended', 'ntm', 5.0, 6.0, 'expired')"
        )
    database.close()
    store = SqliteStore(tmp_path, now=10.0)
    assert (store.find("open"), store.find("ended")) == ("lost in a restart", "expired")
    assert (opened(store, "new").step, problems(store)) == (0, [])
    store.close()


def test_second_store_on_one_directory_is_refused(tmp_path):
    first = SqliteStore(tmp_path)
    with pytest.raises(StoreFailed, match="another server"):
        SqliteStore(tmp_path)
    first.close()
    SqliteStore(tmp_path).close()


def test_damaged_file_is_refused_by_name(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(StoreFailed, match=r"sessions\.sqlite.*engram check"):
        SqliteStore(tmp_path)


def test_file_of_a_later_version_is_refused(tmp_path):
    SqliteStore(tmp_path).close()
    altered(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(StoreFailed, match="schema 99 is newer"):
        SqliteStore(tmp_path)


def test_directory_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match="file/data"):
        SqliteStore(tmp_path / "file" / "data")


def recorded(directory: Path) -> None:
    """Leave a session with two entries, and snapshots after each, and another session."""
    store = SqliteStore(directory)
    opened(store), opened(store, "b")
    for at in (1, 2):
        step(store, "a", at)
        store.snapshot(found(store).tape, at, b"state", 1000.0, passing=False)
    step(store, "b", 1)
    store.close()


def test_check_finds_nothing_in_a_whole_store(tmp_path):
    recorded(tmp_path)
    store = SqliteStore(tmp_path)
    assert problems(store) == []
    store.close()


@pytest.mark.parametrize("column", ["inputs = x'00'", "entries = x'00'", "checksum = 1"])
def test_damaged_log_is_refused_and_found_by_check(tmp_path, column, unpacked):
    recorded(tmp_path)
    altered(tmp_path, f"UPDATE log SET {column} WHERE tape = 1 AND step = 1")
    store = SqliteStore(tmp_path)
    with pytest.raises(SessionDamaged, match="damaged at step 1"):
        past(store)
    assert (past(store, stop=1), past(store, "b")) == ([1], [1])
    assert [line.split(":")[0] for line in problems(store)] == ["session a"]
    store.close()


def test_damaged_snapshot_is_passed_over_and_found_by_check(tmp_path):
    recorded(tmp_path)
    altered(tmp_path, "UPDATE snapshots SET state = x'00' WHERE step = 2")
    store = SqliteStore(tmp_path)
    assert store.before(1, 2) == (1, b"state")
    assert problems(store) == ["session a: its snapshot at step 2 is damaged"]
    store.close()


def test_log_is_moved_into_the_database_after_a_failed_sync(tmp_path, monkeypatch):
    """The system may have given up on what it could not write: to ask it again would sync nothing."""

    def fail(_: int) -> None:
        raise OSError("I/O error")

    recorded(tmp_path)
    store = SqliteStore(tmp_path)
    step(store, "a", 3)
    log = tmp_path / f"{FILE}-wal"
    with monkeypatch.context() as broken:
        broken.setattr("app.stores.sqlite.database.os.fdatasync", fail)
        with pytest.raises(StoreFailed, match="may not survive a power cut"):
            store.sync()
    assert log.stat().st_size > 0
    store.sync()
    assert (log.stat().st_size, past(store)) == (0, [1, 2, 3])
    store.close()


def test_missing_steps_are_found_by_check(tmp_path, unpacked):
    recorded(tmp_path)
    altered(tmp_path, "DELETE FROM log WHERE tape = 1 AND step = 0")
    store = SqliteStore(tmp_path)
    assert problems(store) == ["session a: the log of tape 1 goes on at step 1 after step 0"]
    store.close()
