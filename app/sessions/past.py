"""Any step of a session again: the nearest snapshot before it, and the log from there, through the engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from app.backends.base import Array, Spec
from app.engine.run import Replayed, Result
from app.errors import InvalidSnapshot, SessionDamaged, StepNotKept
from app.sessions.dtypes import unpack
from app.sessions.snapshot import LARGE, Snapshot
from app.stores.base import LoggedSteps, Store
from app.stores.writer import Writer

CHUNK_BYTES = 2**18
"""Inputs that are read from the log at a time."""

CHUNK_STEPS = 256
"""Steps that are taken again at a time, at most: the others of the model have their turn in between."""


class Reached(NamedTuple):
    """A state, None for that before the first step, and the step of the snapshot that it was computed from, or 0."""

    state: Mapping[str, Array] | None
    kept: int


class Beginning(NamedTuple):
    """The records from which a state is computed: the nearest snapshot and its step, if any, and the log from there."""

    snapshot: tuple[int, bytes] | None
    log: Sequence[LoggedSteps]


def beginning(store: Store, tape: int, step: int) -> Beginning:
    """Return what the state at a step of a tape is computed from; of a long log, the first CHUNK_BYTES."""
    found = store.before(tape, step) if step else None
    at = found[0] if found else 0
    return Beginning(found, store.steps(tape, at, step, CHUNK_BYTES) if at < step else [])


class Piece(NamedTuple):
    """Some steps again, from `step` on: inputs [T, input_size] and what they gave."""

    step: int
    inputs: Array
    result: Result
    seqs: Sequence[int | None]


Replay = Callable[[Array, Mapping[str, Array] | None, int | None, Sequence[str], str | None], Awaitable[Replayed]]
"""Engine.replay, or one that makes room for it."""


@dataclass(frozen=True)
class Past:
    """The past of one session: what is on its tape. first: gives the state before the first step; spec: of the session.

    It can be read while the session goes on: a tape does not change. Raises StepNotKept where retention, or the end
    of the session, has taken the steps meanwhile; SessionDamaged; and what Engine.replay raises.
    """

    writer: Writer
    replay: Replay
    first: Callable[[], Awaitable[Mapping[str, Array]]]
    spec: Spec
    tape: int

    async def state(self, step: int) -> Mapping[str, Array]:
        """Return the state at a step."""
        state = (await self.reach(step)).state
        return await self.first() if state is None else state

    async def reach(self, step: int, begun: Beginning | None = None) -> Reached:
        """Return the state at a step, and what it was computed from; begun: what the store has for it, if known."""
        if begun is None:
            begun = await self.writer.call(lambda store: beginning(store, self.tape, step))
        kept, state = await self._unpack(begun.snapshot)
        async for _, after in self._replay(kept, state, step, (), begun.log):
            state = after
        return Reached(state, kept)

    async def pieces(self, start: int, stop: int, trace: Sequence[str]) -> AsyncIterator[Piece]:
        """Yield the steps from `start` up to `stop`, in order."""
        if start < stop:
            before = await self.reach(start)
            async for piece, _ in self._replay(start, before.state, stop, trace):
                yield piece

    async def _unpack(self, found: tuple[int, bytes] | None) -> tuple[int, Mapping[str, Array] | None]:
        """Return the step of a snapshot and its state; without one, those before the first step."""
        if found is None:
            return 0, None
        at, data = found
        try:
            snapshot = (
                Snapshot.from_bytes(data) if len(data) < LARGE else await asyncio.to_thread(Snapshot.from_bytes, data)
            )
            snapshot.check_shapes(self.spec)
        except InvalidSnapshot as error:
            raise SessionDamaged(f"the snapshot of tape {self.tape} at step {at} is damaged: {error}") from error
        if snapshot.step != at:
            raise SessionDamaged(f"the snapshot of tape {self.tape} at step {at} is one of step {snapshot.step}")
        return at, snapshot.state

    async def _replay(
        self,
        at: int,
        state: Mapping[str, Array] | None,
        stop: int,
        trace: Sequence[str],
        log: Sequence[LoggedSteps] = (),
    ) -> AsyncIterator[tuple[Piece, Mapping[str, Array]]]:
        """Take the steps from `at` up to `stop` again, and yield them with the state after them.

        log: of the first of them, if it was read.
        """
        while at < stop:
            log = log or await self._log(at, stop)
            if not log:
                raise StepNotKept(f"step {at} is not kept any more", place="step", got=str(at))
            inputs = self._inputs(log, at, stop)
            seqs = [steps.seq for steps in log for _ in range(steps.steps)]
            log = ()
            for first in range(0, len(inputs), CHUNK_STEPS):
                chunk = slice(first, first + CHUNK_STEPS)
                result, state = await self.replay(inputs[chunk], state, self.spec.memory_size, trace, self.spec.force)
                yield Piece(at, inputs[chunk], result, seqs[chunk]), state
                at += len(result.outputs)

    def _inputs(self, log: Sequence[LoggedSteps], at: int, stop: int) -> Array:
        """Return the inputs of rows of the log, [T, width]. Raises SessionDamaged unless they are the steps from `at`.

        A step that was left out, or taken twice, would give a state that the session never had.
        """
        rows, width = [], self.spec.input_size
        for steps in log:
            try:
                if steps.step != at or not 0 < steps.steps <= stop - at:
                    raise ValueError("these are not the next steps")
                rows.append(unpack(steps.inputs, steps.steps, width))
            except ValueError as error:
                raise SessionDamaged(
                    f"the log of tape {self.tape} is damaged at step {at}: expected steps of {width} numbers from "
                    f"there on, but it has {steps.steps} from step {steps.step} on, in {len(steps.inputs)} bytes, and "
                    f"{error}"
                ) from None
            at += steps.steps
        return np.concatenate(rows)

    async def _log(self, start: int, stop: int) -> list[LoggedSteps]:
        return await self.writer.call(lambda store: store.steps(self.tape, start, stop, CHUNK_BYTES))


async def resolved(step: int, found: Mapping[str, Array] | Past) -> Mapping[str, Array]:
    """Return the state at a step, from the past where it was not found as it is."""
    return await found.state(step) if isinstance(found, Past) else found
