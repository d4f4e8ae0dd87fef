"""Steps of sessions: at once where a session is resident and its turn is free, else in its next turn."""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from app.engine.run import Outcome, Result, Run
from app.errors import EngramError, SequenceConflict
from app.futures import begin, resolve
from app.sessions.ending import Ending
from app.sessions.outcomes import as_engram_error, outcome_of_task
from app.sessions.past import Piece
from app.sessions.residents import Residents
from app.sessions.saving import Saving
from app.sessions.session import Duplicate, Session, Stepped, Steps, Where
from app.sessions.turns import Turns
from app.stores.writer import Writer

Done = Callable[[Stepped | Duplicate | EngramError], None]
"""Called with the outcome of a request to step."""


class Stepping:
    """Steps sessions."""

    def __init__(
        self,
        writer: Writer,
        turns: Turns,
        residents: Residents,
        saving: Saving,
        ending: Ending,
    ) -> None:
        self._writer = writer
        self._turns = turns
        self._residents = residents
        self._saving = saving
        self._ending = ending
        self._following_up: set[asyncio.Task[None]] = set()

    async def step(self, session: Session, steps: Steps) -> Stepped:
        """Step a session, as `submit` does; steps: without `seq`."""
        stepped = await self.begin(session, steps)
        assert isinstance(stepped, Stepped), "only frames come again"
        return stepped

    def begin(self, session: Session, steps: Steps) -> "asyncio.Future[Stepped | Duplicate]":
        """Step a session, as `submit` does, in the turn after all requests so far; return the future of the result."""
        self._turns.check_open()
        waiter: asyncio.Future[Stepped | Duplicate] = asyncio.get_running_loop().create_future()
        self.submit(self._turns.shared(session), steps, functools.partial(resolve, waiter))
        return waiter

    def submit(self, session: Session, steps: Steps, done: Done) -> None:
        """Step a session over a sequence; `done` is called with the result or the error, perhaps at once.

        All of it is carried out even if nobody needs the result any more. Errors: StepConflict where the session is at
        another step than `if_step`; SequenceConflict where a frame does not follow the last; SessionGone,
        SessionNotFound, and those of Engine.submit; the session is then as it was.
        """
        try:
            if self._is_ready(session, steps):
                self._step_at_once(session, steps, done)
                return
            task = self._turns.enqueue(session, lambda: self._step(session, steps))
        except Exception as error:
            done(as_engram_error(error))
            return
        task.add_done_callback(lambda finished: done(outcome_of_task(finished)))

    async def step_all(
        self, asked: Sequence[tuple[Session, Steps] | EngramError]
    ) -> Sequence[Stepped | Duplicate | EngramError]:
        """Step many sessions, as `submit_all` does."""
        self._turns.check_open()
        waiter: asyncio.Future[Sequence[Stepped | Duplicate | EngramError]] = asyncio.get_running_loop().create_future()
        asked = [item if isinstance(item, EngramError) else (self._turns.shared(item[0]), item[1]) for item in asked]
        self.submit_all(asked, functools.partial(resolve, waiter))
        return await waiter

    def submit_all(
        self,
        asked: Sequence[tuple[Session, Steps] | EngramError],
        done: Callable[[Sequence[Stepped | Duplicate | EngramError]], None],
    ) -> None:
        """Step many sessions, each as `submit` does; `done` is called with all results and errors, in order.

        An error instead of a session is its answer. Those that can be stepped without waiting, of one model and with as
        many steps, go through the engine as one run.
        """
        answers = _Answers(len(asked), done)
        if not asked:
            done([])
        together: dict[tuple[Any, ...], list[tuple[int, Session, Steps]]] = {}
        for number, item in enumerate(asked):
            if isinstance(item, EngramError):
                answers.put(number, item)
                continue
            session, steps = item
            if self._is_ready(session, steps) and steps.if_step in (None, session.step):
                self._turns.take(session)
                alike = (session.model, session.memory_size, session.force, len(steps.inputs), tuple(steps.trace))
                together.setdefault(alike, []).append((number, session, steps))
            else:
                self.submit(session, steps, functools.partial(answers.put, number))
        for rows in together.values():
            _, session, _ = rows[0]
            most = session.model.engine.rows_at_once(session.memory_size)
            for first in range(0, len(rows), most):
                self._step_together(rows[first : first + most], answers)

    def _step_together(self, rows: Sequence[tuple[int, Session, Steps]], answers: "_Answers") -> None:
        """Step sessions that are ready, whose turns were taken, and whose steps are alike; rows: with their numbers."""

        def end_turns(outcome: Outcome) -> None:
            for row, (number, session, steps) in enumerate(rows):
                stepped = _outcome_of(session, steps, outcome, row)
                if isinstance(stepped, Stepped) and not self._leaves_snapshot(session):
                    self._turns.leave(session)
                    answers.put(number, stepped)
                else:
                    self._end_turn(session, functools.partial(answers.put, number), stepped)

        try:
            self._submit_rows([(session, steps) for _, session, steps in rows], end_turns)
        except Exception as error:
            failure = as_engram_error(error)
            for number, session, _ in rows:
                self._turns.leave(session)
                answers.put(number, failure)

    def _is_ready(self, session: Session, steps: Steps) -> bool:
        """Return whether a session can be stepped without waiting: it is resident, and its turn is free."""
        where = session.where
        return (
            (where is Where.VOLATILE or (where is Where.RESIDENT and session.logs))
            and self._turns.is_free(session)
            and (steps.seq is None or session.is_next(steps.seq))
        )

    def _step_at_once(self, session: Session, steps: Steps, done: Done) -> None:
        """Step a session that is ready, in a turn that ends when the engine has answered."""
        self._turns.take(session)
        try:
            self._advance(session, steps, functools.partial(self._end_turn, session, done))
        except BaseException:
            self._turns.leave(session)
            raise

    def _advance(self, session: Session, steps: Steps, done: Callable[[Stepped | EngramError], None]) -> None:
        """Have the engine step a resident session; `done` is called after the session went past its steps.

        Raises StepConflict, InvalidRequest, and as Engine.submit does.
        """
        if steps.if_step is not None:
            session.check_step(steps.if_step)
        self._submit_rows(((session, steps),), lambda outcome: done(_outcome_of(session, steps, outcome, 0)))

    def _submit_rows(self, asked: Sequence[tuple[Session, Steps]], done: Callable[[Outcome], None]) -> None:
        """Have the engine step resident sessions, by steps that are alike. Raises as Engine.submit does."""
        session, first = asked[0]
        model, inputs, trace = session.model, first.inputs, first.trace
        if trace:
            model.check_trace_bytes(trace, len(asked) * len(inputs), session.memory_size)
        slots = [each.slot.number for each, _ in asked if each.slot is not None]
        entries = [each.entry(steps) for each, steps in asked] if session.logs else None
        rows = inputs[None] if len(asked) == 1 else np.stack([steps.inputs for _, steps in asked])
        model.engine.submit((Run(slots, session.memory_size, rows, trace, done, entries, force=session.force),))

    def _end_turn(self, session: Session, done: Done, outcome: Stepped | EngramError) -> None:
        """Answer, and give the turn to the next, once the step has no work left."""
        if isinstance(outcome, EngramError):
            if outcome.in_doubt:
                self._follow_up(session, self._ending.give_up(session, outcome), lambda error: done(error or outcome))
                return
            self._turns.leave(session)
        elif self._leaves_snapshot(session):
            self._follow_up(session, self._residents.keep_snapshot(session), lambda _: None)
        else:
            self._turns.leave(session)
        done(outcome)

    def _leaves_snapshot(self, session: Session) -> bool:
        """Return whether to keep a snapshot now, after a step; where the model keeps no log, one is kept later."""
        if session.snapshot_seconds is not None:
            self._saving.save_within(session, session.snapshot_seconds)
        return session.logs and self._residents.snapshot_is_due(session)

    def _follow_up(
        self,
        session: Session,
        work: Coroutine[Any, Any, EngramError | None],
        then: Callable[[EngramError | None], None],
    ) -> None:
        """Do more work in the turn of a session, and call `then` with its outcome."""

        async def follow_up() -> None:
            outcome = None
            try:
                outcome = await work
            finally:
                self._turns.leave(session)
                then(outcome)

        begin(follow_up(), self._following_up)

    async def _step(self, session: Session, steps: Steps) -> Stepped | Duplicate:
        """Step a session whose turn the caller has, wherever its state is."""
        await self._residents.restore(session)
        if not session.is_next(steps.seq):
            return await self._step_again(session, steps)
        if not session.logs and session.snapshot_seconds is None and not session.is_volatile:
            session.check_step(steps.if_step)
            await self._writer.call(lambda store: store.mark_volatile(session.id))
            session.outrun_store()
        waiter: asyncio.Future[Stepped] = asyncio.get_running_loop().create_future()
        self._advance(session, steps, functools.partial(resolve, waiter))
        try:
            stepped = await waiter
        except EngramError as error:
            if error.in_doubt:
                raise await self._ending.give_up(session, error) from None
            raise
        if self._leaves_snapshot(session):
            await self._residents.keep_snapshot(session)
        return stepped

    async def _step_again(self, session: Session, steps: Steps) -> Stepped | Duplicate:
        """Return the result of a frame that was carried out before: as it was kept, or computed again.

        Raises SequenceConflict where the frame was not carried out.
        """
        seq, last = steps.seq, session.seq
        assert seq is not None
        assert last is not None
        if seq > last:
            raise SequenceConflict(
                f"frame {seq} came after frame {last}: none may be left out",
                place="seq",
                expected=str(last + 1),
                got=str(seq),
                step=session.step,
            )
        if seq == last and session.last is not None and set(steps.trace) <= set(session.last.result.trace):
            return session.last
        found = await self._writer.call(lambda store: store.frame(session.tape, seq))
        if found is None or session.is_volatile:
            return Duplicate(session.step)
        session.model.check_trace_bytes(steps.trace, found.steps, session.memory_size)
        stop = found.step + found.steps
        pieces = [piece async for piece in self._residents.past(session).pieces(found.step, stop, steps.trace)]
        return Stepped(_joined(pieces, steps.trace), stop)


class _Answers:
    """Gathers the answers to several requests."""

    def __init__(self, count: int, done: Callable[[Sequence[Stepped | Duplicate | EngramError]], None]) -> None:
        self._answers: list[Any] = [None] * count
        self._missing = count
        self._done = done

    def put(self, number: int, answer: Stepped | Duplicate | EngramError) -> None:
        """Take the answer to one request; with the last, pass them all on."""
        self._answers[number] = answer
        self._missing -= 1
        if not self._missing:
            self._done(self._answers)


def _outcome_of(session: Session, steps: Steps, outcome: Outcome, row: int) -> Stepped | EngramError:
    """Return the outcome of a row of a run; the session of a row that was stepped goes past its steps."""
    if isinstance(outcome, EngramError):
        return outcome
    error = outcome.errors.get(row)
    return error if error is not None else session.advance(steps, outcome.row(row))


def _joined(pieces: Sequence[Piece], trace: Sequence[str]) -> Result:
    """Return the results of several pieces as one."""
    outputs = np.concatenate([piece.result.outputs for piece in pieces])
    return Result(outputs, {name: np.concatenate([piece.result.trace[name] for piece in pieces]) for name in trace})
