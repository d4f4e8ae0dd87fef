"""All that a store keeps, as items that another store takes in.

    clock, tape 1, its log, its snapshots, the session on it, tape 2, ..., sessions that ended

A tape comes after the one that it begins with; its log, its snapshots and the session on it come after it. A store that
reads and one that writes hold a few items at a time, however many there are.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeAlias

from app.stores.base import EndReason, Store

REMEDY = (
    "engram check lists all damage; delete the sessions that it names from a running server, or take a copy of before"
)
"""The remedy of damage that keeps a store from being copied."""


class ArchivedClock(NamedTuple):
    """The latest time that was recorded, in seconds of the server's clock."""

    time: float


class ArchivedTape(NamedTuple):
    """A tape, which begins with the tape `parent` up to the step `base`; None for one that begins with no other.

    number: of this tape among the items. first: of one without a parent, the first step, but for 0, that can be gone
    back to. stop: the step after its last. head: the step that its session was rewound to, None where it is at the end.
    seq: of the last frame that was carried out. epoch: of the last claim of its session. is_used: whether a session is
    on it, which is among the items too.
    """

    number: int
    parent: int | None
    base: int
    first: int
    stop: int
    head: int | None
    seq: int | None
    epoch: int
    is_used: bool


class ArchivedSteps(NamedTuple):
    """Steps in the log of a tape: `inputs` are those of `steps` steps, the first of them after the step `step`."""

    tape: int
    step: int
    steps: int
    inputs: bytes
    seq: int | None


class ArchivedSnapshot(NamedTuple):
    """A state of a tape. taken: the time of the server's clock, in seconds."""

    tape: int
    step: int
    state: bytes
    taken: float
    passing: bool


class ArchivedSession(NamedTuple):
    """A session. tape: on which it is, None once it has ended; then `ended` is the time of the server's clock.

    creation_key, digest: of the request that opened it. The other fields are as in `app.stores.base.Record`.
    """

    id: str
    model: str
    fingerprint: str
    memory_size: int | None
    force: str | None
    opened: float
    used: float
    ended: float | None
    reason: EndReason | None
    creation_key: str | None
    digest: bytes | None
    tape: int | None
    volatile: bool


Item: TypeAlias = ArchivedClock | ArchivedTape | ArchivedSteps | ArchivedSnapshot | ArchivedSession


class Archive(Protocol):
    """A store that can be copied. Who owns a session is not copied: any server may claim it in the copy."""

    def contents(self) -> Generator[Item, None, None]:
        """Yield all that is kept, as it was at one moment; ended sessions come last, in the order of their end.

        Raises StoreFailed where a server uses the store, SessionDamaged for what is damaged.
        """

    def put(self, items: Iterable[Item]) -> None:
        """Keep all items, or none where anything fails. Raises StoreFailed also where there are sessions already."""


class CopyableStore(Store, Archive, Protocol):
    """A store that can be copied."""


class Copied(NamedTuple):
    """How many of each were copied; sessions: open and ended ones."""

    sessions: int
    tapes: int
    steps: int
    snapshots: int


class Damaged(ValueError):
    """Damage that was found in a store."""


def kept(tape: ArchivedTape, log: Iterable[ArchivedSteps]) -> Iterator[ArchivedSteps]:
    """Yield of a tape's log, which is in order, the entries that have a step which is kept. Raises Damaged at a gap.

    An entry may begin before the first of these steps. One that ends after the last loses its end: no session is on a
    tape that became shorter.
    """
    at = start = max(tape.base, tape.first)
    for entry in log:
        end = entry.step + entry.steps
        if end <= start or entry.step >= tape.stop:
            continue
        if entry.step != at and not entry.step < at == start:
            raise Damaged(f"the log of tape {tape.number} goes on at step {entry.step} after step {at}")
        at = end
        steps, width = min(end, tape.stop) - entry.step, len(entry.inputs) // entry.steps
        yield entry._replace(steps=steps, inputs=entry.inputs[: steps * width])
    if at < tape.stop:
        raise Damaged(f"the log of tape {tape.number} ends at step {at}, but it was at {tape.stop}")


def copy(source: Archive, target: Archive, progress: Callable[[int], None]) -> Copied:
    """Copy all that a store keeps into an empty one, whole or not at all; call `progress` with the sessions done.

    Raises what `contents` and `put` raise.
    """
    found = Counter[type[Item]]()
    target.put(_counted(source.contents(), found, progress))
    return Copied(found[ArchivedSession], found[ArchivedTape], found[ArchivedSteps], found[ArchivedSnapshot])


def _counted(items: Iterable[Item], found: "Counter[type[Item]]", progress: Callable[[int], None]) -> Iterator[Item]:
    """Yield items, and count how many came of each kind; of steps, how many there are."""
    for item in items:
        found[type(item)] += item.steps if isinstance(item, ArchivedSteps) else 1
        if isinstance(item, ArchivedSession):
            progress(found[ArchivedSession])
        yield item
