"""Kill a server at random moments under load, and compare its state with the answers that clients got.

python -m benchmarks.chaos

    server    starts--serving-----X  starts--serving---X  X starts--serving-------------> stops
    clients         step, fork ...?     ?...again           ?...again, step ...  finish
    checker                                                                      compare everything

Every client records each answer: outputs of steps over HTTP (if_step) and over WebSocket (seq), forks, rewinds, resets
and deletions. It sends unanswered requests again. At the end all outputs are compared, bit for bit, with an undisturbed
run of the same inputs by the fused back end in this process; and each session's step, recording, state and next step
with the record.
"""

import argparse
import asyncio
import copy
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgpack
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from tqdm import tqdm
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from app.backends.fused import FusedBackend
from benchmarks.machine import machine, versions
from models.manifest import read_manifest

Array = NDArray[np.float32]

STARTUP_SECONDS = 60.0
PATIENCE = 60.0
"""Seconds for which a request is sent again and again."""

ANSWER_SECONDS = 30.0
"""Seconds that one answer may take."""

PAUSE = 0.1
"""Seconds until a request is sent again."""

LOOK_SECONDS = 0.02
"""Seconds between two looks at a condition."""

REACH = 30
"""Steps that a rewind or a fork goes back, at most."""

KEPT_STEPS = 50
MOST_STEPS = 4
"""Steps in one request, at most."""

MEMORY_SIZE = 4
"""Memory locations of a session, if it has a memory: a small state has many snapshots."""

MOST_SESSIONS = 3
"""Open sessions of one client, at most."""

STARTING = 0.2
STARTING_SECONDS = 0.8
"""The share of the servers that is killed during the start, and within how many seconds."""

REFUSALS = ("store_failed", "step_failed", "step_timed_out", "shutting_down", "queue_full", "unavailable")
"""Codes of temporary errors, after which a request is sent again."""


class Violation(AssertionError):
    """A broken promise of the server; the message names it and the session."""


class Lost(Exception):
    """The error of a request that was not carried out, or not answered; it is sent again."""


LOST = (Lost, OSError, httpx.TransportError, WebSocketException)


