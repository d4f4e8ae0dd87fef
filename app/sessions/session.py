"""A session as the server knows it while it is in use: where it is, and who uses it."""

import asyncio
import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.backends.base import NUMBER_BYTES, Array
from app.catalogue import ServedModel
from app.engine.arenas import Slot
from app.engine.run import Result
from app.errors import EngramError, OutOfMemory, SessionGone, StepConflict, StepNotKept
from app.sessions.dtypes import Form, pack, packed_bytes
from app.sessions.snapshot import Snapshot
from app.stores.base import EndReason, Entry, Record
from app.tenants import outside

ENTRY_BYTES = 16
"""The bytes of a request's entry in the log beside its inputs, about."""

LOG_PER_STATE = 2
"""Bytes of the log per byte of a state, from which a snapshot that is not passing is taken."""

LOG_STEPS = 32
"""Steps of that log, from which such a snapshot is taken: large inputs soon outgrow a small state."""

KEPT_RESULT_BYTES = 65_536
"""A larger result of a session's last frame is computed again, should the frame come again."""


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


class Onto(NamedTuple):
    """The model and the forced gates with which a fork goes on."""

    model: ServedModel
    force: str | None


class SessionInfo(NamedTuple):
    """A session as clients see it."""

    id: str
    model: str
    memory_size: int | None
    step: int
    seq: int | None
    latest: int
    oldest: int
    opened: float
    used: float
    force: str | None


class Where(enum.Enum):
    """The place of a session's state.

    STORED --- enter ---> RESIDENT --- outrun_store ---> VOLATILE
       ^------ leave --------'------- leave ----------------'        any of them --- end ---> ENDED
    """

    STORED = "in the store alone"
    RESIDENT = "in an arena; the store leads to the same step"
    VOLATILE = "in an arena, with steps that the store may lack"
    ENDED = "nowhere: deleted, expired or lost"


