"""Clients that step, fork, rewind, reset and delete sessions, and send each request again until it is answered."""

import asyncio
import copy
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgpack
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from benchmarks.chaos.record import (
    KEPT_STEPS,
    Array,
    Lost,
    Track,
    Violation,
    Wait,
    compare,
    expect,
    memory_size,
    read_recording,
)
from benchmarks.chaos.server import LOOK_SECONDS
from models.manifest import read_manifest

PATIENCE = 60.0
"""Seconds for which a request is sent again and again."""

ANSWER_SECONDS = 30.0
"""Seconds that one answer may take."""

SERVICE_RESTART = 1012
"""The close code of a WebSocket after which a client connects again at once."""

PAUSE = 0.1
"""Seconds until a request is sent again."""

REACH = 30
"""Steps that a rewind or a fork goes back, at most."""

MOST_STEPS = 4
"""Steps in one request, at most."""

MOST_SESSIONS = 3
"""Open sessions of one client, at most."""

REFUSALS = (
    *("store_failed", "step_failed", "step_timed_out", "shutting_down", "queue_full", "unavailable"),
    *("session_moved", "session_held", "lease_lost", "server_lost"),
)
"""Codes of temporary errors, after which a request is sent again."""

PROBLEM = "application/problem+json"
PROXY_STATUSES = (502, 503, 504)
"""Statuses by which a proxy says that it has no server, or lost it."""

LOST = (Lost, OSError, httpx.TransportError, WebSocketException)


