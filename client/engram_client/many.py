"""Steps of many sessions in one request, those of each session taken once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from engram_client.connection import Connection
from engram_client.errors import Conflict, EngramClientError, Lost, Unreachable
from engram_client.messages import packed, post_packed, read_many
from engram_client.results import Array, Stepped
from engram_client.retries import Tries
from engram_client.sessions import AsyncSession
from engram_client.wires import Request

S = TypeVar("S")

Outcome = Stepped | EngramClientError


@dataclass(frozen=True, eq=False)
class ManyStepped(Mapping[S, Stepped], Generic[S]):
    """The results of many sessions: session -> Stepped. To ask for that of a session which failed raises its error."""

    outcomes: Mapping[S, Outcome]
    """Session -> its result or its error."""

    @property
    def errors(self) -> dict[S, EngramClientError]:
        """The errors of the sessions that failed."""
        return {session: found for session, found in self.outcomes.items() if isinstance(found, EngramClientError)}

    def __getitem__(self, session: S) -> Stepped:
        """Return the result of a session, or raise its error."""
        found = self.outcomes[session]
        if isinstance(found, EngramClientError):
            raise found
        return found

    def __iter__(self) -> Iterator[S]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} sessions, {len(self.errors)} with an error>"


def check_sessions(inputs: object, kind: type) -> None:
    """Raise ValueError unless inputs are those of sessions of a kind: session -> inputs."""
    if not isinstance(inputs, Mapping) or not all(isinstance(session, kind) for session in inputs):
        raise ValueError(f"step_many: expected {{{kind.__name__}: inputs}}, got {repr(inputs)[:60]}")


class ManySteps:
    """One call that steps many sessions, until each has an outcome or the time is over.

    A session that the server cannot step now is asked for again, without those that are done. Sessions are put to their
    new steps when all is over: a call that was interrupted can be made again.
    """

    def __init__(self, client: Connection, wanted: Mapping[AsyncSession, Array], trace: Sequence[str]) -> None:
        self._client = client
        self._wanted = wanted
        self._trace = trace
        self._doubtful = {session for session in wanted if session._in_doubt}
        """Sessions whose steps an earlier call, or an earlier try, may have taken."""
        self._outcomes: dict[AsyncSession, Outcome] = {}

    async def run(self) -> dict[AsyncSession, Outcome]:
        """Return the outcomes. Raises Unreachable where there is none, InvalidRequest where the request is refused."""
        for session in self._wanted:
            session._in_doubt = True
        try:
            await self._client._persist(self._once, self._client._tries())
        except Unreachable as unreachable:
            if not self._outcomes:
                raise
            self._outcomes |= dict.fromkeys(self._pending, unreachable)
        for session, outcome in self._outcomes.items():
            if isinstance(outcome, Stepped):
                session._in_doubt, session.step = False, outcome.step
        return {session: self._outcomes[session] for session in self._wanted}

    @property
    def _pending(self) -> list[AsyncSession]:
        return [session for session in self._wanted if session not in self._outcomes]

    async def _once(self, tries: Tries) -> None:
        """Ask for the sessions without an outcome. Raises Lost where some are still without one."""
        asked, lost = self._pending, list[Lost]()
        if tries.reached:
            self._doubtful.update(asked)
        answers = await self._client._once(self._request(asked), read_many, tries)
        for session, answer in zip(asked, answers, strict=True):
            if isinstance(answer, Lost):
                lost.append(answer)
            else:
                self._outcomes[session] = await self._outcome(session, answer)
        if lost:
            raise max(lost, key=lambda one: one.after)

    async def _outcome(self, session: AsyncSession, answer: Outcome) -> Outcome:
        """Return the answer of a session, or its recorded steps where they were taken before."""
        if not isinstance(answer, Conflict) or session not in self._doubtful:
            return answer
        try:
            return await session._find(self._wanted[session], self._trace, answer) or answer
        except EngramClientError as error:
            return error

    def _request(self, sessions: Sequence[AsyncSession]) -> Request:
        """Return the request of these sessions: one array, where they are of one model and have as many steps."""
        arrays = [self._wanted[session] for session in sessions]
        kinds = {(session.model, session.memory_size, self._wanted[session].shape) for session in sessions}
        document = {
            "sessions": [session.id for session in sessions],
            "inputs": packed(np.stack(arrays), 1.0) if len(kinds) == 1 else [array.tolist() for array in arrays],
            "trace": self._trace,
            "if_steps": [session.step for session in sessions],
        }
        return post_packed("/steps", document)
