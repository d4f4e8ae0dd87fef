"""What the store in PostgreSQL adds to the laws of all stores: servers that share it, and a database that fails."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import SessionMoved, StepNotKept, StoreFailed
from app.stores.base import NOBODY, Entry, Held, NewSession, Record, Retention
from app.stores.postgres import PostgresStore, schema
from app.stores.postgres.database import Database
from benchmarks.postgres import Postgres
from tests.app.stores.test_stores import ALL, found, inputs, new, opened, past, problems, step
from tests.postgres import started
from tests.waiting import until

WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"


def claimed(store: PostgresStore, owner: str, name: str = "a") -> Record:
    record = store.claim(name, owner)
    assert isinstance(record, Record)
    return record


# The fence


def test_steps_of_a_fenced_server_are_refused_and_counted(servers):
    store, refused = servers.store("me"), []
    store._log.on_refused = refused.append
    tapes = [opened(store, name).tape for name in "ab"]
    step(store, "a", 1)
    servers.run("DELETE FROM servers")
    assert store.append([Entry(tape, 1, at, 1, inputs(2)) for tape, at in zip(tapes, (1, 0), strict=True)]) == {0, 1}
    assert (past(store), refused) == ([1], [2])


def test_fence_waits_for_appends_that_the_next_owner_then_sees(servers):
    store, other = servers.store("me"), servers.store("them")
    tape = opened(store).tape
    fence = threading.Thread(target=servers.run, args=("DELETE FROM servers WHERE id = 'me'",))
    with store._database.transaction():
        assert store._log.append([Entry(tape, 1, 0, 1, inputs(1))]) == set()
        fence.start()
        until(lambda: servers.run(WAITS, "DELETE%")[0][0])
        assert isinstance(other.claim("a", "them"), Held)
    fence.join(30)
    assert (claimed(other, "them").step, past(other)) == (1, [1])


def test_append_that_waits_for_the_fence_is_refused(servers, connect):
    store, other = servers.store("me"), connect(servers.url)
    tape = opened(store).tape
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.run("DELETE FROM servers")
            append = pool.submit(store.append, [Entry(tape, 1, 0, 1, inputs(1))])
            until(lambda: servers.run(WAITS, "%INSERT INTO log%")[0][0])
        assert append.result(30) == {0}
    assert past(store) == []


@pytest.mark.parametrize("fences", ["renewed = now() - interval '1 hour'", "lasts = '-1 s'"])
def test_session_is_taken_over_where_the_lease_ran_out(servers, fences):
    store, other = servers.store("me"), servers.store("them")
    mine = opened(store)
    step(store, "a", 1, seq=4)
    assert other.claim("a", "them") == Held("me", "server me")
    servers.run(f"UPDATE servers SET {fences} WHERE id = 'me'")
    ended: list[int] = []
    other._sessions.on_takeover = lambda: ended.append(1)
    theirs = claimed(other, "them")
    assert ended == [1]
    assert (theirs.epoch, theirs.step, theirs.seq) == (mine.epoch + 1, 1, 4)
    assert store.append([Entry(mine.tape, mine.epoch, 1, 1, inputs(2))]) == {0}
    assert (step(other, "a", 3).step, past(other)) == (2, [1, 3])


def test_volatile_session_of_a_server_that_died_is_lost(servers):
    store, other = servers.store("me"), servers.store("them")
    for name in "ab":
        opened(store, name)
        store.mark_volatile(name)
    store.release("b", "me")
    servers.run("DELETE FROM servers WHERE id = 'me'")
    assert (other.claim("a", "them"), other.find("a"), claimed(other, "them", "b").volatile) == (
        "lost in a restart",
        "lost in a restart",
        True,
    )


def test_free_session_is_claimed_by_one_of_two_servers(servers):
    stores = {owner: servers.store(owner) for owner in ("me", "them")}
    for number in range(20):
        opened(stores["me"], str(number))
        stores["me"].release(str(number), "me")
    barrier = threading.Barrier(2, timeout=30)

    def claim(owner: str, name: str) -> object:
        barrier.wait()
        return stores[owner].claim(name, owner)

    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            answers = [*pool.map(claim, stores, [str(number)] * 2)]
            assert {type(answer) for answer in answers} == {Record, Held}


def test_families_are_locked_in_one_order_whatever_the_entries(servers, connect):
    store, other = servers.store("me"), connect(servers.url)
    for name in "ab":
        opened(store, name)
        step(store, name, 1, 2)
    at = [store.move(name, 1, None) for name in "ab"]
    entries = [Entry(each.next_tape, each.epoch, 1, 1, inputs(3), None, each.tape) for each in at]
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.run("SELECT pg_advisory_xact_lock($1)", at[0].tape)
            append = pool.submit(store.append, entries[::-1])
            until(lambda: servers.run(WAITS, "%pg_advisory%")[0][0])
            assert other.row("SELECT pg_try_advisory_xact_lock($1)", at[1].tape) == (True,)
        assert append.result(30) == set()
    assert [past(store, name) for name in "ab"] == [[1, 3]] * 2


def test_uses_are_written_in_one_order_whatever_was_used_first(servers, connect):
    store, other = servers.store("me"), connect(servers.url)
    for name in "ab":
        opened(store, name)
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.run("SELECT FROM sessions WHERE id = 'a' FOR UPDATE")
            touch = pool.submit(store.touch, [("b", 1001.0), ("a", 1002.0)])
            until(lambda: servers.run(WAITS, "%UPDATE sessions%")[0][0])
            other.run("SELECT FROM sessions WHERE id = 'b' FOR UPDATE NOWAIT")
        touch.result(30)
    assert [found(store, name).used for name in "ab"] == [1002.0, 1001.0]


CHANGES: dict[str, Callable[[PostgresStore, Record], object]] = {
    "move": lambda store, at: store.move("a", 0, None),
    "mark": lambda store, at: store.mark_volatile("a"),
    "end": lambda store, at: store.end("a", "deleted", 1001.0),
    "park": lambda store, at: store.park("a", 2, None, b"state", 1001.0),
    "passing": lambda store, at: store.snapshot(at.tape, 1, b"state", 1001.0, passing=True),
    "lasting": lambda store, at: store.snapshot(at.tape, 1, b"state", 1001.0, passing=False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_of_a_session_that_another_server_has_is_refused(change, servers):
    store, other = servers.store("me"), servers.store("them")
    record = opened(store)
    step(store, "a", 1)
    store.release("a", "me")
    theirs = claimed(other, "them")
    with pytest.raises(SessionMoved):
        CHANGES[change](store, record)
    assert found(other) == theirs
    assert CHANGES[change](other, theirs) is not False


def test_idle_sessions_of_other_servers_are_left_to_them(servers):
    store, other = servers.store("me"), servers.store("them")
    for name in "abcd":
        store.create(new(name), "me" if name < "c" else "them")
    other.release("d", "them")
    assert (sorted(store.idle_since(1000.0, 9)), sorted(other.idle_since(1000.0, 9))) == (["a", "b", "d"], ["c", "d"])
    assert store.end("d", "expired", 1001.0)
    servers.run("DELETE FROM servers WHERE id = 'them'")
    assert sorted(store.idle_since(1000.0, 9)) == ["a", "b", "c"]


def test_fork_of_steps_that_a_takeover_took_back_is_refused(servers):
    store, other = servers.store("me"), servers.store("them")
    parent = opened(store)
    for value in (1, 2, 3):
        step(store, "a", value)
    servers.run("DELETE FROM servers WHERE id = 'me'")
    claimed(other, "them")
    other.move("a", 1, None)
    step(other, "a", 4)
    with pytest.raises(StepNotKept):
        store.create(NewSession("fork", "dnc-copy", "print", 32, 1000.0, base=3, parent=parent.tape), "")


def test_idle_sessions_of_a_dead_server_are_those_of_all(servers):
    store, other = servers.store("me"), servers.store("them")
    opened(store)
    assert other.idle_since(1000.0, 10) == []
    servers.run("UPDATE servers SET lasts = '-1 s' WHERE id = 'me'")
    assert other.idle_since(1000.0, 10) == ["a"]
    claimed(other, "them")
    assert other.end("a", "expired", 3000.0)


def test_sessions_are_counted_over_servers_and_after_they_are_gone(servers):
    store, other = servers.store("me"), servers.store("them")
    opened(store), other.create(new("lab/b"), NOBODY), other.create(new("lab/c"), "them")
    counted = "SELECT server, sum(sessions)::int FROM counts GROUP BY server ORDER BY server"
    assert servers.run(counted) == [("me", 1), ("them", 2)]
    servers.run("DELETE FROM servers WHERE id = 'them'")
    store.tidy(1001.0)
    assert servers.run(counted) == [("", 2), ("me", 1)]
    assert store.end("lab/b", "deleted", 1002.0)
    assert (store.counts(), store.tenants()) == ({"dnc-copy": 2}, {"default": 1, "lab": 1})


def test_time_passes_in_the_store_while_another_server_lives(servers):
    store, _ = servers.store("me"), servers.store("them")
    store.tidy(5000.0)
    servers.run("UPDATE clock SET at = now() - interval '40 s'")
    assert 5040.0 <= store.latest_time() < 5100.0
    servers.run("DELETE FROM servers WHERE id = 'them'")
    assert store.latest_time() == 5000.0


# Round trips, and the connection


def test_session_is_claimed_and_restored_in_two_statements(servers, monkeypatch):
    store, other = servers.store("me"), servers.store("them")
    opened(store)
    step(store, "a", 1, 2)
    store.snapshot(found(store).tape, 1, b"state", 1000.0, passing=True)
    store.release("a", "me")
    asked = []
    for name in ("run", "row", "rows", "run_binary"):
        carry_out = getattr(Database, name)
        monkeypatch.setattr(
            Database, name, lambda self, *more, carry_out=carry_out: asked.append(more) or carry_out(self, *more)
        )
    record = claimed(other, "them")
    assert other.before(record.tape, 2) == (1, b"state")
    assert [steps.inputs for steps in other.steps(record.tape, 1, 2, ALL)] == [inputs(2)]
    assert len(asked) == 2
    assert other.append([Entry(record.tape, record.epoch, 2, 1, inputs(3))]) == set()
    assert len(asked) == 3


def test_steps_read_ahead_are_forgotten_when_the_tape_is_gone(servers):
    store = servers.store("me")
    tape = opened(store).tape
    step(store, "a", 1)
    assert store.before(tape, 1) is None
    store.end("a", "deleted", 1001.0)
    assert store.steps(tape, 0, 1, ALL) == []


def test_acknowledged_steps_outlive_a_kill_of_the_database(own_servers):
    store, server = own_servers.store("me"), own_servers.postgres
    tape, written = opened(store).tape, [0]

    def append() -> None:
        with suppress(StoreFailed):
            while store.append([Entry(tape, 1, written[0], 1, inputs(written[0]), written[0])]) == set():
                written[0] += 1

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(append)
        until(lambda: written[0] > 50)
        server.kill()
        under_way.result(30)
    server.start()
    record = claimed(store, "me")
    assert written[0] <= record.step <= written[0] + 1
    assert past(store) == list(range(record.step))
    assert (step(store, "a", record.step).step, problems(store)) == (record.step + 1, [])


def test_append_whose_connection_is_lost_leaves_each_step_once(servers, connect):
    """The database may be at work on it when the connection is there again."""
    store, other = servers.store("me"), connect(servers.url)
    tape = opened(store).tape
    with other.transaction():
        other.run("LOCK TABLE log IN SHARE MODE")
        threading.Timer(0.1, store.interrupt).start()
        with pytest.raises(StoreFailed, match="may or may not have been applied"):
            store.append([Entry(tape, 1, 0, 1, inputs(1))])
        assert found(store).step == 0
    assert (step(store, "a", 2).step, past(store)) == (1, [2])


# A database that fails


def test_full_database_refuses_steps_until_there_is_room(servers):
    store = servers.store("me")
    tape = opened(store).tape
    servers.run(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
    )
    servers.run("CREATE TRIGGER full_disk BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION fill()")
    with pytest.raises(StoreFailed, match=r"could not extend file.*; make room on the disk of the database"):
        store.append([Entry(tape, 1, 0, 1, inputs(1))])
    servers.run("DROP TRIGGER full_disk ON log")
    assert (store.append([Entry(tape, 1, 0, 1, inputs(1))]), past(store)) == (set(), [1])


def test_read_only_database_is_not_ready_until_it_is_writable(own_servers):
    store, run = own_servers.store("me"), own_servers.postgres.run
    tape = opened(store).tape
    run("ALTER SYSTEM SET default_transaction_read_only = on")
    run("SELECT pg_reload_conf()")
    until(lambda: store._database.row("SHOW transaction_read_only") == ("on",))
    for refused in (store.probe, lambda: store.append([Entry(tape, 1, 0, 1, inputs(1))])):
        with pytest.raises(StoreFailed, match="read-only: name its primary"):
            refused()
    run("ALTER SYSTEM RESET default_transaction_read_only")
    run("SELECT pg_reload_conf()")
    until(lambda: store._database.row("SHOW transaction_read_only") == ("off",))
    store.probe()
    assert (step(store, "a", 1).step, store._database.connections) == (1, 1)


@pytest.fixture
def small_postgres() -> Iterator[Postgres]:
    yield from started("max_connections=3", "superuser_reserved_connections=0")


def test_database_without_connections_left_is_refused_until_there_are(small_postgres, connect):
    others = [connect(small_postgres.url()) for _ in range(3)]
    for other in others:
        other.run("SELECT 1")
    with pytest.raises(StoreFailed, match="max_connections"):
        PostgresStore(small_postgres.url())
    others[0].close()
    until(lambda: others[1].row("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == (2,))
    PostgresStore(small_postgres.url()).close()


def test_missing_partition_is_made_by_the_append_that_needs_it(servers):
    store = servers.store("me")
    tape = opened(store).tape
    for (number,) in servers.run("DELETE FROM partitions RETURNING number"):
        servers.run(f"DROP TABLE log_{number}")
    assert store.append([Entry(tape, 1, 0, 1, inputs(1))]) == set()
    assert (past(store), len(servers.run("SELECT 1 FROM partitions")) > 0) == ([1], True)


def test_partition_is_made_where_the_clock_was_set_back(servers):
    store = servers.store("me")
    tape = opened(store).tape
    later = datetime.now(UTC) + timedelta(days=90)
    for (number,) in servers.run("DELETE FROM partitions RETURNING number"):
        servers.run(f"DROP TABLE log_{number}")
    store._partitions._make(7, later, later + timedelta(days=90))
    assert (store.append([Entry(tape, 1, 0, 1, inputs(1))]), past(store)) == (set(), [1])


def test_step_cannot_be_written_twice(servers):
    store = servers.store("me")
    tape = opened(store).tape
    step(store, "a", 1)
    store._log.remember(tape, 1, 0, None)
    with pytest.raises(StoreFailed, match="unique"):
        store.append([Entry(tape, 1, 0, 1, inputs(2))])
    assert (store.append([Entry(tape, 1, 0, 1, inputs(2))]), past(store)) == ({0}, [1])


# Partitions


def age(servers, store: PostgresStore) -> None:
    """Have all of the log be older than its retention: in a partition of a year ago."""
    begins = datetime.now(UTC) - timedelta(days=365)
    store._partitions._make(1000, begins, begins + timedelta(days=1))
    servers.run("UPDATE log SET written = %s", begins)


def test_old_partition_is_dropped_after_needed_steps_were_moved(servers, monkeypatch):
    monkeypatch.setattr("app.stores.postgres.partitions.MOVED_AT_ONCE", 2)
    store = servers.store("me", Retention(ALL, 3600.0))
    for name in "abc":
        opened(store, name)
        for value in (1, 2, 3):
            step(store, name, value)
    store.create(NewSession("fork", "dnc-copy", "print", 32, 1000.0, base=2, parent=found(store, "b").tape), "me")
    store.snapshot(found(store, "c").tape, 2, b"state", 0.0, passing=False)
    store.snapshot(found(store, "c").tape, 3, b"state", 5000.0, passing=False)
    store.end("a", "deleted", 1001.0)
    store.end("b", "deleted", 1001.0)
    age(servers, store)
    assert servers.run("SELECT count(*) FROM log") == [(9,)]
    while store.tidy(6000.0):
        pass
    assert servers.run("SELECT count(*) FROM log_1") == [(3,)]
    assert servers.run("SELECT to_regclass('log_1000')") == [(None,)]
    assert (past(store, "fork"), past(store, "c", 2), problems(store)) == ([1, 2], [3], [])
    assert step(store, "c", 4).step == 4


def test_old_partition_stays_while_others_read_the_log(servers, connect):
    store, other = servers.store("me", Retention(ALL, 3600.0)), connect(servers.url)
    age(servers, store)
    with other.transaction():
        other.run("LOCK TABLE log IN ACCESS SHARE MODE")
        assert not store.tidy(1000.0)
        assert servers.run("SELECT to_regclass('log_1000')::text") == [("log_1000",)]
    assert (store.tidy(1001.0), servers.run("SELECT to_regclass('log_1000')")) == (True, [(None,)])


def test_step_committed_while_a_partition_is_dropped_is_kept(servers, connect):
    store, other = servers.store("me", Retention(ALL, 1e-6)), connect(servers.url)
    tape = opened(store).tape
    (first,) = servers.run("SELECT min(begins) FROM partitions")[0]
    store._partitions._make(1000, first - timedelta(hours=1), first)
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.run(f"INSERT INTO log VALUES ({tape}, 0, NULL, NULL, now() - interval '70 s', 1, 1, $1)", inputs(1))
            tidied = pool.submit(store.tidy, 1000.0)
            time.sleep(0.2)
        tidied.result(30)
    assert past(store) == [1]


def test_partitions_are_made_ahead_of_time_and_by_one_server(servers):
    stores = [servers.store(owner, Retention(ALL, 480.0)) for owner in ("me", "them")]
    servers.run("DROP TABLE log_2")
    servers.run("DELETE FROM partitions WHERE number = 2")
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(lambda store: store.tidy(1000.0), stores)] == [False, False]
    assert servers.run("SELECT number FROM partitions ORDER BY number") == [(1,), (2,)]


# Versions, and damage


@pytest.mark.parametrize(
    ("version", "refusal"), [(0, "schema 0 .*engram store migrate"), (99, "schema 99 is newer than this version's")]
)
def test_tables_of_another_version_are_refused(version, refusal, servers, monkeypatch):
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, lambda database: None])
    store = servers.store("me")
    servers.run("UPDATE meta SET version = %s", version or 1)
    for refused in (store.probe, lambda: servers.store("them")):
        with pytest.raises(StoreFailed, match=refusal.replace("schema 0", "schema 1")):
            refused()


def test_earlier_tables_are_migrated_whole_or_not_at_all(servers, connect, monkeypatch):
    servers.store("me")
    database, earlier = connect(servers.url), list(schema.MIGRATIONS)
    added = "ALTER TABLE sessions ADD COLUMN added int8"
    for statements, version in (([added, "SELECT nothing"], len(earlier)), ([added], len(earlier) + 1)):
        monkeypatch.setattr(
            schema, "MIGRATIONS", [*earlier, lambda database, run=statements: [database.run(one) for one in run]]
        )
        with suppress(StoreFailed):
            schema.migrate(database)
        assert schema.version(database) == version
    schema.migrate(database)
    assert servers.run("SELECT count(added) FROM sessions") == [(0,)]


def test_sessions_of_the_first_version_force_no_gates(servers, connect, monkeypatch):
    first, every = schema.MIGRATIONS[:1], list(schema.MIGRATIONS)
    database = connect(servers.url)
    monkeypatch.setattr(schema, "MIGRATIONS", first)
    schema.migrate(database)
    database.run("INSERT INTO tapes VALUES (1, 1, NULL, 0, 1, 0, 0, 0, NULL, NULL, 1, '')")
    database.run("INSERT INTO sessions VALUES ('a', '', 'm', 'f', 8, 1.0, 1.0, NULL, NULL, NULL, NULL, 1, false)")
    monkeypatch.setattr(schema, "MIGRATIONS", every)
    schema.migrate(database)
    assert (schema.version(database), servers.store("me").find("a").force) == (2, None)


def test_epoch_of_any_size_is_logged(servers):
    store = servers.store("me")
    opened(store)
    servers.run("UPDATE tapes SET epoch = %s, owner = ''", 2**40)
    assert claimed(store, "me").epoch == 2**40 + 1
    step(store, "a", 1)
    assert servers.run("SELECT epoch FROM log") == [(2**40 + 1,)]


def test_gaps_doubles_and_epochs_that_shrink_are_found_by_check(servers):
    store = servers.store("me")
    tapes = [opened(store, name).tape for name in "abc"]
    for name in "abc":
        for value in (1, 2, 3):
            step(store, name, value)
    servers.run("DELETE FROM log WHERE tape = %s AND step = 1", tapes[0])
    servers.run("UPDATE log SET epoch = 7 WHERE tape = %s AND step = 1", tapes[1])
    servers.run("UPDATE log SET steps = 2 WHERE tape = %s AND step = 1", tapes[2])
    assert problems(store) == [
        f"session a: tape {tapes[0]}: the log goes on at step 2 after step 1",
        f"session b: tape {tapes[1]}: the epoch shrinks from 7 to 1 at step 2",
        f"session c: tape {tapes[2]}: the log has steps from 2 on twice, up to step 3",
    ]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_texts_are_the_same_in_databases_of_other_encodings(encoding, postgres):
    name = f"in_{encoding.lower()}"
    postgres.run(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    store = PostgresStore(postgres.url(database=name))
    try:
        record = store.create(replace(new("a", key="clé"), model="modèle"), NOBODY)
        assert (store.find("a"), store.created("clé")) == (record, ("a", b""))
        assert store.counts() == {"modèle": 1}
    finally:
        store.close()
        postgres.run(f"DROP DATABASE {name}")
