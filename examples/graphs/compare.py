"""Import graphs, serve them, and compare every step with onnxruntime's own loop over the original file.

python examples/graphs/compare.py runs/graphs silero policy      # runs/graphs/silero.onnx by fetch.py, ... by make.py

Sessions stream their steps at once, each over a WebSocket of its own; in the middle the server is killed by SIGKILL
and started again; in the end every session is forked in its middle, and the fork goes on with other inputs.
"""

import argparse
import asyncio
import itertools
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from own_loops import LOOPS, Array, run_alone

from engram_client import AsyncClient, AsyncSession

ENGRAM = [sys.executable, "-m", "engram"]
FRAME = 10  # steps
ROUNDING = 1e-4


class Server:
    """`engram serve` on a port of 127.0.0.1 that stays the same."""

    def __init__(self, checkpoints: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        places = ["--checkpoints", checkpoints, "--data", checkpoints / "data", "--port", str(self.port)]
        self._command = [*ENGRAM, "serve", *places]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()


async def step(session: AsyncSession, inputs: Array, after_frame: Callable[[], object]) -> Array:
    """Return the outputs of inputs, [T, I]."""
    outputs = []
    async with session.stream() as stream:
        async for stepped in stream.map(np.split(inputs, range(FRAME, len(inputs), FRAME)), window=2):
            outputs.append(stepped.outputs)
            after_frame()
    return np.concatenate(outputs)


async def serve(model: str, server: Server, inputs: Array, others: Array) -> tuple[Array, Array]:
    """Return the outputs of sessions [B, T, O] for inputs [B, T, I], and of forks in their middle for others."""
    half, frames = inputs.shape[1] // 2, itertools.count(1)

    def kill_in_the_middle() -> None:
        if next(frames) == len(inputs) * half // FRAME:
            server.restart()

    async with AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        sessions = [await client.open(model) for _ in inputs]
        outputs = await asyncio.gather(
            *(step(*each, kill_in_the_middle) for each in zip(sessions, inputs, strict=True))
        )
        assert next(frames) > len(inputs) * half // FRAME, "the server was killed"
        forks = [await session.fork(half) for session in sessions]
        forked = await asyncio.gather(*(step(*each, int) for each in zip(forks, others, strict=True)))
    return np.stack(outputs), np.stack(forked)


def draw(manifest: dict, shape: tuple[int, int], generator: np.random.Generator) -> Array:
    """Return random inputs, [B, T, I], within the range of the graph's one input."""
    low, high = manifest["config"]["graph"]["inputs"][0]["range"] or (-2, 2)
    return generator.uniform(low, high, (*shape, manifest["input_size"])).astype(np.float32)


def compare(name: str, graphs: Path, sessions: int, steps: int) -> list[str]:
    """Return a row of the table. Ends the program if an output is not that of the graph's own loop."""
    file, spec = graphs / f"{name}.onnx", Path(__file__).with_name(f"{name}.toml")
    with tempfile.TemporaryDirectory() as directory:
        out, began = Path(directory) / name, time.perf_counter()
        words = ["import", file, "--format", "onnx", "--spec", spec, "--out", out]
        subprocess.run([*ENGRAM, *words], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        manifest = json.loads((out / "manifest.json").read_text())
        inputs, others = (draw(manifest, (sessions, steps), np.random.default_rng(seed)) for seed in (0, 1))
        others = others[:, : steps // 2]
        server = Server(out.parent)
        try:
            outputs, forked = asyncio.run(serve(name, server, inputs, others))
        finally:
            server.kill()
    alone = [run_alone(name, file, row) for row in inputs]
    pasts = np.concatenate([inputs[:, : steps // 2], others], 1)
    alone_forked = [run_alone(name, file, row)[steps // 2 :] for row in pasts]
    verified = manifest["training"]["verified"]
    difference = check(name, verified["difference"], (outputs, alone), (forked, alone_forked))
    lines = [line for line in spec.read_text().splitlines() if line and not line.startswith("#")]
    costs = (f"{verified['microseconds'][rows]:,.0f}" for rows in ("1", "64"))
    graph = manifest["config"]["graph"]
    return [name, graph["about"]["license"], str(len(lines)), f"{seconds:.1f}", graph["form"], difference, *costs]


def check(name: str, verified: float, *pairs: tuple[Array, list[Array]]) -> str:
    """Return how equal outputs are to those of the own loops; verified: the difference that the import found."""
    differences = [float(np.abs(ours - theirs).max()) for ours, theirs in pairs]
    exact = all(ours.tobytes() == np.stack(theirs).tobytes() for ours, theirs in pairs)
    allowed = ROUNDING if verified else 0
    if not exact and not max(differences) <= allowed:
        sys.exit(f"{name}: outputs differ by {max(differences):.2g} from its own loop; expected at most {allowed:g}")
    return "to the bit" if exact else f"to {max(differences):.1g}"


HEAD = ("model", "licence", "spec lines", "import, s", "form", "equal to its own loop", "us, 1 row", "us, 64 rows")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Import graphs, serve them, and compare them with their own loops.")
    parser.add_argument("graphs", type=Path, help="the directory of NAME.onnx")
    parser.add_argument("names", nargs="+", choices=LOOPS, metavar="NAME", help=", ".join(LOOPS))
    parser.add_argument("--sessions", type=int, default=8, help="at once (8)")
    parser.add_argument("--steps", type=int, default=1000, help="of each session (1000)")
    options = parser.parse_args()
    print(f"{options.sessions} sessions of {options.steps} steps, SIGKILL in the middle, and a fork of each")
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    for name in options.names:
        print(f"| {' | '.join(compare(name, options.graphs, options.sessions, options.steps))} |", flush=True)
