"""`engram serve` in a process of its own, and the clients that load it, in this one.

A client sends a step, waits for the answer, and sends the next. Before anything is timed, the answers of a session are
compared with the outputs of the back end.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from app.backends.base import Array, Backend
from app.backends.fused import FusedBackend
from app.backends.onnx import OnnxBackend
from benchmarks.timing import check_close

CHECKED_STEPS = 20
TOLERANCE = 1e-3
PROTOCOL = "engram.msgpack"
BACKENDS: dict[str, Callable[[Path, int], FusedBackend | OnnxBackend]] = {"fused": FusedBackend, "onnx": OnnxBackend}


@dataclass(frozen=True)
class Server:
    """A listening server."""

    address: str
    """Host and port."""
    process: "subprocess.Popen[bytes]"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def cpu_seconds(self) -> float:
        """The processor time so far of all its threads and child processes. Needs Linux."""
        return cpu_seconds(self.process.pid)

    def memory(self, what: str = "VmRSS") -> float:
        """Return its resident memory in MB. what: VmRSS for the present one, VmHWM for the peak. Needs Linux."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{what}:\s+(\d+) kB$", status, re.M)
        assert found, f"no {what} in /proc"
        return int(found[1]) * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    """Return the processor time so far of a process and all of its descendants. Needs Linux."""
    return sum(map(_ticks, family(pid))) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> Iterator[int]:
    """Yield a process and all of its descendants. Needs Linux."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, children.read_text().split()):
                yield from family(child)


def _ticks(pid: int) -> int:
    """Return the processor time of a process and of its children that have ended, in ticks of the system's clock.

    A process that has just ended is counted with its parent.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, after_name[11:15]))


@contextmanager
def running_server(checkpoints: Path, data: Path, *flags: str) -> Iterator[Server]:
    """Run a server on a free port with its data in `data`."""
    with running([sys.executable, "-m", "engram", *serve_words(checkpoints, data, *flags)]) as server:
        yield server


def serve_words(checkpoints: Path, data: Path, *flags: str) -> list[str]:
    """Return the words behind `engram` that run a server on a free port with its data in `data`."""
    places = "--checkpoints", str(checkpoints), "--data", str(data)
    return ["serve", "--port", "0", *places, *flags]


@contextmanager
def running(command: Sequence[str]) -> Iterator[Server]:
    """Run a server that prints its address on stderr, in words such as: on http://127.0.0.1:8000 in, or (."""
    with (
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log.fileno()) as process,
    ):
        try:
            yield listening(process, Path(log.name))
        finally:
            process.terminate()


def listening(process: "subprocess.Popen[bytes]", log: Path) -> Server:
    """Return the server of a process once its address is in its log. Raises SystemExit with the log if it has ended."""
    while not (found := re.search(r"(?:look at|on) http://(\S+) ", log.read_text())):
        if process.poll() is not None:
            sys.exit(log.read_text())
        time.sleep(0.05)
    return Server(found[1], process)


def random_inputs(rows: int, width: int, seed: int) -> Array:
    """Return bits, [rows, width]."""
    return np.random.default_rng(seed).integers(0, 2, (rows, width)).astype(np.float32)


def frame(inputs: Array) -> bytes:
    """Return the message that requests these steps, [T, input_size]."""
    packed: bytes = msgpack.packb({"inputs": {"shape": inputs.shape, "data": inputs.tobytes()}})
    return packed


@dataclass(eq=False)
class SessionSocket:
    """A session and its WebSocket."""

    socket: ClientConnection
    session: str
    answers: int = 0

    async def step(self, message: bytes) -> bytes:
        """Send a message and return the answer."""
        await self.socket.send(message)
        answer = await self.socket.recv(decode=False)
        self.answers += 1
        return answer


@asynccontextmanager
async def streams(address: str, model: str, sessions: int) -> AsyncIterator[list[SessionSocket]]:
    """Open `count` sessions, each with a WebSocket of its own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_stream(address, model)) for _ in range(sessions)]


@asynccontextmanager
async def _stream(address: str, model: str) -> AsyncIterator[SessionSocket]:
    protocols = [Subprotocol(PROTOCOL)]
    url = f"ws://{address}/stream?model={model}"
    async with connect(url, subprotocols=protocols, compression=None, ping_interval=None) as socket:
        yield SessionSocket(socket, msgpack.unpackb(await socket.recv())["session"])


async def check(address: str, model: str, backend: Backend) -> None:
    """Compare the answers of a session with the outputs of the back end. Raises WrongOutputs."""
    slot = backend.open()
    async with streams(address, model, 1) as [stream]:
        for step in range(CHECKED_STEPS):
            inputs = random_inputs(1, backend.spec.input_size, step)
            expected, _ = backend.step([slot], inputs)
            outputs = np.frombuffer(msgpack.unpackb(await stream.step(frame(inputs)))["outputs"]["data"], "<f4")
            check_close(f"{model}: outputs over WebSocket", outputs, expected[0], TOLERANCE)


async def steps_per_second(opened: Sequence[SessionSocket], message: bytes, seconds: float) -> float:
    """Step all sessions for `seconds`, each with one step in flight."""
    before, began = _answers(opened), time.perf_counter()
    await asyncio.gather(*(_step_until(stream, message, began + seconds) for stream in opened))
    return (_answers(opened) - before) / (time.perf_counter() - began)


async def _step_until(stream: SessionSocket, message: bytes, end: float) -> None:
    while time.perf_counter() < end:
        await stream.step(message)


def _answers(opened: Sequence[SessionSocket]) -> int:
    return sum(stream.answers for stream in opened)
