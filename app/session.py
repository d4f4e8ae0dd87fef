"""A session as the server knows it while it is in use: where it is, and who uses it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from app.backends.base import Array
from app.catalogue import ServedModel
from app.engine.arenas import Slot
from app.engine.run import Result
from app.errors import OutOfMemory, SessionGone, StepNotKept
from app.snapshot import Snapshot
from app.stores.base import EndReason, Entry, Record


class Stepped(NamedTuple):
    """What a request to step gave."""

    result: Result
    step: int
    """The number of steps that the session has taken."""


class SessionInfo(NamedTuple):
    """What is told of a session."""

    id: str
    model: str
    memory_size: int | None
    step: int
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
    """

    id: str
    model: ServedModel
    memory_size: int | None
    opened: float
    used: float
    ended: "asyncio.Future[SessionGone]"
    tape: int = 0
    epoch: int = 0
    step: int = 0
    latest: int = 0
    oldest: int = 0
    seq: int | None = None
    branch: int | None = None
    slot: Slot | None = None
    unlogged: bool = False
    kept: int = 0
    logged: int = 0
    users: int = 0
    watchers: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    last: Stepped | None = None
    """What the last numbered frame gave."""

    @property
    def info(self) -> SessionInfo:
        return info_of(self, self.model.name)

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

    def entry(self, inputs: Array, seq: int | None) -> Entry:
        """Return what goes into the log for a sequence."""
        tape, branch = (self.tape, None) if self.branch is None else (self.branch, self.tape)
        data = np.ascontiguousarray(inputs, "<f4").tobytes()
        return Entry(tape, self.epoch, self.step, len(inputs), data, seq, branch)

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
        latest=session.latest,
        oldest=session.oldest,
        opened=session.opened,
        used=session.used,
    )


def gone(session: str, reason: EndReason) -> SessionGone:
    """Return the error for a session that has ended."""
    return SessionGone(f"session {session} is gone: {reason}", reason=reason)
