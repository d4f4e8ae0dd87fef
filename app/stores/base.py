"""The contract of a store: what is kept of every session, so that any step of it can be computed again.

    tape 1   |--log---S----log-----S--log--|         S: a snapshot of the state
                           |
    tape 2            base '--log--S--log-->         of a fork, or of where the session went on after a rewind

A tape is a session's inputs in order; what is on it never changes. A session is on one tape, at its end, or at an
earlier step after a rewind. A fork is a session on a tape of its own, which begins with another up to a step, its base:
the past is shared, nothing is copied. The first step after a rewind begins such a tape too. What no session can reach
any more is deleted, and so is what retention does not ask for: a tape's own `first` step, and 0, are then the earliest
that can be gone back to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

EndReason = Literal["deleted", "expired", "lost in a restart", "lost in a failure"]


class Entry(NamedTuple):
    """A request's steps, as they go into the log: a tape's steps from `step` on, `steps` of them.

    epoch: of the claim under which they were computed. inputs: as `app.dtypes.pack` encodes them.
    seq: of the frame, if it was one. branch: the tape that the session was on, where this begins another at `step`.
    """

    tape: int
    epoch: int
    step: int
    steps: int
    inputs: bytes
    seq: int | None = None
    branch: int | None = None


@dataclass(frozen=True)
class NewSession:
    """A session to be.

    fingerprint: of the model. key, digest: which request to open one this is, and of what it asked. It begins before
    the first step, or at the step `base`: with the past of the tape `parent`, or with a snapshot.
    """

    id: str
    model: str
    fingerprint: str
    memory_size: int | None
    now: float
    """Seconds since the epoch."""
    key: str | None = None
    digest: bytes | None = None
    base: int = 0
    parent: int | None = None
    snapshot: bytes | None = None


@dataclass(frozen=True)
class Record:
    """What is known of an open session.

    step: where it is; latest: the last step that a rewind can go back to; oldest: the first, but for 0.
    kept: the step of its tape's last snapshot that is not passing, or with which the tape begins.
    seq: of the last frame that was carried out. branch: the tape that its next step begins, after a rewind.
    unlogged: steps of it may have been taken that are not here.
    """

    id: str
    model: str
    fingerprint: str
    memory_size: int | None
    opened: float
    used: float
    tape: int
    epoch: int
    step: int
    latest: int
    oldest: int
    kept: int
    seq: int | None
    branch: int | None
    unlogged: bool


class Steps(NamedTuple):
    """Steps that are kept: `inputs` are those of the steps from `step` on."""

    step: int
    steps: int
    inputs: bytes
    seq: int | None


class Retention(NamedTuple):
    """Which past is kept: the last so many steps, of the last so many seconds; a little more, up to a snapshot."""

    steps: int
    seconds: float


class Store(Protocol):
    """Sessions, their tapes, and why those that ended did. Used by one thread at a time.

    Every call is carried out whole or not at all, and what it wrote survives the death of the process; after `sync`,
    also a power cut. What cannot be written or read raises StoreFailed, and what is damaged SessionDamaged.
    """

    def create(self, session: NewSession, owner: str) -> Record:
        """Open a session, claimed by its owner."""

    def created(self, key: str) -> tuple[str, bytes] | None:
        """Return the id and the digest of the session that was opened under this key, if any."""

    def find(self, session: str) -> Record | EndReason | None:
        """Return an open session, or why it ended; None for one that never was."""

    def claim(self, session: str, owner: str) -> Record | EndReason | None:
        """Find a session and make `owner` its owner: what others still append to it is refused from now on."""

    def append(self, entries: Sequence[Entry]) -> set[int]:
        """Write entries, all of them at once, but for those whose epoch is over or whose step is not the next.

        Returns the indices of those that were refused, also because their tape is damaged.
        """

    def fold(self) -> None:
        """Do a part of the work that `append` has put off, if there is much of it: a few milliseconds at most."""

    def snapshot(self, tape: int, step: int, state: bytes, now: float, passing: bool) -> int:
        """Keep a snapshot, unless its tape is gone meanwhile, and delete what retention does not ask for any more.

        passing: the next snapshot takes its place. Returns the first step, but for 0, that can be gone back to.
        """

    def park(self, session: str, step: int, seq: int | None, state: bytes, now: float) -> None:
        """Keep a snapshot as all that there is of a session, whose log does not lead to it."""

    def unlogged(self, session: str) -> None:
        """Record that steps of a session are taken that no log has: unless it is parked, a restart ends it."""

    def before(self, tape: int, step: int) -> tuple[int, bytes] | None:
        """Return the last snapshot at a step or before it that is whole, and its step."""

    def steps(self, tape: int, start: int, stop: int, limit: int) -> list[Steps]:
        """Return the log from the step `start` up to `stop`, or to an earlier one after at least `limit` bytes.

        There is no gap in it; none of it is returned where `start` is not kept. Raises SessionDamaged.
        """

    def frame(self, tape: int, seq: int) -> Steps | None:
        """Return the steps of a frame, where the tape has them and they are kept."""

    def move(self, session: str, step: int, seq: int | None) -> Record:
        """Put an open session at an earlier or later step of its tape."""

    def end(self, session: str, reason: EndReason, now: float) -> bool:
        """Record that a session ended, and why; its past goes. Returns whether it was open. A damaged one can end."""

    def list(self, model: str | None, limit: int) -> Sequence[Record]:
        """Return open sessions, the most recently used first."""

    def counts(self) -> dict[str, int]:
        """Return the number of open sessions by model."""

    def touch(self, used: Sequence[tuple[str, float]]) -> None:
        """Record when sessions were last used, in seconds since the epoch."""

    def idle_since(self, time: float, limit: int) -> Sequence[str]:
        """Return open sessions that have not been used since then."""

    def latest_time(self) -> float:
        """Return the latest time that was written, in seconds since the epoch; 0 where none was."""

    def probe(self) -> None:
        """Raise StoreFailed unless what is kept can be read, and what is written would be kept."""

    def sync(self) -> None:
        """Make everything that was written survive a power cut."""

    def check(self, tell: Callable[[int, int], None]) -> Iterator[str]:
        """Yield what is damaged; `tell` is called with how many sessions are done, and of how many."""

    def close(self) -> None:
        """Let go of whatever the store holds."""
