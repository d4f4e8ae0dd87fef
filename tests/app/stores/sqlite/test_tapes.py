"""What tapes that begin with tapes cost when the line is long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.stores.base import NewSession
from app.stores.sqlite import SqliteStore
from app.tenants import DEFAULT
from tests.app.stores.test_stores import ALL, found, inputs, new, opened, past, rows, step

SHORT, LONG = 10, 400
"""Depths of forks of forks."""


def deepened(store: SqliteStore, depth: int) -> str:
    """Make a fork of a fork of ..., each of which takes a step of its own; return the last one's name."""
    opened(store, "0")
    step(store, "0", 0)
    for number in range(1, depth):
        at = found(store, str(number - 1))
        store.create(new(str(number), parent=at.tape, base=at.step), "me")
        step(store, str(number), number)
    store._fold_all()
    return str(depth - 1)


def instructions(store: SqliteStore, call: Callable[[], Any]) -> int:
    """Return how many instructions of SQLite's machine a call takes."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    store._database.connection.set_progress_handler(tick, 1)
    call()
    store._database.connection.set_progress_handler(None, 1)
    return count


def costs(directory: Path, depth: int) -> dict[str, int]:
    store = SqliteStore(directory / str(depth))
    name = deepened(store, depth)
    at = found(store, name)
    store.snapshot(at.tape, at.step, b"state", 1000.0, passing=True)
    calls: dict[str, Callable[[], Any]] = {
        "find": lambda: store.find(name),
        "list": lambda: store.list(DEFAULT, None, 5),
        "idle": lambda: store.idle_since(2000.0, 5),
        "claim": lambda: store.claim(name, "them"),
        "state now": lambda: store.before(at.tape, at.step),
        "fork": lambda: store.create(new("fork", parent=at.tape, base=at.step), "me"),
        "append": lambda: step(store, name, 1),
        "rewind": lambda: store.move(name, at.step - 1, None),
        "next tape": lambda: step(store, name, 2),
        "keep": lambda: store.snapshot(found(store, name).tape, at.step, b"state", 1000.0, passing=False),
        "end": lambda: store.end("fork", "deleted", 1001.0),
    }
    found_costs = {what: instructions(store, call) for what, call in calls.items()}
    store.close()
    return found_costs


def test_depth_of_forks_costs_nothing(tmp_path):
    short, long = costs(tmp_path, SHORT), costs(tmp_path, LONG)
    assert {what: count for what, count in long.items() if count > 1.02 * short[what]} == {}


def test_early_step_of_a_deep_fork_costs_few_reads(store):
    name = deepened(store, LONG)
    tape = found(store, name).tape
    near = instructions(store, lambda: store.steps(tape, LONG - 1, LONG, ALL))
    far = max(instructions(store, lambda at=at: store.steps(tape, at, at + 1, ALL)) for at in range(0, LONG - 1, 7))
    assert far < 2 * np.log2(LONG) * near
    assert past(store, name) == list(range(LONG))


def test_fork_of_an_early_step_begins_with_its_tape(store):
    name = deepened(store, LONG)
    for base in (1, 57, LONG):
        store.create(NewSession(f"at {base}", "m", "f", None, 0.0, base=base, parent=found(store, name).tape), "me")
        assert past(store, f"at {base}") == list(range(base))
    for number in range(LONG):
        store.end(str(number), "deleted", 1.0)
    assert [past(store, f"at {base}") for base in (1, 57)] == [list(range(1)), list(range(57))]
    assert (rows(store, "tapes"), inputs(0)) == (LONG + 3, store.steps(found(store, "at 1").tape, 0, 1, ALL)[0].inputs)
