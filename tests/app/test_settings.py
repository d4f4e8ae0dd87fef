"""Settings from flags, the environment and a file."""

import os
import traceback
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError
from typer.main import get_command

from app.settings import Settings, SettingsError, kind_of, load_settings
from engram.cli import single
from engram.flags import with_settings

URL = "postgresql://me:se%26cret@h:5433/engram"


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch):
    """Remove the variables of the environment: each test sets its own."""

    for name in [name for name in os.environ if name.startswith("ENGRAM_")]:
        monkeypatch.delenv(name)


def parse(*words: str) -> Settings:
    given: dict[str, Any] = {}

    @with_settings
    def run(settings: dict[str, Any]) -> int:
        given.update(settings)
        return 0

    get_command(single(run)).main(list(words), standalone_mode=False)
    return load_settings(given)


def test_defaults_are_local():
    settings = parse()
    assert (settings.host, settings.port, settings.backend, settings.device) == ("127.0.0.1", 8000, "auto", "auto")


def test_flags_win_over_the_environment_and_both_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "engram.toml"
    file.write_text("port = 1\nmax_batch = 2\nthreads = 3\n")
    monkeypatch.setenv("ENGRAM_MAX_BATCH", "20")
    monkeypatch.setenv("ENGRAM_PORT", "10")
    settings = parse("--config", str(file), "--port", "100")
    assert (settings.port, settings.max_batch, settings.threads) == (100, 20, 3)


def test_byte_order_mark_before_a_file_changes_nothing(tmp_path):
    file = tmp_path / "engram.toml"
    file.write_bytes(b"\xef\xbb\xbfport = 81\n")
    assert parse("--config", str(file)).port == 81


def test_file_may_be_named_in_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "engram.toml"
    file.write_text("idle_timeout = 7.5\naccess_log = true\n")
    monkeypatch.setenv("ENGRAM_CONFIG", str(file))
    assert (parse().idle_timeout, parse().access_log, parse("--no-access-log").access_log) == (7.5, True, False)


def test_memory_sizes_are_set_by_model(tmp_path, monkeypatch):
    file = tmp_path / "engram.toml"
    file.write_text("[memory_size]\ndnc-copy = 256\n")
    assert parse().memory_size == {}
    assert parse("--config", str(file)).memory_size == {"dnc-copy": 256}
    monkeypatch.setenv("ENGRAM_MEMORY_SIZE", "dnc-copy=64,a=b=3")
    assert parse("--config", str(file)).memory_size == {"dnc-copy": 64, "a=b": 3}
    assert parse("--memory-size", "x=1", "--memory-size", "y=2").memory_size == {"x": 1, "y": 2}


def test_snapshot_seconds_are_set_by_model(tmp_path, monkeypatch):
    file = tmp_path / "engram.toml"
    file.write_text("snapshots = {dnc-copy = 1, lstm-copy = 0.5}\n")
    assert parse().snapshots == {}
    assert parse("--config", str(file)).snapshots == {"dnc-copy": 1, "lstm-copy": 0.5}
    monkeypatch.setenv("ENGRAM_SNAPSHOTS", "dnc-copy=2.5,a=b=3")
    assert parse("--config", str(file)).snapshots == {"dnc-copy": 2.5, "a=b": 3}
    assert parse("--snapshots", "x=1", "--snapshots", "y=2").snapshots == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--snapshots", "dnc-copy"], r"setting snapshots: expected NAME=N, as in dnc-copy=1, got \['dnc-copy'\]"),
        (["--snapshots", "a=0"], r"setting snapshots.a: input should be greater than 0, got '0'"),
        (["--snapshots", "a=nan"], r"setting snapshots.a: input should be less than or equal to 86400, got 'nan'"),
        (["--snapshots", "a=1e9"], r"setting snapshots.a: input should be less than or equal to 86400, got '1e9'"),
        (["--snapshots", "a=soon"], r"setting snapshots.a: input should be a valid number"),
        (["--memory-size", "256"], r"setting memory_size: expected NAME=N, as in dnc-copy=256, got \['256'\]"),
        (["--memory-size", "a=0"], r"setting memory_size.a: input should be greater than or equal to 1, got '0'"),
        (["--memory-size", "a=1.5"], r"setting memory_size.a: input should be a valid integer"),
        (["--port", "x"], "setting port: input should be a valid integer.*, got 'x'"),
        (["--port", "70000"], "setting port: input should be less than or equal to 65535, got '70000'"),
        (["--idle-timeout", "0"], "setting idle_timeout: input should be greater than 0"),
        (["--port", "x", "--threads", "0"], "setting port: .*; setting threads: "),
    ],
)
def test_bad_values_are_refused_by_name(words, complaint):
    with pytest.raises(SettingsError, match=complaint):
        parse(*words)


