import pytest

from tests.postgres import database_url as database_url_  # noqa: F401

T = "CREATE TABLE servers (id text PRIMARY KEY, name text, place text, lasts interval, renewed timestamptz, started timestamptz)"


@pytest.fixture
def database_url(database_url_):
    from app.stores.postgres.database import Database

    d = Database(database_url_)
    d.run(T)
    d.close()
    return database_url_
