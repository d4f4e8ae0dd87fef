"""A session's frames over WebSocket, each carried out once and answered, though connections drop."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgpack
from numpy.typing import ArrayLike

from engram_client.blocking import iterate, now
from engram_client.connection import Connection
from engram_client.errors import Conflict, EngramClientError, Lost, Unreachable, answer_lost
from engram_client.messages import names_of, packed, read_frame, read_stepped, sequence_of
from engram_client.results import Stepped
from engram_client.retries import Tries
from engram_client.wires import Socket

if TYPE_CHECKING:
    from engram_client.sessions import AsyncSession, Session

T = TypeVar("T")


@dataclass(eq=False)
class _Frame:
    seq: int
    data: bytes
    """The bytes of the frame, the same whenever it is sent."""
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

    def __init__(self, session: "AsyncSession", client: Connection, path: str, dtype: str, scale: float) -> None:
        self.session = session
        self._dtype = dtype
        self._scale = scale
        self._client = client
        self._path = path
        self._socket: Socket | None = None
        self._unanswered: deque[_Frame] = deque()
        self._sent = 0
        """The number of unanswered frames that were sent over this socket."""
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

        A call that is interrupted or Unreachable stays in the stream, as do the inputs that `map` has read: as long as
        the stream is used, their frames are sent until they are answered.
        """
        return await self._outcome(await self._put(inputs, trace))

    async def map(
        self,
        sequences: Iterable[ArrayLike] | AsyncIterable[ArrayLike],
        trace: Iterable[str] = (),
        window: int = 16,
    ) -> AsyncGenerator[Stepped, None]:
        """Run one sequence after the other and yield the result of each, with up to `window` of them under way."""
        under_way: deque[_Frame] = deque()
        names = names_of(trace)
        async for inputs in _each(sequences):
            if len(under_way) == window:
                yield await self._outcome(under_way.popleft())
            under_way.append(await self._put(inputs, names))
        while under_way:
            yield await self._outcome(under_way.popleft())

    async def _put(self, inputs: ArrayLike, trace: Iterable[str]) -> _Frame:
        """Add a frame, and send it if there is a connection; else it is sent when an answer is waited for."""
        if self._next is None:
            raise RuntimeError("the stream is not entered: use it within `with session.stream() as stream:`")
        if self._socket is None and not self._unanswered:
            await self._client._persist(self._connect, self._client._tries())  # the greeting may change self._next
        document = {"seq": self._next, "inputs": packed(sequence_of(inputs), self._scale), "trace": names_of(trace)}
        if self._dtype != "float32":
            document["dtype"] = self._dtype
        frame = _Frame(self._next, msgpack.packb(document))
        self._unanswered.append(frame)
        self._next += 1
        try:
            await self._flush()
        except Lost:
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
        frame.outcome = answer_lost(frame.seq) if answer.get("duplicate") else read_stepped(answer)

    def _give_up(self, error: EngramClientError) -> None:
        for frame in self._unanswered:
            frame.outcome = error
        self._unanswered.clear()

    async def _answer(self, tries: Tries) -> dict[str, Any]:
        """Return the answer to the first of the unanswered frames. Raises Lost when the connection drops."""
        try:
            await self._connect(tries)
            await self._flush()
            assert self._socket is not None, "connected"
            while True:
                answer = read_frame(await self._socket.receive(tries.left))
                if answer["seq"] == self._unanswered[0].seq:
                    return answer
        except (Lost, EngramClientError):
            await self._disconnect()
            raise

    async def _flush(self) -> None:
        """Send the unanswered frames that were not sent over this socket."""
        while self._socket is not None and self._sent < len(self._unanswered):
            await self._socket.send(self._unanswered[self._sent].data)
            self._sent += 1

    async def _connect(self, tries: Tries) -> None:
        """Connect if necessary, and read the greeting."""
        if self._socket is not None:
            return
        socket = await self._client._wire.connect(self._path, tries.left)
        try:
            self._greeted(read_frame(await socket.receive(tries.left)))
        except BaseException:
            await socket.close()
            raise
        self._socket, self._sent = socket, 0

    def _greeted(self, greeting: Mapping[str, Any]) -> None:
        """Note the last frame that was carried out. Raises Conflict where it is none of this stream's."""
        last = -1 if greeting["seq"] is None else int(greeting["seq"])
        if self._next is not None and not self._answered <= last < self._next:
            raise Conflict(
                {
                    "code": "sequence_conflict",
                    "status": 409,
                    "detail": f"session {self.session.id} is at step {greeting['step']} after frame {greeting['seq']}, "
                    f"but a frame from {self._answered} to {self._next - 1} was expected: it was rewound or reset, "
                    "another client streams it, or the server lost steps. Enter a new stream to go on from there",
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


class Stream:
    """A session's frames over WebSocket: one thread at a time may use it."""

    def __init__(self, session: "Session", stream: AsyncStream) -> None:
        self.session = session
        self._stream = stream

    def __enter__(self) -> Self:
        now(self._stream.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the frames under way, unless there is an error, and close the socket."""
        now(self._stream.__aexit__(kind, error, traceback))

    def run(self, inputs: ArrayLike, trace: Iterable[str] = ()) -> Stepped:
        """Step over inputs, [T, input_size], or [T] of tokens: all of them, once, or none.

        A call that is interrupted or Unreachable stays in the stream, as do the inputs that `map` has read: as long as
        the stream is used, their frames are sent until they are answered.
        """
        return now(self._stream.run(inputs, trace))

    def map(self, sequences: Iterable[ArrayLike], trace: Iterable[str] = (), window: int = 16) -> Iterator[Stepped]:
        """Run one sequence after the other and yield the result of each, with up to `window` of them under way."""
        return iterate(self._stream.map(sequences, trace, window))


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
