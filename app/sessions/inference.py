"""Whole sequences whose states are not kept: /infer."""

import asyncio
from collections.abc import Callable, Sequence

from app.backends.base import Array
from app.catalogue import ServedModel
from app.engine.run import Outcome, Result, Run
from app.errors import EngramError, OutOfMemory
from app.sessions.outcomes import outcome_of_task
from app.sessions.residents import Residents


class Inference:
    """Runs sequences; idle sessions are evicted where an arena has no room for them."""

    def __init__(self, residents: Residents) -> None:
        self._residents = residents

    async def run(
        self,
        model: ServedModel,
        sequences: Sequence[Array],
        trace: Sequence[str],
        memory_size: int | None,
        force: str | None = None,
    ) -> list[Result]:
        """Run sequences whose states are not kept, as Engine.infer does; sessions make room for them."""
        return await self._residents.with_room(lambda: model.engine.infer(sequences, trace, memory_size, force))

    def submit(
        self,
        model: ServedModel,
        inputs: Array,
        trace: Sequence[str],
        memory_size: int | None,
        done: Callable[[Result | EngramError], None],
        force: str | None = None,
    ) -> Callable[[], None]:
        """Run one sequence as `run` does; `done` is called with its result or error, once this has returned.

        Returns a function that drops it: `done` is then not called. Raises as Engine.submit does.
        """
        again: asyncio.Task[list[Result]] | None = None

        def ended(outcome: Outcome | None) -> None:
            nonlocal again
            if run.cancelled or outcome is None:
                return
            if isinstance(outcome, OutOfMemory):  # sessions make room
                again = asyncio.ensure_future(self.run(model, [inputs], trace, memory_size, force))
                again.add_done_callback(ended_again)
            elif isinstance(outcome, EngramError):
                done(outcome)
            else:
                done(outcome.errors.get(0) or outcome.row(0))

        def ended_again(task: "asyncio.Task[list[Result]]") -> None:
            if not run.cancelled:
                outcome = outcome_of_task(task)
                done(outcome if isinstance(outcome, EngramError) else outcome[0])

        def drop() -> None:
            run.cancelled = True
            if again is not None:
                again.cancel()

        run = Run(None, memory_size, inputs[None], trace, ended, force=force)
        model.engine.submit((run,))
        return drop
