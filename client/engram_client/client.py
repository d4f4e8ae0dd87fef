"""A client of the server that takes every step once, whatever happens to its connections.

    with Client("http://127.0.0.1:8000") as client:
        session = client.open("dnc-copy")
        outputs = session.run(inputs).outputs             # over HTTP
        with session.stream() as stream:                  # over WebSocket
            for stepped in stream.map(sequences): ...     # several under way at a time

`AsyncClient` is the same with async and await. It needs httpx, websockets, msgpack and NumPy, and no other file of
Engram. What a client is left to guess when a connection is lost, and how this one finds out:

    sent                  lost    carried out    sent again
    steps, if_step 3 ----X        no             the answer
    steps, if_step 3 ------> 4..8 yes            409, the session is at step 8: the recording of steps 4 to 8 has these
                        X---                     inputs, and so the outputs are there; with others it is a conflict
    frame 7          ----X        no             greeted with 6, the last frame that was carried out; the answer
    frame 7          ------> 4..8 yes            greeted with 7; the answer, from the recording
                        X---

All of this is written once, as coroutines over a `_Wire`. That of `AsyncClient` waits in asyncio. That of `Client`
blocks the thread, so its coroutines never suspend: one step takes each to its end (`_now`).
"""

import asyncio
import contextlib
import json
import random
import re
import time
import uuid
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar
from urllib.parse import quote

import httpx
import msgpack
import numpy as np
import websockets.asyncio.client
import websockets.sync.client
from numpy.typing import ArrayLike, NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

T = TypeVar("T")

Array = NDArray[np.float32]

BYTES = {"float32": "<f4", "float16": "<f2", "int16": "<i2"}
"""How the numbers of an array are sent, by its dtype."""

COMPACT = ("float16", "int16")
"""Dtypes of inputs that a stream sends as they are."""

Traces = dict[str, Array]

JSON, SAFETENSORS, JSON_LINES = "application/json", "application/x-safetensors", "application/x-ndjson"

AWAY = (502, 503, 504)
"""HTTP statuses that say "not now": the server's, or those of a proxy that finds no server."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds before the second try, and at most before any other."""

CONNECT_SECONDS = 10.0
"""Seconds that one try to connect may take."""

CLOSE_SECONDS = 2.0
"""Seconds that a WebSocket's farewell may take."""

LONGEST_WAIT = 86_400.0
"""Seconds: sockets and locks are told no longer one, so that a timeout may be infinite."""

PAGE = 1000
"""Steps of a recording that are read at a time."""


class Result(NamedTuple):
    """What a whole sequence gave."""

    outputs: Array
    """[T, output_size]."""
    trace: Traces
    """Name -> [T, ...]."""
    steps: int
    """T."""


class Stepped(NamedTuple):
    """What a session gave for some steps."""

    outputs: Array
    """[T, output_size]."""
    trace: Traces
    """Name -> [T, ...]."""
    step: int
    """The number of steps that the session has taken after these."""


class Recorded(NamedTuple):
    """One step of a session's past."""

    step: int
    """The number of steps that the session had taken after this one."""
    inputs: Array
    """[input_size]."""
    outputs: Array
    """[output_size]."""
    trace: Traces
    """Name -> [...]."""


class EngramClientError(Exception):
    """What the server, or this client, has to say against a request: a problem document (RFC 9457).

    EngramClientError
    |-- InvalidRequest    400, 413, 422: something is wrong with what was sent
    |-- NotFound          404: no such model, session or route
    |-- Conflict          409: the session, or its past, is not as the request believed it to be
    |-- SessionGone       410: deleted, expired or lost
    |-- ServerError       5xx: the server failed
    |-- AnswerLost        a frame was carried out, but what it gave can no longer be had
    `-- Unreachable       no answer, or none but "not now", until the timeout
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem)
        self.problem = dict(problem)
        """All members of the problem document: place, expected, got, step, reason, ... where they apply."""
        self.code: str = problem["code"]
        """A stable name of what is wrong: docs/api.md lists the server's."""
        self.status: int | None = problem.get("status")
        """The HTTP status, None where none came."""
        self.detail: str = problem["detail"]
        """What is wrong, for people."""

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})"


class InvalidRequest(EngramClientError):
    pass


class NotFound(EngramClientError):
    pass


class Conflict(EngramClientError):
    pass


class SessionGone(EngramClientError):
    pass


class ServerError(EngramClientError):
    pass


class AnswerLost(EngramClientError):
    pass


class Unreachable(EngramClientError):
    """`problem` has the `url`, the `seconds` and the `tries`; __cause__ is what came of the last try."""


