"""A session as the server knows it while it is in use: where it is, and who uses it."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.backends.base import Array
from app.catalogue import ServedModel
from app.dtypes import Form, pack
from app.engine.arenas import Slot
from app.engine.run import Result
from app.errors import OutOfMemory, SessionGone, StepConflict, StepNotKept
from app.sessions.snapshot import Snapshot
from app.stores.base import EndReason, Entry, Record


class Steps(NamedTuple):
    """A request to step a session. The result is of type Stepped, or Duplicate for a frame that came before."""

    inputs: Array
    """float32 [T, input_size]"""
    trace: Sequence[str] = ()
    if_step: int | None = None
    """The step that the client believes the session is at."""
    seq: int | None = None
    """The number of the frame, one more than the last."""
    form: Form | None = None
    """In which the inputs came, where it was not float32: for the log."""


class Stepped(NamedTuple):
    """The result of a request to step."""

    result: Result
    step: int
    """The number of steps that the session has taken."""


class Duplicate(NamedTuple):
    """The result of a frame that was carried out before, and whose outputs cannot be computed again."""

    step: int
    """The number of steps that the session has taken."""


class Turn:
    """One request at a time, in the order in which they come. To take a turn that is free costs no task switch."""

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = False
        """Whether somebody has the turn."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> None:
        """Take the turn, which must be free."""
        assert not self.taken, "the turn is taken"
        self.taken = True

    def join(self) -> "asyncio.Future[None] | None":
        """Take the turn if it is free, and return None; else get in line: the future is done when the turn is had."""
        if not self.taken:
            self.taken = True
            return None
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        return place

    def leave(self) -> None:
        """Give the turn to the next who waits, if any."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.taken = False

    async def __aenter__(self) -> None:
        place = self.join()
        try:
            if place is not None:
                await place
        except asyncio.CancelledError:
            if place is not None and place.done() and not place.cancelled():  # the turn was had already
                self.leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.leave()


class SessionInfo(NamedTuple):
    """What is told of a session."""

    id: str
    model: str
    memory_size: int | None
    step: int
    seq: int | None
    latest: int
    oldest: int
    opened: float
    used: float


@dataclass(eq=False)
class Session:
    """An open session. Whoever steps it or reads it holds `turn`.

    The fields from `tape` to `branch` are as in its record. users: who has its turn or waits for it; watchers: who
    waits for its end. kept: the step of the last snapshot, 0 for none; logged: bytes in the log since the last one that
    is not passing.
    logs: whether its steps go into the log. snapshot_seconds: if not, the seconds within which they are in a snapshot;
    None: when it leaves its arena. unlogged: its log, or its snapshot, may lack steps until it leaves its arena.
    unsaved: steps were taken since the last snapshot was; saving: the task that keeps the next one.
    """

    id: str
    model: ServedModel
    memory_size: int | None
    opened: float
    used: float
    ended: "asyncio.Future[SessionGone]"
    logs: bool
    snapshot_seconds: float | None
    tape: int = 0
    epoch: int = 0
    step: int = 0
    latest: int = 0
    oldest: int = 0
    seq: int | None = None
    branch: int | None = None
    slot: Slot | None = None
    unlogged: bool = False
    unsaved: bool = False
    saving: "asyncio.Task[None] | None" = None
    kept: int = 0
    logged: int = 0
    users: int = 0
    watchers: int = 0
    turn: Turn = field(default_factory=Turn)
    last: Stepped | None = None
    """What the last numbered frame gave."""
    state_bytes: int = field(init=False)
    """Bytes of its state."""

    def __post_init__(self) -> None:
        self.state_bytes = self.model.shapes(self.memory_size).state_bytes

    @property
    def info(self) -> SessionInfo:
        info = info_of(self, self.model.name)
        return info._replace(oldest=self.step) if self.unlogged else info

    def follow(self, record: Record) -> None:
        """Be where the store says that the session is."""
        self.tape, self.epoch, self.branch = record.tape, record.epoch, record.branch
        self.step, self.latest, self.oldest, self.seq = record.step, record.latest, record.oldest, record.seq

    def check_kept(self, step: int) -> None:
        """Raise StepNotKept unless the session can be looked at after so many steps."""
        if self.unlogged:
            kept, expected = step in (0, self.step), f"0 or {self.step}"
        else:
            kept = step == 0 or self.oldest <= step <= self.latest
            expected = f"0, or {self.oldest} to {self.latest}" if self.oldest else f"0 to {self.latest}"
        if not kept:
            raise StepNotKept(
                f"session {self.id} is at step {self.step}, and step {step} is not kept: expected {expected}",
                place="step",
                expected=expected,
                got=str(step),
                step=self.step,
            )

    def check_recorded(self, first: int, last: int) -> None:
        """Raise StepNotKept unless the log has the steps after `first`, up to `last`; both can be looked at."""
        if first < last and (self.unlogged or first < self.oldest):
            start = self.step if self.unlogged else self.oldest
            raise StepNotKept(
                f"session {self.id} is at step {self.step}, and the inputs of the steps from {first} to {last} are not "
                f"kept: expected to begin at {start} or later",
                place="from",
                expected=f"{start} to {self.latest}",
                got=str(first),
                step=self.step,
            )

    def check_step(self, wanted: int | None) -> None:
        """Raise StepConflict unless the session is at the wanted step, if any."""
        if wanted not in (None, self.step):
            raise StepConflict(
                f"session {self.id} is at step {self.step}, not {wanted}",
                place="if_step",
                expected=str(self.step),
                got=str(wanted),
                step=self.step,
            )

    def is_next(self, seq: int | None) -> bool:
        """Return whether a frame of this number, if it has one, follows the last."""
        return seq is None or self.seq is None or seq == self.seq + 1

    def entry(self, steps: Steps) -> Entry:
        """Return what goes into the log for a request to step."""
        tape, branch = (self.tape, None) if self.branch is None else (self.branch, self.tape)
        data = pack(steps.inputs, steps.form)
        return Entry(tape, self.epoch, self.step, len(steps.inputs), data, steps.seq, branch)

    def advance(self, steps: int, seq: int | None) -> None:
        """Go behind steps that were taken."""
        if self.branch is not None:
            self.tape, self.branch = self.branch, None
            self.oldest = self.oldest if self.step else 0
        self.step += steps
        self.latest = self.step
        self.seq = self.seq if seq is None else seq

    def packed(self, step: int, state: Mapping[str, Array]) -> bytes:
        """Return the session at a step as a file. Raises OutOfMemory."""
        snapshot = Snapshot(self.model.name, self.model.fingerprint, self.memory_size, step, state)
        try:
            return snapshot.to_bytes()
        except MemoryError as error:
            raise OutOfMemory("not enough memory is left to write this session down: try again later") from error


def info_of(session: Session | Record, model: str) -> SessionInfo:
    """Return what is told of a session of a model, in use or as the store has it."""
    return SessionInfo(
        id=session.id,
        model=model,
        memory_size=session.memory_size,
        step=session.step,
        seq=session.seq,
        latest=session.latest,
        oldest=session.oldest,
        opened=session.opened,
        used=session.used,
    )


def gone(session: str, reason: EndReason) -> SessionGone:
    """Return the error for a session that has ended."""
    return SessionGone(f"session {session} is gone: {reason}", reason=reason)
