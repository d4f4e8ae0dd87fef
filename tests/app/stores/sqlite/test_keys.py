"""The file of keys: its rights, its damage, and several processes."""

import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from app.access.keys import KeyLimits, new_key
from app.errors import StoreFailed
from app.stores.sqlite import KEYS_FILE, SqliteKeyStore

ADD_MANY = """
import sys
from pathlib import Path
from app.access.keys import new_key
from app.stores.sqlite import SqliteKeyStore
store = SqliteKeyStore(Path(sys.argv[1]))
for _ in range(20):
    key, _ = new_key()
    store.add(key)
    assert key in store.list()
"""


def changed(path, statement):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


@pytest.fixture
def store(tmp_path):
    return SqliteKeyStore(tmp_path)


def test_file_is_for_its_owner_alone(store, tmp_path):
    assert list(tmp_path.iterdir()) == [], "reading makes no file"
    store.list()
    store.revoke("0123456789ab", 1.0)
    assert list(tmp_path.iterdir()) == []
    store.add(new_key()[0])
    assert [path.name for path in tmp_path.iterdir()] == [KEYS_FILE]
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_that_root_makes_belongs_to_the_directorys_owner(store, tmp_path):
    os.chown(tmp_path, 10001, 10001)
    store.add(new_key()[0])
    assert (store.path.stat().st_uid, store.path.stat().st_gid) == (10001, 10001)


def test_key_itself_is_not_in_the_file(store):
    key, token = new_key()
    store.add(key)
    content = store.path.read_bytes()
    assert key.id.encode() in content
    assert token.rpartition("_")[2].encode() not in content
    assert bytes.fromhex(token.rpartition("_")[2]) not in content


@pytest.mark.slow
def test_processes_make_and_write_one_file_together(tmp_path):
    command = [sys.executable, "-c", ADD_MANY, str(tmp_path / "data")]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(SqliteKeyStore(tmp_path / "data").list()) == 60


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE keys SET tenant = 'other'",
        "UPDATE keys SET scopes = 'admin,infer,sessions'",
        "UPDATE keys SET max_steps = NULL",
        "UPDATE keys SET digest = x'00'",
        "UPDATE keys SET revoked = NULL",
        "UPDATE keys SET checksum = 1",
    ],
)
def test_damaged_key_is_an_error_and_not_left_out(store, statement):
    key, _ = new_key("team-a", ["infer"], KeyLimits(max_steps=5))
    store.add(key)
    store.revoke(key.id, 1.0)
    changed(store.path, statement)
    with pytest.raises(StoreFailed, match=f"key '{key.id}' is damaged"):
        store.list()
    with pytest.raises(StoreFailed, match="is damaged"):
        store.revoke(key.id, 2.0)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "there is no table of keys in it"), (b"x" * 5000, "not a database; put back a copy")],
)
def test_file_without_keys_is_an_error(store, content, complaint):
    store.path.write_bytes(content)
    with pytest.raises(StoreFailed, match=complaint):
        store.list()


def test_empty_file_is_used_for_a_new_key(store):
    store.path.touch()
    key, _ = new_key()
    store.add(key)
    assert list(store.list()) == [key]


def test_file_of_a_later_version_is_refused(store):
    store.add(new_key()[0])
    changed(store.path, "PRAGMA user_version = 2")
    for call in (store.list, lambda: store.add(new_key()[0]), lambda: store.revoke("ab", 1.0)):
        with pytest.raises(StoreFailed, match="schema 2 is newer than this version's, 1"):
            call()


def test_failed_write_leaves_the_keys_as_they_were(store):
    key, _ = new_key()
    store.add(key)
    blocking = sqlite3.connect(store.path, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    blocking.execute("DELETE FROM keys")
    blocking.close()
    assert list(store.list()) == [key]


def test_directory_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreFailed, match=r"keys\.sqlite: "):
        SqliteKeyStore(tmp_path / "file").add(new_key()[0])


def test_unchanged_keys_are_the_same_object(store, tmp_path):
    key, _ = new_key()
    store.add(key)
    first = store.list()
    assert store.list() is first
    SqliteKeyStore(tmp_path).revoke(key.id, 5.0)
    assert [key.revoked for key in store.list()] == [5.0]
    assert [key.revoked for key in first] == [None]


def test_link_to_no_file_of_keys_is_an_error(store, tmp_path):
    store.path.symlink_to(tmp_path / "not mounted")
    with pytest.raises(StoreFailed, match="unable to open"):
        store.list()
    with pytest.raises(StoreFailed, match="unable to open"):
        store.revoke("ab", 0)