KINDS: dict[int, type[EngramClientError]] = {
    400: InvalidRequest,
    404: NotFound,
    409: Conflict,
    410: SessionGone,
    413: InvalidRequest,
    422: InvalidRequest,
}


class _Lost(Exception):
    """A try that came to nothing, and may be made again.

    reached: whether the server may have carried it out. after: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, reached: bool = True, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reached = reached
        self.after = after


class _Tries:
    """How long something is tried, and how long the pauses are.

    A pause is twice as long as the one before, less up to half of it by chance, so that the clients of a server that
    went away do not all come back at once.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._count = 0
        self.reached = False
        """Whether the server may have carried out one of them."""

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return min(max(0.0, self._deadline - time.monotonic()), LONGEST_WAIT)

    def pause(self, lost: _Lost) -> float:
        """Return the seconds to wait until the next try. Raises Unreachable where the time is over before."""
        self.reached |= lost.reached
        longest = min(FIRST_PAUSE * 2 ** min(self._count, 16), LONGEST_PAUSE)
        self._count += 1
        pause = max(random.uniform(longest / 2, longest), lost.after)
        if pause < self.left:
            return pause
        known = {"url": self._url, "seconds": self._timeout, "tries": self._count}
        detail = f"{self._url} gave no answer within {self._timeout:g} s ({self._count} tries); at last: {lost}"
        raise Unreachable({"code": "unreachable", "detail": detail} | known) from lost.__cause__ or lost


class _Request(NamedTuple):
    method: str
    path: str
    query: Mapping[str, str | int] = {}
    headers: Mapping[str, str] = {}
    content: bytes = b""


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