class Load:
    """Clients in a thread, which run from `with` to its end or to `finish`.

    moves: whether clients also fork, rewind, reset and delete; patient: whether they wait for as long as the
    Retry-After of a refusal says, and connect again at once after 1012; rest: seconds on average between an answer and
    the client's next request. Every other client uses WebSockets.
    """

    def __init__(
        self,
        url: str,
        checkpoint: Path,
        clients: int,
        seed: int = 1,
        moves: bool = True,
        patient: bool = False,
        rest: float = 0.0,
    ) -> None:
        self.url = url
        self.model = checkpoint.name
        self.width = read_manifest(checkpoint).input_size
        self.memory_size = memory_size(checkpoint)
        self.moves = moves
        self.patient = patient
        self.rest = rest
        self.counts: Counter[str] = Counter()
        """Counts of answered requests by their kind, of unanswered ones ("again"), of refusals by their code, of closed
        WebSockets by theirs, and of what only a proxy answered by its status."""
        self.waits: list[Wait] = []
        self.open: list[Track] = []
        self.ended: list[Track] = []
        self.finishing = False
        self.breaking_off = False
        self._clients = [(number, random.Random(f"{seed} {number}")) for number in range(clients)]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        self._running = threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._running.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Cancel all requests. Raises Violation if a client found one."""
        if self._thread.is_alive():
            self.breaking_off = True
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join()
        if error is None:
            self._check()

    def finish(self) -> list[Track]:
        """Wait until the last request of every client is answered, and return the tracks of all sessions."""
        self.finishing = True
        self._thread.join()
        self._check()
        return [*self.open, *self.ended]

    def freeze(self) -> list[Track]:
        """Return a copy of the tracks of all open sessions at one moment."""

        async def copied() -> list[Track]:
            return copy.deepcopy(self.open)

        return asyncio.run_coroutine_threadsafe(copied(), self._loop).result()

    def wait_for(self, answers: int) -> None:
        """Wait until `more` further requests are answered. Raises as `wait_until` does."""
        wanted = self.answers + answers
        self.wait_until(lambda: self.answers >= wanted)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition. Raises Violation if it is not met in time, or if a client found one."""
        end = time.monotonic() + PATIENCE
        while not condition():
            self._check()
            if time.monotonic() > end:
                raise Violation(f"nothing more came within {PATIENCE:g} s; so far: {dict(self.counts)}")
            time.sleep(LOOK_SECONDS)

    @property
    def answers(self) -> int:
        return sum(self.counts[name] for name in ("open", "steps", "frames", "fork", "rewind", "reset", "delete"))

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(self._run_clients())
        self._running.set()
        try:
            await self._task
        except asyncio.CancelledError:
            pass
        except ExceptionGroup as errors:  # of one client or several
            self._error = errors.exceptions[0]
        await asyncio.sleep(PAUSE)  # aborted connections close meanwhile

    async def _run_clients(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, chance in self._clients:
                group.create_task(_Client(self, chance, streams=number % 2 == 1).run())


class _Client:
    """One client with its sessions: one request at a time, sent again until it is answered."""

    def __init__(self, load: Load, chance: random.Random, streams: bool) -> None:
        self._load = load
        self._http = httpx.AsyncClient(base_url=load.url, timeout=ANSWER_SECONDS, verify=False)  # noqa: S501 (no TLS)
        self._chance = chance
        self._streams = streams
        self._tracks: list[Track] = []
        self._sockets: dict[str, ClientConnection] = {}

    async def run(self) -> None:
        try:
            await self._open()
            while not (self._load.finishing or self._load.breaking_off):
                act = self._chance.choices((self._step, self._fork, self._move, self._delete), (90, 4, 5, 3))[0]
                await (act if self._load.moves else self._step)(self._chance.choice(self._tracks))
                await asyncio.sleep(self._chance.uniform(0, 2 * self._load.rest))
        finally:
            for session in list(self._sockets):
                self._hang_up(session)
            await self._http.aclose()

    async def _open(self) -> None:
        key = self._key()

        async def once(_: bool) -> str:
            body = {"model": self._load.model, "memory_size": self._load.memory_size}
            answer = await self._request("POST", "/sessions", body, key)
            return str(expect(answer, 201)["id"])

        self._add(Track(await self._persist("open", once)))

    async def _step(self, track: Track) -> None:
        steps = self._chance.randint(1, MOST_STEPS)
        values = [[self._chance.random() for _ in range(self._load.width)] for _ in range(steps)]
        inputs = track.pending = np.array(values, np.float32)
        if self._streams:
            outputs = await self._persist("frames", lambda again: self._send_frame(track, inputs, again), track.id)
            track.seq = _next(track.seq)
        else:
            outputs = await self._persist("steps", lambda again: self._post_steps(track, inputs, again), track.id)
        track.pending = None
        track.extend(inputs, outputs)

    async def _fork(self, track: Track) -> None:
        step, key = self._near(track), self._key()

        async def once(_: bool) -> str:
            answer = await self._request("POST", f"/sessions/{track.id}/fork", {"step": step}, key)
            return str(expect(answer, 201)["id"])

        if len(self._tracks) < MOST_SESSIONS:
            self._add(track.fork(await self._persist("fork", once), step))

    async def _move(self, track: Track) -> None:
        """Rewind or reset: both go to a step, so they can be repeated."""
        resets = self._chance.random() < 0.2
        step = track.pending = 0 if resets else self._near(track)

        async def once(_: bool) -> None:
            path, body = ("reset", None) if resets else ("rewind", {"step": step})
            info = expect(await self._request("POST", f"/sessions/{track.id}/{path}", body), 200)
            if (info["step"], info["latest"]) != (step, len(track.inputs)):
                raise Violation(f"{path} of {track.id} to {step}, of {len(track.inputs)}, gave {info}")

        await self._persist("reset" if resets else "rewind", once, track.id)
        track.head, track.pending = step, None
        track.seq = None if resets else track.seq

    async def _delete(self, track: Track) -> None:
        async def once(again: bool) -> None:
            answer = await self._request("DELETE", f"/sessions/{track.id}")
            if not (again and answer.status_code == 410):
                expect(answer, 204)

        if len(self._tracks) > 1:
            self._tracks.remove(track)
            self._load.open.remove(track)
            await self._persist("delete", once)
            self._load.ended.append(track)
            self._hang_up(track.id)

    def _hang_up(self, session: str) -> None:
        if session in self._sockets:
            self._sockets.pop(session).transport.abort()

    def _add(self, track: Track) -> None:
        self._tracks.append(track)
        self._load.open.append(track)

    def _near(self, track: Track) -> int:
        """Return a step that is kept, not far from the last."""
        last = len(track.inputs)
        return self._chance.randint(min(last, max(0, last - REACH, track.furthest - KEPT_STEPS)), last)

    def _key(self) -> str:
        return f"{self._chance.getrandbits(64):x}"

    async def _persist(self, name: str, once: Callable[[bool], Awaitable[Any]], session: str = "") -> Any:
        """Repeat a request until it is answered. once: takes whether it was tried before. Raises Violation."""
        began, again = time.monotonic(), 0
        while True:
            try:
                result = await once(again > 0)
            except LOST as error:
                if time.monotonic() > began + PATIENCE:
                    raise Violation(f"{name}: no answer within {PATIENCE:g} s; at last: {error!r}") from error
                self._load.counts["again"] += 1
                if self._load.breaking_off:  # a cancellation that a library has turned into another error
                    raise asyncio.CancelledError from error
                again += 1
                await asyncio.sleep(self._pause(error))
            else:
                self._load.counts[name] += 1
                self._load.waits.append(Wait(session, began, time.monotonic(), again))
                return result

    def _pause(self, error: Exception) -> float:
        """Return the seconds until a request is sent again."""
        if not self._load.patient:
            return PAUSE
        if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == SERVICE_RESTART:
            return 0.0
        return error.after if isinstance(error, Lost) else PAUSE

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, key: str | None = None
    ) -> httpx.Response:
        """Return an answer. Raises Lost for a temporary refusal."""
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await self._http.request(method, path, json=body, headers=headers)
        if answer.status_code in PROXY_STATUSES and answer.headers.get("Content-Type") != PROBLEM:
            self._load.counts[f"proxy {answer.status_code}"] += 1
            raise Lost(answer.text, PAUSE)
        if answer.status_code >= 500:
            self._refused(answer.json())
        return answer

    def _refused(self, problem: Mapping[str, Any]) -> None:
        """Raise Lost for a temporary refusal, Violation for any other."""
        if problem["code"] not in REFUSALS:
            raise Violation(f"the server answered: {problem}")
        self._load.counts[problem["code"]] += 1
        at_once = problem["code"] == "session_moved"
        raise Lost(problem["detail"], 0.0 if at_once else problem.get("retry_after", 1.0))

    async def _post_steps(self, track: Track, inputs: Array, again: bool) -> Array:
        """Return the outputs of steps; if they were taken already, but not answered, from the recording."""
        after = track.head + len(inputs)
        body = {"inputs": inputs.tolist(), "if_step": track.head}
        answer = await self._request("POST", f"/sessions/{track.id}/steps", body)
        if again and answer.status_code == 409 and answer.json().get("step") == after:
            path = f"/sessions/{track.id}/recording?from={track.head}&to={after}"
            recorded = read_recording((await self._request("GET", path)).text)
            compare(f"inputs of {track.id} from step {track.head}", recorded.inputs, inputs)
            return recorded.outputs
        taken = expect(answer, 200)
        if taken["step"] != after:
            raise Violation(f"session {track.id} is at step {taken['step']}, not {after}")
        return np.array(taken["outputs"], np.float32)

    async def _send_frame(self, track: Track, inputs: Array, again: bool) -> Array:
        """Return the outputs of a frame, which may have been sent before."""
        after = track.head + len(inputs)
        try:
            socket = self._sockets.get(track.id) or await self._connect(track, after, again)
            array = {"shape": inputs.shape, "data": inputs.tobytes()}
            await socket.send(msgpack.packb({"seq": _next(track.seq), "inputs": array}))
            reply = await self._receive(socket)
        except LOST as error:
            if isinstance(error, ConnectionClosed) and error.rcvd:
                self._load.counts[f"close {error.rcvd.code}"] += 1
            self._hang_up(track.id)
            raise
        if (reply["seq"], reply["step"]) != (_next(track.seq), after) or "outputs" not in reply:
            raise Violation(f"session {track.id} at step {track.head}, frame {_next(track.seq)}: {reply}")
        return np.frombuffer(reply["outputs"]["data"], "<f4").reshape(reply["outputs"]["shape"])

    async def _connect(self, track: Track, after: int, again: bool) -> ClientConnection:
        url = f"{self._load.url.replace('http', 'ws', 1)}/sessions/{track.id}/stream"
        protocols = [Subprotocol("engram.msgpack")]
        socket = await connect(url, subprotocols=protocols, compression=None, ping_interval=None, proxy=None)
        self._sockets[track.id] = socket
        greeting = await self._receive(socket)
        at = greeting["seq"], greeting["step"]
        if at != (track.seq, track.head) and not (again and at == (_next(track.seq), after)):
            raise Violation(f"session {track.id}: greeted with {at}, but it was at {(track.seq, track.head)}")
        return socket

    async def _receive(self, socket: ClientConnection) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            reply: dict[str, Any] = msgpack.unpackb(await socket.recv())
        if reply["type"] == "error":
            self._refused(reply)
        return reply


def _next(seq: int | None) -> int:
    return 0 if seq is None else seq + 1
