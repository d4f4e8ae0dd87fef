"""The laws of a store of keys, on every store."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.access.keys import SCOPES, Key, KeyLimits, new_key
from app.errors import StoreFailed
from app.stores.keys import KeyStore
from app.stores.memory import MemoryKeyStore
from app.stores.postgres import PostgresKeyStore
from app.stores.sqlite import SqliteKeyStore
from tests.app.stores.conftest import Place

TABLE: dict[str, Callable[[Place], KeyStore]] = {
    "memory": lambda _: MemoryKeyStore(),
    "sqlite": lambda place: SqliteKeyStore(Path(place())),
    "postgres": lambda place: PostgresKeyStore(str(place())),
}
"""How to make each store, from its place."""


@pytest.fixture(params=TABLE)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyStore]:
    def place() -> Path | str:
        return request.getfixturevalue("database_url") if request.param == "postgres" else tmp_path / "data"

    store = TABLE[request.param](place)
    yield store
    store.close()


def key(created: float = 1.5, **values: object) -> Key:
    return replace(new_key()[0], created=created, **values)


def test_table_has_every_store():
    files = (Path(__file__).parents[3] / "app" / "stores").glob("*/keys.py")
    assert TABLE.keys() == {file.parent.name for file in files}


def test_new_store_has_no_keys(store):
    assert list(store.list()) == []
    assert not store.revoke("0123456789ab", 1.0)


def test_key_is_listed_as_it_was_added(store):
    limits = KeyLimits(max_sessions=1, steps_per_second=100, max_batch=3, max_steps=4, max_streams=5)
    keys = [
        key(1.0, tenant="team-a", scopes=frozenset(["infer"]), limits=limits, name="Zoë's"),
        key(2.0, limits=KeyLimits(steps_per_second=0.5)),
        key(3.0, revoked=4.0),
    ]
    for one in keys:
        store.add(one)
    assert list(store.list()) == keys


def test_keys_are_listed_in_order_of_creation(store):
    keys = [key(created) for created in (3.0, 1.0, 2.0)]
    for one in keys:
        store.add(one)
    assert [found.created for found in store.list()] == [1.0, 2.0, 3.0]


def test_taken_id_is_refused_and_changes_nothing(store):
    first = key()
    store.add(first)
    with pytest.raises(StoreFailed, match=f"there is a key {first.id} already"):
        store.add(key(id=first.id, scopes=frozenset(SCOPES)))
    assert list(store.list()) == [first]


def test_revoked_key_stays_revoked_since_the_first_time(store):
    keys = [key(1.0), key(2.0)]
    for one in keys:
        store.add(one)
    assert store.revoke(keys[0].id, 10)
    assert store.revoke(keys[0].id, 20)
    assert list(store.list()) == [replace(keys[0], revoked=10.0), keys[1]]
    with pytest.raises(StoreFailed):
        store.add(keys[0])


def test_unknown_key_cannot_be_revoked(store):
    store.add(key())
    before = list(store.list())
    assert not store.revoke("", 1.0)
    assert not store.revoke("%", 1.0)
    assert list(store.list()) == before


def test_threads_add_and_revoke_without_loss(store):
    keys = [key(float(number)) for number in range(24)]

    def add_and_revoke(one: Key) -> int:
        store.add(one)
        store.revoke(one.id, one.created + 0.5)
        return len(store.list())

    with ThreadPoolExecutor(4) as threads:
        assert max(threads.map(add_and_revoke, keys)) == 24
    assert list(store.list()) == [replace(one, revoked=one.created + 0.5) for one in keys]
