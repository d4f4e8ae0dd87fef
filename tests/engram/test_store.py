"""engram store, and the other commands on a database that servers share, run in this process."""

import json
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from app.stores.postgres import PostgresKeyStore
from app.stores.postgres.database import Database
from app.stores.sqlite import SqliteKeyStore, SqliteStore
from engram import main as cli
from tests.app.harness import ROOT
from tests.app.stores.test_stores import altered, opened, past, recorded, step
from tests.engram.running import complaint, done


def registered(url: str, server: str, lasts: str) -> None:
    """Have a server use a database, with a lease that lasts some time."""
    insert = "INSERT INTO servers (id, name, place, lasts) VALUES ($1, $1, '10.0.0.1', $2::interval)"
    with closing(Database(url)) as database:
        database.run(insert, server, lasts)


def test_store_is_copied_there_and_back(tmp_path, database_url, capsys):
    recorded(tmp_path / "a")
    token = done(capsys, "keys", "create", "--data", tmp_path / "a").strip()
    printed = done(capsys, "store", "copy", tmp_path / "a", database_url)
    assert printed.endswith(", 1 key copied\n")
    assert "2 sessions" in printed
    done(capsys, "store", "copy", database_url, tmp_path / "b")
    with closing(SqliteStore(tmp_path / "a")) as first, closing(SqliteStore(tmp_path / "b")) as second:
        assert all(past(first, name) == past(second, name) for name in first.idle_since(1e12, 9))
        assert first.counts() == second.counts()
    assert SqliteKeyStore(tmp_path / "a").list() == SqliteKeyStore(tmp_path / "b").list()
    assert token.split("_")[1] == SqliteKeyStore(tmp_path / "b").list()[0].id


def test_standby_is_read_where_partitions_of_the_log_are_due(tmp_path, database_url, capsys):
    recorded(tmp_path / "a")
    done(capsys, "store", "copy", tmp_path / "a", database_url)
    with closing(Database(database_url)) as database:
        database.run("UPDATE partitions SET ends = now()")
    standby = f"{database_url}%20-cdefault_transaction_read_only%3Don"
    assert "2 open sessions, no problems" in done(capsys, "check", "--store", standby)
    assert "2 sessions" in done(capsys, "store", "copy", standby, tmp_path / "b")


def test_store_with_sessions_is_no_target(tmp_path, database_url, capsys):
    recorded(tmp_path / "a"), recorded(tmp_path / "b")
    done(capsys, "store", "copy", tmp_path / "a", database_url)
    for target in (tmp_path / "b", database_url):
        assert "there are sessions in it already" in complaint(capsys, "store", "copy", tmp_path / "a", target)


def test_store_in_use_is_no_source(tmp_path, database_url, capsys):
    with closing(SqliteStore(tmp_path / "a")):
        message = complaint(capsys, "store", "copy", tmp_path / "a", database_url)
        assert "is another server using this data directory?" in message
    done(capsys, "store", "migrate", database_url)
    registered(database_url, "one", "1 hour")
    assert "servers use it: one; stop them first" in complaint(capsys, "store", "copy", database_url, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_target_that_is_refused_gets_no_keys(tmp_path, database_url, capsys):
    recorded(tmp_path / "a"), recorded(tmp_path / "b")
    done(capsys, "keys", "create", "--data", tmp_path / "a")
    done(capsys, "store", "migrate", database_url)
    registered(database_url, "one", "1 hour")
    assert "servers use it: one; stop them first" in complaint(capsys, "store", "copy", tmp_path / "a", database_url)
    assert "there are sessions in it already" in complaint(capsys, "store", "copy", tmp_path / "a", tmp_path / "b")
    assert not SqliteKeyStore(tmp_path / "b").list()
    with closing(PostgresKeyStore(database_url)) as keys:
        assert not keys.list()


@pytest.mark.parametrize("place", ["nowhere", "database_url"])
def test_place_without_a_store_is_no_source(place, tmp_path, request, capsys):
    source = request.getfixturevalue(place) if place == "database_url" else tmp_path / place
    assert " no " in complaint(capsys, "store", "copy", source, tmp_path / "target")
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "target").exists()