class Server:
    """`engram serve` in a process of its own, on a port that stays the same when it is started again.

    module: the Python module to run instead of the command, with its flags; environment: more variables for it.
    """

    def __init__(
        self,
        checkpoints: Path,
        data: Path,
        *arguments: str,
        module: str = "engram",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.data = data
        self._log = data.with_suffix(".log")
        self._command = [sys.executable, "-m", module, "serve", "--port", self.url.rpartition(":")[2]]
        self._command += ["--checkpoints", str(checkpoints), "--data", str(data), "--backend", "fused", *arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENGRAM_")}
        self._environment = inherited | dict(environment or {})

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    @property
    def log(self) -> str:
        """The server's output since its last start."""
        return self._log.read_text()

    def start(self) -> None:
        with self._log.open("w") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def wait_until_ready(self) -> float:
        """Return the seconds until the server has taken a step. Raises Violation if it ends instead."""
        began = time.monotonic()
        while time.monotonic() - began < STARTUP_SECONDS and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            time.sleep(LOOK_SECONDS)
        raise Violation(f"the server did not start:\n{self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, if the server still runs, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=STARTUP_SECONDS)


@dataclass(eq=False)
class Track:
    """A client's record of a session.

        inputs    |----------------------------------|
        outputs   |----------------------------------|
                                     head, after a rewind; else the end

    The next steps after a rewind replace those behind the head. furthest: the last step ever of the session and of its
    origin: the KEPT_STEPS before are kept. seq: the last frame that was answered. pending: a request that may have been
    carried out, steps or the head after a move. answered: the time of each answered step, in seconds of
    time.monotonic().
    """

    id: str
    inputs: list[Array] = field(default_factory=list)
    outputs: list[Array] = field(default_factory=list)
    head: int = 0
    furthest: int = 0
    seq: int | None = None
    pending: "Array | int | None" = None
    branches: list[tuple[list[Array], list[Array]]] = field(default_factory=list)
    answered: list[tuple[float, int]] = field(default_factory=list)

    def extend(self, inputs: Array, outputs: Array) -> None:
        """Record the answer to steps, [T, input_size] and [T, output_size]."""
        if self.head < len(self.inputs):
            self.branches.append((self.inputs, self.outputs))
        self.inputs = [*self.inputs[: self.head], *inputs]
        self.outputs = [*self.outputs[: self.head], *outputs]
        self.furthest = max(self.furthest if self.head else 0, len(self.inputs))
        self.head = len(self.inputs)
        self.answered.append((time.monotonic(), self.head))

    def fork(self, session: str, step: int) -> "Track":
        return Track(session, self.inputs[:step], self.outputs[:step], step, self.furthest)

    def possible(self) -> list[tuple[list[Array], int]]:
        """Return the possible inputs and heads of the session: one pair, or two while a request is pending."""
        known = [(self.inputs, self.head)]
        if isinstance(self.pending, int):
            known.append((self.inputs, self.pending))
        elif self.pending is not None:
            inputs = [*self.inputs[: self.head], *self.pending]
            known.append((inputs, len(inputs)))
        return known


class RecordedSteps(NamedTuple):
    """The steps of a recording: inputs [T, input_size], outputs [T, output_size]."""

    inputs: Array
    outputs: Array


class Load:
    """Clients in a thread, which run from `with` to its end or to `finish`.

    moves: whether clients also fork, rewind, reset and delete. Every other client uses WebSockets.
    """

    def __init__(self, url: str, checkpoint: Path, clients: int, seed: int = 1, moves: bool = True) -> None:
        self.url = url
        self.model = checkpoint.name
        self.width = read_manifest(checkpoint).input_size
        self.memory_size = memory_size(checkpoint)
        self.moves = moves
        self.counts: Counter[str] = Counter()
        """Counts of answered requests by their kind, of unanswered ones ("again"), and of refusals by their code."""
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
        finally:
            for session in list(self._sockets):
                self._hang_up(session)
            await self._http.aclose()

    async def _open(self) -> None:
        key = self._key()

        async def once(_: bool) -> str:
            body = {"model": self._load.model, "memory_size": self._load.memory_size}
            answer = await self._request("POST", "/sessions", body, key)
            return str(_expect(answer, 201)["id"])

        self._add(Track(await self._persist("open", once)))

    async def _step(self, track: Track) -> None:
        steps = self._chance.randint(1, MOST_STEPS)
        values = [[self._chance.random() for _ in range(self._load.width)] for _ in range(steps)]
        inputs = track.pending = np.array(values, np.float32)
        if self._streams:
            outputs = await self._persist("frames", lambda again: self._send_frame(track, inputs, again))
            track.seq = _next(track.seq)
        else:
            outputs = await self._persist("steps", lambda again: self._post_steps(track, inputs, again))
        track.pending = None
        track.extend(inputs, outputs)

    async def _fork(self, track: Track) -> None:
        step, key = self._near(track), self._key()

        async def once(_: bool) -> str:
            answer = await self._request("POST", f"/sessions/{track.id}/fork", {"step": step}, key)
            return str(_expect(answer, 201)["id"])

        if len(self._tracks) < MOST_SESSIONS:
            self._add(track.fork(await self._persist("fork", once), step))

    async def _move(self, track: Track) -> None:
        """Rewind or reset: both go to a step, so they can be repeated."""
        resets = self._chance.random() < 0.2
        step = track.pending = 0 if resets else self._near(track)

        async def once(_: bool) -> None:
            path, body = ("reset", None) if resets else ("rewind", {"step": step})
            info = _expect(await self._request("POST", f"/sessions/{track.id}/{path}", body), 200)
            if (info["step"], info["latest"]) != (step, len(track.inputs)):
                raise Violation(f"{path} of {track.id} to {step}, of {len(track.inputs)}, gave {info}")

        await self._persist("reset" if resets else "rewind", once)
        track.head, track.pending = step, None
        track.seq = None if resets else track.seq

    async def _delete(self, track: Track) -> None:
        async def once(again: bool) -> None:
            answer = await self._request("DELETE", f"/sessions/{track.id}")
            if not (again and answer.status_code == 410):
                _expect(answer, 204)

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

    async def _persist(self, name: str, once: Callable[[bool], Awaitable[Any]]) -> Any:
        """Repeat a request until it is answered. once: takes whether it was tried before. Raises Violation."""
        end, again = time.monotonic() + PATIENCE, False
        while True:
            try:
                result = await once(again)
            except LOST as error:
                if time.monotonic() > end:
                    raise Violation(f"{name}: no answer within {PATIENCE:g} s; at last: {error!r}") from error
                self._load.counts["again"] += 1
                if self._load.breaking_off:  # a cancellation that a library has turned into another error
                    raise asyncio.CancelledError from error
                again = True
                await asyncio.sleep(PAUSE)
            else:
                self._load.counts[name] += 1
                return result

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, key: str | None = None
    ) -> httpx.Response:
        """Return an answer. Raises Lost for a temporary refusal."""
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await self._http.request(method, path, json=body, headers=headers)
        if answer.status_code >= 500:
            self._refused(answer.json())
        return answer

    def _refused(self, problem: Mapping[str, Any]) -> None:
        """Raise Lost for a temporary refusal, Violation for any other."""
        if problem["code"] not in REFUSALS:
            raise Violation(f"the server answered: {problem}")
        self._load.counts[problem["code"]] += 1
        raise Lost(problem["detail"])

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
        taken = _expect(answer, 200)
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
        except LOST:
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


class Reference:
    """Undisturbed runs of a checkpoint by the fused back end."""

    def __init__(self, checkpoint: Path) -> None:
        size, backend = memory_size(checkpoint), FusedBackend(checkpoint, 1)
        self._backend = backend if size is None else backend.resized(size)
        self._slot = self._backend.open()
        self.width = self._backend.spec.input_size

    def run(self, inputs: Sequence[Array]) -> tuple[Array, dict[str, Array]]:
        """Return the outputs, [T, output_size], of steps from the first state, and the state after them."""
        self._backend.write(self._slot, None)
        rows = [self._backend.step([self._slot], step[np.newaxis])[0][0] for step in inputs]
        outputs = np.array(rows, np.float32).reshape(len(rows), self._backend.spec.output_size)
        return outputs, self._backend.read(self._slot)


def check_answers(tracks: Sequence[Track], reference: Reference) -> int:
    """Compare every answered output with an undisturbed run; return their number. Raises Violation."""
    count = 0
    for track in tracks:
        for inputs, outputs in [*track.branches, (track.inputs, track.outputs)]:
            compare(f"answers of {track.id}", np.array(outputs), reference.run(inputs)[0])
            count += len(outputs)
    return count


def check_sessions(url: str, tracks: Sequence[Track], reference: Reference) -> None:
    """Compare a server's open sessions with the clients' records. Raises Violation."""
    with httpx.Client(base_url=url, timeout=ANSWER_SECONDS) as http:
        for track in tracks:
            info = _expect(http.get(f"/sessions/{track.id}"), 200)
            for inputs, head in track.possible():
                if (info["step"], info["latest"]) == (head, len(inputs)) and _has(http, track.id, info, inputs):
                    _check_session(http, track.id, info, inputs, reference)
                    break
            else:
                known = [(head, len(inputs)) for inputs, head in track.possible()]
                raise Violation(f"session {track.id}: {info}, but its step and latest were {known}, or inputs differ")


def check_earlier_sessions(url: str, tracks: Sequence[Track], reference: Reference, moment: float) -> None:
    """Check that each session of clients without moves is at a step that it was at, no earlier than the last one that
    was answered before a moment of time.monotonic(). Raises Violation."""
    with httpx.Client(base_url=url, timeout=ANSWER_SECONDS) as http:
        for track in tracks:
            info = _expect(http.get(f"/sessions/{track.id}"), 200)
            least = max((step for answered, step in track.answered if answered < moment), default=0)
            inputs = track.possible()[-1][0][: info["step"]]
            if not least <= info["step"] == len(inputs):
                raise Violation(f"session {track.id}: {info}, but it had answered step {least}, of {track.head}")
            if not _has(http, track.id, info, inputs):
                raise Violation(
                    f"session {track.id}: its inputs up to step {info['step']} are not those that were sent"
                )
            _check_session(http, track.id, info, inputs, reference)


def check_ended(url: str, tracks: Sequence[Track]) -> None:
    """Check that sessions are gone. Raises Violation."""
    with httpx.Client(base_url=url, timeout=ANSWER_SECONDS) as http:
        for track in tracks:
            _expect(http.get(f"/sessions/{track.id}"), 410)


def check_count(url: str, open_now: int) -> None:
    """Check the number of open sessions: none was opened twice. Raises Violation."""
    found = len(httpx.get(f"{url}/sessions?limit=1000").json())
    if found != open_now:
        raise Violation(f"{found} sessions are open, but clients know of {open_now}")


def compare(what: str, found: Array, expected: Array) -> None:
    """Raise Violation unless two arrays are equal, bit for bit."""
    if found.shape != expected.shape and not found.size == expected.size == 0:
        raise Violation(f"{what}: the shape is {found.shape}, not {expected.shape}")
    wrong = [step for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)) if (ours != theirs).any()]
    if wrong:
        raise Violation(f"{what}: {len(wrong)} of {len(expected)} differ, the first at {wrong[0]}")


