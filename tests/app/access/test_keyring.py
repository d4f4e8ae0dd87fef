"""The valid keys of a server, as their sources change."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.access import keyring as module
from app.access.key_file import KeyFile
from app.access.keyring import Keyring
from app.access.keys import SCOPES, Caller, Key, KeyLimits, new_key
from app.errors import InvalidKey, KeyRequired, StoreFailed
from app.stores.memory import MemoryKeyStore
from app.stores.sqlite import SqliteKeyStore
from tests.app.asynchronous import run, until


class Unreliable(MemoryKeyStore):
    """A store that can be out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    def list(self) -> Sequence[Key]:
        if self.error is not None:
            raise self.error
        return super().list()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.005)


@pytest.fixture
def store():
    return Unreliable()


@pytest.fixture
def token(store) -> bytes:
    return added(store)


def added(store, *args, **values) -> bytes:
    key, token = new_key(*args, **values)
    store.add(key)
    return token.encode()


def key_id(token: bytes) -> str:
    return token.split(b"_")[1].decode()


def refreshed(keyring: Keyring, holds) -> None:
    """Keep the keys fresh until something is so, which the time limit of the test bounds."""

    async def wait():
        keeping = asyncio.create_task(keyring.keep_fresh())
        await until(lambda: holds() or keeping.done())
        assert not keeping.done()
        keeping.cancel()

    run(wait())


def refuses(keyring: Keyring, token: bytes | None, error: type[Exception]) -> bool:
    try:
        keyring.caller(token)
    except error:
        return True
    return False


def test_without_keys_everybody_is_the_same_caller(store):
    keyring = Keyring(store)
    assert not keyring.required
    for token in (None, b"", b"engram_0123456789ab_00", b"Basic of a proxy"):
        assert keyring.caller(token) is keyring.anonymous
    it = keyring.anonymous
    assert (it.tenant, it.scopes, it.limits, it.key_id) == ("default", set(SCOPES), KeyLimits(), None)


def test_key_makes_one_caller_with_what_it_allows(store):
    token = added(store, "team-a", ["infer"], KeyLimits(max_streams=1))
    added(store, "team-b")
    caller = Keyring(store).caller(token)
    assert (caller.tenant, caller.scopes, caller.key_id) == ("team-a", {"infer"}, key_id(token))
    assert (caller.limits, caller.ended) == (KeyLimits(max_streams=1), None)


def test_wrong_keys_are_refused(store, token):
    keyring = Keyring(store)
    other = new_key()[1].encode()
    forged = b"_".join([b"engram", key_id(token).encode(), other.split(b"_")[2]])
    for wrong in (b"", b"_", other, forged, token[:-1], token + b"0", token.upper(), token[7:], module.NO_DIGEST):
        with pytest.raises(InvalidKey, match="unknown or was revoked"):
            keyring.caller(wrong)
    with pytest.raises(KeyRequired, match="send Authorization: Bearer KEY"):
        keyring.caller(None)


def test_revoked_keys_alone_require_a_key(store, token):
    store.revoke(key_id(token), 1.0)
    keyring = Keyring(store)
    assert keyring.required
    assert refuses(keyring, token, InvalidKey)
    assert refuses(keyring, None, KeyRequired)


def test_key_is_the_same_caller_after_every_refresh(store, token):
    keyring = Keyring(store)
    caller = keyring.caller(token)
    later = added(store)
    refreshed(keyring, lambda: not refuses(keyring, later, InvalidKey))
    assert keyring.caller(token) is caller
    assert keyring.caller(later) is not caller


def test_revoked_key_ends_its_caller_and_no_other(store, token):
    other, ended = added(store), []
    keyring = Keyring(store)
    keyring.caller(token).watch(ended.append)
    keyring.caller(other).watch(ended.append)
    store.revoke(key_id(token), 1.0)
    refreshed(keyring, lambda: refuses(keyring, token, InvalidKey))
    assert [type(error) for error in ended] == [InvalidKey]
    assert keyring.caller(other).ended is None


def test_watchers_are_called_on_the_event_loop(store, token):
    keyring, threads = Keyring(store), []
    keyring.caller(token).watch(lambda _: threads.append(threading.current_thread()))
    store.revoke(key_id(token), 1.0)
    refreshed(keyring, lambda: threads)
    assert threads == [threading.current_thread()]


def test_first_key_ends_the_caller_without_one(store):
    keyring, ended = Keyring(store), []
    keyring.anonymous.watch(ended.append)
    token = added(store)
    refreshed(keyring, lambda: keyring.required)
    assert [type(error) for error in ended] == [KeyRequired]
    assert refuses(keyring, None, KeyRequired)
    assert keyring.caller(token).tenant == "default"


def test_removed_file_of_keys_opens_nothing(tmp_path):
    store = SqliteKeyStore(tmp_path)
    token = added(store)
    keyring = Keyring(store)
    store.path.unlink()
    refreshed(keyring, lambda: refuses(keyring, token, InvalidKey))
    assert refuses(keyring, None, KeyRequired)


def test_key_whose_row_is_another_is_another_caller(tmp_path):
    store = SqliteKeyStore(tmp_path)
    key, token = new_key("team-a")
    store.add(key)
    keyring = Keyring(store)
    before = keyring.caller(token.encode())
    store.path.unlink()
    store.add(Key(**vars(key) | {"tenant": "team-b"}))
    refreshed(keyring, lambda: keyring.caller(token.encode()) is not before)
    assert keyring.caller(token.encode()).tenant == "team-b"
    assert isinstance(before.ended, InvalidKey)


