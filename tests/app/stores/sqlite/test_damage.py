"""One value that changed in a session's rows: no answer is wrong, and `engram check` finds it."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.backends.fake import FakeBackend
from app.errors import SessionDamaged, SessionGone, SessionNotFound
from app.stores.base import Entry, Retention
from app.stores.sqlite import FILE, SqliteStore
from app.stores.sqlite.journal import _numbers
from app.stores.sqlite.rows import ENTRY, log_checksum
from app.tenants import DEFAULT
from tests.app.asynchronous import run
from tests.app.sessions.by_id import ById
from tests.app.sessions.test_past import recorded, total, values
from tests.app.sessions.test_sessions import service
from tests.app.stores.test_stores import alter, altered, found, inputs, opened, past, problems, step

COLUMNS = {
    "sessions": "id model fingerprint memory_size force opened used ended reason creation_key creation_digest owner "
    "tape unlogged checksum",
    "tapes": "number root parent base jump depth first stop head seq epoch checksum",
    "log": "tape step steps entries inputs checksum",
    "journal": "number heads tapes inputs checksum",
    "snapshots": "tape step taken passing checksum state",
    "clock": "number time checksum",
}
CELLS = [(table, column) for table, columns in COLUMNS.items() for column in columns.split()]
LEFT = {"stopped": ["sessions", "tapes", "log", "snapshots", "clock"], "killed": ["tapes", "log", "journal"]}
"""How a server ended, and the tables in which something is changed then."""

KEYS = {("sessions", "id")}
"""By these a row is found: without it, it is as if it had never been there."""


class Kept(NamedTuple):
    """A store, and what each session in it is: its step, the steps that are kept, and the sum of inputs at each."""

    directory: Path
    sessions: dict[str, tuple[int, dict[int, float]]]
    lines: dict[str, set[int]]
    """Of each session, the tapes that it is on."""


async def answers(sessions: ById, name: str) -> tuple[int, dict[int, float]]:
    """Return the step of a session, and the sum at each step."""
    info = await sessions.info(name)
    states = {at: await total(sessions, name, at) for at in range(info.oldest, info.latest + 1)}
    states |= {at: output for at, _, output in await recorded(sessions, name)}
    assert await total(sessions, name) == states[info.step]
    return info.step, states


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kept]:
    """A session with snapshots, its fork, that one's fork, which was rewound, one restored, another, and one ended.

    As a server that is stopped leaves them, and one that is killed, with a part of the steps in the journal.
    """
    directory, killed = tmp_path_factory.mktemp("kept"), tmp_path_factory.mktemp("killed") / "kept"
    known: dict[str, tuple[int, dict[int, float]]] = {}

    async def make() -> None:
        async with service(store=SqliteStore(directory), opened=9) as sessions:
            first = (await sessions.open("fake", key="key")).id
            for number in range(3):
                await sessions.step_frame(first, values(*range(20 * number, 20 * number + 20)), (), number)
                if number == 1:
                    await sessions.writer.call(lambda store: store._fold_all())  # type: ignore[attr-defined]
            fork = (await sessions.fork(first, 30)).id
            await sessions.step(fork, values(5))
            forks_fork = (await sessions.fork(fork)).id
            await sessions.step(forks_fork, values(6, 7))
            await sessions.rewind(forks_fork, 25)
            restored = (await sessions.open_from(await sessions.snapshot(first, 10))).id
            for name in (restored, (other := (await sessions.open("fake")).id)):
                await sessions.step(name, values(1))
            await sessions.delete((await sessions.open("fake")).id)
            known.update({name: await answers(sessions, name) for name in (first, fork, forks_fork, restored, other)})
            shutil.copytree(directory, killed)

    run(make())
    return {end: Kept(path, known, lines(path)) for end, path in (("stopped", directory), ("killed", killed))}


def lines(directory: Path) -> dict[str, set[int]]:
    with sqlite3.connect(directory / FILE) as database:
        parents = dict(database.execute("SELECT number, parent FROM tapes"))
        on = dict(database.execute("SELECT id, tape FROM sessions WHERE tape IS NOT NULL"))
    database.close()
    found: dict[str, set[int]] = {name: set() for name in on}
    for name, tape in on.items():
        while tape is not None:
            found[name].add(tape)
            tape = parents[tape]
    return found


def flipped(value: Any) -> Any:
    """Return something else of a kind that could lie there."""
    match value:
        case None:
            return 1
        case int():
            return value ^ 1
        case float():
            return value + 1e9
        case str():
            return f"{value}x"
    return bytes([value[0] ^ 1]) + value[1:]


def flip(directory: Path, table: str, column: str, row: int) -> tuple[tuple[Any, ...], Any] | None:
    """Change a value of a row; return the row as it was, and the new value; None where the table does not take it."""
    key = "number" if table in ("tapes", "journal", "clock") else "id" if table == "sessions" else "tape, step"
    with sqlite3.connect(directory / FILE) as database:
        before = database.execute(f"SELECT * FROM {table} ORDER BY {key} LIMIT 1 OFFSET ?", (row,)).fetchone()
        names = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
        value = flipped(before[names.index(column)])
        where = " AND ".join(f"{name} IS ?" for name in names)
        try:
            database.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value, *before))
        except sqlite3.IntegrityError:  # there is a row of this key
            return None
    database.close()
    return before, value


def harmed(kept: Kept, table: str, row: tuple[Any, ...], value: Any) -> set[str]:
    """Return the sessions that may notice a change in a row."""
    if table == "sessions":
        return {row[0]}
    if table == "clock":
        return set()
    changed = set(_numbers(row[2])) if table == "journal" else {row[0], value}
    return {name for name, tapes in kept.lines.items() if tapes & changed}


@pytest.mark.parametrize(
    ("end", "table", "column"),
    [(end, *cell) for end, tables in LEFT.items() for cell in CELLS if cell[0] in tables],
)
def test_changed_value_is_found_or_changes_no_answer(kept, tmp_path, end, table, column):
    kept = kept[end]
    with sqlite3.connect(kept.directory / FILE) as database:
        (rows,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    database.close()
    changed = 0
    for row in range(rows):
        directory = tmp_path / str(row)
        shutil.copytree(kept.directory, directory)
        flip_of = flip(directory, table, column, row)
        if flip_of is not None:
            changed += 1
            check_answers(directory, kept, harmed(kept, table, *flip_of), (table, column) in KEYS)
    assert changed


def check_answers(directory: Path, kept: Kept, may_be_harmed: set[str], is_key: bool) -> None:
    """See that every session says what is true, or that it is damaged, and that check finds what was changed."""
    store = SqliteStore(directory)
    assert problems_of(store)

    async def ask() -> None:
        async with service(store=store, opened=9, backend=FakeBackend(capacity=8)) as sessions:
            listed = {info.id: info.step for info in await sessions.all(None, 99)}
            for name, expected in kept.sessions.items():
                try:
                    assert await answers(sessions, name) == expected
                    assert listed.pop(name) == expected[0]
                    assert (await sessions.step(name, values(1))).result.outputs[0, 0] == expected[1][expected[0]] + 1
                except (SessionDamaged, SessionNotFound) as error:
                    assert name in may_be_harmed
                    assert isinstance(error, SessionDamaged) or is_key
                    listed.pop(name, None)
            assert not listed
            await sessions.expire_idle()

    run(ask())


def problems_of(store: SqliteStore) -> list[str]:
    return list(store.check(lambda *_: None))


def test_table_of_columns_is_whole(kept):
    with sqlite3.connect(kept["stopped"].directory / FILE) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {
            table: " ".join(name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")) for table in tables
        }
    database.close()
    assert columns == COLUMNS


# Gaps in the log, whose rows are whole


def whole_row(tape: int, at: int, steps: int, inputs: bytes) -> str:
    entry = ENTRY.pack(steps, -1, len(inputs))
    values = f"{tape}, {at}, {steps}, x'{entry.hex()}', x'{inputs.hex()}'"
    return f"INSERT OR REPLACE INTO log VALUES ({values}, {log_checksum(tape, at, steps, entry, inputs)})"


ONE, WIDE = values(1).tobytes(), bytes(12)

GAPS = {
    "the first row is missing": "DELETE FROM log WHERE tape = 1 AND step = 0",
    "a row in the middle is missing": "DELETE FROM log WHERE tape = 1 AND step = 2",
    "the last row is missing": "DELETE FROM log WHERE tape = 1 AND step = 4",
    "a row has steps of the last": whole_row(1, 3, 1, ONE),
    "a row has fewer steps than it should": whole_row(1, 2, 1, ONE),
    "a row has steps of the next": whole_row(1, 2, 3, 3 * ONE),
    "a row has steps of another width": whole_row(1, 2, 2, 2 * WIDE),
    "a row has no whole steps": whole_row(1, 2, 2, 2 * ONE + b"1"),
    "a row has no steps": whole_row(1, 2, 0, b""),
}


@pytest.mark.parametrize("at_once", [1, 2**18], ids=["row by row", "at once"])
@pytest.mark.parametrize("gap", GAPS)
def test_log_with_a_gap_gives_no_state(tmp_path, monkeypatch, gap, at_once, unpacked):
    monkeypatch.setattr("app.sessions.past.CHUNK_BYTES", at_once)

    async def test() -> None:
        async with service(store=SqliteStore(tmp_path)) as sessions:
            damaged, whole = [(await sessions.open("fake")).id for _ in range(2)]
            for name in (damaged, damaged, damaged, whole):
                await sessions.step(name, values(1, 2))
        altered(tmp_path, "DELETE FROM snapshots")
        altered(tmp_path, GAPS[gap])
        async with service(store=SqliteStore(tmp_path)) as sessions:
            for asked in (total(sessions, damaged), recorded(sessions, damaged), sessions.step(damaged, values(1))):
                with pytest.raises(SessionDamaged):
                    await asked
            assert await total(sessions, whole) == 3

    run(test())


@pytest.mark.parametrize("gap", [name for name in GAPS if name != "a row has steps of another width"])
def test_gap_is_found_by_check(tmp_path, gap, unpacked):
    store = SqliteStore(tmp_path)
    opened(store), opened(store, "b")
    for name in "aaab":
        step(store, name, 1, 2)
    store.close()
    altered(tmp_path, GAPS[gap])
    again = SqliteStore(tmp_path)
    assert [line.split(":")[0] for line in problems(again)] == ["session a"]
    again.close()


def test_steps_deleted_while_they_are_read_are_no_damage(tmp_path):
    store = SqliteStore(tmp_path, Retention(0, 1e9))
    tape = opened(store).tape
    step(store, "a", 1, 2)
    store.snapshot(tape, 2, b"two", 1000.0, passing=False)
    assert (store.steps(tape, 0, 2, 2**40), problems(store)) == ([], [])
    store.end("a", "deleted", 1001.0)
    assert (store.steps(tape, 2, 4, 2**40), store.before(tape, 2)) == ([], None)


# What must not be built on a damaged row


def test_damaged_tape_is_refused_and_its_mates_are_written(tmp_path):
    store = SqliteStore(tmp_path)
    for name in "ab":
        opened(store, name)
    alter(store, "UPDATE tapes SET stop = 1 WHERE number = 1")
    entries = [Entry(tape, 1, at, 1, inputs(1)) for tape, at in ((1, 0), (1, 1), (2, 0))]
    assert store.append(entries) == {0, 1}
    assert past(store, "b") == [1]
    store.close()


def test_step_goes_where_a_damaged_row_lies(store):
    """A row whose number of a tape changed may lie where another session goes on."""
    opened(store)
    alter(store, "INSERT INTO log VALUES (1, 0, 1, x'', x'00', 0)")
    step(store, "a", 5)
    assert past(store) == [5]


def test_past_is_not_cut_at_a_damaged_snapshot(tmp_path):
    store = SqliteStore(tmp_path, Retention(2, 1e9))
    tape = opened(store).tape
    for at in (1, 2, 3):
        step(store, "a", at)
        store.snapshot(tape, at, b"state", 1000.0, passing=False)
        alter(store, "UPDATE snapshots SET state = x'00' WHERE step = 2")
    step(store, "a", 4)
    store.snapshot(tape, 4, b"state", 1000.0, passing=False)
    assert (found(store).oldest, past(store, start=1)) == (1, [2, 3, 4])


@pytest.mark.parametrize("change", ["unlogged = 1", "ended = 5.0", "used = 1e300"])
def test_damaged_session_is_not_ended_and_ends_no_other(tmp_path, change):
    store = SqliteStore(tmp_path)
    for name in "ab":
        opened(store, name)
    store.close()
    altered(tmp_path, f"UPDATE sessions SET {change} WHERE id = 'a'")
    again = SqliteStore(tmp_path)
    assert (again.latest_time(), again.idle_since(2000.0, 9), found(again, "b").step) == (1000.0, ["b"], 0)
    with pytest.raises(SessionDamaged, match="the row of session a is damaged; engram check"):
        again.find("a")
    again.close()


@pytest.mark.parametrize("table", ["sessions", "tapes"])
def test_deleted_damaged_session_leaves_what_others_share(tmp_path, table):
    async def test() -> None:
        async with service(store=SqliteStore(tmp_path)) as sessions:
            damaged = (await sessions.open("fake")).id
            await sessions.step(damaged, values(1, 2, 3))
            fork = (await sessions.fork(damaged, 2)).id
        altered(tmp_path, f"UPDATE {table} SET checksum = 1 WHERE {'tape' if table == 'sessions' else 'number'} = 1")
        store = SqliteStore(tmp_path)
        async with service(store=store) as sessions:
            await sessions.delete(damaged)
            with pytest.raises(SessionGone):
                await sessions.info(damaged)
            if table == "sessions":
                assert await total(sessions, fork) == 3
                assert problems_of(store) == []

    run(test())


def test_damaged_session_is_logged_once_by_list(store, caplog):
    opened(store), opened(store, "b")
    alter(store, "UPDATE sessions SET model = CAST(x'ff' AS TEXT) WHERE id = 'a'")
    assert [[record.id for record in store.list(DEFAULT, None, 9)] for _ in range(3)] == [["b"]] * 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{store._database.path}: the row of session a is damaged; engram check lists what is damaged"
    ]


def test_missing_first_snapshot_is_refused_and_found_by_check(store):
    tape = opened(store, base=5, snapshot=b"state").tape
    alter(store, "DELETE FROM snapshots")
    with pytest.raises(SessionDamaged, match="no snapshot of tape 1 up to step 5 is whole"):
        store.before(tape, 5)
    assert problems(store) == ["session a: its snapshot at step 5 is missing, where its past begins"]


def test_check_finds_tapes_without_session_and_rows_without_tape(store):
    opened(store)
    step(store, "a", 1)
    alter(store, "DELETE FROM sessions")
    assert problems(store) == ["tape 1: no session reaches it"]
    alter(store, "DELETE FROM tapes")
    assert problems(store) == ["tape 1: there are rows of it in log, but no such tape"]
