"""Session-steps per second served over WebSocket, beside the same model stepped directly at the same batch.

Both run on this machine, one after the other in each round: the server in a process of its own, its clients in this
one, and then the back end alone in this one. A client sends a step, waits for the answer, and sends the next. Before
anything is timed, what the sessions answer is compared with what the back end computes. Figures are medians of rounds;
on a busy machine only the ratio means something.
"""

import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgpack
import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from app.backends.base import Array, Backend
from app.backends.fused import FusedBackend
from app.backends.onnx import OnnxBackend
from benchmarks.machine import machine, versions
from benchmarks.timing import check_close, seconds_per_call
from models.manifest import read_manifest

CHECKED_STEPS = 20
TOLERANCE = 1e-3
PROTOCOL = "engram.msgpack"
BACKENDS: dict[str, Callable[[Path, int], FusedBackend | OnnxBackend]] = {"fused": FusedBackend, "onnx": OnnxBackend}


def run(checkpoints: Path, model: str, sessions: Sequence[int], backend: str, rounds: int, seconds: float) -> None:
    """Print the rates of one model at each number of concurrent sessions."""
    print(f"{model} by the {backend} back end, one thread; {machine()}; {versions('onnxruntime', 'uvicorn')}")
    print(f"median of {rounds} rounds of {seconds:g} s; server and clients share the cores")
    print(f"{'sessions':>8} {'served steps/s':>15} {'direct steps/s':>15} {'served/direct':>14}")
    directory, make = checkpoints / model, BACKENDS[backend]
    with running_server(checkpoints, max(sessions), backend) as url:
        asyncio.run(check(url, model, make(directory, 1)))
        for count in sessions:
            served, direct = [], []
            for _ in range(rounds):
                served.append(asyncio.run(measure_served(url, model, directory, count, seconds)))
                direct.append(measure_direct(make(directory, count), count, seconds))
            rates = statistics.median(served), statistics.median(direct)
            print(f"{count:>8} {rates[0]:>15,.0f} {rates[1]:>15,.0f} {rates[0] / rates[1]:>14.2f}", flush=True)


@contextmanager
def running_server(checkpoints: Path, sessions: int, backend: str) -> Iterator[str]:
    """Run `engram serve` on a free port and give its WebSocket address."""
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("w+") as log:
        command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--checkpoints", str(checkpoints)]
        command += ["--data", directory, "--max-batch", str(sessions), "--backend", backend]
        with subprocess.Popen(command, stderr=log) as server:
            try:
                while not (found := re.search(r"look at http(://\S+) in", Path(log.name).read_text())):
                    if server.poll() is not None:
                        sys.exit(Path(log.name).read_text())
                    time.sleep(0.05)
                yield "ws" + found[1]
            finally:
                server.terminate()


def random_inputs(rows: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 2, (rows, width)).astype(np.float32)


def frame(inputs: Array) -> bytes:
    packed: bytes = msgpack.packb({"inputs": {"shape": inputs.shape, "data": inputs.tobytes()}})
    return packed


async def check(url: str, model: str, backend: Backend) -> None:
    """Compare what a session answers with what the back end computes."""
    slot = backend.open()
    async with connect(f"{url}/stream?model={model}", subprotocols=[PROTOCOL]) as socket:  # type: ignore[list-item]
        await socket.recv()
        for step in range(CHECKED_STEPS):
            inputs = random_inputs(1, backend.spec.input_size, step)
            expected, _ = backend.step([slot], inputs)
            await socket.send(frame(inputs))
            outputs = np.frombuffer(msgpack.unpackb(await socket.recv())["outputs"]["data"], "<f4")
            check_close(f"{model}: outputs over WebSocket", outputs, expected[0], TOLERANCE)


async def measure_served(url: str, model: str, directory: Path, sessions: int, seconds: float) -> float:
    """Return the steps per second of so many sessions, each with one step under way at a time."""
    sockets = [
        await connect(f"{url}/stream?model={model}", subprotocols=[PROTOCOL], compression=None)  # type: ignore[list-item]
        for _ in range(sessions)
    ]
    for socket in sockets:
        await socket.recv()
    message = frame(random_inputs(1, read_manifest(directory).input_size, 0))
    began = time.perf_counter()
    counts = await asyncio.gather(*(step_until(socket, message, began + seconds) for socket in sockets))
    elapsed = time.perf_counter() - began
    await asyncio.gather(*(socket.close() for socket in sockets))
    return sum(counts) / elapsed


async def step_until(socket: ClientConnection, message: bytes, end: float) -> int:
    count = 0
    while time.perf_counter() < end:
        await socket.send(message)
        await socket.recv()
        count += 1
    return count


def measure_direct(backend: Backend, sessions: int, seconds: float) -> float:
    """Return the steps per second of the back end alone at this batch size."""
    slots = [backend.open() for _ in range(sessions)]
    inputs = random_inputs(sessions, backend.spec.input_size, 0)
    return sessions / seconds_per_call(lambda: backend.step(slots, inputs), seconds)
