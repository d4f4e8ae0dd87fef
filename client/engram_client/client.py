"""The client of a server: models, whole sequences, and the opening of sessions."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar

from numpy.typing import ArrayLike

from engram_client.blocking import now
from engram_client.cards import Card
from engram_client.connection import Connection, with_key
from engram_client.many import ManyStepped, ManySteps, check_sessions
from engram_client.messages import (
    SAFETENSORS,
    Force,
    get,
    names_of,
    post,
    quoted,
    read_card,
    read_cards,
    read_episode,
    read_result,
    read_results,
    sequence_of,
    without_none,
)
from engram_client.results import Array, Episode, Result
from engram_client.sessions import AsyncSession, Session, opened
from engram_client.wires import AsyncioWire, BlockingWire, Request, Wire

T = TypeVar("T")


class AsyncClient(Connection):
    """The client of a server, for asyncio; tasks may share it.

    url: http://HOST:PORT, or https. timeout: seconds for which a call is tried until there is an answer, math.inf for
    ever. headers: sent with every request, such as a proxy asks for. wire: another than that of asyncio, which has
    headers and a key of its own. key: of the server; None takes that of the environment variable ENGRAM_KEY, if any.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
        wire: Wire | None = None,
        *,
        key: str | None = None,
    ) -> None:
        super().__init__(url, timeout)
        self._wire = wire or AsyncioWire(self.url, with_key(headers, key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def models(self) -> list[Card]:
        """Return the cards of the models that are served."""
        return await self._send(get("/models"), read_cards)

    async def model(self, name: str) -> Card:
        """Return the card of a model."""
        return await self._send(get(f"/models/{quoted(name)}"), read_card)

    async def sample(self, name: str, seed: int | None = None, **sizes: int | str) -> Array:
        """Return inputs to try a model with, [T, input_size]: those of `episode`."""
        return (await self.episode(name, seed, **sizes)).inputs

    async def episode(self, name: str, seed: int | None = None, **sizes: int | str) -> Episode:
        """Return a sequence of a model's task with its answer, its recording, or inputs that it takes.

        seed: the same seed and sizes give the same sequence. sizes: of the task, such as length=20; others are drawn,
        as in training. Raises InvalidRequest for a size that the task does not have.
        """
        path = f"/models/{quoted(name)}/sample"
        return await self._send(get(path, SAFETENSORS, **{"seed": seed, **sizes}), read_episode)

    async def infer(
        self,
        model: str,
        inputs: ArrayLike,
        trace: Iterable[str] = (),
        memory_size: int | None = None,
        force: Force | None = None,
    ) -> Result:
        """Run one sequence, [T, input_size], or [T] of tokens, from a fresh state that is not kept.

        force: the gates to hold at values.
        """
        return await self._infer(model, sequence_of(inputs).tolist(), trace, memory_size, force, read_result)

    async def infer_many(
        self,
        model: str,
        sequences: Iterable[ArrayLike],
        trace: Iterable[str] = (),
        memory_size: int | None = None,
        force: Force | None = None,
    ) -> list[Result]:
        """Run sequences of any lengths together, each from a fresh state that is not kept; force: as of `infer`."""
        several = [sequence_of(inputs).tolist() for inputs in sequences]
        if not several:
            return []
        return await self._infer(model, several, trace, memory_size, force, read_results)

    async def _infer(
        self,
        model: str,
        inputs: Any,
        trace: Iterable[str],
        memory_size: int | None,
        force: Force | None,
        read: Callable[[bytes], T],
    ) -> T:
        document = {"model": model, "inputs": inputs, "trace": names_of(trace), "memory_size": memory_size}
        document["force"] = force
        return await self._send(post("/infer", document), read)

    async def step_many(
        self, inputs: Mapping[AsyncSession, ArrayLike], trace: Iterable[str] = ()
    ) -> ManyStepped[AsyncSession]:
        """Step many sessions in one request, each over its inputs, once: `client.step_many({session: inputs})`.

        The sessions may be of several models. One that fails does so alone: its error is raised where its result is
        asked for. Raises InvalidRequest where inputs are refused, and Unreachable without any answer: no session is
        stepped then, or the same call again is still carried out once.
        """
        check_sessions(inputs, AsyncSession)
        for session in inputs:
            if session._client is not self:
                raise ValueError(f"session {session.id}: expected one of this client of {self.url}, got another's")
        wanted = {session: sequence_of(sequence) for session, sequence in inputs.items()}
        return ManyStepped(await ManySteps(self, wanted, names_of(trace)).run() if wanted else {})

    async def open(self, model: str, memory_size: int | None = None, force: Force | None = None) -> AsyncSession:
        """Open a session; force: the gates that it holds at values for its whole life."""
        return await opened(self, post("/sessions", {"model": model, "memory_size": memory_size, "force": force}))

    async def restore(self, snapshot: bytes, model: str | None = None) -> AsyncSession:
        """Open a session that continues from a snapshot, of this server or another.

        model: the name of the snapshot's model on this server, if it has another here.
        """
        headers = {"Content-Type": SAFETENSORS, "Idempotency-Key": uuid.uuid4().hex}
        request = Request("POST", "/sessions", without_none(model=model), headers, bytes(snapshot))
        return await opened(self, request)

    async def session(self, session_id: str) -> AsyncSession:
        """Return an open session, at the step that it has reached."""
        return await opened(self, get(f"/sessions/{quoted(session_id)}"))

    async def sessions(self, model: str | None = None, limit: int = 100) -> list[AsyncSession]:
        """Return the open sessions, of one model or of all, the most recently used first."""

        def read(content: bytes) -> list[AsyncSession]:
            return [AsyncSession(self, document) for document in json.loads(content)]

        return await self._send(get("/sessions", model=model, limit=limit), read)


class Client:
    """The client of a server; threads may share it.

    url: http://HOST:PORT, or https. timeout: seconds for which a call is tried until there is an answer, math.inf for
    ever. headers: sent with every request, such as a proxy asks for. key: of the server; None takes that of the
    environment variable ENGRAM_KEY, if any.
    """

    def __init__(
        self, url: str, timeout: float = 60.0, headers: Mapping[str, str] | None = None, *, key: str | None = None
    ) -> None:
        wire = BlockingWire(url.rstrip("/"), with_key(headers, key))
        self._client = AsyncClient(url, timeout, wire=wire)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        now(self._client.close())

    def models(self) -> list[Card]:
        """Return the cards of the models that are served."""
        return now(self._client.models())

    def model(self, name: str) -> Card:
        """Return the card of a model."""
        return now(self._client.model(name))

    def sample(self, name: str, seed: int | None = None, **sizes: int | str) -> Array:
        """Return inputs to try a model with, [T, input_size]: those of `episode`."""
        return now(self._client.sample(name, seed, **sizes))

    def episode(self, name: str, seed: int | None = None, **sizes: int | str) -> Episode:
        """Return a sequence of a model's task with its answer, its recording, or inputs that it takes.

        seed: the same seed and sizes give the same sequence. sizes: of the task, such as length=20; others are drawn,
        as in training. Raises InvalidRequest for a size that the task does not have.
        """
        return now(self._client.episode(name, seed, **sizes))

    def infer(
        self,
        model: str,
        inputs: ArrayLike,
        trace: Iterable[str] = (),
        memory_size: int | None = None,
        force: Force | None = None,
    ) -> Result:
        """Run one sequence, [T, input_size], or [T] of tokens, from a fresh state that is not kept.

        force: the gates to hold at values.
        """
        return now(self._client.infer(model, inputs, trace, memory_size, force))

    def infer_many(
        self,
        model: str,
        sequences: Iterable[ArrayLike],
        trace: Iterable[str] = (),
        memory_size: int | None = None,
        force: Force | None = None,
    ) -> list[Result]:
        """Run sequences of any lengths together, each from a fresh state that is not kept; force: as of `infer`."""
        return now(self._client.infer_many(model, sequences, trace, memory_size, force))

    def step_many(self, inputs: Mapping[Session, ArrayLike], trace: Iterable[str] = ()) -> ManyStepped[Session]:
        """Step many sessions in one request, each over its inputs, once: `client.step_many({session: inputs})`.

        The sessions may be of several models. One that fails does so alone: its error is raised where its result is
        asked for. Raises InvalidRequest where inputs are refused, and Unreachable without any answer: no session is
        stepped then, or the same call again is still carried out once.
        """
        check_sessions(inputs, Session)
        sessions = {session._session: session for session in inputs}
        done = now(self._client.step_many({session._session: inputs[session] for session in inputs}, trace))
        return ManyStepped({sessions[session]: outcome for session, outcome in done.outcomes.items()})

    def open(self, model: str, memory_size: int | None = None, force: Force | None = None) -> Session:
        """Open a session; force: the gates that it holds at values for its whole life."""
        return Session(now(self._client.open(model, memory_size, force)))

    def restore(self, snapshot: bytes, model: str | None = None) -> Session:
        """Open a session that continues from a snapshot, of this server or another.

        model: the name of the snapshot's model on this server, if it has another here.
        """
        return Session(now(self._client.restore(snapshot, model)))

    def session(self, session_id: str) -> Session:
        """Return an open session, at the step that it has reached."""
        return Session(now(self._client.session(session_id)))

    def sessions(self, model: str | None = None, limit: int = 100) -> list[Session]:
        """Return the open sessions, of one model or of all, the most recently used first."""
        return [Session(session) for session in now(self._client.sessions(model, limit))]
