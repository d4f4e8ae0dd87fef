"""Laws over a table of all stores; then what the embedded one adds."""

import pkgutil
import sqlite3
from pathlib import Path

import pytest

import app.stores
from app.errors import StoreFailed
from app.stores.base import Store
from app.stores.memory import MemoryStore
from app.stores.sqlite import SqliteStore

TABLE = ["memory", "sqlite"]


@pytest.fixture(params=TABLE)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "data")


def test_table_has_every_store():
    assert {module.name for module in pkgutil.iter_modules(app.stores.__path__)} - {"base"} == set(TABLE)


def test_open_and_unknown_sessions_have_not_ended(store):
    store.add("a", "dnc-copy")
    assert (store.end_reason("a"), store.end_reason("b")) == (None, None)
    store.close()


def test_ended_session_is_remembered_with_its_reason(store):
    store.add("a", "dnc-copy")
    store.add("b", "dnc-copy")
    store.end("a", "deleted")
    store.end("b", "expired")
    assert (store.end_reason("a"), store.end_reason("b")) == ("deleted", "expired")
    store.close()


def test_sessions_left_open_are_lost_in_a_restart(tmp_path):
    store = SqliteStore(tmp_path)
    store.add("left", "dnc-copy")
    store.add("deleted", "dnc-copy")
    store.end("deleted", "deleted")
    store.close()
    again = SqliteStore(tmp_path)
    assert (again.end_reason("left"), again.end_reason("deleted")) == ("lost in a restart", "deleted")
    again.close()


def test_long_ended_sessions_are_forgotten(tmp_path):
    store = SqliteStore(tmp_path)
    store.add("old", "dnc-copy")
    store.end("old", "deleted")
    store.close()
    with sqlite3.connect(tmp_path / "sessions.sqlite") as database:
        database.execute("UPDATE sessions SET ended = ended - 40 * 86400")
    database.close()
    again = SqliteStore(tmp_path)
    assert again.end_reason("old") is None
    again.close()


def test_second_store_on_one_directory_is_refused(tmp_path):
    first = SqliteStore(tmp_path)
    with pytest.raises(StoreFailed, match="another server"):
        SqliteStore(tmp_path)
    first.close()
    SqliteStore(tmp_path).close()


def test_damaged_file_is_refused_by_name(tmp_path):
    (tmp_path / "sessions.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreFailed, match=r"sessions\.sqlite"):
        SqliteStore(tmp_path)


def test_file_of_a_later_version_is_refused(tmp_path):
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "sessions.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreFailed, match="schema 99 is newer"):
        SqliteStore(tmp_path)


def test_directory_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match="file/data"):
        SqliteStore(tmp_path / "file" / "data")


def test_failed_write_is_a_store_failure(tmp_path):
    store = SqliteStore(tmp_path)
    store.add("a", "dnc-copy")
    with pytest.raises(StoreFailed, match="UNIQUE"):
        store.add("a", "dnc-copy")
    store.close()