class _Socket(Protocol):
    """An open WebSocket. All raise _Lost when the connection is, and what its close code says."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self, timeout: float) -> str | bytes: ...

    async def close(self) -> None: ...


class _Wire(Protocol):
    """What a client does to the world. Raises _Lost for whatever keeps a request from its answer."""

    async def request(self, request: _Request, timeout: float) -> _Answer: ...

    async def connect(self, path: str, timeout: float) -> _Socket: ...

    async def pause(self, seconds: float) -> None: ...

    async def close(self) -> None: ...


class AsyncClient:
    """The client of a server, for asyncio; tasks may share it.

    url: http://HOST:PORT, or https. timeout: seconds for which a call is tried until there is an answer, math.inf for
    ever. headers: sent with every request, such as a proxy asks for. wire: another than that of asyncio.
    """

    def __init__(
        self, url: str, timeout: float = 60.0, headers: Mapping[str, str] | None = None, wire: _Wire | None = None
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http://HOST:PORT or https://HOST:PORT, got {url!r}")
        if not timeout > 0:
            raise ValueError(f"timeout: expected seconds above 0, or math.inf, got {timeout!r}")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._wire: _Wire = wire or _AsyncioWire(self.url, headers or {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def models(self) -> list[dict[str, Any]]:
        """Return the cards of the models that are served."""
        cards: list[dict[str, Any]] = await self._send(_get("/models"), json.loads)
        return cards

    async def model(self, name: str) -> dict[str, Any]:
        """Return the card of a model."""
        card: dict[str, Any] = await self._send(_get(f"/models/{_quoted(name)}"), json.loads)
        return card

    async def infer(
        self, model: str, inputs: ArrayLike, trace: Iterable[str] = (), memory_size: int | None = None
    ) -> Result:
        """Run one sequence, [T, input_size], or [T] of tokens, from a fresh state that is not kept."""
        return await self._infer(model, _sequence(inputs).tolist(), trace, memory_size, _result)

    async def infer_many(
        self, model: str, sequences: Iterable[ArrayLike], trace: Iterable[str] = (), memory_size: int | None = None
    ) -> list[Result]:
        """Run sequences of any lengths together, each from a fresh state that is not kept."""
        several = [_sequence(inputs).tolist() for inputs in sequences]
        if not several:
            return []
        return await self._infer(model, several, trace, memory_size, _results)

    async def _infer(
        self, model: str, inputs: Any, trace: Iterable[str], memory_size: int | None, read: Callable[[bytes], T]
    ) -> T:
        document = {"model": model, "inputs": inputs, "trace": _names(trace), "memory_size": memory_size}
        return await self._send(_post("/infer", document), read)

    async def open(self, model: str, memory_size: int | None = None) -> "AsyncSession":
        """Open a session."""
        return await self._session(_post("/sessions", {"model": model, "memory_size": memory_size}))

    async def restore(self, snapshot: bytes, model: str | None = None) -> "AsyncSession":
        """Open a session that goes on from a snapshot, of this server or another.

        model: the name that the snapshot's model has here, where it is not the one that it had there.
        """
        headers = {"Content-Type": SAFETENSORS, "Idempotency-Key": uuid.uuid4().hex}
        return await self._session(_Request("POST", "/sessions", _without_none(model=model), headers, bytes(snapshot)))

    async def session(self, session_id: str) -> "AsyncSession":
        """Return an open session, at the step that it has reached."""
        return await self._session(_get(f"/sessions/{_quoted(session_id)}"))

    async def sessions(self, model: str | None = None, limit: int = 100) -> list["AsyncSession"]:
        """Return the open sessions, of one model or of all, the most recently used first."""

        def read(content: bytes) -> list[AsyncSession]:
            return [AsyncSession(self, document) for document in json.loads(content)]

        return await self._send(_get("/sessions", model=model, limit=limit), read)

    async def _session(self, request: _Request) -> "AsyncSession":
        return await self._send(request, lambda content: AsyncSession(self, json.loads(content)))

    def _tries(self) -> _Tries:
        return _Tries(self.url, self.timeout)

    async def _send(self, request: _Request, read: Callable[[bytes], T], tries: _Tries | None = None) -> T:
        """Send a request until it is answered, and return what `read` makes of the body. Raises EngramClientError."""

        async def once(tries: _Tries) -> T:
            answer = await self._wire.request(request, tries.left)
            if answer.status >= 300:
                raise _refusal(_problem(answer.status, answer.content), answer.headers.get("Retry-After", ""))
            with _reading(answer.content):
                return read(answer.content)

        return await self._persist(once, tries or self._tries())

    async def _persist(self, once: Callable[[_Tries], Awaitable[T]], tries: _Tries) -> T:
        """Try something until it is not lost."""
        while True:
            try:
                return await once(tries)
            except _Lost as lost:
                pause = tries.pause(lost)
            await self._wire.pause(pause)


class AsyncSession:
    """An open session: one task at a time may use it, and one client at a time step it."""

    def __init__(self, client: AsyncClient, document: Mapping[str, Any]) -> None:
        self.id: str = document["id"]
        self.model: str = document["model"]
        self.memory_size: int | None = document["memory_size"]
        self.step: int = document["step"]
        """The number of steps that the session has taken, as far as this client knows."""
        self._client = client
        self._path = f"/sessions/{_quoted(self.id)}"
        self._in_doubt = False
        """Whether a call of `run` ended without an answer, and may have been carried out."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self.model} at step {self.step}>"

    async def run(self, inputs: ArrayLike, trace: Iterable[str] = ()) -> Stepped:
        """Step over inputs, [T, input_size], or [T] of tokens: all of them, once, or none.

        When it was interrupted or Unreachable, the same call again is still carried out once. Raises Conflict where
        somebody else has stepped the session; the member `step` of its problem tells how far it is.
        """
        sequence, names = _sequence(inputs), _names(trace)
        document = {"inputs": sequence.tolist(), "trace": names, "if_step": self.step}
        tries = self._client._tries()
        tries.reached = self._in_doubt
        self._in_doubt = True
        try:
            request = _post(f"{self._path}/steps", document)
            stepped = await self._client._send(request, lambda content: _stepped(json.loads(content)), tries)
        except Conflict as conflict:
            found = await self._find(sequence, names, conflict) if tries.reached else None
            if found is None:
                raise
            stepped = found
        self._in_doubt = False
        self.step = stepped.step
        return stepped

    async def _find(self, sequence: Array, names: Sequence[str], conflict: Conflict) -> Stepped | None:
        """Return what the next steps gave, if they have been taken, over this very sequence."""
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

    def stream(self, dtype: str = "float32", scale: float = 1.0) -> "AsyncStream":
        """Return a stream over WebSocket, which is to be entered.

        Inputs that are arrays of float16 or int16 are sent as such; those of int16 count times `scale`. dtype: in which
        the server sends outputs and traces, float32 or float16; they come as float32 arrays all the same.
        """
        return AsyncStream(self, self._client, f"{self._path}/stream", dtype, scale)

    async def state(self, names: Iterable[str] | None = None, step: int | None = None) -> dict[str, Array]:
        """Return the state after a step, or after the last: its leaves by name, without a batch axis."""
        chosen = None if names is None else ",".join(_names(names))
        request = _get(f"{self._path}/state", SAFETENSORS, names=chosen, step=step)
        return await self._client._send(request, _leaves)

    async def fork(self, step: int | None = None) -> "AsyncSession":
        """Return a new session with the same past up to a step, or up to the last."""
        return await self._client._session(_post(f"{self._path}/fork", {"step": step}))

    async def rewind(self, step: int) -> None:
        """Put the session to where it was after a step; until the next step, it can also be put forward again."""
        await self._move(_post(f"{self._path}/rewind", {"step": step}))

    async def reset(self) -> None:
        """Go back to before the first step; streams are to be entered anew."""
        await self._move(_post(f"{self._path}/reset", {}))

    async def _move(self, request: _Request) -> None:
        _, self.step = await self._client._send(request, _kept)
        self._in_doubt = False

    async def recording(
        self, start: int | None = None, stop: int | None = None, trace: Iterable[str] = ()
    ) -> AsyncGenerator[Recorded, None]:
        """Yield the steps after `start`, if not given all that are kept, up to `stop` or where the session is now."""
        names = ",".join(_names(trace)) or None
        if start is None or stop is None:
            oldest, step = await self._client._send(_get(self._path), _kept)
            start = min(oldest, step) if start is None else start
            stop = step if stop is None else stop
        for first in range(start, stop, PAGE):
            query = {"from": first, "to": min(first + PAGE, stop), "trace": names}
            for recorded in await self._client._send(_get(f"{self._path}/recording", JSON_LINES, **query), _steps):
                yield recorded

    async def snapshot(self, step: int | None = None) -> bytes:
        """Return the session, as it is or as it was after a step, as a safetensors file that `restore` takes."""
        return await self._client._send(_get(f"{self._path}/snapshot", SAFETENSORS, step=step), bytes)

    async def delete(self) -> None:
        """End the session."""
        tries = self._client._tries()
        try:
            await self._client._send(_Request("DELETE", self._path), bytes, tries)
        except SessionGone as gone:
            if not tries.reached or gone.problem.get("reason") != "deleted":
                raise


