"""Tapes that begin with tapes: random lives beside lists of inputs."""

import random
from collections.abc import Callable
from typing import Generic, TypeVar

import pytest

from app.errors import StepNotKept
from app.stores.base import Retention, Store
from tests.app.stores.test_stores import ALL, found, new, opened, past, problems, rows, step


def state_of(values: list[float]) -> bytes:
    """Return what stands for the state of a session after these inputs."""
    return repr(values).encode()


S = TypeVar("S", bound=Store)


class Lives(Generic[S]):
    """Sessions of a store, and beside it what they should be: the inputs of each, and the step that it is at."""

    def __init__(self, seed: int, retention: Retention, store: S) -> None:
        self.draw = random.Random(seed)
        self.store = store
        self.keep_steps = retention.steps
        self.inputs: dict[str, list[float]] = {}
        self.at: dict[str, int] = {}
        self.furthest: dict[str, int] = {}
        """The last step that each, or what it was forked from, was ever at: so many steps before it are kept."""
        self.made = 0

    def act(self) -> None:
        """Do something random with a session, often one of the last, so that lines grow long."""
        names = list(self.inputs)
        if not names:
            self.create()
            return
        name = self.draw.choice(names[-self.draw.choice([1, 1, 3, 3, len(names)]) :])
        weights = {self.create: 1, self.step: 12, self.fork: 8, self.rewind: 4, self.snapshot: 6, self.end: 1}
        act: Callable[..., None] = self.draw.choices(list(weights), list(weights.values()))[0]
        act() if act == self.create else act(name)

    def add(self, name: str, values: list[float], since: str | None = None) -> None:
        self.inputs[name], self.at[name] = values, len(values)
        self.furthest[name] = max(len(values), self.furthest.get(since or name, 0))

    def create(self) -> None:
        self.made += 1
        opened(self.store, f"s{self.made}")
        self.add(f"s{self.made}", [])

    def step(self, name: str) -> None:
        values = [float(self.draw.randrange(100)) for _ in range(self.draw.choice([1, 1, 2, 5]))]
        step(self.store, name, *values)
        self.add(name, self.inputs[name][: self.at[name]] + values)

    def fork(self, name: str) -> None:
        record = found(self.store, name)
        base = self.draw.choice([record.step, self.draw.randint(0, record.latest)])
        self.made += 1
        session = new(f"s{self.made}", parent=record.tape, base=base)
        if 0 < base < record.oldest:
            with pytest.raises(StepNotKept):
                self.store.create(session, "me")
            return
        self.store.create(session, "me")
        self.add(session.id, self.inputs[name][:base], since=name)

    def rewind(self, name: str) -> None:
        record = found(self.store, name)
        self.at[name] = self.draw.choice([0, self.draw.randint(record.oldest, record.latest), record.latest])
        self.store.move(name, self.at[name], None)

    def snapshot(self, name: str) -> None:
        record = found(self.store, name)
        if record.step:
            state, passing = state_of(self.inputs[name][: record.step]), record.next_tape is not None
            self.store.snapshot(record.tape, record.step, state, 1000.0, passing=passing or self.draw.random() < 0.3)

    def end(self, name: str) -> None:
        assert self.store.end(name, "deleted", 1001.0)
        del self.inputs[name], self.at[name]

    def check(self, name: str) -> None:
        """See that a session is where it should be, and that every step that it says is kept can be gone back to."""
        record, values = found(self.store, name), self.inputs[name]
        assert (record.step, record.latest) == (self.at[name], len(values))
        assert record.oldest <= max(0, self.furthest[name] - self.keep_steps)
        assert record.step == 0 or record.oldest <= record.step
        assert past(self.store, name, record.oldest, record.latest) == values[record.oldest :]
        for at in {record.oldest, record.step or record.oldest, self.draw.randint(record.oldest, record.latest)}:
            before = self.store.before(record.tape, at) or (0, state_of([]))
            assert before[1] == state_of(values[: before[0]])
            assert before[0] <= at
            assert past(self.store, name, before[0], at) == values[before[0] : at]


def live(seed: int, keep_steps: int, acts: int, make: Callable[[Retention], Store]) -> None:
    retention = Retention(keep_steps, 1e9)
    lives = Lives(seed, retention, make(retention))
    for number in range(acts):
        lives.act()
        if lives.inputs:
            lives.check(lives.draw.choice(list(lives.inputs)))
        if number % 100 == 99:
            assert problems(lives.store) == []
            for name in lives.inputs:
                lives.check(name)
    for name in list(lives.inputs):
        lives.end(name)
    assert [rows(lives.store, table) for table in ("tapes", "log", "snapshots")] == [0, 0, 0]


@pytest.mark.parametrize("make", ["memory", "sqlite"], indirect=True)
@pytest.mark.parametrize("keep_steps", [0, 7, ALL])
@pytest.mark.parametrize("seed", range(8))
def test_random_lives_of_tapes_match_their_inputs(seed, keep_steps, make):
    live(seed, keep_steps, 400, make)


@pytest.mark.parametrize("make", ["postgres"], indirect=True)
@pytest.mark.parametrize(("seed", "keep_steps"), [(8, 0), (9, 0), (10, 7), (11, ALL)])
def test_random_lives_of_tapes_in_a_database_match_their_inputs(seed, keep_steps, make):
    live(seed, keep_steps, 300, make)


def test_tape_that_was_cut_is_the_root_of_its_descendants(make):
    """Retention lets go of what the first forks began with; the last ones say so."""
    store = make(Retention(0, 1e9))
    opened(store, "0")
    step(store, "0", 1, 2)
    for number in range(1, 5):
        at = found(store, str(number - 1))
        store.create(new(str(number), parent=at.tape, base=at.step), "me")
        step(store, str(number), 1, 2)
    middle = found(store, "2")
    store.snapshot(middle.tape, middle.step, b"state", 1000.0, passing=False)
    assert [found(store, str(number)).oldest for number in range(5)] == [0, 0, 6, 6, 6]
    assert (past(store, "4", 6), store.before(found(store, "4").tape, 10)) == ([1, 2, 1, 2], (6, b"state"))
    assert problems(store) == []


def test_snapshot_at_the_start_of_a_cut_tape_serves_forks(make):
    store = make(Retention(0, 1e9))
    opened(store)
    step(store, "a", 1, 2)
    store.create(new("b", parent=found(store).tape, base=2), "me")
    step(store, "b", 3)
    root = found(store, "b").tape
    store.snapshot(root, 3, b"three", 1000.0, passing=False)
    store.create(new("c", parent=root, base=3), "me")
    store.move("b", 0, None)
    store.snapshot(root, 0, b"zero", 1000.0, passing=True)
    assert (found(store, "c").oldest, store.before(found(store, "c").tape, 0)) == (3, (0, b"zero"))


def test_search_along_a_line_stays_within_its_root(make):
    """The seventh tape jumps over the sixth, which is cut, to the fourth."""
    store = make(Retention(0, 1e9))
    opened(store, "0")
    step(store, "0", 1, 2)
    for number in range(1, 7):
        at = found(store, str(number - 1))
        store.create(new(str(number), parent=at.tape, base=at.step), "me")
        step(store, str(number), 1, 2)
    cut = found(store, "5")
    store.snapshot(cut.tape, cut.step, b"state", 1000.0, passing=False)
    store.move("5", 0, None)
    store.snapshot(cut.tape, 0, b"zero", 1000.0, passing=True)
    assert store.before(found(store, "6").tape, 0) == (0, b"zero")
