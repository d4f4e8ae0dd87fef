"""engram doctor: each fault is made, and must be named with a command that mends it."""

import importlib.metadata as metadata
import json
import os
import resource
import socket
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app import doctor
from app.doctor import CHECKS, Finding, examine
from app.settings import Settings
from app.stores.postgres import PostgresStore, schema, status
from app.stores.postgres.database import Database
from app.stores.sqlite import FILE, KEYS_FILE, SqliteStore
from tests.app.checkpoints import copy_checkpoint
from tests.app.harness import running_server
from tests.engram.running import done, engram
from tests.postgres import started


@pytest.fixture
def settings(few: Path, data: Path) -> Settings:
    return Settings(checkpoints=few, data=data, port=0)


def findings(part: str, settings: Settings, **changes: Any) -> list[Finding]:
    """Return what is found of one part."""
    changed = settings.model_copy(update=changes)
    [check] = [check for check in CHECKS if check.__name__ == f"_{part}"]
    return list(check(changed))


def wrong(part: str, settings: Settings, **changes: Any) -> tuple[str, str]:
    """Return the one finding of a part that is wrong: its message and its remedy."""
    [found] = [finding for finding in findings(part, settings, **changes) if finding.is_wrong]
    assert found.remedy is not None
    return found.message, found.remedy


def test_sound_installation_has_no_problem(settings):
    found = list(examine(settings))
    assert {finding.part for finding in found} == {check.__name__[1:] for check in CHECKS} - {"torch"}
    assert [finding for finding in found if finding.is_wrong] == []
    assert not settings.data.exists()