@dataclass(eq=False)
class Session:
    """An open session. Its fields change only by its methods, and `turn`, `users`, `watchers` and `used` by Turns.

    A caller that steps, reads or moves the session holds `turn`. The fields from `tape` to `next_tape` are those of the
    record.
    id: its name inside the server (`app.tenants`).
    ended: resolved with the error of the end; moved: with that of the next time that the session leaves this server.
    logs: whether its steps go into the log. snapshot_seconds: if not, the longest time in seconds until a snapshot has
    a step; None where only eviction takes a snapshot.
    slot: in the arena; None where the session is not resident.
    kept: the step of the last snapshot, 0 for none; logged, logged_steps: bytes and steps in the log since the last one
    that is not passing.
    unsaved, saving: where Saving keeps snapshots, whether the last one lacks steps, and the task that writes the next.
    users: those who hold the turn or wait for it; watchers: those who wait for the end.
    last: the result of the last numbered frame, where it is small.
    force: the gates that it holds at values, as in `Spec`.
    state_bytes: bytes of its state.
    """

    id: str
    model: ServedModel
    memory_size: int | None
    opened: float
    used: float
    ended: "asyncio.Future[SessionGone]"
    moved: "asyncio.Future[EngramError]"
    logs: bool
    snapshot_seconds: float | None
    tape: int = 0
    epoch: int = 0
    step: int = 0
    latest: int = 0
    oldest: int = 0
    seq: int | None = None
    next_tape: int | None = None
    where: Where = Where.STORED
    slot: Slot | None = None
    kept: int = 0
    logged: int = 0
    logged_steps: int = 0
    unsaved: bool = False
    saving: "asyncio.Task[None] | None" = None
    users: int = 0
    watchers: int = 0
    turn: Turn = field(default_factory=Turn)
    last: Stepped | None = None
    force: str | None = None
    state_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.state_bytes = self.model.shapes(self.memory_size).state_bytes

    @property
    def public_id(self) -> str:
        """The ID that clients know the session by."""
        return outside(self.id)

    @property
    def info(self) -> SessionInfo:
        info = info_of(self, self.model.name)
        return info._replace(oldest=self.step) if self.is_volatile else info

    @property
    def is_volatile(self) -> bool:
        """Whether the session may have taken steps that the store lacks."""
        return self.where is Where.VOLATILE

    @property
    def unsnapshotted(self) -> int:
        """The number of steps since the last snapshot, which are replayed to restore the session."""
        return self.step - self.kept

    @property
    def log_is_long(self) -> bool:
        """Whether the log since the last snapshot that is not passing has outgrown the state, and is worth one."""
        return self.logged >= LOG_PER_STATE * self.state_bytes and self.logged_steps >= LOG_STEPS

    # Where it is

    def enter(self, slot: Slot, kept: int) -> None:
        """Become resident. kept: as in `recomputed`."""
        assert self.where is Where.STORED, self.where
        self.where, self.slot = Where.RESIDENT, slot
        self.recomputed(kept)

    def outrun_store(self) -> None:
        """Note that the session takes steps that the store lacks, until it is evicted."""
        assert self.where in (Where.RESIDENT, Where.VOLATILE), self.where
        self.where = Where.VOLATILE

    def leave(self) -> Slot:
        """Leave the arena, and return the slot, which is to be freed."""
        assert self.slot is not None, "the session is in no arena"
        slot, self.slot, self.last, self.unsaved = self.slot, None, None, False
        if self.saving is not None:
            self.saving.cancel()
            self.saving = None
        if self.where is not Where.ENDED:
            self.where = Where.STORED
        return slot

    def end(self, error: SessionGone) -> None:
        """Note the end, and report it to those who wait for it."""
        self.where = Where.ENDED
        self.ended.set_result(error)

    def depart(self, error: EngramError) -> None:
        """Report to those who watch that the session, which is in the store alone, may be at another server now."""
        assert self.where is Where.STORED, self.where
        moved, self.moved = self.moved, asyncio.get_running_loop().create_future()
        moved.set_result(error)

    # At which step it is

    def follow(self, record: Record) -> None:
        """Take over the position that the store has of the session."""
        self.tape, self.epoch, self.next_tape = record.tape, record.epoch, record.next_tape
        self.step, self.latest, self.oldest, self.seq = record.step, record.latest, record.oldest, record.seq
        self.used = max(self.used, record.used)

    def advance(self, steps: Steps, result: Result) -> Stepped:
        """Go past steps that were taken, and return their result."""
        count = len(steps.inputs)
        if self.next_tape is not None:
            self.tape, self.next_tape = self.next_tape, None
            self.oldest = self.oldest if self.step else 0
        self.step += count
        self.latest = self.step
        self.logged += packed_bytes(steps.inputs, steps.form) + ENTRY_BYTES
        self.logged_steps += count
        if steps.seq is None:
            return Stepped(result, self.step)
        self.seq = steps.seq
        is_kept = _bytes(result) <= KEPT_RESULT_BYTES
        stepped = Stepped(_alone(result) if is_kept else result, self.step)
        self.last = stepped if is_kept else None
        return stepped

    def move(self, step: int, seq: int | None) -> None:
        """Go to a step, where the store does not lead."""
        assert self.is_volatile, self.where
        self.step, self.latest, self.seq = step, step, seq

    def recomputed(self, kept: int) -> None:
        """Note that the state in the slot was computed anew, from the snapshot of the step `kept`, 0 for none."""
        self.last, self.kept = None, kept

    def restart_log(self, entries: int) -> None:
        """Count the bytes of the log anew; entries: steps since the last snapshot that is not passing."""
        self.logged = entries * (self.model.inputs.width * NUMBER_BYTES + ENTRY_BYTES)
        self.logged_steps = entries

    def snapshotted(self, passing: bool) -> None:
        """Note that a snapshot is being written."""
        self.kept = self.step
        if not passing:
            self.logged = self.logged_steps = 0

    def retain(self, tape: int, oldest: int) -> None:
        """Note the oldest step that is still kept of a tape, unless the session is on another one by now."""
        if self.tape == tape:
            self.oldest = oldest

    # What may be asked of it

    def check_kept(self, step: int) -> None:
        """Raise StepNotKept unless the state after this step can be computed."""
        if self.is_volatile:
            kept, expected = step in (0, self.step), f"0 or {self.step}"
        else:
            kept = step == 0 or self.oldest <= step <= self.latest
            expected = f"0, or {self.oldest} to {self.latest}" if self.oldest else f"0 to {self.latest}"
        if not kept:
            raise StepNotKept(
                f"session {self.public_id} is at step {self.step}, and step {step} is not kept: expected {expected}",
                place="step",
                expected=expected,
                got=str(step),
                step=self.step,
            )

    def check_recorded(self, first: int, last: int) -> None:
        """Raise StepNotKept unless the log has the steps after `first`, up to `last`; both can be looked at."""
        if first < last and (self.is_volatile or first < self.oldest):
            start = self.step if self.is_volatile else self.oldest
            raise StepNotKept(
                f"session {self.public_id} is at step {self.step}, and the inputs of the steps from {first} to {last} "
                f"are not kept: expected to begin at {start} or later",
                place="from",
                expected=f"{start} to {self.latest}",
                got=str(first),
                step=self.step,
            )

    def check_step(self, wanted: int | None) -> None:
        """Raise StepConflict unless the session is at the wanted step, if any."""
        if wanted not in (None, self.step):
            raise StepConflict(
                f"session {self.public_id} is at step {self.step}, not {wanted}",
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
        tape, previous = (self.tape, None) if self.next_tape is None else (self.next_tape, self.tape)
        data = pack(steps.inputs, steps.form)
        return Entry(tape, self.epoch, self.step, len(steps.inputs), data, steps.seq, previous)

    def packed(self, step: int, state: Mapping[str, Array], onto: Onto | None = None) -> bytes:
        """Return the session at a step as a file; onto: that the file is to be of, if another. Raises OutOfMemory."""
        model, force = onto or (self.model, self.force)
        snapshot = Snapshot(model.name, model.fingerprint, self.memory_size, step, state, force)
        try:
            return snapshot.to_bytes()
        except MemoryError as error:
            raise OutOfMemory("not enough memory is left to write this session down: try again later") from error


def info_of(session: Session | Record, model: str) -> SessionInfo:
    """Return the info of a session of a model, in use or as the store has it."""
    return SessionInfo(
        id=outside(session.id),
        model=model,
        memory_size=session.memory_size,
        step=session.step,
        seq=session.seq,
        latest=session.latest,
        oldest=session.oldest,
        opened=session.opened,
        used=session.used,
        force=session.force,
    )


def gone(session: str, reason: EndReason) -> SessionGone:
    """Return the error for the session of this name, which has ended."""
    return SessionGone(f"session {outside(session)} is gone: {reason}", reason=reason)


def _bytes(result: Result) -> int:
    return result.outputs.nbytes + sum(values.nbytes for values in result.trace.values())


def _alone(result: Result) -> Result:
    """Return a result that keeps no more memory alive than its own: a copy of a row of a batch."""
    trace = {name: _own(values) for name, values in result.trace.items()}
    return Result(_own(result.outputs), trace)


def _own(values: Array) -> Array:
    whole = values.base
    return values if whole is None or whole.nbytes == values.nbytes else values.copy()