KILLED = """
import os, signal, sys
from app.places import copy_place, place

def progress(done, total):
    if done == 30:
        os.kill(os.getpid(), signal.SIGKILL)

copy_place(place(sys.argv[1]), place(sys.argv[2]), progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["directory", "database"])
def test_killed_copy_leaves_nothing_and_is_begun_anew(kind, tmp_path, request, capsys, monkeypatch):
    source = tmp_path / "a"
    target = str(tmp_path / "b") if kind == "directory" else request.getfixturevalue("database_url")
    with closing(SqliteStore(source)) as store:
        for number in range(60):
            opened(store, f"s{number}")
            step(store, f"s{number}", *range(20_000))
    done(capsys, "keys", "create", "--data", source)
    killed = subprocess.run([sys.executable, "-c", KILLED, source, target], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert json.loads(done(capsys, "store", "status", target, "--json"))["sessions"] == 0
    assert "60 sessions, 60 tapes, 1200000 steps, no snapshots, 1 key copied" in done(
        capsys, "store", "copy", source, target
    )
    assert json.loads(done(capsys, "store", "status", target, "--json"))["sessions"] == 60


def test_damage_ends_a_copy_and_leaves_nothing(tmp_path, database_url, capsys):
    recorded(tmp_path)
    altered(tmp_path, "UPDATE log SET checksum = 1 WHERE tape = 1 AND step = 0")
    assert "engram check lists all damage" in complaint(capsys, "store", "copy", tmp_path, database_url)
    assert json.loads(done(capsys, "store", "status", database_url, "--json"))["sessions"] == 0


def test_key_of_another_content_ends_a_copy(tmp_path, capsys):
    for name in "ab":
        done(capsys, "keys", "create", "--data", tmp_path / name)
    [key] = SqliteKeyStore(tmp_path / "a").list()
    SqliteKeyStore(tmp_path / "b").add(key)
    SqliteKeyStore(tmp_path / "b").revoke(key.id, 1.0)
    recorded(tmp_path / "a")
    message = complaint(capsys, "store", "copy", tmp_path / "a", tmp_path / "b")
    assert f"key {key.id} differs from that of {tmp_path / 'a'}" in message


def test_schema_is_made_and_up_to_date_then(tmp_path, database_url, capsys):
    for place in (tmp_path / "data", database_url):
        assert "made" in done(capsys, "store", "migrate", place)
        assert "up to date already" in done(capsys, "store", "migrate", place)


def test_schema_of_a_later_version_is_refused(database_url, tmp_path, capsys):
    done(capsys, "store", "migrate", database_url)
    with closing(Database(database_url)) as database:
        database.run("UPDATE meta SET version = 99")
    assert "schema 99 is newer than this version's" in complaint(capsys, "store", "migrate", database_url)
    assert cli.main(["store", "status", database_url]) == 1
    assert "schema 99; this Engram expects" in capsys.readouterr().out


def test_status_names_sessions_servers_and_size(tmp_path, database_url, capsys):
    recorded(tmp_path)
    done(capsys, "store", "copy", tmp_path, database_url)
    registered(database_url, "one", "1 hour"), registered(database_url, "two", "-1 hour")
    shown = json.loads(done(capsys, "store", "status", database_url, "--json"))
    assert (shown["version"], shown["expected"], shown["sessions"], shown["ended"]) == (2, 2, 2, 0)
    assert [(each["name"], each["place"], each["lease"] > 0) for each in shown["servers"]] == [
        ("one", "10.0.0.1", True),
        ("two", "10.0.0.1", False),
    ]
    assert shown["size"] > 50_000
    lines = done(capsys, "store", "status", database_url).splitlines()
    assert (lines[1], lines[2]) == ("2 open sessions, 0 ended", "2 servers")
    assert ("s of its lease left" in lines[3], "its lease is over for" in lines[4]) == (True, True)


def test_status_of_a_directory_names_its_server(tmp_path, capsys):
    recorded(tmp_path)
    assert "2 open sessions, 0 ended\nno servers" in done(capsys, "store", "status", tmp_path)
    with closing(SqliteStore(tmp_path)):
        shown = json.loads(done(capsys, "store", "status", tmp_path, "--json"))
    assert (shown["sessions"], len(shown["servers"]), shown["servers"][0]["lease"]) == (None, 1, None)


def test_place_comes_from_the_settings_without_one(tmp_path, database_url, capsys, monkeypatch):
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path / "data"))
    assert done(capsys, "store", "migrate").startswith(str(tmp_path / "data"))
    monkeypatch.setenv("ENGRAM_STORE", database_url)
    assert done(capsys, "store", "migrate").startswith(database_url)
    monkeypatch.setenv("ENGRAM_STORE", "memory")
    assert "expected a store that outlives its server, got 'memory'" in complaint(capsys, "store", "status")


def test_keys_of_a_database_are_made_listed_and_revoked(tmp_path, database_url, capsys, monkeypatch):
    token = done(capsys, "keys", "create", "--store", database_url, "--tenant", "team-a").strip()
    monkeypatch.setenv("ENGRAM_STORE", database_url)
    assert done(capsys, "keys", "list").endswith(f"{database_url}: 1 key, 1 valid\n")
    assert "is revoked" in done(capsys, "keys", "revoke", token)
    with closing(PostgresKeyStore(database_url)) as store:
        assert [(key.tenant, key.revoked is None) for key in store.list()] == [("team-a", False)]
    assert done(capsys, "keys", "list", "--data", tmp_path) == f"{tmp_path}: no keys, 0 valid\n"


def test_check_finds_damage_in_a_database(tmp_path, database_url, capsys):
    recorded(tmp_path)
    done(capsys, "store", "copy", tmp_path, database_url)
    registered(database_url, "one", "1 hour")  # it may go on
    assert done(capsys, "check", "--store", database_url) == f"{database_url}: 2 open sessions, no problems found\n"
    with closing(Database(database_url)) as database:
        database.run("DELETE FROM log WHERE step = (SELECT min(step) FROM log)")
    assert cli.main(["check", "--store", database_url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]


@pytest.mark.slow
def test_password_of_a_place_is_in_no_output(own_postgres, tmp_path, capsys):
    own_postgres.run("CREATE ROLE guarded LOGIN PASSWORD 'sec/ret'")
    with own_postgres.schema("of_guarded") as place:
        own_postgres.run("GRANT ALL ON SCHEMA of_guarded TO guarded")
        host, options = place.partition("@")[2].split("?")
        url = f"postgresql://guarded:sec%2Fret@{host}?{options}"
        printed = done(capsys, "store", "migrate", url) + done(capsys, "store", "status", url)
        printed += done(capsys, "check", "--store", url)
        recorded(tmp_path)
        printed += done(capsys, "store", "copy", tmp_path, url)
        wrong = complaint(capsys, "store", "status", url.replace("sec%2Fret", "wrongsecret"))
        malformed = complaint(capsys, "store", "status", url.replace("sec%2Fret", "sec@ret"))
        foreign = complaint(capsys, "store", "status", "mysql://me:secret@h/x")
    assert "guarded@127.0.0.1" in printed
    assert "password authentication failed" in wrong
    assert not any(secret in printed + wrong + malformed + foreign for secret in ("sec%2F", "sec/", "secret", "sec@"))


@pytest.mark.slow
def test_missing_package_is_named_with_the_command(tmp_path):
    (tmp_path / "psycopg.py").write_text("raise ImportError('no libpq')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from engram.main import main; sys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-c", script, "store", "status", "postgresql://h/d"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, "pip install -c constraints.txt -e '.[postgres]'" in ran.stderr) == (1, True)
