import pytest

from app.stores.sqlite import SqliteStore


@pytest.fixture
def store(embedded: SqliteStore) -> SqliteStore:
    return embedded
