"""engram keys, run in this process on a real file."""

import json
import sqlite3
from contextlib import closing

import pytest

from app.access.keys import KeyLimits, id_of, is_digest_of, new_key
from app.stores.sqlite import SqliteKeyStore
from engram import main as cli
from tests.engram.running import complaint, done, engram


@pytest.fixture
def keys(tmp_path, monkeypatch, capsys):
    """Run `engram keys` for a data directory, and return what it printed."""
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path / "data"))
    return lambda *words: done(capsys, "keys", *words)


@pytest.fixture
def store(tmp_path):
    return SqliteKeyStore(tmp_path / "data")


@pytest.mark.slow
def test_created_key_is_printed_alone_and_kept_as_a_hash(tmp_path, store):
    ran = engram("keys", "create", "--data", tmp_path / "data")
    [key] = store.list()
    token = ran.stdout.removesuffix("\n")
    assert is_digest_of(key.digest, token.encode())
    assert (key.tenant, key.scopes, key.limits) == ("default", {"infer", "sessions", "admin"}, KeyLimits())
    assert f"{tmp_path / 'data'}: key {key.id} of tenant default, for admin, infer and sessions" in ran.stderr
    assert token not in ran.stderr


def test_key_has_the_tenant_scopes_limits_and_name_asked_for(keys, store):
    limits = ["--max-sessions", 1, "--steps-per-second", 0.5, "--max-batch", 3, "--max-steps", 4, "--max-streams", 5]
    keys("create", "--tenant", "team-a", "--scopes", "infer, sessions", "--name", "of the lab", *limits)
    [key] = store.list()
    assert (key.tenant, key.scopes, key.name) == ("team-a", {"infer", "sessions"}, "of the lab")
    assert key.limits == KeyLimits(1, 0.5, 3, 4, 5)


def test_list_shows_all_keys_and_no_secret(keys):
    tokens = [keys("create", "--tenant", tenant).strip() for tenant in ("team-a", "team-b")]
    keys("create", "--scopes", "infer", "--max-steps", 7, "--name", "third")
    keys("revoke", tokens[0])
    table, listed = keys("list"), json.loads(keys("list", "--json"))
    heading, *rows, last = table.splitlines()
    assert heading.split() == ["id", "tenant", "scopes", "limits", "created", "revoked", "name"]
    assert [row.split()[:2] for row in rows] == [[key["id"], key["tenant"]] for key in listed]
    assert last.endswith("data: 3 keys, 2 valid")
    assert [key["revoked"] is None for key in listed] == [False, True, True]
    assert (listed[2]["scopes"], listed[2]["limits"], listed[2]["name"]) == (["infer"], {"max_steps": 7}, "third")
    assert all(token.split("_")[2] not in table + json.dumps(listed) for token in tokens)


def test_list_of_no_keys_is_empty(keys):
    assert keys("list").endswith("data: no keys, 0 valid\n")
    assert json.loads(keys("list", "--json")) == []


@pytest.mark.parametrize("form", ["id", "whole key"])
def test_key_is_revoked_by_its_id_or_whole(form, keys, store):
    token, other = (keys("create").strip() for _ in range(2))
    key_id = id_of(token.encode()).decode()
    assert keys("revoke", key_id if form == "id" else token).endswith(f"key {key_id} of tenant default is revoked\n")
    assert {key.id for key in store.list() if key.revoked is None} == {id_of(other.encode()).decode()}
    assert f"key {key_id} of tenant default was revoked before, at 20" in keys("revoke", key_id)


def test_data_directory_comes_from_the_settings_file_too(keys, tmp_path, monkeypatch):
    monkeypatch.delenv("ENGRAM_DATA")
    (tmp_path / "engram.toml").write_text(f"data = '{tmp_path / 'elsewhere'}'\n")
    keys("create", "--config", tmp_path / "engram.toml")
    assert len(SqliteKeyStore(tmp_path / "elsewhere").list()) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["revoke", "0123456789ab"], "there is no key '0123456789ab'; engram keys list shows all"),
        (["revoke", "engram_0123456789ab_secret"], "there is no key '0123456789ab'; "),
        (
            ["create", "--scopes", "infer,step"],
            "scope 'step': there is no such scope; expected some of infer, sessions",
        ),
        (["create", "--scopes", ""], "scope '': there is no such scope; expected some of infer, sessions, admin"),
        (["create", "--tenant", "Team A"], "tenant 'Team A': expected 1 to 63 lower-case letters"),
        (["create", "--max-sessions", "99999999999999999999"], "limit max_sessions: expected a number from 1e-06 to 9"),
        (["create", "--name", "a\tb"], "name 'a\\tb': expected at most 200 printable characters"),
    ],
)
def test_mistake_is_refused_and_changes_nothing(words, expected, keys, store, capsys):
    assert expected in complaint(capsys, "keys", *words)
    assert list(store.list()) == []


@pytest.mark.parametrize("words", [["--max-steps", "0"], ["--max-batch", "1.5"], ["--steps-per-second", "inf"]])
def test_limit_that_cannot_be_is_refused(words, keys, capsys):
    assert cli.main(["keys", "create", *words]) == 2
    assert f"{words[0]}: expected a " in capsys.readouterr().err


def test_key_is_revoked_also_beside_a_damaged_one(keys, store, capsys):
    bad, good = new_key(), new_key()
    for key, _ in (bad, good):
        store.add(key)
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE keys SET tenant = 'other' WHERE id = ?", (bad[0].id,))
    assert f"key '{bad[0].id}' is damaged" in complaint(capsys, "keys", "revoke", good[0].id)
    with closing(sqlite3.connect(store.path)) as connection:
        revoked = connection.execute("SELECT revoked FROM keys WHERE id = ?", (good[0].id,)).fetchone()
    assert revoked != (None,)
