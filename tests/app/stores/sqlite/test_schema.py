"""Files of earlier versions: sessions_N.sql is what the code of version N wrote, as SQL; from 4 on with a journal."""

import sqlite3
from pathlib import Path

import pytest

from app.errors import SessionDamaged, StoreFailed
from app.stores.base import Retention
from app.stores.sqlite import FILE, SqliteStore
from app.stores.sqlite.schema import SCHEMA_VERSION
from app.tenants import DEFAULT
from tests.app.stores.test_stores import altered, found, past, problems, rows, step
from tests.app.test_faults import PAGE

VERSIONS = range(2, SCHEMA_VERSION)

HEADER = 100
"""Bytes before the first page, which say among others that there is a write-ahead log."""

KEPT = {
    "undone": (2, 2, 0, None, [1.0, 2.0], None),
    "rewound": (3, 7, 0, None, [1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 10.0], (3, b"plain 3")),
    "restored": (101, 101, 100, None, [1.0], (100, b"restored 100")),
    "plain": (5, 5, 0, 1, [1.0, 2.0, 3.0, 4.0, 5.0], (3, b"plain 3")),
    "parked": (7, 7, 7, 3, [], (7, b"parked 7")),
    "orphan": (3, 3, 0, None, [1.0, 2.0, 5.0], None),
    "forks fork": (6, 7, 0, None, [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0], (3, b"plain 3")),
    "fork": (5, 5, 0, None, [1.0, 2.0, 3.0, 4.0, 6.0], (3, b"plain 3")),
    "cut's fork": (12, 12, 8, None, [8.0, 9.0, 10.0, 50.0], (10, b"cut 10")),
    "cut": (12, 12, 8, None, [8.0, 9.0, 10.0, 11.0], (12, b"cut 12")),
    "branched": (2, 2, 0, None, [1.0, 4.0], None),
}
"""Of each open session: step, latest, oldest, seq, the inputs from the oldest step on, its last snapshot."""


@pytest.fixture(params=VERSIONS)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a directory with a store as an earlier version left it."""
    with sqlite3.connect(tmp_path / FILE) as database:
        database.executescript(Path(__file__).with_name(f"sessions_{request.param}.sql").read_text())
    database.close()
    return tmp_path


def opened(directory: Path) -> SqliteStore:
    return SqliteStore(directory, Retention(4, 1e9), now=1000.0)


def kept(store: SqliteStore, name: str) -> tuple[object, ...]:
    at = found(store, name)
    inputs = past(store, name, at.oldest, at.latest)
    return (at.step, at.latest, at.oldest, at.seq, inputs, store.before(at.tape, at.latest))


def test_sessions_of_an_earlier_version_are_where_they_were(earlier):
    store = opened(earlier)
    assert {name: kept(store, name) for name in KEPT} == KEPT
    assert {record.id for record in store.list(DEFAULT, None, 99)} == set(KEPT)
    assert (store.find("expired"), store.find("orphaned fork's parent")) == ("expired", "deleted")
    assert (store.created("key"), problems(store)) == (("plain", b"digest"), [])
    store.close()


def test_sessions_of_an_earlier_version_go_on_and_end(earlier):
    store = opened(earlier)
    for name, (at, _, oldest, _, inputs, _) in KEPT.items():
        step(store, name, 77)
        assert past(store, name, oldest) == [*inputs[: at - oldest], 77]
    assert problems(store) == []
    for name in KEPT:
        store.end(name, "deleted", 1001.0)
    assert [rows(store, table) for table in ("tapes", "log", "snapshots")] == [0, 0, 0]
    store.close()


def test_time_is_recorded_in_a_file_of_an_earlier_version(earlier):
    store = opened(earlier)
    store.tidy(5000.0)
    store.close()
    again = opened(earlier)
    assert again.latest_time() == 5000.0
    again.close()


def test_damage_of_an_earlier_version_stays_damage(earlier):
    altered(earlier, "UPDATE snapshots SET state = x'00' WHERE step = 101 - 1")
    altered(earlier, "UPDATE log SET inputs = x'0000803F' WHERE tape = 2")
    store = opened(earlier)
    assert {line.split(":")[0] for line in problems(store)} == {
        "session restored", "session fork", "session forks fork", "session rewound",
    }  # fmt: skip
    store.close()


def test_sessions_of_an_earlier_version_force_no_gates(earlier):
    store = opened(earlier)
    assert {record.force for record in store.list(DEFAULT, None, 99)} == {None}
    store.close()


@pytest.mark.parametrize("earlier", range(3, SCHEMA_VERSION), indirect=True)
def test_damaged_session_of_an_earlier_version_stays_damaged(earlier):
    altered(earlier, "UPDATE sessions SET model = 'x' WHERE id = (SELECT id FROM sessions WHERE id LIKE '%cut')")
    store = opened(earlier)
    with pytest.raises(SessionDamaged):
        store.find("cut")
    assert kept(store, "plain") == KEPT["plain"]
    store.close()


@pytest.mark.parametrize("earlier", [2], indirect=True)
def test_migration_that_fails_leaves_the_file_as_it_was(earlier):
    altered(earlier, "CREATE TRIGGER full BEFORE UPDATE ON snapshots BEGIN SELECT raise(ABORT, 'no more'); END")
    with pytest.raises(StoreFailed, match="no more"):
        opened(earlier)
    altered(earlier, "DROP TRIGGER full")
    store = opened(earlier)
    assert {name: kept(store, name) for name in KEPT} == KEPT
    store.close()


def test_damaged_tape_of_an_earlier_version_harms_only_its_sessions(earlier):
    altered(earlier, "UPDATE tapes SET base = 'x' WHERE number = 2")
    store = opened(earlier)
    for name in ("fork", "forks fork", "rewound"):
        with pytest.raises(SessionDamaged):
            kept(store, name)
    assert [kept(store, name) for name in ("plain", "cut", "orphan")] == [
        KEPT[name] for name in ("plain", "cut", "orphan")
    ]
    store.close()


@pytest.mark.parametrize("table", ["log", "sessions"])
def test_file_with_an_unreadable_page_is_not_migrated_nor_changed(earlier, table):
    path = earlier / FILE
    with sqlite3.connect(path) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", [table]).fetchone()
    database.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * PAGE : page * PAGE] = b"\xff" * PAGE
    path.write_bytes(data)
    if version >= 5 and table == "log":
        return  # which these migrations neither read nor change
    with pytest.raises(StoreFailed, match="cannot be brought up to date, and nothing in it was changed"):
        opened(earlier)
    assert path.read_bytes()[HEADER:] == data[HEADER:]
