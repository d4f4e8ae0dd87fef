import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import StoreFailed
from app.store_url import shown
from app.stores.postgres.database import Database, retried, state
from tests.waiting import until

SECRET = "s3cret/word"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me@host/name", "postgresql://me@host/name"),
        ("postgresql://me:s3cret@host:5432/name?sslmode=require", "postgresql://me@host:5432/name"),
        ("postgresql://me:a/b@host/name", "postgresql://me@host/name"),
        ("postgresql://me:a@b@host/name", "postgresql://me@host/name"),
        ("postgresql://me:a?b@host/name", "postgresql://..."),
        ("postgresql://host/name?password=s3cret", "postgresql://host/name"),
        ("postgresql://host/name?user=me@there&password=s3cret", "postgresql://..."),
    ],
)
def test_shown_url_has_no_password(url, expected):
    assert shown(url) == expected


@pytest.mark.parametrize("url", ["postgresql://me:12/a@host/b", "postgresql://me:a/b@host/c", "postgresql://u:a@b@c/d"])
def test_password_that_is_not_encoded_is_refused_and_not_shown(url):
    with pytest.raises(StoreFailed, match="%40") as refusal:
        Database(url)
    assert (refusal.value.detail.split(": ")[0], refusal.value.__cause__) == (shown(url), None)


def test_wrong_password_is_refused_and_not_shown(postgres, connect):
    postgres.run("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    database = connect(postgres.url().replace("engram@", "guarded:s3cret%2Fword@"))
    with pytest.raises(StoreFailed, match=r"password authentication failed.*PGPASSWORD") as refusal:
        database.run("SELECT 1")
    assert SECRET not in f"{refusal.value!r} {refusal.value.__cause__!r}"
    connect(postgres.url().replace("engram@", "guarded:right@")).run("SELECT 1")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"database": "nothing"}, "does not exist; make the database"),
        ({"schema": "nothing"}, "no schema has been selected.*CREATE SCHEMA"),
    ],
)
def test_place_that_is_not_there_is_refused_with_a_remedy(postgres, change, expected, connect):
    with pytest.raises(StoreFailed, match=expected):
        connect(postgres.url(**change)).run("CREATE TABLE made (number int8)")


def test_database_that_cannot_be_reached_is_refused_by_name(connect):
    with pytest.raises(StoreFailed, match=r"^postgresql://me@127.0.0.1:1/name: .*is the database there"):
        connect("postgresql://me:pw@127.0.0.1:1/name").run("SELECT 1")


def test_interrupted_call_fails_and_the_next_one_connects_again(database_url, connect):
    database = connect(database_url)
    database.run("SELECT 1")
    threading.Timer(0.1, database.interrupt).start()
    with pytest.raises(StoreFailed, match="may or may not have been applied"):
        database.run("SELECT pg_sleep($1::float8)", 60.0)
    assert (database.row("SELECT 5"), database.connections) == ((5,), 2)


def test_connection_that_hangs_as_it_is_made_can_be_interrupted(postgres, database_url, connect, monkeypatch):
    monkeypatch.setattr("app.stores.postgres.database.CONFIGURE", "SELECT pg_sleep(5)")
    database = connect(database_url)
    sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(5)' AND state = 'active'"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(database.row, "SELECT 1")
        until(lambda: postgres.run(sleeps) == [(1,)])
        database.interrupt()
        with pytest.raises(StoreFailed):
            asked.result(30)
    monkeypatch.undo()
    assert database.row("SELECT 1") == (1,)


def test_statement_of_a_lost_connection_is_ended_before_the_next(database_url, connect):
    """Else it could be carried out later, behind what was read since."""
    first, other = connect(database_url), connect(database_url)
    first.run("CREATE TABLE made (number int8)")
    with other.transaction():
        other.run("LOCK TABLE made")
        threading.Timer(0.1, first.interrupt).start()
        with pytest.raises(StoreFailed):
            first.run("INSERT INTO made VALUES ($1)", 1)
        assert first.row("SELECT 5") == (5,)
    time.sleep(0.1)
    assert first.row("SELECT count(*) FROM made") == (0,)


def test_transaction_whose_connection_is_lost_is_not_continued(database_url, connect):
    database, refusals = connect(database_url), []

    def lose():
        with database.transaction():
            database.run("INSERT INTO made VALUES ($1)", 1)
            database.interrupt()
            for number in (2, 3):
                try:
                    database.run("INSERT INTO made VALUES ($1)", number)
                except StoreFailed as error:
                    refusals.append(error.detail)

    database.run("CREATE TABLE made (number int8)")
    with pytest.raises(StoreFailed, match="was lost within a transaction"):
        lose()
    assert (len(refusals), database.row("SELECT count(*) FROM made")) == (2, (0,))


def test_call_that_the_database_undid_begins_again(database_url, connect):
    """Two transactions each wait for the row of the other: the database undoes one."""
    first, second = connect(database_url), connect(database_url)
    first.run("CREATE TABLE made (number int8)")
    first.run("INSERT INTO made VALUES (1), (2)")
    barrier, undone = threading.Barrier(2, timeout=30), []

    def change(database, numbers):
        try:
            with database.transaction():
                database.run("UPDATE made SET number = number WHERE number = $1", numbers[0])
                if not undone:
                    barrier.wait()
                database.run("UPDATE made SET number = number WHERE number = $1", numbers[1])
        except StoreFailed as error:
            undone.append(state(error))
            raise

    threads = [threading.Thread(target=retried(change), args=pair) for pair in ((first, (1, 2)), (second, (2, 1)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert undone == ["40P01"]
