"""Session-steps per second served over WebSocket, beside the same model stepped directly at the same batch.

Both run on this machine, one after the other in each round: the server in a process of its own, its clients in this
one, and then the back end alone in this one. Figures are medians of rounds; on a busy machine only the ratio means
something.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from app.backends.base import Backend
from benchmarks.machine import machine, versions
from benchmarks.server import BACKENDS, check, frame, random_inputs, running_server, steps_per_second, streams
from benchmarks.table import Row, Table, print_table
from benchmarks.timing import seconds_per_call
from models.manifest import read_manifest


class ServedPlan(NamedTuple):
    """Settings of the table."""

    address: str
    model: str
    directory: Path
    make: Callable[[Path, int], Backend]
    sessions: Sequence[int]
    rounds: int
    seconds: float


def run(checkpoints: Path, model: str, sessions: Sequence[int], backend: str, rounds: int, seconds: float) -> None:
    """Print the rates of one model at each number of concurrent sessions."""
    print(f"{model} by the {backend} back end, one thread; {machine()}; {versions('onnxruntime', 'uvicorn')}")
    print(f"median of {rounds} rounds of {seconds:g} s; server and clients share the cores", flush=True)
    directory, make = checkpoints / model, BACKENDS[backend]
    flags = ("--max-batch", str(max(sessions)), "--backend", backend)
    with tempfile.TemporaryDirectory() as data, running_server(checkpoints, Path(data), *flags) as server:
        asyncio.run(check(server.address, model, make(directory, 1)))
        print_table("served", SERVED, ServedPlan(server.address, model, directory, make, sessions, rounds, seconds))


def _rows(plan: ServedPlan) -> Iterator[Row]:
    for count in plan.sessions:
        served, direct = [], []
        for _ in range(plan.rounds):
            served.append(asyncio.run(measure_served(plan.address, plan.model, plan.directory, count, plan.seconds)))
            direct.append(measure_direct(plan.make(plan.directory, count), count, plan.seconds))
        rates = statistics.median(served), statistics.median(direct)
        yield count, *rates, rates[0] / rates[1]


SERVED = Table[ServedPlan](
    "Served steps",
    "Session-steps per second over WebSocket, beside those of the back end alone at the same batch.",
    ("sessions", "served steps/s", "direct steps/s", "served/direct"),
    _rows,
)


async def measure_served(address: str, model: str, directory: Path, sessions: int, seconds: float) -> float:
    """Return the steps per second of `count` sessions, each with one step in flight."""
    message = frame(random_inputs(1, read_manifest(directory).input_size, 0))
    async with streams(address, model, sessions) as opened:
        return await steps_per_second(opened, message, seconds)


def measure_direct(backend: Backend, sessions: int, seconds: float) -> float:
    """Return the steps per second of the back end alone at this batch size."""
    slots = [backend.open() for _ in range(sessions)]
    inputs = random_inputs(sessions, backend.spec.input_size, 0)
    return sessions / seconds_per_call(lambda: backend.step(slots, inputs), seconds)
