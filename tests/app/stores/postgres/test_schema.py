"""The tables of the store in PostgreSQL, as several servers make them at once."""

from concurrent.futures import ThreadPoolExecutor

from app.stores.postgres import Database, PostgresStore
from app.stores.postgres.schema import MIGRATIONS, version

SERVERS = 6


def test_tables_are_made_once_by_servers_that_start_at_once(database_url):
    with ThreadPoolExecutor(SERVERS) as pool:
        stores = list(pool.map(lambda _: PostgresStore(database_url), range(SERVERS)))
    for store in stores:
        store.close()
    database = Database(database_url)
    assert version(database) == len(MIGRATIONS)
    database.close()