def test_unreadable_keys_count_for_a_while_only(store, token, caplog):
    clock, ended = Clock(), []
    keyring = Keyring(store, clock=clock)
    before = keyring.caller(token)
    before.watch(ended.append)
    store.error = StoreFailed("out of order")
    clock.now = 30.0
    refreshed(keyring, lambda: "out of order" in caplog.text)
    assert keyring.caller(token) is before
    clock.now = 30.1
    refreshed(keyring, lambda: ended)
    assert [type(error) for error in ended] == [StoreFailed]
    assert refuses(keyring, token, StoreFailed)
    assert refuses(keyring, new_key()[1].encode(), StoreFailed), "nobody can know whether it is valid"
    assert refuses(keyring, None, KeyRequired)
    assert caplog.text.count("out of order") == 1


def test_keys_are_valid_again_once_they_can_be_read(store, token):
    clock = Clock()
    keyring = Keyring(store, clock=clock)
    store.error = StoreFailed("out of order")
    clock.now = 30.1
    refreshed(keyring, lambda: refuses(keyring, token, StoreFailed))
    store.error = None
    refreshed(keyring, lambda: not refuses(keyring, token, StoreFailed))
    assert keyring.caller(token).ended is None
    assert refuses(keyring, new_key()[1].encode(), InvalidKey)


def test_unreadable_store_refuses_also_callers_without_a_key(store):
    clock = Clock()
    keyring = Keyring(store, clock=clock)
    store.error = StoreFailed("out of order")
    clock.now = 30.1
    refreshed(keyring, lambda: refuses(keyring, None, StoreFailed))
    store.error = None
    refreshed(keyring, lambda: not refuses(keyring, None, StoreFailed))
    assert keyring.caller(None) is keyring.anonymous
    assert not keyring.required


def test_store_that_hangs_is_not_trusted_for_ever(store, token):
    clock, released = Clock(), threading.Event()
    keyring = Keyring(store, clock=clock)
    store.list = lambda: released.wait(10) and []

    def refused() -> bool:
        clock.now += 1
        return refuses(keyring, token, StoreFailed) and not released.set()

    refreshed(keyring, refused)


def test_unexpected_error_of_a_store_does_not_end_refreshing(store, token, caplog):
    keyring = Keyring(store)
    store.error = RuntimeError("a bug")
    refreshed(keyring, lambda: "a bug" in caplog.text)
    store.error = None
    later = added(store)
    refreshed(keyring, lambda: not refuses(keyring, later, InvalidKey))


def test_keys_that_cannot_be_read_at_first_are_an_error(store):
    store.error = StoreFailed("out of order")
    with pytest.raises(StoreFailed, match="out of order"):
        Keyring(store)


# The key file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("a-key.of_32~characters-0123456789\n")
    return path


def test_key_of_the_file_has_all_scopes(store, file):
    keyring = Keyring(store, KeyFile(file))
    caller = keyring.caller(b"a-key.of_32~characters-0123456789")
    assert keyring.required
    assert (caller.tenant, caller.scopes, caller.key_id) == ("default", set(SCOPES), "file")
    assert refuses(keyring, b"a-key.of_32~characters-0123456789\n", InvalidKey)
    assert refuses(keyring, None, KeyRequired)


def test_changed_key_file_is_read_again(store, file, token):
    keyring = Keyring(store, KeyFile(file))
    before = keyring.caller(file.read_bytes().strip())
    file.write_text("b" * 32)
    refreshed(keyring, lambda: not refuses(keyring, b"b" * 32, InvalidKey))
    assert isinstance(before.ended, InvalidKey)
    assert refuses(keyring, b"a-key.of_32~characters-0123456789", InvalidKey)
    assert keyring.caller(token).ended is None


def test_removed_key_file_is_trusted_for_a_while_only(store, file, token):
    clock, key = Clock(), file.read_bytes().strip()
    keyring = Keyring(store, KeyFile(file), clock=clock)
    file.unlink()
    clock.now = 30.1
    refreshed(keyring, lambda: refuses(keyring, key, StoreFailed))
    assert isinstance(keyring.caller(token), Caller), "the keys of the store can be read"
    assert refuses(keyring, b"engram_ab_cd", InvalidKey)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"expected one key, 32 to 512 letters, digits and \._~- .*, got 0 bytes"),
        (b"a" * 31, "got 31 bytes"),
        (b"a" * 513, "got 513 bytes"),
        (b"a" * 32 + b"\n" + b"b" * 32, "got 65 bytes"),
        (b"a" * 40 + b"+/=", "openssl rand -hex 32"),
        (b"\xff" * 40, "got 40 bytes"),
        (b"engram_0123456789ab_" + b"0" * 64, "it holds a key of engram keys"),
    ],
)
def test_file_that_holds_no_key_is_refused(store, file, content, complaint):
    file.write_bytes(content)
    with pytest.raises(StoreFailed, match=f"key_file {file}: .*{complaint}") as raised:
        Keyring(store, KeyFile(file))
    assert "aaa" not in str(raised.value)


def test_missing_key_file_is_refused(store, tmp_path):
    with pytest.raises(StoreFailed, match=r"key_file .*secret: No such file"):
        Keyring(store, KeyFile(tmp_path / "secret"))