@dataclass(eq=False)
class _Frame:
    seq: int
    data: bytes
    """The frame as it is sent, and sent again."""
    outcome: Stepped | EngramClientError | None = None
    """None until it is answered or refused."""


class AsyncStream:
    """A session's frames over WebSocket: one task at a time may use it.

    Frames are numbered from the one after the last that the server has carried out, and kept until their answers come:

        frame          0     1     2     3     4     5     6
                    |---- answered ---|--- unanswered ---|  <- next
        carried out                   |--?--|--?--|--?--|

    After a loss the server's greeting names a frame from the last answered to the last sent, and the unanswered are
    sent again, in order: the server answers each, and carries out those that it has not.
    """

    def __init__(self, session: AsyncSession, client: AsyncClient, path: str, dtype: str, scale: float) -> None:
        self.session = session
        self._dtype = dtype
        self._scale = scale
        self._client = client
        self._path = path
        self._socket: _Socket | None = None
        self._unanswered: deque[_Frame] = deque()
        self._sent = 0
        """How many of the unanswered were sent over this socket."""
        self._answered = -1
        """The number of the last frame that was answered, -1 for none."""
        self._next: int | None = None
        """The number of the next frame, None until the stream is entered."""

    async def __aenter__(self) -> Self:
        await self._client._persist(self._connect, self._client._tries())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the frames under way, unless there is an error, and close the socket."""
        try:
            while kind is None and self._unanswered:
                await self._receive()
        finally:
            self._next = None
            self._give_up(EngramClientError({"code": "stream_left", "detail": "the stream was left before the answer"}))
            await self._disconnect()

    async def run(self, inputs: ArrayLike, trace: Iterable[str] = ()) -> Stepped:
        """Step over inputs, [T, input_size], or [T] of tokens: all of them, once, or none.

        A call that is interrupted or Unreachable is not taken back: as long as the stream is used, its frame is sent
        until it is answered. So is one that `map` has taken.
        """
        return await self._outcome(await self._put(inputs, trace))

    async def map(
        self,
        sequences: Iterable[ArrayLike] | AsyncIterable[ArrayLike],
        trace: Iterable[str] = (),
        window: int = 16,
    ) -> AsyncGenerator[Stepped, None]:
        """Run one sequence after the other and yield what each gave, with up to `window` of them under way."""
        under_way: deque[_Frame] = deque()
        names = _names(trace)
        async for inputs in _each(sequences):
            if len(under_way) == window:
                yield await self._outcome(under_way.popleft())
            under_way.append(await self._put(inputs, names))
        while under_way:
            yield await self._outcome(under_way.popleft())

    async def _put(self, inputs: ArrayLike, trace: Iterable[str]) -> _Frame:
        """Take a frame, and send it if there is a connection; else it is sent when an answer is waited for."""
        if self._next is None:
            raise RuntimeError("a stream is to be entered first: with session.stream() as stream")
        if self._socket is None and not self._unanswered:
            await self._client._persist(self._connect, self._client._tries())  # the greeting may change self._next
        document = {"seq": self._next, "inputs": _packed(_sequence(inputs), self._scale), "trace": _names(trace)}
        if self._dtype != "float32":
            document["dtype"] = self._dtype
        frame = _Frame(self._next, msgpack.packb(document))
        self._unanswered.append(frame)
        self._next += 1
        try:
            await self._flush()
        except _Lost:
            await self._disconnect()
        return frame

    async def _outcome(self, frame: _Frame) -> Stepped:
        while frame.outcome is None:
            await self._receive()
        if isinstance(frame.outcome, EngramClientError):
            raise frame.outcome
        return frame.outcome

    async def _receive(self) -> None:
        """Wait until the first of the unanswered frames has an outcome. Raises Unreachable."""
        try:
            answer = await self._client._persist(self._answer, self._client._tries())
        except Unreachable:
            raise
        except EngramClientError as refused:  # the first; none behind it was carried out
            self._give_up(refused)
            return
        frame = self._unanswered.popleft()
        self._sent -= 1
        self._answered = frame.seq
        self.session.step = answer["step"]
        frame.outcome = _answer_lost(frame.seq) if answer.get("duplicate") else _stepped(answer)

    def _give_up(self, error: EngramClientError) -> None:
        for frame in self._unanswered:
            frame.outcome = error
        self._unanswered.clear()

    async def _answer(self, tries: _Tries) -> dict[str, Any]:
        """Return the answer to the first of the unanswered frames, if no connection is lost meanwhile."""
        try:
            await self._connect(tries)
            await self._flush()
            assert self._socket is not None, "connected"
            while True:
                answer = _unpacked(await self._socket.receive(tries.left))
                if answer["seq"] == self._unanswered[0].seq:
                    return answer
        except (_Lost, EngramClientError):
            await self._disconnect()
            raise

    async def _flush(self) -> None:
        """Send the unanswered frames that were not sent over this socket."""
        while self._socket is not None and self._sent < len(self._unanswered):
            await self._socket.send(self._unanswered[self._sent].data)
            self._sent += 1

    async def _connect(self, tries: _Tries) -> None:
        """Connect, unless it is, and hear where the session stands."""
        if self._socket is not None:
            return
        socket = await self._client._wire.connect(self._path, tries.left)
        try:
            self._greeted(_unpacked(await socket.receive(tries.left)))
        except BaseException:
            await socket.close()
            raise
        self._socket, self._sent = socket, 0

    def _greeted(self, greeting: Mapping[str, Any]) -> None:
        """Learn which frame was carried out last. Raises Conflict where it can be none of this stream's."""
        last = -1 if greeting["seq"] is None else int(greeting["seq"])
        if self._next is not None and not self._answered <= last < self._next:
            raise Conflict(
                {
                    "code": "sequence_conflict",
                    "status": 409,
                    "detail": f"session {self.session.id} is at step {greeting['step']} after frame {greeting['seq']}, "
                    f"but a frame from {self._answered} to {self._next - 1} was expected: it was rewound or reset, "
                    "somebody else streams it, or the server lost steps. Enter a new stream to go on from there",
                    "step": greeting["step"],
                }
            )
        if not self._unanswered:
            self._answered, self._next = last, last + 1
            self.session.step = greeting["step"]

    async def _disconnect(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()


class Client:
    """The client of a server; threads may share it.

    url: http://HOST:PORT, or https. timeout: seconds for which a call is tried until there is an answer, math.inf for
    ever. headers: sent with every request, such as a proxy asks for.
    """

    def __init__(self, url: str, timeout: float = 60.0, headers: Mapping[str, str] | None = None) -> None:
        wire = _BlockingWire(url.rstrip("/"), headers or {})
        self._client = AsyncClient(url, timeout, wire=wire)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        _now(self._client.close())

    def models(self) -> list[dict[str, Any]]:
        """Return the cards of the models that are served."""
        return _now(self._client.models())

    def model(self, name: str) -> dict[str, Any]:
        """Return the card of a model."""
        return _now(self._client.model(name))

    def infer(self, model: str, inputs: ArrayLike, trace: Iterable[str] = (), memory_size: int | None = None) -> Result:
        """Run one sequence, [T, input_size], or [T] of tokens, from a fresh state that is not kept."""
        return _now(self._client.infer(model, inputs, trace, memory_size))

    def infer_many(
        self, model: str, sequences: Iterable[ArrayLike], trace: Iterable[str] = (), memory_size: int | None = None
    ) -> list[Result]:
        """Run sequences of any lengths together, each from a fresh state that is not kept."""
        return _now(self._client.infer_many(model, sequences, trace, memory_size))

    def open(self, model: str, memory_size: int | None = None) -> "Session":
        """Open a session."""
        return Session(_now(self._client.open(model, memory_size)))

    def restore(self, snapshot: bytes, model: str | None = None) -> "Session":
        """Open a session that goes on from a snapshot, of this server or another.

        model: the name that the snapshot's model has here, where it is not the one that it had there.
        """
        return Session(_now(self._client.restore(snapshot, model)))

    def session(self, session_id: str) -> "Session":
        """Return an open session, at the step that it has reached."""
        return Session(_now(self._client.session(session_id)))

    def sessions(self, model: str | None = None, limit: int = 100) -> list["Session"]:
        """Return the open sessions, of one model or of all, the most recently used first."""
        return [Session(session) for session in _now(self._client.sessions(model, limit))]


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
    def step(self) -> int:
        """Return the number of steps that the session has taken, as far as this client knows."""
        return self._session.step

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self.model} at step {self.step}>"

    def run(self, inputs: ArrayLike, trace: Iterable[str] = ()) -> Stepped:
        """Step over inputs, [T, input_size], or [T] of tokens: all of them, once, or none.

        When it was interrupted or Unreachable, the same call again is still carried out once. Raises Conflict where
        somebody else has stepped the session; the member `step` of its problem tells how far it is.
        """
        return _now(self._session.run(inputs, trace))

    def stream(self, dtype: str = "float32", scale: float = 1.0) -> "Stream":
        """Return a stream over WebSocket, which is to be entered.

        Inputs that are arrays of float16 or int16 are sent as such; those of int16 count times `scale`. dtype: in which
        the server sends outputs and traces, float32 or float16; they come as float32 arrays all the same.
        """
        return Stream(self, self._session.stream(dtype, scale))

    def state(self, names: Iterable[str] | None = None, step: int | None = None) -> dict[str, Array]:
        """Return the state after a step, or after the last: its leaves by name, without a batch axis."""
        return _now(self._session.state(names, step))

    def fork(self, step: int | None = None) -> "Session":
        """Return a new session with the same past up to a step, or up to the last."""
        return Session(_now(self._session.fork(step)))

    def rewind(self, step: int) -> None:
        """Put the session to where it was after a step; until the next step, it can also be put forward again."""
        _now(self._session.rewind(step))

    def reset(self) -> None:
        """Go back to before the first step; streams are to be entered anew."""
        _now(self._session.reset())

    def recording(
        self, start: int | None = None, stop: int | None = None, trace: Iterable[str] = ()
    ) -> Iterator[Recorded]:
        """Yield the steps after `start`, if not given all that are kept, up to `stop` or where the session is now."""
        return _iterate(self._session.recording(start, stop, trace))

    def snapshot(self, step: int | None = None) -> bytes:
        """Return the session, as it is or as it was after a step, as a safetensors file that `restore` takes."""
        return _now(self._session.snapshot(step))

    def delete(self) -> None:
        """End the session."""
        _now(self._session.delete())


