from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.stores.base import KEEP_ALL, Retention, Store
from app.stores.memory import MemoryStore
from app.stores.sqlite import SqliteStore, journal, tail
from tests.app.stores.postgres.one_process import OneProcess

Place = Callable[[], Path | str]
"""Returns the directory of an embedded store, or the URL of an empty database."""

TABLE: dict[str, Callable[[Place, Retention], Store]] = {
    "memory": lambda _, retention: MemoryStore(retention),
    "sqlite": lambda place, retention: SqliteStore(Path(place()), retention),
    "postgres": lambda place, retention: OneProcess(str(place()), retention),
}
"""How to make each store, from its place and the past that it keeps."""


@pytest.fixture(params=TABLE)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Retention], Store]]:
    """Make a store that keeps some of the past; it is closed after the test."""
    made: list[Store] = []

    def place() -> Path | str:
        return request.getfixturevalue("database_url") if request.param == "postgres" else tmp_path / f"data{len(made)}"

    def make(retention: Retention) -> Store:
        made.append(TABLE[request.param](place, retention))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[[Retention], Store]) -> Store:
    return make(KEEP_ALL)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "embedded")
    yield store
    store.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have few entries be many, so that they are folded a few at a time, and few in a row."""
    monkeypatch.setattr(tail, "ROW_BYTES", 20)
    for name, value in {
        "JOURNAL_BYTES": 1000,
        "OVERDUE_BYTES": 4000,
        "TAIL_ENTRIES": 6,
        "FOLD_ENTRIES": 9,
        "DELETE_BYTES": 900,
    }.items():
        monkeypatch.setattr(journal, name, value)