def test_old_python_is_named(settings, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert "Engram needs 3.11 or later" in wrong("python", settings)[0]


@pytest.mark.parametrize(("found", "message"), [("0.1.2", "numpy is 0.1.2"), (None, "numpy is not installed")])
def test_package_below_its_bound_or_missing_is_named(found, message, settings, monkeypatch):
    def version(name: str) -> str:
        if name == "numpy":
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return found
        return "999"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy>=1.26", "torch>=9; extra == 'torch'", "tqdm>=4"])
    complaint, remedy = wrong("packages", settings)
    assert (complaint.startswith(message), "1.26 or later is needed" in complaint) == (True, True)
    assert remedy.endswith("-m pip install -c constraints.txt -e .")


@pytest.mark.parametrize(("older", "newer"), [("1.9", "1.10"), ("2", "2.0.1"), ("0.45.0rc1", "0.45.1")])
def test_versions_are_compared_by_their_numbers(older, newer):
    assert doctor._numbers(older) < doctor._numbers(newer)
    assert doctor._numbers(older) == doctor._numbers(f"{older}.0".replace("rc1.0", ""))


def test_kernels_that_are_not_used_are_named(settings, monkeypatch):
    monkeypatch.setattr(doctor, "library", lambda: None)
    monkeypatch.setattr(doctor, "why_no_library", lambda: "they were built from other sources")
    message, remedy = wrong("kernels", settings)
    assert ("from other sources" in message, "python -m kernels.build" in remedy) == (True, True)


def test_machine_without_kernels_is_not_wrong(settings, monkeypatch):
    monkeypatch.setattr(doctor, "library", lambda: None)
    monkeypatch.setattr(doctor, "variants", dict)
    [found] = findings("kernels", settings)
    assert (found.is_wrong, "ONNX Runtime computes instead" in found.message) == (False, True)


def test_damaged_checkpoint_is_named_beside_those_served(settings, few, tmp_path):
    copy_checkpoint(few / "dnc-copy", tmp_path / "models" / "sound")
    (copy_checkpoint(few / "dnc-copy", tmp_path / "models" / "broken") / "model.onnx").write_bytes(b"junk")
    message, remedy = wrong("checkpoints", settings, checkpoints=tmp_path / "models")
    assert message.startswith("broken is not served: ")
    assert remedy == f"mv {tmp_path}/models/broken {tmp_path}/models/.broken"
    assert "sound (" in findings("checkpoints", settings, checkpoints=tmp_path / "models")[0].message


def test_missing_checkpoints_are_named(settings, tmp_path):
    message, remedy = wrong("checkpoints", settings, checkpoints=tmp_path / "nowhere")
    assert ("no directory" in message, remedy) == (True, "engram serve --checkpoints DIRECTORY")


def test_data_that_is_a_file_is_named(settings, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is no directory" in wrong("data", settings, data=tmp_path / "file")[0]


def test_data_that_cannot_be_written_is_named(settings, monkeypatch):
    settings.data.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    message, remedy = wrong("data", settings)
    assert ("cannot be written to" in message, remedy.startswith("chown ")) == (True, True)


def test_full_disk_is_named(settings, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_SPACE", 2**80)
    message, remedy = wrong("data", settings)
    assert ("MiB are free" in message, remedy.startswith("du -sh ")) == (True, True)


def test_newer_schema_is_named_and_an_older_one_is_not(settings):
    SqliteStore(settings.data).close()
    assert not any(finding.is_wrong for finding in findings("data", settings))
    with sqlite3.connect(settings.data / FILE) as database:
        database.execute("PRAGMA user_version = 99")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert "schema 99 is newer than this version's" in wrong("data", settings)[0]


def test_file_of_something_else_is_named(settings):
    settings.data.mkdir()
    (settings.data / FILE).write_bytes(b"x" * 4096)
    message, remedy = wrong("data", settings)
    assert ("is no SQLite file" in message, remedy) == (True, f"engram check --data {settings.data}")


def test_store_that_is_open_is_seen_and_not_disturbed(settings):
    store = SqliteStore(settings.data)
    assert [finding.message for finding in findings("data", settings)] == [f"{settings.data / FILE}: a server uses it"]
    store.tidy(1000.0)
    store.close()
    assert "no server uses it" in findings("data", settings)[0].message


def test_sound_database_has_no_problem(settings, database_url):
    found = findings("data", settings, store=database_url)
    assert [finding.message for finding in found if finding.is_wrong] == []
    assert ("PostgreSQL " in found[0].message, "this one" in found[0].message) == (True, True)
    assert found[1].message.endswith("no tables yet: the server makes them")
    [keys] = findings("keys", settings, store=database_url)
    assert not keys.is_wrong


def test_servers_of_a_database_are_listed(settings, database_url):
    PostgresStore(database_url).close()
    insert = "INSERT INTO servers (id, name, place, lasts) VALUES ($1, $1, '', $2::interval)"
    with closing(Database(database_url)) as database:
        for name, lasts in (("one", "1 hour"), ("two", "-1 hour")):
            database.run(insert, name, lasts)
    message = findings("data", settings, store=database_url)[1].message
    assert message.endswith("schema 2; servers: one, and 1 that died")


@pytest.mark.parametrize(
    ("version", "words", "remedy"),
    [(99, "schema 99 is newer than this", "git pull"), (0.5, "is an earlier version's", "engram store migrate ")],
)
def test_schema_of_another_version_is_named(version, words, remedy, settings, database_url, monkeypatch):
    PostgresStore(database_url).close()
    monkeypatch.setattr(schema, "version", lambda _: version)
    message, mended = wrong("data", settings, store=database_url)
    assert (words in message, mended.startswith(remedy)) == (True, True)


@pytest.mark.slow
def test_database_that_forgets_is_named_with_the_settings(settings):
    off = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=10")
    for server in started(*off, "superuser_reserved_connections=1", "max_wal_senders=0"):
        found = [finding for finding in findings("data", settings, store=server.url()) if finding.is_wrong]
    remedies = {finding.message.split(": ", 1)[1].split()[0]: str(finding.remedy) for finding in found}
    assert remedies.keys() == {"fsync", "full_page_writes", "synchronous_commit", "1"}
    assert "ALTER SYSTEM SET max_connections = 200" in remedies.pop("1")
    assert all(f"ALTER SYSTEM SET {name} = on" in remedy for name, remedy in remedies.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 90624}, "PostgreSQL 9.624 is too old; 14 or later is needed"),
        ({"is_standby": True}, "it is a standby, which is read-only"),
        ({"data_checksums": "off"}, "it has no data checksums"),
    ],
)
def test_unfit_database_is_named(changes, words, settings, database_url, monkeypatch):
    facts = status.facts
    monkeypatch.setattr(status, "facts", lambda database: facts(database)._replace(**changes))
    assert words in wrong("data", settings, store=database_url)[0]


def test_clock_apart_from_the_database_is_said_and_harmless(settings, database_url, monkeypatch):
    facts = status.facts
    monkeypatch.setattr(status, "facts", lambda database: facts(database)._replace(time=time.time() + 90))
    found = findings("data", settings, store=database_url)
    assert "its clock is 90.0 s ahead of this one" in found[0].message
    assert not any(finding.is_wrong for finding in found)


