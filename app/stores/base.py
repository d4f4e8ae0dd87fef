"""The contract of a store: what it keeps of every session, so that any step of the session can be computed again.

    tape 1   |--log---S----log-----S--log|           S: a snapshot of the state
                           |
    tape 2            base '--log--S--log-->         of a fork, or of a session that went on after a rewind

A tape is a session's inputs in order; what is on it never changes. A session is on one tape: at its end, or at an
earlier step after a rewind. A fork is a session on a tape of its own, which begins with another up to a step, its base:
the past is shared, nothing is copied. The first step after a rewind begins such a tape too. The store deletes the steps
that no session can reach any more, and those that retention does not ask for: a session can then go back to its
`oldest` step, and to 0.

The contract has three parts: `SessionStore`, `TapeStore` and `Upkeep`. A `Store` is all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

EndReason = Literal["deleted", "expired", "lost in a restart", "lost in a failure"]

REMEMBERED_FOR = 30 * 86400
"""Seconds for which a store answers for a session that ended, at least."""

NOBODY = ""
"""The owner of a session that was released, or was opened for any server to claim."""

FORGOTTEN_AT_ONCE = 100
"""Ended sessions that `tidy` forgets in one call, at most."""


class Entry(NamedTuple):
    """The steps of one request, for the log: `steps` steps of a tape, the first of them after the step `step`.

    epoch: of the claim under which they were computed. inputs: as `app.sessions.dtypes.pack` encodes them. seq: the
    number of the frame, if it was one. previous_tape: the tape that the session was on, where this entry begins a tape.
    """

    tape: int
    epoch: int
    step: int
    steps: int
    inputs: bytes
    seq: int | None = None
    previous_tape: int | None = None


@dataclass(frozen=True)
class NewSession:
    """A session to create.

    fingerprint: of the model. key, digest: of the request that opens it: its name, and a hash of what it asked.
    The session begins before the first step; or at the step `base`, with the past of the tape `parent`; or there with a
    snapshot. force: the gates that it holds at values (`app.forces`), None where all are free.
    """

    id: str
    model: str
    fingerprint: str
    memory_size: int | None
    now: float
    """The time of the server's clock, in seconds."""
    key: str | None = None
    digest: bytes | None = None
    takes_key: bool = False
    """Whether a session that had the key gives it up to this one, if it has ended."""
    base: int = 0
    parent: int | None = None
    snapshot: bytes | None = None
    opened: float | None = None
    """Unix time in seconds, if it is another than `now`."""
    force: str | None = None