class Stream:
    """A session's frames over WebSocket: one thread at a time may use it."""

    def __init__(self, session: Session, stream: AsyncStream) -> None:
        self.session = session
        self._stream = stream

    def __enter__(self) -> Self:
        _now(self._stream.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the frames under way, unless there is an error, and close the socket."""
        _now(self._stream.__aexit__(kind, error, traceback))

    def run(self, inputs: ArrayLike, trace: Iterable[str] = ()) -> Stepped:
        """Step over inputs, [T, input_size], or [T] of tokens: all of them, once, or none.

        A call that is interrupted or Unreachable is not taken back: as long as the stream is used, its frame is sent
        until it is answered. So is one that `map` has taken.
        """
        return _now(self._stream.run(inputs, trace))

    def map(self, sequences: Iterable[ArrayLike], trace: Iterable[str] = (), window: int = 16) -> Iterator[Stepped]:
        """Run one sequence after the other and yield what each gave, with up to `window` of them under way."""
        return _iterate(self._stream.map(sequences, trace, window))


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine over a blocking wire gives."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a wire that blocks does not suspend")


def _iterate(source: AsyncGenerator[T, None]) -> Iterator[T]:
    """Yield what an asynchronous generator over a blocking wire yields."""
    try:
        while True:
            try:
                item = _now(source.__anext__())
            except StopAsyncIteration:
                return
            yield item
    finally:
        _now(source.aclose())


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


# What is sent


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _get(path: str, accept: str = JSON, **query: str | int | None) -> _Request:
    return _Request("GET", path, _without_none(**query), {"Accept": accept})


def _post(path: str, document: Mapping[str, Any]) -> _Request:
    """Return a request that says what it has to say once, however often it is sent."""
    headers = {"Content-Type": JSON, "Idempotency-Key": uuid.uuid4().hex}
    return _Request("POST", path, {}, headers, json.dumps(_without_none(**document)).encode())


def _sequence(inputs: ArrayLike) -> Array:
    """Return inputs as [T, input_size], float16 and int16 as they are, all others as float32. Raises ValueError."""
    with np.errstate(over="ignore"):
        is_compact = isinstance(inputs, np.ndarray) and inputs.dtype.name in COMPACT
        array = np.asarray(inputs, None if is_compact else np.float32)
    if array.ndim not in (1, 2):
        raise ValueError(f"inputs: expected [T, input_size], or [T] of tokens, got shape {list(array.shape)}")
    if not np.isfinite(array).all():
        place = "".join(f"[{index}]" for index in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"inputs{place}: expected a finite number within float32")
    return array if array.ndim == 2 else array[:, np.newaxis]


def _names(names: Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _packed(array: Array, scale: float) -> dict[str, Any]:
    """Return an array as it is sent, in its dtype; scale: of int16."""
    name = array.dtype.name
    packed = {"shape": array.shape, "data": np.ascontiguousarray(array, BYTES[name]).tobytes()}
    if name != "float32":
        packed["dtype"] = name
    return packed | {"scale": scale} if name == "int16" else packed


# What comes


def _array(values: Any) -> Array:
    return np.asarray(values, np.float32)


def _traces(traces: Mapping[str, Any]) -> Traces:
    return {name: _array(values) for name, values in traces.items()}


def _result(content: bytes) -> Result:
    answer = json.loads(content)
    return Result(_array(answer["outputs"]), _traces(answer["trace"]), answer["steps"])


def _results(content: bytes) -> list[Result]:
    answer = json.loads(content)
    traces = [{name: values[b] for name, values in answer["trace"].items()} for b in range(len(answer["steps"]))]
    columns = zip(answer["outputs"], traces, answer["steps"], strict=True)
    return [Result(_array(outputs), _traces(trace), steps) for outputs, trace, steps in columns]


def _kept(content: bytes) -> tuple[int, int]:
    """Return the first step that is kept of a session, but for 0, and the step that it is at."""
    session = json.loads(content)
    return session["oldest"], session["step"]


def _stepped(answer: Mapping[str, Any]) -> Stepped:
    return Stepped(_array(answer["outputs"]), _traces(answer["trace"]), answer["step"])


def _steps(lines: bytes) -> list[Recorded]:
    """Return the steps of a recording. Where it breaks off, its last line has the problem."""
    return [_recorded(json.loads(line)) for line in lines.splitlines()]


def _recorded(line: Mapping[str, Any]) -> Recorded:
    if "error" in line:
        raise _refusal(line["error"])
    return Recorded(line["step"], _array(line["inputs"]), _array(line["outputs"]), _traces(line["trace"]))


def _unpacked(message: str | bytes) -> dict[str, Any]:
    """Return a frame of the server's, its arrays as NumPy arrays. Raises EngramClientError, _Lost for "not now"."""
    if isinstance(message, str):
        raise EngramClientError({"code": "no_subprotocol", "detail": "the server does not speak engram.msgpack"})
    with _reading(message):
        document: dict[str, Any] = msgpack.unpackb(message, object_hook=_unpacked_array)
        if document["type"] == "error":
            raise _refusal(document)
        return document


def _unpacked_array(value: dict[str, Any]) -> Any:
    if not {"shape", "data"} <= value.keys() <= {"shape", "data", "dtype"}:
        return value
    return np.frombuffer(value["data"], BYTES[value.get("dtype", "float32")]).reshape(value["shape"])


def _leaves(data: bytes) -> dict[str, Array]:
    """Return the tensors, all float32, of a safetensors file: the header's size in 8 bytes, header, numbers."""
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    places = {name: [begin + offset for offset in leaf["data_offsets"]] for name, leaf in header.items()}
    return {
        name: np.frombuffer(data[start:stop], "<f4").reshape(header[name]["shape"])
        for name, (start, stop) in places.items()
    }


def _problem(status: int, content: bytes) -> dict[str, Any]:
    """Return the problem document in the body of an answer, or one in its place where a proxy speaks."""
    stranger = {"code": f"http_{status}", "detail": f"HTTP status {status}: {content[:200].decode(errors='replace')}"}
    try:
        told = json.loads(content)
    except ValueError:
        told = None
    return stranger | (told if isinstance(told, dict) else {}) | {"status": status}


def _refusal(problem: Mapping[str, Any], retry_after: str = "") -> Exception:
    """Return what to raise for a problem."""
    status = problem["status"]
    error = KINDS.get(status, ServerError if status >= 500 else EngramClientError)(problem)
    if status not in AWAY:
        return error
    lost = _Lost(str(error), after=float(retry_after) if re.fullmatch("[0-9]+", retry_after) else 0.0)
    lost.__cause__ = error
    return lost


def _answer_lost(seq: int) -> AnswerLost:
    detail = f"frame {seq} was carried out, but its outputs can no longer be computed: the session was rewound or reset"
    return AnswerLost({"code": "answer_lost", "detail": detail})


# Wires


@contextlib.contextmanager
def _border() -> Iterator[None]:
    """Say what the errors of httpx, websockets and sockets mean here."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise _Lost(_described(error), reached=False) from error
    except ConnectionClosed as error:
        raise _closing(error) from error
    except InvalidStatus as error:
        raise _refusal(_problem(error.response.status_code, bytes(error.response.body or b""))) from error
    except (httpx.RequestError, WebSocketException, OSError, EOFError) as error:
        raise _Lost(_described(error)) from error


@contextlib.contextmanager
def _reading(content: bytes) -> Iterator[None]:
    """Raise EngramClientError for an answer that Engram does not give, as when another server listens there."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, msgpack.UnpackException) as error:
        detail = f"the answer is not one of Engram's ({_described(error)}): {content[:200].decode(errors='replace')}"
        raise EngramClientError({"code": "unreadable_answer", "detail": detail}) from error


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _closing(error: ConnectionClosed) -> Exception:
    """Return what the end of a WebSocket means: 4000 + status and 1009 are refusals, all else is a loss."""
    code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
    status = 413 if code == 1009 else code - 4000
    if 400 <= status < 600:
        return _refusal(
            {"code": reason or f"http_{status}", "status": status, "detail": f"closed with {code} {reason}"}
        )
    return _Lost(_described(error))


def _socket_url(url: str, path: str) -> str:
    return "ws" + url.removeprefix("http") + path


def _socket_options(headers: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """Return what both kinds of WebSockets are given. What may wait unread is bounded by the frames under way."""
    return {
        "subprotocols": [Subprotocol("engram.msgpack")],
        "additional_headers": headers,
        "compression": None,
        "open_timeout": min(timeout, CONNECT_SECONDS),
        "close_timeout": CLOSE_SECONDS,
        "max_size": None,
        "max_queue": None,
    }


def _timeouts(timeout: float) -> httpx.Timeout:
    return httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))