def test_database_that_does_not_answer_is_named_without_its_password(settings):
    unreachable = Settings(store="postgresql://me:s3cret@127.0.0.1:1/engram", data=settings.data)
    for part in ("data", "keys"):
        message, remedy = wrong(part, unreachable)
        assert ("me@127.0.0.1:1" in message, remedy) == (True, "psql postgresql://me@127.0.0.1:1/engram")
        assert "s3cret" not in message + remedy


def test_password_file_that_others_can_read_is_named(settings, tmp_path):
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o644)
    message, remedy = wrong("keys", settings, store_password_file=path)
    assert ("can be read or changed by others" in message, remedy) == (True, f"chmod 600 {path}")


def test_keys_that_others_can_read_are_named(settings, capsys):
    done(capsys, "keys", "create", "--data", settings.data)
    path = settings.data / KEYS_FILE
    assert not any(finding.is_wrong for finding in findings("keys", settings))
    path.chmod(0o644)
    message, remedy = wrong("keys", settings)
    assert ("can be read or changed by others" in message, remedy) == (True, f"chmod 600 {path}")


def test_missing_or_short_key_file_is_named(settings, tmp_path):
    path = tmp_path / "engram.key"
    for content in (None, "short"):
        if content is not None:
            path.write_text(content)
            path.chmod(0o600)
        message, remedy = wrong("keys", settings, key_file=path)
        assert (message.startswith(f"key_file {path}: "), remedy) == (True, f"openssl rand -hex 32 > {path}")


def test_address_without_a_key_is_named(settings):
    message, remedy = wrong("keys", settings, host="0.0.0.0")
    assert ("does not listen on 0.0.0.0" in message, remedy) == (True, f"engram keys create --data {settings.data}")
    assert not findings("keys", settings, host="0.0.0.0", insecure=True)[0].is_wrong


def test_few_open_files_are_named(settings, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    assert wrong("files", settings) == (
        "this process may open 256 files, and each connection is one",
        "ulimit -n 512",
    )


def test_little_memory_is_named(settings, monkeypatch):
    monkeypatch.setattr(doctor, "memory_limit", lambda: 100 * 2**20)
    message, remedy = wrong("memory", settings)
    assert (message.startswith("100 MiB"), remedy.startswith("docker update")) == (True, True)


def test_port_that_is_taken_is_named(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        message, remedy = wrong("port", settings, port=taken.getsockname()[1])
    assert ("cannot be listened on" in message, remedy) == (True, "engram serve --port 0")


def test_address_of_another_machine_is_named(settings):
    assert wrong("port", settings, host="192.0.2.1")[1] == "engram serve --host 127.0.0.1"


def test_cuda_that_is_not_there_is_named(settings, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert wrong("torch", settings, device="cuda")[1] == "nvidia-smi"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install" in wrong("torch", settings, backend="torch")[1]


def test_clock_before_the_installation_is_named(settings, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert wrong("clock", settings)[1] == "timedatectl set-ntp true"


@pytest.mark.slow
def test_doctor_says_how_it_is_beside_a_running_server(few, data):
    with running_server(data=data, checkpoints=few) as server:
        port = server.url.rsplit(":", 1)[1]
        ran = engram("doctor", "--checkpoints", few, "--data", data, "--port", port, "--json")
    report = json.loads(ran.stdout)
    messages = [finding["message"] for finding in report["findings"] if finding["part"] in ("data", "port")]
    assert messages == [
        f"{data / FILE}: a server uses it",
        f"127.0.0.1 port {port} is taken, as by the server that uses {data}",
    ]
    assert report["ok"]


@pytest.mark.slow
def test_doctor_ends_with_status_1_and_the_command(data, tmp_path):
    ran = engram("doctor", "--checkpoints", tmp_path / "nowhere", "--data", data)
    assert (ran.returncode, "WRONG  checkpoints  checkpoints: no directory" in ran.stdout) == (1, True)
    assert "mend it with: engram serve --checkpoints DIRECTORY" in ran.stdout
    ran = engram("doctor", "--port", "many")
    assert "WRONG  settings     setting port: " in ran.stdout


def test_part_that_cannot_be_examined_leaves_the_others(settings, tmp_path):
    changed = settings.model_copy(update={"host": "a..b", "data": tmp_path / ("long" * 100)})
    found = {finding.part: finding for finding in examine(changed)}
    assert found["data"].message.startswith("it cannot be examined: [Errno 36]")
    assert "codec failed" in found["port"].message
    assert found["port"].is_wrong
    assert found.keys() >= {"packages", "files", "memory", "clock"}
