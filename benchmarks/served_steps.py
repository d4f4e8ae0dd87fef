"""Session-steps per second served over WebSocket, beside the same model stepped directly at the same batch.

Both run on this machine, one after the other in each round: the server in a process of its own, its clients in this
one, and then the back end alone in this one. A client sends a step, waits for the answer, and sends the next. Before
anything is timed, what the sessions answer is compared with what the back end computes. Figures are medians of rounds;
on a busy machine only the ratio means something.

    python benchmarks/served_steps.py --model dnc-copy --sessions 1 32 256
"""

import argparse
import asyncio
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from app.backends.base import Array, Backend
from app.backends.fused import FusedBackend
from app.backends.onnx import OnnxBackend
from models.manifest import read_manifest

ROOT = Path(__file__).parents[1]
CHECKED_STEPS = 20
TOLERANCE = 1e-3
PROTOCOL = "engram.msgpack"
BACKENDS: dict[str, Callable[[Path, int], FusedBackend | OnnxBackend]] = {"fused": FusedBackend, "onnx": OnnxBackend}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "checkpoints", help="directory of the models")
    parser.add_argument("--model", default="dnc-copy", help="which of them")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 32, 256], help="concurrent sessions")
    parser.add_argument("--seconds", type=float, default=3, help="time of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of which the median is taken")
    parser.add_argument("--backend", choices=BACKENDS, default="fused", help="what computes the steps")
    options = parser.parse_args()

    print(
        f"{options.model} by the {options.backend} back end, one thread; {platform.machine()}, {os.cpu_count()} cores"
    )
    print(f"median of {options.rounds} rounds of {options.seconds:g} s; server and clients share the cores")
    print(f"{'sessions':>8} {'served steps/s':>15} {'direct steps/s':>15} {'served/direct':>14}")
    directory = options.checkpoints / options.model
    backend = BACKENDS[options.backend]
    with running_server(options.checkpoints, max(options.sessions), options.backend) as url:
        asyncio.run(check(url, options.model, backend(directory, 1)))
        for sessions in options.sessions:
            served, direct = [], []
            for _ in range(options.rounds):
                served.append(asyncio.run(measure_served(url, options.model, directory, sessions, options.seconds)))
                direct.append(measure_direct(backend(directory, sessions), sessions, options.seconds))
            rates = statistics.median(served), statistics.median(direct)
            print(f"{sessions:>8} {rates[0]:>15,.0f} {rates[1]:>15,.0f} {rates[0] / rates[1]:>14.2f}", flush=True)


@contextmanager
def running_server(checkpoints: Path, sessions: int, backend: str) -> Iterator[str]:
    """Run `engram serve` on a free port and give its WebSocket address."""
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("w+") as log:
        command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--checkpoints", str(checkpoints)]
        command += ["--data", directory, "--max-batch", str(sessions), "--backend", backend]
        with subprocess.Popen(command, stderr=log, cwd=ROOT) as server:
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
            np.testing.assert_allclose(outputs, expected[0], atol=TOLERANCE)


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
    ticks, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        backend.step(slots, inputs)
        ticks += 1
    return ticks * sessions / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