@dataclass
class _AsyncioSocket:
    connection: websockets.asyncio.client.ClientConnection

    async def send(self, data: bytes) -> None:
        with _border():
            await self.connection.send(data)

    async def receive(self, timeout: float) -> str | bytes:
        with _border():
            async with asyncio.timeout(timeout):
                return await self.connection.recv()

    async def close(self) -> None:
        await self.connection.close()


class _AsyncioWire:
    """Waits in asyncio."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers
        self._http = httpx.AsyncClient(base_url=url, headers=headers)

    async def request(self, request: _Request, timeout: float) -> _Answer:
        method, path, query, headers, content = request
        with _border():
            answer = await self._http.request(
                method, path, params=query, headers=headers, content=content, timeout=_timeouts(timeout)
            )
        return _Answer(answer.status_code, answer.headers, answer.content)

    async def connect(self, path: str, timeout: float) -> _Socket:
        options = _socket_options(self._headers, timeout)
        with _border():
            return _AsyncioSocket(await websockets.asyncio.client.connect(_socket_url(self._url, path), **options))

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self._http.aclose()


@dataclass
class _BlockingSocket:
    connection: websockets.sync.client.ClientConnection

    async def send(self, data: bytes) -> None:
        with _border():
            self.connection.send(data)

    async def receive(self, timeout: float) -> str | bytes:
        with _border():
            return self.connection.recv(timeout)

    async def close(self) -> None:
        self.connection.close()


class _BlockingWire:
    """Blocks the thread: none of its coroutines suspends."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers
        self._http = httpx.Client(base_url=url, headers=headers)

    async def request(self, request: _Request, timeout: float) -> _Answer:
        method, path, query, headers, content = request
        with _border():
            answer = self._http.request(
                method, path, params=query, headers=headers, content=content, timeout=_timeouts(timeout)
            )
        return _Answer(answer.status_code, answer.headers, answer.content)

    async def connect(self, path: str, timeout: float) -> _Socket:
        options = _socket_options(self._headers, timeout)
        with _border():
            connection = websockets.sync.client.connect(_socket_url(self._url, path), **options)
            return _BlockingSocket(connection.__enter__())

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 (to block is its nature)

    async def close(self) -> None:
        self._http.close()