@dataclass(frozen=True)
class Record:
    """An open session, as the store has it.

    step: where it is; latest: the last step that it can go to; oldest: the first, but for 0. opened: Unix time in
    seconds; used: the time of the server's clock. kept: the step of its tape's last snapshot that is not passing, or
    with which the tape begins. seq: of the last frame that was carried out. next_tape: after a rewind, the tape that
    its next step begins. volatile: the session may have taken steps that are not in the store. force: the gates that it
    holds at values.
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
    next_tape: int | None
    volatile: bool
    force: str | None


class Held(NamedTuple):
    """The answer to a claim of a session that another owner has, whose server lives.

    owner: under which it claims; server: its name, for people.
    """

    owner: str
    server: str


class LoggedSteps(NamedTuple):
    """Steps that are in the log: `inputs` are those of `steps` steps, the first of them after the step `step`."""

    step: int
    steps: int
    inputs: bytes
    seq: int | None


class Retention(NamedTuple):
    """The past to keep: the last `steps` steps, and those of the last `seconds`; and what lies between the earliest of
    these and the snapshot before it.
    """

    steps: int
    seconds: float


KEEP_ALL = Retention(2**62, 1e12)


class SessionStore(Protocol):
    """Which sessions there are, where each is, who owns it, and why those that ended did."""

    def create(self, session: NewSession, owner: str) -> Record:
        """Open a session, claimed by its owner.

        Raises StepNotKept where its base is not kept, StoreFailed where its id or its key is taken.
        """

    def created(self, key: str) -> tuple[str, bytes] | None:
        """Return the id and the digest of the session that was opened under this key, if any."""

    def find(self, session: str) -> Record | EndReason | None:
        """Return an open session, or why it ended; None for one that never was."""

    def claim(self, session: str, owner: str) -> Record | EndReason | Held | None:
        """Find a session and make `owner` its owner: steps of its former owner are refused from now on.

        Where several servers share the store and the former owner lives, the session stays as it is: Held.
        """

    def release(self, session: str, owner: str, used: float | None = None) -> bool:
        """Let an owner give up a session; return whether it had it.

        used: when the session was last used, if that is not written yet.
        Its steps are refused from now on, and any owner may claim the session.
        """

    def move(self, session: str, step: int, seq: int | None) -> Record:
        """Put an open session at an earlier or later step of its tape."""

    def mark_volatile(self, session: str) -> None:
        """Mark an open session as volatile: unless it is parked, it ends at a restart."""

    def end(self, session: str, reason: EndReason, now: float) -> bool:
        """End a session for a reason, and delete its past; return whether it was open. A damaged one can end."""

    def list(self, tenant: str, model: str | None, limit: int) -> Sequence[Record]:
        """Return open sessions of a tenant, the most recently used first; model: of this model only."""


class TapeStore(Protocol):
    """The tapes of sessions: logs of inputs, and snapshots of states."""

    def append(self, entries: Sequence[Entry]) -> set[int]:
        """Write entries, all of them at once, but for those whose epoch is over or whose step is not the next.

        An entry with a previous tape first puts the session that is there on the entry's tape. Returns the indices of
        the entries that were refused, also because their tape is damaged or gone.
        """

    def fold(self) -> None:
        """Do a part of the work that `append` has put off, if there is much of it: a few milliseconds at most."""

    def snapshot(self, tape: int, step: int, state: bytes, now: float, passing: bool) -> int:
        """Keep a snapshot, unless its tape is gone meanwhile, and delete what retention does not ask for any more.

        passing: the next snapshot takes its place. Returns the first step, but for 0, that can be gone back to.
        """

    def park(self, session: str, step: int, seq: int | None, state: bytes, now: float) -> None:
        """Keep a snapshot as all that there is of a session, which is volatile no longer."""

    def before(self, tape: int, step: int) -> tuple[int, bytes] | None:
        """Return the last snapshot at a step or before it that is whole: its step, and the state."""

    def steps(self, tape: int, start: int, stop: int, limit: int) -> list[LoggedSteps]:
        """Return the log from the step `start` up to `stop`, or to an earlier one after at least `limit` bytes.

        There is no gap in it. Return nothing where the tape is gone or `start` is not kept. Raises SessionDamaged.
        """

    def frame(self, tape: int, seq: int) -> LoggedSteps | None:
        """Return the steps of a frame, if they are kept and on this tape, not on those that it begins with."""


class Upkeep(Protocol):
    """The work on all sessions at once, and the care of the store itself."""

    def counts(self) -> dict[str, int]:
        """Return the number of open sessions by model."""

    def has_sessions(self, model: str, fingerprint: str) -> bool:
        """Return whether sessions of a model are open that began with this version of it."""

    def tenants(self) -> dict[str, int]:
        """Return the number of open sessions by tenant."""

    def touch(self, used: Sequence[tuple[str, float]]) -> None:
        """Record when sessions were last used, in seconds of the server's clock."""

    def idle_since(self, time: float, limit: int) -> Sequence[str]:
        """Return open sessions that were last used then or earlier, the least recently used first."""

    def latest_time(self) -> float:
        """Return the latest time that was written, in seconds of the server's clock; 0 where none was."""

    def tidy(self, now: float) -> bool:
        """Record the time, and forget some of the sessions that ended more than REMEMBERED_FOR seconds ago.

        Takes a few milliseconds at most; returns whether more are left to forget.
        """

    def probe(self) -> None:
        """Raise StoreFailed unless what is kept can be read, and what is written would be kept."""

    def sync(self) -> None:
        """Make everything that was written survive a power cut."""

    def check(self, progress: Callable[[int, int], None]) -> Iterator[str]:
        """Yield a line for everything that is damaged; call `progress` with the sessions done, and with all."""

    def close(self) -> None:
        """Release the store's resources."""


class Store(SessionStore, TapeStore, Upkeep, Protocol):
    """Sessions, their tapes, and the upkeep. One thread uses it at a time.

    Every call is carried out whole or not at all, and what it wrote survives the death of the process; after `sync`,
    also a power cut. Raises StoreFailed for what cannot be written or read, and SessionDamaged for what is damaged.
    """