def read_recording(text: str) -> RecordedSteps:
    """Return the steps of a recording. Raises Lost if it breaks off."""
    lines = [json.loads(line) for line in text.splitlines()]
    broken = [line["error"]["detail"] for line in lines if "error" in line]
    if broken:
        raise Lost(broken[0])
    return RecordedSteps(*(np.array([line[name] for line in lines], np.float32) for name in ("inputs", "outputs")))


def memory_size(checkpoint: Path) -> int | None:
    """Return the memory size of the sessions, None for a model without a memory."""
    return MEMORY_SIZE if "memory_size" in read_manifest(checkpoint).config else None


def _has(http: httpx.Client, session: str, info: Mapping[str, Any], inputs: Sequence[Array]) -> bool:
    """Return whether the kept inputs of a session's recording are these."""
    return np.array_equal(_recorded(http, session, info).inputs.ravel(), np.array(inputs[info["oldest"] :]).ravel())


def _check_session(
    http: httpx.Client, session: str, info: Mapping[str, Any], inputs: Sequence[Array], reference: Reference
) -> None:
    """Compare the recording, the state and one more step of a session with an undisturbed run."""
    compare(
        f"recording of {session}", _recorded(http, session, info).outputs, reference.run(inputs)[0][info["oldest"] :]
    )
    answer = http.get(f"/sessions/{session}/state", headers={"Accept": "application/x-safetensors"})
    found = safetensors.numpy.load(answer.content)
    past = inputs[: info["step"]]
    for name, leaf in reference.run(past)[1].items():
        compare(f"{name} of {session} at step {info['step']}", found[name].ravel(), leaf.ravel())
    more = np.full((1, reference.width), 0.5, np.float32)
    stepped = _expect(http.post(f"/sessions/{session}/steps", json={"inputs": more.tolist()}), 200)
    expected = reference.run([*past, *more])[0][-1:]
    compare(f"step {info['step']} of {session}", np.array(stepped["outputs"], np.float32), expected)


