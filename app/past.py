"""Any step of a session again: the nearest snapshot before it, and the log from there, through the engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from app.backends.base import NUMBER_BYTES, Array, Spec
from app.engine.run import Replayed, Result
from app.errors import InvalidSnapshot, SessionDamaged, StepNotKept
from app.snapshot import LARGE, Snapshot
from app.stores.base import Steps
from app.stores.writer import Writer

CHUNK_BYTES = 2**18
"""Inputs that are read from the log at a time."""

CHUNK_STEPS = 256
"""Steps that are taken again at a time, at most: the others of the model have their turn in between."""


class Reached(NamedTuple):
    """A state, None for that before the first step, and the step of the snapshot that it was computed from, or 0."""

    state: Mapping[str, Array] | None
    kept: int


class Piece(NamedTuple):
    """Some steps again, from `step` on: inputs [T, input_size] and what they gave."""

    step: int
    inputs: Array
    result: Result
    seqs: Sequence[int | None]


Replay = Callable[[Array, Mapping[str, Array] | None, int | None, Sequence[str]], Awaitable[Replayed]]
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

    async def reach(self, step: int) -> Reached:
        """Return the state at a step, and what it was computed from."""
        kept, state = await self._nearest(step)
        async for _, after in self._replay(kept, state, step, ()):
            state = after
        return Reached(state, kept)

    async def pieces(self, start: int, stop: int, trace: Sequence[str]) -> AsyncIterator[Piece]:
        """Yield the steps from `start` up to `stop`, in order."""
        if start < stop:
            before = await self.reach(start)
            async for piece, _ in self._replay(start, before.state, stop, trace):
                yield piece

    async def _nearest(self, step: int) -> tuple[int, Mapping[str, Array] | None]:
        """Return the last snapshot up to a step, and its step."""
        found = await self.writer.call(lambda store: store.before(self.tape, step)) if step else None
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
        self, at: int, state: Mapping[str, Array] | None, stop: int, trace: Sequence[str]
    ) -> AsyncIterator[tuple[Piece, Mapping[str, Array]]]:
        """Take the steps from `at` up to `stop` again, and yield them with the state after them."""
        while at < stop:
            log = await self._log(at, stop)
            if not log:
                raise StepNotKept(f"step {at} is not kept any more", place="step", got=str(at))
            inputs = self._inputs(log, at, stop)
            seqs = [steps.seq for steps in log for _ in range(steps.steps)]
            for first in range(0, len(inputs), CHUNK_STEPS):
                chunk = slice(first, first + CHUNK_STEPS)
                result, state = await self.replay(inputs[chunk], state, self.spec.memory_size, trace)
                yield Piece(at, inputs[chunk], result, seqs[chunk]), state
                at += len(result.outputs)

    def _inputs(self, log: Sequence[Steps], at: int, stop: int) -> Array:
        """Return the inputs of rows of the log, [T, width]. Raises SessionDamaged unless they are the steps from `at`.

        A step that was left out, or taken twice, would give a state that the session never had.
        """
        rows, width = [], self.spec.input_size
        for steps in log:
            is_next = steps.step == at and 0 < steps.steps <= stop - at
            if not is_next or len(steps.inputs) != steps.steps * width * NUMBER_BYTES:
                raise SessionDamaged(
                    f"the log of tape {self.tape} is damaged at step {at}: expected steps of {width} numbers from "
                    f"there on, but it has {steps.steps} from step {steps.step} on, in {len(steps.inputs)} bytes"
                )
            rows.append(np.frombuffer(steps.inputs, "<f4").reshape(steps.steps, width))
            at += steps.steps
        return np.concatenate(rows)

    async def _log(self, start: int, stop: int) -> list[Steps]:
        return await self.writer.call(lambda store: store.steps(self.tape, start, stop, CHUNK_BYTES))


async def resolved(step: int, found: Mapping[str, Array] | Past) -> Mapping[str, Array]:
    """Return the state at a step, from the past where it was not found as it is."""
    return await found.state(step) if isinstance(found, Past) else found
