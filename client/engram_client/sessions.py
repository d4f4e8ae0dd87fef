"""An open session over HTTP: steps, the past, and the end."""

import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from engram_client.blocking import iterate, now
from engram_client.connection import Connection
from engram_client.errors import Conflict, InvalidRequest, NotFound, SessionGone
from engram_client.figures import WATCHED
from engram_client.messages import (
    JSON_LINES,
    SAFETENSORS,
    Force,
    get,
    names_of,
    post,
    quoted,
    read_card,
    read_kept,
    read_leaves,
    read_stepped,
    read_steps,
    sequence_of,
)
from engram_client.recordings import Recording
from engram_client.results import Array, Recorded, Stepped
from engram_client.streams import AsyncStream, Stream
from engram_client.tables import html_table
from engram_client.wires import Request

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = 1000
"""Steps of a recording that one request reads."""

PLOTTED = 500
"""The most steps of a figure, unless more are asked for."""


class AsyncSession:
    """An open session: one task at a time may use it, and one client at a time step it."""

    def __init__(self, client: Connection, document: Mapping[str, Any]) -> None:
        self.id: str = document["id"]
        self.model: str = document["model"]
        self.memory_size: int | None = document["memory_size"]
        self.force: Force | None = document.get("force")
        """The gates that the session holds at values; None where it forces none."""
        self.step: int = document["step"]
        """The number of steps that the session has taken, as far as this client knows."""
        self._client = client
        self._path = f"/sessions/{quoted(self.id)}"
        self._in_doubt = False
        """Whether a call of `run` ended without an answer: its steps may have been taken."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self.model} at step {self.step}>"

    def _repr_html_(self) -> str:
        members = {"model": self.model, "step": self.step, "memory_size": self.memory_size, "force": self.force}
        return html_table(f"Session {self.id}", [(name, value) for name, value in members.items() if value is not None])

    async def run(self, inputs: ArrayLike, trace: Iterable[str] = ()) -> Stepped:
        """Step over inputs, [T, input_size], or [T] of tokens: all of them, once, or none.

        After an interruption, or Unreachable, the same call again is still carried out once. Raises Conflict where
        another client has stepped the session; the member `step` of its problem is the step that it has reached.
        """
        sequence, names = sequence_of(inputs), names_of(trace)
        document = {"inputs": sequence.tolist(), "trace": names, "if_step": self.step}
        tries = self._client._tries()
        tries.reached = self._in_doubt
        self._in_doubt = True
        try:
            request = post(f"{self._path}/steps", document)
            stepped = await self._client._send(request, lambda content: read_stepped(json.loads(content)), tries)
        except Conflict as conflict:
            found = await self._find(sequence, names, conflict) if tries.reached else None
            if found is None:
                raise
            stepped = found
        self._in_doubt = False
        self.step = stepped.step
        return stepped

    async def _find(self, sequence: Array, names: Sequence[str], conflict: Conflict) -> Stepped | None:
        """Return the outputs of the next steps, if they were taken with these inputs, else None."""
        reached = self.step + len(sequence)
        if conflict.code != "step_conflict" or conflict.problem["step"] < reached:
            return None
        try:
            past = [recorded async for recorded in self.recording(self.step, reached, names)]
        except (Conflict, InvalidRequest, NotFound) as error:
            raise conflict from error
        if not np.array_equal([recorded.inputs for recorded in past], sequence):
            return None
        outputs = np.stack([recorded.outputs for recorded in past])
        return Stepped(
            outputs, {name: np.stack([recorded.trace[name] for recorded in past]) for name in names}, reached
        )

    def stream(self, dtype: str = "float32", scale: float = 1.0) -> AsyncStream:
        """Return a stream over WebSocket, for a `with` block.

        Arrays of float16 and int16 are sent in their dtype; the server multiplies those of int16 by `scale`. dtype:
        float32 or float16, in which the server sends outputs and traces; the stream returns float32 arrays either way.
        """
        return AsyncStream(self, self._client, f"{self._path}/stream", dtype, scale)

    async def state(self, names: Iterable[str] | None = None, step: int | None = None) -> dict[str, Array]:
        """Return the state after a step, or after the last: its leaves by name, without a batch axis."""
        chosen = None if names is None else ",".join(names_of(names))
        request = get(f"{self._path}/state", SAFETENSORS, names=chosen, step=step)
        return await self._client._send(request, read_leaves)

    async def fork(
        self, step: int | None = None, model: str | None = None, force: Force | None = None
    ) -> "AsyncSession":
        """Return a new session with the same past up to a step, or up to the last.

        model: of this model, in the version that is served now, with the state of that step and no past. force: the
        gates that it holds at values, in place of those of this session, with no past either; {} frees them.
        """
        wanted = {"step": step, "model": model, "force": force}
        return await opened(self._client, post(f"{self._path}/fork", wanted))

    async def rewind(self, step: int) -> None:
        """Go back to a step of the past; until the next step, a rewind can also go forward again."""
        await self._move(post(f"{self._path}/rewind", {"step": step}))

    async def reset(self) -> None:
        """Go back to before the first step; enter streams anew after it."""
        await self._move(post(f"{self._path}/reset", {}))

    async def _move(self, request: Request) -> None:
        _, self.step = await self._client._send(request, read_kept)
        self._in_doubt = False

    async def recording(
        self, start: int | None = None, stop: int | None = None, trace: Iterable[str] = ()
    ) -> AsyncGenerator[Recorded, None]:
        """Yield the steps after `start` (default: all that are kept) up to `stop` (default: the last)."""
        names = ",".join(names_of(trace)) or None
        if start is None or stop is None:
            oldest, step = await self._client._send(get(self._path), read_kept)
            start = min(oldest, step) if start is None else start
            stop = step if stop is None else stop
        for first in range(start, stop, PAGE):
            query = {"from": first, "to": min(first + PAGE, stop), "trace": names}
            for recorded in await self._client._send(get(f"{self._path}/recording", JSON_LINES, **query), read_steps):
                yield recorded

    async def plot(
        self, start: int | None = None, stop: int | None = None, trace: Iterable[str] | None = None
    ) -> "Figure":
        """Draw the steps after `start` up to `stop` (default: the last 500 that are kept), with traces, over time.

        trace: names; None takes the weightings of the heads and the usage, where the model has them. Raises
        ModuleNotFoundError without matplotlib, ValueError where there are no steps.
        """
        if trace is None:
            card = await self._client._send(get(f"/models/{quoted(self.model)}"), read_card)
            trace = [name for name in WATCHED if name in card.trace]
        oldest, step = await self._client._send(get(self._path), read_kept)
        stop = step if stop is None else stop
        start = max(min(oldest, step), stop - PLOTTED) if start is None else start
        past = Recording.of([recorded async for recorded in self.recording(start, stop, trace)])
        return past.plot()

    async def snapshot(self, step: int | None = None) -> bytes:
        """Return the session after a step, or after the last, as a safetensors file that `restore` takes."""
        return await self._client._send(get(f"{self._path}/snapshot", SAFETENSORS, step=step), bytes)

    async def delete(self) -> None:
        """End the session."""
        tries = self._client._tries()
        try:
            await self._client._send(Request("DELETE", self._path), bytes, tries)
        except SessionGone as gone:
            if not tries.reached or gone.problem.get("reason") != "deleted":
                raise


async def opened(client: Connection, request: Request) -> AsyncSession:
    """Return the session that a request opens or finds."""
    return await client._send(request, lambda content: AsyncSession(client, json.loads(content)))


class Session:
    """An open session: one thread at a time may use it, and one client at a time step it."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    @property
    def id(self) -> str:
        return self._session.id

    @property
    def model(self) -> str:
        return self._session.model

    @property
    def memory_size(self) -> int | None:
        return self._session.memory_size

    @property
    def force(self) -> Force | None:
        """Return the gates that the session holds at values; None where it forces none."""
        return self._session.force

    @property
    def step(self) -> int:
        """Return the number of steps that the session has taken, as far as this client knows."""
        return self._session.step

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self.model} at step {self.step}>"

    def _repr_html_(self) -> str:
        return self._session._repr_html_()

    def run(self, inputs: ArrayLike, trace: Iterable[str] = ()) -> Stepped:
        """Step over inputs, [T, input_size], or [T] of tokens: all of them, once, or none.

        After an interruption, or Unreachable, the same call again is still carried out once. Raises Conflict where
        another client has stepped the session; the member `step` of its problem is the step that it has reached.
        """
        return now(self._session.run(inputs, trace))

    def stream(self, dtype: str = "float32", scale: float = 1.0) -> Stream:
        """Return a stream over WebSocket, for a `with` block.

        Arrays of float16 and int16 are sent in their dtype; the server multiplies those of int16 by `scale`. dtype:
        float32 or float16, in which the server sends outputs and traces; the stream returns float32 arrays either way.
        """
        return Stream(self, self._session.stream(dtype, scale))

    def state(self, names: Iterable[str] | None = None, step: int | None = None) -> dict[str, Array]:
        """Return the state after a step, or after the last: its leaves by name, without a batch axis."""
        return now(self._session.state(names, step))

    def fork(self, step: int | None = None, model: str | None = None, force: Force | None = None) -> "Session":
        """Return a new session with the same past up to a step, or up to the last.

        model: of this model, in the version that is served now, with the state of that step and no past. force: the
        gates that it holds at values, in place of those of this session, with no past either; {} frees them.
        """
        return Session(now(self._session.fork(step, model, force)))

    def rewind(self, step: int) -> None:
        """Go back to a step of the past; until the next step, a rewind can also go forward again."""
        now(self._session.rewind(step))

    def reset(self) -> None:
        """Go back to before the first step; enter streams anew after it."""
        now(self._session.reset())

    def recording(
        self, start: int | None = None, stop: int | None = None, trace: Iterable[str] = ()
    ) -> Iterator[Recorded]:
        """Yield the steps after `start` (default: all that are kept) up to `stop` (default: the last)."""
        return iterate(self._session.recording(start, stop, trace))

    def plot(self, start: int | None = None, stop: int | None = None, trace: Iterable[str] | None = None) -> "Figure":
        """Draw the steps after `start` up to `stop` (default: the last 500 that are kept), with traces, over time.

        trace: names; None takes the weightings of the heads and the usage, where the model has them. Raises
        ModuleNotFoundError without matplotlib, ValueError where there are no steps.
        """
        return now(self._session.plot(start, stop, trace))

    def snapshot(self, step: int | None = None) -> bytes:
        """Return the session after a step, or after the last, as a safetensors file that `restore` takes."""
        return now(self._session.snapshot(step))

    def delete(self) -> None:
        """End the session."""
        now(self._session.delete())