def _recorded(http: httpx.Client, session: str, info: Mapping[str, Any]) -> RecordedSteps:
    return read_recording(http.get(f"/sessions/{session}/recording", params={"to": info["latest"]}).text)


def _expect(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the body of an answer. Raises Violation unless it has this status."""
    if answer.status_code != status:
        raise Violation(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")
    document: dict[str, Any] = answer.json() if answer.content else {}
    return document


def _next(seq: int | None) -> int:
    return 0 if seq is None else seq + 1


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def only(checkpoint: Path, directory: Path) -> Path:
    """Return a new directory of checkpoints with this one alone, of which a server starts fast."""
    checkpoints = directory / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / checkpoint.name).symlink_to(checkpoint.resolve())
    return checkpoints


def kill_again_and_again(server: Server, load: Load, kills: int, seconds: float, chance: random.Random) -> list[float]:
    """Kill a running server `kills` times and start it again: most live for `seconds` on average, some less.

    It is killed once more when the clients have finished, so that its last answers are read from its files.
    Returns the seconds until the servers were ready, of those that were not killed before. Raises Violation.
    """
    ready = []
    for _ in tqdm(range(kills), desc="kills", leave=False, disable=None):
        server.stop(signal.SIGKILL)
        server.start()
        if chance.random() < STARTING:
            time.sleep(chance.uniform(0, STARTING_SECONDS))
        else:
            ready.append(server.wait_until_ready())
            load.wait_for(1)
            time.sleep(chance.uniform(0, 2 * seconds))
    load.finish()
    server.stop(signal.SIGKILL)
    server.start()
    server.wait_until_ready()
    return ready


def check(server: Server, load: Load, checkpoint: Path) -> int:
    """Wait for the clients, compare all of their answers, and return the number of outputs. Raises Violation."""
    tracks, reference = load.finish(), Reference(checkpoint)
    steps = check_answers(tracks, reference)
    check_count(server.url, len(load.open))
    check_sessions(server.url, load.open, reference)
    check_ended(server.url, load.ended)
    return steps


def run(checkpoint: Path, clients: int, kills: int, seconds: float, seed: int) -> None:
    """Kill a server under load, and print the kills and comparisons. Raises Violation."""
    print(f"{checkpoint.name}, {clients} clients, {kills} kills, lives of {seconds:g} s on average, seed {seed}")
    print(f"{machine()}; {versions('uvicorn', 'httpx', 'websockets')}; server and clients share the cores", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "data")
        with (
            Server(only(checkpoint, Path(directory)), data, "--keep-steps", str(KEPT_STEPS)) as server,
            Load(server.url, checkpoint, clients, seed) as load,
        ):
            ready = kill_again_and_again(server, load, kills, seconds, random.Random(seed))
            steps = check(server, load, checkpoint)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(load.counts.items()))
    print(f"answered: {counts}")
    print(f"ready again after {np.median(ready):.1f} s, at most {max(ready):.1f} s")
    print(f"{steps} outputs compared, {len(load.open)} sessions open, {len(load.ended)} deleted: none lost, none twice")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description="Kill a server under load, and compare what its clients were answered with an undisturbed run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/dnc-copy"), help="the model to serve")
    parser.add_argument("--clients", type=int, default=64, help="clients, every other one over WebSocket")
    parser.add_argument("--kills", type=int, default=200, help="times that the server is killed")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds that it lives, on average")
    parser.add_argument("--seed", type=int, default=1, help="of what the clients do, and when the server is killed")
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