def test_bad_file_is_refused_by_name(tmp_path):
    file = tmp_path / "engram.toml"
    with pytest.raises(SettingsError, match=r"config: no file .*engram\.toml"):
        parse("--config", str(file))
    file.write_text("port = ")
    with pytest.raises(SettingsError, match=r"config .*engram\.toml: "):
        parse("--config", str(file))
    file.write_text("prot = 80")
    with pytest.raises(SettingsError, match="setting prot: extra inputs are not permitted, got 80"):
        parse("--config", str(file))


def test_unknown_variable_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("ENGRAM_PROT", "80")
    with pytest.raises(SettingsError, match="ENGRAM_PROT: no such setting"):
        parse()


def test_variable_of_the_client_changes_nothing(monkeypatch):
    monkeypatch.setenv("ENGRAM_KEY", "engram_0123456789ab_00")
    assert parse().model_dump() == Settings().model_dump()


def test_bad_variable_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("ENGRAM_BACKEND", "tensorflow")
    with pytest.raises(SettingsError, match="setting backend: input should be 'auto', 'fused', 'onnx' or 'torch'"):
        parse()


# The store, and its password


def test_store_is_a_name_or_a_url_of_a_database(tmp_path, monkeypatch):
    file = tmp_path / "engram.toml"
    file.write_text("store = 'postgresql://me@10.0.0.5/engram?sslmode=require'\n")
    assert [parse(*words).store for words in ([], ["--store", "memory"])] == ["sqlite", "memory"]
    assert parse("--config", str(file)).store == "postgresql://me@10.0.0.5/engram?sslmode=require"
    monkeypatch.setenv("ENGRAM_STORE", "postgres:///engram?host=/run/postgresql")
    assert parse("--config", str(file)).store == "postgres:///engram?host=/run/postgresql"


@pytest.mark.parametrize(
    ("store", "kind"), [("sqlite", "sqlite"), ("memory", "memory"), ("postgres://h/d", "postgres"), (URL, "postgres")]
)
def test_kind_of_a_store_is_known_by_its_name(store, kind):
    assert kind_of(parse("--store", store).store) == kind


@pytest.mark.parametrize(
    "form", [URL, "postgresql://me@h/engram?connect_timeout=3&password=se%26cret", f"{URL}?connect_timeout=3"]
)
def test_password_of_a_url_is_for_the_connection_alone(form):
    settings = parse("--store", form)
    assert conninfo_to_dict(settings.store_url)["password"] == "se&cret"
    for shown in (settings, settings.model_copy(update={"port": 1})):
        assert "cret" not in f"{shown!r} {shown} {shown.model_dump()} {shown.model_dump_json()} {shown.store}"
    assert settings.model_copy(update={"port": 1}).store_url == settings.store_url


def test_password_may_stand_in_a_file(tmp_path):
    file = tmp_path / "password"
    words = ["--store", "postgresql://me@h/engram", "--store-password-file", str(file)]
    with pytest.raises(SettingsError, match=r"store_password_file: .*password cannot be read"):
        _ = parse(*words).store_url
    file.write_text("\n")
    with pytest.raises(SettingsError, match=r"store_password_file: .*password is empty"):
        _ = parse(*words).store_url
    file.write_text("se cr@et\n")
    assert conninfo_to_dict(parse(*words).store_url)["password"] == "se cr@et"
    with pytest.raises(SettingsError, match="the URL of the store has a password too"):
        _ = parse("--store", URL, *words[2:]).store_url


@pytest.mark.parametrize(
    "store",
    [
        *("postgresql://me:se@cret@h/x", "postgresql://me:/secret@h/x", "postgresql://me://secret@h"),
        *("postgres:/me:secret@h/x", "me:secret@h", "host=h password=secret", "mysql://me:secret@h/x"),
        *("postgresql://h/x?sslpassword=secret", "postgresql://me:x@h#secret@h", "Postgresql://me:secret@h/x"),
    ],
)
def test_password_of_a_malformed_url_is_in_no_error(store, tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text(f"store = '{store}'\n")
    (tmp_path / "b.toml").write_text(f"stor = '{store}'\n")
    for words in (["--store", store], ["--config", str(tmp_path / "a.toml")], ["--config", str(tmp_path / "b.toml")]):
        with pytest.raises(SettingsError, match=r"setting store?: .*, got '.*\*\*\*") as refused:
            parse(*words)
        assert "cret" not in "".join(traceback.format_exception(refused.value))
    monkeypatch.setenv("ENGRAM_STOR", store)
    with pytest.raises(SettingsError, match=r"ENGRAM_STOR: no such setting; [^:]*$"):
        parse()
    with pytest.raises(ValidationError) as invalid:
        Settings(store=store)
    assert "cret" not in str(invalid.value)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--store", "redis"], "setting store: expected sqlite, memory or a URL, .*, got 'redis'"),
        (["--lease", "0.3"], "setting lease: input should be greater than 0.3"),
        (["--server-name", "a b"], "setting server_name: string should match pattern"),
    ],
)
def test_bad_settings_of_a_shared_store_are_refused(words, complaint):
    with pytest.raises(SettingsError, match=complaint):
        parse(*words)
