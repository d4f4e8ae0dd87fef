"""What the keys in a database add to the laws: they outlive its absence, and no row is overlooked."""

import asyncio

import pytest

from app.access.keyring import Keyring
from app.access.keys import new_key
from app.errors import StoreFailed
from app.stores.postgres import PostgresKeyStore, PostgresStore
from app.stores.postgres.database import Database


@pytest.fixture
def store(database_url):
    store = PostgresKeyStore(database_url)
    yield store
    store.close()


def test_keys_that_do_not_change_are_the_same_object(store):
    store.add(new_key()[0])
    listed = store.list()
    assert store.list() is listed
    store.add(new_key()[0])
    assert len(store.list()) == 2


def test_first_key_makes_the_tables_and_a_server_finds_it(store, database_url):
    assert not store.revoke("0123456789ab", 1.0)
    store.add(new_key()[0])
    PostgresStore(database_url).close()
    assert len(store.list()) == 1


def test_key_that_cannot_be_is_named(store, database_url):
    key, _ = new_key()
    store.add(key)
    database = Database(database_url)
    database.run("UPDATE keys SET tenant = 'Team A'")
    database.close()
    with pytest.raises(StoreFailed, match=f"key '{key.id}' is damaged: tenant 'Team A': .*: delete its row"):
        store.list()


@pytest.mark.slow
def test_database_that_is_gone_leaves_the_last_known_keys(own_postgres, caplog):
    store = PostgresKeyStore(own_postgres.url())
    key, token = new_key()
    store.add(key)
    keyring = Keyring(store)
    caller = keyring.caller(token.encode())
    own_postgres.kill()
    for _ in range(3):
        asyncio.run(keyring._refresh(keyring._store))
    assert keyring.caller(token.encode()) is caller
    assert [
        record.message.count("the keys cannot be read") for record in caplog.records if record.levelname == "ERROR"
    ] == [1]
    own_postgres.start()
    store.revoke(key.id, 2.0)
    asyncio.run(keyring._refresh(keyring._store))
    assert caller.ended is not None
    keyring.close()
