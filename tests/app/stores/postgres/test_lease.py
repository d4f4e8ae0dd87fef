"""Leases in a real PostgreSQL: renewed while a server lives, lost when their row is gone, and asked for sessions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.errors import LeaseLost
from app.stores.postgres import Database, PostgresStore, ServerLease
from benchmarks.postgres import Postgres
from tests.app.asynchronous import run, until

SECONDS = 0.6
"""Of a lease."""


class Server:
    """A server that notes what it is asked for, and hands everything over."""

    def __init__(self, url: str, name: str, **more: Any) -> None:
        self.lease = ServerLease(Database(url, f"engram {name}"), SECONDS, name, f"{name}:8000", **more)
        self.asked: list[str] = []
        self.lost, self.answers = 0, True

    def on_asked(self, session: str, asker: str) -> None:
        self.asked.append(session)
        if self.answers:
            self.lease.answer(session, asker, session != "kept")

    def on_lost(self) -> None:
        self.lost += 1
        self.lease.rejoin()


@asynccontextmanager
async def servers(url: str, *names: str, **more: Any) -> AsyncIterator[list[Server]]:
    made = [Server(url, name, **more) for name in names]
    for server in made:
        server.lease.start(server.on_asked, server.on_lost)
    try:
        yield made
    finally:
        for server in made:
            await server.lease.close()


@pytest.fixture
def look(database_url: str) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    PostgresStore(database_url).close()  # which makes the tables
    database = Database(database_url)
    yield database.rows
    database.close()


def test_lease_is_renewed_and_ends_with_its_server(database_url, look):
    async def test() -> None:
        async with servers(database_url, "a") as [a]:
            [(server, name, place)] = look("SELECT id, name, place FROM servers")
            assert (server, name, place) == (a.lease.owner, "a", "a:8000")
            await asyncio.sleep(2 * SECONDS)
            assert a.lease.holds
            a.lease.check()
            assert 0 < a.lease.left <= SECONDS
        assert look("SELECT id FROM servers") == []
        with pytest.raises(LeaseLost):
            a.lease.check()

    run(test())


def test_lease_runs_out_while_its_machine_is_suspended(database_url, look, monkeypatch):
    assert look("SELECT count(*) FROM servers") == [(0,)]
    lease = ServerLease(Database(database_url), 60.0, "a")
    clock = time.clock_gettime
    asleep = {time.CLOCK_BOOTTIME: 61.0}
    assert lease.holds
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + asleep.get(which, 0.0))
    assert (lease.holds, lease.left) == (False, 0.0)
    with pytest.raises(LeaseLost):
        lease.check()
    run(lease.close())


def test_lease_whose_row_is_gone_is_lost_once(database_url, look):
    async def test() -> None:
        async with servers(database_url, "a") as [a]:
            former = a.lease.owner
            look("DELETE FROM servers RETURNING id")
            await until(lambda: a.lease.owner != former and a.lease.holds)
            assert a.lost == 1
            assert look("SELECT id FROM servers") == [(a.lease.owner,)]

    run(test())


def test_event_loop_that_stalls_does_not_lose_the_lease(database_url, look):
    async def test() -> None:
        async with servers(database_url, "a") as [a]:
            time.sleep(2.5 * SECONDS)  # noqa: ASYNC251
            assert a.lease.holds
            assert look("SELECT renewed + lasts > clock_timestamp() FROM servers") == [(True,)]

    run(test())


def test_owner_that_is_asked_answers(database_url, look):
    async def test() -> None:
        async with servers(database_url, "a", "b") as [a, b]:
            assert await a.lease.ask("given", b.lease.owner) is True
            assert await a.lease.ask("kept", b.lease.owner) is False
            b.answers = False
            assert await a.lease.ask("silent", b.lease.owner) is None
            assert await a.lease.ask("gone", "nobody") is None
            assert b.asked == ["given", "kept", "silent"]

    run(test())


def test_lease_runs_out_while_the_database_is_away(own_postgres: Postgres):
    async def test() -> None:
        with own_postgres.schema("leases") as url:
            broken = []
            PostgresStore(url).close()
            async with servers(url, "a", interrupt=lambda: broken.append(1)) as [a]:
                owner = a.lease.owner
                own_postgres.kill()
                await until(lambda: not a.lease.holds and broken)
                own_postgres.start()
                await until(lambda: a.lease.holds)
                assert (a.lease.owner, a.lost) == (owner, 0)
                assert await a.lease.ask("given", owner) is True

    run(test())


def test_rows_of_servers_that_died_long_ago_are_deleted(database_url, look):
    async def test() -> None:
        look(
            "INSERT INTO servers (id, name, place, lasts, renewed, started) VALUES ('x', 'x', '', '1 s', "
            "now() - interval '2 min', now()), ('y', 'y', '', '1 s', now() - interval '30 s', now()) RETURNING id"
        )
        async with servers(database_url, "a") as [a]:
            assert sorted(look("SELECT id FROM servers")) == sorted([("y",), (a.lease.owner,)])

    run(test())
