"""Random lives on the store in memory and on another one: every answer is the same."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import EngramError
from app.stores.base import NOBODY, REMEMBERED_FOR, Entry, NewSession, Record, Retention, Store
from app.stores.memory import MemoryStore
from app.stores.sqlite import SqliteStore
from app.stores.sqlite.journal import LARGE_BYTES
from app.tenants import DEFAULT, inside
from tests.app.stores.postgres.one_process import OneProcess
from tests.app.stores.test_stores import ALL, inputs, problems

TENANTS = (DEFAULT, "lab", "lab-2")

REASONS = ("deleted", "expired", "lost in a failure")
MODELS = ("dnc", "ntm")
OWNERS = ("me", "them")


def plain(answer: Any) -> Any:
    """Return an answer without the numbers of tapes, which each store chooses for itself."""
    if isinstance(answer, Record):
        return replace(answer, tape=0, next_tape=None if answer.next_tape is None else 0)
    return [plain(item) for item in answer] if isinstance(answer, (list, tuple)) else answer


def answered(call: Callable[[Store], Any], store: Store) -> Any:
    """Return the answer of a store, or the type of its error."""
    try:
        return plain(call(store))
    except EngramError as error:
        return type(error)


def entry(record: Record, values: list[float], seq: int | None, epochs: int = 0, steps: int = 0) -> Entry:
    """Return an entry for the next steps of a session; with another epoch or step, where these are not 0."""
    tape, previous = (record.tape, None) if record.next_tape is None else (record.next_tape, record.tape)
    data = inputs(*values)
    return Entry(tape, record.epoch + epochs, record.step + steps, len(values), data, seq, previous)


class Both:
    """The two stores, the random choices, and the sessions that there ever were."""

    def __init__(self, seed: int, retention: Retention, other: Store) -> None:
        self.draw = random.Random(seed)
        self.retention = retention
        self.memory, self.other = MemoryStore(retention), other
        self.now = 1000.0
        self.names: list[str] = []
        self.keys: list[str] = []
        self.stale: list[tuple[Record, Record]] = []
        """Records of sessions from some time ago: of the memory, and of the other store."""
        self.refusals = 0

    def ask(self, call: Callable[[Store], Any]) -> Any:
        """Return the answer of both stores to a call, which must be the same."""
        answer, expected = answered(call, self.other), answered(call, self.memory)
        assert answer == expected
        return expected

    def on(self, name: str, call: Callable[[Store, Record], Any]) -> Any:
        """Ask both stores something about an open session, of which each has its own record."""

        def found(store: Store) -> Any:
            record = store.find(name)
            assert isinstance(record, Record)
            return call(store, record)

        return self.ask(found)

    def any_open(self) -> str:
        """Return an open session: often one of the last, so that lines grow long, or one that was rewound."""
        records = {name: found for name in self.names if isinstance(found := self.memory.find(name), Record)}
        rewound = [name for name, found in records.items() if found.next_tape is not None]
        if rewound and self.draw.random() < 0.4:
            return self.draw.choice(rewound)
        names = list(records)
        return self.draw.choice(names[-self.draw.choice([1, 1, 2, 4, len(names)]) :]) if names else self.create()

    def record(self, name: str) -> Record:
        record = self.memory.find(name)
        assert isinstance(record, Record)
        return record

    def values(self) -> list[float]:
        large = LARGE_BYTES // 4 if self.draw.random() < 0.03 else 1
        return [float(self.draw.randrange(100)) for _ in range(self.draw.choice([1, 1, 2, 5]) * large)]

    # What happens to sessions

    def create(self, **more: Any) -> str:
        self.names.append(inside(self.draw.choice(TENANTS), f"s{len(self.names)}"))
        if self.draw.random() < 0.4:
            self.keys.append(f"k{self.draw.randrange(2 * len(self.names))}")
            more |= {"key": self.keys[-1], "digest": self.names[-1].encode()}
            more["takes_key"] = self.draw.random() < 0.3
        more["force"] = self.draw.choice([None, None, '{"write_gate":[0.0]}'])
        self.open(NewSession(self.names[-1], self.draw.choice(MODELS), "print", None, self.now, **more))
        return self.names[-1]

    def open(self, new: NewSession) -> None:
        self.ask(lambda store: store.create(new, "me"))
        if self.memory.find(new.id) is None:  # a key that is taken
            self.ask(lambda store: store.create(replace(new, key=None), "me"))
        if self.draw.random() < 0.1:
            self.ask(lambda store: store.create(new, "me"))

    def restore(self) -> None:
        self.create(base=self.draw.randrange(1, 50), snapshot=self.draw.randbytes(8))

    def fork(self) -> None:
        name = self.any_open()
        record = self.record(name)
        base = self.draw.choice([record.step, record.step, self.draw.randint(0, record.latest), record.oldest])
        self.names.append(inside(self.draw.choice(TENANTS), f"s{len(self.names)}"))
        new = NewSession(self.names[-1], record.model, "print", None, self.now, base=base)
        forked = self.on(name, lambda store, at: store.create(replace(new, parent=at.tape), "me"))
        self.refusals += not isinstance(forked, Record)
        if self.draw.random() < 0.3:
            self.snapshot(name)

    def step(self) -> None:
        """Append to some sessions at once, also what is refused."""
        names, asked = {self.any_open() for _ in range(3)}, []
        for name in sorted(names):
            seq, values = self.draw.choice([None, (self.record(name).seq or 0) + 1]), self.values()
            wrong = self.draw.choice([(0, 0)] * 6 + [(1, 0), (-1, 0), (0, 1), (0, -1)])
            asked += [(name, values, seq, *wrong)] * self.draw.choice([1, 1, 1, 2])
        olds = self.draw.sample(self.stale, min(1, len(self.stale)))

        def append(store: Store) -> set[int]:
            entries = [entry(store.find(name), *more) for name, *more in asked]  # type: ignore[arg-type]
            entries += [entry(old[store is self.other], [7.0], None) for old in olds]
            return store.append(entries)

        self.refusals += len(self.ask(append))

    def rewind(self) -> None:
        name = self.any_open()
        record = self.record(name)
        step = self.draw.choice([0, *2 * [record.latest], *3 * [self.draw.randint(record.oldest, record.latest)]])
        seq = self.draw.choice([None, record.seq])
        self.ask(lambda store: store.move(name, step, seq))
        if self.draw.random() < 0.3:
            self.snapshot(name)
            self.check_past(name)

    def snapshot(self, name: str | None = None) -> None:
        state, passing = self.draw.randbytes(8), self.draw.random() < 0.4
        name, now = name or self.any_open(), self.now
        self.on(name, lambda store, at: store.snapshot(at.tape, at.step, state, now, passing))
        if self.stale and self.draw.random() < 0.2:
            old = self.draw.choice(self.stale)
            where = [(old[store is self.other], store) for store in (self.memory, self.other)]
            answers = [store.snapshot(at.tape, at.step, state, now, passing=True) for at, store in where]
            assert answers[0] == answers[1]

    def park(self) -> None:
        name, state, now = self.any_open(), self.draw.randbytes(8), self.now
        ahead, seq = self.draw.randrange(3), self.draw.choice([None, 3])
        if self.draw.random() < 0.7:
            self.ask(lambda store: store.mark_volatile(name))
        self.on(name, lambda store, at: store.park(name, at.step + ahead, seq, state, now))

    def mark_volatile(self) -> None:
        name = self.draw.choice(self.names)
        self.ask(lambda store: store.mark_volatile(name))

    def claim(self) -> None:
        name, owner = self.draw.choice(self.names), self.draw.choice(OWNERS)
        self.remember(name)
        self.ask(lambda store: store.claim(name, owner))

    def release(self) -> None:
        name, owner = self.draw.choice(self.names), self.draw.choice(OWNERS)
        self.remember(name)
        used = self.draw.choice([None, self.now])
        self.ask(lambda store: store.release(name, owner, used))

    def end(self) -> None:
        name, reason, now = self.draw.choice(self.names), self.draw.choice(REASONS), self.now
        self.remember(name)
        self.ask(lambda store: store.end(name, reason, now))

    def touch(self) -> None:
        used = [(self.any_open(), self.now + number / 10) for number in range(3)]
        self.ask(lambda store: store.touch(used))

    def expire(self) -> None:
        now = self.now
        for name in self.ask(lambda store: store.idle_since(now - 200, 2)):
            self.ask(lambda store, name=name: store.end(name, "expired", now))

    def remember(self, name: str) -> None:
        records = self.memory.find(name), self.other.find(name)
        if all(isinstance(record, Record) for record in records):
            self.stale.append(records)  # type: ignore[arg-type]

    def reopen(self) -> None:
        """Open the other store anew, as a restart of the server does."""
        raise NotImplementedError

    def tidy(self) -> None:
        now = self.now
        while self.ask(lambda store: store.tidy(now)):
            pass

    def act(self) -> None:
        """Do something random."""
        self.now += self.draw.choice([1, 1, 30])
        weights = {
            self.step: 14,
            self.fork: 7,
            self.rewind: 4,
            self.snapshot: 5,
            self.touch: 2,
            self.claim: 1,
            self.release: 0.5,
        }
        weights |= {self.create: 0.3, self.restore: 0.3, self.park: 1, self.mark_volatile: 0.5, self.end: 4}
        weights |= {self.expire: 0.3, self.reopen: 0.6, self.tidy: 0.3}
        act: Callable[..., Any] = self.draw.choices(list(weights), list(weights.values()))[0]
        act()
        self.other.fold()

    # The answers of the stores

    def check(self) -> None:
        """Compare the records of all sessions, and the past of one."""
        for name in self.names:
            self.ask(lambda store, name=name: store.find(name))
        for key in self.keys:
            self.ask(lambda store, key=key: store.created(key))
        limit, now, model = self.draw.choice([2, ALL]), self.now, self.draw.choice([None, *MODELS])
        for tenant in TENANTS:
            self.ask(lambda store, tenant=tenant: sorted(record.id for record in store.list(tenant, None, ALL)))
            self.ask(lambda store, tenant=tenant: [record.used for record in store.list(tenant, model, limit)])
        self.ask(lambda store: [store.has_sessions(model, "print") for model in MODELS])
        self.ask(lambda store: (store.counts(), store.tenants(), store.latest_time(), store.probe()))
        self.ask(lambda store: len(store.idle_since(now - 50, limit)))
        self.check_past(self.any_open())
        for old in self.draw.sample(self.stale, min(2, len(self.stale))):
            answers = [store.steps(old[store is self.other].tape, 0, ALL, ALL) for store in (self.memory, self.other)]
            assert answers[0] == answers[1]

    def check_past(self, name: str) -> None:
        latest, limit = self.record(name).latest, self.draw.choice([1, 30, ALL])
        for at in {0, latest, self.record(name).oldest, *(self.draw.randint(0, latest) for _ in range(3))}:
            self.on(name, lambda store, found, at=at: store.before(found.tape, at))
            self.on(name, lambda store, found, at=at: store.steps(found.tape, at, latest, limit))
            self.on(name, lambda store, found, at=at: store.steps(found.tape, at, at + 3, limit))
        for seq in range(12):
            self.on(name, lambda store, found, seq=seq: store.frame(found.tape, seq))


class WithFile(Both):
    """The store in memory and the embedded one."""

    other: SqliteStore

    def __init__(self, seed: int, retention: Retention, directory: Path) -> None:
        super().__init__(seed, retention, SqliteStore(directory / "0", retention, now=0.0))
        self.directory, self.opened = directory, 0

    def reopen(self) -> None:
        """Open the file anew, or as a kill leaves it, sometimes much later; have the memory end and forget the same."""
        if self.draw.random() < 0.2:
            self.now += REMEMBERED_FOR
        last, self.opened = self.directory / str(self.opened), self.opened + 1
        killed, closed = (self.directory / f"{self.opened}{how}" for how in ("killed", ""))
        shutil.copytree(last, killed)
        self.other.close()
        (killed if self.draw.random() < 0.5 else last).rename(closed)
        self.other = SqliteStore(closed, self.retention, now=self.now)
        for record in [record for tenant in TENANTS for record in self.memory.list(tenant, None, ALL)]:
            if record.volatile:
                self.memory.end(record.id, "lost in a restart", self.now)
        self.tidy()
        self.stale.clear()


class WithDatabase(Both):
    """The store in memory and that in PostgreSQL, where only an owner goes on with a session."""

    def __init__(self, seed: int, retention: Retention, url: str) -> None:
        super().__init__(seed, retention, OneProcess(url, retention))
        self.url = url

    def release(self) -> None:
        super().release()
        for name, owner in zip(self.names, self.draw.choices(OWNERS, k=len(self.names)), strict=True):
            if self.names_free(name):
                self.ask(lambda store, name=name, owner=owner: store.claim(name, owner))

    def names_free(self, name: str) -> bool:
        """Return whether a session is open, and nobody's."""
        stored = self.memory._sessions.get(name)
        return stored is not None and stored.tape is not None and stored.owner == NOBODY

    def reopen(self) -> None:
        """Open the store anew, which ends no session: other servers may have them."""
        self.other.close()
        self.other = OneProcess(self.url, self.retention)
        self.stale.clear()


RETENTIONS = [Retention(ALL, 1e9), Retention(0, 1e9), Retention(7, 1e9), Retention(ALL, 40.0), Retention(3, 90.0)]


def live(both: Both, acts: int) -> None:
    for number in range(acts):
        both.act()
        if number % 2:
            both.check()
    assert both.refusals
    assert problems(both.other) == []
    both.other.close()


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_random_lives_are_the_same_in_both_stores(seed, retention, tmp_path, small):
    live(WithFile(seed, retention, tmp_path), 250)


@pytest.mark.parametrize(("seed", "retention"), [*enumerate(RETENTIONS)], ids=str)
def test_random_lives_are_the_same_in_a_database(seed, retention, database_url):
    live(WithDatabase(seed, retention, database_url), 150)
